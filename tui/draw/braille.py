"""The whole picture of some curves: frame, ticks, grid, braille, marks for NaN, a letter at the right end of each curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mltrack.tui.draw.raster import Curve, rasterize, thin
from mltrack.tui.draw.scales import Scale, ScaleName, choose_scale, choose_ticks, label_ticks, widen
from mltrack.tui.draw.time_ticks import date_ticks, duration_ticks

__all__ = [
    "GRID",
    "Curve",
    "Frame",
    "Plot",
    "Span",
    "View",
    "choose_frame",
    "curve_letter",
    "curve_letters",
    "draw_plot",
]

_BRAILLE = 0x2800
GRID = -2
"""The "curve" of a span of the grid."""
_GRID_POINT, _GRID_EVERY = "·", 4
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_NOT_A_NUMBER, _INFINITE = "×", "∞"
_TAIL_QUANTILE = 0.01


@dataclass(frozen=True)
class View:
    """What part is shown and how; None means all of it."""

    x_low: float | None = None
    x_high: float | None = None
    y_low: float | None = None
    y_high: float | None = None
    y_scale: ScaleName = "linear"
    ignore_outliers: bool = False
    ascii: bool = False
    letters: bool = True
    """Write a curve's letter at its right end when there is more than one."""
    x_kind: Literal["count", "number", "date", "duration"] = "count"
    """How x is written: counts with SI letters, plain numbers, dates (x is ms since 1970), durations (x is seconds)."""
    x_labels: bool = True
    gutter: int = 0
    """At least so many cells for the labels of y, frame included."""
    grid: bool = False


@dataclass(frozen=True)
class Span:
    """A piece of a line: the text, and the curve whose colour it has (-1: it belongs to the frame; GRID: to the grid)."""

    text: str
    curve: int


@dataclass(frozen=True)
class Plot:
    """Lines from top to bottom, each as wide as asked for; `notes` are sentences for below."""

    rows: tuple[tuple[Span, ...], ...]
    notes: tuple[str, ...]
    gutter: int = 0
    """Cells left of the inside."""
    inside: int = 0
    """Cells of the inside across."""

    @property
    def lines(self) -> tuple[str, ...]:
        return tuple("".join(span.text for span in row).rstrip() for row in self.rows)


@dataclass(frozen=True)
class Frame:
    """The axes of a picture: scales, ticks of y with their labels, and the cells that those take."""

    x_scale: Scale
    y_scale: Scale
    y_ticks: tuple[tuple[float, str], ...]
    gutter: int
    notes: tuple[str, ...]


def curve_letter(index: int) -> str:
    """a, b, ... z, aa, ab, ...: colour is never the only sign of a curve, and no two have the same."""
    more, last = divmod(index, len(_LETTERS))
    return (curve_letter(more - 1) if more else "") + _LETTERS[last]


def curve_letters(count: int) -> list[str]:
    """The letters of so many curves, equally wide."""
    wide = len(curve_letter(max(0, count - 1)))
    return [f"{curve_letter(index):<{wide}}" for index in range(count)]


def choose_frame(curves: Sequence[Curve], width: int, height: int, view: View) -> Frame:
    """The axes of a picture of this size. Charts that stand below each other share the widest gutter of their frames."""
    x_scale, y_scale, notes = _choose_scales(curves, view)
    rows = max(1, height - (2 if view.x_labels else 1))
    most = max(2, rows // 2 + 1 if rows <= 10 else max(6, rows // 3 + 1))
    if view.y_low is None and view.y_high is None:
        y_scale = widen(y_scale, most)
    ticks = choose_ticks(y_scale, most)
    labels = label_ticks(ticks)
    gutter = max(view.gutter, max(len(label) for label in labels) + 2)
    return Frame(x_scale, y_scale, tuple(zip(ticks, labels, strict=True)), gutter, tuple(notes))


def draw_plot(
    curves: Sequence[Curve], width: int, height: int, view: View | None = None, frame: Frame | None = None
) -> Plot:
    """The whole picture, `width` x `height` cells (at least 20 x 4): frame, ticks, curves, letters, marks for NaN."""
    view = view or View()
    width, height = max(20, width), max(4, height)
    low, high = _x_edges(curves, view)
    if view.y_scale != "log" and not view.ignore_outliers:
        curves = thin(curves, low, high, 2 * width)
    frame = frame or choose_frame(curves, width, height, replace(view, x_low=low, x_high=high))
    x_scale, y_scale = frame.x_scale, frame.y_scale
    gutter = max(frame.gutter, view.gutter)
    inside_height = height - (2 if view.x_labels else 1)
    inside_width = max(4, width - gutter)
    label_rows: dict[int, str] = {}
    for tick, label in frame.y_ticks:
        place = float(y_scale.place(np.array([tick]))[0])
        row = inside_height - 1 - min(inside_height - 1, max(0, int(place * inside_height)))
        label_rows.setdefault(row, label)

    dots, owner = rasterize(curves, inside_width, inside_height, x_scale, y_scale)
    cells = _cells(dots, owner, curves, view)
    _mark_specials(cells, owner, curves, x_scale)
    if view.letters and sum(not curve.faint for curve in curves) > 1:
        _write_letters(cells, owner, curves, x_scale, y_scale)
    x_ticks = _choose_x_ticks(x_scale, view, inside_width)
    columns = [_column_of(x_scale, tick, inside_width) for tick, _ in x_ticks]
    if view.grid and not view.ascii:
        _draw_grid(cells, owner, label_rows, columns)

    tick_mark, bar, corner, line = ("+", "|", "+", "-") if view.ascii else ("┤", "│", "└", "─")
    rows: list[tuple[Span, ...]] = []
    for row in range(inside_height):
        label = label_rows.get(row, "")
        edge = f"{label:>{gutter - 2}} {tick_mark if label else bar}"
        rows.append((Span(edge, -1), *_spans(cells[row], owner[row])))
    axis = [line] * inside_width
    for column in columns:
        axis[column] = "+" if view.ascii else "┴"
    rows.append((Span(" " * (gutter - 1) + corner + "".join(axis), -1),))
    if view.x_labels:
        labels = [label for _, label in x_ticks]
        rows.append((Span(_place_labels(labels, columns, gutter, inside_width), -1),))
    return Plot(tuple(rows), frame.notes, gutter, inside_width)


def _x_edges(curves: Sequence[Curve], view: View) -> tuple[float, float]:
    """From where to where x goes."""
    low, high = view.x_low, view.x_high
    if low is None:
        low = min((float(curve.x.min()) for curve in curves if len(curve.x)), default=0.0)
    if high is None:
        high = max((float(curve.x.max()) for curve in curves if len(curve.x)), default=1.0)
    return low, high


def _choose_scales(curves: Sequence[Curve], view: View) -> tuple[Scale, Scale, list[str]]:
    notes: list[str] = []
    x_low, x_high = _x_edges(curves, view)
    x_scale = choose_scale(x_low, max(x_low, x_high))

    name = view.y_scale
    lowest, highest = np.inf, -np.inf
    refused = 0
    for curve in curves:
        y = curve.y
        if view.x_low is not None or view.x_high is not None:
            y = y[(curve.x >= x_scale.low) & (curve.x <= x_scale.high)]
        y = y[np.isfinite(y)]
        if name == "log":
            refused += int((y <= 0).sum())
            y = y[y > 0]
        if not len(y):
            continue
        if view.ignore_outliers and len(y) > 20:
            low, high = (float(edge) for edge in np.quantile(y, [_TAIL_QUANTILE, 1 - _TAIL_QUANTILE]))
        else:
            low, high = float(y.min()), float(y.max())
        lowest, highest = min(lowest, low), max(highest, high)
    if refused:
        notes.append(f"{refused:,} values of zero or less have no place on a log axis")
    if lowest > highest:
        lowest, highest, name = (0.0, 1.0, "linear")
    y_low = lowest if view.y_low is None else view.y_low
    y_high = highest if view.y_high is None else view.y_high
    if name == "log" and y_low <= 0:
        y_low = lowest
    return x_scale, choose_scale(y_low, max(y_low, y_high), name), notes


def _cells(
    dots: NDArray[np.uint8], owner: NDArray[np.int16], curves: Sequence[Curve], view: View
) -> list[list[str]]:
    if not view.ascii:
        return [[chr(_BRAILLE + bits) if bits else " " for bits in row] for row in dots.tolist()]
    letters = _letters(curves)
    signs = {index: letters.get(index, ".") if len(letters) > 1 else "*" for index in range(len(curves))}
    # A cell has room for one sign: the two letters of a curve beyond z stand at its end.
    signs.update({index: "+" for index, sign in signs.items() if len(sign) > 1})
    signs.update({index: "." for index, curve in enumerate(curves) if curve.faint})
    return [[signs.get(index, " ") for index in row] for row in owner.tolist()]


def _letters(curves: Sequence[Curve]) -> dict[int, str]:
    """The letter of each curve that is not faint."""
    bright = [index for index, curve in enumerate(curves) if not curve.faint]
    return {index: curve_letter(place) for place, index in enumerate(bright)}


def _mark_specials(
    cells: list[list[str]], owner: NDArray[np.int16], curves: Sequence[Curve], x_scale: Scale
) -> None:
    """NaN shows as a cross at the bottom of its column, infinities at the edge they went to."""
    height, width = owner.shape
    for index, curve in enumerate(curves):
        special = ~np.isfinite(curve.y)
        if curve.faint or not special.any():
            continue
        places = x_scale.place(curve.x[special])
        columns = np.clip(np.rint(places * (2 * width - 1)) // 2, -1, width).astype(np.int64)
        for column, value in dict(zip(columns.tolist(), curve.y[special].tolist(), strict=True)).items():
            if not 0 <= column < width:
                continue
            edge = 0 if value == np.inf else height - 1
            # The free cell nearest to the edge, so that no other curve is painted over.
            free = [row for row in range(height) if cells[row][column] == " "]
            row = min(free, key=lambda row: abs(row - edge), default=edge)
            cells[row][column] = _NOT_A_NUMBER if value != value else _INFINITE
            owner[row, column] = index


def _write_letters(
    cells: list[list[str]], owner: NDArray[np.int16], curves: Sequence[Curve], x_scale: Scale, y_scale: Scale
) -> None:
    """Each curve's letter right of its last point, moved to the nearest free row when another has it."""
    height, width = owner.shape
    letters = _letters(curves)
    taken: set[tuple[int, int]] = set()
    for index, curve in enumerate(curves):
        if curve.faint:
            continue
        places = y_scale.place(curve.y)
        seen = np.flatnonzero(np.isfinite(places) & (curve.x <= x_scale.high) & (curve.x >= x_scale.low))
        if not len(seen):
            continue
        end = int(seen[np.argmax(curve.x[seen])])
        letter = letters[index]
        column = int(float(x_scale.place(curve.x[end : end + 1])[0]) * (width - 1)) + 1
        column = max(0, min(width - len(letter), column))
        level = height - 1 - min(height - 1, max(0, int(float(places[end]) * height)))
        for row in sorted(range(height), key=lambda candidate: abs(candidate - level)):
            places_of_it = {(row, column + place) for place in range(len(letter))}
            if not places_of_it & taken:
                taken |= places_of_it
                cells[row][column : column + len(letter)] = letter
                owner[row, column : column + len(letter)] = index
                break


def _spans(characters: Sequence[str], owners: NDArray[np.int16]) -> list[Span]:
    """Neighbours of one colour in one span: fewer escapes on the wire."""
    spans: list[Span] = []
    text, current = "", -1
    for character, curve in zip(characters, owners.tolist(), strict=True):
        if curve != current and character != " ":
            if text:
                spans.append(Span(text, current))
            text, current = "", int(curve)
        text += character
    if text:
        spans.append(Span(text, current))
    return spans


def _draw_grid(
    cells: list[list[str]], owner: NDArray[np.int16], label_rows: Mapping[int, str], columns: Sequence[int]
) -> None:
    """Points at the ticks' rows, closer together than people need them to be: faint, and under everything."""
    for row in label_rows:
        line = cells[row]
        for column in range(len(line)):
            beside = column - 1 in columns or column + 1 in columns
            if line[column] == " " and column % _GRID_EVERY == 0 and not beside:
                line[column] = _GRID_POINT
                owner[row, column] = GRID
    for column in columns:
        for row in range(len(cells)):
            if cells[row][column] in (" ", _GRID_POINT):
                cells[row][column] = _GRID_POINT
                owner[row, column] = GRID


def _choose_x_ticks(x_scale: Scale, view: View, width: int) -> list[tuple[float, str]]:
    if view.x_kind == "date":
        ticks = date_ticks(x_scale.low, x_scale.high, max(2, width // 14))
    elif view.x_kind == "duration":
        ticks = duration_ticks(x_scale.low, x_scale.high, max(2, width // 12))
    else:
        ticks = []
    if ticks:
        return ticks
    values = choose_ticks(x_scale, max(2, width // 12))
    return list(zip(values, label_ticks(values, counts=view.x_kind == "count"), strict=True))


def _column_of(x_scale: Scale, value: float, width: int) -> int:
    # As the curves' dots lie: two to a column.
    return min(width - 1, max(0, round(float(x_scale.place(np.array([value]))[0]) * (2 * width - 1)) // 2))


def _place_labels(labels: Sequence[str], columns: Sequence[int], gutter: int, width: int) -> str:
    """Each label under its tick, as far as they do not touch."""
    text = [" "] * (gutter + width)
    free_from = 0
    for label, column in zip(labels, columns, strict=True):
        start = min(gutter + width - len(label), max(0, gutter + column - len(label) // 2))
        if start >= free_from:
            text[start : start + len(label)] = label
            free_from = start + len(label) + 1
    return "".join(text)

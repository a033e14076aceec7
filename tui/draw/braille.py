"""Curves as braille: two by four dots to a cell, a spike of one point among a million still drawn.

`draw_plot` is the whole picture with frame, ticks and letters at the right end of each curve; `rasterize` is the inside
alone, for a caller that draws its own frame. Cost follows the number of points once (a few milliseconds per million),
then only the size of the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mltrack.tui.draw.scales import Floats, Scale, ScaleName, choose_scale, choose_ticks, label_ticks

_BRAILLE = 0x2800
# Bit of each dot within its cell, by row and column, as Unicode numbers them.
_DOT_BITS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]], dtype=np.uint8)
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_NOT_A_NUMBER, _INFINITE = "×", "∞"
_TAIL_QUANTILE = 0.01


@dataclass(frozen=True)
class Curve:
    """One line: x and y of equal length; y may hold NaN and infinities, x is finite."""

    name: str
    x: Floats
    y: Floats


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


@dataclass(frozen=True)
class Span:
    """A piece of a line: the text, and the curve whose colour it has (-1: none, it belongs to the frame)."""

    text: str
    curve: int


@dataclass(frozen=True)
class Plot:
    """Lines from top to bottom, each as wide as asked for; `notes` are sentences for below."""

    rows: tuple[tuple[Span, ...], ...]
    notes: tuple[str, ...]

    @property
    def lines(self) -> tuple[str, ...]:
        return tuple("".join(span.text for span in row).rstrip() for row in self.rows)


def curve_letter(index: int) -> str:
    """a, b, ... z, then z for all others: colour is never the only sign of a curve."""
    return _LETTERS[min(index, len(_LETTERS) - 1)]


def rasterize(
    curves: Sequence[Curve], width: int, height: int, x_scale: Scale, y_scale: Scale
) -> tuple[NDArray[np.uint8], NDArray[np.int16]]:
    """(dots[height, width] of braille bits, owner[height, width]): the curve with most dots in the cell, -1 for none."""
    dots = np.zeros((height, width), dtype=np.uint8)
    owner = np.full((height, width), -1, dtype=np.int16)
    most = np.zeros((height, width), dtype=np.uint8)
    for index, curve in enumerate(curves):
        pixels = _trace(curve, width * 2, height * 4, x_scale, y_scale)
        blocks = pixels.reshape(height, 4, width, 2)
        bits = np.einsum("hrwc,rc->hw", blocks, _DOT_BITS, dtype=np.uint8)
        counts = blocks.sum(axis=(1, 3), dtype=np.uint8)
        dots |= bits
        wins = counts > most
        owner[wins] = index
        most[wins] = counts[wins]
    return dots, owner


def draw_plot(curves: Sequence[Curve], width: int, height: int, view: View | None = None) -> Plot:
    """The whole picture, `width` x `height` cells (at least 20 x 4): frame, ticks, curves, letters, marks for NaN."""
    view = view or View()
    width, height = max(20, width), max(4, height)
    x_scale, y_scale, notes = _choose_scales(curves, view)
    inside_height = height - 2
    y_ticks = choose_ticks(y_scale, max(2, (inside_height + 1) // 3))
    y_labels = label_ticks(y_ticks)
    gutter = max(len(label) for label in y_labels) + 2
    inside_width = max(4, width - gutter)
    label_rows: dict[int, str] = {}
    for tick, label in zip(y_ticks, y_labels, strict=True):
        place = float(y_scale.place(np.array([tick]))[0])
        row = inside_height - 1 - min(inside_height - 1, max(0, int(place * inside_height)))
        label_rows.setdefault(row, label)

    dots, owner = rasterize(curves, inside_width, inside_height, x_scale, y_scale)
    cells = _cells(dots, owner, len(curves), view)
    _mark_specials(cells, owner, curves, x_scale)
    if view.letters and len(curves) > 1:
        _write_letters(cells, owner, curves, x_scale, y_scale)

    tick_mark, bar, corner, line = ("+", "|", "+", "-") if view.ascii else ("┤", "│", "└", "─")
    rows: list[tuple[Span, ...]] = []
    for row in range(inside_height):
        label = label_rows.get(row, "")
        frame = f"{label:>{gutter - 2}} {tick_mark if label else bar}"
        rows.append((Span(frame, -1), *_spans(cells[row], owner[row])))
    rows += _draw_x_axis(x_scale, gutter, inside_width, corner, line, "+" if view.ascii else "┴")
    return Plot(tuple(rows), tuple(notes))


def _trace(curve: Curve, columns: int, rows: int, x_scale: Scale, y_scale: Scale) -> NDArray[np.bool_]:
    """The curve as pixels[rows, columns], the top row first."""
    canvas = np.zeros((rows, columns), dtype=np.bool_)
    x, y = curve.x, curve.y
    if len(x) > 1 and bool((x[1:] < x[:-1]).any()):
        order = np.argsort(x, kind="stable")
        x, y = x[order], y[order]
    if len(x) and (x[0] < x_scale.low or x[-1] > x_scale.high):
        # One point beyond each edge is kept: the line to it crosses the picture.
        start = max(0, int(np.searchsorted(x, x_scale.low, "left")) - 1)
        stop = int(np.searchsorted(x, x_scale.high, "right")) + 1
        x, y = x[start:stop], y[start:stop]
    place = y_scale.place(y)
    whole = np.isfinite(place)
    stretch = np.zeros(0, dtype=np.int64)
    if not whole.all():
        # A line is drawn only within a stretch without a gap.
        stretch = np.cumsum(~whole)[whole]
        x, place = x[whole], place[whole]
    if not len(x):
        return canvas
    across = np.clip(x_scale.place(x), -1e6, 1e6) * (columns - 1)
    up = np.clip(place, -1.0, 2.0) * (rows - 1)

    column = np.rint(across).astype(np.int64)
    changes = column[1:] != column[:-1]
    if len(stretch):
        changes |= stretch[1:] != stretch[:-1]
    first = np.concatenate(([0], np.flatnonzero(changes) + 1))
    last = np.concatenate((first[1:] - 1, [len(column) - 1]))
    at = column[first]
    lows, highs = np.minimum.reduceat(up, first), np.maximum.reduceat(up, first)

    # From the last point of one column to the first of the next, each column in between gets its part of the line.
    joined = np.ones(max(0, len(first) - 1), dtype=np.bool_)
    if len(stretch):
        joined = stretch[last[:-1]] == stretch[first[1:]]
    from_x, to_x = at[:-1][joined], at[1:][joined]
    from_y, to_y = up[last[:-1]][joined], up[first[1:]][joined]
    seen = (to_x >= 0) & (from_x < columns) & (to_x > from_x)
    from_x, to_x, from_y, to_y = from_x[seen], to_x[seen], from_y[seen], to_y[seen]
    begin = np.maximum(from_x, 0)
    lengths = np.maximum(np.minimum(to_x, columns - 1) - begin + 1, 0)
    which = np.repeat(np.arange(len(lengths)), lengths)
    offset = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    line_columns = begin[which] + offset
    slope = (to_y - from_y) / (to_x - from_x)
    before = np.maximum(line_columns - 0.5, from_x[which]) - from_x[which]
    after = np.minimum(line_columns + 0.5, to_x[which]) - from_x[which]
    enter = from_y[which] + slope[which] * before
    leave = from_y[which] + slope[which] * after

    # A flat piece takes one dot per column, a steep one the dots from its lower end up to before its upper end: the next
    # column goes on there, and the line stays thin.
    line_lows, line_highs = np.minimum(enter, leave), np.maximum(enter, leave)
    flat = np.rint((enter + leave) / 2)
    steep = np.abs(slope[which]) > 1
    line_lows = np.where(steep, np.ceil(line_lows), flat)
    line_highs = np.where(steep, np.maximum(np.ceil(line_highs) - 1, line_lows), flat)

    all_columns = np.concatenate((at, line_columns))
    bottom = np.concatenate((np.rint(lows), line_lows)).astype(np.int64)
    top = np.concatenate((np.rint(highs), line_highs)).astype(np.int64)
    inside = (all_columns >= 0) & (all_columns < columns) & (top >= 0) & (bottom < rows)
    all_columns, bottom, top = (
        all_columns[inside],
        bottom[inside].clip(0, rows - 1),
        top[inside].clip(0, rows - 1),
    )
    # A difference along each column, summed up, fills every vertical stroke at once.
    strokes = np.zeros((rows + 1, columns), dtype=np.int32)
    np.add.at(strokes, (bottom, all_columns), 1)
    np.add.at(strokes, (top + 1, all_columns), -1)
    canvas[:] = np.cumsum(strokes, axis=0)[rows - 1 :: -1] > 0
    return canvas


def _choose_scales(curves: Sequence[Curve], view: View) -> tuple[Scale, Scale, list[str]]:
    notes: list[str] = []
    edges = [(float(curve.x.min()), float(curve.x.max())) for curve in curves if len(curve.x)]
    x_low = min((low for low, _ in edges), default=0.0) if view.x_low is None else view.x_low
    x_high = max((high for _, high in edges), default=1.0) if view.x_high is None else view.x_high
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


def _cells(dots: NDArray[np.uint8], owner: NDArray[np.int16], count: int, view: View) -> list[list[str]]:
    if not view.ascii:
        return [[chr(_BRAILLE + bits) if bits else " " for bits in row] for row in dots.tolist()]
    return [
        [" " if index < 0 else "*" if count == 1 else curve_letter(index) for index in row]
        for row in owner.tolist()
    ]


def _mark_specials(
    cells: list[list[str]], owner: NDArray[np.int16], curves: Sequence[Curve], x_scale: Scale
) -> None:
    """NaN shows as a cross at the bottom of its column, infinities at the edge they went to."""
    height, width = owner.shape
    for index, curve in enumerate(curves):
        special = ~np.isfinite(curve.y)
        if not special.any():
            continue
        places = x_scale.place(curve.x[special])
        columns = np.clip(np.rint(places * (width - 1)), -1, width).astype(np.int64)
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
    taken: set[tuple[int, int]] = set()
    for index, curve in enumerate(curves):
        places = y_scale.place(curve.y)
        seen = np.flatnonzero(np.isfinite(places) & (curve.x <= x_scale.high) & (curve.x >= x_scale.low))
        if not len(seen):
            continue
        end = int(seen[np.argmax(curve.x[seen])])
        column = min(width - 1, int(float(x_scale.place(curve.x[end : end + 1])[0]) * (width - 1)) + 1)
        level = height - 1 - min(height - 1, max(0, int(float(places[end]) * height)))
        for row in sorted(range(height), key=lambda candidate: abs(candidate - level)):
            if (row, column) not in taken:
                taken.add((row, column))
                cells[row][column] = curve_letter(index)
                owner[row, column] = index
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


def _draw_x_axis(
    x_scale: Scale, gutter: int, width: int, corner: str, line: str, mark: str
) -> list[tuple[Span, ...]]:
    ticks = choose_ticks(x_scale, max(2, width // 12))
    labels = label_ticks(ticks, counts=True)
    axis = [line] * width
    text = [" "] * (gutter + width)
    free_from = 0
    for tick, label in zip(ticks, labels, strict=True):
        column = min(width - 1, max(0, round(float(x_scale.place(np.array([tick]))[0]) * (width - 1))))
        axis[column] = mark
        start = min(gutter + width - len(label), max(0, gutter + column - len(label) // 2))
        if start >= free_from:
            text[start : start + len(label)] = label
            free_from = start + len(label) + 1
    return [(Span(" " * (gutter - 1) + corner + "".join(axis), -1),), (Span("".join(text), -1),)]

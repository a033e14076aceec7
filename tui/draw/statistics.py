"""Pictures of many runs: scatter and histogram on plotext's canvas, parallel coordinates, bars. Pure: values and size to lines.

plotext is given places between 0 and 1 and labels of ours: it has no logarithms of small numbers, no SI letters and no NaN.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mltrack.tui.clean import cell_width, clean, clip, pad
from mltrack.tui.draw.numbers import format_number
from mltrack.tui.draw.raster import rasterize
from mltrack.tui.draw.scales import Scale, ScaleName, choose_scale, choose_ticks, label_ticks

Floats = npt.NDArray[np.float64]
Line = list[list[str]]
_SGR = re.compile(r"\x1b\[[0-9;]*m")
_LOG_FROM = 100.0
_BARS = 20
_WORDS = 12
# So many points are seen best as dots; more of them as single dots of braille.
_BIG_POINTS = 400


@dataclass(frozen=True)
class Column:
    """A value per run, NaN where it has none. ``words`` are what 0, 1, 2 ... stand for, for texts."""

    name: str
    values: Floats
    words: tuple[str, ...] = ()

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """Where it has a finite value."""
        return np.isfinite(self.values)


def choose_axis(column: Column) -> Scale:
    """Logarithmic for positive numbers over two powers of ten and more; texts stand apart evenly."""
    values = column.values[column.known]
    if column.words:
        return Scale(-0.5, len(column.words) - 0.5)
    name: ScaleName = "log" if values.min() > 0 and values.max() / _LOG_FROM >= values.min() else "linear"
    return choose_scale(float(values.min()), float(values.max()), name)


def axis_ticks(column: Column, scale: Scale, most: int) -> list[tuple[float, str]]:
    """(place from 0 to 1, label)."""
    if column.words:
        shown = range(0, len(column.words), max(1, -(-len(column.words) // max(1, most))))
        ticks, labels = (
            [float(place) for place in shown],
            [clean(column.words[place], _WORDS) for place in shown],
        )
    else:
        ticks = choose_ticks(scale, most)
        labels = label_ticks(ticks)
    return list(zip(scale.place(np.array(ticks)).tolist(), labels, strict=True))


def draw_scatter(
    x: Column, y: Column, width: int, height: int, best: int | None = None, ascii_only: bool = False
) -> list[Line]:
    """A point per run that has both; the run ``best`` is a star."""
    both = x.known & y.known
    if not both.any():
        return [[[f"No run has both {clean(x.name)} and {clean(y.name)}.", "dim"]]]
    x_scale, y_scale = choose_axis(x), choose_axis(y)
    across, up = x_scale.place(x.values), y_scale.place(y.values)
    lines, inside = _on_canvas(
        across[both],
        up[both],
        (axis_ticks(x, x_scale, max(2, width // 12)), axis_ticks(y, y_scale, max(2, height // 4))),
        (width, height),
        ascii_only,
    )
    if best is not None and both[best]:
        left, top, right, bottom = inside
        column = left + round(float(np.clip(across[best], 0, 1)) * (right - left - 1))
        row = bottom - 1 - round(float(np.clip(up[best], 0, 1)) * (bottom - top - 1))
        _put(lines[row], column, "*" if ascii_only else "★", "best")
    return [*lines, [[" " * inside[0] + clip(clean(x.name), max(1, width - inside[0])), "dim"]]]


def draw_histogram(column: Column, width: int, height: int, ascii_only: bool = False) -> list[Line]:
    """How many runs lie where; texts have a bar each."""
    values = column.values[column.known]
    if not len(values):
        return [[[f"No run has {clean(column.name)}.", "dim"]]]
    if column.words:
        counts = np.bincount(values.astype(np.int64), minlength=len(column.words))
        edges = [clean(word, _WORDS) for word in column.words]
    else:
        scale = choose_axis(column)
        bins = max(4, min(_BARS, height - 2))
        counts, _ = np.histogram(scale.place(values), bins, (0.0, 1.0))
        cuts = _unplaced(scale, np.linspace(0, 1, bins + 1))
        edges = label_ticks([float(cut) for cut in cuts[:-1]])
    return draw_bars(
        [(name, float(count), f"{count:,}") for name, count in zip(edges, counts.tolist(), strict=True)],
        width,
    )


def draw_bars(rows: Sequence[tuple[str, float, str]], width: int, styles: Sequence[str] = ()) -> list[Line]:
    """A bar of at most ``width`` for each (name, size, text)."""
    names = [clip(clean(name), 28) for name, _, _ in rows]
    wide = max((cell_width(name) for name in names), default=0)
    said = max((cell_width(text) for _, _, text in rows), default=0)
    most = max((abs(size) for _, size, _ in rows), default=0.0) or 1.0
    room = max(4, width - wide - said - 4)
    lines: list[Line] = []
    for place, (name, (_, size, text)) in enumerate(zip(names, rows, strict=True)):
        eighths = round(abs(size) / most * room * 8)
        bar = "█" * (eighths // 8) + (" ▏▎▍▌▋▊▉"[eighths % 8] if eighths % 8 else "")
        style = styles[place] if styles else "curve:0"
        lines.append([[pad(name, wide, "right") + " ", ""], [bar, style], [f" {text}", "dim"]])
    return lines


def draw_parallel(
    columns: Sequence[Column], width: int, height: int, goal: Column | None, less: bool
) -> list[Line]:
    """An upright axis per column, a line per run; green the best third by the goal, red the worst, grey between."""
    if len(columns) < 2:
        return [[["Parallel coordinates need two columns or more.", "dim"]]]
    known = np.all([column.known for column in columns], axis=0)
    if not known.any():
        return [[["No run has all of these columns.", "dim"]]]
    scales = [choose_axis(column) for column in columns]
    placed = np.stack([scale.place(column.values) for scale, column in zip(scales, columns, strict=True)])
    runs = np.flatnonzero(known)
    thirds = _thirds(goal, runs, less)
    # Where curves cross, the first one has the cell: the best.
    order = np.argsort(thirds, kind="stable")
    from mltrack.tui.draw.raster import Curve

    x = np.arange(float(len(columns)))
    curves = [Curve("", x, np.clip(placed[:, runs[place]], 0, 1)) for place in order.tolist()]
    inside = max(4, height - 3)
    dots, owner = rasterize(curves, width, inside, Scale(0.0, len(columns) - 1.0), Scale(0.0, 1.0))
    styles = {0: "green", 1: "dim", 2: "red"}
    at = [round(place * (width - 1) / (len(columns) - 1)) for place in range(len(columns))]
    lines: list[Line] = [_labels([clean(column.name, 16) for column in columns], at, width, "bold")]
    lines.append(
        _labels(
            [_end(column, scale, True) for column, scale in zip(columns, scales, strict=True)],
            at,
            width,
            "dim",
        )
    )
    for row in range(inside):
        line: Line = []
        for column in range(width):
            dot, who = int(dots[row, column]), int(owner[row, column])
            if dot:
                text, style = chr(0x2800 + dot), styles[int(thirds[order[who]])] if who >= 0 else "dim"
            else:
                text, style = ("│", "faint") if column in at else (" ", "")
            if line and line[-1][1] == style:
                line[-1][0] += text
            else:
                line.append([text, style])
        lines.append(line)
    lines.append(
        _labels(
            [_end(column, scale, False) for column, scale in zip(columns, scales, strict=True)],
            at,
            width,
            "dim",
        )
    )
    return lines


def _thirds(goal: Column | None, runs: npt.NDArray[np.int64], less: bool) -> npt.NDArray[np.int64]:
    """0 for runs of the best third, 2 for the worst and those without a value, 1 for the others."""
    if goal is None:
        return np.ones(len(runs), np.int64)
    values = goal.values[runs] if less else -goal.values[runs]
    order = np.argsort(np.where(np.isfinite(values), values, np.inf), kind="stable")
    found = np.empty(len(runs), np.int64)
    found[order] = np.minimum(2, np.arange(len(runs)) * 3 // max(1, len(runs)))
    return found


def _end(column: Column, scale: Scale, top: bool) -> str:
    if column.words:
        return clean(column.words[-1 if top else 0], _WORDS)
    return format_number(scale.high if top else scale.low, 3)


def _labels(texts: Sequence[str], at: Sequence[int], width: int, style: str) -> Line:
    """Texts below their places, none over another."""
    line = ""
    for text, place in zip(texts, at, strict=True):
        start = min(
            max(len(line) + (1 if line else 0), place - cell_width(text) // 2), width - cell_width(text)
        )
        if start >= len(line):
            line = line.ljust(start) + text
    return [[line[:width], style]]


def _unplaced(scale: Scale, places: Floats) -> Floats:
    if scale.name == "log":
        return np.asarray(10 ** (np.log10(scale.low) + places * (np.log10(scale.high) - np.log10(scale.low))))
    return scale.low * (1.0 - places) + scale.high * places


def _on_canvas(
    x: Floats,
    y: Floats,
    ticks: tuple[list[tuple[float, str]], list[tuple[float, str]]],
    size: tuple[int, int],
    ascii_only: bool,
) -> tuple[list[Line], tuple[int, int, int, int]]:
    """Points between 0 and 1 on plotext's canvas with its frame. (lines, inside as left, top, right, bottom cells)."""
    figure: Any = _figure()
    figure.clear()
    figure.plot_size(*size)
    marker = "*" if ascii_only else "•" if len(x) <= _BIG_POINTS else "braille"
    figure.draw(figure.signal(x.tolist(), y.tolist(), marker=marker))
    for axis, marks in zip("xy", ticks, strict=True):
        ruler = figure.ruler(axis)
        ruler.lim(0, 1)
        ruler.ticks([place for place, _ in marks], [label for _, label in marks])
    rows = _SGR.sub("", str(figure.build())).split("\n")
    rows = [row.rstrip() for row in rows if row.strip()]
    left = rows[0].index("┌") + 1
    right = rows[0].index("┐")
    bottom = next(place for place, row in enumerate(rows) if "└" in row)
    lines: list[Line] = []
    for place, row in enumerate(rows):
        text = row.translate(_PLAIN) if ascii_only else row
        if 0 < place < bottom:
            lines.append([[text[:left], "dim"], [text[left:right], "curve:0"], [text[right:], "dim"]])
        else:
            lines.append([[text, "dim"]])
    return lines, (left, 1, right, bottom)


_PLAIN = str.maketrans("┌┐└┘─│┤├┬┴", "++++-|++++")


def _figure() -> Any:
    """A canvas of our own: plotext's module has only one for everybody."""
    try:
        import plotext  # type: ignore[import-untyped]
        from plotext._plotter.plot import plot_class  # type: ignore[import-untyped]
    except ImportError:
        raise RuntimeError("plotext has no package for this machine, so there are no such plots.") from None
    plotext.terminal.limit(False, False)
    return plot_class(plotext.terminal)


def _put(line: Line, column: int, letter: str, style: str) -> None:
    """Write one letter over a line, at a cell of the line's second span."""
    before, inside, after = line
    at = column - len(before[0])
    text = inside[0].ljust(at + 1)
    line[:] = [before, [text[:at], inside[1]], [letter, style], [text[at + 1 :], inside[1]], after]

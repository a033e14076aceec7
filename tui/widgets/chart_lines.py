"""One chart as lines of spans: its title, its picture, the cursor through it. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from mltrack.tui.clean import cell_width, clip
from mltrack.tui.draw.braille import GRID, Curve, Frame, View, draw_plot
from mltrack.tui.widgets.chart_series import Series
from mltrack.tui.widgets.look import Line, Span, shown

_LEAST_KEY = 12
_BAR: Span = ("│", "cursor-line")


@dataclass(frozen=True)
class Place:
    """Where a chart lies within the charts' widget."""

    top: int
    left: int
    width: int
    height: int
    labels: bool
    """Whether the x axis has its labels: the charts above share those of the lowest."""


@dataclass(frozen=True)
class Bar:
    """The cursor through one chart: its column, its first row and how many, as cells of the page."""

    column: int
    top: int
    height: int


@dataclass(frozen=True)
class Picture:
    """A drawn chart. ``body`` are the rows below its title; the cursor may go through the first ``inside_height``."""

    title: Line
    body: tuple[Line, ...]
    gutter: int
    inside: int
    inside_height: int

    @property
    def lines(self) -> list[Line]:
        """All lines, the title first."""
        return [self.title, *self.body]

    def bar(self, place: Place, column: int) -> Bar:
        """The cursor in this column of the inside, where the picture is at ``place``."""
        return Bar(place.left + self.gutter + column, place.top + 1, self.inside_height)


def title_line(series: Series, chosen: bool, notes: Sequence[str], width: int, numbers: bool = True) -> Line:
    """Name at the left, view and figures at the right; what does not fit goes, the last value at last."""
    best, last = series.figures()
    name = shown(series.key) + shown(series.arrow)
    right = [*notes, best, last] if numbers else []
    room = width - 2

    def taken(parts: Sequence[str]) -> int:
        return sum(cell_width(part) + 3 for part in parts)

    while right and min(cell_width(name), max(_LEAST_KEY, room // 2)) + taken(right) > room:
        # The view first, then the best; what it was last is what one looks for.
        right.pop(0)
    name = clip(name, max(1, room - taken(right)), keep="tail")
    gap = max(1, width - 1 - cell_width(name) - taken(right))
    spans: list[Span] = [("▌" if chosen else " ", "key"), (name, "bold" if chosen else ""), (" " * gap, "")]
    for index, part in enumerate(right):
        spans.append((" " * 3, ""))
        bright = index == len(right) - 1
        spans.append((part, f"curve:{series.place}" if bright else "dim"))
    return tuple(spans)


def draw_chart(
    series: Series,
    place: Place,
    view: View,
    frame: Frame | None,
    title: Line,
    curves: Sequence[Curve],
    owners: Sequence[int],
    why_empty: str,
) -> Picture:
    """The picture of one chart; without points a sentence that says why stands in its place."""
    height = max(1, place.height - 1)
    if why_empty or frame is None:
        blank: list[Line] = [() for _ in range(height)]
        blank[min(len(blank) - 1, height // 2)] = (("  " + why_empty, "dim"),)
        return Picture(title, tuple(blank), 0, 0, 0)
    plot = draw_plot(curves, place.width, max(4, height), view, frame)
    styles = {GRID: "grid", -1: "faint"}
    for index, curve in enumerate(curves):
        colour = f"curve:{series.place if len(series.lines) <= 1 else owners[index]}"
        styles[index] = f"{colour} ghost" if curve.faint else colour
    inside_height = len(plot.rows) - (2 if view.x_labels else 1)
    body: list[Line] = []
    for row, spans in enumerate(plot.rows):
        line = tuple((span.text, styles[span.curve]) for span in spans)
        if row < inside_height:
            # The labels are for reading, the frame's lines only for orientation.
            line = ((line[0][0][:-1], "dim"), (line[0][0][-1:], "faint"), *line[1:])
        elif row > inside_height:
            line = tuple((text, "dim") for text, _ in line)
        body.append(line)
    return Picture(title, tuple(body[:height]), plot.gutter, plot.inside, min(inside_height, height))


def beside(parts: Sequence[tuple[int, Line]]) -> Line:
    """Lines of charts that stand beside each other, each from its column on."""
    spans: list[Span] = []
    at = 0
    for left, line in parts:
        if left > at:
            spans.append((" " * (left - at), ""))
            at = left
        spans += line
        at += _width(line)
    return tuple(spans)


@lru_cache(4096)
def _width(line: Line) -> int:
    """Most rows of a picture are as they were when the cursor moves."""
    return sum(cell_width(text) for text, _ in line)


def overlay(spans: Line, column: int) -> Line:
    """The cursor through a row: a bar where nothing is, a lit cell on a curve."""
    at = 0
    for place, (text, style) in enumerate(spans):
        if column < at + len(text):
            inside = column - at
            pieces = ((text[:inside], style), _lit(text[inside], style), (text[inside + 1 :], style))
            return (*spans[:place], *(piece for piece in pieces if piece[0]), *spans[place + 1 :])
        at += len(text)
    gap = ((" " * (column - at), ""),) if column > at else ()
    return (*spans, *gap, _BAR)


def under_cursor(spans: Line, edges: Sequence[int], column: int) -> Span:
    """The one cell that `overlay` changes; ``edges`` are where the spans end."""
    at = bisect_right(edges, column)
    if at == len(spans):
        return _BAR
    text, style = spans[at]
    return _lit(text[column - edges[at]], style)


def _lit(character: str, style: str) -> Span:
    return _BAR if character == " " or style == "grid" else (character, f"{style} here")

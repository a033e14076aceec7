"""A page of charts with a cursor through them: a move of the cursor costs the cells it leaves and enters, not the page.

The lines are drawn without the cursor and kept as strips that are ready for the terminal, filters of the app included; the
cursor is laid over them, cell by cell, when they are painted.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Self

from rich.segment import Segment
from textual.geometry import Region
from textual.strip import Strip

from mltrack.tui.clean import cell_width
from mltrack.tui.widgets.chart_lines import Bar, beside, overlay, under_cursor
from mltrack.tui.widgets.lines import Lines
from mltrack.tui.widgets.look import Line, Span, shown, strip_of

Parts = Sequence[tuple[int, Line]]


class CellStrip(Strip):
    """A strip of characters of one cell each: a piece of it is found without a look at what lies before."""

    __slots__ = ("_ends",)

    def __init__(self, segments: Iterable[Segment], ends: list[int] | None = None) -> None:
        pieces = list(segments)
        self._ends = ends or list(accumulate(len(piece.text) for piece in pieces))
        super().__init__(pieces, self._ends[-1] if self._ends else 0)

    def crop(self, start: int, end: int | None = None) -> Strip:
        """The cells from ``start`` to before ``end``, as Strip does it."""
        ends, pieces = self._ends, self._segments
        start, end = max(0, start), self.cell_length if end is None else min(self.cell_length, end)
        if start == 0 and end == self.cell_length:
            return self
        if end <= start:
            return Strip([], 0)
        first, last = bisect_right(ends, start), bisect_right(ends, end - 1)
        found = pieces[first : last + 1]
        found[-1] = _cut(found[-1], 0, end - (ends[last - 1] if last else 0))
        found[0] = _cut(found[0], start - (ends[first - 1] if first else 0), None)
        return Strip(found, end - start)

    def laid(self, cells: Sequence[tuple[int, Segment]]) -> CellStrip:
        """The same with other cells in some columns, which ascend."""
        pieces, ends = self._segments.copy(), self._ends.copy()
        for column, cell in reversed(cells):
            at = bisect_right(ends, column)
            start, end = ends[at - 1] if at else 0, ends[at]
            before, after = _cut(pieces[at], 0, column - start), _cut(pieces[at], column + 1 - start, None)
            parts = ((before, column), (cell, column + 1), (after, end))
            pieces[at : at + 1] = [part for part, _ in parts if part.text]
            ends[at : at + 1] = [edge for part, edge in parts if part.text]
        return CellStrip(pieces, ends)


def _cut(piece: Segment, start: int, end: int | None) -> Segment:
    return Segment(piece.text[start:end], piece.style)


class ChartPage(Lines):
    """Lines of which some lie below the cursor's bars; `lines` are those without it."""

    DEFAULT_CSS = "ChartPage { height: 1fr; }"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._bars: Sequence[Bar] = ()
        self._columns: dict[int, tuple[int, ...]] = {}  # of the bars, by row
        self._parts: dict[int, tuple[Parts, Line]] = {}
        self._ready: dict[int, Strip] = {}  # without the cursor, by row
        self._edges: dict[int, list[int]] = {}  # where the spans of a line end
        self._laid: dict[int, tuple[tuple[int, ...], Strip]] = {}
        self._cells: dict[Span, Segment] = {}
        self._ready_for: tuple[object, ...] = ()

    # -- data in

    def show_page(self, rows: Sequence[Parts], bars: Sequence[Bar]) -> None:
        """Parts of lines, each from its column on, and where the cursor is."""
        bars = sorted(bars, key=lambda bar: bar.column)
        if bars != self._bars:
            changed = set(bars) ^ set(self._bars)
            self._bars, self._columns = bars, {}
            for bar in bars:
                for row in range(bar.top, bar.top + bar.height):
                    self._columns[row] = (*self._columns.get(row, ()), bar.column)
            if len(rows) == len(self.lines):
                # One call: each would look the whole page over again.
                regions = [Region(bar.column, bar.top, 1, bar.height) for bar in changed]
                self.refresh(*regions)
        self._show_lines([self._line(row, parts) for row, parts in enumerate(rows)])

    def show(self, lines: Sequence[Line]) -> None:
        """Lines without charts and cursor."""
        self._bars, self._columns = (), {}
        self._show_lines(lines)

    def _show_lines(self, lines: Sequence[Line]) -> None:
        before = self.lines
        for row, line in enumerate(lines):
            if row >= len(before) or before[row] != line:
                self._ready.pop(row, None)
        super().show(lines)

    def _line(self, row: int, parts: Parts) -> Line:
        """Parts beside each other; most are those of the last time."""
        kept = self._parts.get(row)
        if kept is not None and len(kept[0]) == len(parts):
            pairs = zip(kept[0], parts, strict=True)
            if all(old is new and left == at for (left, old), (at, new) in pairs):
                return kept[1]
        line = beside(parts)
        self._parts[row] = (parts, line)
        return line

    def everything(self) -> list[Line]:
        lines = list(self.lines)
        for row, columns in self._columns.items():
            for column in columns if row < len(lines) else ():
                lines[row] = overlay(lines[row], column)
        return lines

    def text(self) -> list[str]:
        return ["".join(text for text, _ in line) for line in self.everything()]

    # -- drawing

    def refresh(
        self, *regions: Region, repaint: bool = True, layout: bool = False, recompose: bool = False
    ) -> Self:
        """Without regions everything may look otherwise: colours, size."""
        if not regions:
            self._ready.clear()
            self._cells.clear()
        return super().refresh(*regions, repaint=repaint, layout=layout, recompose=recompose)

    def render_line(self, y: int) -> Strip:
        """A line with the cursor, as it leaves for the terminal."""
        columns = self._columns.get(y, ())
        line = self.lines[y] if y < len(self.lines) else ()
        base = self._ready.get(y)
        if base is None:
            base = self._filtered(strip_of(line, self.size.width, self._ground))
            if all(cell_width(piece.text) == len(piece.text) for piece in base):
                base = CellStrip(base)
            self._ready[y] = base
            self._edges[y] = list(accumulate(len(text) for text, _ in line))
            self._laid.pop(y, None)
        if not columns:
            return base
        kept = self._laid.get(y)
        if kept is None or kept[0] != columns:
            kept = self._laid[y] = columns, self._with_cursor(base, line, columns, self._edges[y])
        return kept[1]

    def render_lines(self, crop: Region) -> list[Strip]:
        """As Textual asks for them. Its own way draws and filters every line that has changed anywhere as a whole."""
        made_for = (self.size, self.background_colors[1], *self.get_line_filters())
        if made_for != self._ready_for:
            self._ready_for = made_for
            self._ready.clear()
            self._cells.clear()
        strips = [self.render_line(y) for y in crop.line_range]
        edges = crop.column_span
        return strips if edges == (0, self.size.width) else [strip.crop(*edges) for strip in strips]

    def _filtered(self, strip: Strip) -> Strip:
        background = self.background_colors[1]
        for each in self.get_line_filters():
            strip = strip.apply_filter(each, background)
        return strip

    def _with_cursor(self, base: Strip, line: Line, columns: Sequence[int], edges: Sequence[int]) -> Strip:
        columns = [column for column in columns if column < self.size.width]
        if isinstance(base, CellStrip):
            return base.laid([(column, self._cell(under_cursor(line, edges, column))) for column in columns])
        for column in columns:
            line = overlay(line, column)
        return self._filtered(strip_of(line, self.size.width, self._ground))

    def _cell(self, span: Span) -> Segment:
        if span not in self._cells:
            text, style = span
            self._cells[span] = next(iter(self._filtered(strip_of([(shown(text), style)], 1, self._ground))))
        return self._cells[span]

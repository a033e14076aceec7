"""The table of runs: rows of a long list of ids, cells fetched as they come into view, one style run per cell.

A virtual table on ScrollView's line API, because Textual's DataTable needs seconds for ten thousand rows. The widget knows
ids, columns and the cells it was given; what it lacks it asks for with `Wanted`, and paints dots until that is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from textual.geometry import Offset, Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from mltrack.tui.clean import pad
from mltrack.tui.widgets.look import Span, blank, strip_of
from mltrack.tui.widgets.table_columns import GAP, GUTTER, Column, Layout, cell_spans, width_of

_PAGE = 64
_KEPT_ROWS = 20_000
_GAP = " " * GAP


class RunTable(ScrollView, can_focus=True):
    """Moves by row and column; the cursor stays on its run and its column whatever arrives."""

    DEFAULT_CSS = """
    RunTable { height: 1fr; width: 1fr; scrollbar-size: 0 0; overflow: hidden; }
    """

    row = reactive(0, repaint=False)
    """Index of the row under the cursor."""

    class Wanted(Message):
        """Cells of these columns are needed for these runs."""

        def __init__(self, run_ids: list[str], columns: list[str]) -> None:
            self.run_ids = run_ids
            self.columns = columns
            super().__init__()

    class Moved(Message):
        """The cursor is on another run, or the same run after new data came."""

        def __init__(self, run_id: str | None) -> None:
            self.run_id = run_id
            super().__init__()

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, RunTable.Moved)

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.ids: Sequence[str] = ()
        self.marks: set[str] = set()
        self.context: frozenset[str] = frozenset()
        """Rows that are only there because their children match, or because they are damaged."""
        self.range_from: int | None = None
        """The row where a range began."""
        self.sort: list[tuple[str, bool]] = []
        """(column id, turned round), the first decides."""
        self.column: str | None = None
        self.before: Sequence[str] = ()
        """What is shown, faint, until the first rows come: the lines of the last time."""
        self.layout_of_columns = Layout()
        self._context_before: frozenset[str] = frozenset()
        self._rows: dict[str, dict[str, Any]] = {}
        self._asked: set[str] = set()
        self._first_column = 0
        self._drawn: list[Column] = []

    # -- data in

    def show(
        self, ids: Sequence[str] | None, columns: Sequence[Mapping[str, Any]], rows: Mapping[str, Any]
    ) -> None:
        """New ids (None: the same), columns and cells at once; cursor and window stay where their run is."""
        new_columns = tuple(map(Column.of, columns))
        if new_columns != self.columns:
            self._take_columns(new_columns)
        elif ids is None or ids == self.ids:
            self.put(rows, anew=True)
            return
        current = self.current
        row = self._rows.get(current) if current is not None else None
        parents: Sequence[str] = row["parents"] if row is not None else ()
        line = self.row - self._top
        self._asked.clear()
        self._take(rows, anew=True)
        self.fit_columns()
        if ids is not None and ids != self.ids:
            self.ids = ids
            self.range_from = None
            self._forget_but(set(self._visible_from(current, line)) | set(rows))
            self.virtual_size = Size(max(1, self.size.width), len(ids) + 1)
            self._follow(current, parents, line)
            self._context_before = self.context
        self.refresh()
        self.post_message(self.Moved(self.current))

    def _take_columns(self, columns: tuple[Column, ...]) -> None:
        self._rows.clear()
        self.layout_of_columns.take(columns)
        ids = [column.id for column in columns]
        if self.column not in ids:
            self.column = ids[0] if ids else None

    def _visible_from(self, current: str | None, line: int) -> Sequence[str]:
        """Ids that will be on the screen, so that their cells are not asked for again."""
        place = self._place_of(current)
        start = max(0, (place if place is not None else self.row) - max(0, line))
        return self.ids[start : start + self.size.height]

    def _follow(self, current: str | None, parents: Sequence[str], line: int) -> None:
        """Keep the cursor on its run, or the parent that it is hidden under, and that on its line of the screen."""
        was_at_top = self._top == 0
        places = [place for run_id in (current, *parents) if (place := self._place_of(run_id)) is not None]
        row = places[0] if places else max(0, min(self.row, len(self.ids) - 1))
        if not places or (self.ids[row] in self.context and self.ids[row] not in self._context_before):
            # What is asked for is the runs that match, not the parent above them.
            while row < len(self.ids) - 1 and self.ids[row] in self.context:
                row += 1
        self.set_reactive(RunTable.row, row)  # pyright: ignore[reportArgumentType]
        if not (was_at_top and self.row < self._body):
            self._scroll_to_line(self.row - line)

    def _place_of(self, run_id: str | None) -> int | None:
        try:
            return None if run_id is None else self.ids.index(run_id)
        except ValueError:
            return None

    def put(self, rows: Mapping[str, Any], anew: bool = False) -> None:
        """New cells of some runs; only cells that differ are painted. ``anew``: what is not on the screen is forgotten."""
        before = {run_id: self._rows.get(run_id) for run_id in rows}
        widened = self._take(rows, anew)
        self._asked.difference_update(rows)
        if widened:
            self.fit_columns()
            self.refresh()
        else:
            for y in range(1, self.size.height):
                place = self._top + y - 1
                if place < len(self.ids) and self.ids[place] in rows:
                    self._refresh_cells(place, before[self.ids[place]])
        current = self.current
        if current is not None and current in rows and before[current] != self._rows.get(current):
            self.post_message(self.Moved(self.current))

    def put_column(self, column: str, texts: Mapping[str, str]) -> None:
        """New texts of one column, for runs whose cells are here."""
        self.put(
            {
                run_id: {**row, "cells": {**row["cells"], column: [text, ""]}}
                for run_id, text in texts.items()
                if (row := self._rows.get(run_id)) is not None and not row["fold"]
            }
        )

    def _refresh_cells(self, place: int, before: Mapping[str, Any] | None) -> None:
        row = self._rows.get(self.ids[place])
        y = place - self._top + 1
        if row is None or before is None:
            self.refresh(Region(0, y, self.size.width, 1))
            return
        x = GUTTER
        for column in self._drawn:
            width = self.layout_of_columns.width(column)
            if row["cells"].get(column.id) != before["cells"].get(column.id):
                self.refresh(Region(x, y, width, 1))
            x += width + GAP

    def set_layout(self, widths: Mapping[str, int], ordered: bool, frozen: str | None) -> None:
        """What the person decided: widths by column, whether the order is theirs, the last column that stays in sight."""
        layout = self.layout_of_columns
        ids = [column.id for column in layout.order]
        count = ids.index(frozen) + 1 if frozen in ids else 1
        if (dict(layout.chosen_widths), layout.chosen_order, layout.frozen) != (widths, ordered, count):
            layout.chosen_widths, layout.chosen_order, layout.frozen = dict(widths), ordered, count
            self._first_column = 0
            self.fit_columns()
            self.refresh()

    def text(self) -> list[str]:
        """The lines as text, cleaned."""
        return [self.render_line(y).text.rstrip() for y in range(self.size.height)]

    def stale(self) -> list[str]:
        """Forget cells that are not on the screen; returns the ids of those that are."""
        visible = self.visible_ids()
        self._forget_but(set(visible))
        return visible

    def visible_ids(self) -> list[str]:
        """Ids of the runs on the screen."""
        return list(self.ids[self._top : self._top + max(1, self._body)])

    def visible_columns(self) -> list[str]:
        """Ids of the columns on the screen."""
        return [column.id for column in self._drawn]

    def known(self, run_id: str | None) -> Mapping[str, Any] | None:
        """What is known of a run (name, user, status, fold, depth, cells); None while its cells are not here."""
        return self._rows.get(run_id) if run_id is not None else None

    def name_of(self, run_id: str) -> str:
        """The name of a run whose cells are here, else the start of its id."""
        row = self._rows.get(run_id)
        return str(row["name"]) if row else run_id[:8]

    def owner_of(self, run_id: str) -> str:
        """The owner of a run whose cells are here."""
        row = self._rows.get(run_id)
        return str(row["user"]) if row else ""

    @property
    def columns(self) -> tuple[Column, ...]:
        """All columns, in the worker's order."""
        return self.layout_of_columns.columns

    @property
    def current(self) -> str | None:
        """Id of the run under the cursor."""
        return self.ids[self.row] if 0 <= self.row < len(self.ids) else None

    @property
    def current_column(self) -> Column | None:
        """The column under the cursor."""
        return next((column for column in self.columns if column.id == self.column), None)

    @property
    def places(self) -> str:
        """rows 1-14 of 41   columns 1-7 of 12"""
        if not self.ids:
            return ""
        last = min(len(self.ids), self._top + self._body)
        first = self._first_column + 1 if len(self._drawn) > self.layout_of_columns.frozen else 1
        return (
            f"rows {self._top + 1:,}-{last:,} of {len(self.ids):,}   "
            f"columns {first}-{self._first_column + len(self._drawn)} of {len(self.columns)}"
        )

    # -- moves

    def move(self, rows: int) -> None:
        """Move the cursor by rows; the window follows."""
        target = max(0, min(self.row + rows, len(self.ids) - 1))
        if target == self.row or not self.ids:
            return
        before, self.row = self.row, target
        top = self._top
        if target < top:
            self._scroll_to_line(target)
        elif target >= top + self._body:
            self._scroll_to_line(target - self._body + 1)
        passed = range(min(before, target), max(before, target) + 1)
        for line in passed if self.range_from is not None else (before, target):
            self.refresh_line(line + 1)
        self._show_cursor()
        self.post_message(self.Moved(self.current))

    def page(self, pages: int) -> None:
        """Move by screens."""
        self.move(pages * max(1, self._body - 1))

    def go_to(self, run_id: str) -> bool:
        """Move to a run; False when it is not in the list."""
        place = self._place_of(run_id)
        if place is None:
            return False
        self.move(place - self.row)
        return True

    def move_column(self, columns: int) -> None:
        """Move the column cursor; the window follows."""
        order = self.layout_of_columns.order
        if not order:
            return
        ids = [column.id for column in order]
        place = ids.index(self.column) if self.column in ids else 0
        place = max(0, min(len(ids) - 1, place + columns))
        self.column = ids[place]
        before, frozen = self._first_column, self.layout_of_columns.frozen
        if place < frozen:
            self._first_column = 0 if place == 0 else self._first_column
        elif place - frozen < self._first_column:
            self._first_column = place - frozen
        else:
            while self.column not in self.visible_columns() and self._first_column < place - frozen:
                self._first_column += 1
                self._draw_columns()
        self._draw_columns()
        if self._first_column == before:
            self.refresh(Region(0, 0, self.size.width, 1))
        else:
            self._asked.clear()
            self.refresh()
        self._show_cursor()

    def toggle_mark(self) -> None:
        """Mark the run under the cursor, or take the mark away."""
        if self.current is not None:
            self.marks ^= {self.current}
            self.refresh(Region(0, self.row - self._top + 1, GUTTER, 1))

    def mark_all(self) -> None:
        """Mark all that are shown; when they are, none."""
        shown_ids = set(self.ids) - self.context
        if shown_ids <= self.marks:
            self.marks -= shown_ids
        else:
            self.marks |= shown_ids
        self._refresh_gutter()

    def range_ids(self) -> Sequence[str]:
        """Ids from where the range began to the cursor."""
        if self.range_from is None:
            return ()
        first, last = sorted((self.range_from, self.row))
        return [run_id for run_id in self.ids[first : last + 1] if run_id not in self.context]

    def set_range(self, row: int | None) -> None:
        """Begin a range, or end it."""
        self.range_from = row
        self._refresh_gutter()

    def on_resize(self) -> None:
        self.virtual_size = Size(max(1, self.size.width), len(self.ids) + 1)
        self.fit_columns()
        if self.row >= self._top + self._body:
            self._scroll_to_line(self.row - self._body + 1)
        self.refresh()
        self._show_cursor()

    def on_mouse_scroll_down(self) -> None:
        self.move(3)

    def on_mouse_scroll_up(self) -> None:
        self.move(-3)

    def on_click(self, event: Any) -> None:
        if event.y >= 1:
            self.move(self._top + event.y - 1 - self.row)

    # -- drawing

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        if not self.columns and y < len(self.before):
            return strip_of(((self.before[y], "dim"),), width)
        if y == 0:
            return self._heading(width)
        place = self._top + y - 1
        if place >= len(self.ids):
            if not self.ids and self.columns and y == 2:
                return strip_of(
                    ((" " * GUTTER + "No run matches; esc takes the filter away.", "dim"),), width
                )
            return blank(width)
        run_id = self.ids[place]
        here = place == self.row
        row = self._rows.get(run_id)
        sign = ("▌" if here else " ") + self._mark(place) + " "
        # Blanks in the style of their neighbours: each change of style is thirty bytes on the line.
        spans: list[Span] = [(sign, "key" if sign.strip() else "bold" if row is not None else "")]
        if row is None or any(column.id not in row["cells"] for column in self._drawn):
            self._want(place)
        if row is None:
            spans.append(("·" * min(24, width - GUTTER), "faint"))
            return strip_of(spans, width, "cursor" if here else "")
        cells, layout = row["cells"], self.layout_of_columns
        for index, column in enumerate(self._drawn):
            cell = cells.get(column.id)
            size = layout.width(column)
            if cell is None:
                spans.append((pad("·", size, "right" if column.align == "right" else "left"), "faint"))
            else:
                spans += cell_spans(cell, size, column.align, tail=index == 0)
            spans.append((_GAP, spans[-1][1]))
        return strip_of(spans[:-1], width, "cursor" if here else "")

    def _mark(self, place: int) -> str:
        if self.ids[place] in self.marks:
            return "+"
        if self.range_from is not None and min(self.range_from, self.row) <= place <= max(
            self.range_from, self.row
        ):
            return "¦"
        return " "

    def _heading(self, width: int) -> Strip:
        spans: list[Span] = [(" " * GUTTER, "header")]
        for column in self._drawn:
            heading = self.layout_of_columns.headings[column.id]
            size = self.layout_of_columns.width(column)
            style = "here" if column.id == self.column and self.has_focus else "header"
            spans.append((pad(heading, size, "right" if column.align == "right" else "left"), style))
            spans.append((_GAP, "header"))
        return strip_of(spans[:-1], width, "")

    def _signs(self) -> dict[str, str]:
        """For each column of the order a sign: which way it goes, and whether it is the second."""
        return {
            id: ("▲▼" if place == 0 else "△▽")[not self._goes_up(id, turned)]
            for place, (id, turned) in reversed(list(enumerate(self.sort[:2])))
        }

    def _goes_up(self, id: str, turned: bool) -> bool:
        column = next((column for column in self.columns if column.id == id), None)
        usual = column.sort if column is not None and column.sort is not None else ""
        return usual.startswith("-") == turned

    @property
    def _top(self) -> int:
        return round(self.scroll_offset.y)

    @property
    def _body(self) -> int:
        return max(1, self.size.height - 1)

    def _scroll_to_line(self, line: int) -> None:
        target = max(0, min(line, len(self.ids) + 1 - self.size.height))
        self.scroll_to(y=target, animate=False, immediate=True, force=True)

    def _show_cursor(self) -> None:
        """The terminal's cursor is where the focused cell is: screen readers and magnifiers follow it."""
        if self.has_focus:
            place = self.content_region.offset + Offset(0, self.row - self._top + 1)
            self.app.cursor_position = place

    def _refresh_gutter(self) -> None:
        self.refresh(Region(0, 1, GUTTER, max(0, self.size.height - 1)))

    def _want(self, place: int) -> None:
        start = place // _PAGE * _PAGE
        columns = self.visible_columns()
        wanted = [
            run_id
            for run_id in self.ids[start : start + _PAGE]
            if run_id not in self._asked and not _has(self._rows.get(run_id), columns)
        ]
        if wanted:
            self._asked.update(wanted)
            self.post_message(self.Wanted(wanted, columns))

    def _take(self, rows: Mapping[str, Any], anew: bool = False) -> bool:
        """Keep the cells; whether a column became wider. ``anew``: older cells of columns out of sight may be wrong now."""
        if len(self._rows) > _KEPT_ROWS:
            self._forget_but(set(self.visible_ids()))
        widened = False
        layout = self.layout_of_columns
        known = {column.id: column.widest for column in self.columns}
        for run_id, row in rows.items():
            cells = {id: cell for id, cell in row["cells"].items() if id in known}
            for id, cell in cells.items():
                widened |= layout.saw(id, min(known[id], width_of(cell)))
            before = self._rows.get(run_id)
            if before is not None:
                kept = set(self.visible_columns()) if anew else known
                cells = {**{id: cell for id, cell in before["cells"].items() if id in kept}, **cells}
            self._rows[run_id] = {**row, "cells": cells}
        return widened

    def _forget_but(self, kept: set[str]) -> None:
        self._rows = {run_id: row for run_id, row in self._rows.items() if run_id in kept}
        self._asked.clear()

    def fit_columns(self) -> None:
        """Lay the columns out for the width there is."""
        self.layout_of_columns.signs = self._signs()
        self.layout_of_columns.fit(self.size.width)
        self._first_column = min(self._first_column, max(0, len(self.columns) - 2))
        self._draw_columns()

    def _draw_columns(self) -> None:
        self._drawn = self.layout_of_columns.visible(self._first_column, self.size.width)

    def watch_has_focus(self, focused: bool) -> None:
        super().watch_has_focus(focused)
        self.refresh(Region(0, 0, self.size.width, 1))
        self._show_cursor()


def _has(row: Mapping[str, Any] | None, columns: Iterable[str]) -> bool:
    return row is not None and all(column in row["cells"] for column in columns)

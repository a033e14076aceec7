"""The table of runs: any number of rows, of which only those on the screen exist.

It holds ids in order and the cells of the rows that were looked at. Cells come from outside through `show`: the table
says which it needs with `Wanted`, and paints dots until they are there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from mltrack.tui.clean import cell_width, pad
from mltrack.tui.widgets.look import Span, shown, strip_of

_PAGE = 64
_KEPT_ROWS = 20_000
_GAP = "  "
_GUTTER = 3
_EXTRA = 20
# Names give way to numbers on a narrow screen: they may take a quarter of it, but not less than tells them apart.
_NAME_SHARE, _NARROWEST_NAME = 4, 16


@dataclass(frozen=True)
class Column:
    """One column as the worker describes it."""

    kind: str
    key: str
    heading: str
    align: str
    weight: int
    widest: int
    sort: str | None

    @property
    def id(self) -> tuple[str, str]:
        return self.kind, self.key


class RunTable(ScrollView, can_focus=True):
    """Moves by row and column; the cursor stays on its run and its column whatever arrives."""

    DEFAULT_CSS = """
    RunTable { height: 1fr; width: 1fr; scrollbar-size: 0 0; overflow: hidden; }
    """

    row = reactive(0, repaint=False)
    """Index of the row under the cursor."""

    class Wanted(Message):
        """Cells of these runs are needed."""

        def __init__(self, run_ids: list[str]) -> None:
            self.run_ids = run_ids
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
        self.columns: tuple[Column, ...] = ()
        self.marks: set[str] = set()
        self.sort: list[str] = []
        self.column: tuple[str, str] | None = None
        self._rows: dict[str, dict[str, Any]] = {}
        self._asked: set[str] = set()
        self._widths: dict[tuple[str, str], int] = {}
        self._first_column = 0
        self._order: list[Column] = []
        self._fitting = 0

    # -- data in

    def show(self, ids: Sequence[str], columns: Sequence[Mapping[str, Any]], rows: Mapping[str, Any]) -> None:
        """New ids, columns and cells at once; cursor and window stay where their run is."""
        current = self.current
        line = self.row - self._top
        new_columns = tuple(
            Column(
                str(column["kind"]),
                str(column["key"]),
                str(column["heading"]),
                str(column["align"]),
                int(column["weight"]),
                int(column["widest"]),
                column["sort"],
            )
            for column in columns
        )
        same_columns = new_columns == self.columns
        same_ids = ids == self.ids
        if not same_columns:
            self._rows.clear()
            self._widths = {
                column.id: min(column.widest, cell_width(shown(column.heading))) for column in new_columns
            }
            self.columns = new_columns
            if self.column not in self._widths:
                self.column = new_columns[0].id if new_columns else None
        elif same_ids:
            self.put(rows)
            return
        else:
            self._forget_but(set(rows))
        self.ids = ids
        self._asked.clear()
        self._take(rows)
        self._arrange()
        self.virtual_size = Size(max(1, self.size.width), len(ids) + 1)
        if not same_ids:
            was_at_top = self._top == 0
            if current is not None and current in ids:
                self.set_reactive(RunTable.row, list(ids).index(current))  # pyright: ignore[reportArgumentType]
            else:
                self.set_reactive(RunTable.row, max(0, min(self.row, len(ids) - 1)))  # pyright: ignore[reportArgumentType]
            if not (was_at_top and self.row < self._body):
                self._scroll_to_line(self.row - line)
        self.refresh()
        self.post_message(self.Moved(self.current))

    def put(self, rows: Mapping[str, Any]) -> None:
        """New cells of some runs; only lines that differ are painted."""
        changed = {run_id for run_id, row in rows.items() if self._rows.get(run_id) != row}
        widened = self._take(rows)
        self._asked.difference_update(rows)
        if widened:
            self._arrange()
            self.refresh()
        else:
            for y in range(1, self.size.height):
                place = self._top + y - 1
                if place < len(self.ids) and self.ids[place] in changed:
                    self.refresh_line(place + 1)
        if self.current in changed:
            self.post_message(self.Moved(self.current))

    def stale(self) -> list[str]:
        """Forget cells that are not on the screen; returns the ids of those that are."""
        visible = self.visible_ids()
        self._forget_but(set(visible))
        return visible

    def visible_ids(self) -> list[str]:
        """Ids of the runs on the screen."""
        return list(self.ids[self._top : self._top + max(1, self._body)])

    def name_of(self, run_id: str) -> str:
        """The name of a run whose cells are here, else the start of its id."""
        row = self._rows.get(run_id)
        return str(row["name"]) if row else run_id[:8]

    def owner_of(self, run_id: str) -> str:
        """The owner of a run whose cells are here."""
        row = self._rows.get(run_id)
        return str(row["user"]) if row else ""

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
        drawn = self._drawn()
        return (
            f"rows {self._top + 1:,}-{last:,} of {len(self.ids):,}   "
            f"columns {self._first_column + 1}-{self._first_column + len(drawn)} of {len(self._order)}"
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
        self.refresh_line(before + 1)
        self.refresh_line(target + 1)
        self.post_message(self.Moved(self.current))

    def page(self, pages: int) -> None:
        """Move by screens."""
        self.move(pages * max(1, self._body - 1))

    def move_column(self, columns: int) -> None:
        """Move the column cursor; the window follows."""
        order = self._order
        if not order:
            return
        ids = [column.id for column in order]
        place = ids.index(self.column) if self.column in ids else 0
        place = max(0, min(len(ids) - 1, place + columns))
        self.column = ids[place]
        if place == 0:
            self._first_column = 0
        elif place - 1 < self._first_column:
            self._first_column = place - 1
        else:
            while place > self._first_column + len(self._drawn()) and self._first_column < place - 1:
                self._first_column += 1
        self.refresh()

    def toggle_mark(self) -> None:
        """Mark the run under the cursor, or take the mark away."""
        if self.current is not None:
            self.marks ^= {self.current}
            self.refresh_line(self.row + 1)

    def mark_all(self) -> None:
        """Mark all that are shown; when they are, none."""
        shown_ids = set(self.ids)
        if shown_ids <= self.marks:
            self.marks -= shown_ids
        else:
            self.marks |= shown_ids
        self.refresh()

    def on_resize(self) -> None:
        self.virtual_size = Size(max(1, self.size.width), len(self.ids) + 1)
        self._arrange()
        if self.row >= self._top + self._body:
            self._scroll_to_line(self.row - self._body + 1)
        self.refresh()

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
        if y == 0:
            return self._heading(width)
        place = self._top + y - 1
        if place >= len(self.ids):
            if not self.ids and self.columns and y == 2:
                return strip_of(
                    ((" " * _GUTTER + "No run matches; esc takes the filter away.", "dim"),), width
                )
            return Strip.blank(width)
        run_id = self.ids[place]
        here = place == self.row
        mark = ("▌" if here else " ") + ("+" if run_id in self.marks else " ") + " "
        spans: list[Span] = [(mark, "key bold")]
        row = self._rows.get(run_id)
        if row is None:
            self._want(place)
            spans.append(("·" * min(24, width - _GUTTER), "faint"))
            return strip_of(spans, width, "cursor" if here else "")
        cells = row["cells"]
        places = {column.id: index for index, column in enumerate(self.columns)}
        for column in self._on_screen():
            text, style = cells[places[column.id]]
            cell = pad(shown(text), self._width(column), "right" if column.align == "right" else "left")
            spans.append((cell, style))
            spans.append((_GAP, ""))
        return strip_of(spans[:-1], width, "cursor" if here else "")

    def _heading(self, width: int) -> Strip:
        spans: list[Span] = [(" " * _GUTTER, "header")]
        for column in self._on_screen():
            heading = shown(column.heading)
            size = self._width(column)
            sign = ""
            for sort in self.sort[:2]:
                if column.sort is not None and sort.lstrip("-") == column.sort.lstrip("-"):
                    sign = "▼" if sort.startswith("-") else "▲"
            if sign and cell_width(heading) < size:
                heading = f"{sign}{heading}" if column.align == "right" else f"{heading}{sign}"
            elif sign:
                heading = sign + heading[1:] if column.align == "right" else heading[:-1] + sign
            style = "here" if column.id == self.column and self.has_focus else "header"
            spans.append((pad(heading, size, "right" if column.align == "right" else "left"), style))
            spans.append((_GAP, "header"))
        return strip_of(spans[:-1], width, "")

    @property
    def _top(self) -> int:
        return round(self.scroll_offset.y)

    @property
    def _body(self) -> int:
        return max(1, self.size.height - 1)

    def _scroll_to_line(self, line: int) -> None:
        target = max(0, min(line, len(self.ids) + 1 - self.size.height))
        self.scroll_to(y=target, animate=False, immediate=True, force=True)

    def _want(self, place: int) -> None:
        start = place // _PAGE * _PAGE
        wanted = [
            run_id
            for run_id in self.ids[start : start + _PAGE]
            if run_id not in self._rows and run_id not in self._asked
        ]
        if wanted:
            self._asked.update(wanted)
            self.post_message(self.Wanted(wanted))

    def _take(self, rows: Mapping[str, Any]) -> bool:
        """Keep the cells; whether a column became wider."""
        if len(self._rows) > _KEPT_ROWS:
            self._forget_but(set(self.visible_ids()))
        widened = False
        for run_id, row in rows.items():
            if len(row["cells"]) != len(self.columns):
                continue  # an answer to a question about other columns
            self._rows[run_id] = row
            for column, (text, _) in zip(self.columns, row["cells"], strict=True):
                size = min(column.widest, cell_width(shown(text)))
                if size > self._widths[column.id]:
                    self._widths[column.id] = size
                    widened = True
        return widened

    def _forget_but(self, kept: set[str]) -> None:
        self._rows = {run_id: row for run_id, row in self._rows.items() if run_id in kept}
        self._asked.clear()

    def _arrange(self) -> None:
        """The order of columns: those that fit into the first window by weight, then those that gave way, then more."""
        usual = [column for column in self.columns if column.weight < _EXTRA]
        more = [column for column in self.columns if column.weight >= _EXTRA]
        fitting = list(usual)
        room = self.size.width - _GUTTER
        while (
            len(fitting) > 2 and sum(self._width(column) + len(_GAP) for column in fitting) - len(_GAP) > room
        ):
            heaviest = max(range(len(fitting)), key=lambda index: (fitting[index].weight, index))
            if fitting[heaviest].weight == 0:
                break
            del fitting[heaviest]
        self._order = [*fitting, *(column for column in usual if column not in fitting), *more]
        self._first_column = min(self._first_column, max(0, len(self._order) - 2))

    def _width(self, column: Column) -> int:
        width = self._widths[column.id]
        if column is self.columns[0]:
            width = min(width, max(_NARROWEST_NAME, self.size.width // _NAME_SHARE))
        return width

    def _drawn(self) -> list[Column]:
        """Columns behind the first that are on the screen."""
        if not self._order:
            return []
        room = self.size.width - _GUTTER - self._width(self._order[0])
        drawn: list[Column] = []
        for column in self._order[1 + self._first_column :]:
            room -= len(_GAP) + self._width(column)
            if room < 0:
                break
            drawn.append(column)
        return drawn

    def _on_screen(self) -> list[Column]:
        return [*self._order[:1], *self._drawn()]

    def watch_has_focus(self, focused: bool) -> None:
        super().watch_has_focus(focused)
        self.refresh(Region(0, 0, self.size.width, 1))

"""Runs side by side: a column per run, a line per row of the comparison, drawn line by line.

Knows no store: it is given entries, says which rows' cells it needs with `Wanted`, and paints dots until they are there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import nlargest
from typing import ClassVar, Literal

from textual.binding import BindingType
from textual.events import Click
from textual.geometry import Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from mltrack.tui.clean import cell_width, clip, pad
from mltrack.tui.draw.braille import curve_letter
from mltrack.tui.widgets.bindings import bindings_of
from mltrack.tui.widgets.look import Line, Span, blank, shown, strip_of

_HEAD = 2
_LONGEST = 50
_GUTTER = 1
_NARROWEST_LABEL, _WIDEST_LABEL = 14, 32
_NARROWEST_RUN, _WIDEST_RUN = 14, 40
_PAGE = 64

ODD = " ◄"
"""Behind a value that is not the usual one of its row."""
Cells = Sequence[tuple[str, str]]


def fit(text: str, room: int) -> str:
    """A cell in its room: a value that is too long loses its end, not its mark, and a number its last decimals, not half of
    how far it is from the best: `+16…` may be anything."""
    over = cell_width(text) - room
    number, gap, change = text.rpartition("  ")
    if (
        over > 0
        and gap
        and change[:1] in "+-x"
        and len(number.partition(".")[2]) > over
        and "e" not in number
    ):
        return number[:-over] + gap + change
    odd = shown(ODD)
    if text.endswith(odd) and cell_width(text) > room:
        text = clip(text.removesuffix(odd), room - cell_width(odd)) + odd
    return pad(text, room)


@dataclass(frozen=True)
class Entry:
    """A line below the heads: a row of the comparison by its place, or a title (place None) that the cursor skips."""

    place: int | None
    label: str
    line: Line = ()
    differs: bool = True


@dataclass(frozen=True)
class Head:
    """A run: its name and its status as (text, style)."""

    name: str
    status: tuple[str, str]


class CompareTable(ScrollView, can_focus=True):
    """Moves by row and run; the cursor stays on its row whatever arrives."""

    BINDINGS: ClassVar[list[BindingType]] = bindings_of("compare_rows")
    DEFAULT_CSS = """
    CompareTable { height: 1fr; width: 1fr; scrollbar-size: 0 0; overflow: hidden; }
    """

    row = reactive(0, repaint=False)
    """Index of the entry under the cursor."""

    class Wanted(Message):
        """Cells of these places are needed."""

        def __init__(self, places: list[int]) -> None:
            self.places = places
            super().__init__()

    class Moved(Message):
        """The cursor is on another row."""

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, CompareTable.Moved)

    class Opened(Message):
        """Enter on a row."""

    class Copied(Message):
        """The value under the cursor is to be copied."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.heads: Sequence[Head] = ()
        self.entries: Sequence[Entry] = ()
        self.column = 0
        self._cells: dict[int, Cells] = {}
        self._asked: set[int] = set()
        self._first = 0
        self._widest_label = 0

    # -- data in

    def show(self, heads: Sequence[Head], entries: Sequence[Entry], *, keep: bool = False) -> None:
        """New heads and entries. ``keep``: the cells that are here still belong to their places."""
        here = self.current
        if not keep:
            self._cells.clear()
        self._asked.clear()
        self.heads, self.entries = heads, entries
        # Once, of the longest: there may be thousands, and every cell is laid out by it.
        longest = nlargest(_LONGEST, (entry.label for entry in entries if entry.place is not None), key=len)
        self._widest_label = max((cell_width(shown(label)) for label in longest), default=0)
        self.column = max(0, min(self.column, len(heads) - 1))
        labels = [entry.label for entry in entries]
        rows = [index for index, entry in enumerate(entries) if entry.place is not None]
        row = labels.index(here.label) if here is not None and here.label in labels else None
        if row is None or entries[row].place is None:
            row = min(rows, key=lambda index: abs(index - self.row), default=0)
        self.set_reactive(CompareTable.row, row)  # pyright: ignore[reportArgumentType]
        self.virtual_size = Size(max(1, self.size.width), len(entries) + _HEAD)
        self._keep_in_sight()
        self.refresh()

    def put(self, cells: Mapping[str, Sequence[Sequence[str]]]) -> None:
        """Cells by place, as the worker answers."""
        for place, row in cells.items():
            self._cells[int(place)] = [(text, style) for text, style in row]
        self._asked.difference_update(int(place) for place in cells)
        self.refresh()

    @property
    def current(self) -> Entry | None:
        """The row under the cursor."""
        entry = self.entries[self.row] if 0 <= self.row < len(self.entries) else None
        return entry if entry is not None and entry.place is not None else None

    @property
    def cell(self) -> str | None:
        """The text under the cursor, without the mark of what differs."""
        entry = self.current
        cells = self._cells.get(entry.place) if entry is not None and entry.place is not None else None
        return cells[self.column][0].removesuffix(ODD) if cells and self.column < len(cells) else None

    # -- moves

    def action_row_down(self) -> None:
        self.move(1)

    def action_row_up(self) -> None:
        self.move(-1)

    def action_row_first(self) -> None:
        self.move(-len(self.entries))

    def action_row_last(self) -> None:
        self.move(len(self.entries))

    def action_row_page_down(self) -> None:
        self.move(max(1, self._body - 1))

    def action_row_page_up(self) -> None:
        self.move(-max(1, self._body - 1))

    def action_run_left(self) -> None:
        self.move_column(-1)

    def action_run_right(self) -> None:
        self.move_column(1)

    def action_run_first(self) -> None:
        self.move_column(-len(self.heads))

    def action_run_last(self) -> None:
        self.move_column(len(self.heads))

    def action_next_difference(self) -> None:
        self._seek(1)

    def action_previous_difference(self) -> None:
        self._seek(-1)

    def action_row_open(self) -> None:
        if self.current is not None:
            self.post_message(self.Opened())

    def action_copy_value(self) -> None:
        self.post_message(self.Copied())

    def move(self, rows: int) -> None:
        """Move the cursor by lines, over titles; the window follows."""
        places = [index for index, entry in enumerate(self.entries) if entry.place is not None]
        if not places:
            return
        here = places.index(self.row) if self.row in places else 0
        self._go(places[max(0, min(len(places) - 1, here + rows))])

    def move_column(self, runs: int) -> None:
        """Move the column cursor; the window follows."""
        self.column = max(0, min(len(self.heads) - 1, self.column + runs))
        if self.column < self._first:
            self._first = self.column
        elif self.column >= self._first + self._fitting:
            self._first = self.column - self._fitting + 1
        self.refresh()

    def _seek(self, by: int) -> None:
        index = self.row + by
        while 0 <= index < len(self.entries):
            if self.entries[index].place is not None and self.entries[index].differs:
                self._go(index)
                return
            index += by

    def _go(self, row: int) -> None:
        if row == self.row:
            return
        before, self.row = self.row, row
        self._keep_in_sight()
        self.refresh_line(before + _HEAD)
        self.refresh_line(row + _HEAD)
        self.post_message(self.Moved())

    def _keep_in_sight(self) -> None:
        top = self._top
        # The title above the first row belongs to it.
        first = self.row - 1 if self.row > 0 and self.entries[self.row - 1].place is None else self.row
        if first < top:
            self._scroll_to_line(first)
        elif self.row >= top + self._body:
            self._scroll_to_line(self.row - self._body + 1)

    def on_resize(self) -> None:
        self.virtual_size = Size(max(1, self.size.width), len(self.entries) + _HEAD)
        self._first = max(0, min(self._first, len(self.heads) - self._fitting))
        if self.entries:
            self._keep_in_sight()
        self.refresh()

    def on_mouse_scroll_down(self) -> None:
        self.move(3)

    def on_mouse_scroll_up(self) -> None:
        self.move(-3)

    def on_click(self, event: Click) -> None:
        index = self._top + event.y - _HEAD
        if event.y >= _HEAD and 0 <= index < len(self.entries) and self.entries[index].place is not None:
            self._go(index)

    # -- drawing

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        if y < _HEAD:
            return strip_of(self._head(y), width)
        index = self._top + y - _HEAD
        if index >= len(self.entries):
            return blank(width)
        entry = self.entries[index]
        if entry.place is None:
            return strip_of(entry.line, width)
        here = index == self.row
        label = pad(shown(entry.label), self._label)
        spans: list[Span] = [("▌" if here else " ", "key bold"), (label, "" if entry.differs else "dim")]
        cells = self._cells.get(entry.place)
        if cells is None:
            self._want(entry.place)
            spans.append((" ····", "faint"))
        else:
            for run in self._on_screen():
                text, style = cells[run] if run < len(cells) else ("", "")
                spans += [(" ", ""), (fit(shown(text), self._each - 1), style)]
        return strip_of(spans, width, "cursor" if here else "")

    def _head(self, y: int) -> list[Span]:
        label = "" if y == 0 else "status"
        spans: list[Span] = [(" " * _GUTTER + pad(label, self._label), "dim")]
        for run in self._on_screen():
            head = self.heads[run]
            spans.append((" ", ""))
            if y == 0:
                # The end of a name tells it apart.
                name = pad(f"{curve_letter(run)} {shown(head.name)}", self._each - 1)
                style = f"curve:{run} bold" + (" link" if run == self.column and self.has_focus else "")
                spans.append((name.rstrip(), style))
                spans.append((" " * (cell_width(name) - cell_width(name.rstrip())), ""))
            else:
                spans.append((pad(shown(head.status[0]), self._each - 1), head.status[1]))
        return spans

    @property
    def places(self) -> str:
        """runs 1-5 of 100"""
        if self._fitting >= len(self.heads):
            return ""
        return (
            f"runs {self._first + 1}-{min(len(self.heads), self._first + self._fitting)} of {len(self.heads)}"
        )

    @property
    def _label(self) -> int:
        room: Literal[3, 4] = 4 if self.size.width < 100 else 3
        return max(_NARROWEST_LABEL, min(self._widest_label, _WIDEST_LABEL, self.size.width // room))

    @property
    def _each(self) -> int:
        """Cells of a run's column, with the gap before it."""
        room = self.size.width - _GUTTER - self._label
        return max(_NARROWEST_RUN, min(_WIDEST_RUN, room // max(1, len(self.heads))))

    @property
    def _fitting(self) -> int:
        return max(1, (self.size.width - _GUTTER - self._label) // self._each)

    def _on_screen(self) -> range:
        return range(self._first, min(len(self.heads), self._first + self._fitting))

    @property
    def _top(self) -> int:
        return round(self.scroll_offset.y)

    @property
    def _body(self) -> int:
        return max(1, self.size.height - _HEAD)

    def _scroll_to_line(self, line: int) -> None:
        target = max(0, min(line, len(self.entries) + _HEAD - self.size.height))
        self.scroll_to(y=target, animate=False, immediate=True, force=True)

    def _want(self, place: int) -> None:
        around = [
            entry.place
            for entry in self.entries[self._top : self._top + _PAGE]
            if entry.place is not None and entry.place not in self._cells and entry.place not in self._asked
        ]
        if place not in around and place not in self._asked:
            around.append(place)
        if around:
            self._asked.update(around)
            self.post_message(self.Wanted(around))

    def watch_has_focus(self, focused: bool) -> None:
        super().watch_has_focus(focused)
        self.refresh()

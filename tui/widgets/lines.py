"""Lines of spans in a window that scrolls: headers, footers, pages of text and logs are all of this kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import zip_longest
from typing import Any, ClassVar

from textual.binding import BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from mltrack.tui.clean import cell_width
from mltrack.tui.widgets.bindings import bindings_of
from mltrack.tui.widgets.look import Line, Span, lit, shown, strip_of

# A stretch's place and colours on the wire, besides its text.
_BYTES_A_PART = 40
_NEAR_CELLS = 12


class Lines(ScrollView, can_focus=False):
    """Shows `lines`; a new set of lines repaints only those that differ."""

    DEFAULT_CSS = """
    Lines { height: 1; width: 1fr; scrollbar-size: 0 0; overflow: hidden; }
    """

    def __init__(self, *, id: str | None = None, classes: str | None = None, ground: str = "") -> None:
        super().__init__(id=id, classes=classes)
        self.lines: list[Line] = []
        self._ground = ground

    def show(self, lines: Sequence[Line]) -> None:
        """Replace the lines."""
        old, self.lines = self.lines, list(lines)
        if len(old) != len(self.lines):
            self.virtual_size = Size(max(1, self.size.width), len(self.lines))
            if self.scroll_offset.y > self.max_scroll_y:
                self.scroll_to(y=self.max_scroll_y, animate=False, immediate=True, force=True)
            self.refresh()
            return
        top = round(self.scroll_offset.y)
        for y, (before, now) in enumerate(zip(old, self.lines, strict=True)):
            if before != now and 0 <= y - top < self.size.height:
                self._refresh_part(y - top, before, now)

    def replace(self, place: int, line: Line) -> None:
        """Another line in one's place."""
        before, self.lines[place] = self.lines[place], line
        y = place - round(self.scroll_offset.y)
        if before != line and 0 <= y < self.size.height:
            self._refresh_part(y, before, line)

    def _refresh_part(self, y: int, before: Line, now: Line) -> None:
        """Paint only the cells of a line that differ: what goes over the wire is what changed."""
        parts = changed_cells(before, now)
        if parts is None:
            self.refresh(Region(0, y, self.size.width, 1))
            return
        width = self.size.width
        parts = [(begin, min(end, width)) for begin, end in parts if begin < width]
        if parts:
            self.refresh(*(Region(begin, y, end - begin, 1) for begin, end in parts))

    class Copied(Message):
        """Everything here is to be copied."""

    def everything(self) -> list[Line]:
        """All lines that are here, for copying and for files."""
        return self.lines

    def text(self) -> list[str]:
        """The lines as text, for tests and for writing to a file."""
        return ["".join(text for text, _ in line) for line in self.lines]

    def on_resize(self) -> None:
        self.virtual_size = Size(max(1, self.size.width), len(self.lines))

    def render_line(self, y: int) -> Strip:
        row = y + round(self.scroll_offset.y)
        line = self.lines[row] if row < len(self.lines) else ()
        return strip_of(line, self.size.width, self._ground)


def changed_cells(before: Line, now: Line) -> list[tuple[int, int]] | None:
    """Where two lines differ, as stretches from a cell to before another, in order; None when that cannot be told from their
    characters alone. Stretches so near that moving over what lies between costs more are one."""
    stretches: list[tuple[int, int]] = []
    place = old_at = new_at = 0
    while old_at < len(before) or new_at < len(now):
        if old_at < len(before) and new_at < len(now) and before[old_at] == now[new_at]:
            # Most spans are the same: a cursor moves through a page of lines with a hundred each.
            place += cell_width(shown(now[new_at][0]))
            old_at, new_at = old_at + 1, new_at + 1
            continue
        # What differs, until both lines are at the same cell again.
        old: list[tuple[str, str]] = []
        new: list[tuple[str, str]] = []
        while old_at < len(before) or new_at < len(now):
            if old_at < len(before) and (len(old) <= len(new) or new_at == len(now)):
                cells, into, old_at = _cells(before[old_at]), old, old_at + 1
            else:
                cells, into, new_at = _cells(now[new_at]), new, new_at + 1
            if cells is None:
                return None
            into += cells
            if len(old) == len(new):
                break
        for cell, (one, other) in enumerate(zip_longest(old, new), place):
            if one == other:
                continue
            if stretches and cell - stretches[-1][1] <= _NEAR_CELLS:
                stretches[-1] = (stretches[-1][0], cell + 1)
            else:
                stretches.append((cell, cell + 1))
        place += max(len(old), len(new))
    return stretches


def changed_bytes(before: Sequence[Line], now: Sequence[Line]) -> int:
    """About how many bytes it takes to paint what differs between two sets of as many lines."""
    total = 0
    for old, new in zip(before, now, strict=True):
        if old == new:
            continue
        text = "".join(piece for piece, _ in new)
        stretches = changed_cells(old, new)
        if stretches is None:
            stretches = [(0, len(text))]
        total += sum(len(text[begin:end].encode()) + _BYTES_A_PART for begin, end in stretches)
    return total


@lru_cache(8192)
def _is_as_drawn(text: str) -> bool:
    """Whether each character of a text is drawn as it is, in one cell."""
    return shown(text) == text and cell_width(text) == len(text)


def _cells(span: Span) -> list[tuple[str, str]] | None:
    """A character and its style for each cell; None where some character is shown otherwise, or is not one cell wide."""
    text, style = span
    if not (text.isascii() and text.isprintable()) and not _is_as_drawn(text):
        return None
    return [(character, style) for character in text]


class TextPage(Lines, can_focus=True):
    """Lines that are read: keys move the window."""

    BINDINGS: ClassVar[list[BindingType]] = bindings_of("text")
    DEFAULT_CSS = "TextPage { height: 1fr; }"

    class SearchWanted(Message):
        """A person wants to search this page."""

        def __init__(self, page: TextPage) -> None:
            self.page = page
            super().__init__()

    def __init__(self, *, id: str | None = None, filters: bool = False) -> None:
        """``filters``: a search shows only the lines that match."""
        super().__init__(id=id)
        self.sought = ""
        self._filters = filters
        self._every: list[Line] = []

    def show(self, lines: Sequence[Line]) -> None:
        self._every = list(lines)
        super().show(self._let_through())

    def search(self, text: str) -> bool:
        """Go to the next line with this text, or show only such lines; whether there is one."""
        self.sought = text.strip()
        if self._filters:
            super().show(self._let_through())
        self.refresh()
        return not self.sought or (bool(self.lines) if self._filters else self._to_match(0, 1))

    def back(self) -> bool:
        """Leave the search; False when there is none."""
        if not self.sought:
            return False
        self.search("")
        return True

    def render_line(self, y: int) -> Strip:
        if not self.sought:
            return super().render_line(y)
        row = y + round(self.scroll_offset.y)
        line = self.lines[row] if row < len(self.lines) else ()
        spans = [span for text, style in line for span in lit(text, style, self.sought)]
        return strip_of(spans, self.size.width, self._ground)

    def _let_through(self) -> list[Line]:
        if not (self._filters and self.sought):
            return self._every
        sought = self.sought.lower()
        return [line for line in self._every if sought in "".join(text for text, _ in line).lower()]

    def _to_match(self, start: int, by: int) -> bool:
        """The window to the next match from a line on, round at the end."""
        count = len(self.lines)
        texts = self.text()
        fold = self.sought == self.sought.lower()
        for step in range(count):
            row = (start + by * step) % count
            text = texts[row].lower() if fold else texts[row]
            if self.sought in text:
                self._found = row
                self.move(row - round(self.scroll_offset.y) - self.size.height // 3)
                return True
        return False

    _found = 0

    def action_text_search(self) -> None:
        self.post_message(self.SearchWanted(self))

    def action_text_next(self) -> None:
        if self.sought:
            self._to_match(self._found + 1, 1)

    def action_text_previous(self) -> None:
        if self.sought:
            self._to_match(self._found - 1, -1)

    def action_copy_text(self) -> None:
        self.post_message(self.Copied())

    def show_error(self, error: Mapping[str, Any]) -> None:
        """A question could not be answered: its sentence instead of the lines."""
        self.show([(), ((f" {error.get('message', '')}", "yellow"),)])

    def action_text_down(self) -> None:
        self.move(1)

    def action_text_up(self) -> None:
        self.move(-1)

    def action_text_page_down(self) -> None:
        self.move(max(1, self.size.height - 1))

    def action_text_page_up(self) -> None:
        self.move(-max(1, self.size.height - 1))

    def action_text_top(self) -> None:
        self.move(-len(self.lines))

    def action_text_bottom(self) -> None:
        self.move(len(self.lines))

    def move(self, lines: int) -> None:
        """Move the window, at once."""
        target = min(max(0, round(self.scroll_offset.y) + lines), self.max_scroll_y)
        self.scroll_to(y=target, animate=False, immediate=True, force=True)

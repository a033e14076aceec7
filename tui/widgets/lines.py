"""Lines of spans in a window that scrolls: headers, footers, pages of text and logs are all of this kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.binding import BindingType
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from mltrack.tui.widgets.bindings import bindings_of
from mltrack.tui.widgets.look import Line, strip_of


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
        for y, (before, now) in enumerate(zip(old, self.lines, strict=True)):
            if before != now:
                self.refresh_line(y)

    def text(self) -> list[str]:
        """The lines as text, for tests and for writing to a file."""
        return ["".join(text for text, _ in line) for line in self.lines]

    def on_resize(self) -> None:
        self.virtual_size = Size(max(1, self.size.width), len(self.lines))

    def render_line(self, y: int) -> Strip:
        row = y + round(self.scroll_offset.y)
        line = self.lines[row] if row < len(self.lines) else ()
        return strip_of(line, self.size.width, self._ground)


class TextPage(Lines, can_focus=True):
    """Lines that are read: keys move the window."""

    BINDINGS: ClassVar[list[BindingType]] = bindings_of("text")
    DEFAULT_CSS = "TextPage { height: 1fr; }"

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


class LogPage(TextPage, can_focus=True, inherit_bindings=False):
    """The end of a log; follows what is added until one moves up."""

    BINDINGS: ClassVar[list[BindingType]] = bindings_of("log")

    following = True

    def show(self, lines: Sequence[Line]) -> None:
        super().show(lines)
        # The window's new bounds are known after the next layout.
        self.call_after_refresh(self._follow)

    def on_resize(self) -> None:
        super().on_resize()
        self.call_after_refresh(self._follow)

    def _follow(self) -> None:
        if self.following:
            self.scroll_to(y=self.max_scroll_y, animate=False, immediate=True, force=True)

    def move(self, lines: int) -> None:
        super().move(lines)
        self.following = round(self.scroll_offset.y) >= self.max_scroll_y

    def action_follow(self) -> None:
        self.move(len(self.lines))

    def action_log_down(self) -> None:
        self.move(1)

    def action_log_up(self) -> None:
        self.move(-1)

    def action_log_page_down(self) -> None:
        self.move(max(1, self.size.height - 1))

    def action_log_page_up(self) -> None:
        self.move(-max(1, self.size.height - 1))

    def action_log_top(self) -> None:
        self.move(-len(self.lines))

    def action_log_bottom(self) -> None:
        self.move(len(self.lines))

"""A short list of rows with a cursor: projects, jobs, fields of a form. Everything in it fits into memory and one answer."""

from __future__ import annotations

from typing import Protocol

from textual.message import Message

from mltrack.tui.clean import cell_width
from mltrack.tui.widgets.lines import Lines
from mltrack.tui.widgets.look import Line, Span, shown


class RunList(Protocol):
    """Where the run was opened: a table of runs, or a list of jobs."""

    @property
    def current(self) -> str | None:
        """The run under the cursor."""
        ...

    def name_of(self, run_id: str, /) -> str:
        """What it is called."""
        ...

    def move(self, by: int, /) -> None:
        """Another one."""
        ...


class RowList(Lines, can_focus=True):
    """Rows by key; the cursor stays on its key when the rows change."""

    DEFAULT_CSS = """
    RowList { height: 1fr; }
    """

    class Moved(Message):
        """The cursor is on another row."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.keys: list[str] = []
        self.names: list[str] = []
        self._rows: list[Line] = []
        self.cursor = 0

    @property
    def current(self) -> str | None:
        """The key under the cursor."""
        return self.keys[self.cursor] if self.cursor < len(self.keys) else None

    def name_of(self, key: str) -> str:
        """What a row is called."""
        return self.names[self.keys.index(key)] if key in self.keys else key[:8]

    def fill(self, keys: list[str], rows: list[Line], names: list[str] | None = None) -> None:
        """Show these rows."""
        before = self.current
        self.keys, self._rows, self.names = keys, rows, names if names is not None else keys
        if before in keys:
            self.cursor = keys.index(before)
        self.cursor = max(0, min(self.cursor, len(keys) - 1))
        self.draw()

    def draw(self) -> None:
        """Draw the rows and keep the cursor in the window."""
        lines: list[Line] = []
        for place, row in enumerate(self._rows):
            here = place == self.cursor
            mark: Span = ("▌" if here else " ", "cyan" if here else "")
            spans = (mark, *((text, f"{style} cursor" if here else style) for text, style in row))
            rest = self.size.width - sum(cell_width(shown(text)) for text, _ in spans) if here else 0
            lines.append((*spans, (" " * rest, "cursor")) if rest > 0 else spans)
        self.show(lines)
        top, height = round(self.scroll_offset.y), max(1, self.size.height)
        if not top <= self.cursor < top + height:
            target = self.cursor if self.cursor < top else self.cursor - height + 1
            self.scroll_to(y=target, animate=False, immediate=True, force=True)

    def on_resize(self) -> None:
        if self.keys:
            self.draw()

    def move(self, by: int) -> None:
        """Another row."""
        place = max(0, min(len(self.keys) - 1, self.cursor + by))
        if place != self.cursor:
            self.cursor = place
            self.draw()
            self.post_message(self.Moved())

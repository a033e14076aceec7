"""A log of any length in a window: only the lines around the window are here. Follows what is added until one moves up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from textual.binding import BindingType
from textual.message import Message

from mltrack.tui.widgets.bindings import bindings_of
from mltrack.tui.widgets.lines import Lines
from mltrack.tui.widgets.look import Line, Span, lit, shown

_SIDEWAYS = 16


class LogView(Lines, can_focus=True):
    """The lines of a log; asks for those that it has not."""

    BINDINGS: ClassVar[list[BindingType]] = bindings_of("log")
    DEFAULT_CSS = "LogView { height: 1fr; }"

    class Wanted(Message):
        """Lines are needed: from which on (negative: from the end), and how many."""

        def __init__(self, first: int, count: int) -> None:
            self.first = first
            self.count = count
            super().__init__()

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, LogView.Wanted)

    class SearchWanted(Message):
        """A person wants to search."""

    class FindWanted(Message):
        """The next line with this text is wanted, from a line on. An empty text is any problem."""

        def __init__(self, text: str, line: int, forward: bool) -> None:
            self.text = text
            self.line = line
            self.forward = forward
            super().__init__()

    def everything(self) -> list[Line]:
        return self._page

    def action_copy_log(self) -> None:
        self.post_message(self.Copied())

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.following = True
        self.top = 0
        self.total = 0
        self.sought = ""
        self.found: int | None = None
        """The line that a search ended at."""
        self._first = 0
        self._page: list[Line] = []
        self._left = 0
        self._why = ""
        self._left_out = 0

    # -- data in

    def forget(self) -> None:
        """Another log."""
        self._page, self._first, self.top, self.total, self._left = [], 0, 0, 0, 0
        self.found, self._why, self.following = None, "", True
        self.redraw()

    def show_page(self, answer: Mapping[str, Any]) -> None:
        """Lines as the worker answers."""
        self._page = [tuple((str(text), str(style)) for text, style in line) for line in answer["lines"]]
        self._first, self.total = int(answer["first"]), int(answer["total"])
        self._why, self._left_out = str(answer["why"]), int(answer["left_out"])
        self.top = self._last_top() if self.following else min(self.top, self._last_top())
        self.redraw()
        self._ask_if_missing()

    def show_found(self, answer: Mapping[str, Any]) -> str:
        """Go to what a search found; what to tell the person."""
        line = answer["line"]
        if line is None:
            return str(answer["why"]) or (
                f"Nothing in the log has '{self.sought}'." if self.sought else "No problem in the log."
            )
        self.go_to(int(line))
        return "The search went round the end." if answer["round"] else ""

    def go_to(self, line: int) -> None:
        """Show this line, marked."""
        self.found = line
        self.following = False
        if not self.top <= line < self.top + self._rows():
            self.top = max(0, min(line - self._rows() // 3, self._last_top(max(self.total, line + 1))))
        self.redraw()
        self._ask_if_missing()

    def reload(self) -> None:
        """Ask again for what is shown."""
        rows = self._rows()
        if self.following:
            self.post_message(self.Wanted(-3 * rows, 3 * rows))
        else:
            self.post_message(self.Wanted(max(0, self.top - rows), 3 * rows))

    # -- actions

    def action_follow(self) -> None:
        self.following = True
        self.reload()

    def action_log_down(self) -> None:
        self.move(1)

    def action_log_up(self) -> None:
        self.move(-1)

    def action_log_page_down(self) -> None:
        self.move(max(1, self._rows() - 1))

    def action_log_page_up(self) -> None:
        self.move(-max(1, self._rows() - 1))

    def action_log_top(self) -> None:
        self.move(-self.total)

    def action_log_bottom(self) -> None:
        self.following = True
        self.reload()

    def action_log_left(self) -> None:
        self._left = max(0, self._left - _SIDEWAYS)
        self.redraw()

    def action_log_right(self) -> None:
        self._left += _SIDEWAYS
        self.redraw()

    def action_log_search(self) -> None:
        self.post_message(self.SearchWanted())

    def action_next_match(self) -> None:
        self.find(forward=True)

    def action_previous_match(self) -> None:
        self.find(forward=False)

    def action_traceback(self) -> None:
        # Backwards from the end: the last traceback is the one that ended the run.
        line = self.total if self.found is None else self.found
        self.post_message(self.FindWanted("Traceback", line, False))

    def search(self, text: str) -> None:
        """Look for a text from the top of the window on; an empty one is any problem."""
        self.sought = text
        if text:
            self.post_message(self.FindWanted(text, self.top - 1, True))
        else:
            self.found = None
            self.redraw()

    def find(self, forward: bool) -> None:
        """The next match, else the next problem."""
        edge = self.top - 1 if forward else self.top + self._rows()
        line = self.found if self.found is not None else edge
        self.post_message(self.FindWanted(self.sought, line, forward))

    def back(self) -> bool:
        """Leave the search; False when there is none."""
        if not self.sought and self.found is None:
            return False
        self.sought, self.found = "", None
        self.redraw()
        return True

    def move(self, lines: int) -> None:
        """Move the window."""
        self.top = max(0, min(self.top + lines, self._last_top()))
        self.following = self.top >= self._last_top()
        self.redraw()
        self._ask_if_missing()

    def on_resize(self) -> None:
        super().on_resize()
        if self.following:
            self.top = self._last_top()
        self.redraw()
        if self.display:
            self.reload()

    # -- drawing

    def _rows(self) -> int:
        """Lines of the log that fit; the last row says where one is."""
        return max(1, self.size.height - 1)

    def _last_top(self, total: int | None = None) -> int:
        return max(0, (self.total if total is None else total) - self._rows())

    def _ask_if_missing(self) -> None:
        rows = self._rows()
        end = min(self.total, self.top + rows)
        if self.top < self._first or end > self._first + len(self._page):
            self.post_message(self.Wanted(max(0, self.top - rows), 3 * rows))

    def redraw(self) -> None:
        """Draw the window; what is the same is not painted."""
        height = self.size.height
        if height <= 0:
            return
        if self._why and not self.total:
            self.show([(), ((f"  {self._why}", "dim"),)])
            return
        rows: list[Line] = []
        for number in range(self.top, min(self.total, self.top + self._rows())):
            place = number - self._first
            line = self._page[place] if 0 <= place < len(self._page) else (("·" * 8, "faint"),)
            rows.append(self._row(number, line))
        rows += [()] * (self._rows() - len(rows))
        self.show([*rows, self._where()])

    def _row(self, number: int, line: Line) -> Line:
        spans: list[Span] = [("▌" if number == self.found else " ", "key")]
        left = self._left
        for raw, style in line:
            text = shown(raw)
            if left:
                cut = min(left, len(text))
                text, left = text[cut:], left - cut
            spans += lit(text, style, self.sought) if self.sought else [(text, style)]
        return tuple(spans)

    def _where(self) -> Line:
        if not self.total:
            return ()
        last = min(self.total, self.top + self._rows())
        text = f" line {self.top + 1:,}-{last:,} of {self.total:,}"
        if self._left_out:
            text += f"   {self._left_out / 1e6:,.0f} MB at the start are left out"
        spans: list[Span] = [(text, "dim")]
        if self._left:
            spans.append((f"   from column {self._left + 1}", "dim"))
        if self.sought:
            spans.append((f"   / {shown(self.sought)}", "key"))
        spans.append(
            ("   following" if self.following else "   F follows", "green" if self.following else "dim")
        )
        return tuple(spans)

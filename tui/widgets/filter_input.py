"""The filter field: tab completes keys and values, one candidate after the other."""

from __future__ import annotations

from typing import Any, ClassVar

from textual.binding import BindingType
from textual.message import Message

from mltrack.tui.clean import cell_width
from mltrack.tui.widgets.bindings import bindings_of
from mltrack.tui.widgets.line_input import LineInput
from mltrack.tui.widgets.look import Line, Span, shown


class FilterInput(LineInput):
    """A line with candidates for what stands at its cursor."""

    BINDINGS: ClassVar[list[BindingType]] = bindings_of("filter")

    class Completed(Message):
        """Another candidate was put into the text."""

    class Wanted(Message):
        """Tab was pressed before it was known what may stand there: `offer` is to be called for this text."""

        def __init__(self, text: str, position: int) -> None:
            self.text = text
            self.position = position
            super().__init__()

    def __init__(self, value: str = "", **options: Any) -> None:
        super().__init__(value, **options)
        self.candidates: list[str] = []
        self.found = ""
        """The text that was here when one came to type."""
        self._start = 0
        self._chosen = -1
        self._written = ""
        self._tail = ""
        self._offered: tuple[str, int] | None = None
        self._waiting: tuple[str, int, int] | None = None

    @property
    def completing(self) -> bool:
        """Whether the text is what a candidate made of it: the next tab goes on to the next."""
        return self._chosen >= 0 and self.value == self._written

    @property
    def waiting(self) -> bool:
        """Whether tab was pressed and its completion is still to come: no other text is to be asked about."""
        return self._waiting is not None

    def forget(self) -> None:
        """A tab that was not answered is not waited for."""
        self._waiting = None

    def offer(self, text: str, position: int, start: int, candidates: list[str]) -> None:
        """What may stand from ``start`` to ``position`` of ``text``."""
        self._start, self.candidates, self._chosen = start, candidates, -1
        self._offered = text, position
        waiting, self._waiting = self._waiting, None
        if waiting is not None and waiting[:2] == (text, position) and self.value.startswith(text[:position]):
            # What was typed since stands behind what is put in.
            self._complete_from(position, waiting[2])

    def candidate_line(self, width: int) -> Line:
        """The candidates as far as they fit, the chosen one in sight."""
        empties: tuple[Span, ...] = ()
        if self.value and self.value == self.found:
            empties = ((" ctrl+u", "key"), (" empties  ", "dim"))
        if not self.candidates:
            keys = ((" tab", "key"), (" completes   ", "dim"), ("enter", "key"), (" to the table", "dim"))
            return (*empties, *keys)
        spans: list[Span] = [*empties, (" tab ", "key")]
        room = width - 6 - sum(len(text) for text, _ in empties)
        first = max(0, self._chosen - 2)
        for place, candidate in enumerate(self.candidates[first:], first):
            room -= cell_width(shown(candidate)) + 2
            if room < 0:
                break
            spans.append((candidate, "here" if place == self._chosen else ""))
            spans.append(("  ", ""))
        return tuple(spans)

    def action_complete(self) -> None:
        self._complete(1)

    def action_complete_back(self) -> None:
        self._complete(-1)

    def _complete(self, by: int) -> None:
        here = self.value, self.cursor_position
        if self.completing or here == self._offered:
            self._complete_from(self.cursor_position, by)
        elif self._waiting is None or self._waiting[:2] == here:
            self._waiting = *here, by if self._waiting is None else self._waiting[2] + by
            self.post_message(self.Wanted(*here))

    def _complete_from(self, end: int, by: int) -> None:
        if not self.candidates or not by:
            return
        typed_since = self.cursor_position - end
        if not self.completing:
            self._tail = self.value[end:]
            self._chosen = -1 if by > 0 else 0
        self._chosen = (self._chosen + by) % len(self.candidates)
        text = self.value[: self._start] + self.candidates[self._chosen]
        if not text.endswith("("):
            text += " "
        self._written = text + self._tail.lstrip()
        self.value = self._written
        self.cursor_position = len(text) + max(0, typed_since)
        self.post_message(self.Completed())

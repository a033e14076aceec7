"""`.`: what can be done with the column under the cursor."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, TypeAlias

from textual import events
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.screen import ModalScreen

from mltrack.tui.clean import pad
from mltrack.tui.widgets.bindings import bindings_of
from mltrack.tui.widgets.lines import Lines
from mltrack.tui.widgets.look import Line, shown

Entry: TypeAlias = tuple[str, str, str]
"""The letter that does it, what it does, and how it is now."""
_LABEL = 28


class ColumnMenu(ModalScreen[None]):
    """Entries with a letter each; stays open where one may want more."""

    BINDINGS: ClassVar[list[BindingType]] = bindings_of("menu")

    def __init__(self, title: str, entries: Callable[[], list[Entry]], choose: Callable[[str], bool]) -> None:
        """``choose`` does what a letter says, and says whether the menu stays open."""
        super().__init__()
        self._title = title
        self._entries = entries
        self._choose = choose
        self._row = 0

    def compose(self) -> ComposeResult:
        yield Lines(id="menu", ground="bar")

    def on_mount(self) -> None:
        self.repaint()
        # What an entry changes is known when the worker has answered.
        self.set_interval(0.1, self.repaint)

    def repaint(self) -> None:
        """Draw the entries as they are now."""
        entries = self._entries()
        self._row = max(0, min(self._row, len(entries) - 1))
        lines: list[Line] = [((f" {shown(self._title)} ", "header"),)]
        for place, (letter, label, now) in enumerate(entries):
            ground = " cursor" if place == self._row else ""
            lines.append(
                (
                    (f" {letter} ", "key" + ground),
                    (pad(label, _LABEL), ground.strip()),
                    (pad(now, 8), "dim" + ground),
                )
            )
        menu = self.query_one("#menu", Lines)
        menu.styles.height = min(len(lines), max(1, self.size.height - 1))
        menu.show(lines)

    async def on_key(self, event: events.Key) -> None:
        letter = event.character or ""
        if letter in [entry[0] for entry in self._entries()]:
            event.stop()
            self._do(letter)

    def _do(self, letter: str) -> None:
        if self._choose(letter):
            self.repaint()
        else:
            self.dismiss()

    def action_menu_down(self) -> None:
        self._row += 1
        self.repaint()

    def action_menu_up(self) -> None:
        self._row = max(0, self._row - 1)
        self.repaint()

    def action_menu_do(self) -> None:
        entries = self._entries()
        if entries:
            self._do(entries[self._row][0])

    def action_menu_close(self) -> None:
        self.dismiss()

"""What can be done here: the keys of this focus and the commands, filterable; enter does the chosen one.

`?` opens it to read, `:` to type: a command such as `w FILE`, or words that an action's name holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal
from textual.events import Click
from textual.message import Message
from textual.widgets import Input

from mltrack.tui.clean import cell_width, clip, pad
from mltrack.tui.commands import COMMANDS, complete_command, parse_command
from mltrack.tui.keys import FOCUS_TITLES, Focus, Key, keys_of
from mltrack.tui.screens.base import BaseScreen
from mltrack.tui.widgets.bindings import bindings_of
from mltrack.tui.widgets.line_input import LineInput
from mltrack.tui.widgets.lines import Lines
from mltrack.tui.widgets.look import Line
from mltrack.tui.widgets.look import shown as shown_as

_TWIN_WIDTH = 100


@dataclass(frozen=True)
class _Row:
    line: Line
    key: Key | None = None
    typed: str = ""
    """What a command begins with, for the field."""
    twin: str = ""
    """The command line that does the same."""


class ActionList(Lines, can_focus=True):
    """Lines of which some can be chosen."""

    DEFAULT_CSS = "ActionList { height: 1fr; }"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.rows: list[_Row] = []
        self.here = 0

    class Moved(Message):
        """Another row is the one that enter does."""

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, ActionList.Moved)

    def offer(self, rows: list[_Row]) -> None:
        """Show these; the first that can be chosen is."""
        self.rows = rows
        self.here = next((place for place, row in enumerate(rows) if row.key or row.typed), 0)
        self.scroll_to(y=0, animate=False, immediate=True, force=True)
        self.draw()

    def draw(self) -> None:
        """Draw the lines, the chosen one lit."""
        self.post_message(self.Moved())
        self.show(
            [
                (("▌", "key"), *((text, f"{style} cursor") for text, style in row.line))
                if place == self.here and (row.key or row.typed)
                else ((" ", ""), *row.line)
                for place, row in enumerate(self.rows)
            ]
        )

    def move(self, by: int) -> None:
        """Move over rows that can be chosen; the window follows."""
        places = [place for place, row in enumerate(self.rows) if row.key or row.typed]
        if not places:
            return
        at = places.index(self.here) if self.here in places else 0
        self.here = places[max(0, min(len(places) - 1, at + by))]
        self.draw()
        # The title above the first of a group is worth a line.
        top, room = round(self.scroll_offset.y), self.size.height
        target = min(top, max(0, self.here - 1)) if self.here - 1 < top else max(top, self.here - room + 1)
        self.scroll_to(y=target, animate=False, immediate=True, force=True)

    def on_click(self, event: Click) -> None:
        place = event.y + round(self.scroll_offset.y)
        if place < len(self.rows) and (self.rows[place].key or self.rows[place].typed):
            self.here = place
            self.draw()


class PaletteInput(LineInput):
    """The field of the palette: enter acts at once."""

    async def action_submit(self) -> None:
        screen = self.screen
        assert isinstance(screen, HelpScreen)
        await screen.action_item_run()


class HelpScreen(BaseScreen):
    """The actions of the focus one came from and those that are the same everywhere."""

    BINDINGS: ClassVar[list[BindingType]] = bindings_of("actions")

    def __init__(self, focuses: tuple[Focus, ...], *, typing: bool = False) -> None:
        super().__init__()
        self._focuses = focuses
        self._typing = typing
        self._shown = ""

    def compose(self) -> ComposeResult:
        yield Lines(id="head", ground="bar")
        with Horizontal(id="palette-row"):
            yield Lines(id="palette-sign")
            yield PaletteInput(
                id="palette", placeholder="an action, or q, w FILE, theme NAME, mouse off, !COMMAND, 42"
            )
        yield ActionList(id="actions")
        yield Lines(id="twin")
        yield Lines(id="foot", ground="bar")

    def on_mount(self) -> None:
        self.query_one("#palette-sign", Lines).show([((" :" if self._typing else " /", "key"), (" ", ""))])
        self.set_focus(self.query_one("#palette", Input) if self._typing else self.actions)
        self._show()

    def on_resize(self) -> None:
        note = "only capital letters and e change what others see; u takes it back"
        head: Line = ((" Keys", "bold"), (f"   {note}", "dim"))
        if self._typing:
            head = ((" Do", "bold"), ("   type to find an action; enter does it, tab completes", "dim"))
        self.query_one("#head", Lines).show([head])
        self.query_one("#twin").display = self.size.width < _TWIN_WIDTH and self.size.height >= 14
        self._show()
        self.show_footer()

    @property
    def actions(self) -> ActionList:
        """The list."""
        return self.query_one("#actions", ActionList)

    def focuses(self) -> tuple[Focus, ...]:
        return ("actions", "everywhere")

    def _show(self) -> None:
        text = self._shown = self.query_one("#palette", Input).value
        words = text.lower().removeprefix(":").split()
        keys = list(keys_of(*self._focuses))
        wide = min(24, max(cell_width(key.shown) for key in keys) + 2)
        label = max(cell_width(key.label) for key in keys) + 2
        rows: list[_Row] = []
        typed = parse_command(text)
        if typed is not None:
            does = "go to" if typed.name == "goto" else typed.name
            line: Line = (("enter  ", "key"), (f"{does} {typed.argument}".strip(), "bold"))
            rows.append(_Row(line, typed=text))
        for focus in self._focuses:
            found = [key for key in keys_of(focus) if _holds(key, words)]
            if found:
                rows += [_Row(())] if rows else []
                rows.append(_Row(((FOCUS_TITLES[focus], "header"),)))
                rows += [
                    _Row(
                        self._line(
                            key.shown, key.label, key.twin, wide, label, self.mltrack.refusal(focus, key.id)
                        ),
                        key,
                        twin=key.twin,
                    )
                    for key in found
                ]
        commands = [
            command
            for command in COMMANDS
            if all(word in f":{command.name} {command.label}".lower() for word in words)
        ]
        if commands:
            rows += [_Row(()), _Row((("Behind :", "header"),))]
            rows += [
                _Row(
                    self._line(command.shown, command.label, command.twin, wide, label),
                    typed=""
                    if command.name == "42"
                    else command.name + (" " if command.name.isalpha() else ""),
                    twin=command.twin,
                )
                for command in commands
            ]
        if not rows:
            rows.append(_Row((("Nothing here is called so; esc goes back.", "dim"),)))
        self.actions.offer(rows)

    def _line(self, shown: str, label: str, twin: str, wide: int, label_width: int, why: str = "") -> Line:
        """``why``: what stands behind a key instead of its twin, because it may do nothing here."""
        look, told = ("dim", "dim") if why else ("key", "")
        if self.size.width < _TWIN_WIDTH:
            return ((pad(shown, wide), look), (clip(label, max(8, self.size.width - wide - 1)), told))
        line: Line = ((pad(shown, wide), look), (pad(label, label_width), told))
        behind = shown_as(why) if why else "$ " + twin if twin else ""
        return (*line, (behind, "dim")) if behind else line

    @on(ActionList.Moved)
    def _show_twin(self) -> None:
        """At the bottom, where it has no room behind its action."""
        rows, here = self.actions.rows, self.actions.here
        twin = rows[here].twin if here < len(rows) else ""
        self.query_one("#twin", Lines).show([((f" $ {twin}" if twin else "", "dim"),)])

    @on(Input.Changed, "#palette")
    def _typed(self) -> None:
        if self.query_one("#palette", Input).value != self._shown:
            self._show()

    # -- actions

    async def action_item_run(self) -> None:
        """Do the chosen one, on the screen below."""
        field = self.query_one("#palette", Input)
        if field.value != self._shown:
            self._show()  # typed faster than messages travel
        typed = parse_command(field.value)
        row = self.actions.rows[self.actions.here] if self.actions.rows else _Row(())
        if typed is not None and (row.typed == field.value or row.key is None):
            self.app.pop_screen()
            await self.mltrack.carry_out(typed)
        elif row.key is not None:
            self.app.pop_screen()
            await self.mltrack.perform(row.key)
        elif row.typed:
            field.value = row.typed
            field.cursor_position = len(field.value)
            self.set_focus(field)
            self.show_footer()
        else:
            self.say("Nothing is called so. esc goes back, backspace shows more.")

    def action_item_down(self) -> None:
        self.actions.move(1)

    def action_item_up(self) -> None:
        self.actions.move(-1)

    def action_item_page_down(self) -> None:
        self.actions.move(max(1, self.actions.size.height - 2))

    def action_item_page_up(self) -> None:
        self.actions.move(-max(1, self.actions.size.height - 2))

    def action_item_first(self) -> None:
        self.actions.move(-len(self.actions.rows))

    def action_item_last(self) -> None:
        self.actions.move(len(self.actions.rows))

    def action_item_filter(self) -> None:
        self.set_focus(self.query_one("#palette", Input))
        self.show_footer()

    def action_item_complete(self) -> None:
        field = self.query_one("#palette", Input)
        completed = complete_command(field.value)
        row = self.actions.rows[self.actions.here] if self.actions.rows else _Row(())
        if completed is None and row.key is not None:
            completed = row.key.label
        if completed is not None:
            field.value = completed
            field.cursor_position = len(completed)

    def action_back(self) -> None:
        field = self.query_one("#palette", Input)
        if not self._typing and (self.focused is field or field.value):
            field.value = ""
            self.set_focus(self.actions)
            self.show_footer()
        else:
            self.app.pop_screen()

    async def action_help(self) -> None:
        self.app.pop_screen()

    async def action_palette(self) -> None:
        self.action_item_filter()


def _holds(key: Key, words: list[str]) -> bool:
    text = f"{key.label} {key.id.replace('_', ' ')} {key.twin} {key.shown}".lower()
    return all(word in text for word in words)

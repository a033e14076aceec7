"""`?`: what the keys do where one is."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType

from mltrack.tui.clean import cell_width, pad
from mltrack.tui.keys import FOCUS_TITLES, Focus, keys_of
from mltrack.tui.screens.base import BaseScreen
from mltrack.tui.widgets.lines import Lines, TextPage
from mltrack.tui.widgets.look import Line

_TWIN_WIDTH = 100


class HelpScreen(BaseScreen):
    """The keys of the focus one came from, and those that are the same everywhere."""

    BINDINGS: ClassVar[list[BindingType]] = []

    def __init__(self, focuses: tuple[Focus, ...]) -> None:
        super().__init__()
        self._focuses = focuses

    def compose(self) -> ComposeResult:
        yield Lines(id="head", ground="bar")
        yield TextPage(id="keys")
        yield Lines(id="foot", ground="bar")

    def on_mount(self) -> None:
        self.set_focus(self.query_one("#keys", TextPage))

    def on_resize(self) -> None:
        self.query_one("#head", Lines).show(
            [
                (
                    (" Keys", "bold"),
                    ("   what other people see changes only by a capital letter, and u takes it back", "dim"),
                )
            ]
        )
        keys = list(keys_of(*self._focuses))
        wide = max(cell_width(key.shown) for key in keys) + 2
        label = max(cell_width(key.label) for key in keys) + 2
        lines: list[Line] = []
        for focus in self._focuses:
            if lines:
                lines.append(())
            lines.append(((FOCUS_TITLES[focus], "header"),))
            for key in keys_of(focus):
                line: Line = ((pad(key.shown, wide), "key"), (pad(key.label, label), ""))
                if key.twin and self.size.width >= _TWIN_WIDTH:
                    line = (*line, (key.twin, "dim"))
                lines.append(line)
        lines += [
            (),
            (("Every screen has a twin at the prompt: the line that begins with $ shows it.", "dim"),),
        ]
        self.query_one("#keys", TextPage).show(lines)
        self.show_footer()

    def focuses(self) -> tuple[Focus, ...]:
        return ("text", "everywhere")

    async def action_help(self) -> None:
        self.app.pop_screen()

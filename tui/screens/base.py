"""What all screens share: help, back, quit, undo, and one line at the bottom that says what happened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual.binding import BindingType
from textual.screen import Screen

from mltrack.tui.clean import cell_width
from mltrack.tui.keys import Focus, footer
from mltrack.tui.messages import StoreChanged
from mltrack.tui.widgets.bindings import bindings_of
from mltrack.tui.widgets.lines import Lines
from mltrack.tui.widgets.look import Line, Span

if TYPE_CHECKING:
    from mltrack.tui.app import MltrackApp


class BaseScreen(Screen[None]):
    """A screen of the app."""

    BINDINGS: ClassVar[list[BindingType]] = bindings_of("everywhere")

    said = ""
    """The sentence at the bottom, until the next key."""

    @property
    def mltrack(self) -> MltrackApp:
        """The app, by its own type."""
        return cast("MltrackApp", self.app)

    def focuses(self) -> tuple[Focus, ...]:
        """The focuses whose keys act now, the most special first."""
        return ("everywhere",)

    def say(self, sentence: str, style: str = "yellow") -> None:
        """Show a sentence in place of the footer until the next key."""
        self.said = sentence
        self.query_one("#foot", Lines).show([((" " + sentence, style),)])

    def show_footer(self) -> None:
        """The keys that matter here."""
        if self.said:
            return
        spans: list[Span] = []
        room = self.size.width
        for key, label in footer(*self.focuses()):
            cells = cell_width(key) + cell_width(label) + 4
            if room < cells:
                break
            room -= cells
            spans += [(" " + key, "key"), (" " + label + "  ", "dim")]
        self.query_one("#foot", Lines).show([cast(Line, tuple(spans))])

    def key_pressed(self) -> None:
        """A key was pressed, and acts now: what was said has been read."""
        if self.said:
            self.said = ""
            self.show_footer()

    def on_store_changed(self, message: StoreChanged) -> None:
        """New data: screens that show any ask again."""

    def failed(self, error: dict[str, Any]) -> None:
        """A question could not be answered: its sentence is for the person."""
        self.say(str(error.get("message", "")), "error")

    async def action_help(self) -> None:
        from mltrack.tui.screens.help import HelpScreen

        await self.app.push_screen(HelpScreen(self.focuses()))

    def action_back(self) -> None:
        self.app.pop_screen()

    def action_quit_now(self) -> None:
        self.app.exit()

    def action_redraw(self) -> None:
        self.app.refresh(layout=True)
        self.on_store_changed(StoreChanged(0, 0))

    def action_undo(self) -> None:
        self._decide("undo")

    def action_redo(self) -> None:
        self._decide("redo")

    def _decide(self, call: str, **options: Any) -> None:
        """Change something; what was done is said, and how to take it back."""

        def done(result: Any) -> None:
            back = "" if call == "undo" else "   u takes it back"
            self.say(f"{result['sentence']}.{back}", "green")
            self.on_store_changed(StoreChanged(0, 0))

        if not self.mltrack.live.running:
            self.say("The store is not open.", "error")
            return
        self.mltrack.live.ask(call, done, self.failed, **options)

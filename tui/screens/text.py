"""A page of text over the screen: diffs, previews, lists of commits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from textual.app import ComposeResult

from mltrack.tui.clean import cell_width
from mltrack.tui.keys import Focus
from mltrack.tui.raster import Placed
from mltrack.tui.screens.base import BaseScreen
from mltrack.tui.widgets.lines import Lines
from mltrack.tui.widgets.look import Line, broken, shown, spans_of
from mltrack.tui.widgets.picture_page import PicturePage

# A page that is there sooner than this never says that it waits.
_PATIENCE_SECONDS = 0.4
_TOPIC = "text page"
AGAIN_SECONDS = 0.5
"""When to ask again while another machine has not answered."""


class TextScreen(BaseScreen):
    """A title and lines; esc goes back."""

    def __init__(
        self, title: str, lines: Sequence[Line] | None, note: str = "", *, sentences: bool = False
    ) -> None:
        """``lines`` are None while they are still to come: `fill` brings them. ``sentences``: a line that is longer than the
        screen is wide goes on below, because its end is what it says."""
        super().__init__()
        self.heading = title
        self.lines = lines
        self.note = note
        self.sentences = sentences
        self.pictures: Sequence[Placed] = ()
        self.ask_again: Callable[[], None] | None = None
        """Asks once more for what the page shows, when the terminal turns out to draw pictures."""

    def compose(self) -> ComposeResult:
        yield Lines(id="head", ground="bar")
        yield PicturePage(id="page")
        yield Lines(id="foot", ground="bar")

    def on_mount(self) -> None:
        self.set_focus(self.query_one("#page", PicturePage))
        if self.lines is None:
            self.set_timer(_PATIENCE_SECONDS, self._show_waiting)
        else:
            self._show_lines()

    def on_unmount(self) -> None:
        if self.lines is None:
            self.mltrack.live.drop(_TOPIC)

    def pictures_changed(self) -> None:
        if self.ask_again is not None:
            self.ask_again()

    def fill(
        self, title: str, lines: Sequence[Line], note: str = "", pictures: Sequence[Placed] = ()
    ) -> None:
        """What the page was opened for has come."""
        self.pictures = pictures
        self.heading, self.lines, self.note = title, lines, note
        if self.is_mounted:
            self._show_lines()
            self._show_heading()

    def _show_lines(self) -> None:
        page = self.query_one("#page", PicturePage)
        lines = self.lines or [((" Nothing to show.", "dim"),)]
        if self.sentences:
            lines = [part for line in lines for part in broken(line, self.size.width)]
        page.show_pictures(lines, self.pictures)

    def _show_waiting(self) -> None:
        if self.lines is None:
            self.query_one("#page", PicturePage).show([((" Reading it\u2026", "dim"),)])

    def on_resize(self) -> None:
        self._show_heading()
        if self.sentences and self.lines is not None:
            self._show_lines()
        self.show_footer()

    def _show_heading(self) -> None:
        room = self.size.width - cell_width(shown(self.heading)) - cell_width(shown(self.note)) - 3
        gap = " " * max(2, room)
        self.query_one("#head", Lines).show([((" " + self.heading, "bold"), (gap + self.note, "dim"))])

    def focuses(self) -> tuple[Focus, ...]:
        return ("text", "everywhere")


def open_text(
    screen: BaseScreen,
    heading: str,
    call: str,
    read: Callable[[Any], tuple[str, Sequence[Line]]] | None = None,
    *,
    sentences: bool = False,
    **options: Any,
) -> None:
    """Open a page over ``screen`` at once, and fill it when the worker has answered: a key that is pressed before that
    belongs to the page already, so that esc closes it and nothing else. ``read`` gives the answer's title and lines."""
    page = TextScreen(heading, None, sentences=sentences)

    def arrived(answer: Any) -> None:
        page.fill(*(read or read_lines)(answer))
        if isinstance(answer, dict) and answer.get("again"):
            page.set_timer(AGAIN_SECONDS, ask)

    def refused(error: dict[str, Any]) -> None:
        if page.is_current:
            page.app.pop_screen()
        screen.failed(error)

    def ask() -> None:
        if page.is_attached:
            screen.mltrack.live.ask(call, arrived, refused, topic=_TOPIC, **options)

    screen.app.push_screen(page)
    screen.mltrack.live.ask(call, arrived, refused, topic=_TOPIC, **options)


def read_lines(answer: dict[str, Any]) -> tuple[str, list[Line]]:
    """The title and the lines of most answers: {"title", "lines"}."""
    return answer["title"], [spans_of(line) for line in answer["lines"]]

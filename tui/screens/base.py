"""What all screens share: help, palette, back, quit, undo, copy, write, and one line at the bottom that says what happened."""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual import on
from textual.binding import BindingType
from textual.screen import Screen

from mltrack.store.client.secrets import without_password
from mltrack.tui.clean import cell_width, clean, wrap
from mltrack.tui.clipboard import copy_text
from mltrack.tui.keys import Focus, footer
from mltrack.tui.messages import StoreChanged
from mltrack.tui.outside import open_outside
from mltrack.tui.widgets.bindings import bindings_of
from mltrack.tui.widgets.lines import Lines, TextPage
from mltrack.tui.widgets.look import Line, Span, hex_style, lines_of_strips, shown

if TYPE_CHECKING:
    from mltrack.tui.app import MltrackApp
    from mltrack.tui.export import Shown

_SENTENCE_LINES = 4


class BaseScreen(Screen[None]):
    """A screen of the app."""

    BINDINGS: ClassVar[list[BindingType]] = bindings_of("everywhere")

    missed = False
    """Whether the store changed while another screen lay over this one."""

    said = ""
    """The sentence at the bottom, until the next key."""
    file_stem = "mltrack"
    """What a file that `w` writes is called when nobody says."""

    @property
    def mltrack(self) -> MltrackApp:
        """The app, by its own type."""
        return cast("MltrackApp", self.app)

    @property
    def store_option(self) -> str:
        """` --store WHERE` for a command that does the same, without a password; "" where no store was named."""
        return f" --store {shlex.quote(without_password(self.mltrack.where))}" if self.mltrack.where else ""

    def focuses(self) -> tuple[Focus, ...]:
        """The focuses whose keys act now, the most special first."""
        return ("everywhere",)

    def say(self, sentence: str, style: str = "yellow") -> None:
        """Show a sentence in place of the footer until the next key."""
        self.said = sentence
        foot = self.query_one("#foot", Lines)
        # A sentence is worth nothing without its end: what is too long for a line takes more of them.
        lines = wrap(sentence, max(10, self.size.width - 2), _SENTENCE_LINES)
        foot.styles.height = len(lines)
        foot.show([((" " + line, style),) for line in lines])

    def show_footer(self) -> None:
        """The keys that matter here."""
        if self.said:
            return
        spans: list[Span] = []
        room = self.size.width
        for focus, id, key, label in footer(*self.focuses()):
            cells = cell_width(key) + cell_width(label) + 4
            if room < cells:
                break
            room -= cells
            style = "dim" if self.mltrack.refusal(focus, id) else "key"
            spans += [(" " + key, style), (" " + label + "  ", "dim")]
        self.query_one("#foot", Lines).show([cast(Line, tuple(spans))])

    def key_pressed(self) -> None:
        """A key was pressed, and acts now: what was said has been read."""
        if self.said:
            self.said = ""
            self.query_one("#foot", Lines).styles.height = 1
            self.show_footer()

    def on_screen_resume(self) -> None:
        """Uncovered: what was missed is asked for now."""
        if self.missed:
            self.missed = False
            self.on_store_changed(StoreChanged(0, 0))

    def on_store_changed(self, message: StoreChanged) -> None:
        """New data: screens that show any ask again."""

    def pictures_changed(self) -> None:
        """The terminal draws pictures otherwise than was known: screens that show some ask again."""

    def absent_lines(self) -> list[Line]:
        """What a page shows while there is no store to ask."""
        sentence = self.mltrack.live.absent
        return [(), *(((" " + line, "dim"),) for line in wrap(sentence, max(10, self.size.width - 2), 6))]

    def failed(self, error: dict[str, Any]) -> None:
        """A question could not be answered: its sentence is for the person."""
        self.say(str(error.get("message", "")), "error")

    # -- what is shown, for copying and writing

    def ask_shown(self, use: Callable[[Shown], None]) -> None:
        """Hand what is shown to ``use``, now or when the worker has answered. Without a table of its own a screen gives the
        page that has the focus in full, or else its lines as they are drawn."""
        from mltrack.tui.export import Shown

        page = self.focused
        if isinstance(page, Lines):
            use(Shown(self.file_stem, lines=page.everything()))
            return
        use(Shown(self.file_stem, lines=lines_of_strips(self._compositor.render_strips())))

    @property
    def looked_at(self) -> str | None:
        """Id of the run that is looked at, where there is one."""
        return None

    def run_shell(self, command: str = "") -> None:
        """A shell, or one command, in the folder of the run that is looked at, else where the app was started."""
        run_id = self.looked_at
        if run_id is None:
            self.mltrack.run_shell(command, Path.cwd())
            return

        host = self.mltrack.live.host
        if host:
            self.say(f"The run's folder is on {host}: `ssh {host}` has a shell there.")
            return

        def arrived(folder: str | None) -> None:
            if folder is None or not Path(folder).is_dir():
                self.say("The run has no folder on this machine.")
            else:
                self.mltrack.run_shell(command, Path(folder))

        self.mltrack.live.ask("run_folder_of", arrived, self.failed, run_id=run_id)

    def ask_outside(self, use: Callable[[dict[str, str] | None], None]) -> None:
        """Hand what `o` opens to ``use``: {"target", "what"}; None where there is nothing."""
        self.ask_outside_of_run(use)

    def ask_outside_of_run(self, use: Callable[[dict[str, str] | None], None], **options: Any) -> None:
        """What can be opened of the run that is looked at."""
        if self.looked_at is None:
            use(None)
        else:
            self.mltrack.live.ask("place_outside", use, self.failed, run_id=self.looked_at, **options)

    def go_to(self, number: int) -> None:
        """Row or line ``number``, counted from one."""
        page = self.focused
        if isinstance(page, TextPage):
            page.move(number - 1 - round(page.scroll_offset.y))
        else:
            self.say("There are no numbered rows here.")

    def copy(self, text: str | None, what: str = "") -> None:
        """Copy, and say where it went."""
        if not text:
            self.say(f"There is nothing to copy{' ' + what if what else ''}.")
            return
        self.run_worker(self._copy(text), group="copy", exit_on_error=False)

    async def _copy(self, text: str) -> None:
        sentence, done = await asyncio.to_thread(copy_text, text, self.mltrack.send_raw)
        self.say(f"{sentence[0].upper()}{sentence[1:]}.", "green" if done else "error")

    @property
    def reported(self) -> Sequence[str]:
        """Ids of the runs that a report from here is about; without any, html is what is shown."""
        return ()

    @property
    def figure(self) -> Mapping[str, Any] | None:
        """The chart that has the keys, as the worker is asked to write it; None where there is none."""
        return None

    def plotted(self) -> dict[str, Any] | None:
        """Which runs a plot from here is about: {"run_ids", "filter", "experiment"}; None where there are none."""
        return None

    def write_shown(self, name: str) -> None:
        """Write what is shown to the file ``name``; a report where that is about runs, a figure where it is a chart."""
        from mltrack.tui.export import CannotWrite, write

        ending = os.path.splitext(name)[1].lower()
        figure = self.figure if ending in (".svg", ".pdf") else None

        def written(done: dict[str, Any]) -> None:
            self.say(f"{done['sentence']}.", "green")

        if figure is not None:
            self.mltrack.live.ask(
                "write_figure", written, self.failed, name=os.path.abspath(os.path.expanduser(name)), **figure
            )
            return
        if ending in (".html", ".htm") and self.reported:
            path = os.path.abspath(os.path.expanduser(name))
            self.say("Writing the report ...", "dim")
            self.mltrack.live.ask(
                "write_report", written, self.failed, run_ids=list(self.reported), name=path
            )
            return
        if ending == ".pdf":
            self.say("A pdf holds a chart: go to one first (tab).")
            return

        def use(shown: Shown) -> None:
            path = Path(os.path.abspath(os.path.expanduser(name)))
            try:
                self.say(f"{write(path, shown, hex_style)}.", "green")
            except CannotWrite as error:
                self.say(f"Not written: {error}.", "error")

        self.ask_shown(use)

    # -- actions

    @on(TextPage.SearchWanted)
    def _ask_search_of_page(self, message: TextPage.SearchWanted) -> None:
        from mltrack.tui.screens.dialogs import Prompt

        page = message.page

        def done(text: str | None) -> None:
            if text is not None and not page.search(text):
                self.say(f"Nothing here has '{text.strip()}'.")

        self.app.push_screen(Prompt("search", page.sought, "text on this page"), done)

    def leave_search(self) -> bool:
        """Leave the search of the page that has the keys; False when there is none."""
        return isinstance(self.focused, TextPage) and self.focused.back()

    @on(Lines.Copied)
    def _copy_page(self) -> None:
        page = self.focused
        lines = page.everything() if isinstance(page, Lines) else []
        self.copy("\n".join("".join(clean(text, None) for text, _ in line).rstrip() for line in lines))

    async def action_help(self) -> None:
        from mltrack.tui.screens.help import HelpScreen

        await self.app.push_screen(HelpScreen(self.focuses()))

    async def action_palette(self) -> None:
        from mltrack.tui.screens.help import HelpScreen

        await self.app.push_screen(HelpScreen(self.focuses(), typing=True))

    async def action_offer(self) -> None:
        self.say("Looking for data of other tools below this folder …")
        await self.mltrack.look_around(asked=True)

    def action_back(self) -> None:
        if not self.leave_search():
            self.app.pop_screen()

    def action_quit_now(self) -> None:
        self.app.exit()

    async def action_go(self, name: str) -> None:
        await self.mltrack.show_screen(name)

    def action_redraw(self) -> None:
        self.app.refresh(layout=True)
        self.on_store_changed(StoreChanged(0, 0))

    def action_suspend(self) -> None:
        self.app.action_suspend_process()

    def action_copy_table(self) -> None:
        from mltrack.tui.export import to_markdown

        self.ask_shown(lambda shown: self.copy(to_markdown(shown)))

    async def action_write(self) -> None:
        from mltrack.tui.export import free_name
        from mltrack.tui.screens.dialogs import Prompt

        name = os.path.relpath(free_name(Path.cwd(), self.file_stem, "csv"))

        def use(text: str | None) -> None:
            if text and text.strip():
                self.write_shown(text.strip())

        await self.app.push_screen(
            Prompt("Write to", name, "a name ending in csv json md html svg txt; of a chart svg or pdf"), use
        )

    def action_shell(self) -> None:
        self.run_shell()

    def action_outside(self) -> None:
        def use(place: dict[str, str] | None) -> None:
            if place is None:
                self.say("There is nothing here that lies in a folder or has an address.")
                return
            sentence, opened = open_outside(place["target"], place["what"])
            self.say(shown(sentence), "green" if opened else "")

        self.ask_outside(use)

    def action_undo(self) -> None:
        self._decide("undo")

    def action_redo(self) -> None:
        self._decide("redo")

    def decided(self) -> None:
        """Something was changed that `u` takes back."""

    def decide(self, call: str, **options: Any) -> None:
        """Change something that `u` takes back."""
        self._decide(call, **options)

    def _decide(self, call: str, **options: Any) -> None:
        """Change something; what was done is said, and how to take it back."""

        def done(result: Any) -> None:
            back = "" if call == "undo" else "   u takes it back"
            if call not in ("undo", "redo"):
                self.decided()
            self.say(f"{result['sentence']}.{back}", "green")
            self.on_store_changed(StoreChanged(0, 0))

        if not self.mltrack.live.running:
            self.say(self.mltrack.live.absent, "error")
            return
        self.mltrack.live.ask(call, done, self.failed, **options)

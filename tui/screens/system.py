"""This machine: GPUs and who holds them, CPU, memory, disk. The worker looks; the screen asks every two seconds."""

from __future__ import annotations

from typing import Any

from textual.app import ComposeResult

from mltrack.tui.keys import Focus
from mltrack.tui.messages import StoreChanged
from mltrack.tui.screens.base import BaseScreen
from mltrack.tui.widgets.lines import Lines, TextPage
from mltrack.tui.widgets.look import spans_of

_SECONDS = 2.0


class SystemScreen(BaseScreen):
    """One page; what is the same is not painted."""

    file_stem = "system"

    def compose(self) -> ComposeResult:
        yield Lines(id="head", ground="bar")
        yield TextPage(id="page")
        yield Lines(id="twin")
        yield Lines(id="foot", ground="bar")

    def on_mount(self) -> None:
        page = self.query_one("#page", TextPage)
        page.show([((" looking at the machine", "dim"),)])
        self.set_focus(page)
        self.set_interval(_SECONDS, self._load)

    def on_resize(self) -> None:
        self.query_one("#head", Lines).show([((" System", "bold"),)])
        self.query_one("#twin", Lines).show([((f" $ mltrack{self.store_option} system", "dim"),)])
        self.show_footer()
        self._load()

    def focuses(self) -> tuple[Focus, ...]:
        return ("text", "everywhere")

    def on_store_changed(self, message: StoreChanged) -> None:
        if message.seq == 0:
            self._load()

    def _load(self) -> None:
        # Nobody looks while another screen lies over this one.
        if self.is_current:
            if not self.mltrack.live.running:
                page = self.query_one("#page", TextPage)
                page.show(self.absent_lines())
            self.mltrack.live.ask(
                "system", self._arrived, self.failed, topic="system", width=max(40, self.size.width - 1)
            )

    def _arrived(self, answer: dict[str, Any]) -> None:
        self.query_one("#head", Lines).show([((" System", "bold"), (f"   {answer['host']}", "dim"))])
        lines = [((" ", ""), *spans_of(line)) for line in answer["lines"]]
        self.query_one("#page", TextPage).show(lines)

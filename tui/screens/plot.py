"""A picture of many runs on the whole screen: scatter, parallel coordinates, importance, histogram, confusion matrix."""

from __future__ import annotations

import shlex
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType

from mltrack.tui.keys import Focus
from mltrack.tui.messages import StoreChanged
from mltrack.tui.screens.base import BaseScreen
from mltrack.tui.widgets.bindings import bindings_of
from mltrack.tui.widgets.lines import Lines, TextPage
from mltrack.tui.widgets.look import spans_of

KINDS = ("scatter", "parallel", "importance", "hist", "bands")
_FRAME = 3


class PlotScreen(BaseScreen):
    """``question`` says of which runs: "run_ids", or "filter" and "experiment". Tab goes on to the next kind."""

    BINDINGS: ClassVar[list[BindingType]] = bindings_of("plot")
    file_stem = "plot"

    def __init__(self, kind: str, names: list[str], question: dict[str, Any]) -> None:
        super().__init__()
        self.kind = kind
        self.names = names
        self.question = question

    def compose(self) -> ComposeResult:
        yield Lines(id="head", ground="bar")
        yield TextPage(id="page")
        yield Lines(id="twin")
        yield Lines(id="foot", ground="bar")

    def on_mount(self) -> None:
        self.set_focus(self.query_one("#page", TextPage))

    def on_resize(self) -> None:
        self.show_footer()
        self._load()

    def focuses(self) -> tuple[Focus, ...]:
        return ("plot", "text", "everywhere")

    def plotted(self) -> dict[str, Any]:
        return self.question

    def draw(self, kind: str, names: list[str], question: dict[str, Any]) -> None:
        """Another picture in the place of this one: `:plot` typed here."""
        self.kind, self.names, self.question = kind, names, question
        self._load()

    def on_store_changed(self, message: StoreChanged) -> None:
        self._load()

    def _load(self) -> None:
        self.query_one("#head", Lines).show([((f" {self.kind}", "bold"), ("   drawing", "dim"))])
        self.mltrack.live.ask(
            "plot_page",
            self._arrived,
            self._refused,
            topic="plot",
            kind=self.kind,
            names=self.names,
            **self.question,
            width=self.size.width - 2,
            height=self.size.height - _FRAME,
            ascii_only=self.mltrack.ascii_only,
        )
        words = [f"mltrack{self.store_option}"]
        words += ["plot", "--kind", self.kind]
        if self.names or (self.question["run_ids"] and self.kind != "confusion"):
            # Without columns an empty word stands in their place: the first of these is never a run.
            words.append(shlex.quote(",".join(self.names)))
        words += [run_id[:8] for run_id in self.question["run_ids"][:6]]
        if self.question["filter"]:
            words += ["--filter", shlex.quote(self.question["filter"])]
        if self.question["experiment"]:
            words += ["--experiment", shlex.quote(self.question["experiment"])]
        self.query_one("#twin", Lines).show([((" $ " + " ".join(words), "dim"),)])

    def _arrived(self, answer: dict[str, Any]) -> None:
        self.query_one("#head", Lines).show([((f" {self.kind}", "bold"), (f"   {answer['title']}", "dim"))])
        self.query_one("#page", TextPage).show([((" ", ""), *spans_of(line)) for line in answer["lines"]])

    def _refused(self, error: dict[str, Any]) -> None:
        self.query_one("#head", Lines).show([((f" {self.kind}", "bold"),)])
        self.query_one("#page", TextPage).show([((f" {error.get('message', '')}", "yellow"),)])

    # -- actions

    def action_next_plot(self) -> None:
        self._turn(1)

    def action_previous_plot(self) -> None:
        self._turn(-1)

    def _turn(self, by: int) -> None:
        place = KINDS.index(self.kind) if self.kind in KINDS else 0
        self.kind, self.names = KINDS[(place + by) % len(KINDS)], []
        self._load()

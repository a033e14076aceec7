"""One run: what is known about it, its curves, its params, what it printed."""

from __future__ import annotations

from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.timer import Timer
from textual.widget import Widget

from mltrack.tui.clean import cell_width, pad
from mltrack.tui.keys import Focus
from mltrack.tui.messages import StoreChanged
from mltrack.tui.screens.base import BaseScreen
from mltrack.tui.widgets.bindings import bindings_of
from mltrack.tui.widgets.charts import Charts
from mltrack.tui.widgets.lines import Lines, LogPage, TextPage
from mltrack.tui.widgets.look import Line, Span, parse_printed, shown
from mltrack.tui.widgets.run_table import RunTable

TABS = ("Overview", "Charts", "Params", "Log")
_LIVE_SECONDS = 1.0
_LOG_LINES = 2000
_WIDEST_KEY = 48


class RunScreen(BaseScreen):
    """A run of the table; J and K go on to the next and the one before."""

    BINDINGS: ClassVar[list[BindingType]] = bindings_of("run")

    def __init__(self, table: RunTable, tab: str = "Charts") -> None:
        super().__init__()
        assert table.current is not None
        self._table = table
        self.run_id: str = table.current
        self.tab = tab
        self.page: dict[str, Any] | None = None
        self._changing: Timer | None = None

    def compose(self) -> ComposeResult:
        yield Lines(id="title", ground="bar")
        yield Lines(id="tabs")
        yield TextPage(id="overview")
        yield Charts(id="charts", ascii_only=self.mltrack.ascii_only)
        yield TextPage(id="params")
        yield LogPage(id="log")
        yield Lines(id="twin")
        yield Lines(id="foot", ground="bar")

    def on_mount(self) -> None:
        self._show_tab()
        self._load()

    def on_resize(self) -> None:
        self._show_title()
        self._show_tabs()
        self.show_footer()
        self._load()

    def focuses(self) -> tuple[Focus, ...]:
        special: dict[str, Focus] = {"Charts": "chart", "Log": "log"}
        return (special.get(self.tab, "text"), "run", "everywhere")

    # -- questions and answers

    def _load(self) -> None:
        live = self.mltrack.live
        live.ask(
            "run_page", self._arrived, self.failed, topic="run", run_id=self.run_id, width=self.size.width - 1
        )
        if self.tab == "Log":
            self._load_log()

    def _load_log(self) -> None:
        self.mltrack.live.ask(
            "log_tail", self._show_log, self.failed, topic="log", run_id=self.run_id, lines=_LOG_LINES
        )

    def on_store_changed(self, message: StoreChanged) -> None:
        if self._changing is None:
            self._changing = self.set_timer(_LIVE_SECONDS, self._changed)

    def _changed(self) -> None:
        self._changing = None
        self._load()

    def _arrived(self, page: dict[str, Any]) -> None:
        if page.get("gone"):
            self.say("The run is not in the store any more.", "error")
            return
        self.page = page
        self._show_title()
        self._show_tabs()
        self.query_one("#overview", TextPage).show(
            [((" ", ""), *line) for line in parse_printed(page["page"])]
        )
        self.query_one("#params", TextPage).show(_params(page["params"]))
        self.query_one("#charts", Charts).show_metrics(page["metrics"])
        self._show_twin()

    @on(Charts.Wanted)
    def _points_wanted(self, message: Charts.Wanted) -> None:
        charts = self.query_one("#charts", Charts)
        self.mltrack.live.ask(
            "curves",
            charts.show_points,
            self.failed,
            topic="curves",
            run_id=self.run_id,
            keys=message.keys,
            columns=message.columns,
            low=message.low,
            high=message.high,
            weight=message.weight,
        )

    @on(Charts.Chosen)
    def _chart_chosen(self) -> None:
        self._show_twin()

    def _show_log(self, answer: dict[str, Any]) -> None:
        lines: list[Line] = [((" " + text, _log_style(text)),) for text in answer["lines"]]
        self.query_one("#log", LogPage).show(lines or [((" " + answer["why"], "dim"),)])

    # -- lines

    def _show_title(self) -> None:
        page = self.page
        if page is None:
            self.query_one("#title", Lines).show([((" " + self._table.name_of(self.run_id), "bold"),), ()])
            return
        left: list[Span] = [(f" {page['experiment']} › ", "dim"), (page["name"], "bold")]
        used = sum(cell_width(shown(text)) for text, _ in left)
        sentence = shown(page["sentence"])
        room = max(2, self.size.width - used - cell_width(sentence) - 1)
        progress = page["progress"]
        self.query_one("#title", Lines).show(
            [(*left, (" " * room, ""), (sentence, page["style"])), ((" " + progress, "dim"),)]
        )

    def _show_tabs(self) -> None:
        counts = (
            {}
            if self.page is None
            else {"Charts": len(self.page["metrics"]), "Params": len(self.page["params"])}
        )
        spans: list[Span] = [(" ", "")]
        for tab in TABS:
            name = f"{tab} {counts[tab]:,}" if tab in counts else tab
            spans.append((f"[{name}]", "bold best") if tab == self.tab else (f" {name} ", "dim"))
            spans.append((" ", ""))
        self.query_one("#tabs", Lines).show([tuple(spans)])

    def _show_twin(self) -> None:
        command = {"Charts": "plot KEY", "Log": "logs"}.get(self.tab, "show")
        store = f" --store {self.mltrack.where}" if self.mltrack.where else ""
        line = f" $ mltrack{store} {command} {self.run_id[:12]}"
        charts = self.query_one("#charts", Charts)
        if self.tab == "Charts" and charts.series:
            line = line.replace("KEY", charts.series[charts.chosen].key)
        self.query_one("#twin", Lines).show([((line, "dim"),)])

    def _show_tab(self) -> None:
        bodies: dict[str, Widget] = {tab: self.query_one(f"#{tab.lower()}") for tab in TABS}
        for tab, body in bodies.items():
            body.display = tab == self.tab
        self.set_focus(bodies[self.tab])
        self._show_tabs()
        self._show_twin()
        self.show_footer()

    # -- actions

    def action_back(self) -> None:
        if self.tab == "Charts" and self.query_one("#charts", Charts).back():
            return
        self.app.pop_screen()

    def action_next_tab(self) -> None:
        self._turn(1)

    def action_previous_tab(self) -> None:
        self._turn(-1)

    def _turn(self, by: int) -> None:
        self.tab = TABS[(TABS.index(self.tab) + by) % len(TABS)]
        self._show_tab()
        if self.tab == "Log":
            self._load_log()

    def action_next_run(self) -> None:
        self._go(1)

    def action_previous_run(self) -> None:
        self._go(-1)

    def _go(self, by: int) -> None:
        before = self._table.current
        self._table.move(by)
        if self._table.current is None or self._table.current == before:
            self.say(
                "That was the last run of the table." if by > 0 else "That was the first run of the table."
            )
            return
        self.run_id = self._table.current
        self.page = None
        self.query_one("#charts", Charts).forget()
        self._show_title()
        self._load()


def _params(params: list[list[str]]) -> list[Line]:
    if not params:
        return [(("No params recorded.", "dim"),)]
    width = min(_WIDEST_KEY, max(cell_width(shown(key)) for key, _, _ in params))
    lines: list[Line] = []
    for key, value, conflict in params:
        line: Line = ((" " + pad(shown(key), width), "cyan"), ("  " + value, ""))
        lines.append((*line, (f"   also {conflict}", "yellow")) if conflict else line)
    return lines


def _log_style(text: str) -> str:
    if any(word in text for word in ("ERROR", "Error", "CRITICAL", "Traceback")):
        return "red"
    return "yellow" if "WARN" in text else ""

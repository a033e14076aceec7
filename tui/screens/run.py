"""One run: what is known about it, its curves, its params, what it printed."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal
from textual.timer import Timer
from textual.widget import Widget

from mltrack.tui.clean import cell_width
from mltrack.tui.keys import Focus
from mltrack.tui.messages import StoreChanged
from mltrack.tui.screens.dialogs import Prompt
from mltrack.tui.screens.run_files import RunFiles
from mltrack.tui.screens.text import AGAIN_SECONDS
from mltrack.tui.widgets.bindings import bindings_of
from mltrack.tui.widgets.charts import X_AXES, Charts
from mltrack.tui.widgets.file_tree import FileTree
from mltrack.tui.widgets.lines import Lines, TextPage
from mltrack.tui.widgets.log_view import LogView
from mltrack.tui.widgets.look import Line, Span, shown, spans_of
from mltrack.tui.widgets.picture_page import PicturePage
from mltrack.tui.widgets.row_list import RunList

TABS = ("Overview", "Charts", "Params", "Logs", "Files", "Code")
_LIVE_SECONDS = 1.0
# The cursor rests for so long before its line of the log is looked for.
_REST_SECONDS = 0.12
# Windows this low leave out the line with the command.
_TWIN_FROM = 30
# Windows this wide show a file beside the tree.
_PREVIEW_FROM = 110


class RunScreen(RunFiles):
    """A run of the table; J and K go on to the next and the one before."""

    BINDINGS: ClassVar[list[BindingType]] = bindings_of("run")

    def __init__(self, table: RunList, tab: str = "Charts") -> None:
        super().__init__()
        assert table.current is not None
        self._table = table
        self.run_id: str = table.current
        self.tab = tab
        self.page: dict[str, Any] | None = None
        self._changing: Timer | None = None
        self._resting: Timer | None = None
        self._stale = False
        # Whether the person chose the tab; whether it stands for charts that there are none of.
        self._turned = False
        self._instead = False
        self._log_place: int | None = None

    def compose(self) -> ComposeResult:
        yield Lines(id="title", ground="bar")
        yield Lines(id="tabs")
        yield TextPage(id="overview")
        yield Charts(id="charts", ascii_only=self.mltrack.ascii_only)
        yield TextPage(id="params", filters=True)
        yield LogView(id="logs")
        with Horizontal(id="files"):
            yield FileTree(id="tree")
            yield PicturePage(id="file-preview")
        yield TextPage(id="code")
        yield Lines(id="twin")
        yield Lines(id="foot", ground="bar")

    def on_mount(self) -> None:
        self._show_tab()
        self._load()

    def on_resize(self) -> None:
        self.query_one("#twin").display = self.size.height >= _TWIN_FROM
        self.query_one("#file-preview").display = self.size.width >= _PREVIEW_FROM
        self._show_title()
        self._show_tabs()
        self.show_footer()
        if self.tab in ("Overview", "Code", "Files"):
            self._load_tab()

    def focuses(self) -> tuple[Focus, ...]:
        special: dict[str, Focus] = {"Charts": "chart", "Logs": "log", "Files": "files"}
        return (special.get(self.tab, "text"), "run", "everywhere")

    @property
    def charts(self) -> Charts:
        """The charts' tab."""
        return self.query_one("#charts", Charts)

    @property
    def log_view(self) -> LogView:
        """The log's tab."""
        return self.query_one("#logs", LogView)

    def ask_outside(self, use: Callable[[dict[str, str] | None], None]) -> None:
        entry = self.file_tree.current if self.tab == "Files" else None
        self.ask_outside_of_run(use, path=entry.path if entry else "", web=self.tab == "Code")

    # -- questions and answers

    def _load(self) -> None:
        self._stale = False
        self.mltrack.live.ask("run_page", self._arrived, self.failed, topic="run", run_id=self.run_id)
        self._load_tab()

    def _load_tab(self) -> None:
        """What only the tab in front shows."""
        ask = self.mltrack.live.ask
        if self.tab == "Logs":
            self.log_view.reload()
        elif self.tab == "Overview":
            ask(
                "overview",
                self._show_overview,
                self.failed,
                topic="overview",
                run_id=self.run_id,
                width=self.size.width - 1,
            )
        elif self.tab == "Code":
            ask(
                "code",
                self._show_code,
                self.failed,
                topic="code",
                run_id=self.run_id,
                width=self.size.width - 1,
            )
        elif self.tab == "Files":
            self.ask_files()
        elif self.tab == "Charts":
            self._load_events()
            if self.charts.window.cursor is None:
                self._load_log_line()

    def _load_events(self) -> None:
        charts = self.charts
        if charts.chosen_key is not None:
            self.mltrack.live.ask(
                "events",
                charts.show_events,
                self.failed,
                topic="events",
                run_id=self.run_id,
                key=charts.chosen_key,
                x=charts.x,
            )

    def _load_log_line(self, steps: tuple[float, float] | None = None) -> None:
        self.mltrack.live.ask(
            "log_line", self._log_line_arrived, self.failed, topic="log line", run_id=self.run_id, steps=steps
        )

    def _log_line_arrived(self, answer: dict[str, Any]) -> None:
        here = bool(answer["here"])
        self._log_place = answer["number"] if here else None
        self.charts.show_log_line(((" ", ""), *spans_of(answer["line"])), here)
        self._ask_again(answer)

    def on_store_changed(self, message: StoreChanged) -> None:
        if not self.app.app_focus:
            self._stale = True  # nobody looks
        elif self._changing is None:
            self._changing = self.set_timer(_LIVE_SECONDS, self._changed)

    def on_app_focus(self) -> None:
        if self._stale:
            self._load()

    def _changed(self) -> None:
        self._changing = None
        self._load()

    def _arrived(self, page: dict[str, Any]) -> None:
        if page.get("gone"):
            self.say("The run is not in the store any more.", "error")
            return
        first = self.page is None
        self.page = page
        if first and not self._turned and self.tab == "Charts" and not page["metrics"]:
            # Nothing to draw: the page that says why, and what else there is.
            self._instead = True
            self._turn_to("Overview")
        elif first and self._instead and page["metrics"]:
            self._turn_to("Charts")
        self._show_title()
        self._show_tabs()
        self.query_one("#params", TextPage).show(_params(page["params"]))
        self.charts.show_run(page)
        self._show_twin()
        if first and self.tab == "Charts":
            self._load_events()

    @on(Charts.Wanted)
    def _points_wanted(self, message: Charts.Wanted) -> None:
        self.mltrack.live.ask(
            "curves",
            self.charts.show_points,
            self.failed,
            topic="curves",
            run_id=self.run_id,
            keys=message.keys,
            columns=message.columns,
            low=message.low,
            high=message.high,
            weight=message.weight,
            x=message.x,
            every_rank=message.every_rank,
        )

    @on(Charts.Chosen)
    def _chart_chosen(self) -> None:
        self._show_twin()
        self._show_tabs()
        self._load_events()

    @on(Charts.CursorMoved)
    def _cursor_moved(self, message: Charts.CursorMoved) -> None:
        if self._resting is not None:
            self._resting.stop()
        self._resting = self.set_timer(_REST_SECONDS, lambda: self._load_log_line(message.steps))

    @on(Charts.FilterWanted)
    def _ask_filter(self) -> None:
        def done(pattern: str | None) -> None:
            if pattern is None:
                return
            try:
                self.charts.set_filter(pattern)
            except re.error as error:
                self.say(f"The filter is no regular expression: {error}.", "error")
            self._show_tabs()

        self.app.push_screen(
            Prompt("charts", self.charts.filter, "val*|train/loss, or a regular expression"), done
        )

    @on(Charts.XAxisWanted)
    def _ask_x(self) -> None:
        charts = self.charts

        def done(key: str | None) -> None:
            if key is None or not key.strip():
                charts.set_x("step")
                return
            key = key.strip()
            close = [name for name in charts.keys if key.lower() in name.lower()]
            if key in (*X_AXES, *charts.keys):
                charts.set_x(key)
            elif len(close) == 1:
                charts.set_x(close[0])
            elif close:
                self.say(
                    f"Several metrics have '{key}' in their name: {', '.join(close[:4])}. Name one.", "error"
                )
            else:
                self.say(f"The run has no metric '{key}'.", "error")

        self.app.push_screen(Prompt("x axis: metric", "", "esc: steps again"), done)

    @on(LogView.Wanted)
    def _lines_wanted(self, message: LogView.Wanted) -> None:
        def arrived(answer: dict[str, Any]) -> None:
            self.log_view.show_page(answer)
            self._ask_again(answer)

        self.mltrack.live.ask(
            "log_page",
            arrived,
            self.failed,
            topic="log",
            run_id=self.run_id,
            first=message.first,
            count=message.count,
        )

    @on(LogView.FindWanted)
    def _find_in_log(self, message: LogView.FindWanted) -> None:
        def found(answer: dict[str, Any]) -> None:
            if sentence := self.log_view.show_found(answer):
                self.say(sentence)

        self.mltrack.live.ask(
            "log_find",
            found,
            self.failed,
            topic="log find",
            run_id=self.run_id,
            text=message.text,
            line=message.line,
            forward=message.forward,
        )

    @on(LogView.SearchWanted)
    def _ask_search(self) -> None:
        def done(text: str | None) -> None:
            if text is not None:
                self.log_view.search(text)

        self.app.push_screen(Prompt("search", self.log_view.sought, "text in the log"), done)

    def _show_overview(self, answer: dict[str, Any]) -> None:
        self.query_one("#overview", TextPage).show(_page(answer["lines"]))
        self._ask_again(answer)

    def _show_code(self, answer: dict[str, Any]) -> None:
        self.query_one("#code", TextPage).show(_page(answer["lines"]))
        self._ask_again(answer)

    def _ask_again(self, answer: dict[str, Any]) -> None:
        """Another machine may not have sent its part of the tab yet."""
        if answer.get("again"):
            self.set_timer(AGAIN_SECONDS, self._load_tab)

    # -- lines

    def _show_title(self) -> None:
        page = self.page
        if page is None:
            self.query_one("#title", Lines).show([((" " + self._table.name_of(self.run_id), "bold"),), ()])
            return
        path = [page["experiment"], *([page["parent"]] if page["parent"] else [])]
        left: list[Span] = [(" ", ""), *((f"{part} › ", "dim") for part in path), (page["name"], "bold")]
        used = sum(cell_width(shown(text)) for text, _ in left)
        sentence = shown(page["sentence"])
        while used + cell_width(sentence) + 3 > self.size.width and len(left) > 2:
            del left[1]
            used = sum(cell_width(shown(text)) for text, _ in left)
        room = max(2, self.size.width - used - cell_width(sentence) - 1)
        self.query_one("#title", Lines).show(
            [
                (*left, (" " * room, ""), (sentence, page["style"])),
                ((" " + page["progress"], "" if page["live"] else "dim"),),
            ]
        )

    def _show_tabs(self) -> None:
        page = self.page
        counts: dict[str, int] = {}
        if page is not None:
            counts = {"Charts": len(page["metrics"]), "Params": len(page["params"]), "Files": page["files"]}
        spans: list[Span] = []
        for tab in self.tabs():
            name = f"{tab} {counts[tab]:,}" if tab in counts else tab
            if tab == "Code" and page is not None and page["code"].strip():
                name += f" {page['code']}"
            spans.append((f"[{name}]", "bold best") if tab == self.tab else (f" {name} ", "dim"))
            spans.append((" ", ""))
        charts = self.charts
        if self.tab == "Charts" and charts.filter:
            used = sum(cell_width(text) for text, _ in spans)
            text = shown(f"/ {charts.filter}")
            spans.append((" " * max(1, self.size.width - used - cell_width(text) - 1), ""))
            spans.append((text, "key"))
        self.query_one("#tabs", Lines).show([tuple(spans)])

    def tabs(self) -> list[str]:
        """The tabs that have something to show, and the one in front."""
        page = self.page
        if page is None:
            return list(TABS)
        empty = {
            "Charts": not page["metrics"],
            "Params": not page["params"],
            "Logs": not page["log"],
            "Files": not page["files"],
            "Code": not page["code"],
        }
        return [tab for tab in TABS if not empty.get(tab, False) or tab == self.tab]

    def _show_twin(self) -> None:
        command = {"Charts": "plot KEY", "Logs": "logs", "Files": "show --all"}.get(self.tab, "show")
        line = f" $ mltrack{self.store_option} {command} {self.run_id[:12]}"
        if self.tab == "Charts" and self.charts.chosen_key:
            line = line.replace("KEY", self.charts.chosen_key)
            line += " -x time" if self.charts.x in ("time", "relative") else ""
        self.query_one("#twin", Lines).show([((line, "dim"),)])

    def _show_tab(self) -> None:
        bodies: dict[str, Widget] = {tab: self.query_one(f"#{tab.lower()}") for tab in TABS}
        for tab, body in bodies.items():
            body.display = tab == self.tab
        self.set_focus(self.file_tree if self.tab == "Files" else bodies[self.tab])
        self._show_tabs()
        self._show_twin()
        self.show_footer()

    # -- actions

    def action_back(self) -> None:
        if self.tab == "Charts" and self.charts.back():
            self._show_tabs()
            return
        if self.tab == "Logs" and self.log_view.back() or self.leave_search():
            return
        self.app.pop_screen()

    def action_next_tab(self) -> None:
        self._turn(1)

    def action_previous_tab(self) -> None:
        self._turn(-1)

    def action_log_here(self) -> None:
        if self.page is not None and not self.page["log"]:
            self.say("Nothing of its output was captured.")
            return
        place = self._log_place if self.tab == "Charts" and self.charts.window.cursor is not None else None
        self.tab = "Logs"
        self._show_tab()
        if place is not None:
            self.log_view.go_to(place)
        self._load_tab()

    def _turn(self, by: int) -> None:
        self._turned, self._instead = True, False
        tabs = self.tabs()
        self._turn_to(tabs[(tabs.index(self.tab) + by) % len(tabs)])

    def _turn_to(self, tab: str) -> None:
        self.tab = tab
        self._show_tab()
        self._load_tab()

    def action_next_run(self) -> None:
        self._go(1)

    def action_previous_run(self) -> None:
        self._go(-1)

    def _go(self, by: int) -> None:
        if (
            self._table.current == self.run_id
        ):  # else it has left the table, whose cursor is on the one after it
            self._table.move(by)
        if self._table.current is None or self._table.current == self.run_id:
            self.say(
                "That was the last run of the table." if by > 0 else "That was the first run of the table."
            )
            return
        self.run_id = self._table.current
        self.page = None
        self.charts.forget()
        self.log_view.forget()
        self.file_tree.forget()
        self._show_title()
        self._load()


def _page(lines: Sequence[Sequence[Sequence[str]]]) -> list[Line]:
    """Lines as the worker answers them, with a margin."""
    return [((" ", ""), *spans_of(line)) for line in lines]


def _params(params: list[list[str]]) -> list[Line]:
    from mltrack.tui.clean import pad

    width = min(48, max((cell_width(shown(key)) for key, *_ in params), default=0))
    lines: list[Line] = []
    for key, value, _, conflict in params:
        line: Line = ((" " + pad(shown(key), width), "cyan"), ("  " + value, ""))
        lines.append((*line, (f"   also {conflict}", "yellow")) if conflict else line)
    return lines or [((" No params recorded.", "dim"),)]

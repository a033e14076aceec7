"""Runs side by side: what differs, the best marked, and the curves over each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal
from textual.timer import Timer
from textual.widgets import Input

from mltrack.tui.clean import cell_width
from mltrack.tui.comparison import SECTION_TITLES
from mltrack.tui.export import Shown
from mltrack.tui.keys import Focus
from mltrack.tui.messages import StoreChanged
from mltrack.tui.screens.base import BaseScreen
from mltrack.tui.screens.text import open_text
from mltrack.tui.widgets.bindings import bindings_of
from mltrack.tui.widgets.compare_table import CompareTable, Entry, Head
from mltrack.tui.widgets.line_input import LineInput
from mltrack.tui.widgets.lines import Lines
from mltrack.tui.widgets.look import Span, shown
from mltrack.tui.widgets.overlay import OverlayChart

AGGREGATES = ("best", "last", "min", "max")
MOST_RUNS = 100
_LIVE_SECONDS = 1.0
# Metrics above the params, on a low screen and on a high one; the others follow below everything else.
_FEW_METRICS, _MORE_METRICS = 2, 6
_NAMES_IN_TWIN = 6


class CompareScreen(BaseScreen):
    """The runs it is given, 2 to 100 of them."""

    BINDINGS: ClassVar[list[BindingType]] = bindings_of("compare")
    file_stem = "compare"

    def __init__(self, run_ids: Sequence[str], aggregate: str = AGGREGATES[0]) -> None:
        super().__init__()
        self.run_ids = list(run_ids)
        self.aggregate = aggregate
        self.only_differs = True
        self.narrow = ""
        self.page: dict[str, Any] | None = None
        self._changing: Timer | None = None

    def compose(self) -> ComposeResult:
        yield Lines(id="head", ground="bar")
        with Horizontal(id="narrow-row"):
            yield Lines(id="narrow-sign")
            yield LineInput("", id="narrow", placeholder="rows whose name holds this", select_on_focus=False)
        yield CompareTable(id="rows")
        yield OverlayChart(id="overlay", ascii_only=self.mltrack.ascii_only)
        yield Lines(id="twin")
        yield Lines(id="foot", ground="bar")

    def on_mount(self) -> None:
        self.query_one("#narrow-sign", Lines).show([((" / ", "key"),)])
        self.set_focus(self.rows)
        self._show_head()
        self._load()

    def on_resize(self) -> None:
        self.set_class(self.size.height < 14, "-tiny")
        # Four lines of frame; the rows get a little more than half of the rest.
        chart = max(7, (self.size.height - 4) * 2 // 5)
        self.overlay.styles.height = "1fr" if self.overlay.full else chart
        self._show_head()
        self._show_rows()
        self._show_twin()
        self.show_footer()

    @property
    def rows(self) -> CompareTable:
        """The table."""
        return self.query_one("#rows", CompareTable)

    @property
    def overlay(self) -> OverlayChart:
        """The chart."""
        return self.query_one("#overlay", OverlayChart)

    def focuses(self) -> tuple[Focus, ...]:
        special: Focus = "overlay" if self.focused is self.overlay else "compare_rows"
        return (special, "compare", "everywhere")

    # -- questions and answers

    def _load(self) -> None:
        self.mltrack.live.ask(
            "compare",
            self._arrived,
            self.failed,
            topic="compare",
            run_ids=self.run_ids,
            aggregate=self.aggregate,
        )

    def on_store_changed(self, message: StoreChanged) -> None:
        if self._changing is None:
            self._changing = self.set_timer(_LIVE_SECONDS, self._changed)

    def _changed(self) -> None:
        self._changing = None
        self._load()

    def _arrived(self, page: dict[str, Any]) -> None:
        gone = len(self.run_ids) - len(page["runs"])
        if gone:
            self.say(f"{gone:,} of the runs are not in the store any more.")
        self.run_ids = [run["id"] for run in page["runs"]]
        self.page = page
        self._show_head()
        self._show_rows(new=True)
        self.rows.put(page["cells"])
        labels = {key: label for section, key, label, _ in page["rows"] if section == "metrics"}
        self.overlay.offer(labels, page["loss"] or page["goal"])
        self._show_twin()

    @on(CompareTable.Wanted)
    def _cells_wanted(self, message: CompareTable.Wanted) -> None:
        self.mltrack.live.ask(
            "compare_cells",
            self.rows.put,
            self.failed,
            run_ids=self.run_ids,
            aggregate=self.aggregate,
            places=message.places,
        )

    @on(OverlayChart.Wanted)
    def _points_wanted(self, message: OverlayChart.Wanted) -> None:
        self.mltrack.live.ask(
            "compare_curves",
            self.overlay.show_points,
            self._no_points,
            topic="compare_curves",
            run_ids=self.run_ids,
            keys=message.keys,
            columns=message.columns,
            low=message.low,
            high=message.high,
            weight=message.weight,
            x=message.x,
        )

    @on(OverlayChart.EventsWanted)
    def _events_wanted(self, message: OverlayChart.EventsWanted) -> None:
        self.mltrack.live.ask(
            "compare_events",
            self._events_arrived,
            self.failed,
            topic="compare_events",
            run_ids=self.run_ids,
            key=message.key,
            x=message.x,
        )

    def _events_arrived(self, answer: dict[str, Any]) -> None:
        if not answer["events"]:
            self.say("Nothing happened in these curves: no best, spike, NaN or later start yet.", "dim")
        self.overlay.show_events(answer)

    def _no_points(self, error: dict[str, Any]) -> None:
        self.overlay.gave_up()
        self.failed(error)

    # -- lines

    def _show_head(self) -> None:
        page = self.page
        spans: list[Span] = [(f" Compare {len(self.run_ids):,} runs", "bold")]
        if page is None:
            spans.append(("   comparing", "dim"))
        else:
            spans.append((f"   d differs only: {'on' if self.only_differs else 'off'}", "dim"))
            experiments = list(dict.fromkeys(run["experiment"] for run in page["runs"]))
            right = " + ".join(experiments[:3]) + (" + …" if len(experiments) > 3 else "") + "  "
            used = sum(cell_width(shown(text)) for text, _ in spans)
            gap = max(2, self.size.width - used - cell_width(shown(right)) - 1)
            spans.append((" " * gap + right, "dim"))
        self.query_one("#head", Lines).show([tuple(spans)])

    def _show_rows(self, new: bool = False) -> None:
        page = self.page
        if page is None:
            return
        heads = [Head(run["name"], (run["status"][0], run["status"][1])) for run in page["runs"]]
        self.rows.show(heads, self._entries(page), keep=not new)

    def _entries(self, page: dict[str, Any]) -> list[Entry]:
        by_section: dict[str, list[Entry]] = {section: [] for section in SECTION_TITLES}
        totals = dict.fromkeys(SECTION_TITLES, 0)
        equal = dict.fromkeys(SECTION_TITLES, 0)
        words = self.narrow.lower().split()
        for place, (section, key, label, differs) in enumerate(page["rows"]):
            totals[section] += 1
            equal[section] += not differs
            if words:
                if not all(word in key.lower() for word in words):
                    continue
            elif self.only_differs and not differs:
                continue
            elif key.startswith("system/"):
                continue
            by_section[section].append(Entry(place, label, differs=differs))
        few = _MORE_METRICS if self.size.height >= 40 else _FEW_METRICS
        metrics, more = by_section["metrics"], []
        if not words and len(metrics) > few + 1:
            metrics, more = metrics[:few], metrics[few:]
        by_section["metrics"] = metrics
        entries: list[Entry] = []
        for section, title in SECTION_TITLES.items():
            rows = by_section[section]
            if not totals[section] or (words and not rows):
                continue
            if section == "metrics":
                left, right = f"m {self.aggregate}", f"{len(rows):,} of {totals[section]:,} shown   / more"
            else:
                folded = self.only_differs and not words and equal[section] > 0
                left = (
                    f"{len(rows):,} differ, {equal[section]:,} equal folded" if folded else f"{len(rows):,}"
                )
                right = page["ranked"] if section == "params" else ""
            entries += [_title(title, left, right, self.size.width), *rows]
        if more:
            entries += [_title("MORE METRICS", f"{len(more):,}", "system/* by /", self.size.width), *more]
        if not entries:
            entries.append(Entry(None, "", ((" No row has this in its name; esc takes it away.", "dim"),)))
        return entries

    def _show_twin(self) -> None:
        words = [f"mltrack{self.store_option}"]
        words.append("compare")
        words += [run_id[:8] for run_id in self.run_ids[:_NAMES_IN_TWIN]]
        if len(self.run_ids) > _NAMES_IN_TWIN:
            words.append("...")
        if self.only_differs:
            words.append("--diff")
        if self.aggregate != AGGREGATES[0]:
            words += ["-m", self.aggregate]
        spans: list[Span] = [(" $ " + " ".join(words), "dim")]
        places = self.rows.places
        room = self.size.width - cell_width(shown(spans[0][0])) - len(places) - 1
        if room >= 2:
            spans.append((" " * room + places, "faint"))
        self.query_one("#twin", Lines).show([tuple(spans)])

    # -- what is shown, for copying and writing

    def ask_shown(self, use: Callable[[Shown], None]) -> None:
        page = self.page
        if page is None or self.focused is self.overlay:
            super().ask_shown(use)
            return
        places = [entry.place for entry in self.rows.entries if entry.place is not None]

        def arrived(cells: dict[str, Any]) -> None:
            rows = [["", "status", *(run["status"][0] for run in page["runs"])]]
            for place in places:
                section, _, label, _ = page["rows"][place]
                rows.append([section, label, *(text for text, _ in cells[str(place)])])
            headings = ["", "", *(run["name"] for run in page["runs"])]
            use(Shown(self._title(), headings, rows))

        self.mltrack.live.ask(
            "compare_cells",
            arrived,
            self.failed,
            run_ids=self.run_ids,
            aggregate=self.aggregate,
            places=places,
        )

    def plotted(self) -> dict[str, Any]:
        return {"run_ids": self.run_ids, "filter": "", "experiment": None}

    async def action_compare_bands(self) -> None:
        from mltrack.tui.screens.desk import plot

        await plot(self, f"bands {self.overlay.key}".strip())

    def action_compare_pictures(self) -> None:
        from mltrack.tui.screens.pictures import PicturesScreen

        self.app.push_screen(PicturesScreen(self.run_ids))

    async def show_file(self, name: str) -> None:
        """`:diff FILE`: the same file of the first run and of the one under the cursor; without a name those that differ."""
        other = self.run_ids[
            self.rows.column if 0 < self.rows.column < len(self.run_ids) else min(1, len(self.run_ids) - 1)
        ]
        open_text(self, name or "Files", "compare_files", run_ids=[self.run_ids[0], other], name=name)

    async def action_compare_plot(self) -> None:
        from mltrack.tui.screens.desk import plot

        await plot(self, "parallel")

    @property
    def reported(self) -> list[str]:
        return self.run_ids

    @property
    def figure(self) -> dict[str, Any] | None:
        return self.overlay.figure(self.run_ids) if self.focused is self.overlay else None

    def _title(self) -> str:
        return f"{len(self.run_ids):,} runs compared"

    def go_to(self, number: int) -> None:
        self.rows.move(-len(self.rows.entries))
        self.rows.move(number - 1)

    @on(CompareTable.Copied)
    def _value_copied(self) -> None:
        self.copy(self.rows.cell)

    # -- actions

    def action_back(self) -> None:
        if isinstance(self.focused, Input):
            self.set_focus(self.rows)
            self._show_narrow_field()
        elif self.focused is self.overlay:
            if not self.overlay.back():
                self.action_compare_half()
        elif self.narrow:
            self.query_one("#narrow", Input).value = ""
        else:
            self.app.pop_screen()

    def action_compare_half(self) -> None:
        if self.overlay.full:
            self.overlay.action_overlay_full()
        self.set_focus(self.rows if self.focused is self.overlay else self.overlay)
        self.show_footer()

    def action_compare_differs(self) -> None:
        self.only_differs = not self.only_differs
        self._show_head()
        self._show_rows()
        self._show_twin()

    def action_compare_aggregate(self) -> None:
        self.aggregate = AGGREGATES[(AGGREGATES.index(self.aggregate) + 1) % len(AGGREGATES)]
        self._load()

    def action_compare_narrow(self) -> None:
        field = self.query_one("#narrow", Input)
        self.set_class(True, "-narrowing")
        self.set_focus(field)
        field.cursor_position = len(field.value)

    @on(Input.Changed, "#narrow")
    def _typed(self, message: Input.Changed) -> None:
        self.narrow = message.value.strip()
        self._show_narrow_field()
        self._show_rows()

    @on(Input.Submitted, "#narrow")
    def _accepted(self) -> None:
        self.set_focus(self.rows)
        self._show_narrow_field()

    def _show_narrow_field(self) -> None:
        self.set_class(bool(self.narrow) or isinstance(self.focused, Input), "-narrowing")

    @on(CompareTable.Moved)
    def _row_moved(self) -> None:
        """The chart follows the cursor over metrics."""
        entry = self.rows.current
        if self.page is None or entry is None or entry.place is None:
            return
        section, key, _, _ = self.page["rows"][entry.place]
        if section == "metrics":
            self.overlay.choose(key, soon=True)

    @on(CompareTable.Opened)
    def _row_opened(self) -> None:
        entry = self.rows.current
        if self.page is None or entry is None or entry.place is None:
            return
        section, key, _, _ = self.page["rows"][entry.place]
        open_text(
            self,
            key,
            "compare_detail",
            sentences=section == "metrics",
            run_ids=self.run_ids,
            aggregate=self.aggregate,
            section=section,
            key=key,
            place=self.rows.column,
        )

    @on(OverlayChart.Full)
    def _chart_full(self) -> None:
        self.rows.display = not self.overlay.full
        self.on_resize()


def _title(title: str, left: str, right: str, width: int) -> Entry:
    start = f" {title}  "
    gap = max(2, width - cell_width(start) - cell_width(left) - cell_width(right) - 1)
    return Entry(None, title, ((start, "header"), (left, "dim"), (" " * gap + right, "faint")))

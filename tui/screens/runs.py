"""The table of all runs, live."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal
from textual.timer import Timer
from textual.widgets import Input

from mltrack.tui.clean import cell_width, clip
from mltrack.tui.draw.glyphs import STATUS_LOOKS
from mltrack.tui.keys import Focus
from mltrack.tui.messages import StoreChanged
from mltrack.tui.screens.base import BaseScreen
from mltrack.tui.screens.dialogs import Prompt, Question
from mltrack.tui.widgets.bindings import bindings_of
from mltrack.tui.widgets.line_input import LineInput
from mltrack.tui.widgets.lines import Lines
from mltrack.tui.widgets.look import Line, Span, shown, spans_of
from mltrack.tui.widgets.run_table import RunTable

AGGREGATES = ("best", "last", "min", "max")
FIRST_ROWS = 64
# Typing is one question, not one for each letter; live changes are shown about twice a second.
_TYPING_SECONDS = 0.08
_LIVE_SECONDS = 0.5
# Ages go on where nothing happens.
_AGES_SECONDS = 20.0
_NAMES_IN_QUESTION = 40


class RunsScreen(BaseScreen):
    """Counts, filter, table, the run under the cursor, and the command that prints the same."""

    BINDINGS: ClassVar[list[BindingType]] = bindings_of("runs")

    def __init__(self, filter_text: str = "") -> None:
        super().__init__()
        self.filter_text = filter_text
        self.aggregate = AGGREGATES[0]
        self.view: dict[str, Any] | None = None
        self.error: dict[str, Any] | None = None
        self._before_edit = filter_text
        self._typing: Timer | None = None
        self._changing: Timer | None = None
        self.trouble = ""

    def compose(self) -> ComposeResult:
        yield Lines(id="head", ground="bar")
        with Horizontal(id="filter-row"):
            yield Lines(id="filter-sign")
            yield LineInput(
                self.filter_text,
                id="filter",
                placeholder="all runs; / filters",
                select_on_focus=False,
            )
            yield Lines(id="filter-state")
        yield Lines(id="filter-error")
        yield Lines(id="empty")
        yield RunTable(id="table")
        yield Lines(id="preview")
        yield Lines(id="twin")
        yield Lines(id="foot", ground="bar")

    def on_mount(self) -> None:
        self.set_focus(self.table)
        self.query_one("#filter-sign", Lines).show([((" / ", "key"),)])
        self.set_interval(_AGES_SECONDS, self._refresh_cells)
        self._show_head()
        live = self.mltrack.live
        if not live.running:
            self._show_missing()
        elif not live.claim_first(self._arrived, self._refused, topic="view"):
            self.reload()

    def on_resize(self) -> None:
        self.set_class(self.size.height < 22, "-short")
        self.set_class(self.size.height < 14, "-tiny")
        self._show_head()
        self._show_twin()
        self.show_footer()

    @property
    def table(self) -> RunTable:
        """The table."""
        return self.query_one("#table", RunTable)

    def focuses(self) -> tuple[Focus, ...]:
        return ("runs", "everywhere")

    # -- questions and answers

    def reload(self) -> None:
        """Ask for the runs that match, and for the cells of those on the screen."""
        self.mltrack.live.ask(
            "view",
            self._arrived,
            self._refused,
            topic="view",
            filter=self.filter_text,
            sort=self.table.sort,
            aggregate=self.aggregate,
            first=max(FIRST_ROWS, self.table.size.height),
            also=self.table.visible_ids(),
        )

    def on_store_changed(self, message: StoreChanged) -> None:
        if self._changing is None:
            self._changing = self.set_timer(_LIVE_SECONDS, self._changed)

    def _changed(self) -> None:
        self._changing = None
        if self.mltrack.live.running:
            self.reload()

    def _arrived(self, view: dict[str, Any]) -> None:
        first = self.view is None
        self.view = view
        self.error = None
        self.set_class(not view["all"], "-empty")
        self.table.stale()
        self.table.show(view["ids"], view["columns"], view["rows"])
        if not view["all"]:
            self._show_empty(view)
        self._show_head()
        self._show_filter_state()
        self._show_twin()
        if first:
            self.show_footer()
            self.mltrack.first_rows()

    def _refused(self, error: dict[str, Any]) -> None:
        if error.get("kind") == "FilterError":
            self.error = error
            self._show_filter_state()
        else:
            self.failed(error)

    def _refresh_cells(self) -> None:
        """Ages and silence change by themselves."""
        ids = self.table.stale()
        if ids:
            self._ask_rows(ids)

    @on(RunTable.Wanted)
    def _rows_wanted(self, message: RunTable.Wanted) -> None:
        self._ask_rows(message.run_ids)

    def _ask_rows(self, run_ids: list[str]) -> None:
        if self.view is None:
            return
        self.mltrack.live.ask(
            "rows",
            self.table.put,
            self.failed,
            run_ids=run_ids,
            columns=self.view["columns"],
            best=self.view["best"],
            cut=self.view["cut"],
        )

    @on(RunTable.Moved)
    def _cursor_moved(self, message: RunTable.Moved) -> None:
        self._show_head()
        if message.run_id is None:
            self.query_one("#preview", Lines).show([])
        elif self.size.height >= 14:
            self.mltrack.live.ask("preview", self._show_preview, topic="preview", run_id=message.run_id)

    # -- lines

    def _show_head(self) -> None:
        view = self.view
        spans: list[Span] = [(" mltrack ", "bold")]
        if view is None:
            spans.append(("  opening " + self.mltrack.place, "dim"))
        else:
            if view["experiment"]:
                spans.append((f" {view['experiment']}", "bold"))
            spans.append((f"  {view['all']:,} runs  ", ""))
            for status, look in STATUS_LOOKS.items():
                count = view["statuses"].get(status)
                if count:
                    spans.append((f" {count:,}{look.glyph} {look.word}", look.colour))
            right = f"{view['user']}  {clip(view['root'], 30, keep='tail')}  "
            used = sum(cell_width(shown(text)) for text, _ in spans)
            state = self.trouble or ("read-only" if self.mltrack.readonly else "live")
            room = self.size.width - used - cell_width(shown(right)) - cell_width(state) - 3
            if room >= 2:
                spans.append((" " * room + right, "dim"))
            spans.append(("  " + state, "error" if self.trouble else "green"))
        self.query_one("#head", Lines).show([tuple(spans)])

    def _show_filter_state(self) -> None:
        view, table = self.view, self.table
        state = self.query_one("#filter-state", Lines)
        problem = self.query_one("#filter-error", Lines)
        line: Line = ()
        if self.error is not None:
            place = 3 + min(int(self.error.get("position", 0)), max(0, self.size.width // 2))
            message = str(self.error["message"])
            line = ((" " * place + "^ ", "error"),)
            # The sentence stands behind the place; where the screen is too narrow for that, at the bottom.
            if place + 2 + len(message) <= self.size.width:
                line = (*line, (message, "error"))
            else:
                self.say(message, "error")
        elif view is not None and view["unknown"]:
            line = (("   no run has " + ", ".join(view["unknown"]), "yellow"),)
        problem.set_class(bool(line), "-shown")
        problem.show([line])
        spans: list[Span] = []
        if view is not None:
            total = len(view["ids"])
            spans.append((f" {total:,} of {view['all']:,} ", "dim"))
            hidden = len(table.marks.difference(view["ids"]))
            if table.marks:
                spans.append((f" {len(table.marks):,} marked", "key"))
                if hidden:
                    spans.append((f" ({hidden:,} hidden)", "dim"))
        width = sum(cell_width(text) for text, _ in spans) + 1
        state.styles.width = width
        state.show([tuple(spans)])

    def _show_twin(self) -> None:
        words = ["mltrack"]
        if self.mltrack.where:
            words += ["--store", shlex.quote(self.mltrack.where)]
        words.append("ls")
        if self.filter_text.strip():
            words.append(shlex.quote(self.filter_text.strip()))
        for sort in self.table.sort:
            # A value that begins with a minus must be joined, or it would be read as an option.
            words.append(f"--sort={shlex.quote(sort)}")
        spans: list[Span] = [(" $ " + " ".join(words), "dim")]
        places = self.table.places
        room = self.size.width - sum(cell_width(shown(text)) for text, _ in spans) - len(places) - 1
        if room >= 2:
            spans.append((" " * room + places, "faint"))
        self.query_one("#twin", Lines).show([tuple(spans)])

    def _show_preview(self, answer: dict[str, Any]) -> None:
        title = f" ─── {answer['title']} "
        rest = max(0, self.size.width - cell_width(shown(title)))
        head: Line = ((title, "dim"), ("─" * rest, "faint"))
        lines = [((" ", ""), *spans_of(line)) for line in answer["lines"]]
        self.query_one("#preview", Lines).show([head, *lines])
        self._show_twin()

    def _show_missing(self) -> None:
        self.set_class(True, "-empty")
        self._show_beginning(f"Nothing is logged in {self.mltrack.place} yet: there is no such folder.")

    def _show_empty(self, view: dict[str, Any]) -> None:
        self._show_beginning(
            f"The store {view['root']} has no runs yet; they appear here as soon as there are."
        )

    def _show_beginning(self, sentence: str) -> None:
        lines: Sequence[Line] = (
            ((sentence, "bold"),),
            (),
            (("Log something, from any Python script:", ""),),
            (("    import mltrack", "green"),),
            (("    with mltrack.start_run():", "green"),),
            (('        mltrack.log_metric("loss", 0.5, step=1)', "green"),),
            (),
            (("Or fill a folder with a story to look at:", ""),),
            (("    mltrack demo DIR && mltrack-tui --store DIR", "green"),),
            (),
            (("Why this folder:  mltrack where", "dim"),),
        )
        self.query_one("#empty", Lines).show(lines)

    # -- the filter

    def action_filter(self) -> None:
        self._before_edit = self.filter_text
        field = self.query_one("#filter", Input)
        self.set_focus(field)
        field.cursor_position = len(field.value)

    @on(Input.Changed, "#filter")
    def _typed(self, message: Input.Changed) -> None:
        if message.value == self.filter_text:
            return
        self.filter_text = message.value
        if self._typing is not None:
            self._typing.stop()
        self._typing = self.set_timer(_TYPING_SECONDS, self.reload)

    @on(Input.Submitted, "#filter")
    def _accepted(self) -> None:
        self.set_focus(self.table)

    def _set_filter(self, text: str) -> None:
        self.filter_text = text
        self.error = None
        with self.prevent(Input.Changed):
            self.query_one("#filter", Input).value = text
        self.reload()

    # -- actions

    def action_back(self) -> None:
        if isinstance(self.focused, Input):
            self.set_focus(self.table)
            if self.error is not None:
                self._set_filter(self._before_edit)
        elif self.filter_text:
            self._set_filter("")
        else:
            self.app.exit()

    async def action_open(self) -> None:
        await self._open("Charts")

    async def action_logs(self) -> None:
        await self._open("Log")

    async def _open(self, tab: str) -> None:
        from mltrack.tui.screens.run import RunScreen

        if self.table.current is None:
            self.say("There is no run to open.")
            return
        await self.app.push_screen(RunScreen(self.table, tab))

    def action_down(self) -> None:
        self.table.move(1)

    def action_up(self) -> None:
        self.table.move(-1)

    def action_top(self) -> None:
        self.table.move(-len(self.table.ids))

    def action_bottom(self) -> None:
        self.table.move(len(self.table.ids))

    def action_page_down(self) -> None:
        self.table.page(1)

    def action_page_up(self) -> None:
        self.table.page(-1)

    def action_left(self) -> None:
        self._move_column(-1)

    def action_right(self) -> None:
        self._move_column(1)

    def action_first_column(self) -> None:
        self._move_column(-len(self.table.columns))

    def action_last_column(self) -> None:
        self._move_column(len(self.table.columns))

    def _move_column(self, by: int) -> None:
        self.table.move_column(by)
        self._show_twin()

    def action_mark(self) -> None:
        self.table.toggle_mark()
        self.table.move(1)
        self._show_filter_state()

    def action_mark_all(self) -> None:
        self.table.mark_all()
        self._show_filter_state()

    def action_sort(self) -> None:
        key = self._sort_key()
        if key is None:
            return
        sort = self.table.sort
        self.table.sort = [_flipped(key) if sort and sort[0] == key else key]
        self.reload()

    def action_sort_second(self) -> None:
        key = self._sort_key()
        if key is None:
            return
        sort = self.table.sort
        if not sort or _same(sort[0], key):
            self.say("Sort by one column with s first; S then decides where that one is equal.")
            return
        second = _flipped(key) if len(sort) > 1 and sort[1] == key else key
        self.table.sort = [sort[0], second]
        self.reload()

    def _sort_key(self) -> str | None:
        column = self.table.current_column
        if column is None:
            return None
        if column.sort is None:
            self.say(f"There is no order by {column.heading}.")
        return column.sort

    def action_aggregate(self) -> None:
        self.aggregate = AGGREGATES[(AGGREGATES.index(self.aggregate) + 1) % len(AGGREGATES)]
        self.say(f"Metrics show their {self.aggregate} value.", "dim")
        self.reload()

    # -- changes

    def _chosen(self) -> list[str]:
        table = self.table
        if table.marks:
            return sorted(table.marks)
        return [table.current] if table.current is not None else []

    async def action_tag(self) -> None:
        chosen = self._chosen()
        if not chosen:
            self.say("There is no run to tag.")
            return

        def tag(text: str | None) -> None:
            key, equals, value = (text or "").strip().partition("=")
            if not key.strip():
                return
            self._decide("set_tags", run_ids=chosen, tags={key.strip(): value.strip() if equals else ""})

        label = f"Tag {self._named(chosen)}"
        await self.app.push_screen(Prompt(label, placeholder="key=value, or just a word"), tag)

    async def action_rename(self) -> None:
        run_id = self.table.current
        if run_id is None:
            self.say("There is no run to rename.")
            return

        def rename(text: str | None) -> None:
            name = (text or "").strip()
            if name and name != self.table.name_of(run_id):
                self._decide("rename", run_id=run_id, name=name)

        await self.app.push_screen(Prompt("Rename to", self.table.name_of(run_id)), rename)

    async def action_trash(self) -> None:
        chosen = self._chosen()
        if not chosen:
            self.say("There is no run to delete.")
            return
        owners = sorted({self.table.owner_of(run_id) for run_id in chosen} - {""})
        of = f" of {', '.join(owners[:3])}" if owners else ""
        hidden = len(set(chosen).difference(self.table.ids))
        note = f", {hidden:,} of them hidden by the filter" if hidden else ""

        def trash(yes: bool | None) -> None:
            if yes:
                self.table.marks.difference_update(chosen)
                self._decide("trash", run_ids=chosen)

        await self.app.push_screen(Question(f"Put {self._named(chosen)}{of} into the trash{note}?"), trash)

    def _named(self, run_ids: Sequence[str]) -> str:
        if len(run_ids) == 1:
            return clip(shown(self.table.name_of(run_ids[0])), _NAMES_IN_QUESTION)
        return f"{len(run_ids):,} runs"


def _flipped(sort: str) -> str:
    return sort[1:] if sort.startswith("-") else f"-{sort}"


def _same(left: str, right: str) -> bool:
    return left.lstrip("-") == right.lstrip("-")

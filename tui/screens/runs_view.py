"""The table of runs as it is asked for and shown: questions to the worker, header, preview and the lines around."""

from __future__ import annotations

import os
import shlex
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.timer import Timer
from textual.widgets import Input

from mltrack.store.client.secrets import redact_url
from mltrack.tui.clean import cell_width, clip, pad, wrap
from mltrack.tui.draw.glyphs import STATUS_LOOKS, count_glyphs
from mltrack.tui.keys import Focus
from mltrack.tui.messages import StoreChanged
from mltrack.tui.saved_view import SavedView, save_text, text_of
from mltrack.tui.screens.base import BaseScreen
from mltrack.tui.widgets.experiment_pane import ExperimentPane
from mltrack.tui.widgets.filter_input import FilterInput
from mltrack.tui.widgets.lines import Lines
from mltrack.tui.widgets.look import Line, Span, shown, spans_of
from mltrack.tui.widgets.run_table import RunTable

FIRST_ROWS = 48
# Live changes are shown about twice a second; the preview waits until the cursor rests.
_LIVE_SECONDS = 0.5
_REST_SECONDS = 0.07
_SAVE_SECONDS = 2.0
# Ages go on where nothing happens.
_AGES_SECONDS = 20.0
_WIDE = 130


class RunsView(BaseScreen):
    """Header, filter line, experiments, table, the run under the cursor, and the command that prints the same."""

    def __init__(self, saved: SavedView | None = None, file: Path | None = None) -> None:
        """``saved`` is how it looked before; it is kept in ``file``, or nowhere."""
        super().__init__()
        self.saved = saved or SavedView()
        self._file = file
        self.filter_text = self.saved.filter
        self.view: dict[str, Any] | None = None
        self.error: dict[str, Any] | None = None
        self.trouble = ""
        self._around = self.saved.run_id
        self._changing: Timer | None = None
        self._resting: Timer | None = None
        self._asked: dict[str, Any] = {}
        self._keep: str | None = None
        """The run under the cursor when something else was asked for: it stays there, its family is opened for it."""
        self._gpus = ""
        self._kept = ""
        self._saving: threading.Thread | None = None

    def compose(self) -> ComposeResult:
        yield Lines(id="head", ground="bar")
        with Horizontal(id="filter-row"):
            yield Lines(id="filter-sign")
            yield FilterInput(
                self.filter_text, id="filter", placeholder="all runs; / filters", select_on_focus=False
            )
            yield Lines(id="filter-state")
        yield Lines(id="filter-error")
        yield Lines(id="empty")
        with Horizontal(id="body"):
            yield ExperimentPane(id="experiments")
            yield RunTable(id="table")
        yield Lines(id="preview")
        yield Lines(id="twin")
        yield Lines(id="foot", ground="bar")

    # A hidden table must not leave its keys to the filter line: None would be the app's rule, the first field there is.
    AUTO_FOCUS = ""

    def on_mount(self) -> None:
        table = self.table
        table.sort = [(str(key), bool(turned)) for key, turned in self.saved.sort]
        table.column = self.saved.column
        if self.saved.size == [self.app.size.width, self.app.size.height]:
            table.before = self.saved.page
        self.pane.folded = set(self.saved.folded)
        self.pane.chosen = self.saved.experiment
        self.set_focus(table)
        self.query_one("#filter-sign", Lines).show([((" / ", "key"),)])
        self.set_interval(_AGES_SECONDS, self._refresh_cells)
        if self._file is not None:
            self.set_interval(_SAVE_SECONDS, self.save)
        self.show_head()
        live = self.mltrack.live
        if not live.running:
            self._show_missing()
        elif live.claim_first(self._arrived, self._refused, topic="view"):
            self._asked = self.saved.question()
        else:
            self.reload()

    def on_resize(self) -> None:
        self.set_class(self.size.height < 22, "-short")
        self.set_class(self.size.height < 14, "-tiny")
        self._show_pane()
        self.show_head()
        self._show_twin()
        self.show_footer()

    @property
    def table(self) -> RunTable:
        """The table."""
        return self.query_one("#table", RunTable)

    @property
    def pane(self) -> ExperimentPane:
        """The experiments at the side."""
        return self.query_one("#experiments", ExperimentPane)

    @property
    def aggregate(self) -> str:
        """What metrics show; empty: the goal its best, others their last value."""
        return self.saved.aggregate

    def focuses(self) -> tuple[Focus, ...]:
        if isinstance(self.focused, ExperimentPane):
            return ("experiments", "everywhere")
        return ("runs", "everywhere")

    # -- questions and answers

    def reload(self) -> None:
        """Ask for the runs that match, and for the cells of those on the screen."""
        table, saved = self.table, self.saved
        if saved.filter != self.filter_text:
            saved.filter, saved.closed = self.filter_text, []
        saved.sort = [list(key) for key in table.sort]
        what = saved.question()
        same = what == self._asked
        if any(what[name] != self._asked.get(name) for name in ("filter", "experiment", "flat")):
            self._keep = self._keep or table.current
        self._asked = what
        self.mltrack.live.ask(
            "view",
            self._arrived,
            self._refused,
            topic="view",
            **what,
            known=self.view["token"] if self.view is not None and same else 0,
            first=1 if self.view is not None and same else max(FIRST_ROWS, table.size.height),
            also=table.visible_ids(),
            cells=table.visible_columns() if same else [],
            width=self.size.width,
            around=self._around or self._keep,
            keep=self._keep,
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
        self.mltrack.who = view["who"]
        self.error = None
        asked_anew, self._keep = self._keep is not None, None
        if view["toggled"] is not None:
            self.saved.families = self._asked["toggled"] = list(view["toggled"])
        self.set_class(not view["all"] and self.saved.experiment is None, "-empty")
        table = self.table
        table.stale()
        layout = self.scope_layout()
        table.set_layout(layout.get("widths", {}), bool(layout.get("order")), layout.get("frozen"))
        table.context = frozenset(view["context"])
        table.show(view["ids"], view["columns"], view["rows"])
        if asked_anew and view["found"] and table.current in view["beside"]:
            # A damaged run is there under any filter; the cursor belongs to what was asked for.
            table.go_to(next(run_id for run_id in table.ids if run_id not in table.context))
        if self.focused is None and not self.has_class("-empty"):
            # The table was hidden while the store was empty, and lost the keys with that.
            self.call_after_refresh(self._take_keys)
        if self._around is not None and (table.go_to(self._around) or not first):
            self._around = None
        if not view["all"]:
            self._show_empty(view)
        if first:
            self.mltrack.first_rows()
            self._ask_gpus()
            self.show_footer()
        self._show_pane()
        self.show_head()
        self.show_filter_state()
        self._show_twin()
        self._ask_trends()

    def _take_keys(self) -> None:
        # Not from a filter that was begun meanwhile.
        if self.focused is None:
            self.set_focus(self.table)

    def _refused(self, error: dict[str, Any]) -> None:
        if error.get("kind") == "FilterError":
            self.error = error
            self.show_filter_state()
        else:
            self.failed(error)

    def _ask_gpus(self) -> None:
        def show(bar: str) -> None:
            self._gpus = bar
            self.show_head()

        self.mltrack.live.ask("gpu_bar", show, topic="gpus")

    def _refresh_cells(self) -> None:
        """Ages and silence change by themselves."""
        if self._gpus:
            self._ask_gpus()
        ids = self.table.stale() if self.app.screen is self else []
        if ids:
            self._ask_rows(ids, self.table.visible_columns())

    @on(RunTable.Wanted)
    def _rows_wanted(self, message: RunTable.Wanted) -> None:
        self._ask_rows(message.run_ids, message.columns)

    def _ask_rows(self, run_ids: list[str], columns: list[str]) -> None:
        if self.view is None:
            return

        def put(rows: dict[str, Any]) -> None:
            self.table.put(rows)
            self._ask_trends()

        self.mltrack.live.ask("rows", put, self.failed, run_ids=run_ids, columns=columns)

    def _ask_trends(self) -> None:
        """Curves of the rows on the screen, a few at a time: they are read point by point."""
        table = self.table
        column = next((id for id in table.visible_columns() if id.startswith("trend:")), None)
        ids = table.visible_ids()
        if column is None or not ids:
            return

        def put(answer: dict[str, Any]) -> None:
            table.put_column(column, answer["texts"])
            if answer["more"]:
                self._ask_trends()

        key = column.partition(":")[2]
        self.mltrack.live.ask("trends", put, self.failed, topic="trends", run_ids=ids, key=key)

    @on(RunTable.Moved)
    def _cursor_moved(self, message: RunTable.Moved) -> None:
        self._show_twin()
        if self._resting is not None:
            self._resting.stop()
        self._resting = self.set_timer(_REST_SECONDS, self._ask_preview)

    def _ask_preview(self) -> None:
        self._resting = None
        run_id = self.table.current
        if run_id is None:
            self.query_one("#preview", Lines).show([])
        elif self.size.height >= 14 and self.is_current:
            self.mltrack.live.ask("preview", self._show_preview, topic="preview", run_id=run_id)

    # -- what is remembered

    def scope_layout(self) -> dict[str, Any]:
        """What was decided about the columns of the experiment that is shown; to be changed in place."""
        scope = (self.view or {}).get("scope") or ""
        return self.saved.layouts.setdefault(scope, {})

    def save(self, leaving: bool = False) -> None:
        """Keep the view for the next start, where it has changed or the app is left."""
        if self._saving is not None and self._saving.is_alive() and not leaving:
            return  # a slow disk: later
        if self._file is None or self.view is None:
            return
        table = self.table
        self.saved.filter = self.filter_text if self.error is None else ""
        self.saved.run_id = table.current
        self.saved.column = table.column
        self.saved.folded = sorted(self.pane.folded)
        self.saved.size = [self.size.width, self.size.height]
        state = repr(replace(self.saved, page=[]))
        if state == self._kept and not leaving:
            return
        self._kept = state
        self.saved.page = table.text()
        # A disk that others keep busy takes a tenth of a second: no key waits for that.
        if self._saving is not None:
            self._saving.join()
        self._saving = threading.Thread(
            target=self._save, args=(self._file, text_of(self.saved)), name="view"
        )
        self._saving.start()
        if leaving:
            self._saving.join()

    def _save(self, file: Path, text: str) -> None:
        try:
            save_text(file, text)
        except OSError:
            self._file = None  # a full or read-only home: the app works without

    # -- lines

    def _show_pane(self) -> None:
        wide = self.size.width >= _WIDE and self.saved.pane
        focused = isinstance(self.focused, ExperimentPane)
        many = self.saved.experiment is not None or (self.view is not None and self.view["experiments"] > 1)
        self.set_class((wide and many) or focused, "-pane")
        self.set_class(focused and not wide, "-picker")
        if self.has_class("-pane") and self.mltrack.live.running:
            self.mltrack.live.ask("experiment_tree", self.pane.show_tree, self.failed, topic="experiments")

    def show_head(self) -> None:
        """Where one is, how many runs of which state, who asks."""
        view = self.view
        spans: list[Span] = []
        state = self.trouble or ("read-only" if self.mltrack.readonly else "live")
        if view is None:
            doing = "opening" if self.mltrack.live.running else "waiting for"
            spans = [(" mltrack ", "bold"), (f"  {doing} {redact_url(self.mltrack.place)}", "dim")]
        else:
            scope = view["scope"] or "all experiments"
            room = self.size.width
            me = view["who"]
            # Who one is on a server has nothing to do with this machine.
            here = "" if me["guarded"] else f"@{os.uname().nodename.partition('.')[0]}"
            who = f"{me['shown']}{here}"
            place = clip(view["root"], 40, keep="tail")
            for words, right in ((True, f"{who}  {place}"), (True, who), (False, who), (False, "")):
                spans = [
                    (f" {clip(shown(scope), max(8, room // 3))}", "bold"),
                    (f"  {view['all']:,} runs ", ""),
                ]
                found = view["statuses"]
                each = [(look, found[status]) for status, look in STATUS_LOOKS.items() if found.get(status)]
                for look, count in each if words else count_glyphs(found):
                    word = f" {look.word}" if words else ""
                    spans.append((f" {count:,}{look.glyph}{word}", look.colour))
                if self.mltrack.alerts.unseen:
                    spans.append((f"   ▲ {self.mltrack.alerts.unseen:,}", "yellow"))
                if self._gpus:
                    spans.append((f"   {self._gpus}", "cyan"))
                used = sum(cell_width(shown(text)) for text, _ in spans)
                left = room - used - cell_width(shown(right)) - cell_width(state) - 4
                if left >= 1:
                    spans.append((" " * left + right, "dim"))
                    break
            spans.append(("  " + state + " ", "error" if self.trouble else "green"))
        self.query_one("#head", Lines).show([tuple(spans)])

    def show_filter_state(self) -> None:
        """How many runs match and are marked; what is wrong with the filter, or what could stand at the cursor."""
        view, table = self.view, self.table
        state = self.query_one("#filter-state", Lines)
        problem = self.query_one("#filter-error", Lines)
        line: Line = ()
        if self.error is not None:
            line = self._error_line(self.error)
        elif view is not None and view["unknown"]:
            line = (("   no run has " + ", ".join(view["unknown"]), "yellow"),)
        problem.set_class(bool(line), "-shown")
        problem.show([line])
        spans: list[Span] = []
        if view is not None:
            spans.append((f" {view['found']:,} of {view['all']:,} ", "dim"))
            if view["damaged"]:
                spans.append((f"+ {view['damaged']:,} damaged ", "yellow"))
            if table.range_from is not None:
                spans.append((f" range of {len(table.range_ids()):,}: v marks", "key"))
            elif table.marks:
                spans.append((f" {len(table.marks):,} marked", "key"))
                hidden = len(table.marks.difference(table.ids))
                if hidden:
                    spans.append((f" ({hidden:,} hidden)", "dim"))
        state.styles.width = sum(cell_width(text) for text, _ in spans) + 1
        state.show([tuple(spans)])

    def show_footer(self) -> None:
        """The keys that matter here; while a filter is typed, what could stand at its cursor."""
        field = self.query_one("#filter", FilterInput)
        if field.has_focus and not self.said:
            self.query_one("#foot", Lines).show([field.candidate_line(self.size.width)])
        else:
            super().show_footer()

    def _error_line(self, error: dict[str, Any]) -> Line:
        place = 3 + min(int(error.get("position", 0)), max(0, self.size.width // 2))
        message = str(error["message"])
        room = self.size.width - place - 2
        # The sentence stands behind the place; where the screen is too narrow for that, at the bottom. While somebody
        # types, what could stand at the cursor is there: then as much of it as fits, on the roomier side.
        if len(message) <= room:
            return (" " * place + "^ ", "error"), (message, "error")
        field = self.query_one("#filter", FilterInput)
        if field.has_focus and field.candidates:
            if room >= place:
                return (" " * place + "^ ", "error"), (clip(message, room), "error")
            return ((pad(f" {clip(message, place - 2)}", place) + "^", "error"),)
        self.say(message, "error")
        return ((" " * place + "^ ", "error"),)

    def _show_twin(self) -> None:
        words = [f"mltrack{self.store_option}"]
        words.append("ls")
        if self.saved.experiment is not None:
            words += ["-x", shlex.quote(self.saved.experiment)]
        if self.filter_text.strip():
            words.append(shlex.quote(self.filter_text.strip()))
        for sort in (self.view or {}).get("sort_keys", ()):
            # A value that begins with a minus must be joined, or it would be read as an option.
            words.append(f"--sort={shlex.quote(sort)}")
        spans: list[Span] = [(" $ " + " ".join(words), "dim")]
        places = self.table.places
        room = self.size.width - sum(cell_width(shown(text)) for text, _ in spans) - len(places) - 1
        if room >= 2:
            spans.append((" " * room + places, "faint"))
        self.query_one("#twin", Lines).show([tuple(spans)])

    def _show_preview(self, answer: dict[str, Any]) -> None:
        if answer["run_id"] != self.table.current:
            return
        title = f" ─── {clip(shown(answer['title']), max(8, self.size.width - 8))} "
        rest = max(0, self.size.width - cell_width(shown(title)))
        head: Line = ((title, "dim"), ("─" * rest, "faint"))
        lines = [((" ", ""), *spans_of(line)) for line in answer["lines"]]
        self.query_one("#preview", Lines).show([head, *lines])

    def _show_missing(self) -> None:
        self.set_class(True, "-empty")
        self.show_head()
        self._show_beginning(f"Nothing is logged in {self.mltrack.place} yet: there is no such folder.")

    def _show_empty(self, view: dict[str, Any]) -> None:
        self._show_beginning(
            f"The store {view['root']} has no runs yet; they appear here as soon as there are."
        )

    def _show_beginning(self, sentence: str) -> None:
        lines: Sequence[Line] = (
            *(((line, "bold"),) for line in wrap(sentence, max(10, self.size.width - 4), 4)),
            (),
            (("Log something, from any Python script:", ""),),
            (("    import mltrack", "green"),),
            (("    with mltrack.start_run():", "green"),),
            (('        mltrack.log_metric("loss", 0.5, step=1)', "green"),),
            (),
            (("Or look at a story that is made up:", ""),),
            (("    mltrack-tui --demo", "green"),),
            (),
            (("Why this folder:  mltrack where", "dim"),),
        )
        self.query_one("#empty", Lines).show(lines)

    def set_filter(self, text: str) -> None:
        """Show other runs, whether or not somebody typed it."""
        self.filter_text = text
        self.error = None
        with self.prevent(Input.Changed):
            self.query_one("#filter", Input).value = text
        self.reload()

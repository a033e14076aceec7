"""Jobs: queued, being built step by step, running, ended; stop them, run them again, read what they print."""

from __future__ import annotations

from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType

from mltrack.tui.clean import cell_width, clip, pad, wrap
from mltrack.tui.keys import Focus
from mltrack.tui.live import OnError
from mltrack.tui.messages import StoreChanged
from mltrack.tui.screens.base import BaseScreen
from mltrack.tui.screens.dialogs import Question
from mltrack.tui.widgets.bindings import bindings_of
from mltrack.tui.widgets.lines import Lines
from mltrack.tui.widgets.look import Line, shown
from mltrack.tui.widgets.row_list import RowList

_SECONDS = 0.5
# Below this many lines all of the screen is for the list.
_LEAST_HEIGHT = 16
_LINE_LINES = 3
_STYLES = {"running": "green", "preparing": "cyan", "queued": "yellow"}


class JobsScreen(BaseScreen):
    """A row for each job of the store."""

    BINDINGS: ClassVar[list[BindingType]] = bindings_of("jobs")
    file_stem = "jobs"

    def __init__(self) -> None:
        super().__init__()
        self.jobs: list[dict[str, Any]] = []

    def compose(self) -> ComposeResult:
        yield Lines(id="head", ground="bar")
        yield Lines(id="columns")
        yield RowList(id="rows")
        yield Lines(id="detail")
        yield Lines(id="twin")
        yield Lines(id="foot", ground="bar")

    @property
    def rows(self) -> RowList:
        """The jobs."""
        return self.query_one("#rows", RowList)

    def focuses(self) -> tuple[Focus, ...]:
        return ("jobs", "everywhere")

    @property
    def looked_at(self) -> str | None:
        return self.rows.current

    def on_mount(self) -> None:
        self.set_focus(self.rows)
        self.set_interval(_SECONDS, self._load)

    def on_resize(self) -> None:
        self.show_footer()
        self._load()

    def on_store_changed(self, message: StoreChanged) -> None:
        self._load()

    def _load(self) -> None:
        if self.is_current:
            if not self.mltrack.live.running:
                self.query_one("#head", Lines).show([((" Jobs", "bold"),)])
                self.rows.show(self.absent_lines())
            self.mltrack.live.ask(
                "jobs_page", self._arrived, self.failed, topic="jobs", current=self.rows.current
            )

    def _arrived(self, page: dict[str, Any]) -> None:
        self.jobs = page["jobs"]
        counts = {
            phase: sum(job["phase"] == phase for job in self.jobs)
            for phase in ("running", "preparing", "queued")
        }
        words = [
            f"{count} {'building' if phase == 'preparing' else phase}"
            for phase, count in counts.items()
            if count
        ]
        head = f"   {'  '.join(words) or 'nothing is running'}"
        self.query_one("#head", Lines).show([((" Jobs", "bold"), (head, "dim"))])
        self.rows.fill(
            [job["run_id"] for job in self.jobs], self._lines(), [job["run_name"] for job in self.jobs]
        )
        if not self.jobs:
            self.rows.show([(), ((" No job was launched into this store. 3 shows projects.", "dim"),)])
        self._show_detail(page["detail"])
        job = self._job()
        line = str(job["line"]) if job else "mltrack jobs"
        line = f"mltrack{self.store_option}{line.removeprefix('mltrack')}"
        twin = self.query_one("#twin", Lines)
        parts = wrap(line, max(10, self.size.width - 3), _LINE_LINES)
        twin.styles.height = len(parts)
        twin.show([((f" {' ' if number else '$'} {part}", "dim"),) for number, part in enumerate(parts)])

    def on_row_list_moved(self) -> None:
        self._load()

    def _show_detail(self, detail: dict[str, Any] | None) -> None:
        """Of the job under the cursor: what it runs, and what it printed last."""
        pane = self.query_one("#detail", Lines)
        height = self.size.height // 2 - 1 if detail and self.size.height >= _LEAST_HEIGHT else 0
        pane.display = height > 0
        if not height or detail is None:
            return
        pane.styles.height = height
        name, *rest = (shown(text) for text in detail["title"])
        title = clip(" ".join(["", name, *(f"── {text}" for text in rest), ""]), self.size.width - 6)
        rule = "─" * max(0, self.size.width - cell_width(title) - 4)
        lines: list[Line] = [(("───", "faint"), (title, "bold"), (rule, "faint"))]
        lines += [
            ((("   " if number else " $ ") + part, "dim"),)
            for number, part in enumerate(wrap(detail["command"], max(10, self.size.width - 4), 3))
        ]
        room = height - len(lines)
        tail = (detail["tail"] or [self._says(self._job())])[-room:] if room > 0 else []
        pane.show(lines + [((" " + text, ""),) for text in tail])

    def _lines(self) -> list[Line]:
        wide = min(30, max([cell_width("JOB"), *(cell_width(job["run_name"]) for job in self.jobs)]))
        head = f" {pad('JOB', wide)}  {pad('STATE', 14)}{pad('WHERE', 8)}{pad('AGE', 6, 'right')}  SAYS"
        self.query_one("#columns", Lines).show([((head, "dim"),) if self.jobs else ()])
        rows: list[Line] = []
        for job in self.jobs:
            style = _STYLES.get(job["phase"], "dim" if job["status"] == "FINISHED" else "error")
            rows.append(
                (
                    (pad(clip(job["run_name"], wide), wide) + "  ", "bold"),
                    (pad(clip(job["phase_text"], 14), 14), style),
                    (pad(job["backend"], 8), "dim"),
                    (pad(clip(job["age"], 6), 6, "right") + "  ", "dim"),
                    (clip(self._says(job), max(8, self.size.width - wide - 36)), ""),
                )
            )
        return rows

    @staticmethod
    def _says(job: dict[str, Any] | None) -> str:
        """How it ended, or what it does or waits for."""
        if job is None:
            return ""
        return str(job["reason"] or (job["text"] if job["phase"] != "ended" else "") or "")

    def _job(self) -> dict[str, Any] | None:
        place = self.rows.cursor
        return self.jobs[place] if place < len(self.jobs) else None

    # -- keys

    def action_next_job(self) -> None:
        self.rows.move(1)

    def action_previous_job(self) -> None:
        self.rows.move(-1)

    def action_first_job(self) -> None:
        self.rows.move(-len(self.rows.keys))

    def action_last_job(self) -> None:
        self.rows.move(len(self.rows.keys))

    async def action_open_job(self) -> None:
        await self._open("Overview")

    async def action_job_logs(self) -> None:
        await self._open("Logs")

    async def _open(self, tab: str) -> None:
        from mltrack.tui.screens.run import RunScreen

        job = self._job()
        if job is None:
            self.say("There is no job to open.")
        elif job["phase"] == "queued" and not job["scheduler"]:
            self.say(f"{job['run_name']} waits: {job['text'] or 'its run begins when its turn comes'}.")
        else:
            await self.app.push_screen(RunScreen(self.rows, tab))

    async def action_job_stop(self) -> None:
        job = self._job()
        if job is None or job["phase"] == "ended":
            self.say("There is nothing to stop: this job has ended.")
            return
        verb = "Cancel" if job["phase"] == "queued" else "Stop"

        def answered(yes: bool | None) -> None:
            if yes:
                self.mltrack.live.ask(
                    "job_stop",
                    lambda done: self.say(f"Asked {done['name']} to end.", "green"),
                    self.failed,
                    run_id=job["run_id"],
                )

        await self.app.push_screen(
            Question(f"{verb} {job['run_name']} ({job['backend']}, {job['phase_text']})?"), answered
        )

    def action_job_again(self) -> None:
        job = self._job()
        if job is not None:
            launch_like(self, job["run_id"])


def launch_like(screen: BaseScreen, run_id: str, otherwise: OnError | None = None) -> None:
    """Open the form with what a run was launched with; ``otherwise`` takes a run that was not launched by us."""

    def arrived(asked: dict[str, Any]) -> None:
        from mltrack.tui.screens.launch import LaunchScreen

        screen.app.push_screen(LaunchScreen(asked))

    screen.mltrack.live.ask("launch_like", arrived, otherwise or screen.failed, run_id=run_id)

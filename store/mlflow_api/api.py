"""What the handlers of all requests share: the store, the writers, and what is known of runs and experiments."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from mltrack.store.client.shipping import START_SECONDS, start_uploader
from mltrack.store.copies import destination
from mltrack.store.decisions import Operation
from mltrack.store.mlflow_api.validate import check_run_id
from mltrack.store.mlflow_api.wire import ApiError, Fields, invalid, missing
from mltrack.store.mlflow_api.writers import RunWriter, Writers
from mltrack.store.store import Store

DEFAULT = "Default"
DEFAULT_ID = 0
ARTIFACTS = "mlflow-artifacts:"


@dataclass(frozen=True, slots=True)
class ExperimentRow:
    """An experiment as the database has it."""

    id: int
    name: str
    lifecycle: str
    location: str
    created_ms: int
    updated_ms: int

    @property
    def artifact_location(self) -> str:
        """Where clients put the artifacts of its runs."""
        return self.location or f"{ARTIFACTS}/{self.id}"


@dataclass(frozen=True, slots=True)
class RunRow:
    """What must be known of a run before anything is written about it."""

    experiment_id: int
    lifecycle: str


class Api:
    """One store, served by one thread."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.database = store.database
        self.writers = Writers(store)
        self._runs: dict[str, RunRow] = {}
        self._experiments: dict[int, ExperimentRow] | None = None
        self._version = -1
        self._sent_on = -START_SECONDS
        self.writers.forget_the_dead()
        self._make_default()

    def close(self) -> None:
        """End all journals; the store stays open."""
        self.writers.close()

    def _make_default(self) -> None:
        if not self.database.execute("SELECT 1 FROM experiment WHERE name = ?", (DEFAULT,)):
            self.decide(
                [{"op": "make_experiment", "name": DEFAULT, "id": DEFAULT_ID}], "Made the experiment Default"
            )

    # -- what is known

    def version(self) -> int:
        """Changes when another process changed the database; then nothing that was remembered counts any more."""
        if self.database.kind == "sqlite":
            now = int(self.database.execute("PRAGMA data_version")[0][0])
        else:
            now = int(self.database.setting("seq", "0"))
        if now != self._version:
            self._version = now
            self.forget()
        return now

    def forget(self) -> None:
        """Read again what is known of runs and experiments."""
        self._runs.clear()
        self._experiments = None

    def decide(self, operations: Sequence[Operation], sentence: str) -> None:
        """Apply operations as one decision that ``mltrack undo`` leaves alone."""
        self.store.decide(operations, sentence)
        self.forget()

    def experiments(self) -> dict[int, ExperimentRow]:
        """All experiments by number."""
        self.version()
        if self._experiments is None:
            rows = self.database.execute(
                "SELECT id, name, lifecycle, location, created_ms, updated_ms FROM experiment ORDER BY id"
            )
            self._experiments = {int(row[0]): ExperimentRow(*row) for row in rows}
        return self._experiments

    def experiment(self, text: str) -> ExperimentRow:
        """The experiment with this id. "0" is Default whatever its number is here."""
        known = self.experiments()
        try:
            found = known.get(int(text))
        except ValueError:
            raise invalid(
                f"Invalid experiment ID '{text[:80]}'. Experiment ID must be a valid integer."
            ) from None
        if found is None and text == str(DEFAULT_ID):
            found = self.experiment_named(DEFAULT)
        if found is None:
            raise missing(f"No Experiment with id={text[:80]} exists")
        return found

    def experiment_named(self, name: str) -> ExperimentRow | None:
        """The experiment of this name, an active one first."""
        found = [row for row in self.experiments().values() if row.name == name]
        return min(found, key=lambda row: (row.lifecycle != "active", -row.id), default=None)

    def searched(self, texts: list[str]) -> set[int]:
        """The experiments to look into. One that does not exist has no runs; that is no error of a search."""
        known = self.experiments()
        found: set[int] = set()
        for text in dict.fromkeys(texts):
            try:
                number = int(text)
            except ValueError:
                number = self.experiment(text).id  # says what is wrong
            if number in known:
                found.add(number)
            elif number == DEFAULT_ID and (default := self.experiment_named(DEFAULT)) is not None:
                found.add(default.id)
        return found

    def run(self, run_id: str) -> RunRow:
        """What is known of a run; an error when there is none."""
        version = self.version()
        check_run_id(run_id)
        found = self._runs.get(run_id)
        if found is None:
            self.writers.fold(run_id)
            rows = self.database.execute(
                "SELECT experiment_id, lifecycle FROM run WHERE run_id = ?", (run_id,)
            )
            if not rows:
                raise missing(f"Run with id={run_id} not found")
            found = RunRow(int(rows[0][0]), str(rows[0][1]))
            if self._version == version:
                self._runs[run_id] = found
        return found

    def remember(self, run_id: str, row: RunRow) -> None:
        """A run that was just made."""
        self._runs[run_id] = row

    def writer(self, run_id: str, deleted: bool = False) -> RunWriter:
        """The writer of a run that may be written to; of one in the trash only when ``deleted``."""
        if self.run(run_id).lifecycle != "active" and not deleted:
            raise invalid(f"The run {run_id} must be in the 'active' state. Current state is deleted.")
        return self.writers.of(run_id, self._version)

    def send_on(self) -> None:
        """Artifacts that go to an object store are sent there by the store's companion, which is started again now and then in
        case the last one has just ended."""
        if time.monotonic() - self._sent_on < START_SECONDS:
            return
        if destination(self.database, self.store.root).addresses():
            self._sent_on = time.monotonic()
            start_uploader(self.store.address, lambda sentence: None)

    def now_ms(self) -> int:
        """Milliseconds since 1970."""
        return time.time_ns() // 1_000_000


def not_served(message: str) -> ApiError:
    """A part of MLflow that this server leaves out."""
    return ApiError("NOT_IMPLEMENTED", message)


def artifact_uri(experiment: ExperimentRow, run_id: str) -> str:
    """Where a client finds the artifacts of a run."""
    return below(experiment, f"{run_id}/artifacts")


def below(experiment: ExperimentRow, path: str) -> str:
    """A place below where an experiment's artifacts lie. What follows a `?` in it stays behind the path."""
    parts = urlsplit(experiment.artifact_location)
    if not parts.scheme:
        return f"{experiment.artifact_location.rstrip('/')}/{path}"
    return parts._replace(path=f"{parts.path.rstrip('/')}/{path}").geturl()


Answer = dict[str, Any]
Handler = Callable[[Api, Fields], Answer | Awaitable[Answer]]

"""The store as everybody above uses it: open, fold, ask, decide. The app's worker, the command and the server call only this."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from mltrack.store import decisions, experiments, filter_parser, runs, search, upkeep
from mltrack.store.client import host
from mltrack.store.client.journal import run_folder
from mltrack.store.client.location import LocationError, StoreChoice, choose_store
from mltrack.store.client.secrets import redact_url
from mltrack.store.client.values import Refused, check_key, check_text
from mltrack.store.columns import RunColumns
from mltrack.store.database import SCHEMA_VERSION, Database, open_postgresql, open_sqlite
from mltrack.store.errors import BadInput, ReadOnly, StoreUnavailable
from mltrack.store.fold import Fold
from mltrack.store.key_resolution import unknown_keys
from mltrack.store.records import Decision, Experiment, FoldReport, Location, Page, Points, Run
from mltrack.store.registry import Registry
from mltrack.store.upkeep import Freed

DATABASE_FILE = "mltrack.db"
DATABASE_FOLDER = "MLTRACK_DATABASE_FOLDER"
"""Environment variable: keep the rebuildable database in this node-local folder, journals and decisions in the store."""


class Store:
    """An open store. Not for use by several threads at once; a context manager."""

    def __init__(
        self, database: Database, root: Path, location: Location, followed: Path | None = None
    ) -> None:
        """``followed``: the folder of our own that holds ``database``, when the store at ``root`` is only followed."""
        self.followed = followed
        self.database = database
        self.root = root
        self.location = location
        self.columns = RunColumns(database)
        self.registry = Registry(database, root)
        self._fold = Fold(database, root, followed)

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the database."""
        self.database.close()

    # -- journals

    def refresh(self, seconds: float | None = 2.0, everything: bool = False) -> FoldReport:
        """Take in what the journals have that the database has not, for at most ``seconds`` (None: all of it)."""
        report = self._fold.refresh(seconds, everything)
        if report.records and decisions.has_waiting(self.database):
            with self.database.transaction():
                decisions.replay(self.database, self.root)
        return report

    def fold_folder(self, folder: Path) -> FoldReport:
        """Take in one run folder that lies anywhere."""
        return self._fold.folder(folder)

    # -- upkeep

    def backup(self, target: Path | None = None) -> Path:
        """Copy the database to ``target`` (default: into the store's backups/) while it is in use. Returns the path."""
        return upkeep.backup(self.database, self.root, target)

    def gc(
        self, *, dry: bool = False, journals: bool = False, trash_days: float = upkeep.TRASH_DAYS
    ) -> Freed:
        """Purge trash older than ``trash_days``, seal ended journals, remove what nothing needs. ``dry`` only counts."""
        expired = upkeep.expired_trash(self.database, trash_days)
        if not dry and expired:
            self.purge(expired)
        freed = upkeep.collect(self.database, self.root, dry, journals)
        if expired:
            freed.count_by_kind["runs from the trash"] = len(expired)
        if not dry:
            sealed = upkeep.seal(self.database, self.root)
            freed.bytes_by_kind.update(sealed.bytes_by_kind)
            freed.count_by_kind.update(sealed.count_by_kind)
        return freed

    def seal(self, older_than_seconds: float = upkeep.SEAL_SECONDS) -> Freed:
        """Compress the journals of ended runs."""
        return upkeep.seal(self.database, self.root, older_than_seconds)

    # -- asking

    def search(
        self,
        filter: str = "",
        *,
        experiment: str | None = None,
        sort: Sequence[str] = (),
        limit: int | None = None,
        after: str | None = None,
        lifecycle: str = "active",
    ) -> Page:
        """Ids of the runs that match, in order. ``after``: continue behind this run id. Raises FilterError."""
        expression = filter_parser.parse(filter)
        columns = self.columns
        columns.refresh()
        mask = search.evaluate(expression, columns, time.time_ns() // 1_000_000, host.user())
        for key, wanted in (("lifecycle", lifecycle), ("experiment", experiment)):
            if wanted is not None and wanted != "all":
                column = columns.text("attribute", key)
                mask = mask & (
                    column.codes == (column.values.index(wanted) if wanted in column.values else -2)
                )
        return search.page(columns, mask, tuple(sort), limit, after, unknown_keys(expression, columns))

    def runs(self, run_ids: Sequence[str]) -> list[Run]:
        """The runs with these ids, in this order."""
        return runs.read_runs(self.database, self.root, run_ids, time.time_ns() // 1_000_000)

    def run(self, reference: str) -> Run:
        """The run a person means. Raises RunNotFound or AmbiguousRun."""
        return self.runs([self.resolve(reference)])[0]

    def resolve(self, reference: str) -> str:
        """The id of the run a person means: id, unique prefix, name, ``@last``, ``@running``."""
        return runs.resolve(self.database, reference)

    def points(self, run_id: str, key: str, rank: int = 0, superseded: bool = False) -> Points:
        """One series, exact."""
        return runs.read_series(self.database, run_id, key, rank, superseded)

    def experiments(self) -> list[Experiment]:
        """All experiments, newest activity first."""
        return experiments.experiments(self.database)

    def keys(self, kind: str = "metric") -> list[str]:
        """All metric, param or tag keys."""
        if kind not in ("metric", "param", "tag"):
            raise BadInput(f"Keys are of a metric, param or tag, not of a '{kind}'.")
        return list(self.columns.keys(kind))  # type: ignore[arg-type]  # narrowed by the line above

    # -- deciding

    def decide(self, operations: Sequence[Mapping[str, Any]], sentence: str) -> Decision:
        """Apply operations as one undoable decision."""
        if self.database.readonly or self.followed is not None:
            raise ReadOnly(f"The store {self.location.root} is open read-only; nothing was changed.")
        return decisions.decide(
            self.database, self.root, [dict(operation) for operation in operations], sentence
        )

    def set_tags(self, run_ids: Sequence[str], tags: Mapping[str, str]) -> Decision:
        """Set tags of runs; beats what their journals say."""
        try:
            checked = {check_key(key): check_text(value) for key, value in tags.items()}
        except Refused as error:
            raise BadInput(f"The tag cannot be stored: {error}.") from None
        operations = [
            {"op": "tag", "run": run, "key": key, "value": value}
            for run in run_ids
            for key, value in checked.items()
        ]
        return self.decide(
            operations,
            f"Tagged {_runs(run_ids)} {', '.join(f'{key}={value}' for key, value in checked.items())}",
        )

    def delete_tags(self, run_ids: Sequence[str], keys: Sequence[str]) -> Decision:
        """Remove tags of runs."""
        operations = [{"op": "tag", "run": run, "key": key, "value": None} for run in run_ids for key in keys]
        return self.decide(operations, f"Removed {', '.join(keys)} from {_runs(run_ids)}")

    def note(self, run_id: str, text: str) -> Decision:
        """Write the note of a run."""
        return self._fields([run_id], "note", text, f"Noted on {_runs([run_id])}")

    def rename(self, run_id: str, name: str) -> Decision:
        """Rename a run."""
        try:
            check_key(name)
        except Refused as error:
            raise BadInput(f"The name cannot be used: {error}.") from None
        return self._fields([run_id], "name", name, f"Renamed {_runs([run_id])} to {name}")

    def move(self, run_ids: Sequence[str], experiment: str) -> Decision:
        """Put runs into an experiment, made when it does not exist."""
        return self._fields(run_ids, "experiment", experiment, f"Moved {_runs(run_ids)} to {experiment}")

    def pin(self, run_ids: Sequence[str], pinned: bool = True) -> Decision:
        """Keep runs at the top, or not."""
        return self._fields(
            run_ids,
            "pinned",
            "1" if pinned else None,
            f"{'Pinned' if pinned else 'Unpinned'} {_runs(run_ids)}",
        )

    def trash(self, run_ids: Sequence[str]) -> Decision:
        """Put runs into the trash; ``restore`` brings them back."""
        return self._fields(run_ids, "lifecycle", "trash", f"Moved {_runs(run_ids)} to the trash")

    def restore(self, run_ids: Sequence[str]) -> Decision:
        """Take runs out of the trash."""
        return self._fields(run_ids, "lifecycle", None, f"Restored {_runs(run_ids)}")

    def purge(self, run_ids: Sequence[str]) -> Decision:
        """Remove runs and their files for good."""
        decision = self.decide([{"op": "purge", "run": run} for run in run_ids], f"Purged {_runs(run_ids)}")
        for run_id in run_ids:
            shutil.rmtree(run_folder(self.root, run_id), ignore_errors=True)
        return decision

    def rename_experiment(self, name: str, to: str) -> Decision:
        """Rename an experiment."""
        return self.decide(
            [{"op": "rename_experiment", "name": name, "to": to}], f"Renamed the experiment {name} to {to}"
        )

    def undo(self) -> Decision:
        """Take back this user's last decision."""
        return decisions.undo(self.database, self.root)

    def redo(self) -> Decision:
        """Take back this user's last undo."""
        return decisions.undo(self.database, self.root, redo=True)

    def _fields(self, run_ids: Sequence[str], name: str, value: str | None, sentence: str) -> Decision:
        return self.decide(
            [{"op": "field", "run": run, "field": name, "value": value} for run in run_ids], sentence
        )


def _runs(run_ids: Sequence[str]) -> str:
    return f"run {run_ids[0][:8]}" if len(run_ids) == 1 else f"{len(run_ids)} runs"


def open_store(where: str | None = None, *, readonly: bool = False) -> Store:
    """Open the store ``where`` (a folder or postgresql:// URL; default: the documented order), creating it on first use."""
    try:
        choice = choose_store(where)
    except LocationError as error:
        raise BadInput(str(error)) from None
    if choice.url.startswith(("http://", "https://")):
        raise StoreUnavailable(
            "A store behind http(s) cannot be opened by this version; its journals wait in the local spool."
        )
    if not choice.is_remote and choice.root.is_dir() and not os.access(choice.root, os.W_OK | os.X_OK):
        return _follow(choice)
    database = _open_database(choice, readonly)
    location = Location(
        choice.root, redact_url(database.where), database.kind, choice.chosen_by, database.notes
    )
    store = Store(database, choice.root, location)
    if not database.readonly and database.kind == "sqlite":
        with database.transaction():
            decisions.replay(database, choice.root)
    return store


def _follow(choice: StoreChoice) -> Store:
    """A store we may read but not write: its journals and decisions, folded into a database of our own."""
    name = hashlib.sha256(os.fsencode(choice.root)).hexdigest()[:16]
    folder = cache_folder() / "followed" / name
    database = open_sqlite(folder / DATABASE_FILE, folder)
    note = f"{choice.root} is not yours to write: it is followed, and shown from {folder}; nothing can be changed here"
    location = Location(choice.root, database.where, database.kind, choice.chosen_by, (*database.notes, note))
    with database.transaction():
        decisions.replay(database, choice.root)
    return Store(database, choice.root, location, followed=folder)


def cache_folder() -> Path:
    """Where this user's rebuildable files go."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return Path(base if os.path.isabs(base) else os.path.expanduser("~/.cache")) / "mltrack"


def _open_database(choice: StoreChoice, readonly: bool) -> Database:
    if choice.is_remote:
        return open_postgresql(choice.url, readonly)
    local = os.environ.get(DATABASE_FOLDER)
    path = choice.root / DATABASE_FILE
    if local:
        path = Path(local) / f"{hashlib.sha256(os.fsencode(choice.root)).hexdigest()[:16]}.db"
    database = open_sqlite(path, choice.root, readonly)
    if database.readonly or int(database.setting("schema")) >= SCHEMA_VERSION:
        return database
    from mltrack.store.migrate import migrate

    database.close()
    migrate(path, choice.root)
    return open_sqlite(path, choice.root, readonly)

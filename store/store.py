"""The store as everybody above uses it: open, fold, ask, decide. The app's worker, the command and the server call only this."""

from __future__ import annotations

import shutil
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mltrack.store import column_segments, experiments, filter_parser, runs, search
from mltrack.store.blocks import read_loose_points
from mltrack.store.client import host
from mltrack.store.client.journal import run_folder
from mltrack.store.client.values import Refused, check_key, check_text
from mltrack.store.columns import RunColumns
from mltrack.store.database import Database
from mltrack.store.decision_file import catch_up, has_waiting
from mltrack.store.errors import BadInput, Conflict, NotFound, ReadOnly
from mltrack.store.identity import Identity
from mltrack.store.key_resolution import UnknownKey, unknown_keys
from mltrack.store.records import (
    Decision,
    Experiment,
    FoldReport,
    Location,
    Page,
    Points,
    Run,
    RunDetails,
    SourceState,
)

if TYPE_CHECKING:
    from mltrack.store.copies import Copy, CopyHead, CopyHeads
    from mltrack.store.fold import Fold
    from mltrack.store.fold_sources import SourceFold
    from mltrack.store.metric_table import MetricTable
    from mltrack.store.registry import Registry
    from mltrack.store.series import Floats, Ints, PointColumns
    from mltrack.store.sources.mlflow_files import RemoteFiles, RemoteHead
    from mltrack.store.upkeep import Freed
    from mltrack.store.zoom import Zoom


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
        self.address = str(root)
        """What other processes open this store by. It may hold a password."""
        self.columns = RunColumns(database, root)
        self.patience = 0.0
        """How many seconds may be waited for a server: for a history that it hands over when asked, or to show a change."""

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # What the first rows on a screen do not need is imported when it is used.

    @cached_property
    def registry(self) -> Registry:
        """Models, versions and who may promote them."""
        from mltrack.store.registry import Registry

        return Registry(self.database, self.root)

    @cached_property
    def _fold(self) -> Fold:
        from mltrack.store.fold import Fold

        return Fold(self.database, self.root, self.followed)

    @cached_property
    def _sources(self) -> SourceFold:
        from mltrack.store.fold_sources import SourceFold

        return SourceFold(self.database, self.followed if self.followed is not None else self.root)

    def close(self) -> None:
        """Close the database."""
        self.database.close()

    # -- journals

    def refresh(self, seconds: float | None = 2.0, everything: bool = False) -> FoldReport:
        """Take in what journals and sources have that the database has not, for at most ``seconds`` (None: all of it)."""
        began = time.monotonic()
        report = self._fold.refresh(seconds, everything)
        left = None if seconds is None else max(0.02, seconds - (time.monotonic() - began))
        report = report.and_sources(self._sources.refresh(left))
        if report.records and has_waiting(self.database):
            catch_up(self.database, self.root)
        if report.records and seconds is None:
            column_segments.prepare(self.database)  # whoever takes in all there is has time for that
        return report

    def fold_folder(self, *folders: Path) -> FoldReport:
        """Take in one run folder, or several at once, that lie anywhere."""
        return self._fold.folders(list(folders))

    # -- sources

    def sources(self) -> list[SourceState]:
        """Data of other tools that is followed."""
        return self._sources.states()

    def add_source(self, path: str, follow: bool = True) -> Decision:
        """Follow what lies at ``path`` (or only take it in once). Raises BadInput when no reader knows it."""
        from mltrack.store import sources

        where, kind = sources.identify(path)
        if sources.is_store(where, self.root):
            raise BadInput(f"{where} is this store itself.")
        return self.decide(
            [{"op": "source", "path": where, "kind": kind, "followed": follow}],
            f"Follow {where}" if follow else f"Read {where}",
        )

    def remove_source(self, path: str) -> Decision:
        """Follow a source no longer and hide its runs; nothing there is touched, and undo brings them back."""
        from mltrack.store import sources

        where = next(
            (state.path for state in self.sources() if state.path in (path, sources.absolute(path))), None
        )
        if where is None:
            raise NotFound(f"{path} is not followed. 'mltrack source list' lists what is.")
        return self.decide([{"op": "source", "path": where, "followed": None}], f"Removed the source {where}")

    def read_source(self, path: str, seconds: float | None = None) -> FoldReport:
        """Take in what is new in one source, followed or not."""
        return self._sources.refresh(seconds, only=path)

    # -- upkeep

    def backup(self, target: Path | None = None) -> Path:
        """Copy the database to ``target`` (default: into the store's backups/) while it is in use. Returns the path."""
        from mltrack.store import upkeep

        return upkeep.backup(self.database, self.root, target)

    def gc(self, *, dry: bool = False, journals: bool = False, trash_days: float | None = None) -> Freed:
        """Purge trash older than ``trash_days`` (30), seal ended journals, remove what nothing needs. ``dry`` only counts."""
        from mltrack.store import upkeep

        return upkeep.clean_up(self, dry, journals, upkeep.TRASH_DAYS if trash_days is None else trash_days)

    def gc_objects(self, dry: bool = False) -> Freed:
        """Remove what nothing needs from the object stores that artifacts go to. ``dry`` only counts."""
        from mltrack.store.object_gc import collect_objects

        return collect_objects(self, dry)

    def seal(self, older_than_seconds: float | None = None) -> Freed:
        """Compress the journals of runs that ended so long ago (an hour)."""
        from mltrack.store import upkeep

        older = upkeep.SEAL_SECONDS if older_than_seconds is None else older_than_seconds
        return upkeep.seal(self.database, self.root, older)

    # -- asking

    def identity(self, seconds: float = 0.0, again: bool = False) -> Identity:
        """Who asks, and what they may do here."""
        return Identity(host.user())

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
        """Ids of the runs that match, in order. ``after``: continue behind this run id. Raises FilterError.

        An ``experiment`` that ends in a slash means all experiments below it.
        """
        mask, unknown = self._matching(filter, experiment, lifecycle)
        return search.page(self.columns, mask, tuple(sort), limit, after, unknown)

    def search_places(
        self, filter: str = "", *, experiment: str | None = None, sort: Sequence[str] = ()
    ) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
        """As ``search``, for whoever goes on working with ``columns``: places in them instead of ids, and unknown keys."""
        mask, unknown = self._matching(filter, experiment, "active")
        found, more = search.places(self.columns, mask, tuple(sort))
        return found, tuple(dict.fromkeys((*(key.phrase for key in unknown), *more)))

    def _matching(
        self, filter: str, experiment: str | None, lifecycle: str
    ) -> tuple[npt.NDArray[np.bool_], Sequence[UnknownKey]]:
        expression = filter_parser.parse(filter)
        columns = self.columns
        columns.refresh()
        me = self.identity(1.0 if "mine" in filter else 0.0).name
        mask = search.evaluate(expression, columns, time.time_ns() // 1_000_000, me)
        if lifecycle != "all":
            mask = mask & columns.text("attribute", "lifecycle").equals(lifecycle)
        if experiment is not None:
            column = columns.text("attribute", "experiment")
            mask = mask & (
                column.begins_with(experiment) if experiment.endswith("/") else column.equals(experiment)
            )
        return mask, unknown_keys(expression, columns)

    def runs(
        self,
        run_ids: Sequence[str],
        metrics: Collection[str] | None = None,
        params: Collection[str] | None = None,
        folders: bool = True,
    ) -> list[Run]:
        """The runs with these ids, in this order; with ``metrics`` or ``params`` only those keys are read, and without
        ``folders`` their folders are not looked for."""
        now = time.time_ns() // 1_000_000
        return runs.read_runs(self.database, self.root, run_ids, now, metrics, params, folders)

    def change_counter(self) -> int:
        """Grows with every change of a run."""
        return int(self.database.setting("seq"))

    def changed_since(self, counter: int) -> list[str]:
        """Ids of the runs that changed after the counter had this value."""
        from mltrack.store import run_details

        return run_details.changed_since(self.database, counter)

    def metric_table(self, run_ids: Sequence[str]) -> MetricTable:
        """All metrics of a few runs, as arrays."""
        from mltrack.store.metric_table import read_metrics

        return read_metrics(self.database, run_ids)

    def count_metrics(self, run_ids: Sequence[str]) -> dict[str, int]:
        """For each metric key, how many of these runs have it."""
        return runs.count_metrics(self.database, run_ids)

    def shared_params(self, run_ids: Sequence[str]) -> tuple[dict[str, str], set[str]]:
        """The params that all of these runs have with one value, and the keys of all others that any has."""
        return runs.shared_params(self.database, run_ids)

    def pinned(self) -> list[str]:
        """Ids of the pinned runs."""
        return runs.pinned(self.database)

    def run(self, reference: str) -> Run:
        """The run a person means. Raises RunNotFound or AmbiguousRun."""
        return self.runs([self.resolve(reference)])[0]

    def resolve(self, reference: str) -> str:
        """The id of the run a person means: id, unique prefix, name, ``@last``, ``@running``."""
        return runs.resolve(self.database, reference)

    def points(self, run_id: str, key: str, rank: int = 0, superseded: bool = False) -> Points:
        """One series, exact."""
        self._sources.want(run_id, key, self.patience)
        return runs.read_series(self.database, run_id, key, rank, superseded)

    def loose_points(self, run_id: str) -> PointColumns:
        """The points of a run that have no outline yet."""
        return read_loose_points(self.database, runs.run_number(self.database, run_id))

    def outline(self, run_id: str, key: str, loose: PointColumns) -> Zoom | None:
        """The outline of a series with the run's ``loose_points``; None where there is none."""
        self._sources.want(run_id, key, self.patience)
        return runs.read_outline(self.database, run_id, key, loose)

    def outlined_points(self, run_id: str, key: str, low: float, high: float) -> tuple[Ints, Floats]:
        """Steps and values from ``low`` to ``high`` of a series that has an outline, and some others; unsorted."""
        return runs.read_outlined(self.database, run_id, key, low, high)

    def many_series(self, run_id: str, keys: Sequence[str]) -> dict[str, list[Points]]:
        """Series of one run by key, a list of ranks each, superseded points included; keys without points are left out."""
        from mltrack.store import run_details

        for key in keys:
            self._sources.want(run_id, key, self.patience)
        return run_details.read_many_series(self.database, run_id, keys)

    def details(self, run_id: str) -> RunDetails:
        """What only the page of one run shows."""
        from mltrack.store import run_details

        return run_details.read_details(self.database, run_id)

    def sequence(self, run_id: str) -> int:
        """The change counter of a run's last change."""
        from mltrack.store import run_details

        return run_details.run_sequence(self.database, run_id)

    def experiments(self) -> list[Experiment]:
        """All experiments, newest activity first."""
        return experiments.experiments(self.database)

    def count_experiments(self) -> int:
        """How many experiments have runs that are not in the trash."""
        return experiments.count_in_use(self.database)

    def keys(self, kind: str = "metric") -> list[str]:
        """All metric, param or tag keys."""
        if kind not in ("metric", "param", "tag"):
            raise BadInput(f"Keys are of a metric, param or tag, not of a '{kind}'.")
        return list(self.columns.keys(kind))  # type: ignore[arg-type]  # narrowed by the line above

    # -- files of runs on a server

    def files_at_server(self, run_id: str, seconds: float) -> RemoteFiles | None:
        """What the server lists of a run's files, waiting for it at most ``seconds``; None for runs that are on no server."""
        found = self._sources.at_server(run_id)
        return None if found is None or found[0].files is None else found[0].files.listing(found[1], seconds)

    def head_at_server(self, run_id: str, path: str, seconds: float) -> RemoteHead | None:
        """The beginning of a file on a server, waiting at most ``seconds``; None for runs that are on no server."""
        found = self._sources.at_server(run_id)
        return (
            None if found is None or found[0].files is None else found[0].files.head(found[1], path, seconds)
        )

    @cached_property
    def _far(self) -> CopyHeads:
        from mltrack.store.copies import CopyHeads

        return CopyHeads()

    def far(self, run_ids: Sequence[str]) -> list[Copy]:
        """The artifacts of these runs whose files are not here, but in an object store."""
        from mltrack.store.copies import away

        if not self.database.execute("SELECT 1 FROM artifact_copy LIMIT 1"):
            return []
        return [copy for run_id in run_ids for copy in away(self.database, self.root, run_id)]

    def head_far(self, run_id: str, path: str, seconds: float) -> CopyHead | None:
        """The beginning of an artifact in an object store, waiting at most ``seconds``; None when it has no copy there."""
        from mltrack.store.copies import copies

        found = next((copy for copy in copies(self.database, self.root, run_id) if copy.path == path), None)
        return None if found is None else self._far.head(found, seconds)

    def web_address(self, run_id: str, path: str = "") -> str:
        """Where a browser shows a run that is on a server, or one of its files; "" for all others."""
        found = self._sources.at_server(run_id)
        if found is None or not path:
            return "" if found is None else found[0].web_address(found[1])
        reader, place = found
        from mltrack.store.client.secrets import redact_url
        from mltrack.store.sources.mlflow_files import file_address

        return file_address(redact_url(reader.where).rstrip("/"), place, path)

    # -- deciding

    def decide(self, operations: Sequence[Mapping[str, Any]], sentence: str) -> Decision:
        """Apply operations as one undoable decision."""
        if self.database.readonly or self.followed is not None:
            raise ReadOnly(f"The store {self.location.root} is open read-only; nothing was changed.")
        from mltrack.store import decisions

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
            f"Tagged {self._named(run_ids)} {', '.join(f'{key}={value}' for key, value in checked.items())}",
        )

    def delete_tags(self, run_ids: Sequence[str], keys: Sequence[str]) -> Decision:
        """Remove tags of runs."""
        operations = [{"op": "tag", "run": run, "key": key, "value": None} for run in run_ids for key in keys]
        return self.decide(operations, f"Removed {', '.join(keys)} from {self._named(run_ids)}")

    def note(self, run_id: str, text: str, before: str | None = None) -> Decision:
        """Write the note of a run. Raises Conflict when it is not ``before`` any more: nobody's words are lost unseen."""
        with self._deciding():
            if before is not None and self.runs([run_id], (), (), folders=False)[0].note != before:
                raise Conflict("The note was changed by somebody else meanwhile.")
            return self._fields([run_id], "note", text, f"Noted on {self._named([run_id])}")

    def _deciding(self) -> AbstractContextManager[object]:
        """What is read within holds until the decision is made. Raises ReadOnly."""
        if self.database.readonly or self.followed is not None:
            raise ReadOnly(f"The store {self.location.root} is open read-only; nothing was changed.")
        return self.database.transaction()

    def rename(self, run_id: str, name: str) -> Decision:
        """Rename a run."""
        try:
            check_key(name)
        except Refused as error:
            raise BadInput(f"The name cannot be used: {error}.") from None
        return self._fields([run_id], "name", name, f"Renamed {self._named([run_id])} to {name}")

    def move(self, run_ids: Sequence[str], experiment: str) -> Decision:
        """Put runs into an experiment, made when it does not exist."""
        return self._fields(
            run_ids, "experiment", experiment, f"Moved {self._named(run_ids)} to {experiment}"
        )

    def pin(self, run_ids: Sequence[str], pinned: bool = True) -> Decision:
        """Keep runs at the top, or not."""
        return self._fields(
            run_ids,
            "pinned",
            "1" if pinned else None,
            f"{'Pinned' if pinned else 'Unpinned'} {self._named(run_ids)}",
        )

    def trash(self, run_ids: Sequence[str]) -> Decision:
        """Put runs into the trash; ``restore`` brings them back."""
        return self._fields(run_ids, "lifecycle", "trash", f"Moved {self._named(run_ids)} to the trash")

    def restore(self, run_ids: Sequence[str]) -> Decision:
        """Take runs out of the trash."""
        # What its own tool has deleted stays in the trash unless somebody decides otherwise.
        owned = {run.run_id for run in self.runs(run_ids) if run.source}
        operations = [
            {"op": "field", "run": run, "field": "lifecycle", "value": "active" if run in owned else None}
            for run in run_ids
        ]
        return self.decide(operations, f"Restored {self._named(run_ids)}")

    def purge(self, run_ids: Sequence[str]) -> Decision:
        """Remove runs and their files for good. Raises Conflict for runs whose artifacts are registered as models."""
        from mltrack.store import decisions, upkeep

        with self.database.transaction():
            held = upkeep.runs_of_models(self.database) & set(run_ids)
            if held:
                raise Conflict(
                    f"{self._named(sorted(held))} cannot be purged: a registered model version is made of it. Delete the version first."
                )
            decision = self.decide(
                [{"op": "purge", "run": run} for run in run_ids], f"Purged {self._named(run_ids)}"
            )
        for run_id in run_ids:
            shutil.rmtree(run_folder(self.root, run_id), ignore_errors=True)
        if self.database.setting(decisions.REMOVALS, "[]") != "[]":
            from mltrack.store.client.shipping import start_uploader

            start_uploader(self.address, lambda sentence: None)
        return decision

    def rename_experiment(self, name: str, to: str) -> Decision:
        """Rename an experiment."""
        operation = {"op": "rename_experiment", "name": name, "to": to}
        return self.decide([operation], f"Renamed the experiment {name} to {to}")

    def undo(self) -> Decision:
        """Take back this user's last decision."""
        from mltrack.store import decisions

        return decisions.undo(self.database, self.root)

    def redo(self) -> Decision:
        """Take back this user's last undo."""
        from mltrack.store import decisions

        return decisions.undo(self.database, self.root, redo=True)

    def _named(self, run_ids: Sequence[str]) -> str:
        return runs.in_words(self.database, run_ids)

    def _fields(self, run_ids: Sequence[str], name: str, value: str | None, sentence: str) -> Decision:
        edits = [{"op": "field", "run": run, "field": name, "value": value} for run in run_ids]
        return self.decide(edits, sentence)

"""The server's own journals: what clients log of a run, written as a training process would write it.

A request is answered after its ``write(2)``, so that killing the server loses nothing that was acknowledged. Reads fold
what the run's journals have first: a read after a write sees it.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mltrack.store.client.journal import Journal, points_line, run_folder
from mltrack.store.database import file_lock
from mltrack.store.errors import MltrackError
from mltrack.store.journal_reader import JournalProblem, read_header
from mltrack.store.mlflow_api.wire import ApiError
from mltrack.store.store import Store

# All that a client logs of a run is one attempt: it says itself which of two values of one step is later.
ATTEMPT = "0000000000000-rest00"
ROLE = "server"
# Open files of runs that are being written to; the least recent gives way.
OPEN_RUNS = 200
BEAT_SECONDS = 10.0
# How often runs are taken in that nobody asks for, how many of them at once, and how long a database that is away is left alone.
LOOK_SECONDS, LOOK_RUNS, AWAY_SECONDS = 2.0, 100, 15.0


@dataclass
class RunWriter:
    """The journal of one run, and what must be known of the run to answer without reading."""

    journal: Journal
    params: dict[str, str]
    decided_tags: frozenset[str]
    version: int
    beaten: float = field(default_factory=time.monotonic)


class Writers:
    """All open journals of a server."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._open: OrderedDict[str, RunWriter] = OrderedDict()
        self._unread: set[str] = set()
        self._next_look = 0.0

    def forget_the_dead(self) -> None:
        """Fold what an earlier server left, and take away its markers: nobody will write to those journals again."""
        root = self._store.root
        with file_lock(root, "server", wait=False) as alone:
            if not alone:
                return
            self._store.refresh(None)
            try:
                entries = list(os.scandir(root / "open"))
            except FileNotFoundError:
                return
            for entry in entries:
                jid, _, run_id = entry.name.partition(".")
                if len(run_id) != 32:
                    continue
                try:
                    name = read_header(run_folder(root, run_id) / f"meta.{jid}.jsonl")
                    if name is not None and name.role == ROLE:
                        os.unlink(entry.path)
                except (JournalProblem, OSError):
                    continue

    def of(self, run_id: str, version: int) -> RunWriter:
        """The writer of an existing run. ``version`` changes when another process changed the database."""
        writer = self._open.get(run_id)
        if writer is None:
            self.fold(run_id)
            params = self._store.database.execute(
                "SELECT p.key, p.value FROM param p JOIN run r ON r.id = p.run WHERE r.run_id = ?", (run_id,)
            )
            known = {str(key): str(value) for key, value in params}
            writer = RunWriter(self._journal(run_id), known, self._decided(run_id), version)
            self._keep(run_id, writer)
        else:
            self._open.move_to_end(run_id)
            if writer.version != version:
                writer.decided_tags, writer.version = self._decided(run_id), version
        return writer

    def new(self, run_id: str, version: int) -> RunWriter:
        """The writer of a run that is being created."""
        writer = RunWriter(self._journal(run_id), {}, frozenset(), version)
        self._keep(run_id, writer)
        return writer

    def _keep(self, run_id: str, writer: RunWriter) -> None:
        self._open[run_id] = writer
        while len(self._open) > OPEN_RUNS:
            _, oldest = self._open.popitem(last=False)
            _close(oldest.journal)

    def _decided(self, run_id: str) -> frozenset[str]:
        """Tags that a person decided about."""
        rows = self._store.database.execute(
            "SELECT t.key FROM tag t JOIN run r ON r.id = t.run WHERE r.run_id = ? AND t.edited = 1",
            (run_id,),
        )
        return frozenset(str(key) for (key,) in rows)

    def _journal(self, run_id: str) -> Journal:
        # Without an identity: the server's process proves nothing about the client's.
        return Journal(self._store.root, run_id, ATTEMPT, role=ROLE)

    def meta(self, writer: RunWriter, op: str, **fields: Any) -> None:
        """Write a meta record."""
        writer.journal.meta(op, **fields)
        self._written(writer)

    def points(self, writer: RunWriter, points: Iterable[tuple[str, float, int, int]]) -> None:
        """Write (key, value, step, time_ms), points of equal step and time on one line."""
        lines: dict[tuple[int, int], dict[str, float]] = {}
        alone: list[bytes] = []
        for key, value, step, time_ms in points:
            line = lines.setdefault((step, time_ms), {})
            if key in line:
                alone.append(points_line(step, time_ms, {key: value}))
            else:
                line[key] = value
        data = b"".join(
            [points_line(step, time_ms, values) for (step, time_ms), values in lines.items()] + alone
        )
        if data:
            writer.journal.points().append(data)
            self._written(writer)

    def _written(self, writer: RunWriter) -> None:
        journal = writer.journal
        self._unread.add(journal.run_id)
        for file in (journal.meta_file, journal.points_file):
            if file is not None and file.backlog:
                raise ApiError(
                    "TEMPORARILY_UNAVAILABLE",
                    f"The journal below {journal.folder.name} cannot be written now; try again.",
                )
        if time.monotonic() - writer.beaten > BEAT_SECONDS:
            journal.beat()
            writer.beaten = time.monotonic()

    def set_tags(self, writer: RunWriter, tags: Mapping[str, str]) -> None:
        """Set tags; those that a person decided about stay theirs, so these are decided too."""
        logged = {key: value for key, value in tags.items() if key not in writer.decided_tags}
        decided = {key: value for key, value in tags.items() if key in writer.decided_tags}
        if logged:
            self.meta(writer, "tags", v=logged)
        if decided:
            self._store.set_tags([writer.journal.run_id], decided)

    def received(self, run_id: str) -> None:
        """Bytes of a run's journals came from elsewhere."""
        self._unread.add(run_id)

    def fold(self, run_id: str) -> None:
        """Take in what was written of a run."""
        if run_id in self._unread:
            self._store.fold_folder(run_folder(self._store.root, run_id))
            self._unread.discard(run_id)

    def fold_all(self, most: int | None = None) -> None:
        """Take in what was written of all runs, or of some."""
        run_ids = list(self._unread)[:most]
        if run_ids:
            self._store.fold_folder(*(run_folder(self._store.root, run_id) for run_id in run_ids))
            self._unread.difference_update(run_ids)

    def look(self) -> None:
        """Take in a part of what nobody asked for, every other second, for those who open a PostgreSQL store directly: they
        cannot see the journals here. Waits longer for a database that is away."""
        now = time.monotonic()
        if now < self._next_look or not self._unread or self._store.database.kind != "postgresql":
            return
        self._next_look = now + LOOK_SECONDS
        try:
            self.fold_all(LOOK_RUNS)
        except MltrackError:
            self._next_look = time.monotonic() + AWAY_SECONDS  # who asks meanwhile is told; the journals wait

    def end(self, run_id: str) -> None:
        """Close a run's journal; what follows after all gets another one."""
        writer = self._open.pop(run_id, None)
        if writer is not None:
            _close(writer.journal)

    def close(self) -> None:
        """End all journals properly."""
        for run_id in list(self._open):
            self.end(run_id)
        self.fold_all()


def _close(journal: Journal) -> None:
    """Say that nothing follows, so that the marker can go."""
    if journal.meta_file is None and journal.points_file is None:
        return
    journal.meta("close", points=journal.points_file.size if journal.points_file else 0)
    journal.close()

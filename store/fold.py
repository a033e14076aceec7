"""Journals -> tables, exactly once: the position moves in the transaction that stores what was read.

One process folds a store at a time (a lock says who); everybody else reads what it committed. What is folded twice gives
the same rows, so a copied, moved or rewritten journal does no harm.
"""

from __future__ import annotations

import os
import time
from collections import deque
from dataclasses import dataclass, field, replace
from pathlib import Path

from mltrack.store.blocks import merge_blocks
from mltrack.store.client.journal import run_folder
from mltrack.store.database import Database, file_lock, lock_folder
from mltrack.store.errors import BadInput
from mltrack.store.experiments import ExperimentNames
from mltrack.store.fold_commit import COMMIT_JOURNALS, COMMIT_SECONDS, Journal, commit
from mltrack.store.fold_folders import Folders
from mltrack.store.fold_meta import ensure_run
from mltrack.store.fold_points import KeyIds
from mltrack.store.journal_reader import (
    SLICE_BYTES,
    JournalName,
    JournalProblem,
    Slice,
    file_kind,
    read_header,
    read_slice,
)
from mltrack.store.liveness import Here
from mltrack.store.records import FoldReport
from mltrack.store.run_state import rows_to_settle, settle_run
from mltrack.store.sharing import known_owner
from mltrack.store.upkeep import RESTORED, unsealed

# How often a run with nothing new is looked at for signs that its process is gone.
EVIDENCE_SECONDS = 5.0
# What folding one journal may run into because of what is in it; it must not keep its neighbours from being folded.
_BAD_CONTENT = (ValueError, TypeError, KeyError, OverflowError, BadInput)


@dataclass
class _Due:
    """A run to be looked at, with its journals, and when each of their writers was last heard (ms, by jid)."""

    folder: Path
    journals: list[Journal]
    beats: dict[str, int] = field(default_factory=dict)

    @property
    def run_id(self) -> str:
        return self.journals[0].name.run_id


@dataclass
class _Count:
    records: int = 0
    points: int = 0
    skipped: int = 0
    pending: int = 0
    damaged: list[str] = field(default_factory=list)


class Fold:
    """Folds the journals below ``root`` (a store, or a spool of one) into ``database``."""

    def __init__(self, database: Database, root: Path, own: Path | None = None) -> None:
        """``own``: a folder of ours for the lock and temporary files, when ``root`` is only followed."""
        self._database = database
        self._root = root
        self._own = own if own is not None else root
        self._keys = KeyIds(database)
        self._headers: dict[Path, JournalName] = {}
        self._folders = Folders(database, root)
        self._temporary: list[Path] = []
        self._settled: dict[Path, float] = {}

    def refresh(self, seconds: float | None = None, everything: bool = False) -> FoldReport:
        """Fold what is new: live runs' meta first, then points, for at most ``seconds``. ``everything`` walks all run folders."""
        if self._database.readonly:
            return FoldReport(folded_by_other=True)
        with file_lock(self._own, "fold", wait=False) as mine:
            if not mine:
                return FoldReport(folded_by_other=True)
            if everything:
                return self._fold(self._folders.every(), seconds)
            if self._database.setting(RESTORED):
                report = self._fold(self._folders.every(), seconds)
                if not report.pending_bytes:
                    with self._database.transaction():
                        self._database.execute("DELETE FROM setting WHERE key = ?", (RESTORED,))
                return report
            folders = self._folders.open()
            copied = self._folders.copied_in({folder.name for folder in folders})
            report = self._fold(folders + copied, seconds)
            self._folders.drop_copied(self._read_to_its_end)
            return report

    def folders(self, folders: list[Path]) -> FoldReport:
        """Fold run folders wherever they lie."""
        with file_lock(self._own, "fold"):
            return self._fold(folders, None)

    # -- folding

    def _fold(self, folders: list[Path], seconds: float | None) -> FoldReport:
        count = _Count()
        here = Here(self._root)
        by_run = list(zip(folders, self._journals(folders, count), strict=True))
        # Looking at very many may take longer than that; a little is folded all the same.
        deadline = None if seconds is None else time.monotonic() + seconds
        first: deque[Journal] = deque()
        later: deque[Journal] = deque()
        for _, journals in by_run:
            # What tables, filters and sorting need, and points where they are few; then the many.
            few = sum(journal.unread for journal in journals) <= SLICE_BYTES
            for journal in journals:
                (first if few or journal.name.kind == "meta" else later).append(journal)
        self._fold_journals(first, count, deadline)
        self._fold_journals(later, count, deadline)
        self._settle(self._due(by_run), here)
        self._drop_stray_markers(here)
        while self._temporary:
            self._temporary.pop().unlink(missing_ok=True)
        report = FoldReport(count.records, count.points, count.skipped, count.pending, tuple(count.damaged))
        return replace(report, pending_bytes=max(0, count.pending))

    def _journals(self, folders: list[Path], count: _Count) -> list[list[Journal]]:
        """The journals of each folder with something new or something to settle, meta before points."""
        found = [self._named(folder, count) for folder in folders]
        names = [name for files in found for _, name in files]
        known = {
            (str(jid), str(kind)): (int(position), str(tail))
            for jid, kind, position, tail in self._database.select_in(
                "SELECT jid, kind, position, check_tail FROM journal WHERE jid IN",
                {name.jid for name in names},
            )
        }
        gone = {
            str(run_id)
            for (run_id,) in self._database.select_in(
                "SELECT run_id FROM tombstone WHERE run_id IN", {name.run_id for name in names}
            )
        }
        journals = [
            [
                Journal(path, name, *known.get((name.jid, name.kind), (0, "")))
                for path, name in files
                if name.run_id not in gone
            ]
            for files in found
        ]
        for of_folder in journals:
            for journal in of_folder:
                try:
                    journal.unread = max(0, os.stat(journal.path).st_size - journal.position)
                except OSError:
                    continue
                count.pending += journal.unread
        return journals

    def _named(self, folder: Path, count: _Count) -> list[tuple[Path, JournalName]]:
        """The journal files of a folder, and what their first lines say."""
        found: list[tuple[Path, JournalName]] = []
        try:
            names = sorted(entry.name for entry in os.scandir(folder))
        except OSError:
            return found
        for file_name in names:
            file = path = folder / file_name
            if file_name.endswith(".jsonl.zst"):
                try:
                    unpacked = self._unsealed(path)
                except OSError as error:
                    reason = f"{file_name} cannot be unpacked ({error.strerror or error})"
                    count.damaged.append(f"{folder.name}: {reason}")
                    self._mark_damaged(folder.name, reason)
                    continue
                if unpacked is None:
                    continue
                path = unpacked
            elif file_kind(file_name) is None:
                continue
            try:
                name = self._headers.get(path) or self._header(path, file)
            except JournalProblem as problem:
                count.damaged.append(f"{folder.name}: {problem}")
                self._mark_damaged(folder.name, str(problem))
                continue
            if name is not None:
                self._headers[path] = name
                found.append((path, name))
        return found

    def _read_to_its_end(self, folder: Path) -> bool:
        (journals,) = self._journals([folder], _Count())
        try:
            return all(
                read_slice(journal.path, journal.position, journal.tail) is None for journal in journals
            )
        except OSError:
            return True  # looking again does not make it readable

    def _header(self, path: Path, file: Path) -> JournalName | None:
        """Line 1 of a journal, and whose it is in a shared store; ``file`` is what lies in the run's folder."""
        name = read_header(path)
        return name if name is None else replace(name, owner=known_owner(file, self._root))

    def _unsealed(self, path: Path) -> Path | None:
        """A plain copy of a sealed journal the database does not know (it is being rebuilt); None when it knows it."""
        named = file_kind(path.name.removesuffix(".zst"))
        if named is None:
            return None
        if self._database.execute(
            "SELECT 1 FROM journal WHERE jid = ? AND kind = ? AND position > 0", (named[1], named[0])
        ):
            return None
        plain = unsealed(path, lock_folder(self._own))
        self._temporary.append(plain)
        return plain

    def _fold_journals(self, waiting: deque[Journal], count: _Count, deadline: float | None) -> None:
        """Fold journals in their order, as many in one transaction as its time allows: a transaction costs more than a run."""
        while waiting and (deadline is None or time.monotonic() < deadline):
            group: list[tuple[Journal, Slice]] = []
            size = 0
            while waiting and size < SLICE_BYTES and len(group) < COMMIT_JOURNALS:
                journal = waiting.popleft()
                piece = self._first_slice(journal, count)
                if piece is not None:
                    group.append((journal, piece))
                    size += piece.end - piece.start
            if group:
                waiting.extendleft(reversed(self._fold_group(group, count)))

    def _first_slice(self, journal: Journal, count: _Count) -> Slice | None:
        """What is new in a journal, as far as one slice goes."""
        try:
            piece = read_slice(journal.path, journal.position, journal.tail)
            if (
                piece is None
                or not piece.restarted
                or self._header(journal.path, journal.path) == journal.name
            ):
                return piece
        except OSError as error:
            count.damaged.append(f"{journal.path}: cannot be read ({error.strerror})")
            return None
        except JournalProblem:
            pass
        self._headers.pop(journal.path, None)  # another journal lies there now: the next refresh looks at it
        return None

    def _fold_group(self, group: list[tuple[Journal, Slice]], count: _Count) -> list[Journal]:
        """Fold journals in one transaction. Returns those of which there is more, in their order."""
        try:
            found = commit(self._database, self._keys, group)
        except _BAD_CONTENT as error:
            self._keys.forget()
            if len(group) > 1:
                # What is in one must not keep its neighbours from being folded: each in a transaction of its own.
                return [left for each in group for left in self._fold_group([each], count)]
            journal = group[0][0]
            reason = f"{journal.path.name} cannot be folded ({type(error).__name__}: {error})"
            count.damaged.append(f"{journal.path.parent.name}: {reason}")
            self._mark_damaged(journal.name.run_id, reason)
            return []
        except BaseException:
            self._keys.forget()
            raise
        # Only what is committed has been read.
        for read in found:
            count.pending -= read.position - read.journal.position
            count.records += read.records
            count.points += read.points
            count.skipped += read.skipped
            read.journal.position, read.journal.tail, read.journal.changed = read.position, read.tail, True
        left = [read.journal for read in found if read.more]
        return left + [journal for journal, _ in group[len(found) :]]

    def _mark_damaged(self, run_id: str, reason: str) -> None:
        if len(run_id) != 32:
            return
        with self._database.transaction():
            rows = self._database.execute("SELECT id, damage FROM run WHERE run_id = ?", (run_id,))
            if rows and rows[0][1] == reason:
                return
            run = (
                int(rows[0][0])
                if rows
                else ensure_run(
                    self._database,
                    JournalName("", "meta", run_id, "", 0, "main", {"time": self._changed_ms(run_id)}),
                )
            )
            self._database.execute("UPDATE run SET damage = ? WHERE id = ?", (reason, run))
            if not rows:
                self._database.execute(
                    "UPDATE run SET status = 'FAILED', reason = 'damaged' WHERE id = ?", (run,)
                )
            settle_run(self._database, run, keep_status=not rows)

    def _changed_ms(self, run_id: str) -> int:
        """When a run was last written to, for one whose own times cannot be read."""
        try:
            folder = run_folder(self._root, run_id)
            return max(path.lstat().st_mtime_ns for path in folder.iterdir()) // 1_000_000
        except (OSError, ValueError):
            return time.time_ns() // 1_000_000

    # -- what follows from having read everything

    def _due(self, by_run: list[tuple[Path, list[Journal]]]) -> list[_Due]:
        """Runs that changed, and those to be looked at for signs of death: often enough to prove it within seconds, not with
        every glance."""
        now = time.monotonic()
        return [
            _Due(folder, journals)
            for folder, journals in by_run
            if journals
            and (
                any(journal.changed for journal in journals)
                or now - self._settled.get(folder, -EVIDENCE_SECONDS) >= EVIDENCE_SECONDS
            )
        ]

    def _settle(self, due: list[_Due], here: Here) -> None:
        """Status from evidence, merged blocks for ended runs, and markers of finished journals removed."""
        database = self._database
        while due:
            group = due[:COMMIT_JOURNALS]
            for each in group:
                each.beats = self._beats(each)
            began = time.monotonic()
            settled: list[_Due] = []
            with database.transaction():
                rows = database.select_in(
                    "SELECT run_id, id, EXISTS (SELECT 1 FROM block WHERE run = run.id AND kind = 0) FROM run"
                    " WHERE run_id IN",
                    {each.run_id for each in group},
                )
                known = {str(run_id): (int(run), bool(batches)) for run_id, run, batches in rows}
                settling = rows_to_settle(database, [run for run, _ in known.values()])
                names = ExperimentNames(database)
                for each in group:
                    if settled and time.monotonic() - began > COMMIT_SECONDS:
                        break
                    settled.append(each)
                    if each.run_id not in known:
                        continue
                    run, has_batches = known[each.run_id]
                    row = settling.pop(run, None)
                    before = None if row is None else row[1]
                    status = settle_run(database, run, here, each.beats, each.folder, row=row, names=names)
                    if status != "RUNNING" and (before == "RUNNING" or has_batches):
                        merge_blocks(database, run, last=True)
            rows = database.select_in(
                "SELECT jid FROM journal WHERE kind = 'meta' AND closed IS NOT NULL AND jid IN",
                {jid for each in settled if each.run_id in known for jid in each.beats},
            )
            closed = {str(jid) for (jid,) in rows}
            for each in settled:
                self._settled[each.folder] = time.monotonic()
                if each.run_id in known:
                    self._drop_markers(each, here, closed)
            due = due[len(settled) :]

    def _beats(self, due: _Due) -> dict[str, int]:
        """When each writer of a run was last heard, in ms, by the mtime of its marker."""
        beats: dict[str, int] = {}
        for journal in due.journals:
            marker = self._root / "open" / f"{journal.name.jid}.{due.run_id}"
            try:
                beats[journal.name.jid] = os.stat(marker).st_mtime_ns // 1_000_000
            except OSError:
                continue
        return beats

    def _drop_markers(self, due: _Due, here: Here, closed: set[str]) -> None:
        """Take away the markers of writers from which nothing more will come, and all of which is folded."""
        for jid, beat_ms in due.beats.items():
            journals = [journal for journal in due.journals if journal.name.jid == jid]
            if jid not in closed:
                evidence = here.judge(journals[0].name.header, beat_ms)
                # Silence alone removes nothing: the writer may come back and its journal must still be found.
                if not evidence.lost or evidence.quiet:
                    continue
            if _all_read(due.folder, jid, journals):
                try:
                    os.unlink(self._root / "open" / f"{jid}.{due.run_id}")
                except OSError:
                    continue

    def _drop_stray_markers(self, here: Here) -> None:
        """Markers whose writer died before its first record: no journal will ever come."""
        try:
            entries = list(os.scandir(self._root / "open"))
        except OSError:
            return
        for entry in entries:
            jid, _, run_id = entry.name.partition(".")
            if len(jid) != 16 or len(run_id) != 32:
                continue
            folder = run_folder(self._root, run_id)
            if any((folder / f"{kind}.{jid}.jsonl").exists() for kind in ("meta", "points")):
                continue
            try:
                if here.now_ms - entry.stat().st_mtime_ns // 1_000_000 > 3_600_000:
                    os.unlink(entry.path)
            except OSError:
                continue


def _all_read(folder: Path, jid: str, journals: list[Journal]) -> bool:
    """Whether all that lies there of a writer is folded. Only now, when nothing can be written any more, is that all there
    is: the points file may even have been made after the folder was listed."""
    read = {journal.name.kind: journal for journal in journals}
    for kind in ("meta", "points"):
        path = folder / f"{kind}.{jid}.jsonl"
        if not path.exists():
            continue
        journal = read.get(kind)
        if journal is None:
            return False
        try:
            if path.stat().st_size > journal.position and read_slice(path, journal.position, journal.tail):
                return False
        except OSError:
            continue
    return True

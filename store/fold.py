"""Journals -> tables, exactly once: the position moves in the transaction that stores what was read.

One process folds a store at a time (a lock says who); everybody else reads what it committed. What is folded twice gives
the same rows, so a copied, moved or rewritten journal does no harm.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import orjson

from mltrack.store.blocks import merge_blocks
from mltrack.store.client.journal import run_folder
from mltrack.store.database import Database, file_lock, lock_folder
from mltrack.store.errors import BadInput
from mltrack.store.fold_meta import ensure_run, experiment_name, fold_meta, load_state
from mltrack.store.fold_points import KeyIds, attempt_no, fold_points, parse_points, to_columns
from mltrack.store.journal_reader import JournalName, JournalProblem, file_kind, read_header, read_slice
from mltrack.store.liveness import Here
from mltrack.store.records import FoldReport
from mltrack.store.run_state import settle_run
from mltrack.store.sharing import known_owner
from mltrack.store.upkeep import RESTORED, unsealed

# Work per commit: readers and other writers wait no longer than this for the lock.
COMMIT_SECONDS = 0.05
# How often a run with nothing new is looked at for signs that its process is gone.
EVIDENCE_SECONDS = 5.0

# Files of a copied-in run that changed this recently may still be growing.
COPY_SECONDS = 60.0
# Coarser than any filesystem's clock.
SHARD_NANOSECONDS = 3_000_000_000
# What folding one journal may run into because of what is in it; it must not keep its neighbours from being folded.
_BAD_CONTENT = (ValueError, TypeError, KeyError, OverflowError, BadInput)


@dataclass
class _Journal:
    """One journal file that may have something new."""

    path: Path
    name: JournalName
    position: int
    tail: str
    changed: bool = False


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
        self._shards: dict[str, int] = {}
        self._copied: set[str] | None = None
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
                return self._fold(self._all_folders(), seconds)
            if self._database.setting(RESTORED):
                report = self._fold(self._all_folders(), seconds)
                if not report.pending_bytes:
                    with self._database.transaction():
                        self._database.execute("DELETE FROM setting WHERE key = ?", (RESTORED,))
                return report
            folders = self._open_folders()
            copied = self._copied_in({folder.name for folder in folders})
            report = self._fold(folders + copied, seconds)
            self._drop_copied()
            return report

    def folder(self, folder: Path) -> FoldReport:
        """Fold one run folder wherever it lies."""
        with file_lock(self._own, "fold"):
            return self._fold([folder], None)

    # -- which folders

    def _open_folders(self) -> list[Path]:
        """Folders of runs with a marker, most recently heard first, and of runs that nothing has ended yet: their marker
        may have been taken away by another reader with a database of its own, or by hand."""
        heard: dict[str, int] = {}
        try:
            with os.scandir(self._root / "open") as entries:
                for entry in entries:
                    jid, _, run_id = entry.name.partition(".")
                    if len(jid) == 16 and len(run_id) == 32:
                        try:
                            heard[run_id] = max(heard.get(run_id, 0), entry.stat().st_mtime_ns)
                        except FileNotFoundError:
                            continue
        except FileNotFoundError:
            pass
        folders = [
            run_folder(self._root, run_id) for run_id in sorted(heard, key=lambda run_id: -heard[run_id])
        ]
        running = self._database.execute("SELECT run_id FROM run WHERE status = 'RUNNING' AND source = ''")
        return folders + [run_folder(self._root, str(run_id)) for (run_id,) in running if run_id not in heard]

    def _copied_in(self, open_ones: set[str]) -> list[Path]:
        """Run folders without a marker that no row knows: somebody copied them here. Looks only into changed shards.

        They are remembered in the database until all of them is read and nothing changes any more: this process may die
        in between, and the copy may only have begun.
        """
        try:
            shards = [
                (entry.name, entry.stat().st_mtime_ns)
                for entry in os.scandir(self._root / "runs")
                if entry.is_dir()
            ]
        except FileNotFoundError:
            return []
        if self._copied is None:
            self._shards = dict(orjson.loads(self._database.setting("shards", "{}")))
            self._copied = set(orjson.loads(self._database.setting("copied", "[]")))
        before = len(self._copied), len(self._shards)
        changed = [(name, mtime) for name, mtime in shards if self._shards.get(name) != mtime]
        for name, mtime in changed:
            ids = [entry.name for entry in os.scandir(self._root / "runs" / name) if len(entry.name) == 32]
            rows = self._database.execute(
                "SELECT run_id FROM run WHERE run_id >= ? AND run_id < ? UNION SELECT run_id FROM tombstone",
                (name, name + "g"),
            )
            have = {str(row[0]) for row in rows} | open_ones
            self._copied.update(run_id for run_id in ids if run_id not in have)
            # A folder made within the same tick as the last one leaves the same mtime, so that must be past.
            settled = time.time_ns() - mtime > SHARD_NANOSECONDS
            self._shards[name] = mtime if settled else 0
        if changed or before != (len(self._copied), len(self._shards)):
            self._save_copied()
        return [run_folder(self._root, run_id) for run_id in sorted(self._copied - open_ones)]

    def _save_copied(self) -> None:
        with self._database.transaction():
            self._database.set_setting("shards", orjson.dumps(self._shards).decode())
            self._database.set_setting("copied", orjson.dumps(sorted(self._copied or ())).decode())

    def _drop_copied(self) -> None:
        """Copied-in runs that are read to their end and have not changed for a while need no looking at any more."""
        done = {run_id for run_id in self._copied or () if self._copy_ended(run_folder(self._root, run_id))}
        if done and self._copied is not None:
            self._copied -= done
            self._save_copied()

    def _copy_ended(self, folder: Path) -> bool:
        try:
            files = [path for path in folder.iterdir() if path.name.endswith((".jsonl", ".zst"))]
            # Copying keeps mtimes, but never ctimes.
            newest = max(path.stat().st_ctime for path in (folder, *files))
        except FileNotFoundError:
            return not folder.exists()
        except OSError:
            return True
        if time.time() - newest < COPY_SECONDS or not files:
            return False
        return all(
            read_slice(journal.path, journal.position, journal.tail) is None
            for journal in self._journals(folder, _Count())
        )

    def _all_folders(self) -> list[Path]:
        folders: list[Path] = []
        try:
            for shard in sorted(os.scandir(self._root / "runs"), key=lambda entry: entry.name):
                if shard.is_dir():
                    folders += [Path(entry.path) for entry in os.scandir(shard.path) if entry.is_dir()]
        except FileNotFoundError:
            pass
        return folders

    # -- folding

    def _fold(self, folders: list[Path], seconds: float | None) -> FoldReport:
        deadline = None if seconds is None else time.monotonic() + seconds
        count = _Count()
        here = Here(self._root)
        by_run: list[tuple[Path, list[_Journal]]] = [
            (folder, self._journals(folder, count)) for folder in folders
        ]
        for kind in ("meta", "points"):
            for _, journals in by_run:
                self._fold_kind(
                    [journal for journal in journals if journal.name.kind == kind], count, deadline
                )
        for folder, journals in by_run:
            # Evidence of death is looked for often enough to prove it within seconds, not with every glance.
            due = time.monotonic() - self._settled.get(folder, -EVIDENCE_SECONDS) >= EVIDENCE_SECONDS
            if journals and (due or any(journal.changed for journal in journals)):
                self._settle(folder, journals, here)
                self._settled[folder] = time.monotonic()
        self._drop_stray_markers(here)
        while self._temporary:
            self._temporary.pop().unlink(missing_ok=True)
        report = FoldReport(count.records, count.points, count.skipped, count.pending, tuple(count.damaged))
        return replace(report, pending_bytes=max(0, count.pending))

    def _journals(self, folder: Path, count: _Count) -> list[_Journal]:
        """The journals of a folder with something new or something to settle."""
        found: list[_Journal] = []
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
            if name is None:
                continue
            self._headers[path] = name
            if self._database.execute("SELECT 1 FROM tombstone WHERE run_id = ?", (name.run_id,)):
                continue
            rows = self._database.execute(
                "SELECT position, check_tail FROM journal WHERE jid = ? AND kind = ?", (name.jid, name.kind)
            )
            position, tail = (int(rows[0][0]), str(rows[0][1])) if rows else (0, "")
            found.append(_Journal(path, name, position, tail))
            try:
                count.pending += max(0, os.stat(path).st_size - position)
            except OSError:
                continue
        return found

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

    def _fold_kind(self, journals: list[_Journal], count: _Count, deadline: float | None) -> None:
        for journal in journals:
            while deadline is None or time.monotonic() < deadline:
                try:
                    if not self._commit(journal, count):
                        break
                except OSError as error:
                    count.damaged.append(f"{journal.path}: cannot be read ({error.strerror})")
                    break
                except _BAD_CONTENT as error:
                    self._keys.forget()
                    reason = f"{journal.path.name} cannot be folded ({type(error).__name__}: {error})"
                    count.damaged.append(f"{journal.path.parent.name}: {reason}")
                    self._mark_damaged(journal.name.run_id, reason)
                    break
                except BaseException:
                    self._keys.forget()
                    raise

    def _commit(self, journal: _Journal, count: _Count) -> bool:
        """Fold slices of one journal for one commit. Returns whether something was read."""
        first = read_slice(journal.path, journal.position, journal.tail)
        if first is None:
            return False
        database, name = self._database, journal.name
        if first.restarted and self._header(journal.path, journal.path) != name:
            self._headers.pop(
                journal.path, None
            )  # another journal lies there now: the next refresh looks at it
            return False
        began = time.monotonic()
        records = points = skipped = 0
        with database.transaction():
            run = ensure_run(database, name, experiment_name(first.lines) if name.kind == "meta" else "")
            position, tail, piece = journal.position, journal.tail, first
            if first.restarted:  # all of it is read again: what it skipped is counted again
                database.execute(
                    "UPDATE run SET skipped = skipped - (SELECT skipped FROM journal WHERE jid = ? AND kind = ?) WHERE id = ?",
                    (name.jid, name.kind, run),
                )
                database.execute(
                    "UPDATE journal SET skipped = 0 WHERE jid = ? AND kind = ?", (name.jid, name.kind)
                )
            while True:
                if name.kind == "meta":
                    state = load_state(database, run)
                    records += fold_meta(database, state, name, piece.lines, piece.offsets)
                    skipped += state.skipped
                    if state.changed:
                        database.execute(
                            "UPDATE run SET state = ?, facts = ? WHERE id = ?",
                            (orjson.dumps(state.values).decode(), orjson.dumps(state.facts).decode(), run),
                        )
                else:
                    lines = piece.lines[1:] if piece.start == 0 else piece.lines
                    parsed, bad = parse_points(lines) if lines else ([], 0)
                    skipped += bad
                    records += len(parsed)
                    if parsed:
                        attempt = attempt_no(database, run, name.attempt)
                        points += fold_points(
                            database, run, to_columns(parsed, name.rank, attempt, self._keys)
                        )
                position, tail = piece.end, piece.tail
                if time.monotonic() - began > COMMIT_SECONDS:
                    break
                following = read_slice(journal.path, position, tail)
                if following is None or following.restarted:
                    break
                piece = following
            database.execute(
                "INSERT INTO journal (jid, kind, run, position, check_tail, skipped) VALUES (?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (jid, kind) DO UPDATE SET position = excluded.position, check_tail = excluded.check_tail,"
                " skipped = journal.skipped + excluded.skipped",
                (name.jid, name.kind, run, position, tail, skipped),
            )
            if name.kind == "meta":
                self._apply_close(name, piece.lines)
            if skipped:
                database.execute("UPDATE run SET skipped = skipped + ? WHERE id = ?", (skipped, run))
            settle_run(database, run, touch=True)
        count.pending -= position - journal.position
        journal.position, journal.tail, journal.changed = position, tail, True
        count.records += records
        count.points += points
        count.skipped += skipped
        return True

    def _apply_close(self, name: JournalName, lines: list[bytes]) -> None:
        """The writer's last record, when it is among the lines just read (its row may not have existed before)."""
        if b'"op":"close"' not in lines[-1]:
            return
        try:
            points = orjson.loads(lines[-1])["points"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return  # counted as skipped when it was folded
        if type(points) is int and 0 <= points < 1 << 63:
            self._database.execute(
                "UPDATE journal SET closed = ? WHERE jid = ? AND kind = 'meta'", (points, name.jid)
            )

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

    def _settle(self, folder: Path, journals: list[_Journal], here: Here) -> None:
        """Status from evidence, merged blocks for ended runs, and markers of finished journals removed."""
        run_id = journals[0].name.run_id
        rows = self._database.execute("SELECT id FROM run WHERE run_id = ?", (run_id,))
        if not rows:
            return
        run = int(rows[0][0])
        markers: dict[str, int] = {}
        for journal in journals:
            marker = self._root / "open" / f"{journal.name.jid}.{run_id}"
            try:
                markers[journal.name.jid] = os.stat(marker).st_mtime_ns // 1_000_000
            except OSError:
                continue
        with self._database.transaction():
            before = self._database.execute("SELECT status FROM run WHERE id = ?", (run,))[0][0]
            status = settle_run(self._database, run, here=here, beats=markers, folder=folder)
            if status != "RUNNING" and (before == "RUNNING" or self._has_batches(run)):
                merge_blocks(self._database, run, last=True)
        for jid in markers:
            of_jid = [journal for journal in journals if journal.name.jid == jid]
            if self._finished(folder, jid, of_jid, here, markers[jid]):
                try:
                    os.unlink(self._root / "open" / f"{jid}.{run_id}")
                except OSError:
                    continue

    def _has_batches(self, run: int) -> bool:
        return bool(self._database.execute("SELECT 1 FROM block WHERE run = ? AND kind = 0 LIMIT 1", (run,)))

    def _finished(self, folder: Path, jid: str, journals: list[_Journal], here: Here, beat_ms: int) -> bool:
        """Nothing more will come from this writer, and all it wrote is folded."""
        closed = self._database.execute("SELECT closed FROM journal WHERE jid = ? AND kind = 'meta'", (jid,))
        if not closed or closed[0][0] is None:
            evidence = here.judge(journals[0].name.header, beat_ms)
            # Silence alone removes nothing: the writer may come back and its journal must still be found.
            if not evidence.lost or evidence.quiet:
                return False
        # Only now, when nothing can be written any more, is what lies there all there is. The points file may even have
        # been made after the folder was listed.
        read = {journal.name.kind: journal for journal in journals}
        for kind in ("meta", "points"):
            path = folder / f"{kind}.{jid}.jsonl"
            if not path.exists():
                continue
            journal = read.get(kind)
            if journal is None:
                return False
            try:
                if path.stat().st_size > journal.position and read_slice(
                    path, journal.position, journal.tail
                ):
                    return False
            except OSError:
                continue
        return True

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

"""Sources -> tables, with the code that folds journals: a piece and the reader's new position go in with one transaction.

A little at a time: whoever follows calls ``refresh`` again and again, and each call ends in time wherever it is. What lives comes
first, then what is newest, so the screen fills from the top while years of runs are still being read.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from mltrack.store.blocks import merge_blocks
from mltrack.store.database import Database, Row, file_lock
from mltrack.store.fold_catalogue import fold_catalogue, fold_logged_model
from mltrack.store.fold_meta import ensure_run, fold_record
from mltrack.store.fold_points import KeyIds, attempt_no, fold_points
from mltrack.store.journal_reader import JournalName
from mltrack.store.journal_state import load_state, store_state
from mltrack.store.records import ENDED, FoldReport, SourceState
from mltrack.store.run_state import settle_run
from mltrack.store.series import PointColumns
from mltrack.store.source_operations import CHANGED
from mltrack.store.sources import KINDS, open_reader, reader_class
from mltrack.store.sources.base import RUN_ID, Found, Piece, Reader, SourcePoints, stable_id, why

log = logging.getLogger(__name__)

# Pieces that are folded together: many small runs share the price of a commit, and nobody waits long for the lock.
BATCH_PIECES = 32
BATCH_BYTES = 256 * 1024
# A source at rest is looked at this often, and never for more than a twentieth of the time.
POLL_SECONDS = 0.5
POLL_SHARE = 20
# What is live is looked at this often, also while a backlog is read.
AGAIN_SECONDS = 2.0
# What the content of one run may run into; it must not keep its neighbours from being read.
_BAD_CONTENT = (ValueError, TypeError, KeyError, OverflowError, AttributeError, RecursionError)


@dataclass
class _Follow:
    """One source while the store is open."""

    path: str
    reader: Reader
    known: dict[str, str]
    state: dict[str, Any]
    saved: str  # the state as the database has it
    scan: Iterator[Found | None] | None = None
    began: float = 0.0
    first_after: float = 0.0
    busy: float = 0.0
    due: float = 0.0
    found: Found | None = None  # the run that is being read, and the rest of it
    rest: Iterator[Piece] | None = None
    ahead: Piece | None = (
        None  # the piece behind the one that was handed out last: a slice may end in between
    )
    problem: str = ""
    seen: int = 0


@dataclass
class _Batch:
    entries: list[tuple[_Follow, Found, Piece | None, bool]] = field(default_factory=list)
    bytes: int = 0


@dataclass
class _Count:
    records: int = 0
    points: int = 0
    skipped: int = 0
    damaged: list[str] = field(default_factory=list)


class SourceFold:
    """Takes in what the followed sources have that the database has not."""

    def __init__(self, database: Database, own: Path) -> None:
        """``own``: a folder of ours for the lock."""
        self._database = database
        self._own = own
        self._keys = KeyIds(database)
        self._follows: dict[str, _Follow] = {}
        self._asked: dict[str, Reader] = {}
        self._changed = ""

    def refresh(self, seconds: float | None, only: str | None = None) -> FoldReport:
        """Read for at most ``seconds`` (None: until there is nothing new). ``only``: this source, followed or not."""
        if self._database.readonly:
            return FoldReport(folded_by_other=True)
        rows = self._database.execute(
            "SELECT path, kind, state FROM source WHERE hidden = 0 AND "
            + ("path = ?" if only is not None else "followed = 1")
            # A run that two of them have is that of the first.
            + " ORDER BY added_ms, path",
            (only,) if only is not None else (),
        )
        if not rows:
            return FoldReport()
        changed = self._database.setting(CHANGED)
        if changed != self._changed:
            self._changed = changed
            self._follows.clear()
        with file_lock(self._own, "fold", wait=False) as mine:
            if not mine:
                self._follows.clear()  # what another process reads meanwhile is not known here
                return FoldReport(folded_by_other=True)
            return self._read_all(rows, seconds)

    def want(self, run_id: str, key: str, seconds: float) -> None:
        """Somebody looks at a series; sources that hand over histories only when they are wanted are asked for it."""
        follows = [follow for follow in self._follows.values() if "://" in follow.path]
        for follow in follows:
            rows = self._database.execute(
                "SELECT s.place FROM source_run s JOIN run r ON r.id = s.run WHERE s.source = ? AND r.run_id = ?",
                (follow.path, run_id),
            )
            if rows and follow.reader.want(str(rows[0][0]), key, seconds):
                follow.due = 0.0
                self.refresh(seconds, only=follow.path)

    def at_server(self, run_id: str) -> tuple[Reader, str] | None:
        """The reader of the server that a run is on, and the run's name there; None for all other runs."""
        rows = self._database.execute(
            "SELECT s.source, s.place FROM source_run s JOIN run r ON r.id = s.run WHERE r.run_id = ?",
            (run_id,),
        )
        for path, place in rows:
            if str(path).startswith(("http://", "https://")):
                follow = self._follows.get(str(path))
                reader = follow.reader if follow is not None else self._asked.get(str(path))
                if reader is None:
                    reader = self._asked[str(path)] = open_reader("mlflow_server", str(path))
                return reader, str(place)
        return None

    def await_registry(self, path: str, seconds: float) -> None:
        """Wait until a source's models were read for the first time, if that takes time there."""
        follow = self._follows.get(path)
        if follow is not None:
            follow.reader.await_registry(seconds)
            follow.due = 0.0

    def look_again(self, path: str, runs: bool, seconds: float) -> None:
        """Something was just changed at a source: about runs too, or in its registry alone. Seen soon, and within ``seconds`` here
        where that is quick enough."""
        follow = self._follows.get(path)
        if follow is not None:
            follow.reader.look_again(runs, seconds)
            follow.due = 0.0

    def states(self) -> list[SourceState]:
        """Every source that is not removed, in order of being added."""
        found: list[SourceState] = []
        for path, kind, followed, state in self._database.execute(
            "SELECT path, kind, followed, state FROM source WHERE hidden = 0 ORDER BY added_ms, path"
        ):
            runs, damaged = self._database.execute(
                "SELECT count(*), count(damage) FROM run WHERE source = ?", (path,)
            )[0]
            follow = self._follows.get(path)
            title = reader_class(kind).title if kind in KINDS else f"{kind} (not known to this version)"
            problem = follow.problem if follow is not None else ""
            problem = problem or "; ".join(orjson.loads(state).get("trouble", [])[:3])
            if not problem and "://" not in path and not os.path.exists(path):
                problem = "there is nothing any more"
            waiting = max(0, follow.reader.unread) if follow is not None else 0
            found.append(
                SourceState(path, kind, title, bool(followed), int(runs), waiting, int(damaged), problem)
            )
        return found

    # -- reading

    def _read_all(self, rows: list[Row], seconds: float | None) -> FoldReport:
        now = time.monotonic()
        deadline = None if seconds is None else now + seconds
        count = _Count()
        follows = [found for row in rows if (found := self._follow(row)) is not None]
        for follow in follows:
            if deadline is None:
                follow.due = 0.0
        turn = [follow for follow in follows if follow.scan is not None or follow.due <= now]
        while turn:
            # Everybody gets a share of the time, so that a large source does not keep a small one waiting.
            for follow in list(turn):
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    turn.clear()
                    break
                share = None if left is None else max(0.02, left / len(turn))
                if self._step(follow, share, count):
                    turn.remove(follow)
        # A scan that stopped in time goes on at once; how much it will find is only known when it has listed everything.
        waiting = sum(max(0, follow.reader.unread, int(follow.scan is not None)) for follow in follows)
        damaged = count.damaged + [f"{follow.path}: {follow.problem}" for follow in follows if follow.problem]
        return FoldReport(
            count.records, count.points, count.skipped, damaged=tuple(damaged), waiting_runs=waiting
        )

    def _follow(self, row: Row) -> _Follow | None:
        path, kind, state = (str(value) for value in row)
        if path in self._follows and self._follows[path].saved != state:
            del self._follows[path]  # another process has read on
        if path not in self._follows:
            if kind not in KINDS:
                return None  # of a newer version: left alone
            known = self._database.execute("SELECT place, stamp FROM source_run WHERE source = ?", (path,))
            follow = _Follow(path, open_reader(kind, path), dict(known), orjson.loads(state), state)
            follow.reader.checkpoint = str(follow.state.get("checkpoint", ""))
            self._follows[path] = follow
        return self._follows[path]

    def _step(self, follow: _Follow, seconds: float | None, count: _Count) -> bool:
        """Go on reading one source. True when nothing more is to be done now."""
        began = time.monotonic()
        batch = _Batch()
        try:
            if follow.scan is None:
                follow.scan = follow.reader.scan(follow.known)
                follow.began, follow.busy, follow.first_after = began, 0.0, 0.0
            while True:
                for piece, last in self._pieces(follow, count):
                    self._add(batch, follow, piece, last, count)
                    if seconds is not None and time.monotonic() - began > seconds:
                        self._flush(batch, count)
                        return False
                follow.found = follow.rest = None
                looked = time.monotonic()
                found = next(follow.scan, follow)
                follow.busy += time.monotonic() - looked
                if found is follow:
                    self._flush(batch, count)
                    follow.scan, follow.problem = None, ""
                    self._keep_checkpoint(follow)
                    self._take_catalogue(follow, count)
                    # What goes on is looked at soon again, however long the look took: somebody waits for its points.
                    pause = max(POLL_SECONDS, POLL_SHARE * follow.busy)
                    follow.due = time.monotonic() + (
                        min(pause, AGAIN_SECONDS) if follow.first_after else pause
                    )
                    return True
                if isinstance(found, Found):
                    follow.first_after = follow.first_after or time.monotonic() - follow.began
                    follow.found, follow.rest = found, None
                now = time.monotonic()
                if seconds is not None and now - began > seconds:
                    self._flush(batch, count)
                    if now - follow.began > max(AGAIN_SECONDS, 5 * follow.first_after) and follow.first_after:
                        follow.scan = None  # begin again with what is live; the rest comes behind it
                        follow.found = follow.rest = None
                    return False
        except OSError as error:  # the source itself: a mount that went away, a folder that may not be listed
            self._flush(batch, count)
            follow.problem = f"{error.filename or follow.path}: {why(error)}"
            follow.scan = follow.rest = follow.found = None
            follow.due = time.monotonic() + AGAIN_SECONDS
            return True

    def _pieces(self, follow: _Follow, count: _Count) -> Iterator[tuple[Piece | None, bool]]:
        """The rest of the run that is being read, each piece with whether it is the last; (None, True): nothing was new."""
        found = follow.found
        if found is None:
            return
        try:
            if follow.rest is None:
                rows = self._database.execute(
                    "SELECT position FROM source_run WHERE source = ? AND place = ?",
                    (follow.path, found.place),
                )
                follow.rest = follow.reader.read(found, str(rows[0][0]) if rows else "")
                follow.ahead = next(follow.rest, None)
            while True:
                piece = follow.ahead
                follow.ahead = next(follow.rest, None) if piece is not None else None
                last = follow.ahead is None
                yield piece, last
                if last:
                    return
        except OSError as error:
            where = f"{os.path.relpath(error.filename, follow.path)}: " if error.filename else ""
            yield self._broken(follow, found, f"{where}{why(error)}"), True
        except _BAD_CONTENT as error:
            log.debug("source %s, %s", follow.path, found.place, exc_info=True)
            yield (
                self._broken(
                    follow, found, f"{found.place}: cannot be read ({type(error).__name__}: {error})"
                ),
                True,
            )

    def _broken(self, follow: _Follow, found: Found, reason: str) -> Piece:
        """What is known of a run that cannot be read now: that, and what was read before."""
        if not found.run:
            return Piece("", "", damage=reason)
        rows = self._database.execute(
            "SELECT r.run_id, s.position FROM source_run s LEFT JOIN run r ON r.id = s.run WHERE s.source = ? AND s.place = ?",
            (follow.path, found.place),
        )
        position = str(rows[0][1]) if rows else ""
        name = found.place.rsplit("/", 1)[-1]
        made = name if RUN_ID.fullmatch(name) else stable_id(follow.reader.kind, found.place)
        return Piece(str(rows[0][0]) if rows and rows[0][0] else made, position, damage=reason)

    # -- folding

    def _add(self, batch: _Batch, follow: _Follow, piece: Piece | None, last: bool, count: _Count) -> None:
        found = follow.found
        assert found is not None
        batch.entries.append((follow, found, piece, last))
        if piece is not None:
            batch.bytes += 100 * len(piece.records) + 24 * len(piece.points or ())
        if batch.bytes >= BATCH_BYTES or len(batch.entries) >= BATCH_PIECES:
            self._flush(batch, count)

    def _flush(self, batch: _Batch, count: _Count) -> None:
        """One commit. A run whose content cannot be folded is taken back alone, and noted as damaged."""
        entries, batch.entries, batch.bytes = batch.entries, [], 0
        if not entries:
            return
        try:
            with self._database.transaction():
                for follow, found, piece, last in entries:
                    self._database.execute("SAVEPOINT piece")
                    try:
                        self._fold(follow, found, piece, last, count)
                    except _BAD_CONTENT as error:
                        self._database.execute("ROLLBACK TO SAVEPOINT piece")
                        self._keys.forget()
                        log.debug("source %s, %s", follow.path, found.place, exc_info=True)
                        reason = f"{found.place}: cannot be stored ({type(error).__name__}: {error})"
                        self._fold(follow, found, self._broken(follow, found, reason), True, count)
                    self._database.execute("RELEASE SAVEPOINT piece")
        except BaseException:
            self._keys.forget()
            for follow in {id(entry[0]): entry[0] for entry in entries}.values():
                self._follows.pop(follow.path, None)  # read again from what is committed
            raise
        for follow, found, _, last in entries:
            if last:
                if not follow.known.get(found.place) and found.run:
                    follow.reader.unread -= 1
                follow.known[found.place] = found.stamp

    def _fold(self, follow: _Follow, found: Found, piece: Piece | None, last: bool, count: _Count) -> None:
        database = self._database
        stamp = found.stamp if last else ""
        rows = database.execute(
            "SELECT run, records FROM source_run WHERE source = ? AND place = ?", (follow.path, found.place)
        )
        if piece is None:
            self._remember(follow, found, rows[0][0] if rows else None, stamp, None, 0, 0)
            return
        if not piece.run_id:
            if piece.model is not None:
                fold_logged_model(database, follow.path, piece.model, self._is_gone)
            if piece.damage is not None:
                count.damaged.append(f"{follow.path}: {piece.damage}")
            self._remember(follow, found, None, stamp, "", 0, 0)
            return
        if not RUN_ID.fullmatch(piece.run_id):
            raise ValueError("not a run id")
        run = self._own_run(follow, piece)
        if run is None:  # somebody else's, or purged: looked at again when that changes
            self._remember(follow, found, None, found.stamp, "", 0, 0)
            return
        begin = int(rows[0][1]) if rows and rows[0][0] == run else 0
        name = journal_name(piece)
        state = load_state(database, run)
        for number, record in enumerate(piece.records, start=begin + 1):
            count.records += fold_record(database, state, name, record, number, source=True)
        store_state(database, state)
        if piece.points is not None and len(piece.points):
            attempt = attempt_no(database, run, name.attempt)
            columns = _columns(piece.points, piece.rank, attempt, self._keys)
            said = state.get("status")
            final = last and said is not None and said["status"] in ENDED
            count.points += fold_points(database, run, columns, final)
        skipped = piece.skipped + state.skipped
        count.skipped += skipped
        self._remember(follow, found, run, stamp, piece.position, begin + len(piece.records), skipped)
        if piece.damage is not None:
            count.damaged.append(f"{follow.path}: {piece.damage}")
        database.execute(
            "UPDATE run SET damage = ?, skipped = skipped + ?, heard_ms ="
            " CASE WHEN heard_ms IS NULL OR heard_ms < ? THEN ? ELSE heard_ms END WHERE id = ?",
            (piece.damage, skipped, piece.heard_ms or 0, piece.heard_ms, run),
        )
        hopeless = piece.damage is not None and "status" not in state.values and not state.get("first")
        status = settle_run(database, run, touch=True, keep_status=not hopeless)
        if last and (status in ENDED or hopeless):
            merge_blocks(database, run, last=True)

    def _own_run(self, follow: _Follow, piece: Piece) -> int | None:
        """The row of a piece's run, made when it is new; None when it is not this source's to fill."""
        database = self._database
        rows = database.execute("SELECT id, source FROM run WHERE run_id = ?", (piece.run_id,))
        if rows:
            owner = str(rows[0][1])
            if owner == follow.path:
                return int(rows[0][0])
            if owner == "" or not self._is_gone(owner):
                return None
        if database.execute("SELECT 1 FROM tombstone WHERE run_id = ?", (piece.run_id,)):
            return None
        first = next((record for record in piece.records if record.get("op") == "start"), None)
        name = journal_name(piece)
        # With the row, and not with what is judged by: nobody here can say more of a process there.
        name.header["host"] = piece.host
        run = ensure_run(database, name, str(first.get("experiment") or "") if first else "")
        database.execute("UPDATE run SET source = ? WHERE id = ?", (follow.path, run))
        return run

    def _is_gone(self, path: str) -> bool:
        """Whether a source cannot be read any more: its folder was moved, or a person removed it."""
        if self._database.execute("SELECT 1 FROM source WHERE path = ? AND hidden = 0", (path,)):
            return "://" not in path and not os.path.exists(path)
        return True

    def _remember(
        self,
        follow: _Follow,
        found: Found,
        run: int | None,
        stamp: str,
        position: str | None,
        records: int,
        skipped: int,
    ) -> None:
        """How far a run is read; ``position`` None: as far as before."""
        if position is None:
            self._database.execute(
                "INSERT INTO source_run (source, place, run, stamp) VALUES (?, ?, ?, ?) ON CONFLICT (source, place)"
                " DO UPDATE SET stamp = excluded.stamp",
                (follow.path, found.place, run, stamp),
            )
            return
        self._database.execute(
            "INSERT INTO source_run (source, place, run, stamp, position, records, skipped) VALUES (?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (source, place) DO UPDATE SET run = excluded.run, stamp = excluded.stamp,"
            " position = excluded.position, records = excluded.records, skipped = source_run.skipped + excluded.skipped",
            (follow.path, found.place, run, stamp, position, records, skipped),
        )

    def _keep_checkpoint(self, follow: _Follow) -> None:
        if follow.reader.checkpoint != follow.state.get("checkpoint", ""):
            self._keep_state(follow, checkpoint=follow.reader.checkpoint)

    def _keep_state(self, follow: _Follow, **values: Any) -> None:
        follow.state.update(values)
        follow.saved = orjson.dumps(follow.state).decode()
        with self._database.transaction():
            self._database.execute("UPDATE source SET state = ? WHERE path = ?", (follow.saved, follow.path))

    def _take_catalogue(self, follow: _Follow, count: _Count) -> None:
        """Experiments and models of a source, when they have changed. Behind the runs, which make the experiments."""
        found = follow.reader.catalogue(str(follow.state.get("catalogue", "")))
        if found is None:
            return
        with self._database.transaction():
            trouble = fold_catalogue(self._database, follow.path, found, self._is_gone)
            self._keep_state(follow, catalogue=found.stamp, trouble=trouble)
        count.damaged += [f"{follow.path}: {reason}" for reason in trouble]


def journal_name(piece: Piece) -> JournalName:
    """The name under which a piece's records are stamped: it depends on what the run is, not on where it lies."""
    jid = stable_id("jid", f"{piece.run_id}\0{piece.attempt}\0{piece.rank}")[:16]
    first = min((int(record["t"]) for record in piece.records if type(record.get("t")) is int), default=0)
    attempt = piece.attempt or f"{0:013d}-{jid[:6]}"
    return JournalName(jid, "meta", piece.run_id, attempt, piece.rank, "main", {"time": first})


def _columns(points: SourcePoints, rank: int, attempt: int, keys: KeyIds) -> PointColumns:
    keys.add(set(points.names))
    numbers = np.array([keys.ids[name] for name in points.names], np.int64)
    n = len(points)
    return PointColumns(
        numbers[points.key],
        np.full(n, rank, np.int64),
        np.full(n, attempt, np.int64),
        np.ascontiguousarray(points.step, np.int64),
        np.ascontiguousarray(points.time_ms, np.int64),
        np.ascontiguousarray(points.value, np.float64),
    )

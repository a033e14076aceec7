"""One commit of a fold: what is new in some journals, and how far they are read, in one transaction.

A transaction costs more than a short run, and on PostgreSQL a statement costs more than what it does. So as many journals share
one as its time allows, and what is asked of their runs is asked once for all of them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from mltrack.store.database import Database
from mltrack.store.experiments import ExperimentNames
from mltrack.store.fold_meta import experiment_name, fold_meta, make_run
from mltrack.store.fold_points import KeyIds, attempt_no, fold_points, parse_points, to_columns
from mltrack.store.journal_reader import JournalName, Slice, read_slice
from mltrack.store.journal_state import RunState, load_state, store_state
from mltrack.store.run_state import rows_to_settle, settle_run

# Work per commit: readers and other writers wait no longer than this for the lock.
COMMIT_SECONDS = 0.05
# And journals per commit, however small: when one of them is bad, all are folded again, each by itself.
COMMIT_JOURNALS = 100


@dataclass
class Journal:
    """A journal file that may have something new. ``unread``: how many bytes of it were new when it was looked at."""

    path: Path
    name: JournalName
    position: int
    tail: str
    unread: int = 0
    changed: bool = False


@dataclass
class Read:
    """What a transaction read of a journal: up to where (``more``: not up to its end), and what it was."""

    journal: Journal
    run: int
    position: int = 0
    tail: str = ""
    more: bool = True
    records: int = 0
    points: int = 0
    skipped: int = 0


def commit(database: Database, keys: KeyIds, group: list[tuple[Journal, Slice]]) -> list[Read]:
    """Fold one journal after the other, from its first slice on, until the time of a commit is over.

    Returns what was read of each, for as many as there was time, when it is committed. Raises what its content makes it raise,
    with nothing written; ``keys`` must then forget.
    """
    began = time.monotonic()
    found: list[Read] = []
    with database.transaction():
        asked = "SELECT run_id, id FROM run WHERE run_id IN"
        rows = database.select_in(asked, {journal.name.run_id for journal, _ in group})
        runs = {str(run_id): int(run) for run_id, run in rows}
        states: dict[int, RunState] = {}
        names = ExperimentNames(database)
        for journal, piece in group:
            if found and time.monotonic() - began > COMMIT_SECONDS:
                break
            name = journal.name
            run = runs.get(name.run_id)
            if run is None:
                experiment = experiment_name(piece.lines) if name.kind == "meta" else ""
                run = runs[name.run_id] = make_run(database, name, experiment, names)
                states[run] = RunState(run, {}, {}, params=set())
            if name.kind == "meta" and run not in states:
                states[run] = load_state(database, run)
            read = Read(journal, run)
            _fold_slices(database, keys, read, piece, states.get(run), began)
            found.append(read)
        for state in states.values():
            store_state(database, state)
        for run, row in rows_to_settle(database, {read.run for read in found}).items():
            settle_run(database, run, touch=True, row=row, names=names)
    return found


def _fold_slices(
    database: Database, keys: KeyIds, read: Read, piece: Slice, state: RunState | None, began: float
) -> None:
    """Fold one journal until nothing is left of it or the time of the commit is over.

    ``state`` of its run, where meta records of it are or were folded in this transaction.
    """
    journal, name = read.journal, read.journal.name
    if piece.restarted:  # all of it is read again: what it skipped is counted again
        database.execute(
            "UPDATE run SET skipped = skipped - (SELECT skipped FROM journal WHERE jid = ? AND kind = ?) WHERE id = ?",
            (name.jid, name.kind, read.run),
        )
        database.execute("UPDATE journal SET skipped = 0 WHERE jid = ? AND kind = ?", (name.jid, name.kind))
    following: Slice | None = piece
    while following is not None:
        piece = following
        if name.kind == "meta" and state is not None:
            skipped = state.skipped
            read.records += fold_meta(database, state, name, piece.lines, piece.offsets)
            read.skipped += state.skipped - skipped
        else:
            _fold_points(database, keys, read, piece, state)
        read.position, read.tail = piece.end, piece.tail
        if time.monotonic() - began > COMMIT_SECONDS:
            break
        try:
            following = read_slice(journal.path, read.position, read.tail)
        except OSError:
            break  # said when it is tried again
        if following is not None and following.restarted:
            break
    read.more = following is not None
    closed = state.closed.get(name.jid) if state is not None and name.kind == "meta" else None
    database.execute(
        "INSERT INTO journal (jid, kind, run, position, check_tail, skipped, closed) VALUES (?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (jid, kind) DO UPDATE SET position = excluded.position, check_tail = excluded.check_tail,"
        " skipped = journal.skipped + excluded.skipped, closed = coalesce(excluded.closed, journal.closed)",
        (name.jid, name.kind, read.run, read.position, read.tail, read.skipped, closed),
    )
    if read.skipped:
        database.execute("UPDATE run SET skipped = skipped + ? WHERE id = ?", (read.skipped, read.run))


def _fold_points(database: Database, keys: KeyIds, read: Read, piece: Slice, state: RunState | None) -> None:
    lines = piece.lines[1:] if piece.start == 0 else piece.lines
    parsed, bad = parse_points(lines) if lines else ([], 0)
    read.skipped += bad
    read.records += len(parsed)
    if parsed:
        name = read.journal.name
        attempt = attempt_no(database, read.run, name.attempt)
        whole = piece.start == 0 and piece.end == piece.size
        # Of a run that has ended and is this short all is here: it is packed at once instead of merged later.
        final = whole and state is not None and state.has_ended(name.attempt)
        read.points += fold_points(database, read.run, to_columns(parsed, name.rank, attempt, keys), final)

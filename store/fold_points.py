"""Points records -> one batch block and the run's summary, each point exactly once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from mltrack.store import summary as summaries
from mltrack.store.blocks import merge_blocks, read_points, write_merged
from mltrack.store.database import Database
from mltrack.store.series import Ints, PointColumns, distinct, encode_block, no_points, value_order
from mltrack.store.summary import Rows

_SPECIAL = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


class KeyIds:
    """Metric names to their numbers, remembered for as long as the process folds."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.ids: dict[str, int] = {}

    def add(self, keys: set[str]) -> None:
        """Make sure that every key has a number. Inside a transaction."""
        missing = [key for key in keys if key not in self.ids]
        rows = self._database.select_in("SELECT key, id FROM metric_key WHERE key IN", missing)
        self.ids.update((str(key), int(id)) for key, id in rows)
        for key in missing:
            if key not in self.ids:
                made = self._database.execute("INSERT INTO metric_key (key) VALUES (?) RETURNING id", (key,))
                self.ids[key] = int(made[0][0])

    def forget(self) -> None:
        """After a rollback: numbers given in it do not exist."""
        self.ids.clear()


def parse_points(lines: list[bytes]) -> tuple[list[list[Any]], int]:
    """The well-formed records of complete lines and the number of others."""
    try:
        records = orjson.loads(b"[" + b",".join(lines) + b"]")
        if len(records) == len(lines) and _look_right(records):
            return records, 0
    except orjson.JSONDecodeError:
        pass  # one line is damaged: look at each
    kept: list[list[Any]] = []
    for line in lines:
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        if _is_right(record):
            kept.append(record)
    return kept, len(lines) - len(kept)


def _look_right(records: list[Any]) -> bool:
    """Whether all is as our client writes it; anything unusual goes the careful way. No Python code per value."""
    if set(map(type, records)) != {list}:
        return False
    sizes = set(map(len, records))
    if min(sizes) < 4 or any(size & 1 for size in sizes):
        return False
    steps, times, names, values = _flat(records)
    return (
        set(map(type, steps)) == set(map(type, times)) == {int}
        and set(map(type, names)) == {str}
        and set(map(type, values)) == {float}
        and max(steps) < 1 << 63 > max(times)
    )


def _flat(records: list[list[Any]]) -> tuple[Sequence[Any], Sequence[Any], Sequence[Any], Sequence[Any]]:
    """Step and time of each record, then key and value of each point, in order."""
    if len(records[0]) == 4 == max(map(len, records)):
        steps, times, names, values = zip(*records, strict=True)
        return steps, times, names, values
    every_name: list[Any] = []
    every_value: list[Any] = []
    for record in records:
        every_name += record[2::2]
        every_value += record[3::2]
    return [record[0] for record in records], [record[1] for record in records], every_name, every_value


def _is_right(record: Any) -> bool:
    if type(record) is not list or len(record) < 4 or len(record) & 1:
        return False
    for whole in record[:2]:
        if type(whole) is not int or not -(1 << 63) <= whole < 1 << 63:
            return False
    for place in range(3, len(record), 2):
        value = record[place]
        if type(record[place - 1]) is not str:
            return False
        if type(value) is str:
            if value not in _SPECIAL:
                return False
            record[place] = _SPECIAL[value]
        elif type(value) is int:
            if int(float(value)) != value:
                return False
            record[place] = float(value)
        elif type(value) is not float:
            return False
    return True


def to_columns(records: list[list[Any]], rank: int, attempt: int, keys: KeyIds) -> PointColumns:
    """Records of one journal as columns. Inside a transaction (new metric names get their numbers)."""
    steps, times, names, values = _flat(records)
    n = len(values)
    try:
        ids = np.fromiter(map(keys.ids.__getitem__, names), np.int64, n)
    except KeyError:
        keys.add(set(names))
        ids = np.fromiter(map(keys.ids.__getitem__, names), np.int64, n)
    repeat = (np.fromiter(map(len, records), np.int64, len(records)) - 2) >> 1
    return PointColumns(
        ids,
        np.full(n, rank, np.int64),
        np.full(n, attempt, np.int64),
        np.repeat(np.array(steps, np.int64), repeat),
        np.repeat(np.array(times, np.int64), repeat),
        np.array(values, np.float64),
    )


def _series_id(rows: Rows | PointColumns) -> Ints:
    """One sortable number per (key, rank, attempt)."""
    if isinstance(rows, PointColumns):
        return (rows.key << 32) | (rows.rank << 14) | rows.attempt
    return (
        (rows["key"].astype(np.int64) << 32)
        | (rows["rank"].astype(np.int64) << 14)
        | rows["attempt"].astype(np.int64)
    )


def fold_points(database: Database, run: int, points: PointColumns, final: bool = False) -> int:
    """Store new points of a run and bring its summary up to date. Returns how many were new. Inside a transaction.

    ``final``: no more will come, so that they are packed at once.
    """
    fresh = distinct(points)
    stored = database.execute("SELECT summary, attempts FROM run WHERE id = ?", (run,))[0]
    every = summaries.unpack(stored[1] if stored[1] else stored[0])
    known = every[every["whole"] == 1]
    fresh = _without_repeats(database, run, fresh, known)
    if len(fresh) == 0:
        return 0
    gained = summaries.rows_of_points(fresh)
    rows = summaries.merge(summaries.joined((known, gained)))
    if final and len(known) == 0:
        write_merged(database, run, fresh)
        store_summary(database, run, rows, summaries.no_rows())
        return len(fresh)
    database.execute(
        "INSERT INTO block (run, kind, first_step, last_step, count, data) VALUES (?, 0, ?, ?, ?, ?)",
        (run, int(fresh.step.min()), int(fresh.step.max()), len(fresh), encode_block(fresh, small=False)),
    )
    restricted = every[every["whole"] == 0]
    store_summary(database, run, rows, restricted[~np.isin(_series_id(restricted), _series_id(gained))])
    waiting = database.execute(
        "SELECT count(*), coalesce(sum(length(data)), 0) FROM block WHERE run = ? AND kind = 0", (run,)
    )[0]
    if waiting[0] >= 64 or waiting[1] >= 4 << 20:
        merge_blocks(database, run, last=False)
    return len(fresh)


def store_summary(database: Database, run: int, rows: Rows, restricted: Rows) -> None:
    """Write the summary for rows per (key, rank, attempt), leaving superseded points out where there are several attempts.

    ``restricted`` are earlier rows without superseded points that are still right when their cut is.
    """
    if len(np.unique(rows["attempt"])) <= 1:
        database.execute(
            "UPDATE run SET summary = ?, attempts = NULL WHERE id = ?", (summaries.pack(rows), run)
        )
        return
    whole, cut = _cut_rows(database, run, rows, restricted)
    effective = summaries.over_attempts(summaries.joined((whole, cut)))
    database.execute(
        "UPDATE run SET summary = ?, attempts = ? WHERE id = ?",
        (summaries.pack(effective), summaries.pack(summaries.joined((rows, cut))), run),
    )


def attempt_no(database: Database, run: int, attempt: str) -> int:
    """The number that blocks name an attempt by, given when it is new. Inside a transaction."""
    rows = database.execute("SELECT name, no FROM attempt WHERE run = ?", (run,))
    known = {str(name): int(no) for name, no in rows}
    if attempt in known:
        return known[attempt]
    no = max(known.values(), default=-1) + 1
    database.execute("INSERT INTO attempt (run, no, name) VALUES (?, ?, ?)", (run, no, attempt))
    return no


def attempt_order(database: Database, run: int) -> dict[int, int]:
    """Place of each attempt number in the order of starts, oldest first."""
    names = database.execute("SELECT no, name FROM attempt WHERE run = ?", (run,))
    return {int(no): place for place, (no, _) in enumerate(sorted(names, key=lambda row: str(row[1])))}


def cuts(rows: Rows, order: dict[int, int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """For each row the first step that a newer attempt of its (key, rank) has, and whether there is one: from there on it
    is superseded."""
    place = np.array([order.get(int(no), 0) for no in rows["attempt"]], np.int64)
    series = (rows["key"].astype(np.int64) << 32) | rows["rank"].astype(np.int64)
    by_age = np.lexsort((-place, series))
    found = np.full(len(rows), summaries.NO_CUT, np.int64)
    newer = np.zeros(
        len(rows), np.bool_
    )  # the largest step is a step like any other: no number stands for "never"
    previous, first = -1, summaries.NO_CUT
    for index in by_age.tolist():  # newest attempt first within a series
        if series[index] != previous:
            previous, first = int(series[index]), summaries.NO_CUT
        else:
            newer[index] = True
        found[index] = first
        first = min(first, int(rows["first_step"][index]))
    return found, newer


def _cut_rows(database: Database, run: int, rows: Rows, restricted: Rows) -> tuple[Rows, Rows]:
    """Rows no newer attempt reaches into, and for the others rows of only the points before the newer attempt."""
    cut, newer = cuts(rows, attempt_order(database, run))
    touched = newer & (rows["last_step"] >= cut)
    known = {
        (series, int(first)): index
        for index, (series, first) in enumerate(
            zip(_series_id(restricted).tolist(), restricted["cut"].tolist(), strict=True)
        )
    }
    parts = [summaries.no_rows()]
    wanted: dict[int, list[int]] = {}
    for index in np.flatnonzero(touched).tolist():
        found = known.get((int(_series_id(rows[index : index + 1])[0]), int(cut[index])))
        if found is not None:
            parts.append(restricted[found : found + 1])
        else:
            wanted.setdefault(int(rows["key"][index]), []).append(index)
    for key, indexes in wanted.items():
        stored = read_points(database, run, key)
        for index in indexes:
            row, first = rows[index], int(cut[index])
            before = (stored.rank == row["rank"]) & (stored.attempt == row["attempt"]) & (stored.step < first)
            part = summaries.rows_of_points(distinct(stored.take(before)))
            if len(part) == 0:  # remembered too, so that it is not looked for again
                part = rows[index : index + 1].copy()
                part["count"] = 0
            part["cut"], part["whole"] = first, 0
            parts.append(part)
    return rows[~touched], summaries.joined(parts)


def _without_repeats(database: Database, run: int, fresh: PointColumns, known: Rows) -> PointColumns:
    """Leave out points that are stored already. Costs the batch, not the history, unless points come out of order."""
    if len(known) == 0 or len(fresh) == 0:
        return fresh
    series = _series_id(fresh)
    starts = np.flatnonzero(np.concatenate(([True], series[1:] != series[:-1])))
    earliest = np.minimum.reduceat(fresh.time, starts)
    first = fresh.take(starts)
    known_ids = _series_id(known)
    place = np.minimum(np.searchsorted(known_ids, series[starts]), len(known) - 1)
    matched = known_ids[place] == series[starts]
    last = known[place]
    first_value, last_value = value_order(first.value), value_order(last["last"])
    beyond = (first.step > last["last_step"]) | (
        (first.step == last["last_step"])
        & (
            (first.time > last["last_time"])
            | ((first.time == last["last_time"]) & (first_value > last_value))
        )
    )
    # Behind the newest point in order, or later than every known point: cannot be one of them.
    doubtful = matched & ~beyond & ~(earliest > last["newest"])
    if not doubtful.any():
        return fresh
    doubtful_series = series[starts][doubtful]
    stored_parts = [read_points(database, run, int(key)) for key in np.unique(first.key[doubtful]).tolist()]
    keep = np.ones(len(fresh), bool)
    suspects = np.flatnonzero(np.isin(series, doubtful_series))
    suspect_points = fresh.take(suspects)
    low, high = suspect_points.step.min(), suspect_points.step.max()
    stored = [part.take((part.step >= low) & (part.step <= high)) for part in stored_parts]
    seen = {identity for part in stored for identity in _identities(part)}
    for index, identity in zip(suspects.tolist(), _identities(suspect_points), strict=True):
        if identity in seen:
            keep[index] = False
    return fresh.take(keep) if keep.any() else no_points()


def _identities(points: PointColumns) -> list[tuple[int, ...]]:
    columns = (points.key, points.rank, points.attempt, points.step, points.time, value_order(points.value))
    return list(zip(*(column.tolist() for column in columns), strict=True))

"""Metrics of many runs as stored columns: a cache that makes the first search over a big store quick.

A segment covers the runs of 1,024 row numbers. It holds, per metric, the aggregates of the runs that have it, as they were at
one value of the change counter; a run that changed since is read from its own summary instead. Losing all of it loses nothing.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mltrack.store import summary as summaries
from mltrack.store.column_types import Aggregate
from mltrack.store.database import Database
from mltrack.store.errors import ReadOnly, StoreUnavailable
from mltrack.store.series import Ints
from mltrack.store.summary import Rows

RUNS = 1024
# Below this many uncovered runs their own summaries are read quickly enough.
WORTH = 8 * RUNS
# A segment is written again when this many of its runs have changed.
CHANGED = 128
# Runs with thousands of metrics make segments as large as their summaries; searching them costs the same either way.
SUMMARY_BYTES = 16 << 20
_HEAD = struct.Struct("<II")
_FLOATS = ("last", "low", "high")
_PLACE: dict[Aggregate, int] = {"last": 0, "min": 1, "max": 2}


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One metric in one segment: row numbers of its runs int64[n], and one aggregate of each, float64[n]."""

    runs: Ints
    values: npt.NDArray[np.float64]


def number_of(runs: Ints) -> Ints:
    """The segment of each run's row number."""
    return (runs - 1) // RUNS


def covered(database: Database, runs: Ints, seqs: Ints) -> npt.NDArray[np.bool_]:
    """For each run (row number, value of the change counter at its last change) whether its segment still holds for it."""
    if len(runs) == 0:
        return np.zeros(0, np.bool_)
    numbers = number_of(runs)
    built = np.full(int(numbers.max()) + 1, -1, np.int64)
    for segment, seq in database.execute("SELECT id, seq FROM run_segment"):
        if segment < len(built):
            built[segment] = seq
    return np.asarray(seqs <= built[numbers])


def read(database: Database, metric: int, aggregate: Aggregate) -> list[Part]:
    """One aggregate of a metric from all segments."""
    rows = database.execute("SELECT segment, data FROM metric_segment WHERE metric = ?", (metric,))
    return [_decode(int(segment), bytes(data), aggregate) for segment, data in rows]


def build(database: Database, runs: Ints, uncovered: npt.NDArray[np.bool_]) -> bool:
    """Write the segments that are worth it; each is one transaction. Returns whether any was written."""
    if database.readonly or np.count_nonzero(uncovered) < WORTH:
        return False
    numbers, counts = np.unique(number_of(runs[uncovered]), return_counts=True)
    last = int(number_of(runs).max())
    wanted = [
        int(number)
        for number, count in zip(numbers, counts, strict=True)
        if count >= CHANGED and number < last
    ]
    written = False
    try:
        for segment in wanted:
            written |= _write(database, segment)
    except (StoreUnavailable, ReadOnly):
        return written  # full or busy: a search does without
    return written


def _write(database: Database, segment: int) -> bool:
    first, last = segment * RUNS + 1, (segment + 1) * RUNS
    size = database.execute(
        "SELECT coalesce(sum(length(summary)), 0) FROM run WHERE id BETWEEN ? AND ?", (first, last)
    )
    if int(size[0][0]) > SUMMARY_BYTES:
        return False
    with database.transaction():
        seq = int(database.setting("seq", "0"))
        blobs = database.execute(
            "SELECT id, summary FROM run WHERE id BETWEEN ? AND ? AND summary IS NOT NULL ORDER BY id",
            (first, last),
        )
        parts = [summaries.unpack(bytes(blob)) for _, blob in blobs]
        rows = np.concatenate([summaries.no_rows(), *parts])
        owner = np.repeat(
            np.array([int(row[0]) - first for row in blobs], np.uint16), [len(part) for part in parts]
        )
        shown = (rows["rank"] == 0) & (rows["count"] > 0)
        rows, owner = rows[shown], owner[shown]
        order = np.argsort(rows["key"], kind="stable")
        rows, owner = rows[order], owner[order]
        starts = np.flatnonzero(np.diff(rows["key"], prepend=-1))
        ends = np.append(starts[1:], len(rows)).astype(np.int64)
        database.execute("DELETE FROM metric_segment WHERE segment = ?", (segment,))
        database.execute_many(
            "INSERT INTO metric_segment (metric, segment, data) VALUES (?, ?, ?)",
            [
                (int(rows["key"][start]), segment, _encode(rows[start:end], owner[start:end]))
                for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
            ],
        )
        database.execute(
            "INSERT INTO run_segment (id, seq) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET seq = excluded.seq",
            (segment, seq),
        )
    return True


def _encode(rows: Rows, owner: npt.NDArray[np.uint16]) -> bytes:
    whole = zlib.compress(owner.astype("<u2").tobytes() + rows["count"].astype("<i8").tobytes(), 1)
    floats = b"".join(rows[field].astype("<f8").tobytes() for field in _FLOATS)
    return _HEAD.pack(len(rows), len(whole)) + whole + floats


def _decode(segment: int, data: bytes, aggregate: Aggregate) -> Part:
    count, size = _HEAD.unpack_from(data)
    whole = zlib.decompress(data[_HEAD.size : _HEAD.size + size])
    runs = np.frombuffer(whole, "<u2", count).astype(np.int64) + (segment * RUNS + 1)
    if aggregate == "count":
        return Part(runs, np.frombuffer(whole, "<i8", count, 2 * count).astype(np.float64))
    offset = _HEAD.size + size + 8 * count * _PLACE[aggregate]
    return Part(runs, np.frombuffer(data, "<f8", count, offset).astype(np.float64))

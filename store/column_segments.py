"""Metrics of many runs as stored columns: a cache that makes the first search over a big store quick.

A segment covers the runs of 1,024 row numbers. It holds, per metric, the aggregates of the runs that have it, as they were at
one value of the change counter; a run that changed since is read from its own summary instead. Losing all of it loses nothing.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mltrack.store import summary as summaries
from mltrack.store.column_types import Aggregate
from mltrack.store.database import Database
from mltrack.store.errors import ReadOnly, StoreUnavailable
from mltrack.store.series import Ints

RUNS = 1024
# Below this many uncovered runs their own summaries are read quickly enough, unless they are large: so many bytes, packed.
WORTH = 8 * RUNS
WORTH_BYTES = 16 << 20
# A segment is written again when this many of its runs have changed.
CHANGED = 128
# Writing a segment takes ten times its summaries in memory for a moment.
SUMMARY_BYTES = 64 << 20
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
    if database.readonly or not _is_worth(database, runs[uncovered]):
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


def prepare(database: Database) -> bool:
    """Write the segments that the next search would, so that it does not wait for them. Returns whether any was written."""
    if database.readonly or int(database.execute("SELECT count(*) FROM run")[0][0]) < RUNS:
        return False
    rows = database.execute("SELECT id, seq FROM run ORDER BY id")
    runs, seqs = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    return build(database, runs, ~covered(database, runs, seqs))


def _is_worth(database: Database, runs: Ints) -> bool:
    """Whether a search would wait for the summaries of these runs."""
    if len(runs) >= WORTH or len(runs) < RUNS:
        return len(runs) >= WORTH
    size = database.execute(
        "SELECT coalesce(sum(length(summary)), 0) FROM run WHERE id >= ?", (int(runs.min()),)
    )
    return int(size[0][0]) >= WORTH_BYTES


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
        rows = summaries.joined(parts)
        owner = np.repeat(
            np.array([int(row[0]) - first for row in blobs], np.uint16), [len(part) for part in parts]
        )
        # Of the rows only what is kept of them, in order: sorting whole rows would double them twice.
        places = np.flatnonzero((rows["rank"] == 0) & (rows["count"] > 0))
        places = places[np.argsort(rows["key"][places], kind="stable")]
        owner, keys = owner[places], rows["key"][places]
        kept = {field: rows[field][places] for field in ("count", *_FLOATS)}
        starts = np.flatnonzero(np.diff(keys, prepend=-1)).tolist()
        ends = [*starts[1:], len(keys)]
        database.execute("DELETE FROM metric_segment WHERE segment = ?", (segment,))
        database.execute_many(
            "INSERT INTO metric_segment (metric, segment, data) VALUES (?, ?, ?)",
            [
                (int(keys[start]), segment, _encode(kept, owner, start, end))
                for start, end in zip(starts, ends, strict=True)
            ],
        )
        database.execute(
            "INSERT INTO run_segment (id, seq) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET seq = excluded.seq",
            (segment, seq),
        )
    return True


def _encode(
    kept: Mapping[str, npt.NDArray[np.generic]], owner: npt.NDArray[np.uint16], start: int, end: int
) -> bytes:
    counts = kept["count"][start:end].astype("<i8").tobytes()
    whole = zlib.compress(owner[start:end].astype("<u2").tobytes() + counts, 1)
    floats = b"".join(kept[field][start:end].astype("<f8").tobytes() for field in _FLOATS)
    return _HEAD.pack(end - start, len(whole)) + whole + floats


def _decode(segment: int, data: bytes, aggregate: Aggregate) -> Part:
    count, size = _HEAD.unpack_from(data)
    whole = zlib.decompress(data[_HEAD.size : _HEAD.size + size])
    runs = np.frombuffer(whole, "<u2", count).astype(np.int64) + (segment * RUNS + 1)
    if aggregate == "count":
        return Part(runs, np.frombuffer(whole, "<i8", count, 2 * count).astype(np.float64))
    offset = _HEAD.size + size + 8 * count * _PLACE[aggregate]
    return Part(runs, np.frombuffer(data, "<f8", count, offset).astype(np.float64))

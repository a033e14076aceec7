"""The run table as stored columns: a cache that makes the first search over a big store quick.

A segment covers the runs of 1,024 row numbers. It holds their attributes, params, tags and the aggregates of each metric, as they
were at one value of the change counter; a run that changed since is read from its own rows instead. Losing all of it loses nothing.
"""

from __future__ import annotations

import sqlite3
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from mltrack.store import column_blobs
from mltrack.store import summary as summaries
from mltrack.store.column_blobs import Coded
from mltrack.store.column_types import Aggregate, FloatArray
from mltrack.store.database import Database, Row
from mltrack.store.errors import ReadOnly, StoreDamaged, StoreUnavailable
from mltrack.store.series import Ints

RUNS = 1024
# Below this many uncovered runs their own rows are read quickly enough, unless their summaries are large: so many bytes, packed.
WORTH = 8 * RUNS
WORTH_BYTES = 16 << 20
# A segment is written again when this many of its runs have changed.
CHANGED = 128
# Writing a segment takes ten times its summaries in memory for a moment, and its params and tags as they are.
LARGEST_BYTES = 64 << 20
TAG_VALUE = "CASE WHEN edited = 1 THEN edit ELSE value END"
"""What a tag is: what a person made of it beats what the run said."""
TEXTS = ("run_id", "name", "status", "owner", "host", "note", "lifecycle", "parent_id", "damage")
INTEGERS = ("experiment_id", "start_ms", "end_ms", "heard_ms", "step")
_HEAD = struct.Struct("<II")
_FLOATS = ("last", "low", "high")
_PLACE: dict[Aggregate, int] = {"last": 0, "min": 1, "max": 2}
_IN_SEGMENT = "BETWEEN ? AND ?"
# Of a process of an older mltrack that still runs come segments of metrics alone.
_WHOLE = "column_seq = seq"


def coverage(database: Database) -> tuple[Coded, Ints]:
    """The runs that a segment holds for, with their run ids, and the row numbers of all others, int64; each in ascending order."""
    built = sorted(int(row[0]) for row in database.execute(f"SELECT id FROM run_segment WHERE {_WHOLE}"))
    total = int(database.execute("SELECT count(*) FROM run")[0][0])
    held = read_texts(database, "attribute", "run_id")
    if not built:
        return held.take(np.zeros(len(held.runs), np.bool_)), _all(database)
    rows = database.execute(
        "SELECT id FROM run WHERE seq > (SELECT min(seq) FROM run_segment) AND seq >"
        f" (SELECT s.seq FROM run_segment s WHERE s.id = (run.id - 1) / {RUNS})"
    )
    for number in {*range(built[-1] + 2)}.difference(built):
        end = (number + 1) * RUNS if number < built[-1] else 1 << 62
        rows += database.execute(f"SELECT id FROM run WHERE id {_IN_SEGMENT}", (number * RUNS + 1, end))
    others = np.unique(np.array([row[0] for row in rows], np.int64))
    held = held.take(~np.isin(held.runs, others)) if len(others) else held
    if len(held.runs) + len(others) != total:  # some were purged
        present = _all(database)
        held = held.take(np.isin(held.runs, present))
        others = np.setdiff1d(present, held.runs, assume_unique=True)
    return held, others


def _all(database: Database) -> Ints:
    return np.sort(np.array([row[0] for row in database.execute("SELECT id FROM run")], np.int64))


def read_metric(database: Database, metric: int, aggregate: Aggregate) -> tuple[Ints, FloatArray]:
    """One aggregate of a metric from all segments: row numbers of its runs, int64[n], and float64[n]."""
    rows = database.execute("SELECT segment, data FROM metric_segment WHERE metric = ?", (metric,))
    with _sound():
        parts = [_decode(int(segment), bytes(data), aggregate) for segment, data in rows]
    if not parts:
        return np.zeros(0, np.int64), np.zeros(0)
    return np.concatenate([runs for runs, _ in parts]), np.concatenate([values for _, values in parts])


def read_texts(database: Database, kind: str, key: str) -> Coded:
    """A param, tag or attribute of text (by its column of the database) from all segments."""
    with _sound():
        return column_blobs.decode_texts(RUNS, _blobs(database, kind, key))


def read_integers(database: Database, key: str) -> tuple[Ints, Ints]:
    """An attribute that is a whole number from all segments: row numbers of its runs, int64[n], and int64[n]."""
    with _sound():
        return column_blobs.decode_integers(RUNS, _blobs(database, "attribute", key))


@contextmanager
def _sound() -> Iterator[None]:
    try:
        yield
    except (zlib.error, struct.error, ValueError, TypeError) as error:
        raise StoreDamaged(
            f"A stored column in the database is damaged ({error}). 'mltrack doctor' makes it anew."
        ) from None


def _blobs(database: Database, kind: str, key: str) -> Iterable[tuple[int, bytes]]:
    sql = "SELECT segment, data FROM column_segment WHERE kind = ? AND key = ? ORDER BY segment"
    return ((int(segment) * RUNS + 1, bytes(data)) for segment, data in database.execute(sql, (kind, key)))


def build(database: Database, uncovered: Ints) -> bool:
    """Write the segments that are worth it; each is one transaction. Returns whether any was written."""
    if database.readonly or not _is_worth(database, uncovered):
        return False
    numbers, counts = np.unique((uncovered - 1) // RUNS, return_counts=True)
    written = False
    try:
        for number in numbers[counts >= CHANGED].tolist():
            written |= _write(database, number)
    except (StoreUnavailable, ReadOnly, sqlite3.Error):
        return written  # full, busy or damaged: a search does without
    return written


def prepare(database: Database) -> bool:
    """Write the segments that the next search would, so that it does not wait for them. Returns whether any was written."""
    if database.readonly:
        return False
    return build(database, coverage(database)[1])


def forget(database: Database) -> None:
    """Remove all segments."""
    with database.transaction():
        for table in ("run_segment", "metric_segment", "column_segment"):
            database.execute(f"DELETE FROM {table}")


def _is_worth(database: Database, runs: Ints) -> bool:
    """Whether a search would wait for the rows of these runs."""
    if len(runs) >= WORTH or len(runs) < CHANGED:
        return len(runs) >= WORTH
    size = database.execute(
        "SELECT coalesce(sum(length(summary)), 0) FROM run WHERE id >= ?", (int(runs.min()),)
    )
    return int(size[0][0]) >= WORTH_BYTES


def _write(database: Database, segment: int) -> bool:
    first, last = span = segment * RUNS + 1, (segment + 1) * RUNS
    if any(
        int(database.execute(f"SELECT coalesce(sum({size}), 0) FROM {table} {_IN_SEGMENT}", span)[0][0])
        > LARGEST_BYTES
        for size, table in (
            ("length(summary)", "run WHERE id"),
            ("length(value)", "param WHERE run"),
            ("length(value)", "tag WHERE run"),
        )
    ):
        return False
    with database.transaction():
        seq = int(database.setting("seq", "0"))
        for table in ("metric_segment", "column_segment"):
            database.execute(f"DELETE FROM {table} WHERE segment = ?", (segment,))
        _write_metrics(database, segment, span)
        _write_columns(database, segment, span)
        database.execute(
            "INSERT INTO run_segment (id, seq, column_seq) VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE"
            " SET seq = excluded.seq, column_seq = excluded.column_seq",
            (segment, seq, seq),
        )
    return True


def _write_columns(database: Database, segment: int, span: tuple[int, int]) -> None:
    """Attributes, params and tags."""
    blobs: list[tuple[str, str, bytes]] = []
    names = (*TEXTS, *INTEGERS)
    runs, *columns = database.lists(("id", *names), f"run WHERE id {_IN_SEGMENT}", span)
    for name, column in zip(names, columns, strict=True):
        encode = column_blobs.encode_integers if name in INTEGERS else column_blobs.encode_texts
        here = [run - span[0] for run, value in zip(runs, column, strict=True) if value is not None]
        if here:
            data = encode(RUNS, here, [value for value in column if value is not None])
            blobs.append(("attribute", name, data))
    for kind, value in (("param", "value"), ("tag", TAG_VALUE)):
        found: dict[str, tuple[list[int], list[str]]] = {}
        for run, key, text in zip(
            *database.lists(("run", "key", value), f"{kind} WHERE run {_IN_SEGMENT}", span), strict=True
        ):
            if text is not None:
                places, texts = found.get(key) or found.setdefault(key, ([], []))
                places.append(run - span[0])
                texts.append(text)
        blobs += [(kind, key, column_blobs.encode_texts(RUNS, *column)) for key, column in found.items()]
    database.execute_many(
        "INSERT INTO column_segment (kind, key, segment, data) VALUES (?, ?, ?, ?)",
        [(kind, key, segment, data) for kind, key, data in blobs],
    )


def _write_metrics(database: Database, segment: int, span: tuple[int, int]) -> None:
    blobs: list[Row] = database.execute(
        f"SELECT id, summary FROM run WHERE id {_IN_SEGMENT} AND summary IS NOT NULL ORDER BY id", span
    )
    parts = [summaries.unpack(bytes(blob)) for _, blob in blobs]
    rows = summaries.joined(parts)
    owner = np.repeat(
        np.array([int(row[0]) - span[0] for row in blobs], np.uint16), [len(part) for part in parts]
    )
    # Of the rows only what is kept of them, in order: sorting whole rows would double them twice.
    places = np.flatnonzero((rows["rank"] == 0) & (rows["count"] > 0))
    places = places[np.argsort(rows["key"][places], kind="stable")]
    owner, keys = owner[places], rows["key"][places]
    kept = {field: rows[field][places] for field in ("count", *_FLOATS)}
    starts = np.flatnonzero(np.diff(keys, prepend=-1)).tolist()
    ends = [*starts[1:], len(keys)]
    database.execute_many(
        "INSERT INTO metric_segment (metric, segment, data) VALUES (?, ?, ?)",
        [
            (int(keys[start]), segment, _encode(kept, owner, start, end))
            for start, end in zip(starts, ends, strict=True)
        ],
    )


def _encode(
    kept: Mapping[str, npt.NDArray[np.generic]], owner: npt.NDArray[np.uint16], start: int, end: int
) -> bytes:
    counts = kept["count"][start:end].astype("<i8").tobytes()
    whole = zlib.compress(owner[start:end].astype("<u2").tobytes() + counts, 1)
    floats = b"".join(kept[field][start:end].astype("<f8").tobytes() for field in _FLOATS)
    return _HEAD.pack(end - start, len(whole)) + whole + floats


def _decode(segment: int, data: bytes, aggregate: Aggregate) -> tuple[Ints, FloatArray]:
    count, size = _HEAD.unpack_from(data)
    # The owners come first: that is all that is needed of it for most aggregates.
    wanted = 10 * count if aggregate == "count" else 2 * count
    whole = zlib.decompressobj().decompress(data[_HEAD.size : _HEAD.size + size], wanted)
    runs = np.frombuffer(whole, "<u2", count).astype(np.int64) + (segment * RUNS + 1)
    if aggregate == "count":
        return runs, np.frombuffer(whole, "<i8", count, 2 * count).astype(np.float64)
    offset = _HEAD.size + size + 8 * count * _PLACE[aggregate]
    return runs, np.frombuffer(data, "<f8", count, offset)

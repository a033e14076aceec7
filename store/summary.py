"""Packed summaries: what the run table and "best" read instead of points.

A row sums up the points of one (key, rank, attempt): first and last step, last time, last, min, max with their steps, counts.
Rows of any split of the same points merge to the same row, in any order: that is what makes folding repeatable.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mltrack.store.errors import StoreDamaged
from mltrack.store.series import Ints, PointColumns, value_order

Rows: TypeAlias = npt.NDArray[np.void]
Places: TypeAlias = npt.NDArray[np.intp]

ROW = np.dtype(
    [
        ("key", "<i4"),
        ("rank", "<i4"),
        ("attempt", "<i4"),
        ("first_step", "<i8"),
        ("last_step", "<i8"),
        ("last_time", "<i8"),
        ("last", "<f8"),
        ("low", "<f8"),
        ("low_step", "<i8"),
        ("high", "<f8"),
        ("high_step", "<i8"),
        ("count", "<i8"),
        ("nan", "<i8"),
        ("newest", "<i8"),  # largest time of any point, for telling new points from repeats
        ("cut", "<i8"),  # steps from here on are superseded and not in this row, unless it is whole
        ("whole", "i1"),  # 1: all points of the series; 0: only those before the cut
    ]
)
NO_CUT = np.iinfo(np.int64).max
MERGED = -1  # the attempt of a row that stands for all attempts


def no_rows() -> Rows:
    """Zero rows."""
    return np.empty(0, ROW)


def pack(rows: Rows) -> bytes:
    """Rows as they are stored: byte by byte of all rows, where most bytes repeat, through zlib. A third of their size."""
    planes = np.frombuffer(rows.tobytes(), np.uint8).reshape(-1, ROW.itemsize).T.tobytes()
    return zlib.compress(planes, 1)


def unpack(data: bytes | None) -> Rows:
    """Rows of a stored summary. Raises StoreDamaged when the bytes are not one (a damaged database page)."""
    return np.frombuffer(_planes(data).T.tobytes(), ROW) if data else no_rows()


def keys_of(data: bytes | None) -> npt.NDArray[np.int32]:
    """The keys of a stored summary that have a point of rank 0, once for each attempt. Raises StoreDamaged like ``unpack``."""
    if not data:
        return np.zeros(0, np.int32)
    planes = _planes(data)
    columns = {name: ROW.fields[name] for name in ("key", "rank", "count")} if ROW.fields else {}
    key, rank, count = (
        planes[offset : offset + kind.itemsize].T.copy().view(kind).ravel()
        for kind, offset in (field[:2] for field in columns.values())
    )
    kept: npt.NDArray[np.int32] = key[(rank == 0) & (count > 0)]
    return kept


def _planes(data: bytes) -> npt.NDArray[np.uint8]:
    try:
        return np.frombuffer(zlib.decompress(data), np.uint8).reshape(ROW.itemsize, -1)
    except (zlib.error, ValueError) as error:
        raise StoreDamaged(
            f"A run's summary in the database is damaged ({error}). 'mltrack doctor' rebuilds it from the journals."
        ) from None


def joined(parts: Sequence[Rows]) -> Rows:
    """Rows of many summaries behind each other. np.concatenate takes ten times as long: it compares the fields of every part."""
    return np.frombuffer(bytearray().join([part.tobytes() for part in parts]), ROW)


def rows_of_points(points: PointColumns) -> Rows:
    """One row per (key, rank, attempt) of points as ``distinct`` returns them: each once, and in order."""
    if len(points) == 0:
        return no_rows()
    new = np.ones(len(points), bool)
    new[1:] = (
        (points.key[1:] != points.key[:-1])
        | (points.rank[1:] != points.rank[:-1])
        | (points.attempt[1:] != points.attempt[:-1])
    )
    starts = np.flatnonzero(new)
    ends = np.append(starts[1:], len(points)) - 1
    sizes = ends - starts + 1
    nan = np.isnan(points.value)
    order = value_order(points.value)
    lows = np.where(nan, np.iinfo(np.int64).max, order)
    # Points are in order of steps: the first that holds the extreme has the smallest step.
    lowest = _first_equal(lows, np.minimum.reduceat(lows, starts), starts, sizes)
    highest = _first_equal(order, np.maximum.reduceat(order, starts), starts, sizes)
    rows = np.empty(len(starts), ROW)
    rows["key"], rows["rank"], rows["attempt"] = (
        points.key[starts],
        points.rank[starts],
        points.attempt[starts],
    )
    rows["first_step"], rows["last_step"] = points.step[starts], points.step[ends]
    rows["last_time"], rows["last"] = points.time[ends], points.value[ends]
    rows["low"], rows["low_step"] = points.value[lowest], points.step[lowest]
    rows["high"], rows["high_step"] = points.value[highest], points.step[highest]
    rows["count"], rows["nan"] = sizes, np.add.reduceat(nan.astype(np.int64), starts)
    rows["newest"], rows["cut"] = np.maximum.reduceat(points.time, starts), NO_CUT
    rows["whole"] = 1
    return rows


def _first_equal(values: Ints, wanted: Ints, starts: Places, sizes: Places) -> Places:
    """For each group the place of its first value that equals the wanted one; every group has one."""
    equal = np.flatnonzero(values == np.repeat(wanted, sizes))
    found: Places = equal[np.searchsorted(equal, starts)]
    return found


def merge(rows: Rows) -> Rows:
    """One row per (key, rank, attempt), sorted by it. Rows must stand for disjoint points."""
    if len(rows) == 0:
        return rows
    rows = rows[np.lexsort((rows["attempt"], rows["rank"], rows["key"]))]
    new = np.ones(len(rows), bool)
    new[1:] = (
        (rows["key"][1:] != rows["key"][:-1])
        | (rows["rank"][1:] != rows["rank"][:-1])
        | (rows["attempt"][1:] != rows["attempt"][:-1])
    )
    if new.all():
        return rows
    starts = np.flatnonzero(new)
    group = np.cumsum(new) - 1
    merged = rows[starts].copy()
    ends = np.append(starts[1:], len(rows)) - 1
    merged["first_step"] = np.minimum.reduceat(rows["first_step"], starts)
    merged["newest"] = np.maximum.reduceat(rows["newest"], starts)
    merged["count"] = np.add.reduceat(rows["count"], starts)
    merged["nan"] = np.add.reduceat(rows["nan"], starts)
    merged["cut"] = np.minimum.reduceat(rows["cut"], starts)
    newest = np.lexsort((value_order(rows["last"]), rows["last_time"], rows["last_step"], group))[ends]
    for field in ("last_step", "last_time", "last"):
        merged[field] = rows[field][newest]
    # A row of NaN only has low = high = NaN; it sorts behind every number for low and before every number for high.
    lows = np.where(np.isnan(rows["low"]), np.iinfo(np.int64).max, value_order(rows["low"]))
    lowest = np.lexsort((rows["low_step"], lows, group))[starts]
    merged["low"], merged["low_step"] = rows["low"][lowest], rows["low_step"][lowest]
    highs = value_order(rows["high"])
    steps_down = ~rows["high_step"]  # the smallest step wins among equal highs, and the largest sorts last
    highest = np.lexsort((steps_down, highs, group))[ends]
    merged["high"], merged["high_step"] = rows["high"][highest], rows["high_step"][highest]
    return merged


def over_attempts(rows: Rows) -> Rows:
    """Rows per (key, rank) over all attempts, from rows that leave superseded points out."""
    rows = rows[rows["count"] > 0].copy()
    rows["attempt"] = MERGED
    rows["cut"], rows["whole"] = NO_CUT, 1
    return merge(rows)

"""Blocks of points in the database: reading one series, and merging small blocks into packs and chunks."""

from __future__ import annotations

import numpy as np

from mltrack.store.database import Database
from mltrack.store.errors import StoreDamaged
from mltrack.store.series import PointColumns, decode_block, distinct, encode_block, join
from mltrack.store.zoom import Chunk, Zoom, decode_zoom, encode_zoom

BATCH, PACK, CHUNK = 0, 1, 2
CHUNK_MIN = 1024
CHUNK_MAX = 8192
PACK_POINTS = 8192  # 64 kB of values
# Merging packs again pays only while they are not much larger than what is new.
PACK_GROWTH = 4
# What one merge may hold in memory: 48 bytes a point.
MERGE_POINTS = 4_000_000


def read_points(database: Database, run: int, key: int) -> PointColumns:
    """All points of one metric of a run, unsorted, of every rank and attempt."""
    rows = database.execute(
        "SELECT key, data FROM block WHERE run = ? AND (key = ? OR key IS NULL) ORDER BY id", (run, key)
    )
    parts: list[PointColumns] = []
    for chunk_key, data in rows:
        points = decode(data)
        parts.append(points if chunk_key is not None else points.take(points.key == key))
    return join(parts)


def read_loose_points(database: Database, run: int) -> PointColumns:
    """The points of a run that lie in no chunk, unsorted."""
    rows = database.execute("SELECT data FROM block WHERE run = ? AND key IS NULL ORDER BY id", (run,))
    return join([decode(data) for (data,) in rows])


def read_zoom(database: Database, run: int, key: int, loose: PointColumns) -> Zoom | None:
    """The outline of a metric's rank 0 with its ``loose`` points; None where all points have to be read.

    When there is one, the series is of one attempt, and no step comes twice."""
    rows = database.execute(
        "SELECT attempt, zoom, first_step, last_step, count, low, high FROM block WHERE run = ? AND key = ? AND rank = 0"
        " ORDER BY first_step, id",
        (run, key),
    )
    if not rows or any(row[1] is None for row in rows):
        return None
    tail = distinct(loose.take((loose.key == key) & (loose.rank == 0)))
    if len({int(row[0]) for row in rows} | set(tail.attempt.tolist())) > 1:
        return None
    return decode_zoom([bytes(row[1]) for row in rows], tail, [Chunk(*row[2:]) for row in rows])


def read_window(database: Database, run: int, key: int, low: float, high: float) -> PointColumns:
    """All points from ``low`` to ``high`` of a metric that has an outline, and more of it; unsorted."""
    rows = database.execute(
        "SELECT key, data FROM block WHERE run = ? AND (key IS NULL OR (key = ? AND last_step >= ? AND first_step <= ?))",
        (run, key, low, high),
    )
    parts = [(chunk_key, decode(data)) for chunk_key, data in rows]
    return join([part if chunk_key is not None else part.take(part.key == key) for chunk_key, part in parts])


def read_all_points(database: Database, run: int) -> PointColumns:
    """Every point of a run, unsorted."""
    return join(
        [
            decode(data)
            for (data,) in database.execute("SELECT data FROM block WHERE run = ? ORDER BY id", (run,))
        ]
    )


def decode(data: bytes) -> PointColumns:
    """The points of a stored block. Raises StoreDamaged."""
    try:
        return decode_block(bytes(data))
    except ValueError as error:
        raise StoreDamaged(
            f"Points in the database are damaged ({error}). 'mltrack doctor' rebuilds them from the journals."
        ) from error


def merge_blocks(database: Database, run: int, last: bool) -> None:
    """Batches (and packs, when that pays or the run has ended) -> packs and chunks. Inside a transaction."""
    sizes: dict[int, int] = dict(
        database.execute("SELECT kind, sum(count) FROM block WHERE run = ? GROUP BY kind", (run,))
    )
    new, packed = int(sizes.get(BATCH, 0)), int(sizes.get(PACK, 0))
    with_packs = packed > 0 and (last or packed <= PACK_GROWTH * new) and packed + new <= MERGE_POINTS
    if new == 0 and not with_packs:
        return
    if (
        new == 0
        and len(database.execute("SELECT id FROM block WHERE run = ? AND kind = ?", (run, PACK))) == 1
    ):
        return
    kinds = (BATCH, PACK) if with_packs else (BATCH, BATCH)
    rows = database.execute(
        "SELECT id, data FROM block WHERE run = ? AND kind IN (?, ?) ORDER BY id", (run, *kinds)
    )
    points = distinct(join([decode(data) for _, data in rows]))
    database.execute_many("DELETE FROM block WHERE id = ?", [(row[0],) for row in rows])
    write_merged(database, run, points)


def write_merged(database: Database, run: int, points: PointColumns) -> None:
    """Store points, sorted and each once, as packs and chunks. Inside a transaction."""
    series = (points.key << 32) | (points.rank << 14) | points.attempt
    starts = np.flatnonzero(np.concatenate(([True], series[1:] != series[:-1])))
    ends = np.append(starts[1:], len(points))
    small: list[tuple[int, int]] = []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        if end - start < CHUNK_MIN:
            small.append((start, end))
            continue
        pieces = -(-(end - start) // CHUNK_MAX)
        bounds = np.linspace(start, end, pieces + 1).astype(int).tolist()
        for left, right in zip(bounds[:-1], bounds[1:], strict=True):
            _write(database, run, CHUNK, points.take(slice(left, right)))
    group: list[PointColumns] = []
    size = 0
    for start, end in small:
        group.append(points.take(slice(start, end)))
        size += end - start
        if size >= PACK_POINTS:
            _write(database, run, PACK, join(group))
            group, size = [], 0
    if group:
        _write(database, run, PACK, join(group))


def _write(database: Database, run: int, kind: int, points: PointColumns) -> None:
    chunk = kind == CHUNK
    finite = points.value[~np.isnan(points.value)]
    bounded = chunk and len(finite) > 0
    database.execute(
        "INSERT INTO block (run, kind, key, rank, attempt, first_step, last_step, count, low, high, data, zoom)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            run,
            kind,
            int(points.key[0]) if chunk else None,
            int(points.rank[0]) if chunk else None,
            int(points.attempt[0]) if chunk else None,
            int(points.step.min()),
            int(points.step.max()),
            len(points),
            float(finite.min()) if bounded else None,
            float(finite.max()) if bounded else None,
            encode_block(points, small=True),
            encode_zoom(points) if chunk else None,
        ),
    )

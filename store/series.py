"""Points as bytes: one codec for batches, packs and chunks, exact for every int64 and every float64.

A block holds points as six columns (key, rank, attempt, step, time in ms, value), in any order. Whole numbers are stored as
differences in the narrowest type that holds them; zlib then finds the repeats (all series of a training share their time
line). Values are stored as they are, or byte-plane by byte-plane through zlib where that is smaller.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Ints: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]

FORMAT = 1
_HEAD = struct.Struct("<BBII")
_INT_COLUMNS = 5
_RAW, _PLANES = 0, 1


@dataclass(frozen=True, slots=True, eq=False)
class PointColumns:
    """``n`` points: five int64[n] columns and float64[n] values. NaN payloads are not kept apart."""

    key: Ints
    rank: Ints
    attempt: Ints
    step: Ints
    time: Ints
    value: Floats

    def __len__(self) -> int:
        return len(self.value)

    def take(self, rows: npt.NDArray[np.intp] | npt.NDArray[np.bool_] | slice) -> PointColumns:
        """The points of these rows."""
        return PointColumns(
            self.key[rows],
            self.rank[rows],
            self.attempt[rows],
            self.step[rows],
            self.time[rows],
            self.value[rows],
        )


def no_points() -> PointColumns:
    """Zero points."""
    empty = np.empty(0, np.int64)
    return PointColumns(empty, empty, empty, empty, empty, np.empty(0, np.float64))


def join(parts: list[PointColumns]) -> PointColumns:
    """All points of ``parts``, in their order."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return no_points()
    return PointColumns(
        np.concatenate([part.key for part in parts]),
        np.concatenate([part.rank for part in parts]),
        np.concatenate([part.attempt for part in parts]),
        np.concatenate([part.step for part in parts]),
        np.concatenate([part.time for part in parts]),
        np.concatenate([part.value for part in parts]),
    )


def value_order(values: Floats) -> Ints:
    """int64 keys that sort like the values: NaN first, then -inf … -0.0, 0.0 … inf. Equal keys mean equal bits."""
    bits = np.ascontiguousarray(values).view(np.int64)
    keys = np.where(bits < 0, bits ^ np.int64(0x7FFFFFFFFFFFFFFF), bits)
    return np.where(np.isnan(values), np.iinfo(np.int64).min, keys)


def distinct(points: PointColumns) -> PointColumns:
    """The points sorted by (key, rank, attempt, step, time, value), equal ones once: the rule of points."""
    if len(points) == 0:
        return points
    grouped = _by_key(points)
    if grouped is not None:
        return grouped
    order = value_order(points.value)
    rows = np.lexsort((order, points.time, points.step, points.attempt, points.rank, points.key))
    found = points.take(rows)
    order = order[rows]
    same = (
        (found.key[1:] == found.key[:-1])
        & (found.rank[1:] == found.rank[:-1])
        & (found.attempt[1:] == found.attempt[:-1])
        & (found.step[1:] == found.step[:-1])
        & (found.time[1:] == found.time[:-1])
        & (order[1:] == order[:-1])
    )
    if same.any():
        found = found.take(np.concatenate(([True], ~same)))
    return found


def _by_key(points: PointColumns) -> PointColumns | None:
    """The usual case of ``distinct`` at a fifth of its price: one journal's points, each series in order of time."""
    if (points.rank != points.rank[0]).any() or (points.attempt != points.attempt[0]).any():
        return None
    low, high = int(points.key.min()), int(points.key.max())
    found = points
    if low != high:
        narrow = 0 <= low and high < 1 << 15  # numpy sorts 16 bits by radix
        found = points.take(np.argsort(points.key.astype(np.int16) if narrow else points.key, kind="stable"))
    step, time = found.step, found.time
    in_order = (
        (found.key[1:] != found.key[:-1])
        | (step[1:] > step[:-1])
        | ((step[1:] == step[:-1]) & (time[1:] > time[:-1]))
    )
    return found if in_order.all() else None


def encode_block(points: PointColumns, small: bool) -> bytes:
    """Bytes of a block. ``small`` spends time on the values too (merged blocks; batches are merged soon anyway)."""
    with np.errstate(over="ignore"):
        parts = [
            _encode_ints(column)
            for column in (points.key, points.rank, points.attempt, points.step, points.time)
        ]
    ints = zlib.compress(b"".join(parts), 6 if small else 1)
    raw = np.ascontiguousarray(points.value, dtype="<f8").tobytes()
    how, body = _RAW, raw
    if small and raw:
        planes = np.frombuffer(raw, np.uint8).reshape(-1, 8).T.tobytes()
        packed = zlib.compress(planes, 6)
        if len(packed) < len(raw):
            how, body = _PLANES, packed
    return _HEAD.pack(FORMAT, how, len(points), len(ints)) + ints + body


def decode_block(data: bytes) -> PointColumns:
    """The points of a block. Raises ValueError when the bytes are not one (a damaged database page)."""
    try:
        version, how, count, ints_size = _HEAD.unpack_from(data)
        if version != FORMAT or how not in (_RAW, _PLANES):
            raise ValueError(f"block format {version}/{how} is not known")
        body = data[_HEAD.size + ints_size :]
        if how == _PLANES:
            planes = np.frombuffer(_inflate(body, 8 * count), np.uint8)
            body = planes.reshape(8, -1).T.tobytes()
        # Before anything is allocated for them: a damaged count may claim four billion points.
        if len(body) != 8 * count:
            raise ValueError("a block of points is damaged (its columns differ in length)")
        ints = _inflate(data[_HEAD.size : _HEAD.size + ints_size], _INT_COLUMNS * (9 + 8 * count))
        columns: list[Ints] = []
        offset = 0
        for _ in range(_INT_COLUMNS):
            column, offset = _decode_ints(ints, offset, count)
            columns.append(column)
        value = np.frombuffer(body, "<f8").astype(np.float64, copy=False)
    except (struct.error, zlib.error) as error:
        raise ValueError(f"a block of points is damaged ({error})") from None
    return PointColumns(columns[0], columns[1], columns[2], columns[3], columns[4], value)


def _inflate(data: bytes, limit: int) -> bytes:
    """At most ``limit`` bytes of a zlib stream. Raises ValueError when it is longer or cut short."""
    stream = zlib.decompressobj()
    inflated = stream.decompress(data, limit + 1)
    if len(inflated) > limit or not stream.eof:
        raise ValueError("a block of points is damaged (it does not unpack to its size)")
    return inflated


def _encode_ints(column: Ints) -> bytes:
    """First value (8 bytes), width (1 byte), then differences; they wrap around, which adds up exactly again."""
    if len(column) == 0:
        return b"\0" * 9
    deltas = np.diff(column)
    low, high = (int(deltas.min()), int(deltas.max())) if len(deltas) else (0, 0)
    width = (
        0
        if low == high == 0
        else next(w for w in (1, 2, 4, 8) if -(1 << (8 * w - 1)) <= low and high < 1 << (8 * w - 1))
    )
    body = b"" if width == 0 else deltas.astype(f"<i{width}").tobytes()
    return struct.pack("<qB", int(column[0]), width) + body


def _decode_ints(data: bytes, offset: int, count: int) -> tuple[Ints, int]:
    first, width = struct.unpack_from("<qB", data, offset)
    offset += 9
    column = np.empty(count, np.int64)
    if count == 0:
        return column, offset
    column[0] = first
    if width == 0:
        column[1:] = first
        return column, offset
    end = offset + (count - 1) * width
    if width not in (1, 2, 4, 8) or end > len(data):
        raise ValueError("a block of points is damaged (its numbers are cut short)")
    column[1:] = np.frombuffer(data[offset:end], f"<i{width}")
    with np.errstate(over="ignore"):
        np.cumsum(column, out=column)
    return column, end

"""TFRecord framing: length, its CRC, data, its CRC; read in chunks, with a way back into step behind damage."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from mltrack.store.sources.crc32c import Bytes, contributions, crc32c_many, masked

CHUNK_BYTES = 1 << 20
# A record larger than this is passed over: no scalar needs it, and it would have to be held in memory whole.
RECORD_BYTES = 64 << 20
_HEAD, _TAIL = 12, 4
# Behind the data of every chunk, so that whole words can be gathered at its end.
PADDING = 16
_LENGTH = struct.Struct("<Q")
_NONE = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Whole records: ``data[starts[i] : starts[i] + lengths[i]]``, each followed by its CRC, which is not checked yet.

    ``position`` is where reading goes on, and ``lost`` whether it does so by looking for the next intact record.
    """

    position: int
    lost: bool
    data: Bytes = field(default_factory=lambda: np.zeros(PADDING, np.uint8))
    starts: npt.NDArray[np.int64] = field(default_factory=lambda: _NONE)
    lengths: npt.NDArray[np.int64] = field(default_factory=lambda: _NONE)
    skipped: int = 0


def read_chunks(fd: int, position: int, lost: bool = False, settled: bool = True) -> Iterator[Chunk]:
    """The whole records behind ``position`` as far as the file goes now.

    A record that is not whole yet is left for the next time. Behind a damaged header reading goes on at the next place that
    looks like one (64 bits of length that fit 32 bits of CRC). Unless the file is ``settled``, a header of zeros is a hole in a
    copy that goes on, and a last record that fails its CRC too: both are waited for. Raises OSError.
    """
    size = os.fstat(fd).st_size
    want = CHUNK_BYTES
    while position < size:
        raw = os.pread(fd, min(want, size - position), position)
        if not raw:
            return
        if lost:
            place = find_header(np.frombuffer(raw, np.uint8), size - position)
            if place is None:
                rest = max(0, len(raw) - (_HEAD - 1))
                position += rest
                yield Chunk(position, True)
                if rest == 0 or position + _HEAD > size:
                    return
                continue
            position, lost = position + place, False
            yield Chunk(position, False)
            continue
        found = _frames(raw, last=not settled and position + len(raw) == size)
        if found.hole and not settled:
            yield _chunk(raw, found, position + found.end, False, 0)
            return
        if found.broken:
            position, lost = position + found.end + 1, True
            yield _chunk(raw, found, position, True, 1)
        elif len(found.starts):
            position += found.end
            yield _chunk(raw, found, position, False, 0)
        elif found.wanted == 0 or found.wanted > size - position:
            return
        elif found.wanted > RECORD_BYTES:
            position += found.wanted
            yield Chunk(position, False, skipped=1)
        else:
            want = found.wanted
            continue
        want = CHUNK_BYTES


def read_whole(raw: bytes) -> Chunk | None:
    """The records of a file that was read whole; None when it ends within one, or the header of one is damaged."""
    found = _frames(raw, last=False)
    return None if found.broken or found.end != len(raw) else _chunk(raw, found, len(raw), False, 0)


@dataclass(frozen=True, slots=True)
class _Frames:
    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    end: int
    broken: bool
    hole: bool
    wanted: int
    """How many bytes the record at ``end`` takes in all; 0 while its header is not whole."""


def _chunk(raw: bytes, found: _Frames, position: int, lost: bool, skipped: int) -> Chunk:
    data = np.frombuffer(raw + bytes(PADDING), np.uint8)
    return Chunk(position, lost, data, found.starts, found.lengths, skipped)


def _frames(raw: bytes, last: bool) -> _Frames:
    """Where the records lie, as far as their headers are intact. ``last``: a damaged one at the end is a hole."""
    unpack, size = _LENGTH.unpack_from, len(raw)
    places: list[int] = []
    place = wanted = 0
    while place + _HEAD <= size:
        wanted = unpack(raw, place)[0] + _HEAD + _TAIL
        if place + wanted > size:
            break
        places.append(place)
        place += wanted
        wanted = 0
    heads = np.array([*places, place] if wanted else places, np.int64)
    array = np.frombuffer(raw, np.uint8)
    intact = _intact(array, heads)
    broken = not intact.all()
    if broken:
        place = int(heads[np.argmin(intact)])
        heads = heads[: np.argmin(intact)]
    elif wanted:
        heads = heads[:-1]
    lengths = np.diff(np.append(heads, place)) - (_HEAD + _TAIL)
    starts = heads + _HEAD
    hole = broken and raw[place : place + _HEAD] == bytes(_HEAD)
    at_end = last and place == size
    if (broken or at_end) and len(heads) and not check_crcs(array, starts[-1:], lengths[-1:])[0]:
        # Bytes are missing within the record before: the next one begins inside of what its length covers.
        place, starts, lengths = int(heads[-1]), starts[:-1], lengths[:-1]
        hole = hole or at_end
    return _Frames(starts, lengths, place, broken, hole, wanted)


def _intact(data: Bytes, heads: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Whether the CRC of each header is that of its length."""
    if len(heads) == 0:
        return np.empty(0, np.bool_)
    rows = sliding_window_view(data, _HEAD)[heads]
    stored = _word([rows[:, place] for place in range(8, 12)])
    return np.equal(_length_crc([rows[:, place] for place in range(8)]), stored)


def _length_crc(columns: list[Bytes]) -> npt.NDArray[np.uint32]:
    table = contributions()
    crc = np.full(len(columns[0]), 0xFFFFFFFF, np.uint32)
    for place, column in enumerate(columns):
        crc ^= table[7 - place][column ^ 0xFF if place < 4 else column]
    return masked(crc)


def _word(columns: list[Bytes]) -> npt.NDArray[np.uint32]:
    word = columns[0].astype(np.uint32)
    for place in (1, 2, 3):
        word |= columns[place].astype(np.uint32) << np.uint32(8 * place)
    return word


def find_header(data: Bytes, limit: int) -> int | None:
    """The first place where an intact header of a record lies that does not reach beyond ``limit`` bytes."""
    step = 1 << 16
    for begin in range(0, len(data) - _HEAD + 1, step):
        part = data[begin : begin + step + _HEAD - 1]
        count = len(part) - _HEAD + 1
        columns = [part[place : place + count] for place in range(_HEAD)]
        for place in np.flatnonzero(_length_crc(columns[:8]) == _word(columns[8:])).tolist():
            length = _LENGTH.unpack_from(part[place : place + 8].tobytes())[0]
            if begin + place + length + _HEAD + _TAIL <= limit:
                return begin + place
    return None


def check_crcs(
    data: Bytes, starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Whether the data of each record is what was written."""
    if len(starts) == 0:
        return np.empty(0, np.bool_)
    tails = (starts + lengths)[:, None] + np.arange(_TAIL)
    return np.equal(masked(crc32c_many(data, starts, lengths)), _word(list(data[tails].T)))

"""CRC-32C (Castagnoli) of many byte strings at once, as TFRecord and LevelDB logs use it, without Python code per byte.

The checksum is linear: the CRC of a string is the exclusive or of what each byte contributes at its distance from the end. So
a table of contributions turns a checksum into one gather and one reduction, over as many strings as there are.
"""

from __future__ import annotations

import functools
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Bytes: TypeAlias = npt.NDArray[np.uint8]
Words: TypeAlias = npt.NDArray[np.uint32]

_POLYNOMIAL = 0x82F63B78
# Longer strings are taken in pieces of this; a table row is 1 kB.
PIECE = 1024
_STEP_BYTES = 1 << 17
_ALL = np.uint32(0xFFFFFFFF)
_DISTANCE = np.arange(PIECE - 1, -1, -1)
# So many strings are done sooner one by one.
_FEW = 8


@functools.cache
def contributions() -> Words:
    """uint32[PIECE, 256]: what byte value ``b`` followed by ``k`` others adds, before the first and last inversion."""
    row = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        row = np.where(row & 1, (row >> 1) ^ np.uint32(_POLYNOMIAL), row >> 1).astype(np.uint32)
    table = np.empty((PIECE, 256), np.uint32)
    table[0] = row
    for place in range(1, PIECE):
        table[place] = row[table[place - 1] & 0xFF] ^ (table[place - 1] >> 8)
    return table


def crc32c(data: bytes | memoryview | Bytes) -> int:
    """The CRC-32C of one string."""
    array = np.frombuffer(data, np.uint8) if not isinstance(data, np.ndarray) else data
    size = len(array)
    if size > PIECE:
        return _long(array)
    parts = contributions()[_DISTANCE[PIECE - size :], array]
    return int(np.bitwise_xor.reduce(parts)) ^ _start_of(size) ^ 0xFFFFFFFF


@functools.cache
def _start_of(size: int) -> int:
    return int(_inverted_start(np.array([size]))[0])


def crc32c_many(
    data: Bytes, starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint32]:
    """The CRC-32C of ``data[start : start + length]`` for each pair: uint32[n]. The strings must lie within ``data``."""
    if len(starts) <= _FEW:
        strings = zip(starts.tolist(), (starts + lengths).tolist(), strict=True)
        return np.array([crc32c(data[start:end]) for start, end in strings], np.uint32)
    found = np.empty(len(starts), np.uint32)
    short = lengths <= PIECE
    chosen = np.flatnonzero(short)
    # Small steps: what they work on stays in the processor's cache.
    step_of = np.cumsum(lengths[chosen]) // _STEP_BYTES
    for part in np.split(chosen, np.flatnonzero(np.diff(step_of)) + 1):
        if len(part):
            found[part] = _short(data, starts[part], lengths[part])
    for index in np.flatnonzero(~short).tolist():
        begin = int(starts[index])
        found[index] = _long(data[begin : begin + int(lengths[index])])
    return found


def _short(
    data: Bytes, starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint32]:
    """Strings of at most PIECE bytes, the bytes of all of them in one gather."""
    total = int(lengths.sum())
    ends = np.cumsum(lengths)
    # For byte number i of all: how many bytes of its own string follow it, and where it lies.
    behind = np.repeat(ends, lengths) - 1 - np.arange(total)
    places = np.repeat(starts + lengths, lengths) - 1 - behind
    parts = contributions()[behind, data[places]]
    crc = np.zeros(len(starts), np.uint32)
    filled = lengths > 0
    if filled.any():
        crc[filled] = np.bitwise_xor.reduceat(parts, (ends - lengths)[filled])
    return crc ^ _inverted_start(lengths) ^ _ALL


def _inverted_start(lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
    """What the register's start value of all ones has become behind a string of each length."""
    table = contributions()
    found = np.zeros(len(lengths), np.uint32)
    for place in range(4):  # the same as inverting the first four bytes
        reached = lengths > place
        found[reached] ^= table[lengths[reached] - 1 - place, 0xFF]
    short = lengths < 4
    if short.any():  # what is left of the ones has only moved on
        found[short] ^= _ALL >> (8 * lengths[short]).astype(np.uint32)
    return found


def _long(data: Bytes) -> int:
    """Piece by piece: the register moves on by PIECE bytes with four look-ups."""
    table = contributions()
    first = len(data) % PIECE or PIECE
    crc = crc32c(data[:first]) ^ 0xFFFFFFFF
    rows = data[first:].reshape(-1, PIECE)
    step = _STEP_BYTES // PIECE
    for begin in range(0, len(rows), step):
        block = np.bitwise_xor.reduce(table[_DISTANCE, rows[begin : begin + step]], axis=1)
        for own in block.tolist():
            crc = own ^ int(
                table[PIECE - 1, crc & 0xFF]
                ^ table[PIECE - 2, crc >> 8 & 0xFF]
                ^ table[PIECE - 3, crc >> 16 & 0xFF]
                ^ table[PIECE - 4, crc >> 24]
            )
    return crc ^ 0xFFFFFFFF


def masked(crc: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """As TFRecord and LevelDB store it: rotated and moved, so that a CRC of data that holds CRCs stays a good check."""
    return ((crc >> np.uint32(15)) | (crc << np.uint32(17))) + np.uint32(0xA282EAD8)


def masked_crc(crc: int) -> int:
    """The same for one."""
    return ((crc >> 15 | (crc << 17 & 0xFFFFFFFF)) + 0xA282EAD8) & 0xFFFFFFFF

"""How one column of a segment's runs is written: which of its runs have a value, and the values.

A body is a bit for each row number of the segment, then a number for each run that has a value, in order, as the difference to the
one before; it is kept compressed where that halves it. Texts are dictionary-coded: the numbers are codes, and the texts follow.
Many segments are read at once, with a step or two of Python for each of them.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import orjson

from mltrack.store.series import Ints

_HEAD = struct.Struct("<BH")  # whether the body is compressed, and how many runs have a value
_CODE, _WHOLE = np.dtype("<u2"), np.dtype("<i8")


@dataclass(frozen=True, slots=True, eq=False)
class Coded:
    """Texts of many runs: ``runs`` int64[n], ``codes`` int64[n] into ``values``, which may hold a text several times."""

    runs: Ints
    codes: Ints
    values: list[str]

    def take(self, which: npt.NDArray[np.bool_]) -> Coded:
        """Those of some of the runs."""
        return Coded(self.runs[which], self.codes[which], self.values)


def encode_texts(size: int, places: Sequence[int], texts: Sequence[str]) -> bytes:
    """Texts of runs by their places below ``size``, which is at most 65,535."""
    known: dict[str, int] = {}
    codes = np.array([known.setdefault(text, len(known)) for text in texts], _CODE)
    return _encode(size, places, codes, orjson.dumps(list(known)))


def encode_integers(size: int, places: Sequence[int], values: Sequence[int]) -> bytes:
    """Whole numbers of runs by their places below ``size``, which is at most 65,535."""
    return _encode(size, places, np.array(values, _WHOLE), b"")


def decode_texts(size: int, blobs: Iterable[tuple[int, bytes]]) -> Coded:
    """Texts of many segments: of each the run at place 0, and what ``encode_texts`` made."""
    runs, codes, counts, rests = _decode(size, blobs, _CODE)
    dictionaries = [orjson.loads(rest) for rest in rests]
    starts = np.cumsum([0, *map(len, dictionaries)])[:-1]
    values = [text for dictionary in dictionaries for text in dictionary]
    return Coded(runs, codes.astype(np.int64) + np.repeat(starts, counts), values)


def decode_integers(size: int, blobs: Iterable[tuple[int, bytes]]) -> tuple[Ints, Ints]:
    """Whole numbers of many segments: their runs, int64[n], and int64[n]."""
    runs, values, _, _ = _decode(size, blobs, _WHOLE)
    return runs, values


def _encode(size: int, places: Sequence[int], numbers: npt.NDArray[Any], rest: bytes) -> bytes:
    flags = np.zeros(size, np.bool_)
    flags[list(places)] = True
    steps = np.diff(numbers[np.argsort(places)], prepend=numbers.dtype.type(0))
    body = np.packbits(flags).tobytes() + steps.tobytes() + rest
    packed = zlib.compress(body, 1)
    if 2 * len(packed) < len(body):
        return _HEAD.pack(1, len(numbers)) + packed
    return _HEAD.pack(0, len(numbers)) + body


def _decode(
    size: int, blobs: Iterable[tuple[int, bytes]], kind: np.dtype[Any]
) -> tuple[Ints, Ints, list[int], list[bytes]]:
    """Runs, their numbers, how many of them each segment has, and what follows in each."""
    first: list[int] = []
    counts: list[int] = []
    bits: list[bytes] = []
    steps: list[bytes] = []
    rests: list[bytes] = []
    length = (size + 7) // 8
    for run, data in blobs:
        packed, count = _HEAD.unpack_from(data)
        body = zlib.decompress(data[_HEAD.size :]) if packed else data[_HEAD.size :]
        end = length + count * kind.itemsize
        first.append(run)
        counts.append(count)
        bits.append(body[:length])
        steps.append(body[length:end])
        rests.append(body[end:])
    places = np.flatnonzero(np.unpackbits(np.frombuffer(b"".join(bits), np.uint8)))
    runs = places % (8 * length) + np.repeat(np.array(first, np.int64), counts)
    # Differences are summed up over all segments, and what came before each is taken off; both may wrap around.
    sums = np.concatenate((np.zeros(1, kind), np.cumsum(np.frombuffer(b"".join(steps), kind), dtype=kind)))
    ends = np.cumsum([0, *counts])
    return runs, cast(Ints, sums[1:] - np.repeat(sums[ends[:-1]], counts)), counts, rests

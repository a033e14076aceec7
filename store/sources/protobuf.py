"""The wire format of protocol buffers, as far as reading other tools' files needs it: fields by number, no schema."""

from __future__ import annotations

import struct
from collections.abc import Iterator

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
_DOUBLE = struct.Struct("<d")
_FLOAT = struct.Struct("<f")


class NotAMessage(ValueError):
    """The bytes are no protocol buffer message."""


def varint(data: bytes, place: int, end: int) -> tuple[int, int]:
    """An unsigned whole number of up to 64 bits and where it ends. Raises NotAMessage."""
    value = shift = 0
    while place < end and shift < 70:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, place
        shift += 7
    raise NotAMessage("a number is cut short")


def fields(data: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int, int, int]]:
    """``(field, wire type, a, b)`` in order: a number and where it ends for VARINT, else the bytes from ``a`` to ``b``.

    Raises NotAMessage when something does not fit; what was yielded before is then not to be trusted either.
    """
    place, end = start, len(data) if end is None else end
    while place < end:
        key, place = varint(data, place, end)
        field, wire = key >> 3, key & 7
        if wire == VARINT:
            value, place = varint(data, place, end)
            yield field, wire, value, place
            continue
        if wire == LENGTH:
            size, place = varint(data, place, end)
        elif wire in (FIXED64, FIXED32):
            size = 8 if wire == FIXED64 else 4
        else:
            raise NotAMessage(f"wire type {wire}")
        if field == 0 or size > end - place:
            raise NotAMessage("a field is cut short")
        yield field, wire, place, place + size
        place += size


def signed(value: int) -> int:
    """An int64 or int32 field's number: two's complement of 64 bits."""
    return value - (1 << 64) if value >= 1 << 63 else value


def double(data: bytes, place: int) -> float:
    """The float64 at a place."""
    return float(_DOUBLE.unpack_from(data, place)[0])


def single(data: bytes, place: int) -> float:
    """The float32 at a place, widened exactly."""
    return float(_FLOAT.unpack_from(data, place)[0])


def text(data: bytes, start: int, end: int) -> str:
    """A string field; what is not UTF-8 becomes the replacement character."""
    return data[start:end].decode("utf-8", "replace")

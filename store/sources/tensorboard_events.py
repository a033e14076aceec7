"""TensorBoard's events: records of an event file -> scalars as columns, and whatever else was logged, one by one.

Almost all records of a file look like one before them but for a time, a step, a name and a value. So one record of each form is
taken apart in Python and becomes a template: where those four lie. All other records of its form are recognised, checked
and read by numpy. The CRC is linear, so a record that differs from an intact one in few bytes is checked with few look-ups.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from mltrack.store.sources import protobuf
from mltrack.store.sources.crc32c import contributions, crc32c, masked, masked_crc
from mltrack.store.sources.protobuf import FIXED32, FIXED64, LENGTH, VARINT, NotAMessage
from mltrack.store.sources.tfrecord import PADDING, Chunk, check_crcs

Ints = npt.NDArray[np.int64]

# Fewer records of a form than this are read one by one; no more forms than that are tried for one length of record.
_FEW, _FORMS = 24, 24
# Longer records are not scalars.
_TEMPLATE_BYTES = 512
# Of a text this much is kept.
TEXT_BYTES = 64 * 1024
_SESSION_START = 1
_NUMBERS = {
    1: "<f4",
    2: "<f8",
    3: "<i4",
    4: "u1",
    5: "<i2",
    6: "i1",
    9: "<i8",
    10: "?",
    17: "<u2",
    19: "<f2",
    22: "<u4",
    23: "<u8",
}
_BFLOAT = 14
_OLD_KINDS = {3: "histograms", 4: "images", 5: "histograms", 6: "audio"}


@dataclass(frozen=True, slots=True)
class Scalar:
    """One number in one event: where its name lies, and either its value or (``kind``, ``place``) of the bytes that hold it."""

    tag: tuple[int, int]
    kind: str
    place: int
    value: float


@dataclass(frozen=True, slots=True)
class Other:
    """Anything logged that is no number. ``kind`` is TensorBoard's plugin (images, histograms, text, hparams, ...)."""

    record: int
    tag: str
    kind: str
    step: int
    wall: float
    content: bytes = b""
    text: str | None = None


@dataclass(slots=True)
class Event:
    """One event taken apart. ``places`` are (wall time, step, bytes of the step), -1 where the field is left out."""

    wall: float = 0.0
    step: int = 0
    places: tuple[int, int, int] = (-1, -1, 0)
    scalars: list[Scalar] = field(default_factory=list)
    others: list[Other] = field(default_factory=list)
    restarts: bool = False
    plain: bool = True
    """Whether a record that differs only in times, steps, names and values means the same."""


@dataclass(frozen=True, slots=True, eq=False)
class Events:
    """The events of a chunk. ``n`` numbers: ``tags[tag[i]]``, seconds, int32 number of the record they come from.

    ``restarts`` are records behind which a writer begins anew; ``skipped`` records were damaged.
    """

    tags: list[str]
    tag: npt.NDArray[np.int32]
    step: Ints
    wall: npt.NDArray[np.float64]
    value: npt.NDArray[np.float64]
    record: npt.NDArray[np.int64]
    others: list[Other]
    restarts: list[int]
    skipped: int


def read_event(data: bytes, record: int = 0) -> Event:
    """Take one record apart. Raises NotAMessage."""
    event = Event()
    wall_at = step_at = -1
    step_bytes = 0
    summaries: list[tuple[int, int]] = []
    before, graph = 0, False
    for number, wire, a, b in protobuf.fields(data):
        if number == 1 and wire == FIXED64 and wall_at < 0:
            wall_at, event.wall = a, protobuf.double(data, a)
        elif number == 2 and wire == VARINT and step_at < 0:
            step_at, step_bytes, event.step = before + 1, b - before - 1, protobuf.signed(a)
        elif number == 5 and wire == LENGTH:
            summaries.append((a, b))
        else:
            event.plain = False
            graph = graph or (number == 4 and wire == LENGTH)
            if number == 7 and wire == LENGTH:
                session = list(protobuf.fields(data, a, b))
                event.restarts = any(part[:3] == (1, VARINT, _SESSION_START) for part in session)
        before = b
    event.places = wall_at, step_at, step_bytes
    if graph:
        event.others.append(Other(record, "graph", "graphs", event.step, event.wall))
    for start, end in summaries:
        for number, wire, a, b in protobuf.fields(data, start, end):
            if number == 1 and wire == LENGTH:
                _read_value(data, a, b, event, record)
    event.plain = event.plain and bool(event.scalars) and not event.others
    return event


def _read_value(data: bytes, start: int, end: int, event: Event, record: int) -> None:
    tag, kind, simple, old, tensor = (-1, -1), "", -1, 0, (-1, -1)
    content = b""
    for number, wire, a, b in protobuf.fields(data, start, end):
        if number == 1 and wire == LENGTH:
            tag = (a, b)
        elif number == 2 and wire == FIXED32:
            simple = a
        elif number == 8 and wire == LENGTH:
            tensor = (a, b)
        elif number == 9 and wire == LENGTH:
            kind, content = _plugin(data, a, b)
        elif number in _OLD_KINDS and wire == LENGTH:
            old = number
    if tag[0] < 0:
        tag = (start, start)
    if simple >= 0:
        event.scalars.append(Scalar(tag, "<f4", simple, protobuf.single(data, simple)))
        return
    name = protobuf.text(data, *tag)
    text: str | None = None
    if tensor[0] >= 0 and kind in ("", "scalars", "text"):
        how, place, value, text = _read_tensor(data, *tensor)
        if value is not None and kind != "text":
            event.scalars.append(Scalar(tag, how, place, value))
            return
    found = kind or _OLD_KINDS.get(old) or "tensors"
    event.others.append(Other(record, name, found, event.step, event.wall, content, text))


def _plugin(data: bytes, start: int, end: int) -> tuple[str, bytes]:
    name, content = "", b""
    for number, wire, a, b in protobuf.fields(data, start, end):
        if number == 1 and wire == LENGTH:
            for inner, inner_wire, c, d in protobuf.fields(data, a, b):
                if inner == 1 and inner_wire == LENGTH:
                    name = protobuf.text(data, c, d)
                elif inner == 2 and inner_wire == LENGTH:
                    content = data[c:d]
    return name, content


def _read_tensor(data: bytes, start: int, end: int) -> tuple[str, int, float | None, str | None]:
    """Of a tensor with one element: (kind, place, value) of its number, or its text. All of it empty for larger ones."""
    dtype, size = 0, 1
    numbers: list[tuple[int, int, int, int]] = []
    for number, wire, a, b in protobuf.fields(data, start, end):
        if number == 1 and wire == VARINT:
            dtype = a
        elif number == 2 and wire == LENGTH:
            size = _elements(data, a, b)
        elif number >= 4:
            numbers.append((number, wire, a, b))
    if dtype == 7:
        texts = [
            data[a : min(b, a + TEXT_BYTES)]
            for number, wire, a, b in numbers
            if (number, wire) == (8, LENGTH)
        ]
        return "", -1, None, b"\n".join(texts)[:TEXT_BYTES].decode("utf-8", "replace")
    if size != 1 or (dtype not in _NUMBERS and dtype != _BFLOAT):
        return "", -1, None, None
    if not numbers:
        return "", -1, 0.0, None
    number, wire, a, b = numbers[0]
    if number == 4 and wire == LENGTH:  # raw bytes
        kind = _NUMBERS.get(dtype, "")
        if kind and b - a == np.dtype(kind).itemsize:
            return kind, a, float(np.frombuffer(data, kind, 1, a)[0]), None
        return "", -1, None, None
    if number in (5, 6):  # float_val, double_val; packed or not
        kind, width = ("<f4", 4) if number == 5 else ("<f8", 8)
        if wire != VARINT and b - a >= width:
            return kind, a, float(np.frombuffer(data, kind, 1, a)[0]), None
        return "", -1, None, None
    whole = a if wire == VARINT else protobuf.varint(data, a, b)[0]
    if number == 13:  # half_val holds the bits of 16-bit floats
        bits = np.uint16(whole & 0xFFFF)
        if dtype == _BFLOAT:
            return "", -1, float((np.array([bits], np.uint32) << np.uint32(16)).view(np.float32)[0]), None
        return "", -1, float(np.array([bits], np.uint16).view(np.float16)[0]), None
    return "", -1, float(whole if dtype in (22, 23) else protobuf.signed(whole)), None


def _elements(data: bytes, start: int, end: int) -> int:
    count = 1
    for number, wire, a, b in protobuf.fields(data, start, end):
        if number == 2 and wire == LENGTH:
            sizes = [c for inner, kind, c, _ in protobuf.fields(data, a, b) if (inner, kind) == (1, VARINT)]
            count *= sizes[0] if sizes else 0
    return count


class _Columns:
    """Numbers as they are found, form by form."""

    def __init__(self) -> None:
        self.tags: dict[bytes, int] = {}
        self.parts: list[tuple[Ints, Ints, npt.NDArray[np.float64], npt.NDArray[np.float64], Ints]] = []

    def tag(self, name: bytes) -> int:
        return self.tags.setdefault(name, len(self.tags))


def decode(chunk: Chunk) -> Events:
    """All events of a chunk, each checked against its CRC."""
    columns = _Columns()
    order = np.argsort(chunk.lengths, kind="stable")
    lengths = chunk.lengths[order]
    groups = np.split(order, np.flatnonzero(np.diff(lengths)) + 1)
    single: list[npt.NDArray[np.intp]] = []
    skipped = chunk.skipped
    for group in groups:
        rest = group
        if _FEW <= len(group) and 0 < chunk.lengths[group[0]] <= _TEMPLATE_BYTES:
            rest, damaged = _decode_alike(chunk, group, columns)
            skipped += damaged
        if len(rest):
            single.append(rest)
    others: list[Other] = []
    restarts: list[int] = []
    if single:
        rows = np.sort(np.concatenate(single))
        skipped += _decode_singly(chunk, rows, columns, others, restarts)
    parts = columns.parts or [(np.empty(0, np.int64),) * 2 + (np.empty(0),) * 2 + (np.empty(0, np.int64),)]
    tag, step, wall, value, record = (np.concatenate(column) for column in zip(*parts, strict=True))
    names = [name.decode("utf-8", "replace") for name in columns.tags]
    return Events(names, tag.astype(np.int32), step, wall, value, record, others, restarts, skipped)


def _decode_singly(
    chunk: Chunk, rows: npt.NDArray[np.intp], columns: _Columns, others: list[Other], restarts: list[int]
) -> int:
    skipped = 0
    whole = check_crcs(chunk.data, chunk.starts[rows], chunk.lengths[rows])
    tags: list[int] = []
    steps: list[int] = []
    walls: list[float] = []
    values: list[float] = []
    records: list[int] = []
    for row, intact in zip(rows.tolist(), whole.tolist(), strict=True):
        start = int(chunk.starts[row])
        data = chunk.data[start : start + int(chunk.lengths[row])].tobytes()
        try:
            if not intact:
                raise NotAMessage("damaged")
            event = read_event(data, row)
        except NotAMessage:
            skipped += 1
            continue
        for scalar in event.scalars:
            tags.append(columns.tag(data[slice(*scalar.tag)]))
            steps.append(event.step)
            walls.append(event.wall)
            values.append(scalar.value)
            records.append(row)
        others += event.others
        if event.restarts:
            restarts.append(row)
    if tags:
        columns.parts.append(
            (np.array(tags), np.array(steps, np.int64), np.array(walls), np.array(values), np.array(records))
        )
    return skipped


def _decode_alike(
    chunk: Chunk, group: npt.NDArray[np.intp], columns: _Columns
) -> tuple[npt.NDArray[np.intp], int]:
    """Records of one length. Returns those of no common form, and how many were damaged."""
    length = int(chunk.lengths[group[0]])
    # Whole words: the record, its CRC, and what follows, which the masks leave out.
    width = (length + 4 + 7) & ~7
    rows = sliding_window_view(chunk.data, width)[chunk.starts[group]]
    odd: list[npt.NDArray[np.intp]] = []
    damaged = 0
    left = np.arange(len(group))
    for _ in range(_FORMS):
        if len(left) < _FEW:
            break
        first = rows[left[0]]
        event = _template(first[:length].tobytes())
        crc = crc32c(first[:length])
        stored = int.from_bytes(first[length : length + 4].tobytes(), "little")
        if event is None or masked_crc(crc) != stored:
            odd.append(group[left[:1]])
            left = left[1:]
            continue
        alike = _matches(rows, left, first, length, event)
        same = left[alike]
        damaged += _take(rows[same], first, length, crc, event, group[same], columns)
        left = left[~alike]
    odd.append(group[left])
    return np.concatenate(odd), damaged


def _template(data: bytes) -> Event | None:
    try:
        event = read_event(data)
    except NotAMessage:
        return None
    return event if event.plain and all(scalar.place >= 0 for scalar in event.scalars) else None


def _variable(event: Event) -> list[int]:
    """Places whose bytes may differ within a form."""
    wall_at, step_at, step_bytes = event.places
    found = list(range(wall_at, wall_at + 8)) if wall_at >= 0 else []
    found += range(step_at, step_at + step_bytes)
    for scalar in event.scalars:
        found += range(*scalar.tag)
        found += range(scalar.place, scalar.place + np.dtype(scalar.kind).itemsize)
    return found


def _matches(
    rows: npt.NDArray[np.uint8], left: Ints, first: npt.NDArray[np.uint8], length: int, event: Event
) -> npt.NDArray[np.bool_]:
    mask = np.zeros(rows.shape[1], np.uint8)
    mask[:length] = 0xFF
    mask[_variable(event)] = 0
    _, step_at, step_bytes = event.places
    mask[step_at : step_at + step_bytes] = 0x80  # which bytes of a varint are its last is part of the form
    words, pattern, filter_ = rows.view(np.uint64), first.view(np.uint64), mask.view(np.uint64)
    chosen = words if len(left) == len(words) else words[left]
    different = np.zeros(len(chosen), np.uint64)
    for place in range(words.shape[1]):
        if filter_[place]:
            different |= (chosen[:, place] ^ pattern[place]) & filter_[place]
    return np.equal(different, 0)


def _take(
    rows: npt.NDArray[np.uint8],
    first: npt.NDArray[np.uint8],
    length: int,
    first_crc: int,
    event: Event,
    records: npt.NDArray[np.intp],
    columns: _Columns,
) -> int:
    """Read the numbers of records of one form. Returns how many were damaged."""
    columnwise = np.ascontiguousarray(rows[:, : length + 4].T)
    table = contributions()
    # A byte that is as in the intact record adds nothing to the difference of the two CRCs.
    crc = np.full(len(rows), first_crc, np.uint32)
    for place in _variable(event):
        bytes_ = columnwise[place]
        crc ^= table[length - 1 - place][bytes_ ^ first[place]]
    stored = np.ascontiguousarray(columnwise[length : length + 4].T).view("<u4").ravel()
    intact = masked(crc) == stored
    damaged = 0
    if not intact.all():
        damaged = int((~intact).sum())
        columnwise, records = np.ascontiguousarray(columnwise[:, intact]), records[intact]
    wall_at, step_at, step_bytes = event.places
    count = columnwise.shape[1]
    wall = _gather(columnwise, wall_at, "<f8") if wall_at >= 0 else np.zeros(count)
    step = np.zeros(count, np.uint64)
    for place in range(step_bytes):
        step |= (columnwise[step_at + place] & 0x7F).astype(np.uint64) << np.uint64(7 * place)
    for scalar in event.scalars:
        value = _gather(columnwise, scalar.place, scalar.kind).astype(np.float64)
        tag = _tag_numbers(columnwise[slice(*scalar.tag)], columns)
        columns.parts.append((tag, step.view(np.int64), wall, value, records))
    return damaged


def _gather(columnwise: npt.NDArray[np.uint8], place: int, kind: str) -> npt.NDArray[np.float64]:
    size = np.dtype(kind).itemsize
    found: npt.NDArray[np.float64] = (
        np.ascontiguousarray(columnwise[place : place + size].T).view(kind).ravel()
    )
    return found


def _tag_numbers(columnwise: npt.NDArray[np.uint8], columns: _Columns) -> Ints:
    """The number of each record's name. Names are told apart by a product of their words, and then compared."""
    size, count = columnwise.shape
    if size == 0 or count == 0:
        return np.full(count, columns.tag(b""))
    padded = np.zeros((count, (size + 7) & ~7), np.uint8)
    padded[:, :size] = columnwise.T
    words = padded.view(np.uint64)
    mixed = words[:, 0].copy()
    for place in range(1, words.shape[1]):
        mixed = mixed * np.uint64(0x9E3779B97F4A7C15) + words[:, place]
    _, firsts, inverse = np.unique(mixed, return_index=True, return_inverse=True)
    if (words != words[firsts][inverse]).any():  # two names with one product: made on purpose
        _, firsts, inverse = np.unique(words, axis=0, return_index=True, return_inverse=True)
    numbers = np.array([columns.tag(columnwise[:, index].tobytes()) for index in firsts.tolist()], np.int64)
    return numbers[inverse.ravel()]


assert PADDING >= 12  # the widest reach of a whole word behind a record

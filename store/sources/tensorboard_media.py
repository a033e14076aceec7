"""What an event file holds beside numbers, read when somebody looks at it: pictures, histograms, texts, sound.

Following a log directory only counts these things; their bytes stay in the event files. Here the records of one name are found
again by their bytes, without taking all others apart, and of many pictures some are kept in memory.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from mltrack.store.sources import protobuf
from mltrack.store.sources.base import open_regular
from mltrack.store.sources.protobuf import FIXED64, LENGTH, VARINT, NotAMessage
from mltrack.store.sources.run_folders import HPARAMS_FOLDER
from mltrack.store.sources.tfrecord import Chunk, check_crcs, read_chunks

# How many pictures, texts and histograms are kept; where there are more, every second is left out until they fit.
KEPT = 64
_TEXT_BYTES = 64 * 1024
_PICTURE_BYTES = 8 << 20
_MOST_BUCKETS = 10_000
_Entry = TypeVar("_Entry")


@dataclass(frozen=True, slots=True)
class Histogram:
    """``edges[i]`` to ``edges[i + 1]`` was hit ``counts[i]`` times."""

    edges: list[float]
    counts: list[float]


@dataclass(slots=True)
class Media:
    """What was found under one name, in the order of the files. ``data`` is the newest picture or sound, as a file's bytes.

    ``pictures``, ``texts`` and ``histograms`` come with their steps. ``complete``: whether all was read in the time there was.
    """

    kind: str
    tag: str
    count: int = 0
    step: int = 0
    data: bytes = b""
    pictures: list[tuple[int, bytes]] = field(default_factory=list)
    texts: list[tuple[int, str]] = field(default_factory=list)
    histograms: list[tuple[int, Histogram]] = field(default_factory=list)
    complete: bool = True


def event_files(folder: Path) -> list[Path]:
    """The event files right in a folder and in the part of it that ``add_hparams`` makes, in order of their names."""
    found: list[Path] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if "tfevents" in entry.name and entry.is_file():
                    found.append(Path(entry.path))
                elif HPARAMS_FOLDER.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                    found += event_files(Path(entry.path))
    except OSError:
        return []
    return sorted(found, key=lambda path: (_started(path.name), path.name))


def read_media(files: Sequence[Path], kind: str, tag: str, seconds: float = 3.0) -> Media:
    """Everything of one kind (TensorBoard's plugin: images, histograms, text, audio) and name, for at most ``seconds``.

    A file that cannot be read is passed over: the run's damage says so already.
    """
    found = Media(kind, tag)
    named = _named(tag)
    deadline = time.monotonic() + seconds
    for path in files:
        try:
            fd = open_regular(path)
        except OSError:
            continue
        try:
            for chunk in read_chunks(fd, 0):
                for data in _records(chunk, named):
                    _take(data, found)
                if time.monotonic() > deadline:
                    found.complete = False
                    return found
        except OSError:
            continue
        finally:
            os.close(fd)
    return found


def _started(name: str) -> int:
    match = re.search(r"tfevents\.(\d{10})", name)
    return int(match[1]) if match else 0


def _named(tag: str) -> bytes:
    """The field of a value that holds its name."""
    name = tag.encode("utf-8", "replace")
    size, length = len(name), b""
    while size > 0x7F:
        length += bytes((size & 0x7F | 0x80,))
        size >>= 7
    return b"\x0a" + length + bytes((size,)) + name


def _records(chunk: Chunk, tag: bytes) -> Iterator[bytes]:
    """Intact records in which these bytes occur."""
    raw = chunk.data.tobytes()
    ends = chunk.starts + chunk.lengths
    place = raw.find(tag)
    while 0 <= place < len(raw) and len(chunk.starts):
        row = int(np.searchsorted(chunk.starts, place, "right")) - 1
        if row < 0 or place >= ends[row]:
            place = raw.find(tag, place + 1)
            continue
        if check_crcs(chunk.data, chunk.starts[row : row + 1], chunk.lengths[row : row + 1])[0]:
            yield raw[int(chunk.starts[row]) : int(ends[row])]
        place = raw.find(tag, int(ends[row]))


def _take(data: bytes, found: Media) -> None:
    step = 0
    summaries: list[tuple[int, int]] = []
    try:
        for number, wire, a, b in protobuf.fields(data):
            if number == 2 and wire == VARINT:
                step = protobuf.signed(a)
            elif number == 5 and wire == LENGTH:
                summaries.append((a, b))
        for start, end in summaries:
            for number, wire, a, b in protobuf.fields(data, start, end):
                if number == 1 and wire == LENGTH:
                    _take_value(data, a, b, step, found)
    except (NotAMessage, ValueError):
        return  # counted when the run was read


def _take_value(data: bytes, start: int, end: int, step: int, found: Media) -> None:
    parts = {number: (a, b) for number, wire, a, b in protobuf.fields(data, start, end) if wire == LENGTH}
    if 1 not in parts or protobuf.text(data, *parts[1]) != found.tag:
        return
    histogram: Histogram | None = None
    content, text = b"", None
    if found.kind == "images":
        content = _picture(data, parts)
    elif found.kind == "audio":
        content = _sound(data, parts)
    elif found.kind == "histograms":
        histogram = _histogram(data, parts)
    elif 8 in parts:
        text = b"\n".join(_strings(data, *parts[8]))[:_TEXT_BYTES].decode("utf-8", "replace")
    if not content and histogram is None and text is None:
        return
    found.count += 1
    found.step = step
    if content:
        found.data = content
        if found.kind == "images":
            _keep(found.pictures, (step, content))
            while len(found.pictures) > 1 and sum(len(each) for _, each in found.pictures) > _PICTURE_BYTES:
                del found.pictures[-2::-2]
    if histogram is not None:
        _keep(found.histograms, (step, histogram))
    if text is not None:
        _keep(found.texts, (step, text))


def _keep(kept: list[_Entry], entry: _Entry) -> None:
    """The newest always, and of those before it an even share."""
    if len(kept) >= KEPT:
        del kept[1::2]
    kept.append(entry)


def _picture(data: bytes, parts: dict[int, tuple[int, int]]) -> bytes:
    """The encoded bytes: of an Image message, or of a tensor [width, height, picture, ...]."""
    if 4 in parts:
        return _field(data, parts[4], 4)
    strings = _strings(data, *parts[8]) if 8 in parts else []
    return strings[2] if len(strings) > 2 else b""


def _sound(data: bytes, parts: dict[int, tuple[int, int]]) -> bytes:
    if 6 in parts:
        return _field(data, parts[6], 4)
    strings = _strings(data, *parts[8]) if 8 in parts else []
    return strings[0] if strings else b""


def _field(data: bytes, part: tuple[int, int], wanted: int) -> bytes:
    for number, wire, a, b in protobuf.fields(data, *part):
        if number == wanted and wire == LENGTH:
            return data[a:b]
    return b""


def _strings(data: bytes, start: int, end: int) -> list[bytes]:
    """The texts of a tensor."""
    return [
        data[a:b] for number, wire, a, b in protobuf.fields(data, start, end) if (number, wire) == (8, LENGTH)
    ]


def _histogram(data: bytes, parts: dict[int, tuple[int, int]]) -> Histogram | None:
    """Of a HistogramProto (limits and counts of buckets), or of a tensor of rows (left, right, count)."""
    if 5 in parts:
        lowest, limits, counts = 0.0, np.empty(0), np.empty(0)
        for number, wire, a, b in protobuf.fields(data, *parts[5]):
            if number == 1 and wire == FIXED64:
                lowest = protobuf.double(data, a)
            elif number in (6, 7) and wire == LENGTH and (b - a) % 8 == 0:
                column = np.frombuffer(data, "<f8", (b - a) // 8, a)
                limits, counts = (column, counts) if number == 6 else (limits, column)
        if not 0 < len(limits) == len(counts) <= _MOST_BUCKETS:
            return None
        return _sane([min(lowest, float(limits[0])), *limits.tolist()], counts.tolist())
    if 8 not in parts:
        return None
    for number, wire, a, b in protobuf.fields(data, *parts[8]):
        if number in (4, 6) and wire == LENGTH and (b - a) % 24 == 0 and b > a:
            rows = np.frombuffer(data, "<f8", (b - a) // 8, a).reshape(-1, 3)
            if len(rows) <= _MOST_BUCKETS:
                return _sane([float(rows[0, 0]), *rows[:, 1].tolist()], rows[:, 2].tolist())
    return None


def _sane(edges: list[float], counts: list[float]) -> Histogram | None:
    """tensorboardX closes its last bucket at the largest float: such ends take the width of their neighbour."""
    if len(edges) > 2 and abs(edges[-1]) > 1e300:
        edges, counts = edges[:-1], counts[:-1] if not counts[-1] else [*counts[:-2], counts[-2] + counts[-1]]
    if len(edges) > 2 and abs(edges[0]) > 1e300:
        edges, counts = edges[1:], counts[1:] if not counts[0] else [counts[0] + counts[1], *counts[2:]]
    known = np.isfinite(edges).all() and np.isfinite(counts).all() and (np.diff(edges) >= 0).all()
    return Histogram(edges, counts) if known else None

"""Many small event files at once: what is done per file costs more than what is done per record, so that their records are decoded
together. A sweep's folder holds hundreds of them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from mltrack.store.sources.base import open_regular
from mltrack.store.sources.run_folders import RunFile
from mltrack.store.sources.tensorboard_events import Events, decode
from mltrack.store.sources.tfrecord import PADDING, Chunk, read_whole

FILES = 32
"""How many are read together."""
_SMALL_BYTES = 128 * 1024


@dataclass(frozen=True, slots=True, eq=False)
class Ahead:
    """All events of a file of ``size`` bytes; ``records`` is how many it holds."""

    size: int
    records: int
    events: Events


def read_ahead(files: Iterable[RunFile]) -> dict[str, Ahead]:
    """Path -> events of those files that are small and whole; anything else is read file by file, and says what is wrong."""
    whole: list[tuple[RunFile, Chunk]] = []
    for file in files:
        if not 0 < file.size <= _SMALL_BYTES:
            continue
        try:
            fd = open_regular(file.path)
        except OSError:
            continue
        try:
            raw = os.pread(fd, _SMALL_BYTES, 0)
        except OSError:
            continue
        finally:
            os.close(fd)
        chunk = read_whole(raw) if len(raw) == file.size else None
        if chunk is not None:
            whole.append((file, chunk))
    if len(whole) < 2:
        return {}
    sizes = np.array([len(chunk.data) - PADDING for _, chunk in whole])
    offsets = np.cumsum(sizes) - sizes
    together = Chunk(
        int(sizes.sum()),
        False,
        np.concatenate([*(chunk.data[:-PADDING] for _, chunk in whole), np.zeros(PADDING, np.uint8)]),
        np.concatenate([chunk.starts + offset for (_, chunk), offset in zip(whole, offsets, strict=True)]),
        np.concatenate([chunk.lengths for _, chunk in whole]),
    )
    events = decode(together)
    if events.skipped:
        return {}
    order = np.argsort(events.record, kind="stable")
    record = events.record[order]
    found: dict[str, Ahead] = {}
    first = 0
    for file, chunk in whole:
        last = first + len(chunk.starts)
        rows = order[slice(*np.searchsorted(record, (first, last)))]
        mine = replace(
            events,
            tag=events.tag[rows],
            step=events.step[rows],
            wall=events.wall[rows],
            value=events.value[rows],
            record=events.record[rows] - first,
            others=[
                replace(other, record=other.record - first)
                for other in events.others
                if first <= other.record < last
            ],
            restarts=[row - first for row in events.restarts if first <= row < last],
        )
        found[file.path] = Ahead(file.size, len(chunk.starts), mine)
        first = last
    return found

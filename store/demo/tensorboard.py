"""A training of the past that wrote TensorBoard's event files: the story's run that mltrack only follows."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np

from mltrack.store.client.journal import make_folder
from mltrack.store.demo import curves
from mltrack.store.sources.crc32c import crc32c_many, masked

FOLDER = Path("elsewhere") / "cifar-baseline" / "resnet18-cosine"
_STEPS = 4_000
_STEP_SECONDS = 0.4


def write_events(root: Path, seed: int, end_ms: int) -> Path:
    """Event files below ``root``; the folder to follow."""
    random = curves.random_for(seed, "tensorboard")
    train = curves.train(random, _STEPS, lr=1e-3, floor=0.31, pace=0.8, total=_STEPS)
    validate = curves.validate(random, _STEPS, best=0.894, peak=3_800, pace=0.8)
    began = end_ms / 1000 - _STEPS * _STEP_SECONDS
    events = [_double(1, began) + _bytes(3, b"brain.Event:2")]
    for series, keys in ((train, ("train/loss",)), (validate, ("val/acc", "val/loss"))):
        for key in keys:
            column = list(series.keys).index(key)
            for step, value in zip(series.steps.tolist(), series.values[:, column].tolist(), strict=True):
                point = _bytes(1, key.encode()) + b"\x15" + struct.pack("<f", value)
                at = _double(1, began + step * _STEP_SECONDS)
                events.append(at + b"\x10" + _varint(step) + _bytes(5, _bytes(1, point)))
    folder = root / FOLDER
    make_folder(folder, root)
    path = folder / f"events.out.tfevents.{int(began)}.gpu1.4242.0"
    path.write_bytes(_records(events))
    os.utime(path, (end_ms / 1000, end_ms / 1000))
    return folder.parent


def _records(events: list[bytes]) -> bytes:
    """TFRecords: length, its checksum, the bytes, theirs."""
    lengths = [struct.pack("<Q", len(event)) for event in events]
    length_sums, event_sums = (_sums(parts) for parts in (lengths, events))
    return b"".join(
        length + struct.pack("<I", length_sum) + event + struct.pack("<I", event_sum)
        for length, length_sum, event, event_sum in zip(lengths, length_sums, events, event_sums, strict=True)
    )


def _sums(parts: list[bytes]) -> list[int]:
    sizes = np.array([len(part) for part in parts], np.int64)
    found: list[int] = masked(
        crc32c_many(np.frombuffer(b"".join(parts), np.uint8), np.cumsum(sizes) - sizes, sizes)
    ).tolist()
    return found


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _bytes(field: int, content: bytes) -> bytes:
    return bytes([field << 3 | 2]) + _varint(len(content)) + content


def _double(field: int, number: float) -> bytes:
    return bytes([field << 3 | 1]) + struct.pack("<d", number)

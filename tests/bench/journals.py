"""Journals of runs that have ended, written without the client's care for single records."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from mltrack.store.client.journal import Journal, points_line, random_hex

START_MS = 1_763_000_000_000


def write_run(
    root: Path, keys: Sequence[str], steps: int, *, together: bool = True, end: bool = True, seed: int = 1
) -> Journal:
    """One run: random mantissas, a step about every half second. `together`: one record per step, else one per value."""
    draw = random.Random(seed)
    journal = Journal(
        root,
        random_hex(32),
        f"{START_MS + seed:013d}-{random_hex(6)}",
        identity={
            "host": "gpu-box",
            "machine": random_hex(32),
            "boot": random_hex(32),
            "pidns": "4026531836",
            "pid": 7,
            "pstart": "0",
        },
        time_ms=START_MS,
    )
    command = ["python", "train.py", "--lr", "3e-4", "--batch-size", "256"]
    journal.meta(
        "start", START_MS, name=f"swift-owl-{seed}", experiment="bench", user="ann", resumed=False,
        command=command, cwd="/home/ann/train", script="train.py", python="3.11.7",
    )  # fmt: skip
    journal.meta(
        "param", START_MS, v={"lr": "3e-4", "batch_size": "256", "optimizer": "adamw", "seed": str(seed)}
    )
    at = START_MS
    lines: list[bytes] = []
    for step in range(steps):
        at += 480 + draw.randrange(40)
        values = {key: draw.random() for key in keys}
        if together:
            lines.append(points_line(step, at, values))
        else:
            lines += [points_line(step, at, {key: value}) for key, value in values.items()]
    file = journal.points()
    file.append(b"".join(lines))
    if end:
        journal.meta("end", at, status="FINISHED", exit=0)
        journal.meta("close", at, points=file.size)
        journal.close()
    return journal

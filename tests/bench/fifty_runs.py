"""Runs in a process of its own: fifty live runs log a hundred metrics each second, until it is killed. Argument: the store.

One process, because fifty would be the machine's load and not that of who watches.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from journals import write_run

from mltrack.store.client.journal import now_ms, points_line

KEYS = [f"m/{number:03}" for number in range(100)]


def main(root: str) -> None:
    journals = [write_run(Path(root), KEYS, 1, end=False, seed=number) for number in range(50)]
    step = 1
    while True:
        began = time.monotonic()
        for number, journal in enumerate(journals):
            journal.points().append(points_line(step, now_ms(), dict.fromkeys(KEYS, step + number * 0.1)))
            journal.beat()
        step += 1
        time.sleep(max(0.0, 1.0 - (time.monotonic() - began)))


main(*sys.argv[1:])

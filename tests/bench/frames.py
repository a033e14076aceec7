"""Runs in a process of its own: a series of a million points to a curve of a run's chart, ten such series to a frame.

Arguments: store, run id, key.
"""

from __future__ import annotations

import json
import statistics
import sys

import numpy as np
from measure import cpu_of

from mltrack.store import open_store
from mltrack.tui.draw.braille import Curve, View, draw_plot
from mltrack.tui.worker_calls.curves import curves

POINTS = 1_000_000


def main(root: str, run_id: str, key: str) -> None:
    with open_store(root) as store:
        curves(store, "", [key], 400)  # imports what is imported on first use
        cold = cpu_of(lambda: curves(store, run_id, [key], 400, 0.0, float(POINTS)))
        zooms = [
            cpu_of(lambda at=at: curves(store, run_id, [key], 400, at * 1000.0, at * 1000.0 + POINTS / 8))
            for at in range(100, 110)
        ]
        again = [cpu_of(lambda: curves(store, run_id, [key], 400, 0.0, float(POINTS))) for _ in range(9)]
    random = np.random.default_rng(5)
    x = np.arange(float(POINTS))
    series = [Curve(f"{number}", x, random.normal(number, 1.0, POINTS)) for number in range(10)]
    view = View(x_low=0.0, x_high=float(POINTS))
    frames = [cpu_of(lambda: draw_plot(series, 120, 36, view)) for _ in range(7)]
    answer = {
        "cold": cold,
        "again": statistics.median(again),
        "zoom": statistics.median(zooms),
        "frame": statistics.median(frames),
    }
    print(json.dumps(answer))


main(*sys.argv[1:])

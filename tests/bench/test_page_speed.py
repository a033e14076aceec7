"""Ten runs over each other: 20 charts of 100,000 points each, in the worker and in the app in a real terminal."""

from __future__ import annotations

import select
import time
from pathlib import Path

import numpy as np
import pytest
from big_store import make_store
from measure import MARGIN, Figures, cpu_of
from terminal import Terminal

from mltrack.store import Store, open_store, summary
from mltrack.store.blocks import write_merged
from mltrack.store.series import PointColumns
from mltrack.tui.worker_calls.compare import compare_curves

pytestmark = pytest.mark.long
POINTS = 100_000
# Twenty-one charts fit.
_COLUMNS, _LINES = 200, 60


@pytest.fixture(scope="module")
def ten_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ten")
    make_store(root, 10, points=2)
    random = np.random.default_rng(3)
    with open_store(str(root)) as store:
        _lengthen(store, random)
    return root


def _lengthen(store: Store, random: np.random.Generator) -> None:
    """Every series to 100,000 points, merged as the fold merges them."""
    database = store.database
    keys = [int(row[0]) for row in database.execute("SELECT id FROM metric_key ORDER BY id")]
    steps, zero = np.arange(POINTS, dtype=np.int64), np.zeros(POINTS, np.int64)
    for run, start in database.execute("SELECT id, start_ms FROM run"):
        with database.transaction():
            database.execute("DELETE FROM block WHERE run = ?", (run,))
            times = start + np.cumsum(random.integers(480, 520, POINTS))
            rows = []
            for key in keys:
                values = np.exp(-3 * steps / POINTS) + random.normal(size=POINTS) * 0.1
                points = PointColumns(zero + key, zero, zero, steps, times, values)
                write_merged(database, run, points)
                rows.append(summary.rows_of_points(points))
            packed = summary.pack(summary.joined(rows))
            database.execute("UPDATE run SET summary = ?, step = ? WHERE id = ?", (packed, POINTS - 1, run))


def test_the_worker_of_a_page(ten_runs: Path, figures: Figures) -> None:
    with open_store(str(ten_runs), readonly=True) as store:
        ids = store.search("").run_ids
        keys = list(store.keys())[:20]

        def page(low: float | None = None, high: float | None = None) -> float:
            return cpu_of(lambda: compare_curves(store, ids, keys, 132, low, high))

        cold, warm, near = page(), page(25_000, 75_000), page(60_000, 61_000)
        assert len(store.points(ids[0], keys[0]).values) == POINTS
        one = cpu_of(lambda: [store.points(run_id, keys[0]) for run_id in ids])
    figures.add(
        "Ten runs x 20 charts x 100,000 points, CPU of the worker: all of it; half of it; a hundredth, point by point",
        "500 ms",
        f"{cold * 1000:.0f}; {warm * 1000:.0f}; {near * 1000:.0f} ms (one chart without outlines {one * 1000:.0f} ms)",
    )
    # Twenty charts from outlines cost less than seven read point by point.
    assert cold < 7 * one


def test_a_page_in_a_terminal(ten_runs: Path, tmp_path: Path, figures: Figures) -> None:
    terminal = Terminal(
        *("-m", "mltrack.tui.entry", "--store", str(ten_runs)),
        columns=_COLUMNS,
        lines=_LINES,
        state=tmp_path,
    )
    terminal.until(rb"10 runs")
    terminal.quiet()
    terminal.press("A")
    began = terminal.write("c")
    terminal.until(rb"METRICS", began)
    terminal.quiet()
    terminal.press("\t")
    before, began = terminal.cpu(), terminal.write("a")
    last = began
    while select.select([terminal.fd], [], [], 1.5)[0]:
        terminal.drain()
        last = time.monotonic()
    whole, cpu = last - began, terminal.cpu() - before
    terminal.press("g")
    before = terminal.cpu()
    moves = terminal.keys("lllllhhhhh" * 4)
    each = (terminal.cpu() - before) / 40
    zooms = terminal.keys("+-" * 5, quiet=1.0)
    terminal.end()
    figures.add(
        "The same in the app at 200x60, 21 charts: all drawn, CPU of the screen; the cursor, CPU; key to frame p50 of cursor, zoom",
        "500 ms; 20 ms",
        f"{whole * 1000:.0f} ms, {cpu * 1000:.0f} ms; {each * 1000:.0f} ms;"
        f" {moves.milliseconds(0.5):.0f}, {zooms.milliseconds(0.5):.0f} ms",
    )
    assert cpu < 0.5 * 2 and each < 0.02 * 2 * MARGIN

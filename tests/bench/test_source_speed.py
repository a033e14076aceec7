"""TensorBoard's files beside its own loaders: points per CPU second, 250 runs at once, and how soon a new point is seen."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from measure import MARGIN, Figures, answers_of, cpu_of

from mltrack.store import open_store
from mltrack.store.sources.tensorboard_events import decode
from mltrack.store.sources.tfrecord import read_chunks

STEPS = 250_000
ADD = """
import os, sys, time
from tensorboardX import SummaryWriter
writer = SummaryWriter(sys.argv[1])
size = lambda: sum(entry.stat().st_size for entry in os.scandir(sys.argv[1]))
for step, _ in enumerate(sys.stdin):
    before = size()
    writer.add_scalar("loss", step / 3, step)
    while size() == before:  # its flush() may come back before its thread has written
        writer.flush()
        time.sleep(0.005)
    print(step, flush=True)
"""


def test_a_million_points_beside_tensorboards_loaders(
    figures: Figures, tensorboard_python: str, tmp_path: Path
) -> None:
    answers_of("tensorboard_beside.py", "write", tmp_path / "one", 1, STEPS, python=tensorboard_python)
    (path,) = (tmp_path / "one").iterdir()

    def read() -> None:
        fd = os.open(path, os.O_RDONLY)
        try:
            assert sum(len(decode(chunk).value) for chunk in read_chunks(fd, 0)) == 4 * STEPS
        finally:
            os.close(fd)

    stored: list[float] = []
    for number in range(3):
        with open_store(str(tmp_path / f"store{number}")) as store:
            store.add_source(str(tmp_path / "one"))
            stored.append(cpu_of(lambda: store.refresh(None)))
            assert sum(summary.count for summary in store.run("@last").metrics.values()) == 4 * STEPS
    read()  # once, for the tables that are made when they are first needed
    parsed = 4 * STEPS / statistics.median(cpu_of(read) for _ in range(3))
    theirs = answers_of("tensorboard_beside.py", "read", path, python=tensorboard_python)
    best = max(theirs.values())
    beside = ", ".join(f"{name} {rate / 1000:.0f}k" for name, rate in theirs.items())
    into = 4 * STEPS / statistics.median(stored)
    figures.add(
        "TensorBoard, 1M scalars in one file, points per CPU second, beside the fastest of TensorBoard's own loaders",
        "20x",
        f"{parsed / best:.0f}x ({parsed / 1000:,.0f}k; into the store {into / 1000:,.0f}k; {beside})",
    )
    assert parsed >= 20 / MARGIN * best


def test_250_runs_and_a_new_point(figures: Figures, tensorboard_python: str, tmp_path: Path) -> None:
    answers_of("tensorboard_beside.py", "write", tmp_path / "runs", 250, 100, python=tensorboard_python)
    with open_store(str(tmp_path / "store")) as store:
        store.add_source(str(tmp_path / "runs"))
        began, busy = time.monotonic(), time.process_time()
        store.refresh(None)
        runs = store.runs(store.search("", limit=1000).run_ids)
        taken, cpu = time.monotonic() - began, time.process_time() - busy
        assert len(runs) == 250 and all(len(run.metrics) == 4 and len(run.params) == 2 for run in runs)
        again = statistics.median(cpu_of(lambda: store.refresh(None)) for _ in range(5))
        waits = seen_after(
            tensorboard_python, tmp_path / "runs" / "live", store.refresh, lambda: store.run("@last").metrics
        )
    figures.add(
        "250 TensorBoard runs of 400 points: all rows, from nothing",
        "1 s",
        f"{taken:.2f} s ({cpu:.2f} s CPU)",
    )
    figures.add(
        "The same, a look at them when nothing changed, CPU", "a stat per file", f"{again * 1e3:.1f} ms"
    )
    seen = f"{statistics.median(waits):.2f} s, at most {max(waits):.2f} s"
    figures.add("A point that a writer flushed is in the store after", "2 s", seen)
    assert taken <= 1 * MARGIN * 5  # wall time on a shared machine


def seen_after(
    python: str, folder: Path, refresh: Callable[[float], object], metrics: Callable[[], Mapping[str, object]]
) -> list[float]:
    """Seconds from the writer's word that a point is out until the store has it, looking four times a second."""
    waits: list[float] = []
    with subprocess.Popen(
        [python, "-c", ADD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdin is not None and writer.stdout is not None
        for step in range(10):
            print(file=writer.stdin, flush=True)
            assert writer.stdout.readline() == f"{step}\n"
            began = time.monotonic()
            while getattr(metrics().get("loss"), "last_step", -1) != step:
                refresh(0.5)
                time.sleep(0.25)
                assert time.monotonic() - began < 20
            waits.append(time.monotonic() - began)
        writer.stdin.close()
    return waits

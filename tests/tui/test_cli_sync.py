"""`mltrack sync --watch`: copies of a node's journals that grow while the run goes on, as rsync makes them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import mltrack
from mltrack.store import open_store


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_what_comes_to_a_copy_is_taken_in_until_somebody_ends_it(tmp_path: Path) -> None:
    nodes, copies, here = ([tmp_path / f"{name}{n}" for n in range(2)] for name in ("node", "copy", "here"))
    here = here[0]

    def train(place: int, name: str, points: int) -> None:
        mltrack.set_store(str(nodes[place]))
        with mltrack.start_run(name=name, system_metrics=False):
            for step in range(points):
                mltrack.log_metric("loss", step, step)
        shutil.copytree(nodes[place], copies[place], dirs_exist_ok=True)

    def points(name: str) -> int:
        with open_store(str(here)) as store:
            found = [run for run in store.runs(store.search("").run_ids) if run.name == name]
            return found[0].metrics["loss"].count if found else 0

    for place in range(2):
        train(place, f"first{place}", 10)
    command = [
        sys.executable,
        "-m",
        "mltrack.tui.cli",
        "--store",
        str(here),
        "sync",
        *map(str, copies),
        "--watch",
    ]
    process = subprocess.Popen(command, env={**os.environ}, stdout=subprocess.PIPE, text=True)
    try:
        _until(lambda: points("first0") == points("first1") == 10)
        for place in range(2):
            train(place, f"second{place}", 20)
        _until(lambda: points("second0") == points("second1") == 20)
        assert process.poll() is None and points("first0") == 10
        process.send_signal(signal.SIGINT)
        assert "20 points taken in" in process.communicate(timeout=30)[0]
    finally:
        process.kill()
        process.wait()

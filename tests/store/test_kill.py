"""kill -9 at any moment, of the training and of the fold: what was acknowledged is there, and what happened is known."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import take_in

from mltrack.store import Store, open_store
from mltrack.store.client.journal import Journal, points_line
from mltrack.store.records import Run

RUN = "c0ffee" + "0" * 26
PATIENCE_SECONDS = 60.0

# Logs as fast as it can and says after every call that returned how many there were: one byte for one call.
TRAINING = """
import os, sys
import mltrack
acks, how, run_id = int(sys.argv[1]), sys.argv[2], sys.argv[3]
os.write(acks, b"s")
mltrack.start_run(run_id=run_id, run_name="victim", system_metrics=False)
step = 0
while True:
    if how == "one":
        mltrack.log_metric("loss", step * 0.5, step=step)
    elif how == "many":
        mltrack.log_metrics({"loss": step * 0.5, "acc": -step / 3.0, "nan": float("nan")}, step=step)
    elif how == "counted":
        mltrack.log_metric("loss", step * 0.5)
    else:
        mltrack.log_param(f"p{step}", step)
    step += 1
    os.write(acks, b".")
"""


@pytest.fixture(autouse=True)
def quick(store_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLTRACK_FACTS", "0")
    monkeypatch.setenv("MLTRACK_CONSOLE", "0")


def start(code: str, *arguments: str, **options: Any) -> tuple[subprocess.Popen[str], int]:
    """A training process and the reading end of its pipe of acknowledgements."""
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(writer), *arguments],
        pass_fds=[writer],
        stdin=subprocess.DEVNULL,
        **options,
    )
    os.close(writer)
    return process, reader


def read_acks(reader: int, at_least: int) -> int:
    count = 0
    while count < at_least:
        got = os.read(reader, 65536)
        if not got:
            break
        count += got.count(b".")
    return count


def drain(reader: int) -> int:
    count = 0
    while got := os.read(reader, 65536):
        count += got.count(b".")
    os.close(reader)
    return count


def wait_for(right: Callable[[Run], bool], run_id: str = RUN) -> Run:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        with open_store() as store:
            take_in(store)
            run = store.run(run_id)
        if right(run) or time.monotonic() > deadline:
            return run
        time.sleep(0.2)


def test_every_acknowledged_point_survives_a_kill(store_root: Path) -> None:
    """Many rounds, each on a run of its own, killed anywhere from the first instruction to thousands of points on."""
    chance = random.Random(os.urandom(8))
    for number in range(24):
        run_id = f"{number:032x}"
        how = ("one", "many", "counted", "params")[number % 4]
        process, reader = start(TRAINING, how, run_id)
        wanted = chance.choice([0, 1, 2, chance.randrange(100), chance.randrange(5000)])
        acked = read_acks(reader, min(wanted, 500) if how == "params" else wanted)
        if wanted == 0:
            time.sleep(chance.random() * 0.4)
        if number % 3 == 0:
            with open_store() as store:  # somebody looks while it is written
                take_in(store)
        process.kill()
        process.wait()
        acked += drain(reader)
        with open_store() as store:
            report = take_in(store)
            assert report.skipped == 0 and not report.damaged
            if not acked:
                continue
            run = store.run(run_id)
            assert run.status == "LOST" and f"process {process.pid} is gone" in run.reason
            if how == "params":
                assert len(run.params) in (acked, acked + 1)
                assert all(value == key[1:] for key, value in run.params.items())
                continue
            points = store.points(run_id, "loss")
            assert len(points.steps) in (acked, acked + 1), (
                "a call that had not returned may have been written"
            )
            assert points.steps.tolist() == list(range(len(points.steps)))
            assert points.values.tolist() == [step * 0.5 for step in points.steps.tolist()]
            assert run.metrics["loss"].count == len(points.steps)
            if how == "many":
                assert run.metrics["nan"].nan_count == run.metrics["acc"].count in (acked, acked + 1)


def test_a_killed_run_is_resumed_where_it_was(store_root: Path) -> None:
    """Counting goes on after the last point, although the killed process could not write a summary."""
    expected = 0
    for _ in range(4):
        process, reader = start(TRAINING, "counted", RUN)
        acked = read_acks(reader, 50)
        run = wait_for(lambda run: run.status == "RUNNING")
        assert run.status == "RUNNING" and run.reason == ""
        process.kill()
        process.wait()
        acked += drain(reader)
        with open_store() as store:
            take_in(store)
            points = store.points(RUN, "loss", superseded=True)
            assert store.run(RUN).status == "LOST"
        assert len(points.steps) - expected in (acked, acked + 1)
        assert points.steps.tolist() == list(range(len(points.steps)))
        assert not points.superseded.any()
        expected = len(points.steps)
    with open_store() as store:
        assert store.run(RUN).name == "victim" and store.run(RUN).metrics["loss"].count == expected


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_deadly_signal_is_named_and_still_kills(store_root: Path, number: signal.Signals) -> None:
    process, reader = start(TRAINING, "one", RUN, stderr=subprocess.PIPE)
    read_acks(reader, 20)
    time.sleep(0.3)
    sent_ms = time.time() * 1000
    process.send_signal(number)
    _, said = process.communicate(timeout=PATIENCE_SECONDS)
    acked = 20 + drain(reader)
    assert process.returncode == -number, said
    run = wait_for(lambda run: run.status == "KILLED")
    assert run.status == "KILLED" and run.reason == f"signal {int(number)} ({number.name})"
    # It ended when it was killed, not at its last beat: that may be older than the first thing it said.
    assert run.start_ms is not None and run.end_ms is not None
    assert run.start_ms < sent_ms - 100 and sent_ms - 100 < run.end_ms
    assert run.metrics["loss"].count >= acked - 20


def test_an_interrupt_is_a_kill_with_its_signal(store_root: Path) -> None:
    process, reader = start(TRAINING, "one", RUN, stderr=subprocess.DEVNULL)
    read_acks(reader, 20)
    process.send_signal(signal.SIGINT)
    process.wait(PATIENCE_SECONDS)
    drain(reader)
    assert process.returncode == -signal.SIGINT
    run = wait_for(lambda run: run.status == "KILLED")
    assert run.status == "KILLED" and run.exit_code == 130 and run.facts["end"]["signal"] == 2


ENDS = {
    "raise": ("raise ValueError('bad batch')", 1, "FAILED", 1),
    "exit 3": ("sys.exit(3)", 3, "FAILED", 3),
    "exit text": ("sys.exit('no data')", 1, "FAILED", 1),
    "exit 0": ("sys.exit(0)", 0, "FINISHED", 0),
    "end": ("pass", 0, "FINISHED", 0),
    "caught exit": (
        "try:\n    sys.exit(4)\nexcept SystemExit:\n    mltrack.log_metric('x', 2.0, step=2)",
        0,
        "FINISHED",
        0,
    ),
    "in with": (
        "mltrack.end_run()\nwith mltrack.start_run(run_id=run_id, system_metrics=False):\n    1 / 0",
        1,
        "FAILED",
        1,
    ),
    "os._exit": ("os._exit(7)", 7, "LOST", None),
    "abort": ("os.abort()", -signal.SIGABRT, "LOST", None),
}


@pytest.mark.parametrize("name", ENDS)
def test_every_end_is_told_as_it_was(store_root: Path, name: str) -> None:
    code, exit_status, status, recorded = ENDS[name]
    script = (
        f"import os, sys\nimport mltrack\nrun_id = {RUN!r}\nmltrack.start_run(run_id=run_id, system_metrics=False)\n"
        f"mltrack.log_metric('x', 1.0, step=1)\n{code}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == exit_status, done.stderr
    run = wait_for(lambda run: run.status == status)
    assert (run.status, run.exit_code) == (status, recorded)
    if name in ("raise", "in with"):
        assert run.reason.startswith(("ValueError: bad batch", "ZeroDivisionError"))
        assert "Traceback" in run.facts["end"]["traceback"] and "Traceback" in done.stderr


def test_a_child_that_is_terminated_does_not_speak_for_its_parent(store_root: Path) -> None:
    """Data loader workers end by SIGTERM all the time; the training that is killed later was not terminated."""
    code = """
import os, signal, sys, time
import mltrack
mltrack.start_run(run_id=sys.argv[2], system_metrics=False)
mltrack.log_metric("x", 1.0, step=1)
ready, started = os.pipe()
child = os.fork()
if child == 0:
    os.write(started, b"s")
    time.sleep(60)
os.read(ready, 1)
os.kill(child, signal.SIGTERM)
assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGTERM
os.write(int(sys.argv[1]), b".")
time.sleep(60)
"""
    process, reader = start(code, RUN)
    assert read_acks(reader, 1) == 1
    process.kill()
    process.wait()
    drain(reader)
    run = wait_for(lambda run: run.status == "LOST")
    assert run.status == "LOST" and "gone" in run.reason


def test_a_zombie_is_dead_and_a_living_process_never_is(store_root: Path) -> None:
    process, reader = start(TRAINING, "one", RUN)
    read_acks(reader, 5)
    os.kill(process.pid, signal.SIGSTOP)  # alive, and silent
    marker = next((store_root / "open").iterdir())
    os.utime(marker, (1.0, 1.0))
    with open_store() as store:
        take_in(store)
        assert store.run(RUN).status == "RUNNING"
    os.kill(process.pid, signal.SIGKILL)  # nobody waits for it yet: a zombie
    assert wait_for(lambda run: run.status == "LOST").status == "LOST"
    process.wait()
    os.close(reader)


# -- the fold is killed

FOLDER = """
import sys
from mltrack.store import open_store
while True:
    with open_store(sys.argv[1]) as store:
        sys.stdout.write("f")
        sys.stdout.flush()
        store.refresh(float(sys.argv[2]) if sys.argv[2] != "all" else None)
"""


def written(root: Path, chance: random.Random) -> list[str]:
    """Runs with a few journals each, some without a marker, as after a copy."""
    runs = []
    for number in range(6):
        run_id = f"{number:02x}" + f"{number:030x}"
        runs.append(run_id)
        for attempt in range(1 + number % 3):
            journal = Journal(root, run_id, f"{1_700_000_000_000 + attempt}-aaaaaa", identity={"host": "far"})
            journal.meta("start", 1_700_000_000_000 + attempt, name=f"run {number}", experiment="e", user="u")
            journal.meta("param", v={"lr": str(number)})
            file = journal.points()
            for step in range(attempt * 1000, attempt * 1000 + 9000):
                file.append(
                    points_line(step, 1_700_000_000_000 + step, {"loss": chance.random(), "acc": step * 0.25})
                )
            journal.meta("end", 1_700_000_900_000 + attempt, status="FINISHED", exit=0)
            journal.meta("close", points=file.size)
            journal.close()
            if number % 2:
                journal.marker.unlink()
    return runs


def answers(store: Store, runs: list[str]) -> list[object]:
    found: list[object] = []
    for run in store.runs(runs):
        found.append((run.run_id, run.name, run.status, run.params, run.metrics, run.skipped))
        for key in ("loss", "acc"):
            points = store.points(run.run_id, key, superseded=True)
            found.append((points.steps.tobytes(), points.values.tobytes(), points.superseded.tobytes()))
    return found


def test_a_killed_fold_is_taken_up_where_it_was(tmp_path: Path) -> None:
    chance = random.Random(os.urandom(8))
    other = tmp_path / "other"
    runs = written(other, chance)
    roots = [tmp_path / f"store {number}" for number in range(6)]
    for root in roots:
        shutil.copytree(other, root)
    with open_store(str(other)) as store:
        store.refresh(None)
        expected = answers(store, runs)
    killed_within = 0
    for number, root in enumerate(roots):
        for _ in range(1 + number % 2):  # also the one that takes over is killed
            process = subprocess.Popen(
                [sys.executable, "-c", FOLDER, str(root), "all" if number % 3 else "0.05"],
                stdout=subprocess.PIPE,
            )
            assert process.stdout is not None and process.stdout.read(1) == b"f"
            time.sleep(chance.random() * 0.3)
            process.kill()
            process.wait()
            process.stdout.close()
        with open_store(str(root), readonly=True) as store:
            read = store.database.execute("SELECT coalesce(sum(position), 0) FROM journal")[0][0]
            assert store.database.execute("PRAGMA integrity_check")[0][0] == "ok"
        killed_within += 0 < read < sum(path.stat().st_size for path in root.glob("runs/*/*/*.jsonl"))
        with open_store(str(root)) as store:
            store.refresh(None)
            assert answers(store, runs) == expected
    assert killed_within, "no round was killed within a fold: make the store larger"

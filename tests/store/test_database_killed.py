"""Sixteen trainings log to PostgreSQL, directly or by `mltrack server`; the database is killed for a minute in the middle.

Nothing is lost, nothing doubled, and no training hears of it. ``MLT_OUTAGE_LOGGING`` is how many seconds they log.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from tests.mlflow_api.conftest import start

from mltrack.store import open_store
from mltrack.store.errors import StoreUnavailable

SERVICES = Path(__file__).parents[1] / "services"
CLIENTS, POINTS_PER_SECOND = 16, 200
SECONDS = float(os.environ.get("MLT_OUTAGE_LOGGING", "150"))
AWAY = 60.0
# Each says how long its log calls took, in nanoseconds: the median and the 99th percentile; the same of the processor's time for
# them, and of a bare write of as many bytes in turn with them: what of it is the machine's.
TRAINING = """
import json, os, sys, tempfile, time, mltrack
name, points, pause = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
took, worked, wrote = [], [], []
beside = tempfile.TemporaryFile(buffering=0)
with mltrack.start_run(run_name=name) as run:
    began = time.monotonic()
    for step in range(points):
        work, before = time.thread_time_ns(), time.perf_counter_ns()
        mltrack.log_metric("m", step * 0.5, step)
        took.append(time.perf_counter_ns() - before)
        worked.append(time.thread_time_ns() - work)
        before = time.perf_counter_ns()
        beside.write(bytes(48))
        wrote.append(time.perf_counter_ns() - before)
        time.sleep(max(0.0, began + (step + 1) * pause - time.monotonic()))
    logged = time.monotonic() - began
for each in (took, worked, wrote):
    each.sort()
late = sum(each > 100_000 for each in took)
print(json.dumps([run.run_id, logged, late, *([each[points // 2], each[points * 99 // 100]] for each in (took, worked, wrote))]))
"""


class Server:
    """A PostgreSQL of this test's own, that can be killed and comes back at its port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._environment = {**os.environ, "MLT_PG_DIR": str(folder)}
        self.url = self.start()
        self._environment["MLT_PG_PORT"] = self.url.rpartition(":")[2].partition("/")[0]

    def start(self) -> str:
        done = subprocess.run(
            [SERVICES / "start-postgres.sh"],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        if done.returncode != 0:
            pytest.skip(f"needs PostgreSQL's server: {done.stderr.strip()[-300:]}")
        return done.stdout.strip().partition("=")[2]

    def kill(self) -> None:
        """Without a word to anybody, as when the machine goes."""
        pid = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for each in (pid, *map(int, children)):
            try:
                os.kill(each, signal.SIGKILL)
            except ProcessLookupError:
                continue
        while Path(f"/proc/{pid}").exists() and "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text():
            time.sleep(0.05)
        (self.folder / "data" / "postmaster.pid").unlink(missing_ok=True)

    def stop(self) -> None:
        subprocess.run(
            [SERVICES / "stop-postgres.sh", "--purge"], env=self._environment, check=False, timeout=60
        )


@pytest.fixture
def server() -> Iterator[Server]:
    # Not pytest's own folder: the server runs as another user, who must be able to reach it.
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o711)
        found = Server(Path(name) / "pg")
        yield found
        found.stop()


def until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.2)


@contextmanager
def serving(where: str, spool: Path) -> Iterator[str]:
    """The address of an `mltrack server` over a store, with a spool of its own, as on a machine of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLTRACK_SPOOL", str(spool))
        served = start(where)
    assert served.process.stdout is not None
    # What it says is read, lest it waits for that.
    threading.Thread(target=served.process.stdout.read, daemon=True).start()
    try:
        yield served.address
        assert served.process.poll() is None, "the server went on without its database"
    finally:
        served.stop()


@pytest.fixture(params=["by their spools", "by a server"])
def address(request: pytest.FixtureRequest, server: Server, tmp_path: Path) -> Iterator[str]:
    """Where trainings log to."""
    open_store(server.url).close()
    if request.param == "by their spools":
        yield server.url
        return
    with serving(server.url, tmp_path / "spool of the server") as found:
        yield found


@pytest.mark.long
def test_a_database_killed_under_sixteen_trainings(server: Server, address: str, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    points = int(SECONDS * POINTS_PER_SECOND)
    environment = {
        **os.environ,
        "MLTRACK_STORE": address,
        "MLTRACK_SPOOL": str(spool),
        "MLTRACK_SYSTEM_METRICS": "0",
    }
    trainings = [
        subprocess.Popen(
            [sys.executable, "-c", TRAINING, f"t{number}", str(points), str(1 / POINTS_PER_SECOND)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for number in range(CLIENTS)
    ]
    try:
        time.sleep(max(SECONDS / 4, (SECONDS - AWAY) / 2))
        server.kill()
        with pytest.raises(StoreUnavailable):
            open_store(server.url)
        time.sleep(AWAY)
        server.start()
        told = [json.loads(training.communicate(timeout=SECONDS + 300)[0]) for training in trainings]
    finally:
        for training in trainings:
            training.kill()
    assert all(training.returncode == 0 for training in trainings)
    assert max(logged for _, logged, *_ in told) < SECONDS * 1.1 + 5, "no training was held up"
    expected = np.arange(points)
    with open_store(server.url) as store:

        def arrived() -> bool:
            # A marker goes when all of a journal has arrived.
            sent = not list(spool.glob("*/open/*"))
            found = store.runs(store.search("status = 'FINISHED'").run_ids)
            return sent and [run.metrics["m"].count for run in found] == [points] * CLIENTS

        until(arrived, 300)
        for run_id, *_ in told:
            series = store.points(run_id, "m")
            assert np.array_equal(series.steps, expected) and np.array_equal(series.values, expected * 0.5)
    late = sum(row[2] for row in told) / points / CLIENTS
    print(
        f"\n{CLIENTS} trainings of {points:,} points in {max(row[1] for row in told):.0f} s, database away {AWAY:.0f} s:"
        f" a log call takes {_summary(row[3] for row in told)}, {late:.2%} of them more than 100 us;"
        f" of the processor {_summary(row[4] for row in told)};"
        f" a bare write in turn with it {_summary(row[5] for row in told)}"
    )


def _summary(found: Iterable[tuple[int, int]]) -> str:
    medians, nearly_all = np.array(list(found)).T / 1000
    return f"{np.median(medians):.0f} us, p99 {np.median(nearly_all):.0f} us ({nearly_all.max():.0f} in the slowest training)"

"""Fifty jobs log to one store, each a process of its own, while two people watch them in terminals of their own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import psycopg
import pytest
from tests.e2e.conftest import APP, Terminal

from mltrack.store import open_store

JOBS = 50
STEPS = 20
FIRST_ROW = 3
CONNECTIONS = 2
"""What one app may hold of a PostgreSQL store; a training holds none."""
JOB = """
import json, select, sys, mltrack
number, STEPS = map(int, sys.argv[1:])
with mltrack.start_run(run_name=f"job-{number:02}", experiment="sweep", system_metrics=False) as run:
    step = 0
    while step < STEPS or not select.select([sys.stdin], [], [], 0.2)[0]:
        mltrack.log_metric("loss", number + 7 / (step + 1), step)
        step += 1
print(json.dumps([run.run_id, number, step]))
"""


@pytest.fixture(params=["folder", "PostgreSQL"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the store is to be."""
    if request.param == "folder":
        return str(tmp_path / "store")
    return str(request.getfixturevalue("postgres_url"))


class Connections:
    """Who holds connections to a database, looked at all the time: the most that each process held at once."""

    def __init__(self, url: str) -> None:
        self.most: Counter[int] = Counter()
        self.looks = 0
        self._url = url
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            while not self._done.wait(0.25):
                rows = connection.execute(
                    "SELECT client_port FROM pg_stat_activity WHERE datname = current_database()"
                    " AND pid <> pg_backend_pid()"
                )
                ports = {row[0] for row in rows}
                # The server's end of the same connection belongs to the server.
                found = (
                    each for each in psutil.net_connections("tcp") if each.laddr and each.laddr.port in ports
                )
                now = Counter(each.pid for each in found if each.pid is not None)
                self.most |= now
                self.looks += 1

    @contextmanager
    def watched(self) -> Iterator[Connections]:
        """While the block runs."""
        self._thread.start()
        try:
            yield self
        finally:
            self._done.set()
            self._thread.join()


def held(connections: Connections, pid: int) -> int:
    """The most connections that a process and all below it held, were it all at once."""
    below = psutil.Process(pid).children(recursive=True)
    return sum(connections.most[each] for each in (pid, *(child.pid for child in below)))


def steps_seen(window: Terminal) -> dict[str, int]:
    """At which step of each job's loss the table has come; it falls, so that its best is its newest."""
    found = (re.search(r"(job-\d\d) .* running +\S+ +(\d+) ", line) for line in window.screen())
    return {each[1]: int(each[2]) for each in found if each is not None}


@pytest.fixture
def connections(place: str) -> Iterator[Connections | None]:
    """Those of a store that is a database."""
    open_store(place).close()
    if "://" not in place:
        yield None
        return
    with Connections(place).watched() as watched:
        yield watched


@pytest.fixture
def job(
    place: str, tmp_path: Path, environ: dict[str, str]
) -> Iterator[Callable[[int], subprocess.Popen[str]]]:
    """Start a job by its number; all of them end with the test."""
    # One companion for all of them, as on one machine; and no repository around them, of which each would record the state.
    environ.update(MLTRACK_STORE=place, MLTRACK_SPOOL=str(tmp_path / "spool"))
    started: list[subprocess.Popen[str]] = []

    def start(number: int) -> subprocess.Popen[str]:
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", JOB, str(number), str(STEPS)],
                env=environ,
                cwd=tmp_path,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield start
    for each in started:
        each.kill()
        each.communicate()


def test_fifty_jobs_and_two_who_watch(
    place: str,
    connections: Connections | None,
    job: Callable[[int], subprocess.Popen[str]],
    terminal: Callable[..., Terminal],
) -> None:
    hers, his = windows = [terminal(100, 64, *APP) for _ in range(2)]
    jobs = [job(number) for number in range(JOBS)]
    for window in windows:
        window.until(rf"{JOBS} runs +{JOBS}● running", 120)
    # What one of them is at moves on, and keys are answered meanwhile: in one a filter and a run's screen, in the other the list.
    his.wait_for(lambda: len(steps_seen(his)) == JOBS, 60)
    before = steps_seen(his)
    his.wait_for(lambda: JOBS == sum(step > before[name] for name, step in steps_seen(his).items()), 60)
    for key, line in (("G", FIRST_ROW + JOBS - 1), ("g", FIRST_ROW)):
        his.type(key).wait_for(lambda line=line: his.screen()[line].startswith("▌"))
    hers.type("/").type("name = job-31").until("/ name = job-31")
    hers.press("Enter").until(rf"1 of {JOBS}")
    hers.press("Enter").until(r"job-31[^\n]*running")
    hers.until("loss")
    hers.type("q").type("q").until(rf"{JOBS} of {JOBS}")
    if connections is not None:
        assert connections.looks > 10
        for window in windows:
            assert 1 <= held(connections, window.pid()) <= CONNECTIONS
        # Beside the apps' workers only one companion ever spoke to the database, for all fifty of the jobs.
        assert len(connections.most) == 3 and not connections.most.keys() & {each.pid for each in jobs}
    for each in jobs:
        assert each.stdin is not None
        each.stdin.write("\n")
        each.stdin.flush()
    told = [each.communicate(timeout=120) for each in jobs]
    assert [each.returncode for each in jobs] == [0] * JOBS and "Traceback" not in "".join(
        error for _, error in told
    )
    for window in windows:
        window.until(rf"{JOBS} runs +{JOBS}✓ done", 120)
    with open_store(place) as store:
        for text, _ in told:
            run_id, number, steps = json.loads(text)
            series = store.points(run_id, "loss")
            assert steps >= STEPS and np.array_equal(series.steps, np.arange(steps))
            assert np.array_equal(series.values, number + 7 / np.arange(1, steps + 1))
            assert store.run(run_id).metrics["loss"].count == steps
    for window in windows:
        window.type("Q")
        assert window.ended() == 0

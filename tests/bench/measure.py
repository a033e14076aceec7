"""Measuring: CPU time of code and of whole processes, and the table of figures."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

# What a benchmark asserts is this much looser than what is promised: figures are read, only a change of kind fails.
MARGIN = 2.0
# Ratios of two things that were taken in turn differ by less.
RATIO_MARGIN = 1.25


@dataclass
class Figures:
    """Rows of (what, promise, measured, beside it)."""

    rows: list[tuple[str, str, str, str]] = field(default_factory=list)

    def add(self, what: str, promise: str, measured: str, beside: str = "") -> None:
        """One row; it is printed at once too."""
        self.rows.append((what, promise, measured, beside))
        print(f"\n{what}: {measured} (promised {promise}{'; ' + beside if beside else ''})")

    def markdown(self) -> str:
        """The table."""
        lines = ["| What | Promise | Measured | MLflow on SQLite |", "| --- | --- | --- | --- |"]
        return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in self.rows)]) + "\n"


def cpu_of(work: Callable[[], Any]) -> float:
    """CPU seconds of this process for one call."""
    before = time.process_time()
    work()
    return time.process_time() - before


def postmaster(url: str) -> psutil.Process:
    """The first process of a PostgreSQL server on this machine."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute("SELECT pg_backend_pid()").fetchone()
    assert row is not None
    return psutil.Process(psutil.Process(int(row[0])).ppid())


def cpu_of_server(server: psutil.Process) -> float:
    """CPU seconds so far of a database server with all its processes; what has ended counts as its parent's children."""
    total = sum(server.cpu_times()[:4])
    for each in server.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            total += sum(each.cpu_times()[:2])
    return float(total)


def cpu_of_python(code: str, times: int, **environment: str) -> float:
    """Median CPU seconds of a whole Python process that runs `code`, byte code compiled before."""
    env = {**os.environ, **environment}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    taken: list[float] = []
    for _ in range(times + 1):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], env=env, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(taken[1:])


def answers_of(script: str, *arguments: object, python: str = sys.executable) -> Any:
    """What a script of this folder printed last, as JSON."""
    path = Path(__file__).parent / script
    done = subprocess.run(
        [python, str(path), *map(str, arguments)], stdout=subprocess.PIPE, text=True, check=True, timeout=900
    )
    return json.loads(done.stdout.splitlines()[-1])

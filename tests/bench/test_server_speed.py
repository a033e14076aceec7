"""`mltrack server` beside MLflow's server, both on SQLite or both on one PostgreSQL server, the same requests in one run: CPU of the
whole process tree and of the database, memory, start."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from measure import cpu_of_server, postmaster

JSON = {"Content-Type": "application/json"}
CALLS, BATCHES = 400, 60
METRICS = 10


@dataclass(frozen=True)
class Size:
    """How much there is: runs, and points of one long history."""

    runs: int = 10_000
    history: int = 1_000_000


class Measured:
    """A server process with all its children."""

    def __init__(
        self, process: subprocess.Popen[bytes], port: int, started: float, database: psutil.Process | None
    ) -> None:
        """``database``: the first process of a database server whose work counts, too."""
        self.process, self.port, self.started, self.database = process, port, started, database
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)

    def _tree(self) -> list[psutil.Process]:
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]

    def cpu(self, work: Callable[[], Any]) -> float:
        """CPU seconds of the server while ``work`` asks it."""
        before = self._cpu()
        work()
        return self._cpu() - before

    def _cpu(self) -> float:
        total = sum(sum(each.cpu_times()[:2]) for each in self._tree())
        return total if self.database is None else total + cpu_of_server(self.database)

    def memory(self) -> float:
        """Megabytes, shared pages counted once (PSS)."""
        return sum(each.memory_full_info().pss for each in self._tree()) / 1e6

    def call(self, method: str, path: str, fields: dict[str, Any] | None = None) -> Any:
        body = None if fields is None else json.dumps(fields).encode()
        self.connection.request(method, f"/api/2.0/mlflow/{path}", body, JSON)
        response = self.connection.getresponse()
        data = response.read()
        assert response.status == 200, data[:500]
        return json.loads(data)


@contextmanager
def serving(
    command: list[str],
    port: int,
    environment: dict[str, str],
    folder: Path,
    database: psutil.Process | None = None,
) -> Iterator[Measured]:
    began = time.monotonic()
    with (folder / f"log-{port}").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=folder, env=environment, start_new_session=True
        )
    try:
        while True:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                connection.request("GET", "/api/2.0/mlflow/experiments/get?experiment_id=0")
                if connection.getresponse().status == 200:
                    break
            except OSError:
                assert process.poll() is None and time.monotonic() - began < 180, (
                    folder / f"log-{port}"
                ).read_text()
            time.sleep(0.01)
        yield Measured(process, port, time.monotonic() - began, database)
    finally:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.terminate()
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def figures(server: Measured, run_id: str, size: Size) -> dict[str, float]:
    found = {"start to first answer, s": server.started, "memory at start, MB": server.memory()}
    experiment = server.call("POST", "experiments/create", {"name": "bench"})["experiment_id"]
    made = server.call("POST", "runs/create", {"experiment_id": experiment, "start_time": 1})["run"]["info"][
        "run_id"
    ]

    def one_by_one() -> None:
        for step in range(CALLS):
            fields = {"run_id": made, "key": "loss", "value": 1 / (step + 1), "timestamp": step, "step": step}
            server.call("POST", "runs/log-metric", fields)

    def batches() -> None:
        for step in range(BATCHES):
            metrics = [
                {"key": f"m{key}", "value": key / 7, "timestamp": step, "step": step} for key in range(100)
            ]
            server.call("POST", "runs/log-batch", {"run_id": made, "metrics": metrics})

    found["log-metric, ms CPU"] = server.cpu(one_by_one) / CALLS * 1000
    found["log-batch of 100, ms CPU"] = server.cpu(batches) / BATCHES * 1000
    search = {
        "experiment_ids": ["0"],
        "filter": "metrics.`eval/metric_03` < 0.5",
        "order_by": ["metrics.`eval/metric_07` ASC"],
        "max_results": 100,
    }
    assert len(server.call("POST", "runs/search", search)["runs"]) == 100
    found["search, ms CPU"] = (
        server.cpu(lambda: [server.call("POST", "runs/search", search) for _ in range(5)]) / 5 * 1000
    )

    def history() -> None:
        token, points = "", 0
        while True:
            page = f"&page_token={token}" if token else ""
            answer = server.call(
                "GET", f"metrics/get-history?run_id={run_id}&metric_key=long&max_results=25000{page}"
            )
            points += len(answer["metrics"])
            token = answer.get("next_page_token", "").replace("=", "%3D")
            if not token:
                break
        assert points == size.history

    found["history, s CPU"] = server.cpu(history)
    found["memory in the end, MB"] = server.memory()
    return found


def fill_mlflow(connection: Any, mark: str, run_id: str, size: Size) -> None:
    """What its API would have written, in a hundredth of the time. ``mark``: how the database's driver writes a value's place."""
    nan = "false" if mark == "%s" else "0"
    runs = [(run_id, 0), *((uuid.uuid4().hex, index) for index in range(1, size.runs))]
    cursor = connection.cursor()
    cursor.executemany(
        "INSERT INTO runs (run_uuid, name, source_type, status, start_time, end_time, lifecycle_stage, experiment_id, user_id,"
        f" artifact_uri) VALUES ({mark}, 'r', 'LOCAL', 'FINISHED', {mark}, {mark}, 'active', 0, 'ann', '')",
        [(name, index, index) for name, index in runs],
    )
    cursor.executemany(
        "INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid)"
        f" VALUES ({mark}, {mark}, 1, 9, {nan}, {mark})",
        [
            (f"eval/metric_{key:02d}", (index * 7 + key) % 100 / 100, name)
            for name, index in runs
            for key in range(METRICS)
        ],
    )
    cursor.executemany(
        "INSERT INTO metrics (key, value, timestamp, step, is_nan, run_uuid)"
        f" VALUES ('long', {mark}, {mark}, {mark}, {nan}, {mark})",
        ((step / 7, step, step, run_id) for step in range(size.history)),
    )
    connection.commit()


def fill_ours(where: str, run_id: str, size: Size) -> None:
    from mltrack.store import open_store
    from mltrack.store.client.journal import Journal, points_line
    from mltrack.store.client.location import choose_store

    root = choose_store(where).root
    for index in range(size.runs):
        name = run_id if index == 0 else uuid.uuid4().hex
        journal = Journal(root, name, "0000000000000-rest00", role="server")
        journal.meta("start", name="r", experiment="Default", user="ann", at=index)
        values = {f"eval/metric_{key:02d}": (index * 7 + key) % 100 / 100 for key in range(METRICS)}
        lines = [points_line(9, 1, values)]
        if index == 0:
            lines += [points_line(step, step, {"long": step / 7}) for step in range(size.history)]
        journal.points().append(b"".join(lines))
        journal.meta("end", status="FINISHED", at=index)
        journal.meta("close", points=journal.points().size)
        journal.close()
    with open_store(where) as store:
        store.refresh(None)


def beside(
    theirs_at: str,
    ours_at: str,
    fill: Callable[[str], None],
    tmp_path: Path,
    python: Path,
    size: Size,
    database: psutil.Process | None = None,
) -> None:
    """Ask both the same, print the table, and hold the least that is promised."""
    run_id = uuid.uuid4().hex
    port = free_port()
    environment = {
        **os.environ,
        "PATH": f"{python.parent}:{os.environ['PATH']}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    command = [str(python), *"-m mlflow server --host 127.0.0.1 --workers 1 --port".split(), str(port)]
    command += ["--backend-store-uri", theirs_at, "--artifacts-destination", f"{tmp_path}/artifacts"]
    with serving(command, port, environment, tmp_path):
        pass
    fill(run_id)
    with serving(command, port, environment, tmp_path, database) as server:
        theirs = figures(server, run_id, size)
    fill_ours(ours_at, run_id, size)
    port = free_port()
    code = "from mltrack.tui.cli.main import main; main()"
    command = [sys.executable, "-c", code, "--store", ours_at, "server", "--port", str(port)]
    with serving(command, port, dict(os.environ), tmp_path, database) as server:
        ours = figures(server, run_id, size)
    print(f"\n{size.runs:,} runs, a history of {size.history:,} points")
    print("\n| | mltrack | MLflow | ratio |\n|---|---|---|---|")
    for name, value in ours.items():
        print(f"| {name} | {value:.3g} | {theirs[name]:.3g} | {theirs[name] / value:.1f} |")
    assert theirs["log-metric, ms CPU"] > 10 * ours["log-metric, ms CPU"]
    assert theirs["search, ms CPU"] > ours["search, ms CPU"]


def test_beside_mlflows_server(tmp_path: Path, mlflow_python: Path) -> None:
    def fill(run_id: str) -> None:
        with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
            fill_mlflow(connection, "?", run_id, Size())

    beside(f"sqlite:///{tmp_path}/mlflow.db", str(tmp_path / "served"), fill, tmp_path, mlflow_python, Size())


def test_beside_mlflows_server_on_one_postgresql(
    tmp_path: Path, mlflow_python: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psycopg

    size = Size(history=100_000)  # MLflow's points go over a connection one by one
    monkeypatch.setenv("MLTRACK_SPOOL", str(tmp_path / "spool"))
    name = f"mlflow_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0".encode())
    theirs = urlsplit(postgres_url)._replace(path=f"/{name}").geturl()

    def fill(run_id: str) -> None:
        with psycopg.connect(theirs) as filling:
            fill_mlflow(filling, "%s", run_id, size)

    try:
        beside(
            theirs.replace("postgresql://", "postgresql+psycopg://", 1),
            postgres_url,
            fill,
            tmp_path,
            mlflow_python,
            size,
            postmaster(postgres_url),
        )
    finally:
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())

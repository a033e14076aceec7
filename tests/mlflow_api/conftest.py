"""A real server process over a store of its own, and a small HTTP client."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from tests.conftest import folder_of, new_database

QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_TRACKING_URI": "",
}
COMMAND = [sys.executable, "-c", "from mltrack.tui.cli.main import main; main()"]


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Server:
    """``store`` is the address of its store, ``root`` the folder where it keeps journals, files and users."""

    process: subprocess.Popen[str]
    store: str
    root: Path
    host: str
    port: int

    @property
    def address(self) -> str:
        return f"http://{self.host}:{self.port}"

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            return Answer(response.status, dict(response.headers.items()), response.read())
        finally:
            connection.close()

    def call(self, method: str, path: str, /, **fields: Any) -> Answer:
        """A call below /api/2.0/mlflow/."""
        path = f"/api/2.0/mlflow/{path}"
        if method == "GET":
            return self.request(method, f"{path}?{urlencode(fields, doseq=True)}")
        return self.request(method, path, json.dumps(fields).encode(), {"Content-Type": "application/json"})

    def get(self, path: str, /, **fields: Any) -> Any:
        answer = self.call("GET", path, **fields)
        assert answer.status == 200, answer.body
        return answer.json

    def post(self, path: str, /, **fields: Any) -> Any:
        answer = self.call("POST", path, **fields)
        assert answer.status == 200, answer.body
        return answer.json

    def new_run(self, **fields: Any) -> str:
        return str(
            self.post("runs/create", **{"experiment_id": "0", "start_time": 1, **fields})["run"]["info"][
                "run_id"
            ]
        )

    def stop(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        self.process.wait(30)


def start(store: Path | str, *options: str) -> Server:
    """A server on a free port."""
    address = os.fspath(store)
    process = subprocess.Popen(
        [*COMMAND, "--store", address, "server", "--port", "0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    said = ""
    for _ in range(20):
        line = process.stdout.readline()
        said += line
        found = re.search(r"MLFLOW_TRACKING_URI=https?://(\S+):(\d+)", line)
        if found:
            return Server(process, address, folder_of(address), found[1], int(found[2]))
        if not line:
            break
    raise AssertionError(f"the server did not start: {said}")


@pytest.fixture
def new_server(store_address: str) -> Iterator[Callable[..., Server]]:
    """Starts servers; all of them are ended after the test."""
    servers: list[Server] = []

    def make(*options: str, store: str = store_address) -> Server:
        servers.append(start(store, *options))
        return servers[-1]

    yield make
    for server in servers:
        if server.process.poll() is None:
            server.stop()


@pytest.fixture(scope="module")
def shared_store(database_kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an empty store (not created yet) for all tests of a file."""
    if database_kind == "sqlite":
        yield str(tmp_path_factory.mktemp("shared") / "served")
        return
    with new_database() as url:
        yield url


@pytest.fixture(scope="module")
def server(shared_store: str) -> Iterator[Server]:
    """One for all tests of a file: they make their own experiments, runs and models."""
    server = start(shared_store)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def reference(mlflow_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of MLflow's own server on SQLite."""
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        str(mlflow_python),
        "-m",
        "mlflow",
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        f"{folder}/artifacts",
    ]
    environment = {**os.environ, **QUIET, "PATH": f"{mlflow_python.parent}:{os.environ['PATH']}"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=folder, env=environment, start_new_session=True
        )
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=2):
                break
        except OSError:
            assert time.monotonic() < deadline and process.poll() is None, (folder / "log").read_text()
            time.sleep(0.2)
    yield address
    os.killpg(process.pid, 9)
    process.wait()


def said(python: Path, script: Path, address: str, *options: str) -> Any:
    """What a script that asks a server by MLflow's client prints at its end."""
    environment = {**os.environ, **QUIET, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [str(python), str(script), address, *options],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def said_by_mlflow(mlflow_python: Path, reference: str) -> Callable[..., Any]:
    """What a script prints of MLflow's own server, where it runs once: the second time it would find what it made."""

    @cache
    def ask(script: Path, *options: str) -> Any:
        return said(mlflow_python, script, reference, *options)

    return ask


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.02)

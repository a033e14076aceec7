"""Our scoring server beside MLflow's own, with the same model and the same requests: the answers, and what a request costs."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = pytest.mark.long  # MLflow's server needs seconds to start

ROOT = Path(__file__).parents[2]
TRAIN = """
import sys
import mlflow, numpy as np, pandas as pd
from mlflow.models import infer_signature
from sklearn.linear_model import LinearRegression
X = pd.DataFrame({"a": np.arange(20.0), "b": np.arange(20), "c": np.arange(20.0) % 3})
model = LinearRegression().fit(X, X["a"] * 2 + X["c"])
mlflow.sklearn.save_model(model, sys.argv[1], signature=infer_signature(X, model.predict(X)), input_example=X[:2])
"""
GOOD: dict[str, Any] = {
    "split": {"dataframe_split": {"columns": ["a", "b", "c"], "data": [[1.5, 2, 0.5], [3, 4, 1]]}},
    "split, other order and more": {
        "dataframe_split": {"columns": ["x", "c", "b", "a"], "data": [[9, 0.5, 2, 1.5]]}
    },
    "records": {"dataframe_records": [{"a": 1.5, "b": 2, "c": 0.5}, {"a": 0, "b": 1, "c": 2}]},
    "inputs": {"inputs": {"a": [1.5, 2.0], "b": [2, 3], "c": [0.5, 1.0]}},
    "instances of objects": {"instances": [{"a": 1.5, "b": 2, "c": 0.5}]},
    "whole numbers for doubles": {"dataframe_records": [{"a": 1, "b": 2, "c": 3}]},
}
BAD: dict[str, Any] = {
    "no format": {},
    "two formats": {"inputs": {"a": [1]}, "instances": [[1]]},
    "column missing": {"dataframe_records": [{"a": 1, "b": 2}]},
    "a text for a double": {"dataframe_records": [{"a": "x", "b": 2, "c": 3}]},
    "a list": [1, 2],
    "not JSON": b"{",
}


class Beside:
    """A server of either kind."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self.port = port
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for _ in range(1200):
            try:
                self.connection.request("GET", "/ping")
                if self.connection.getresponse().read() is not None:
                    return
            except OSError:
                self.connection.close()
                assert process.poll() is None, "the server ended"
                time.sleep(0.1)
        raise AssertionError("the server does not answer")

    def ask(self, body: object, kind: str = "application/json") -> tuple[int, Any]:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.connection.close()  # one that was idle for long is closed at the other end
        return self.again(content, kind)

    def again(self, content: bytes, kind: str = "application/json") -> tuple[int, Any]:
        """Over the connection that is open."""
        self.connection.request("POST", "/invocations", content, {"Content-Type": kind})
        answer = self.connection.getresponse()
        return answer.status, json.loads(answer.read())

    def cpu_seconds(self) -> float:
        """Of the server and all it started."""
        tree = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        return sum(sum(each.cpu_times()[:2]) for each in tree)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def both(mlflow_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Beside, Beside]]:
    folder = tmp_path_factory.mktemp("beside")
    model = folder / "model"
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/unused.db", "PYTHONPATH": ""}
    environment["PATH"] = f"{mlflow_python.parent}:{environment['PATH']}"
    subprocess.run(
        [str(mlflow_python), "-c", TRAIN, str(model)], check=True, env=environment, capture_output=True
    )
    ports = (free_port(), free_port())
    ours = [sys.executable, "-m", "mltrack.tui.cli", "--store", str(folder / "store"), "serve", str(model)]
    theirs = [
        str(mlflow_python),
        "-m",
        "mlflow",
        "models",
        "serve",
        "-m",
        str(model),
        "--env-manager",
        "local",
    ]
    with (folder / "log").open("wb") as log:
        processes = [
            subprocess.Popen(
                [*ours, "--python", str(mlflow_python), "--port", str(ports[0])],
                env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
                stdout=log,
                stderr=log,
                start_new_session=True,
            ),
            subprocess.Popen(
                [*theirs, "-p", str(ports[1])],
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            ),
        ]
        try:
            yield Beside(processes[0], ports[0]), Beside(processes[1], ports[1])
        finally:
            for process in processes:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(60)


@pytest.mark.parametrize("name", GOOD)
def test_good_requests_are_answered_the_same(both: tuple[Beside, Beside], name: str) -> None:
    (status, ours), (other, theirs) = (server.ask(GOOD[name]) for server in both)
    assert (status, other) == (200, 200), (ours, theirs)
    assert ours["predictions"] == pytest.approx(theirs["predictions"], abs=1e-9)


@pytest.mark.parametrize("name", BAD)
def test_bad_requests_are_400_at_both(both: tuple[Beside, Beside], name: str) -> None:
    (status, ours), (other, theirs) = (server.ask(BAD[name]) for server in both)
    assert (status, other) == (400, 400), (ours, theirs)
    assert ours["error_code"] in ("BAD_REQUEST", "INVALID_PARAMETER_VALUE") and ours["message"]


def test_a_fraction_is_not_cut_to_a_whole_number(both: tuple[Beside, Beside]) -> None:
    """Where MLflow answers for 2 when it was asked for 2.5, we say that the column takes whole numbers."""
    (status, ours), (other, _) = (
        server.ask({"dataframe_records": [{"a": 1, "b": 2.5, "c": 3}]}) for server in both
    )
    assert (status, other) == (400, 200) and "The column b must be a long" in ours["message"]


def test_tables_as_csv(both: tuple[Beside, Beside]) -> None:
    (status, ours), (other, theirs) = (server.ask(b"a,b,c\n1.5,2,0.5\n", "text/csv") for server in both)
    assert (status, other) == (200, 200) and ours["predictions"] == pytest.approx(theirs["predictions"])


def test_a_request_costs_a_third_of_the_processor_time(both: tuple[Beside, Beside]) -> None:
    costs: list[float] = []
    for server in both:
        content = json.dumps(GOOD["split"]).encode()
        for _ in range(50):
            server.ask(content)
        before = server.cpu_seconds()
        for _ in range(600):
            assert server.again(content)[0] == 200
        costs.append((server.cpu_seconds() - before) / 600)
    print(f"\nprocessor time of a request: {costs[0] * 1e3:.2f} ms, MLflow's {costs[1] * 1e3:.2f} ms")
    assert costs[1] >= 3 * costs[0]

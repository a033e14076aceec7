"""A model's whole way by the command alone, every step a process: trained in a launched project, registered, promoted, served,
replaced under load, rolled back."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tests.projects.launching import console, write_project
from tests.projects.served import JSON, Serving
from tests.tui.conftest import command_environment

TRAIN = """\
import sys
import numpy as np
import mltrack
from line import Line

slope = float(sys.argv[1])
x = np.arange(20.0).reshape(-1, 1)
with mltrack.start_run():
    model = Line(slope)
    mltrack.log_metric("mae", float(np.abs(model(x) - 3 * x).mean()), step=0)
    mltrack.log_model(model, "model", input_example=x[:2], code_paths=["line.py"], pip_requirements=[])
"""
LINE = """\
class Line:
    def __init__(self, slope):
        self.slope = slope

    def __call__(self, data):
        return data * self.slope
"""


def mltrack(*arguments: str, code: int = 0) -> Any:
    """What the command prints, as JSON where it was asked for."""
    done = subprocess.run(
        [sys.executable, "-m", "mltrack.tui.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=command_environment(),
        timeout=120,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout) if "--json" in arguments else done.stdout


class Load:
    """Clients that ask all the time; what they were answered, in order."""

    def __init__(self, served: Serving) -> None:
        self.answers: list[tuple[int, float]] = []
        self.troubles: list[Exception] = []
        self._served = served
        self._stop = threading.Event()
        self._clients = [threading.Thread(target=self._ask) for _ in range(3)]
        for client in self._clients:
            client.start()

    def _ask(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._served.port, timeout=60)
        try:
            while not self._stop.is_set():
                connection.request("POST", "/invocations", b'{"inputs": [[2.0]]}', JSON)
                answer = connection.getresponse()
                self.answers.append((answer.status, json.loads(answer.read())["predictions"][0][0]))
                time.sleep(0.01)  # leaves the machine to what is tested
        except (OSError, http.client.HTTPException, ValueError, LookupError) as error:
            self.troubles.append(error)
        finally:
            connection.close()

    def more(self) -> None:
        """Wait for some more answers."""
        until = len(self.answers) + 20
        while len(self.answers) < until and not self.troubles:
            time.sleep(0.01)

    def end(self) -> None:
        self._stop.set()
        for client in self._clients:
            client.join()


def test_trained_registered_promoted_served_replaced_under_load_and_rolled_back(
    store_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    project = write_project(
        tmp_path / "house-prices",
        MLproject="""\
            name: house-prices
            entry_points:
              main:
                parameters: {slope: {type: float, default: 1}}
                command: "python train.py {slope}"
            """,
        train_DOT_py=TRAIN,
        line_DOT_py=LINE,
    )
    for arguments in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-qm", "a line"]):
        subprocess.run(["git", *arguments], cwd=project, check=True)

    # Trained: two runs of the project, each with its model.
    runs = []
    for slope in ("2.5", "3"):
        ended = mltrack("run", str(project), "--backend", "local", "-P", f"slope={slope}", "--json")
        assert (ended["status"], ended["exit_code"]) == ("FINISHED", 0), console(ended["run_id"])
        runs.append(ended["run_id"])

    # Registered and promoted.
    for number, run_id in enumerate(runs, 1):
        made = mltrack("models", "register", f"runs:/{run_id}/model", "--name", "house", "--json")
        assert made == {"name": "house", "version": number}
    mltrack("models", "policy", "house", "goal=mae", "metric=warn")
    mltrack("models", "promote", "house/1", "Production", "-m", "the first", "--json")
    shown = {each["version"]: each for each in mltrack("models", "show", "house", "--json")["versions"]}
    assert {number: (each["stage"], each["aliases"]) for number, each in shown.items()} == {
        1: ("Production", []),
        2: ("None", []),
    }

    # Served, replaced and rolled back while others ask.
    served = Serving(store_root, "models:/house/Production")
    load = Load(served)
    try:
        load.more()
        mltrack("models", "promote", "house/2", "Production", "--expect", "1", "--reason", "a better slope")
        served.hears("Serving house v2 now, v1 before")
        load.more()
        # Somebody who still sees version 1 is told who was first, and nothing changes.
        mltrack("models", "promote", "house/1", "Production", "--expect", "1", code=1)
        [listed] = mltrack("models", "list", "--json")
        assert listed["production"] == [2] and [each["version"] for each in listed["served"]] == [2]
        mltrack("models", "rollback", "house", "-m", "the old one was liked better")
        served.hears("Serving house v1 now, v2 before")
        load.more()
    finally:
        load.end()
        assert served.stop() == 0
    assert not load.troubles
    assert {status for status, _ in load.answers} == {200}
    values = [value for _, value in load.answers]
    assert set(values) == {5.0, 6.0} and values[0] == values[-1] == 5.0

    # And all of it can be told afterwards.
    history = mltrack("models", "history", "house", "--json")
    told = [(row["version"], row["reason"]) for row in history if row["reason"]]
    for row in [(1, "the first"), (2, "a better slope"), (1, "the old one was liked better")]:
        assert row in told
    mltrack("models", "audit", "--verify")
    lineage = mltrack("show", runs[1], "--json")
    assert lineage["params"]["slope"] == "3" and lineage["metrics"]["mae"] == 0.0

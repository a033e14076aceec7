"""docs/mlflow-rest.sh: the protocol with curl, every endpoint of it; and MLflow's own command against our server."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from tests.mlflow_api.conftest import QUIET, Server

from mltrack.store.mlflow_api.application import ROUTES

SCRIPT = Path(__file__).parents[2] / "docs" / "mlflow-rest.sh"


def test_the_script_runs(server: Server) -> None:
    done = subprocess.run(
        ["bash", str(SCRIPT), server.address], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-1000:]
    assert done.stdout == f"all of it works at {server.address}\n"


def test_no_endpoint_is_left_out() -> None:
    text = SCRIPT.read_text()
    sent = {(method, path) for method, path in re.findall(r'send ([A-Z]+) "?([\w/${}-]+)', text)}
    sent |= {("GET", path) for path in re.findall(r'ask "?([\w/${}-]+)', text)}
    plain = {
        (method, path.replace("$model", "{model_id}").replace("/gone", "/{tag_key}")) for method, path in sent
    }
    assert set(ROUTES) - plain == set()


def test_mlflows_command(mlflow_python: Path, server: Server) -> None:
    environment = {**os.environ, **QUIET, "MLFLOW_TRACKING_URI": server.address}
    run_id = server.new_run(run_name="seen by the command")
    server.request("PUT", f"/api/2.0/mlflow-artifacts/artifacts/0/{run_id}/artifacts/d/a.txt", b"hello")

    def said(*words: str) -> str:
        done = subprocess.run(
            [str(mlflow_python), "-m", "mlflow", *words],
            capture_output=True,
            text=True,
            timeout=120,
            env=environment,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    assert "seen by the command" in said("runs", "list", "--experiment-id", "0")
    assert "d/a.txt" in said("artifacts", "list", "--run-id", run_id, "--artifact-path", "d")

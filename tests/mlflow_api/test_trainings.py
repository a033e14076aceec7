"""Lightning and Transformers train for real and log through MLflow's client; the run is seen while it goes on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import tool_environment
from tests.mlflow_api.conftest import QUIET, Server, until

from mltrack.store import open_store

SCRIPT = Path(__file__).with_name("training_script.py")
STEPS = 12


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "experiment", "metric", "param"),
    [
        ("logger", "lightning/logger", "train_loss_epoch", "width"),
        ("autolog", "lightning/autolog", "train_loss_epoch", "epochs"),
        ("transformers", "transformers", "loss", "max_steps"),
    ],
)
def test_a_training_is_seen_while_it_goes_on(
    new_server: Callable[..., Server], tmp_path: Path, name: str, experiment: str, metric: str, param: str
) -> None:
    server = new_server()
    training = subprocess.Popen(
        [str(tool_environment("torch")), str(SCRIPT), name, server.address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=(tmp_path / "said").open("wb"),
        text=True,
        cwd=tmp_path,
        env={**os.environ, **QUIET},
    )
    assert training.stdin is not None and training.stdout is not None
    try:
        said = next((line for line in training.stdout if line.startswith("half ")), "")
        assert said, (tmp_path / "said").read_text()[-3000:]
        run_id = said.split()[1]
        with open_store(str(server.root)) as store:

            def half_way() -> bool:
                store.refresh(1)
                found = store.runs([run_id])
                return bool(found) and metric in found[0].metrics

            until(half_way, 60)
            run = store.run(run_id)
            assert (run.status, run.experiment) == ("RUNNING", experiment) and param in run.params
            before = run.metrics[metric].count
            assert 1 <= before < STEPS
            training.stdin.write("\n")
            training.stdin.flush()
            assert "done\n" in list(training.stdout), (tmp_path / "said").read_text()[-3000:]
            assert training.wait(60) == 0
            store.refresh(None)
            run = store.run(run_id)
            assert run.status == "FINISHED" and run.metrics[metric].count > before
            if name == "logger":
                assert run.artifacts is not None and any(run.artifacts.rglob("*.ckpt"))
    finally:
        training.kill()

"""Lightning and Transformers train for real and log through MLflow's client; the run is seen in the app while it goes on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.conftest import tool_environment
from tests.e2e.conftest import APP, ROOT, Terminal
from tests.mlflow_api.conftest import QUIET, Server, until

from mltrack.store import open_store

SCRIPT = Path(__file__).with_name("training_script.py")
STEPS = 12


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Callable[[str], Terminal]]:
    """Opens the app on a store in a terminal."""
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed: apt-get install tmux")
    (tmp_path / "terminal").mkdir()
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "CI") if name in os.environ}
    environ = {**kept, "XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": str(ROOT / "src"), "LC_ALL": "C.UTF-8"}
    opened: list[Terminal] = []

    def open_app(store: str) -> Terminal:
        opened.append(Terminal(tmp_path / "terminal", environ, 100, 30, *APP, "--store", store))
        return opened[-1]

    yield open_app
    for each in opened:
        each.close()


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
    new_server: Callable[..., Server],
    app: Callable[[str], Terminal],
    tmp_path: Path,
    name: str,
    experiment: str,
    metric: str,
    param: str,
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
        with open_store(server.store) as store:

            def half_way() -> bool:
                store.refresh(1)
                found = store.runs([run_id])
                return bool(found) and metric in found[0].metrics

            until(half_way, 60)
            run = store.run(run_id)
            assert (run.status, run.experiment) == ("RUNNING", experiment) and param in run.params
            before = run.metrics[metric].count
            assert 1 <= before < STEPS
            seen = app(server.store)
            seen.until(rf"{re.escape(run.name)} .*● running")
            seen.press("Enter").until(rf"(?s)› {re.escape(run.name)} .*running.*{re.escape(metric)}")
            training.stdin.write("\n")
            training.stdin.flush()
            assert "done\n" in list(training.stdout), (tmp_path / "said").read_text()[-3000:]
            assert training.wait(60) == 0
            store.refresh(None)
            run = store.run(run_id)
            assert run.status == "FINISHED" and run.metrics[metric].count > before
            seen.until(rf"(?s)› {re.escape(run.name)} .*✓ done.*{re.escape(metric)}")
            if name == "logger":
                assert run.artifacts is not None and any(run.artifacts.rglob("*.ckpt"))
    finally:
        training.kill()

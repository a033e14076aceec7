"""Projects written for MLflow on a real Slurm: what they log lands in the run that was launched, from whichever node."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.projects.launching import console, state_of, wait_for_end, wait_until, write_project

from mltrack.projects.slurm_jobs import handle_of
from mltrack.store.client.journal import run_folder
from mltrack.store.client.location import choose_store
from mltrack.store.opening import open_store
from mltrack.store.records import Run

MLTRACK = [sys.executable, "-m", "mltrack.tui.cli"]
# As in MLflow's examples: its own file names, its own environment file, its own client.
MLPROJECT = """\
name: wine
python_env: python_env.yaml
entry_points:
  main:
    parameters:
      alpha: float
      l1_ratio: {type: float, default: 0.1}
    command: "python train.py {alpha} {l1_ratio}"
"""
TRAIN = """\
import os, sys
import mlflow
with mlflow.start_run():
    alpha = float(sys.argv[1])
    mlflow.log_param("alpha", alpha)
    for step in range(3):
        mlflow.log_metric("rmse", alpha + step, step=step)
    mlflow.log_text("of " + sys.argv[1], "notes/alpha.txt")
    print("logged into", mlflow.active_run().info.run_id, "on", os.environ["SLURMD_NODENAME"], flush=True)
"""


def mltrack(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*MLTRACK, *words], capture_output=True, text=True, check=False, timeout=240)


@pytest.fixture
def project(cluster: None, tmp_path: Path, mlflow_python: Path) -> Path:
    """Its environment is a real one; MLflow comes into it by a package that points to where MLflow is installed already."""
    site = next(mlflow_python.parent.parent.glob("lib/python3*/site-packages"))
    return write_project(
        tmp_path / "wine",
        MLproject=MLPROJECT,
        train_DOT_py=TRAIN,
        python_env_DOT_yaml=f'python: "{sys.version_info[0]}.{sys.version_info[1]}"\ndependencies: ["./installed"]\n',
        installed__pyproject_DOT_toml='[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "installed"\nversion = "1"\n',
        installed__backend_DOT_py=f"""\
            import zipfile
            def build_wheel(folder, config_settings=None, metadata_directory=None):
                name = "installed-1-py3-none-any.whl"
                with zipfile.ZipFile(f"{{folder}}/{{name}}", "w") as file:
                    file.writestr("installed.pth", {str(site)!r})
                    file.writestr("installed-1.dist-info/METADATA", "Metadata-Version: 2.1\\nName: installed\\nVersion: 1\\n")
                    file.writestr("installed-1.dist-info/WHEEL", "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\n")
                    file.writestr("installed-1.dist-info/RECORD", "")
                return name
            """,
    )  # fmt: skip


def artifact(run: Run, name: str) -> str:
    return (run_folder(choose_store().root, run.run_id) / "artifacts" / name).read_text()


def test_an_mlproject_in_its_own_environment_lands_in_its_run(project: Path) -> None:
    done = mltrack("run", str(project), "--backend", "slurm", "-P", "alpha=0.5", "--json")
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["status"]) == (0, "FINISHED"), console(answer["run_id"])
    run = wait_for_end(answer["run_id"])
    assert f"logged into {run.run_id} on " in console(run.run_id)
    assert run.metrics["rmse"].count == 3 and run.metrics["rmse"].last == 2.5
    assert run.params == {"alpha": "0.5", "l1_ratio": "0.1"}
    assert run.tags["mlflow.project.env"] == "virtualenv" and run.tags["mlflow.project.entryPoint"] == "main"
    assert artifact(run, "notes/alpha.txt") == "of 0.5"
    with open_store() as store:
        store.refresh(None)
        assert store.search().run_ids == (run.run_id,), "MLflow made no run of its own"


def test_each_task_of_an_array_has_a_server_of_its_own(project: Path) -> None:
    done = mltrack("run", str(project), "--backend", "slurm", "-P", "alpha=0.5,0.25,1.5", "--json")
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["status"]) == (0, "FINISHED"), done.stderr
    children = [wait_for_end(run_id) for run_id in answer["children"]]
    assert [(run.params["alpha"], run.metrics["rmse"].last) for run in children] == [
        ("0.5", 2.5),
        ("0.25", 2.25),
        ("1.5", 3.5),
    ]
    assert [artifact(run, "notes/alpha.txt") for run in children] == ["of 0.5", "of 0.25", "of 1.5"]
    assert {run.parent_id for run in children} == {answer["run_id"]}


def test_requeued_it_goes_on_in_the_same_run(
    project: Path, mlflow_python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "python_env.yaml").unlink()
    write_project(
        project,
        MLproject="name: again\nentry_points:\n  main: {command: python train.py}\n",
        train_DOT_py="""\
            import os, time
            import mlflow
            again = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
            with mlflow.start_run():
                mlflow.log_metric("start", again, step=again)
                print("start", again, "logged", flush=True)
                while not again:
                    time.sleep(0.1)
            """,
    )
    monkeypatch.setenv("PATH", f"{mlflow_python.parent}{os.pathsep}{os.environ['PATH']}")
    started = mltrack("run", str(project), "--backend", "slurm", "--slurm", "requeue=yes", "--detach")
    assert started.returncode == 0, started.stderr
    run_id = started.stdout.strip()
    wait_until(lambda: "start 0 logged" in console(run_id), "it logged")
    number = str(handle_of(state_of(run_id)))
    subprocess.run(["scontrol", "requeue", number], check=True)
    wait_until(lambda: state_of(run_id).phase == "queued", "it waited again")

    def begun_again() -> bool:
        # Or Slurm would wait for two minutes; said until it has the job in its queue, and not so often that it does nothing else.
        time.sleep(1)
        subprocess.run(
            ["scontrol", "update", f"JobId={number}", "StartTime=now"], capture_output=True, check=False
        )
        return "start 1 logged" in console(run_id)

    wait_until(begun_again, "Slurm started it again")
    run = wait_for_end(run_id)
    assert run.status == "FINISHED", console(run.run_id)
    assert "start 1 logged" in console(run.run_id)
    assert (run.metrics["start"].count, run.metrics["start"].last) == (2, 1.0)

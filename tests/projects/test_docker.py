"""Launching into containers, on a real engine."""

from __future__ import annotations

import getpass
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.projects.launching import (
    console,
    launch,
    plan_for,
    state_of,
    wait_for_end,
    wait_until,
    with_docker,
    write_project,
)

from mltrack.projects.backends.docker import LABEL
from mltrack.projects.backends.engine import connect
from mltrack.projects.errors import ProjectError
from mltrack.projects.jobs import stop_job
from mltrack.projects.launch import take_up_orphans
from mltrack.projects.mounts import ROOT_HOME
from mltrack.store.client.journal import run_folder
from mltrack.store.client.location import choose_store

pytestmark = pytest.mark.usefixtures("engine")

MLTRACK = [sys.executable, "-c", "from mltrack.tui.cli.main import main; main()"]
# A project in an image that is there: what is about containers needs no build.
AS_IS = "docker_env: {image: python:3.11-slim}\n"
MLPROJECT = """\
name: six user
python_env: python_env.yaml
entry_points:
  main:
    parameters: {lr: {type: float, default: 0.5}}
    command: "python train.py --lr {lr}"
"""
TRAIN = """\
import sys, six
import mltrack
with mltrack.start_run():
    for step in range(3):
        mltrack.log_metric("loss", 1 / (step + 1), step=step)
print("trained", sys.argv[2], six.__version__)
"""


def test_a_declared_package_is_installed_once_and_metrics_land_in_the_run(tmp_path: Path) -> None:
    folder = write_project(
        tmp_path / "p",
        MLproject=MLPROJECT,
        python_env_DOT_yaml='python: "3.11"\ndependencies: ["six==1.17.0"]\n',
        train_DOT_py=TRAIN,
        notes_DOT_txt=f"{os.urandom(8).hex()}\n",  # or the image would be there from an earlier run of the tests
    )
    command = [*MLTRACK, "run", str(folder), "--backend", "docker", "-P", "lr=0.25", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["status"], answer["exit_code"]) == (0, "FINISHED", 0)
    run = wait_for_end(answer["run_id"])
    assert "trained 0.25 1.17.0" in console(run.run_id)
    assert run.metrics["loss"].count == 3
    assert run.params == {"lr": "0.25"}
    assert run.tags["mlflow.project.entryPoint"] == "main"
    assert run.facts["environment"]["image_id"].startswith("sha256:")
    assert run.facts["command"] == ["python", "train.py", "--lr", "0.25"]

    dry = subprocess.run(
        [*MLTRACK, "run", str(folder), "--dry-run"], capture_output=True, text=True, check=True
    )
    assert "FROM python:3.11-slim" in dry.stdout and "is there already" in dry.stdout
    assert dry.stdout.splitlines()[-1] == f"mltrack run {folder} -e main --backend docker"

    again = wait_for_end(launch(folder, "docker"))
    assert "is there already" in console(again.run_id) and "FROM" not in console(again.run_id)

    (folder / "train.py").write_text(TRAIN + "print('edited')\n")
    edited = console(wait_for_end(launch(folder, "docker")).run_id)
    assert "edited" in edited and "Successfully installed" not in edited
    pip = edited.index("pip install -r")
    assert "-> Using cache" in edited[pip:].splitlines()[1]


def test_a_failing_step_of_the_build_is_the_reason_and_in_the_log(tmp_path: Path) -> None:
    folder = write_project(
        tmp_path / "p",
        MLproject=MLPROJECT,
        python_env_DOT_yaml="dependencies: [./gone]\n",
        gone__README="no package",
    )
    run = wait_for_end(launch(folder, "docker"))
    assert run.status == "FAILED"
    assert "The build failed at step" in run.reason and "pip install" in run.reason
    assert "[mltrack] The build failed" in console(run.run_id)


def test_a_build_can_be_stopped_and_leaves_nothing(tmp_path: Path, engine: Any) -> None:
    folder = write_project(
        tmp_path / "p",
        MLproject='name: slow\npython_env: python_env.yaml\nentry_points:\n  main: {command: "true"}\n',
        python_env_DOT_yaml="dependencies: [./lib]\n",
        lib__pyproject_DOT_toml='[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        lib__backend_DOT_py="import time\ntime.sleep(600)\n",
        notes_DOT_txt=os.urandom(8).hex(),
    )
    run_id = launch(folder, "docker")
    wait_until(
        lambda: "pip install -r /mltrack/local.txt" in console(run_id), "the build came to the slow step"
    )
    # Where it stands is said in numbers, too: the list of jobs draws them.
    told = state_of(run_id).state
    assert 1 < told["step"] < told["steps"] and "pip install" in told["text"]
    assert stop_job(state_of(run_id))
    run = wait_for_end(run_id)
    assert (run.status, run.reason) == ("KILLED", "stopped by its owner")
    wait_until(lambda: not engine.containers(all=True), "the engine gave up the build and tidied")


INSIDE = """\
import getpass, grp, json, multiprocessing, os, pathlib, pwd, sys
from multiprocessing import shared_memory

def work(number):
    return number * number

if __name__ == "__main__":
    data = pathlib.Path(sys.argv[1])
    home = pathlib.Path.home()
    (home / ".cache" / "x").write_text("x")
    pathlib.Path("beside.txt").write_text("x")
    try:
        (data / "new").write_text("x")
        writable = True
    except OSError:
        writable = False
    block = shared_memory.SharedMemory(create=True, size=80 << 20)
    block.buf[-1] = 1
    block.unlink()
    with multiprocessing.Pool(16) as pool:
        squares = pool.map(work, range(100))
    import mltrack
    with mltrack.start_run():
        mltrack.log_metric("squares", sum(squares), step=0)
        mltrack.log_text("hello", "note.txt")
        with mltrack.start_run(run_name="inner", nested=True):
            mltrack.log_param("p", 1)
    status = pathlib.Path("/proc/self/status").read_text()
    print("FACTS", json.dumps({
        "user": getpass.getuser(), "entry": pwd.getpwuid(os.getuid()).pw_name, "home": str(home), "uid": os.getuid(),
        "groups": os.getgroups(), "group": grp.getgrgid(os.getgid()).gr_name, "data": (data / "x.csv").read_text(),
        "writable": writable,
        "caps": [line.split()[1] for line in status.splitlines() if line.startswith(("CapEff", "CapBnd"))],
        "no_new": "NoNewPrivs:\\t1" in status, "store": sorted(os.listdir("/mltrack/store")),
        "runs": len(list(pathlib.Path("/mltrack/store/runs").glob("*/*"))),
    }))
"""


def test_inside_it_is_the_user_with_a_home_few_rights_and_only_what_it_needs(
    tmp_path: Path, store_root: Path
) -> None:
    folder = write_project(
        tmp_path / "p",
        MLproject="entry_points:\n  main:\n    parameters: {data: path}\n    command: python inside.py {data}\n",
        inside_DOT_py=INSIDE,
    )
    data = write_project(tmp_path / "data", x_DOT_csv="1,2")
    asked: dict[str, Any] = {"params": {"data": str(data)}}
    engine_of_root = not connect().rootless
    store_root.mkdir()
    if engine_of_root:
        # Somebody who is not root, in a store that is shared with their group.
        for path in (tmp_path, data):
            path.chmod(0o755)
        os.chown(store_root, -1, 4321)
        store_root.chmod(0o2770)
        tmp_path.parent.chmod(0o755)
    wait_for_end(launch(folder, "local", **asked))  # another run in the store, which must not be seen
    somebody = with_docker(uid=4321, gid=4321, user="ann", groups=[4400])
    run = wait_for_end(launch(folder, "docker", somebody if engine_of_root else with_docker(), **asked))
    printed = console(run.run_id)
    assert run.status == "FINISHED", printed
    facts = json.loads(printed.partition("FACTS ")[2].splitlines()[0])
    if engine_of_root:
        assert facts["user"] == facts["entry"] == facts["group"] == "ann"
        assert (facts["uid"], facts["home"], facts["groups"]) == (4321, "/home/ann", [4321, 4400])
    else:
        # The only number there that is the user outside.
        assert facts["user"] == getpass.getuser() and facts["entry"] == facts["group"] == "root"
        assert (facts["uid"], facts["home"]) == (0, ROOT_HOME)
    owner = 4321 if engine_of_root else os.getuid()
    assert (facts["data"], facts["writable"]) == ("1,2", False)
    assert facts["caps"] == ["0000000000000000"] * 2 and facts["no_new"]
    assert facts["store"] == ["blobs", "open", "runs"]
    assert facts["runs"] == 2  # its own and the one it started
    assert run.metrics["squares"].last == 328350
    mine = run_folder(store_root, run.run_id)
    owners = {path.name.split(".")[0]: path.stat().st_uid for path in mine.iterdir() if path.is_file()}
    assert owners["points"] == owner
    assert (mine / "artifacts" / "note.txt").stat().st_uid == owner
    inner = [path.name for path in (store_root / "runs").glob("*/*") if path.stat().st_uid == owner]
    # Its own folder was made here, by root; without root everything is the user's: also the other run's.
    assert len(inner) == (1 if engine_of_root else 3)


def test_output_is_live_and_a_stop_ends_the_container(tmp_path: Path, engine: Any) -> None:
    folder = write_project(
        tmp_path / "p",
        MLproject=AS_IS
        + 'entry_points:\n  main:\n    command: python -c \'import time; print("U" + "P!"); time.sleep(600)\'\n',
    )
    run_id = launch(folder, "docker")
    wait_until(lambda: "UP!" in console(run_id), "it printed")
    assert not state_of(run_id).ended
    assert len(engine.containers(filters={"label": f"{LABEL}={run_id}"})) == 1
    stopped = subprocess.run([*MLTRACK, "stop", "--yes", run_id], capture_output=True, text=True, check=False)
    assert stopped.returncode == 0, stopped.stderr
    run = wait_for_end(run_id)
    assert (run.status, run.reason) == ("KILLED", "stopped by its owner")
    assert engine.containers(all=True, filters={"label": f"{LABEL}={run_id}"}) == []


ENDS = {
    "exit": ("python -c 'import sys; print(\"bad luck\"); sys.exit(3)'", "FAILED", 3, "bad luck"),
    "missing": (
        "nothing-of-that-name --x",
        "FAILED",
        127,
        "nothing-of-that-name: command not found in the image",
    ),
    "signal": ("bash -c 'kill -11 $$'", "KILLED", 139, "signal SIGSEGV"),
    "memory": ("python -c 'x = bytearray(400 << 20)'", "FAILED", 137, "out of memory (limit 48 MiB)"),
}


def test_ends(tmp_path: Path) -> None:
    entries = "".join(
        f"  {name}: {{command: {json.dumps(command)}}}\n" for name, (command, *_) in ENDS.items()
    )
    folder = write_project(tmp_path / "p", MLproject=f"{AS_IS}entry_points:\n{entries}")
    # Each alone in its container, all at once.
    started = {
        name: launch(folder, "docker", entry=name, profile="small" if name == "memory" else None)
        for name in ENDS
    }
    for name, (_, status, code, reason) in ENDS.items():
        run = wait_for_end(started[name])
        if name == "memory" and "podman did not take the memory limit" in console(run.run_id):
            continue  # without control of its own cgroups it cannot, and it was said
        assert (run.status, run.exit_code) == (status, code), console(run.run_id)
        assert reason in run.reason


def test_a_killed_supervisor_is_replaced_and_nothing_is_lost(tmp_path: Path) -> None:
    go_on = tmp_path / "data" / "go"
    go_on.parent.mkdir()
    folder = write_project(
        tmp_path / "p",
        MLproject=f"{AS_IS}entry_points:\n  main:\n    parameters: {{data: path}}\n    command: python -u x.py {{data}}\n",
        x_DOT_py="""\
            import pathlib, sys, time
            for number in range(200): print("line", number)
            while not (pathlib.Path(sys.argv[1]) / "go").exists(): time.sleep(0.05)
            print("done"); sys.exit(5)
            """,
    )
    run_id = launch(folder, "docker", params={"data": str(go_on.parent)})
    wait_until(lambda: "line 199" in console(run_id), "it printed")
    printed = sum(len(f"line {number}\n") for number in range(200))
    wait_until(lambda: state_of(run_id).state.get("taken") == printed, "the position was noted")
    os.kill(state_of(run_id).state["supervisor"]["pid"], signal.SIGKILL)
    wait_until(lambda: not state_of(run_id).watched, "the supervisor was gone")
    assert take_up_orphans(choose_store().root) == [run_id]
    wait_until(lambda: state_of(run_id).watched, "another one took over")
    go_on.touch()
    run = wait_for_end(run_id)
    assert (run.status, run.exit_code) == ("FAILED", 5)
    assert console(run_id).endswith("".join(f"line {number}\n" for number in range(200)) + "done\n")
    assert console(run_id).count("line 7\n") == 1


def test_an_image_of_the_project_is_used_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "v").mkdir()
    folder = write_project(
        tmp_path / "p",
        MLproject=f"""\
            docker_env:
              image: python:3.11-slim
              volumes: ["{tmp_path}/v:/v"]
              environment: [["MODE", "fast"], "FROM_HERE"]
            entry_points:
              main: {{command: "python say.py"}}
            """,
        say_DOT_py="import os; print(os.environ['MODE'], os.environ['FROM_HERE']); open('/v/made', 'w').write('x')",
    )
    with pytest.raises(ProjectError, match="FROM_HERE, which is not set"):
        launch(folder, "docker")
    monkeypatch.setenv("FROM_HERE", "here")
    run = wait_for_end(launch(folder, "docker"))
    assert "fast here" in console(run.run_id)
    assert (tmp_path / "v" / "made").stat().st_uid == os.getuid()


@pytest.mark.parametrize("source", ["/", "/etc", "/var/run/docker.sock", "~", "~/.ssh", "/proc/1", "link"])
def test_places_that_give_the_machine_away_are_not_mounted(tmp_path: Path, source: str) -> None:
    link = tmp_path / "link"
    link.symlink_to("/etc")
    (Path.home() / ".ssh").mkdir()
    path = str(link) if source == "link" else source
    if source.endswith("sock"):
        path = os.environ["DOCKER_HOST"].removeprefix("unix://")
    folder = write_project(
        tmp_path / "p",
        MLproject="entry_points:\n  main:\n    parameters: {data: path}\n    command: ls {data}\n",
    )
    with pytest.raises(ProjectError, match="not mounted"):
        plan_for(folder, "docker", params={"data": path})


def test_without_a_gpu_it_is_said_before_and_after(tmp_path: Path) -> None:
    folder = write_project(tmp_path / "p", MLproject=AS_IS + 'entry_points:\n  main:\n    command: "true"\n')
    plan = plan_for(folder, "docker", gpu="1")
    if plan.gpus:
        pytest.fail("this machine has a GPU: the test is about machines without one")
    assert "a GPU is wanted (1)" in plan.problems[0]
    run = wait_for_end(launch(folder, "docker", with_docker(gpus=["GPU-0"])))
    assert run.status == "FAILED"
    assert "could not select device driver" in run.reason or "podman did not take" in run.reason


def test_mlflow_inside_a_container_without_network_lands_in_the_run(
    tmp_path: Path, mlflow_python: Path
) -> None:
    folder = write_project(
        tmp_path / "p",
        MLproject="entry_points:\n  main:\n    parameters: {site: path}\n    command: python train.py {site}\n",
        train_DOT_py="""\
            import sys
            sys.path.insert(0, sys.argv[1])
            import mlflow
            with mlflow.start_run():
                mlflow.log_param("via", "mlflow")
                mlflow.log_metric("acc", 0.75, step=3)
                print("run", mlflow.active_run().info.run_id)
            sys.exit(4)
            """,
    )
    # Its packages are mounted as data: what is tested is the way to the store, not pip.
    site = next(mlflow_python.parent.parent.glob("lib/python3*/site-packages"))
    run = wait_for_end(launch(folder, "docker", params={"site": str(site)}))
    assert f"run {run.run_id}" in console(run.run_id), console(run.run_id)
    assert (run.status, run.exit_code) == ("FAILED", 4)
    assert run.params["via"] == "mlflow" and run.metrics["acc"].last == 0.75

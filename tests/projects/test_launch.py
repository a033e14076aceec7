"""Launching without containers: processes, virtual environments, sweeps, what is recorded and what never is."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.projects.launching import (
    console,
    launch,
    plan_for,
    state_of,
    wait_for_end,
    wait_until,
    write_project,
)

from mltrack.projects.errors import ProjectError
from mltrack.projects.jobs import list_jobs, stop_job
from mltrack.projects.launch import start, start_sweep
from mltrack.projects.plan import Request, make_plan
from mltrack.projects.remembered import is_trusted, last_choices, recent
from mltrack.projects.sweep import expand, grid
from mltrack.store.client.location import choose_store
from mltrack.store.opening import open_store
from mltrack.store.records import Run
from mltrack.tui.worker_calls.starts import starts_of

MLTRACK = [sys.executable, "-P", "-c", "from mltrack.tui.cli.main import main; main()"]


def mltrack(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*MLTRACK, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **more},
        timeout=120,
    )


@pytest.fixture
def project(store_root: Path, tmp_path: Path) -> Path:
    return write_project(
        tmp_path / "p",
        MLproject="""\
            name: demo
            entry_points:
              main:
                parameters: {lr: {type: float, default: 0.1}, seed: {type: int, default: 0}}
                command: "python train.py {lr} {seed}"
              fail: {command: "python -c 'raise SystemExit(7)'"}
              wait: {command: "python wait.py"}
            """,
        train_DOT_py="""\
            import os, sys
            import mltrack
            with mltrack.start_run():
                mltrack.log_metric("loss", float(sys.argv[1]) * (1 + int(sys.argv[2])), step=0)
            print("rank", os.environ.get("RANK"), "key", os.environ.get("WANDB_API_KEY"))
            """,
        wait_DOT_py="""\
            import os, pathlib, time
            print("up", os.getpid())
            while not pathlib.Path("go").exists(): time.sleep(0.05)
            print("done")
            """,
    )


def test_a_job_lands_in_one_run_with_all_that_was_asked_for(project: Path) -> None:
    done = mltrack(
        "run",
        str(project),
        "--backend",
        "local",
        "-P",
        "lr=0.5",
        "-P",
        "more=x y",
        "--tag",
        "a=b",
        "-x",
        "exp",
        "--name",
        "n1",
    )
    assert done.returncode == 0, done.stderr
    run = wait_for_end(list_jobs(choose_store().root)[0].job.run_id)
    assert (run.name, run.experiment, run.status, run.exit_code) == ("n1", "exp", "FINISHED", 0)
    assert run.params == {"lr": "0.5", "seed": "0", "more": "x y"}
    assert run.metrics["loss"].last == 0.5
    assert run.tags["a"] == "b" and run.tags["mlflow.source.type"] == "PROJECT"
    assert run.facts["command"] == ["python", "train.py", "0.5", "0", "--more", "x y"]
    assert run.facts["project"]["given"] == {"lr": "0.5", "more": "x y"}
    assert "rank None" in done.stdout
    assert recent()[0][0] == str(project) and last_choices(str(project))["backend"] == "local"


def test_the_exit_code_is_the_jobs_and_json_tells_the_rest(project: Path) -> None:
    done = mltrack("run", str(project), "-e", "fail", "--backend", "local", "--json")
    assert done.returncode == 7
    answer = json.loads(done.stdout)
    assert (answer["status"], answer["exit_code"], answer["children"]) == ("FAILED", 7, [])
    assert mltrack("run", str(project), "-e", "gone", "--backend", "local").returncode == 2


def test_a_job_outlives_whoever_started_it_and_can_be_stopped(project: Path) -> None:
    process = subprocess.Popen(
        [*MLTRACK, "run", str(project), "-e", "wait", "--backend", "local"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    job = wait_until(lambda: next(iter(list_jobs(choose_store().root)), None), "the job was there")
    run_id = job.job.run_id
    wait_until(lambda: "up" in console(run_id), "it printed")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    time.sleep(0.2)
    assert state_of(run_id).watched and not state_of(run_id).ended
    pid = int(console(run_id).split("up ")[1].split()[0])
    assert mltrack("stop", "--yes", run_id).returncode == 0
    run = wait_for_end(run_id)
    assert (run.status, run.reason) == ("KILLED", "stopped by its owner")
    assert not Path(f"/proc/{pid}").exists()


def test_a_process_goes_on_when_its_supervisor_is_killed(project: Path) -> None:
    run_id = launch(project, "local", entry="wait")
    wait_until(lambda: "up" in console(run_id), "it printed")
    os.kill(state_of(run_id).state["supervisor"]["pid"], signal.SIGKILL)
    wait_until(lambda: not state_of(run_id).watched, "the supervisor was gone")
    taken = json.loads(mltrack("jobs", "--json").stdout)
    assert [job["run_id"] for job in taken] == [run_id]
    wait_until(lambda: state_of(run_id).watched, "another one took over")
    (project / "go").touch()
    run = wait_for_end(run_id)
    assert "exit code went to a supervisor that was killed" in run.reason
    assert console(run_id).splitlines()[-1] == "done"


def test_a_virtual_environment_is_made_once(project: Path) -> None:
    (project / "python_env.yaml").write_text("dependencies: [./lib]\n")
    write_project(
        project / "lib",
        pyproject_DOT_toml='[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "tiny"\nversion = "1"\n',
        backend_DOT_py="""\
            import zipfile
            def build_wheel(folder, config_settings=None, metadata_directory=None):
                name = "tiny-1-py3-none-any.whl"
                with zipfile.ZipFile(f"{folder}/{name}", "w") as file:
                    file.writestr("tiny.py", "WORD = 'tiny is here'")
                    file.writestr("tiny-1.dist-info/METADATA", "Metadata-Version: 2.1\\nName: tiny\\nVersion: 1\\n")
                    file.writestr("tiny-1.dist-info/WHEEL", "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\n")
                    file.writestr("tiny-1.dist-info/RECORD", "")
                return name
            """,
    )
    (project / "train.py").write_text("import sys, tiny, mltrack\nprint(tiny.WORD, sys.prefix)\n")
    assert not plan_for(project, "venv").image_cached
    first = wait_for_end(launch(project, "venv"))
    assert first.status == "FINISHED", console(first.run_id)
    assert "tiny is here" in console(first.run_id)
    assert plan_for(project, "venv").image_cached
    second = console(wait_for_end(launch(project, "venv")).run_id)
    assert "is there already" in second and plan_for(project, "venv").image in second

    (project / "lib" / "pyproject.toml").write_text("nonsense")
    (project / "python_env.yaml").write_text("dependencies: [./lib/]\n")
    failed = wait_for_end(launch(project, "venv"))
    assert failed.status == "FAILED" and "The environment could not be made" in failed.reason


def test_packages_of_conda_come_through_micromamba(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """micromamba itself is a stand-in here, which makes a plain environment where the real one would solve and fetch."""
    tool = tmp_path / "bin" / "micromamba"
    tool.parent.mkdir()
    tool.write_text(
        f'#!/bin/sh\necho asked "$@" >>{tmp_path}/asked\ncat "$6" >>{tmp_path}/asked\n'
        f'exec {sys.executable} -I -m venv --without-pip "$4"\n'
    )
    tool.chmod(0o755)
    (project / "conda.yaml").write_text("channels: [nvidia]\ndependencies: [libfoo=2, python=3.11]\n")
    (project / "train.py").write_text("import sys\nprint('in', sys.prefix)\n")
    plain = plan_for(project, "venv")
    assert any("libfoo=2" in note and "micromamba" in note for note in plain.notes)
    monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")
    plan = plan_for(project, "venv")
    assert plan.notes == () and plan.image != plain.image
    run = wait_for_end(launch(project, "venv"))
    assert f"in {plan.image}" in console(run.run_id), console(run.run_id)
    asked, table = (tmp_path / "asked").read_text().splitlines()
    assert asked.startswith(f"asked create -y -p {plan.image} -f ")
    assert json.loads(table) == {"channels": ["nvidia"], "dependencies": ["python=3.11", "pip", "libfoo=2"]}


def test_values_of_a_sweep() -> None:
    assert expand("1e-4,1e-3") == ["1e-4", "1e-3"]
    assert expand("0..3") == ["0", "1", "2", "3"] and expand("3..-1..2") == ["3", "1", "-1"]
    assert expand("a\\,b") == ["a,b"] and expand("") == [""]
    assert grid({"a": ["1", "2"], "b": ["x", "y"]})[1] == {"a": "1", "b": "y"}
    for wrong in ("0..100000", "1..9999999999999"):
        with pytest.raises(ProjectError):
            expand(wrong)
    with pytest.raises(ProjectError, match="1,001|10,000"):
        grid({"a": [str(number) for number in range(100)], "b": [str(number) for number in range(100)]})


def test_a_sweep_is_a_parent_with_its_children(project: Path) -> None:
    done = mltrack(
        "run",
        str(project),
        "--backend",
        "local",
        "-P",
        "lr=1e-4,1e-3",
        "-P",
        "seed=0..2",
        "--jobs",
        "3",
        "--json",
    )
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["status"], len(answer["children"])) == (0, "FINISHED", 6), done.stderr
    with open_store() as store:
        store.refresh(None)
        parent = store.run(answer["run_id"])
        children = store.runs(answer["children"])
    assert parent.tags["mltrack.sweep"] == "lr,seed" and "lr" not in parent.params
    assert {child.parent_id for child in children} == {parent.run_id}
    assert {(child.params["lr"], child.params["seed"]) for child in children} == {
        (lr, seed) for lr in ("1e-4", "1e-3") for seed in ("0", "1", "2")
    }
    assert all(child.metrics["loss"].count == 1 for child in children)
    assert children[0].name == "main lr=0.0001 seed=0"
    line = f"mltrack run {project} -e main -P lr=1e-4,1e-3 -P seed=0,1,2 --backend local --jobs 3"
    assert next(job for job in list_jobs(choose_store().root) if job.job.backend == "sweep").job.line == line


def test_a_sweep_over_secrets_keeps_none_of_them(tmp_path: Path, store_root: Path) -> None:
    """Nor does the job itself: in its own argv, which it records, they have no names."""
    project = write_project(
        tmp_path / "p",
        MLproject="""\
            entry_points:
              main:
                parameters: {password: string}
                command: "python train.py {password} --also=x{password}y"
            """,
        train_DOT_py="""\
            import sys, mltrack
            with mltrack.start_run():
                mltrack.log_metric("loss", 1.0)
                print("got", sys.argv[1:])
                mltrack.start_run(run_name="inner", nested=True).__exit__(None, None, None)
            raise ValueError(sys.argv[1])
            """,
    )
    secret = ("hunter2hunter2", "s3cr3t-s3cr3t")
    done = mltrack("run", str(project), "--backend", "local", "-P", f"password={','.join(secret)}", "--json")
    children = json.loads(done.stdout)["children"]
    assert len(children) == 2 and all("got ['***', '--also=x***y']" in console(child) for child in children)
    with open_store() as store:
        store.refresh(None)
        runs = store.runs(children)
        assert {(run.status, run.reason, tuple(run.facts["command"])) for run in runs} == {
            ("FAILED", "ValueError: ***", ("python", "train.py", "***", "--also=x***y"))
        }
        # Three processes' words, one start.
        details = [store.details(child) for child in children]
        assert [len(starts_of(run, one.attempts)) for run, one in zip(runs, details, strict=True)] == [1, 1]
    dry = mltrack(
        "run", str(project), "--backend", "local", "-P", f"password={','.join(secret)}", "--dry-run"
    )
    assert "-P 'password=***' --backend local" in dry.stdout
    texts = [done.stdout, done.stderr, dry.stdout, mltrack("jobs").stdout, mltrack("ls", "--csv").stdout]
    texts += [
        path.read_bytes().decode("latin-1")
        for folder in (store_root, Path.home())
        for path in folder.rglob("*")
        if path.is_file()
    ]
    assert not [text[:200] for text in texts for one in secret if one in text]


def test_waiting_children_are_visible_and_can_be_cancelled(project: Path) -> None:
    plans = []
    for seed in ("1", "2", "3"):
        request = Request(str(project), "wait", {"seed": seed}, backend="local")
        plans.append(({"seed": seed}, make_plan(request, choose_store())))
    parent, children = start_sweep(plans, 1)
    wait_until(lambda: "up" in console(children[0]), "the first one ran")
    assert [state_of(child).phase for child in children] == ["running", "queued", "queued"]
    assert stop_job(state_of(children[1]))
    (project / "go").touch()
    run = wait_for_end(parent)
    assert run.reason == "1 of 3 did not finish well"
    assert [state_of(child).state["status"] for child in children] == ["FINISHED", "KILLED", "FINISHED"]


SECRETS = {
    "-P": "hunter2hunter2",
    "url": "t0k3nInUrl99",
    "WANDB_API_KEY": "a1b2c3d4e5f6a7b8c9d0e1f2a3b4c5d6e7f8a9b0",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY",
    "HF_TOKEN": "hf_abcdefghijklmnopqrstuvwxyz012345",
    "printed": "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
    "env_file": "env-file-secret-55",
    "param_url": "pw-in-a-param-url-7",
    "tag": "tag-secret-9x8y7z6w",
    "printed_url": "pw-in-a-printed-url-3",
    "OPENAI_API_KEY": "sk-proj-abcdefghijklmnopqrstuvwxyz0123456789ABCD",
    "requirement": "pw-in-a-requirement-5",
}


def test_secrets_are_nowhere(project: Path, store_root: Path) -> None:
    (project / ".env").write_text(f"PASSWORD={SECRETS['env_file']}\n")
    (project / "show.sh").write_text(
        f"echo password=$1; echo {SECRETS['printed'][:10]}'{SECRETS['printed'][10:]}'\n"
        f"echo https://me:{SECRETS['printed_url']}@h/x; sleep 0.5\n"
    )
    names = ("WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "OPENAI_API_KEY")
    (project / "requirements.txt").write_text(
        f"x @ git+https://me:{SECRETS['requirement']}@example.org/x.git\n"
    )
    subprocess.run(["git", "init", "-q", "-b", "main"], cwd=project, check=True)
    subprocess.run(["git", "add", ".", ":!.env"], cwd=project, check=True)
    subprocess.run(["git", "commit", "-qm", "x"], cwd=project, check=True)
    remote = f"https://user:{SECRETS['url']}@example.org/x.git"
    subprocess.run(["git", "remote", "add", "origin", remote], cwd=project, check=True)
    (project / "new.txt").write_text("changed\n")
    run_id = ""
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setenv(name, SECRETS[name])
        params = {"password": SECRETS["-P"], "source": f"https://me:{SECRETS['param_url']}@example.org/x"}
        request = Request(str(project), "show.sh", params, tags={"api_key": SECRETS["tag"]}, backend="local")
        plan = make_plan(request, choose_store())
        run_id, _ = start(plan)
        supervisor = state_of(run_id).state["supervisor"]["pid"]
        command_line = Path(f"/proc/{supervisor}/cmdline").read_bytes()
        dry = mltrack(
            "run",
            str(project),
            "-e",
            "show.sh",
            "-P",
            f"password={SECRETS['-P']}",
            "--backend",
            "local",
            "--dry-run",
        )
    run = wait_for_end(run_id)
    assert (
        run.params == {"password": "***", "source": "***"}
        and run.tags["api_key"] == "***"
        and run.facts["git"]["commit"]
    )
    assert ".env" in run.facts["git"]["left_out"]
    texts = [dry.stdout + dry.stderr, command_line.decode(), plan.line, console(run_id)]
    for path in [*store_root.rglob("*"), *Path.home().rglob("*")]:
        if path.is_file() and not path.is_symlink():
            texts.append(path.read_bytes().decode("latin-1"))
    for name, secret in SECRETS.items():
        assert not [text[:200] for text in texts if secret in text], name


def test_a_strange_commit_is_trusted_once(project: Path) -> None:
    for command in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run(["git", *command], cwd=project, check=True)
    address = f"file://{project}/.git@main"
    asked = mltrack("run", address, "--backend", "local")
    assert asked.returncode == 2 and "was not run here before" in asked.stderr
    assert mltrack("run", address, "--backend", "local", "--yes").returncode == 0
    assert mltrack("run", address, "--backend", "local").returncode == 0
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=project, capture_output=True, text=True, check=True
    ).stdout.strip()
    assert is_trusted(f"{project}/.git", commit)
    run = wait_for_end(list_jobs(choose_store().root)[0].job.run_id)
    assert run.facts["git"]["commit"] == commit


class _Files(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        person = self.headers.get("Authorization") == "Basic bWU6cHc="  # me:pw
        self.send_response(200 if person and self.path.startswith("/d/rows.csv?") else 404)
        content = b"1,2\n"
        self.send_header("Content-Length", str(len(content) + ("short" in self.path)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_data_that_lies_elsewhere_is_there_for_the_time_of_the_job(tmp_path: Path, store_root: Path) -> None:
    folder = write_project(
        tmp_path / "p",
        MLproject="entry_points:\n  main:\n    parameters: {data: path}\n    command: python x.py {data}\n",
        x_DOT_py="import sys; print('at', sys.argv[1]); print(open(sys.argv[1]).read())",
    )
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Files) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        where = f"127.0.0.1:{server.server_port}"
        run = wait_for_end(launch(folder, "local", params={"data": f"http://me:pw@{where}/d/rows.csv?v=1"}))
        bad = [f"http://me:pw@{where}/gone.csv?token=abcdefgh12345", f"http://me:pw@{where}/d/rows.csv?short"]
        failed = [wait_for_end(launch(folder, "local", params={"data": url})) for url in bad]
        server.shutdown()
    printed = console(run.run_id)
    assert run.status == "FINISHED" and "1,2\n" in printed, printed
    assert run.params["data"] == f"http://{where}/d/rows.csv?v=1"
    assert not Path(printed.partition("at ")[2].splitlines()[0]).exists()
    assert [each.status for each in failed] == ["FAILED", "FAILED"]
    assert "could not be downloaded: the server answered 404" in failed[0].reason
    assert "4 bytes read, 1 more expected" in failed[1].reason
    assert not [
        path for path in store_root.rglob("*") if path.is_file() and b"abcdefgh12345" in path.read_bytes()
    ]


def test_a_dry_run_starts_nothing_and_its_line_does_the_same(project: Path, store_root: Path) -> None:
    done = mltrack("run", str(project), "--backend", "local", "-P", "lr=0.5", "--dry-run", "--json")
    plan = json.loads(done.stdout)
    assert plan["argv"] == ["python", "train.py", "0.5", "0"] and plan["problems"] == []
    assert plan["line"] == f"mltrack run {project} -e main -P lr=0.5 --backend local"
    assert not store_root.exists()


def test_run_of_a_run_asks_what_was_meant(project: Path) -> None:
    wait_for_end(launch(project, "local", params={"lr": "0.5"}))
    asked = mltrack("run", "@last")
    assert asked.returncode == 2
    assert "show or rerun?" in asked.stderr and f"mltrack run {project} -e main -P lr=0.5" in asked.stderr


MLFLOW_TRAINING = """\
import mlflow
with mlflow.start_run():
    mlflow.log_param("via", "mlflow")
    mlflow.log_metric("acc", 0.75, step=3)
    print("run", mlflow.active_run().info.run_id)
"""


def test_a_project_that_imports_mlflow_lands_in_its_run(
    store_root: Path, tmp_path: Path, mlflow_python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_project(
        tmp_path / "m",
        MLproject="entry_points:\n  main: {command: python train.py}\n",
        train_DOT_py=MLFLOW_TRAINING,
    )
    monkeypatch.setenv("PATH", f"{mlflow_python.parent}{os.pathsep}{os.environ['PATH']}")
    run = wait_for_end(launch(folder, "local"))
    assert run.status == "FINISHED", console(run.run_id)
    assert f"run {run.run_id}" in console(run.run_id)
    assert run.params["via"] == "mlflow" and run.metrics["acc"].last == 0.75
    assert not (store_root / "server.json").exists()


def test_a_job_lands_in_a_store_on_postgresql(
    project: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLTRACK_STORE", postgres_url)
    done = mltrack("run", str(project), "--backend", "local", "-P", "lr=0.5,0.25", "--jobs", "2", "--json")
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["status"], len(answer["children"])) == (0, "FINISHED", 2), done.stderr
    listed = json.loads(mltrack("jobs", "--json").stdout)
    assert {job["run_id"] for job in listed} == {answer["run_id"], *answer["children"]}

    def arrived() -> list[Run]:
        with open_store() as store:
            store.refresh(None)
            found = store.runs([*answer["children"], answer["run_id"]])
        return found if all(run.status == "FINISHED" for run in found) else []

    *children, parent = wait_until(arrived, "all of it was sent on")
    assert {run.metrics["loss"].last for run in children} == {0.5, 0.25}
    assert [run.parent_id for run in children] == [parent.run_id] * 2 and parent.tags["mltrack.sweep"] == "lr"
    assert "rank None" in console(children[0].run_id)

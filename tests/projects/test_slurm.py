"""Launching on a real Slurm of two nodes: what the node writes down, and what only Slurm knows."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.projects.launching import console, plan_for, state_of, wait_for_end, wait_until, write_project

from mltrack.projects.jobs import create_job, job_folder, list_jobs, new_state, write_state
from mltrack.projects.launch import start, start_sweep
from mltrack.projects.planned_job import job_of
from mltrack.projects.slurm_jobs import HANDLE, handle_of, look
from mltrack.projects.slurm_queue import SlurmJob, ask_queue, look_up, read_queue
from mltrack.store.client.location import choose_store
from mltrack.store.opening import open_store
from mltrack.store.records import Run
from mltrack.tui.worker_calls.run_actions import stop, stop_target

MLTRACK = [sys.executable, "-m", "mltrack.tui.cli"]


def mltrack(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*MLTRACK, *words], capture_output=True, text=True, check=False, timeout=240)


@pytest.fixture
def project(cluster: None, tmp_path: Path) -> Path:
    return write_project(
        tmp_path / "trains",
        MLproject="""\
            name: trains
            entry_points:
              main:
                parameters: {lr: {type: float, default: 0.1}, code: {type: int, default: 0}}
                command: "python train.py {lr} {code}"
              wait: {command: "python wait.py"}
              deaf: {command: "python wait.py deaf"}
              hungry: {command: "python hungry.py"}
            """,
        train_DOT_py="""\
            import os, sys
            import mltrack
            with mltrack.start_run():
                mltrack.log_metric("loss", float(sys.argv[1]), step=0)
            print("node", os.environ["SLURMD_NODENAME"], "gpus", os.environ.get("CUDA_VISIBLE_DEVICES"))
            print("words", sys.argv[3:])
            sys.exit(int(sys.argv[2]))
            """,
        wait_DOT_py="""\
            import os, signal, sys, time
            import mltrack
            if sys.argv[1:]:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            with mltrack.start_run():
                mltrack.log_metric("seen", 1.0)
                print("up", os.getpid(), "restarts", os.environ.get("SLURM_RESTART_COUNT", "0"), flush=True)
                while not os.path.exists("enough"):
                    time.sleep(0.1)
            """,
        hungry_DOT_py="import time\nheld = b'x' * (600 << 20)\nprint('full', flush=True)\ntime.sleep(600)\n",
    )


def submit(project: Path, entry: str = "main", **asked: Any) -> str:
    return start(plan_for(project, "slurm", entry=entry, **asked))[0]


def number_of(run_id: str) -> str:
    """Slurm's number of the job, once it has one."""
    return str(wait_until(lambda: handle_of(state_of(run_id)), "Slurm had the job"))


def looked_at(run_id: str) -> dict[str, Any]:
    """The job as a list of jobs shows it."""
    job = next(job for job in look(list_jobs(choose_store().root)) if job.job.run_id == run_id)
    return {"phase": job.phase, **job.state}


def ended(run_id: str) -> Run:
    """Look until the job has ended: the end may be one that only Slurm knows."""
    wait_until(lambda: looked_at(run_id)["phase"] == "ended", f"{run_id} ended")
    return wait_for_end(run_id)


def status_of(run_id: str) -> tuple[str, str]:
    with open_store() as store:
        store.refresh(None)
        run = store.run(run_id)
        return run.status, run.reason


def printed(run_id: str, text: str) -> Callable[[], bool]:
    return lambda: text in console(run_id)


def attempts(run_id: str) -> int:
    """Starts of the run that the node's process made."""
    return console(run_id).count("[mltrack] Slurm job")


def test_a_run_is_submitted_followed_and_ends_with_the_code_of_its_job(project: Path) -> None:
    secret = "sk-abcdefghijklmnop1234"
    asked = [
        "-P",
        "lr=0.30000000000000004",
        "-P",
        "more=it's $HOME; a\\,b",
        "-P",
        f"api_key={secret}",
        "--tag",
        "a=b",
    ]
    done = mltrack(
        "run",
        str(project),
        "--backend",
        "slurm",
        *asked,
        "--gpu",
        "2",
        "--slurm",
        "time=5",
        "--slurm",
        "cpus=2",
    )
    assert done.returncode == 0, done.stderr
    job = list_jobs(choose_store().root)[0]
    run = wait_for_end(job.job.run_id)
    assert (run.status, run.exit_code, run.metrics["loss"].last) == ("FINISHED", 0, 0.30000000000000004)
    assert run.params == {
        "lr": "0.30000000000000004",
        "code": "0",
        "more": "it's $HOME; a,b",
        "api_key": "***",
    }
    assert "words ['--more', \"it's $HOME; a,b\"" in done.stdout and "gpus 0,1" in done.stdout
    for path in job_folder(choose_store().root, run.run_id).rglob("*"):
        assert path.is_dir() or secret.encode() not in path.read_bytes(), path
    assert run.tags["mlflow.project.backend"] == "slurm" and run.tags["a"] == "b"
    number = number_of(run.run_id)
    assert run.facts["slurm"]["job_id"] == number and run.facts["slurm"]["job_partition"] == "main"
    known = look_up(number)
    assert known is not None and (known.state, known.run_id, known.exit_code) == ("COMPLETED", run.run_id, 0)
    record = subprocess.run(
        ["scontrol", "-o", "show", "job", number], capture_output=True, text=True, check=True
    ).stdout
    assert "CPUs/Task=2" in record and "TimeLimit=00:05:00" in record and "gres:gpu:2" in record
    assert run.facts["project"]["slurm"] == {"time": "5", "cpus": "2"}

    failed = mltrack("run", str(project), "--backend", "slurm", "-P", "code=7", "--gpu", "none", "--json")
    answer = json.loads(failed.stdout)
    assert (failed.returncode, answer["status"], answer["exit_code"]) == (7, "FAILED", 7)
    known = look_up(number_of(answer["run_id"]))
    assert known is not None and (known.state, known.exit_code) == ("FAILED", 7)


def test_percent_signs_in_the_stores_and_the_projects_path_are_no_patterns(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLTRACK_STORE", str(project.parent / "50%u x%%" / "store"))
    project = project.rename(project.with_name("100%j of"))
    run_id = submit(project)
    assert ended(run_id).status == "FINISHED", console(run_id)
    assert (job_folder(choose_store().root, run_id) / f"slurm-{number_of(run_id)}.out").exists()


def test_what_slurm_refuses_is_the_runs_end_in_slurms_words(project: Path) -> None:
    run = wait_for_end(submit(project, slurm={"partition": "nowhere"}))
    assert run.status == "FAILED" and "invalid partition" in run.reason
    assert "invalid partition" in console(run.run_id)
    wrong = mltrack("run", str(project), "--backend", "slurm", "--slurm", "partion=x")
    assert wrong.returncode == 2 and "no setting 'partion'" in wrong.stderr


def test_a_waiting_job_says_why_and_both_it_and_a_running_one_are_stopped(project: Path) -> None:
    first = submit(project, "wait", slurm={"nodes": "2", "gres": "gpu:2"})
    wait_until(printed(first, "up "), "it ran")
    second = submit(project, "wait", slurm={"gres": "gpu:1"})
    number = number_of(second)

    # As if sbatch had not answered in time: the comment of the job still tells whose it is.
    (state_of(second).folder / HANDLE).unlink()
    wait_until(lambda: "Resources" in str(looked_at(second).get("text")), "it was said what it waits for")
    listed = json.loads(mltrack("jobs", "--json").stdout)
    rows = {row["run_id"]: row for row in listed}
    assert rows[second]["slurm"]["reason"] == "Resources" and rows[second]["phase"] == "queued"
    assert rows[first]["slurm"]["state"] == "RUNNING" and rows[first]["phase"] == "running"
    assert rows[first]["slurm"]["node"].startswith("n") and rows[first]["watched"]
    assert "Resources" in mltrack("jobs").stdout
    assert status_of(second)[0] == "SCHEDULED"

    stopped = mltrack("stop", second[:12], "--yes")
    assert stopped.returncode == 0, stopped.stderr
    known = look_up(number)
    assert known is not None and known.state == "CANCELLED"
    assert (status_of(second), attempts(second)) == (("KILLED", "cancelled"), 0)
    with open_store() as store:  # as the table of runs does it
        target = stop_target(store, first)
        assert (target["pid"], target["what"]) == (0, f"Slurm job {number_of(first)}")
        assert "scancel" in stop(store, first, 0, target["started"])["sentence"]
    assert ended(first).status == "KILLED"
    assert status_of(first) == ("KILLED", "cancelled")


def test_a_sweep_is_an_array_whose_tasks_are_its_children(project: Path) -> None:
    values = [{"code": "0"}, {"code": "0"}, {"code": "3"}]
    plans = [(one, plan_for(project, "slurm", params={"lr": "0.5", **one})) for one in values]
    parent, children = start_sweep(plans, 2)
    whole = ended(parent)
    runs = [wait_for_end(child) for child in children]
    assert [run.status for run in runs] == ["FINISHED", "FINISHED", "FAILED"]
    assert [run.params["code"] for run in runs] == ["0", "0", "3"] and runs[2].exit_code == 3
    assert {run.parent_id for run in runs} == {parent} and whole.params == {"lr": "0.5"}
    assert (whole.status, whole.reason) == ("FAILED", "1 of 3 did not finish well")
    number = number_of(parent)
    assert [number_of(child) for child in children] == [f"{number}_{task}" for task in range(3)]
    assert len({run.facts["slurm"]["array_job_id"] for run in runs} | {number}) == 1


def test_a_sweep_that_is_stopped_ends_all_its_runs(project: Path) -> None:
    plan = plan_for(project, "slurm", entry="wait", slurm={"gres": "gpu:2"})
    parent, children = start_sweep([({"n": str(n)}, plan) for n in range(4)], 0)
    wait_until(lambda: sum("up " in console(child) for child in children) == 2, "two of them ran")
    stopped = mltrack("jobs", "--cancel", parent)
    assert stopped.returncode == 0, stopped.stderr
    assert [ended(child).status for child in children] == ["KILLED"] * 4
    assert (ended(parent).status, status_of(parent)[1]) == ("KILLED", "cancelled")


def test_a_requeued_job_is_a_new_start_of_the_same_run(project: Path) -> None:
    run_id = submit(project, "wait")
    wait_until(printed(run_id, "up "), "it ran")
    number = number_of(run_id)
    subprocess.run(["scontrol", "requeue", number], check=True)
    wait_until(lambda: looked_at(run_id)["phase"] == "queued", "it waited again")
    wait_until(lambda: "requeued 1x" in str(looked_at(run_id).get("text")), "Slurm had it in the queue")
    assert status_of(run_id) == ("SCHEDULED", "requeued by Slurm (job requeue)")
    subprocess.run(["scontrol", "update", f"JobId={number}", "StartTime=now"], check=True)
    wait_until(printed(run_id, "restarts 1"), "it ran again")
    assert status_of(run_id)[0] == "RUNNING"
    (project / "enough").touch()
    run = ended(run_id)
    assert (run.status, run.exit_code, attempts(run_id)) == ("FINISHED", 0, 2)
    assert run.metrics["seen"].count == 2
    assert [job.job.run_id for job in list_jobs(choose_store().root)] == [run_id]


def test_a_job_that_gives_way_to_others_goes_on_after_them(project: Path) -> None:
    whole = {"gres": "gpu:2"}
    spare = [submit(project, "wait", slurm={"partition": "spare", **whole}) for _ in range(2)]
    for run_id in spare:
        wait_until(printed(run_id, "up "), "it ran")
    # Only in one of their places is there room for this one.
    urgent = submit(project, "wait", slurm={"partition": "urgent", **whole})
    wait_until(printed(urgent, "up "), "the urgent one ran")
    gave_way = [run_id for run_id in spare if looked_at(run_id)["phase"] == "queued"]
    assert len(gave_way) == 1
    wait_until(lambda: "requeued 1x" in str(looked_at(gave_way[0]).get("text")), "it waits again")
    assert status_of(gave_way[0]) == ("SCHEDULED", "requeued by Slurm (preemption)")
    (project / "enough").touch()
    assert ended(urgent).status == "FINISHED"
    subprocess.run(["scontrol", "update", f"JobId={number_of(gave_way[0])}", "StartTime=now"], check=True)
    run = ended(gave_way[0])
    assert (run.status, attempts(run.run_id), run.metrics["seen"].count) == ("FINISHED", 2, 2)
    assert (ended(spare[0]).status, ended(spare[1]).status) == ("FINISHED", "FINISHED")


def test_a_process_that_is_killed_with_its_parent_gets_its_end_from_slurm(project: Path) -> None:
    run_id = submit(project, "deaf")
    wait_until(printed(run_id, "up "), "it ran")
    for process in _processes_of(number_of(run_id)):
        os.kill(process, signal.SIGKILL)
    run = ended(run_id)
    assert (run.status, run.exit_code, run.reason) == ("FAILED", 137, "signal 9")


def test_a_job_whose_submitter_was_killed_ends(project: Path) -> None:
    job = job_of(plan_for(project, "slurm"))
    write_state(create_job(job), {**new_state("queued"), "since_ms": 0})
    waited = mltrack("jobs", "--json")  # writes it down, and then lists it
    assert json.loads(waited.stdout)[0]["reason"] == "it never reached Slurm", waited.stdout
    run = ended(job.run_id)
    assert (run.status, run.reason, run.experiment) == ("FAILED", "it never reached Slurm", "trains")


@pytest.mark.long
def test_stopping_the_hard_way(project: Path) -> None:
    run_id = submit(project, "deaf")
    wait_until(printed(run_id, "up "), "it ran")
    stopped = mltrack("stop", "--kill", "--yes", run_id)
    assert stopped.returncode == 0, stopped.stderr
    assert status_of(run_id) == ("KILLED", "cancelled")


def test_a_job_that_takes_too_much_memory(project: Path) -> None:
    run_id = submit(project, "hungry", slurm={"memory": "300m"})
    run = ended(run_id)
    assert run.status == "FAILED" and "memory" in run.reason, (run.reason, console(run_id))


def test_fifty_who_look_ask_once(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = tmp_path / "asked"
    counting = tmp_path / "bin" / "squeue"
    counting.parent.mkdir()
    counting.write_text(f'#!/bin/sh\necho >>{asked}\nPATH="${{PATH#*:}}" exec squeue "$@"\n')
    counting.chmod(counting.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{counting.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("MLTRACK_SLURM_SECONDS")
    gate = threading.Barrier(50)

    def watch() -> None:
        gate.wait()
        for _ in range(3):
            read_queue()

    watchers = [threading.Thread(target=watch) for _ in range(50)]
    for one in watchers:
        one.start()
    for one in watchers:
        one.join()
    assert not read_queue().problem and len(asked.read_text().splitlines()) == 1


def test_json_and_text_of_squeue_say_the_same(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = submit(project, "wait", slurm={"nodes": "2", "gres": "gpu:2"})
    wait_until(printed(first, "up "), "it ran")
    plan = plan_for(project, "slurm", slurm={"gres": "gpu:1"})
    parent, _ = start_sweep([({"n": str(n)}, plan) for n in range(3)], 0)
    numbers = [number_of(first), *(f"{number_of(parent)}_{task}" for task in range(3))]

    def shown() -> list[SlurmJob | None]:
        queue = ask_queue()
        return [queue.jobs.get(number) for number in numbers]

    wait_until(
        lambda: all(job is not None and job.reason != "None" for job in shown()), "all were in the queue"
    )
    with_json = shown()
    deaf = tmp_path / "bin" / "squeue"
    deaf.parent.mkdir()
    deaf.write_text('#!/bin/sh\ncase "$*" in *json*) exit 1 ;; esac\nPATH="${PATH#*:}" exec squeue "$@"\n')
    deaf.chmod(deaf.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{deaf.parent}{os.pathsep}{os.environ['PATH']}")
    for one, other in zip(with_json, shown(), strict=True):
        assert one is not None and other is not None
        assert (one.job_id, one.state, one.node, one.run_id) == (
            other.job_id,
            other.state,
            other.node,
            other.run_id,
        )


def test_a_job_that_was_submitted_without_us_is_stopped_by_its_run(project: Path) -> None:
    script = f"#!/bin/sh\nexec {sys.executable} wait.py\n"
    submitted = subprocess.run(
        ["sbatch", "--parsable", "--output=/dev/null"],
        input=script,
        text=True,
        capture_output=True,
        check=True,
        cwd=project,
    )
    number = submitted.stdout.strip()

    def runs() -> list[str]:
        with open_store() as store:
            store.refresh(None)
            return list(store.search("status = 'RUNNING'").run_ids)

    run_id = wait_until(runs, "it logged")[0]
    stopped = mltrack("stop", run_id, "--yes")
    assert stopped.returncode == 0 and f"Slurm job {number}" in stopped.stdout, stopped.stderr
    assert status_of(run_id)[0] == "KILLED"
    again = mltrack("stop", run_id, "--yes")
    assert again.returncode == 2


@pytest.mark.long
def test_a_job_over_its_time_limit(project: Path) -> None:
    """Slurm counts limits in minutes."""
    polite = submit(project, "wait", slurm={"partition": "short", "time": "1"})
    deaf = submit(project, "deaf", slurm={"partition": "short", "time": "1"})
    for run in (ended(polite), ended(deaf)):
        assert (run.status, run.reason) == ("FAILED", "over its time limit")


@pytest.mark.long
def test_a_node_that_dies_takes_its_job_along_and_slurm_tells(project: Path) -> None:
    once = submit(project, "wait", slurm={"requeue": "no"})
    again = submit(project, "wait", slurm={"nodes": "1", "gres": "gpu:2"})
    for run_id in (once, again):
        wait_until(printed(run_id, "up "), "it ran")
    state = Path(os.environ["SLURM_CONF"]).parent
    nodes = {looked_at(run_id)["slurm"]["node"] for run_id in (once, again)}
    for node in nodes:
        os.kill(int((state / f"slurmd-{node}.pid").read_text()), signal.SIGKILL)
        (state / f"slurmd-{node}.pid").unlink()
    for run_id in (once, again):
        for process in _processes_of(number_of(run_id), and_slurms=True):
            os.kill(process, signal.SIGKILL)
    run = ended(once)
    assert run.status == "FAILED" and "node failed" in run.reason
    wait_until(lambda: status_of(again)[0] == "SCHEDULED", "the other one waits to be started again")
    _service("start-slurm.sh")
    subprocess.run(["scontrol", "update", f"JobId={number_of(again)}", "StartTime=now"], check=False)
    wait_until(printed(again, "restarts 1"), "it ran again")
    (project / "enough").touch()
    assert (ended(again).status, attempts(again)) == ("FINISHED", 2)
    # What a node held when it died, this version of Slurm counts as held for ever.
    _service("stop-slurm.sh", "--purge")
    _service("start-slurm.sh")


@pytest.mark.long
def test_what_the_controller_has_forgotten_is_known_from_the_accounts(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (shutil.which("slurmdbd") and shutil.which("mariadbd")):
        pytest.skip("needs accounting: apt-get install slurmdbd mariadb-server (or your system's packages)")
    accounting = {"MLT_SLURM_DIR": str(tmp_path / "c"), "MLT_SLURM_ACCOUNTING": "1"}
    (tmp_path / "c").mkdir()
    usual = os.environ["SLURM_CONF"]
    try:
        _service("start-slurm.sh", **accounting)
        monkeypatch.setenv("SLURM_CONF", str(tmp_path / "c" / "slurm.conf"))
        killed, cancelled = submit(project, "deaf"), submit(project, "deaf")
        for run_id in (killed, cancelled):
            wait_until(printed(run_id, "up "), "it ran")
        numbers = number_of(killed), number_of(cancelled)
        subprocess.run(["scancel", "--signal=KILL", "--full", numbers[1]], check=True)
        subprocess.run(["scancel", numbers[1]], check=True)
        for process in _processes_of(numbers[0]):
            os.kill(process, signal.SIGKILL)
        for number in numbers:
            wait_until(partial(_forgotten, number), "the controller forgot it")
            found = look_up(number)
            assert found is not None and found.ended, found
        run = ended(killed)
        assert (run.status, run.exit_code, run.reason) == ("FAILED", 137, "signal 9")
        assert ended(cancelled).status in ("KILLED", "FAILED")
    finally:
        monkeypatch.setenv("SLURM_CONF", usual)
        _service("stop-slurm.sh", "--purge", **accounting)


def _forgotten(number: str) -> bool:
    return (
        subprocess.run(["scontrol", "show", "job", number], capture_output=True, check=False).returncode != 0
    )


def _service(script: str, *words: str, **more: str) -> None:
    command = [str(Path(__file__).parents[1] / "services" / script), *words]
    environment = {**os.environ, "MLT_SLURM_DIR": str(Path(os.environ["SLURM_CONF"]).parent), **more}
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)


def _processes_of(number: str, and_slurms: bool = False) -> list[int]:
    """The job's processes, and if wanted the one of Slurm that looks after them."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            words = (folder / "cmdline").read_bytes()
            variables = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        of_slurm = and_slurms and words.startswith(f"slurmstepd: [{number}.".encode())
        if f"SLURM_JOB_ID={number}".encode() in variables or of_slurm:
            found.append(int(folder.name))
    return sorted(found)

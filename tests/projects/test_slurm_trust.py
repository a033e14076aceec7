"""What is not believed of jobs of Slurm: folders that others can write, numbers that are none, and a cache that cannot be written.

Slurm's commands are small scripts here, because a real cluster does not say such things when asked to.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.projects.launching import plan_for, write_project

import mltrack
from mltrack.projects import jobs as jobs_module
from mltrack.projects.backends.slurm import _sbatch
from mltrack.projects.errors import LaunchError, ProjectError
from mltrack.projects.inputs import place_for, remove
from mltrack.projects.job import Job
from mltrack.projects.jobs import (
    JobState,
    create_job,
    forget_old,
    list_jobs,
    new_state,
    read_job,
    stop_job,
    write_state,
)
from mltrack.projects.launch import take_up_orphans
from mltrack.projects.planned_job import job_of
from mltrack.projects.sbatch import output_pattern
from mltrack.projects.slurm_end import end_sweep
from mltrack.projects.slurm_jobs import HANDLE, cancel, handle_of, is_forsaken, look
from mltrack.projects.slurm_queue import (
    Queue,
    SlurmSilent,
    look_up,
    owner_of,
    read_queue,
    run_slurm,
)
from mltrack.store import open_store
from mltrack.store.filesystem import cache_folder
from mltrack.tui.worker_calls.launch import ask_slurm, jobs_page

UNKNOWN = "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"
Commands = Callable[..., Path]


@pytest.fixture
def commands(store_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """Puts scripts of these names in front of all others, and gives the file where each call of them is a line."""
    folder, called = tmp_path / "bin", tmp_path / "called"
    for one in (folder, store_root):
        one.mkdir()
    called.touch()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("SLURM_CONF", raising=False)

    def write(**scripts: str) -> Path:
        for name, script in {"squeue": "echo '{\"jobs\": []}'", "scontrol": UNKNOWN, **scripts}.items():
            (folder / name).write_text(f'#!/bin/sh\necho "{name} $*" >>{called}\n{script}\n')
            (folder / name).chmod(0o755)
        return called

    write(scancel="", sacct="echo disabled >&2; exit 1")
    return write


def a_job(root: Path, run_id: str, state: dict[str, Any], **more: Any) -> Path:
    slurm = {"settings": {}, "inside": "local", **more.pop("slurm", {})}
    job = Job(run_id, "n", "e", str(root), str(root), "slurm", ["true"], {}, str(root), slurm=slurm, **more)
    folder = create_job(job)
    write_state(folder, {"since_ms": 1, **state})
    return folder


def read(folder: Path) -> JobState:
    found = read_job(folder)
    assert found is not None
    return found


RUN, OTHER = "a" * 32, "b" * 32


def test_what_others_can_write_is_shown_and_nothing_is_done_about_it(
    commands: Commands, store_root: Path, tmp_path: Path
) -> None:
    commands()
    store_root.chmod(0o2770)
    folder = a_job(store_root, RUN, {"phase": "queued"})
    modes = [
        stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / "job.json", folder / "state.json")
    ]
    assert modes == [0o2750, 0o640, 0o640] and read(folder).own
    for path in (folder, folder / "job.json", folder / "state.json"):
        before = path.stat().st_mode
        path.chmod(0o2770 if path == folder else 0o660)
        assert not read(folder).own
        assert [job.phase for job in look(list_jobs(store_root), 20.0)] == ["queued"]
        with pytest.raises(LaunchError, match="Only its owner"):
            stop_job(read(folder))
        path.chmod(before)
    assert [job.phase for job in look(list_jobs(store_root), 20.0)] == ["ended"]
    local = a_job(store_root, OTHER, {"phase": "running"})
    content = json.loads((local / "job.json").read_text())
    (local / "job.json").write_text(json.dumps({**content, "slurm": {}, "root": "/", "run_id": RUN}))
    assert (read(local).job.root, read(local).job.run_id) == (str(store_root), OTHER)
    (local / "job.json").chmod(0o660)
    assert take_up_orphans(store_root) == []
    elsewhere = tmp_path / "folder"
    (elsewhere / "jobs").mkdir(parents=True)
    (elsewhere / "jobs" / RUN).symlink_to(folder)
    assert read_job(elsewhere / "jobs" / RUN) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="another user can be only by root")
def test_a_member_of_the_group_looks_and_does_not_write(commands: Commands, tmp_path: Path) -> None:
    root = tmp_path / "shared"
    root.mkdir()
    os.chown(root, -1, 54321)
    root.chmod(0o2770)
    folder = a_job(root, RUN, {"phase": "running"})
    lock = jobs_module.JobLock(folder)
    assert lock.take()
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom mltrack.projects.jobs import read_job\n"
        "folder = Path(sys.argv[1])\nfound = read_job(folder)\n"
        "print(found.phase, found.watched, found.own, *(os.access(p, os.W_OK) for p in (folder, *folder.iterdir())))\n"
    )
    # The folders above are root's alone: only getting through them is given, and reading with it; what may be read, bits say.
    person = "setpriv --reuid=54322 --regid=54321 --groups=54321 --inh-caps=+dac_read_search --ambient-caps=+dac_read_search"
    words = [*person.split(), "--", sys.executable, "-c", script, str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["running", "True", "False", *["False"] * 4], done.stderr
    lock.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="files of others can be made only by root")
def test_a_store_that_is_shared_later_and_a_place_that_somebody_took(
    commands: Commands, store_root: Path
) -> None:
    folder = a_job(store_root, RUN, {"phase": "running"})
    with mltrack.start_run():
        pass
    words = [
        sys.executable,
        "-m",
        "mltrack.tui.cli",
        "init",
        str(store_root),
        "--group",
        "54321",
        "--no-site",
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (folder.parent, folder, folder / "job.json")]
    assert modes == [0o2770, 0o2750, 0o640] and read(folder).own
    taken = store_root / "jobs" / OTHER
    taken.mkdir()
    os.chown(taken, 54322, 54321)
    with pytest.raises(LaunchError, match="belongs to somebody else"):
        a_job(store_root, OTHER, {})


def test_only_downloads_are_removed_after_a_job(store_root: Path, tmp_path: Path) -> None:
    precious = tmp_path / "papers" / "thesis.tex"
    precious.parent.mkdir()
    precious.touch()
    download = place_for("p", "https://example.org/x")
    download.parent.mkdir(parents=True)
    beside = download.parent.parent / "kept" / "x"
    beside.parent.mkdir()
    for place in (precious, beside, download.parent / ".." / "x" / "y", download):
        remove(place)
    assert precious.exists() and beside.parent.exists() and not download.parent.exists()


def test_a_number_is_never_an_option(commands: Commands, store_root: Path) -> None:
    called = commands()
    folder = a_job(store_root, RUN, {"phase": "queued", "handle": {"slurm": "-uann"}})
    (folder / HANDLE).write_text('{"job": "--me"}')
    assert handle_of(read(folder)) is None
    for number in ("-uann", "", "17 18", "17_", "１７", "17\n"):
        for ask in (cancel, look_up, owner_of):
            with pytest.raises(LaunchError, match="no number of a Slurm job"):
                ask(number)
    assert called.read_text() == ""


def test_a_run_that_names_an_option_is_not_stopped_by_slurm(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = commands()
    monkeypatch.setenv("SLURM_JOB_ID", "-uann")
    with mltrack.start_run() as run:
        monkeypatch.delenv("SLURM_JOB_ID")
        words = [sys.executable, "-m", "mltrack.tui.cli", "stop", run.run_id, "--yes"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "names no number of a Slurm job" in done.stderr, done.stderr
    assert called.read_text() == ""


def test_whose_job_it_is_stands_after_its_name(commands: Commands) -> None:
    commands(
        scontrol="echo 'JobId=17 JobName=a UserId=me(1000) GroupId=b(2) UserId=eve(1001) GroupId=x(1) P=1'"
    )
    assert owner_of("17") == 1001


def test_a_queue_that_cannot_be_kept_is_asked_as_seldom(commands: Commands) -> None:
    called = commands()
    assert read_queue().time_s and len(called.read_text().splitlines()) == 1
    kept = cache_folder() / "slurm"
    (path,) = kept.glob("queue-*.json")
    path.unlink()
    path.mkdir()  # what is written cannot be put there
    _forget(path)
    assert [bool(read_queue().time_s) for _ in range(5)] == [True] * 5
    assert len(called.read_text().splitlines()) == 2 and not [*kept.glob(".*.part")]
    _forget(path)
    path.rmdir()
    for left in kept.iterdir():
        left.unlink()
    kept.rmdir()
    kept.touch()  # there is not even a folder
    assert [bool(read_queue().time_s) for _ in range(5)] == [True] * 5
    assert len(called.read_text().splitlines()) == 3


def _forget(path: Path) -> None:
    from mltrack.projects.slurm_queue import _learned

    del _learned[str(path)]


def test_another_runs_job_is_not_cancelled(commands: Commands, store_root: Path) -> None:
    called = commands(
        scontrol="case \"$*\" in *config*) echo 'ClusterName = c' ;; "
        f"*) echo 'JobId=17 UserId=a(0) GroupId=a(0) JobState=RUNNING Comment=mltrack:{OTHER}' ;; esac"
    )
    folder = a_job(store_root, RUN, {"phase": "queued", "handle": {"slurm": "17"}})
    assert stop_job(read(folder), 20.0)
    assert "scancel" not in called.read_text()
    assert "does not know" in str(read(folder).state["reason"])


def test_what_a_site_prints_before_the_number(commands: Commands, store_root: Path) -> None:
    commands(sbatch="echo '--> Verifying valid submit host...OK'; echo '17;cluster'")
    job = replace(read(a_job(store_root, RUN, {})).job, environment=dict(os.environ))
    assert _sbatch(job, [], 0) == "17"
    commands(sbatch="echo 17; echo 'Have a nice day'")
    with pytest.raises(SlurmSilent, match="nice day"):
        _sbatch(job, [], 0)


def test_the_tasks_of_a_sweep_that_goes_on_are_kept(
    store_root: Path, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands()
    monkeypatch.setattr(jobs_module, "KEPT_JOBS", 1)
    whole_id = "c" * 32
    ids = [sign * 32 for sign in "0123"]
    whole = a_job(store_root, whole_id, {"phase": "queued"}, slurm={"tasks": 4, "children": ids})
    over = {"phase": "ended", "status": "FINISHED"}
    for task, run_id in enumerate(ids[:3]):
        a_job(store_root, run_id, over, parent=whole_id, slurm={"task": task})
    forget_old(store_root)
    assert len(list_jobs(store_root)) == 4
    # The folder of the last one is gone: Slurm says whether it goes on.
    (whole / HANDLE).write_text('{"job": "17"}')
    commands(scontrol=f"echo 'JobId=20 JobState=RUNNING Comment=mltrack:{whole_id}'")
    end_sweep(whole)
    assert not read(whole).ended
    commands()
    assert [job.phase for job in look(list_jobs(store_root), 20.0) if job.job.run_id == whole_id] == ["ended"]
    assert read(whole).state["reason"] == "1 of 4 did not finish well"


def test_a_list_that_ends_within_a_sweep_still_settles_all_of_it(
    commands: Commands, store_root: Path
) -> None:
    commands()
    ids = ["0" * 32, "1" * 32]
    a_job(store_root, RUN, {"phase": "queued"}, slurm={"tasks": 2, "children": ids})
    first = a_job(store_root, ids[0], {"phase": "ended"}, parent=RUN, slurm={"task": 0})
    waiting = a_job(store_root, ids[1], {"phase": "queued"}, parent=RUN, slurm={"task": 1})
    assert [job.job.run_id for job in look([read(first)], 20.0)] == ids[:1]
    assert read(waiting).ended


def test_percent_and_backslash_in_the_stores_path() -> None:
    assert output_pattern("/data/50%u x", "slurm-%j.out") == "/data/50%%u x/slurm-%j.out"
    with pytest.raises(ProjectError, match="backslash"):
        output_pattern("/a\\b", "slurm-%j.out")


def test_no_variable_leads_slurms_commands_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_CLUSTERS", "SBATCH_CLUSTERS", "SBATCH_ERROR", "SQUEUE_PARTITION", "SCANCEL_STATE"):
        monkeypatch.setenv(name, "other")
    monkeypatch.setenv("SLURM_CONF", "/c")
    words = [line.partition("=") for line in run_slurm(["env"]).splitlines()]
    said = {name: value for name, _, value in words}
    assert said["SLURM_CONF"] == "/c" and "other" not in said.values()
    assert run_slurm(["cat"]) == ""


def test_a_run_is_run_again_as_it_was_asked_for(commands: Commands, tmp_path: Path) -> None:
    commands(sbatch="", apptainer="")
    project = write_project(
        tmp_path / "p", MLproject="name: p\nentry_points:\n  main:\n    command: python -V\n"
    )
    asked = {"image": "ghcr.io/a/b:1", "memory": "2g", "container": "apptainer"}
    job = job_of(plan_for(project, "slurm", gpu="2", slurm=asked))
    assert job.facts["project"]["slurm"] == asked and job.facts["project"]["gpu"] == "2"
    assert job.slurm["settings"] == {"memory": "2048M", "gres": "gpu:2"}


def test_forsaken_is_what_slurm_did_not_have_when_it_was_asked(store_root: Path) -> None:
    found = read(a_job(store_root, RUN, {"phase": "queued", "since_ms": 100_000}))
    assert not is_forsaken(found, Queue({}, 130.0))
    assert not is_forsaken(found, Queue({}, 500.0, "no answer")) and not is_forsaken(found, Queue({}))
    assert is_forsaken(found, Queue({}, 500.0))


def test_an_app_that_changes_nothing_settles_nothing(commands: Commands, store_root: Path) -> None:
    called = commands()
    folder = a_job(store_root, RUN, {"phase": "queued"})
    a_job(store_root, OTHER, new_state("running"))
    with open_store(str(store_root)):
        pass
    with open_store(str(store_root), readonly=True) as store:
        ask_slurm(store)
        assert len(jobs_page(store)["jobs"]) == 2
    assert called.read_text() == "" and not read(folder).ended

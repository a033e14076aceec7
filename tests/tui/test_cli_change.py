"""`mltrack` commands that change something, wait for something, or end something."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.conftest import folder_of

from mltrack.store.client.journal import Journal

Run = Callable[..., "subprocess.CompletedProcess[str]"]

TRAINING = """
import os
import time
from mltrack.store.client import log as mltrack
with mltrack.start_run(run_name="training", experiment="live", total_steps=1000, system_metrics=False):
    for step in range(100_000):
        mltrack.log_metric("loss", 1.0 / (step + 1), step=step)
        time.sleep({pause})
        if step >= {last} and os.path.exists("enough"):
            break
"""


@pytest.fixture
def change(mltrack: Run, small_store: str) -> Run:
    def run(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
        return mltrack("--store", small_store, *arguments, **options)

    return run


def one(change: Run, *arguments: str) -> dict[str, object]:
    found = json.loads(change("show", *arguments, "--json").stdout)
    assert isinstance(found, dict)
    return found


def test_tags_are_set_removed_and_undone(change: Run) -> None:
    assert change("tag", "run-000001", "team=vision", "baseline").returncode == 0
    assert one(change, "run-000001")["tags"] == {"team": "vision", "baseline": ""}
    assert change("tag", "run-000001", "-d", "baseline").returncode == 0
    assert one(change, "run-000001")["tags"] == {"team": "vision"}
    assert "Undid" in change("undo").stdout
    assert one(change, "run-000001")["tags"] == {"team": "vision", "baseline": ""}
    assert change("redo").returncode == 0
    assert one(change, "run-000001")["tags"] == {"team": "vision"}
    assert change("tag", "run-000001", "=x").returncode == 2


def test_notes_from_argument_input_and_editor(change: Run, tmp_path: Path) -> None:
    assert change("note", "run-000001", "crop 32").returncode == 0
    assert change("note", "run-000001").stdout == "crop 32\n"
    change("note", "run-000001", "-", stdin="two\nlines")
    assert change("note", "run-000001").stdout == "two\nlines\n"
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nshift\nprintf 'from the editor' > \"$1\"\n")
    editor.chmod(0o700)
    assert (
        change("note", "run-000001", "--edit", environ={"EDITOR": str(editor), "VISUAL": ""}).returncode == 0
    )
    assert change("note", "run-000001").stdout == "from the editor\n"
    assert (
        change("note", "run-000001", "--edit", environ={"EDITOR": "/no/such", "VISUAL": ""}).returncode == 2
    )


def test_an_ambiguous_name_lists_the_candidates(change: Run) -> None:
    change("rename", "run-000001", "twin")
    change("rename", "run-000002", "twin")
    answer = change("show", "twin")
    assert answer.returncode == 4
    assert answer.stdout == ""
    candidates = [line for line in answer.stderr.splitlines() if "› twin" in line]
    assert len(candidates) == 2
    assert change("show", candidates[0].split()[0]).returncode == 0


def test_rename_move_and_pin(change: Run) -> None:
    assert change("rename", "run-000001", "final").returncode == 0
    assert change("move", "final", "run-000002", "paper/figures").returncode == 0
    assert {run["run_name"] for run in json.loads(change("ls", "-x", "paper/figures", "--json").stdout)} == {
        "final",
        "run-000002",
    }
    assert change("pin", "final").returncode == 0
    assert one(change, "final")["pinned"] is True
    assert change("pin", "final", "--off").returncode == 0
    assert one(change, "final")["pinned"] is False


def test_trash_restore_and_purge(change: Run, small_store: str) -> None:
    run_id = str(one(change, "run-000001")["run_id"])
    assert change("delete", run_id).returncode == 2  # nobody can be asked
    assert change("delete", run_id, "-y").returncode == 0
    assert len(json.loads(change("ls", "--json").stdout)) == 2
    assert [run["run_id"] for run in json.loads(change("ls", "--trash", "--json").stdout)] == [run_id]
    assert change("restore", run_id).returncode == 0
    assert len(json.loads(change("ls", "--json").stdout)) == 3
    change("delete", run_id, "-y")
    assert change("purge", run_id, "-y").returncode == 0
    assert change("show", run_id).returncode == 3
    assert not (folder_of(small_store) / "runs" / run_id[:2] / run_id).exists()


def test_upkeep_commands_say_what_they_did(change: Run, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    assert str(copy) in change("backup", str(copy)).stdout
    assert copy.stat().st_size > 0
    assert json.loads(change("fold", "--json").stdout)["pending_bytes"] == 0
    assert json.loads(change("doctor", "--check", "--json").stdout)["healthy"] is True
    assert change("gc", "--dry-run").returncode == 0
    assert change("sync").returncode == 0


def test_a_check_takes_nothing_in(change: Run, small_store: str) -> None:
    before = len(json.loads(change("ls", "--json").stdout))
    journal = Journal(Path(small_store), "c" * 32, "1700000000000-abcdef", identity={"host": "elsewhere"})
    journal.meta("start", 1700000000000, name="unread", experiment="Default", user="ann")
    journal.close()
    said = json.loads(change("doctor", "--check", "--json").stdout)
    assert said["healthy"] and f"The store has {before} runs." in said["said"]
    assert len(json.loads(change("ls", "--json").stdout)) == before + 1


def test_wait_tells_good_from_bad(change: Run) -> None:
    runs = {str(run["status"]): str(run["run_id"]) for run in json.loads(change("ls", "--json").stdout)}
    for status, run_id in runs.items():
        assert change("wait", run_id).returncode == (0 if status == "FINISHED" else 1)


@pytest.fixture
def training(
    tmp_path: Path, store_address: str, command: tuple[tuple[str, ...], dict[str, str]]
) -> Iterator[Callable[[float, int], tuple[str, subprocess.Popen[bytes]]]]:
    """Start a real training in a process of its own, which ends behind step `last` once there is a file "enough"; returns
    its store and the process."""
    started: list[subprocess.Popen[bytes]] = []

    def start(pause: float, last: int) -> tuple[str, subprocess.Popen[bytes]]:
        environ = {**command[1], "MLTRACK_STORE": store_address, "MLTRACK_FACTS": "0"}
        script = TRAINING.format(pause=pause, last=last)
        process = subprocess.Popen(
            [sys.executable, "-c", script], env=environ, cwd=tmp_path, stdout=subprocess.DEVNULL
        )
        started.append(process)
        return store_address, process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()


def until_listed(mltrack: Run, store: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if json.loads(mltrack("--store", store, "ls", "metrics.loss.count > 0", "--json").stdout or "[]"):
            return
        time.sleep(0.2)
    raise AssertionError("the training was never listed")


def test_stop_ends_the_process_of_the_run(
    mltrack: Run, training: Callable[[float, int], tuple[str, subprocess.Popen[bytes]]]
) -> None:
    store, process = training(0.05, 10_000)
    until_listed(mltrack, store)
    assert json.loads(mltrack("--store", store, "ls", "--json").stdout)[0]["status"] == "RUNNING"
    unasked = mltrack("--store", store, "stop", "@running")
    assert unasked.returncode == 2 and process.poll() is None
    answer = mltrack("--store", store, "stop", "@running", "-y", "--timeout", "30")
    # The test is the parent: until it has waited, the ended process still has a pid.
    assert process.wait(30) in (-signal.SIGTERM, 128 + signal.SIGTERM, 143, 1)
    assert answer.returncode in (0, 1)
    assert json.loads(mltrack("--store", store, "ls", "--json").stdout)[0]["status"] in ("KILLED", "LOST")


def test_wait_and_watch_see_the_end(
    mltrack: Run,
    command: tuple[tuple[str, ...], dict[str, str]],
    training: Callable[[float, int], tuple[str, subprocess.Popen[bytes]]],
    tmp_path: Path,
) -> None:
    store, process = training(0.02, 10)
    until_listed(mltrack, store)
    watch = (*command[0], "--store", store, "watch", "@last", "--plain", "--every", "0.3")
    with subprocess.Popen(watch, env=command[1], stdout=subprocess.PIPE, text=True) as watched:
        assert watched.stdout is not None
        assert "running" in watched.stdout.readline()
        (tmp_path / "enough").touch()
        rest = watched.stdout.read().splitlines()
    assert watched.returncode == 0 and "done" in rest[-1]
    assert mltrack("--store", store, "wait", "@last", "--timeout", "60").returncode == 0
    assert process.wait(30) == 0


def test_wait_gives_up_in_time(
    mltrack: Run, training: Callable[[float, int], tuple[str, subprocess.Popen[bytes]]]
) -> None:
    store, _ = training(0.1, 10_000)
    until_listed(mltrack, store)
    answer = mltrack("--store", store, "wait", "@running", "--timeout", "0.5")
    assert answer.returncode == 1
    assert "0.5 s" in answer.stderr


def test_demo_is_seeded_and_fills_no_used_folder(mltrack: Run, tmp_path: Path, demo_store: str) -> None:
    other = tmp_path / "other"
    assert mltrack("demo", str(other)).returncode == 0
    for arguments in (
        (
            "ls",
            "-x",
            "vision/cifar",
            "--sort=run_name",
            "--columns",
            "run,lr,val/acc.max,val/acc.count",
            "--csv",
        ),
    ):
        assert (
            mltrack("--store", str(other), *arguments).stdout
            == mltrack("--store", demo_store, *arguments).stdout
        )
    again = mltrack("demo", str(other))
    assert again.returncode == 2 and "empty" in again.stderr


def test_live_demo_goes_on(mltrack: Run, tmp_path: Path) -> None:
    store = tmp_path / "live"
    assert mltrack("demo", str(store), "--live", "--seconds", "2.5").returncode == 0
    points = json.loads(
        mltrack("--store", str(store), "metrics", "sage-owl-41", "train/loss", "--json").stdout
    )["points"]
    assert points[-1][0] > 41_220
    assert points[-1][1] <= time.time() * 1000 + 1000


def test_summaries_only_fills_tables_and_has_no_points(mltrack: Run, tmp_path: Path) -> None:
    store = str(tmp_path / "many")
    mltrack("demo", store, "--runs", "50", "--summaries-only", "--metrics", "3")
    runs = json.loads(mltrack("--store", store, "ls", "--json").stdout)
    assert len(runs) == 50
    assert all(len(run["metrics"]) == 3 for run in runs)
    assert not list(Path(store).glob("runs/*/*/points.*"))
    found = json.loads(
        mltrack("--store", store, "ls", "val/acc > 0.7 and count(val/acc) = 10", "--json").stdout
    )
    assert [run["run_id"] for run in found] == [
        run["run_id"] for run in runs if run["metrics"]["val/acc"] > 0.7
    ]
    assert 0 < len(found) < 50
    answer = mltrack("--store", store, "metrics", runs[0]["run_id"], "val/acc")
    assert answer.returncode == 3 and "only a summary" in answer.stderr


def test_exec_makes_a_run_of_any_command(mltrack: Run, tmp_path: Path) -> None:
    store = str(tmp_path / "store")

    def execute(name: str, *command: str) -> tuple[int, dict[str, object]]:
        answer = mltrack(
            "--store", store, "exec", "--name", name, "-x", "shell", "--", *command, cwd=tmp_path
        )
        found = json.loads(mltrack("--store", store, "show", name, "--json").stdout)
        return answer.returncode, found

    code, run = execute("well", "sh", "-c", "echo seen; echo too >&2")
    assert (code, run["status"], run["exit_code"], run["experiment"]) == (0, "FINISHED", 0, "shell")
    assert run["facts"]["command"] == ["sh", "-c", "echo seen; echo too >&2"]  # type: ignore[index]
    assert sorted(mltrack("--store", store, "logs", "well").stdout.split()) == ["seen", "too"]
    code, run = execute("badly", "sh", "-c", "echo no such data; exit 7")
    assert (code, run["status"], run["exit_code"], run["reason"]) == (7, "FAILED", 7, "no such data")
    code, run = execute("killed", "sh", "-c", "kill -9 $$")
    assert (code, run["status"], run["reason"]) == (137, "KILLED", "SIGKILL")
    code, run = execute("absent", str(tmp_path / "no-such-program"))
    assert (code, run["status"]) == (127, "FAILED")
    answer = mltrack("--store", store, "exec", "--", str(tmp_path / "no-such-program"), cwd=tmp_path)
    assert answer.stderr == f"mltrack: {tmp_path / 'no-such-program'}: command not found\n"


def test_show_says_what_was_not_stored_and_why_it_failed(
    mltrack: Run, command: tuple[tuple[str, ...], dict[str, str]], tmp_path: Path
) -> None:
    script = (
        "import mltrack\nwith mltrack.start_run(run_name='odd'):\n"
        "    mltrack.log_metric('loss', 'low', step=1)\n    raise ValueError('no such \\x1b[31mdata')\n"
    )
    store = str(tmp_path / "store")
    environ = {**command[1], "MLTRACK_STORE": store}
    subprocess.run([sys.executable, "-c", script], env=environ, cwd=tmp_path, stderr=subprocess.DEVNULL)
    page = mltrack("--store", store, "show", "odd").stdout
    assert "NOT STORED  1\n  metric 'loss': a metric value must be a number, not str\n" in page
    assert "TRACEBACK\n  Traceback (most recent call last):\n" in page
    assert "  ValueError: no such ␛[31mdata\n" in page


def test_what_a_command_logs_goes_to_the_run_of_exec(mltrack: Run, tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    script = (
        "import mltrack; mltrack.start_run(); mltrack.log_metric('loss', .5, step=3); raise SystemExit(4)"
    )
    answer = mltrack(
        "--store", store, "exec", "--name", "outer", "--", sys.executable, "-c", script, cwd=tmp_path
    )
    assert answer.returncode == 4
    runs = json.loads(mltrack("--store", store, "ls", "--json").stdout)
    assert [(run["run_name"], run["status"], run["metrics"]) for run in runs] == [
        ("outer", "FAILED", {"loss": 0.5})
    ]
    assert json.loads(mltrack("--store", store, "show", "outer", "--json").stdout)["parent_id"] is None

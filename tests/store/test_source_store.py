"""Another mltrack store as a source: the same runs as there, live, with what was decided there, and never written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import mltrack
from mltrack.store import open_store
from mltrack.store.errors import BadInput
from mltrack.store.store import Store


def log(root: Path, name: str, steps: int) -> str:
    mltrack.set_store(str(root))
    try:
        with mltrack.start_run(run_name=name, experiment="theirs", system_metrics=False) as run:
            mltrack.log_params({"lr": 0.1, "opt": "adam"})
            for step in range(steps):
                mltrack.log_metric("loss", step / 7, step)
            mltrack.log_text("hello", "notes.txt")
        return run.run_id
    finally:
        mltrack.set_store(None)


def state(root: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.lstat().st_mtime_ns, path.lstat().st_ctime_ns) for path in [root, *root.rglob("*")]
    }


def assert_same(mine: Store, theirs: Store, run_id: str) -> None:
    (here,), (there,) = mine.runs([run_id]), theirs.runs([run_id])
    for field in (
        "name",
        "experiment",
        "status",
        "start_ms",
        "end_ms",
        "params",
        "tags",
        "note",
        "metrics",
        "lifecycle",
        "user",
        "host",
    ):
        assert getattr(here, field) == getattr(there, field), field
    assert here.damage is None and here.source == str(theirs.root)
    for key in there.metrics:
        assert mine.points(run_id, key).values.tobytes() == theirs.points(run_id, key).values.tobytes()
    assert here.artifacts is not None and (here.artifacts / "notes.txt").read_text() == "hello"


def test_another_store_is_followed_with_its_decisions(tmp_path: Path) -> None:
    root = tmp_path / "theirs"
    first = log(root, "first", 3000)
    with open_store(str(root)) as theirs:
        theirs.refresh(None)
        theirs.note(first, "look")
        theirs.set_tags([first], {"team": "a", "gone": "x"})
        theirs.delete_tags([first], ["gone"])
        theirs.rename(first, "renamed")
        before = state(root)
        with open_store(str(tmp_path / "mine")) as mine:
            mine.add_source(str(root))
            assert mine.refresh(None).damaged == ()
            assert state(root) == before
            assert_same(mine, theirs, first)
            second = log(root, "second", 5)
            theirs.refresh(None)
            theirs.seal(older_than_seconds=-10)
            theirs.trash([first])
            mine.refresh(None)
            assert_same(mine, theirs, second)
            assert_same(mine, theirs, first)
            mine.note(first, "mine")
            mine.refresh(None)
            assert (mine.runs([first])[0].note, theirs.runs([first])[0].note) == ("mine", "look")
        with open_store(str(tmp_path / "new")) as new:  # everything is sealed by now
            new.add_source(str(root))
            new.refresh(None)
            assert_same(new, theirs, first)
            assert_same(new, theirs, second)


def test_a_store_does_not_follow_itself(tmp_path: Path) -> None:
    root = tmp_path / "store"
    log(root, "own", 1)
    with open_store(str(root)) as store, pytest.raises(BadInput, match="itself"):
        store.add_source(str(root))


def test_a_live_run_of_another_store_is_followed(tmp_path: Path) -> None:
    root = tmp_path / "theirs"
    mltrack.set_store(str(root))
    try:
        with (
            mltrack.start_run(run_name="live", system_metrics=False) as run,
            open_store(str(tmp_path / "mine")) as mine,
        ):
            mltrack.log_metric("loss", 1.5, 0)
            mine.add_source(str(root))
            for step in range(1, 4):
                mine.refresh(None)
                (here,) = mine.runs([run.run_id])
                assert (here.status, here.metrics["loss"].count) == ("RUNNING", step)
                mltrack.log_metric("loss", 0.5, step)
    finally:
        mltrack.set_store(None)


TRAINING = """
import sys, time, mltrack
with mltrack.start_run(run_name=sys.argv[1], system_metrics=False) as run:
    mltrack.log_metric("loss", 1.5, 0)
    print(run.run_id, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("they_look_first", [False, True])
def test_a_killed_run_of_another_store_is_lost(tmp_path: Path, they_look_first: bool) -> None:
    root, mine = tmp_path / "theirs", str(tmp_path / "mine")
    environment = {**os.environ, "MLTRACK_STORE": str(root), "MLTRACK_FACTS": "0"}
    command = [sys.executable, "-c", TRAINING]
    trainings = [
        subprocess.Popen([*command, name], env=environment, stdout=subprocess.PIPE, text=True)
        for name in ("killed", "lives")
    ]
    try:
        killed, lives = (
            str(training.stdout and training.stdout.readline().strip()) for training in trainings
        )

        def told() -> list[tuple[str, str]]:
            with open_store(mine) as store:
                store.refresh(None)
                return [(run.status, run.reason) for run in store.runs([killed, lives])]

        with open_store(mine) as store:
            store.add_source(str(root))
        assert told() == [("RUNNING", "")] * 2
        trainings[0].kill()
        trainings[0].wait()
        if they_look_first:
            # Their store takes the marker away with what it found.
            with open_store(str(root)) as theirs:
                theirs.refresh(None)
                assert theirs.run(killed).status == "LOST"
            assert len(list((root / "open").glob("*.*"))) == 1
        before = state(root)
        lost = ("LOST", f"process {trainings[0].pid} is gone")
        assert told() == [lost, ("RUNNING", "")]
        assert state(root) == before
        with open_store(str(root)) as theirs:
            theirs.refresh(None)
        # Also for one who comes later, and again when the marker has gone.
        for _ in range(3):
            assert told() == [lost, ("RUNNING", "")]
        with open_store(str(tmp_path / "later")) as later:
            later.add_source(str(root))
            later.refresh(None)
            assert (later.run(killed).status, later.run(lives).status) == ("LOST", "RUNNING")
    finally:
        for training in trainings:
            training.kill()
            training.communicate()

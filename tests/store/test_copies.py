"""A run in mid-flight that is moved or copied, while original and copies are followed: the same points, none twice."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mltrack.store import Store, open_store
from mltrack.store.errors import RunNotFound

RUN = "c09e" * 8
ROUNDS = 10
PATIENCE_SECONDS = 60
WRITER = """
import os, sys, time
import mltrack
stop = sys.argv[1]
step = 0
with mltrack.start_run(run_id=sys.argv[2], run_name="moved about", tags={"kept": "whole"}):
    while not os.path.exists(stop):
        for _ in range(20):
            mltrack.log_metrics({"loss": step / 7, "acc": float(-step)}, step=step)
            mltrack.log_metric("only", step * 3.0)
            step += 1
        mltrack.log_param(f"p{step}", step)
        time.sleep(0.005)
print(step)
"""


@pytest.fixture
def writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> subprocess.Popen[str]:
    for name in ("MLTRACK_CONSOLE", "MLTRACK_FACTS", "MLTRACK_SYSTEM_METRICS"):
        monkeypatch.setenv(name, "0")
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "stop"), RUN],
        env={**os.environ, "MLTRACK_STORE": str(tmp_path / "here")},
        stdout=subprocess.PIPE,
        text=True,
    )
    until(lambda: any((tmp_path / "here").glob(f"runs/*/{RUN}/points.*")))
    return process


def until(right: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not right():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def end(writer: subprocess.Popen[str], tmp_path: Path) -> int:
    """Let the training end; how many steps it logged."""
    (tmp_path / "stop").touch()
    said, _ = writer.communicate(timeout=PATIENCE_SECONDS)
    assert writer.returncode == 0
    return int(said)


def copy(how: str, source: Path, target: Path) -> None:
    """What people type. A file that grows meanwhile is no failure of theirs or ours."""
    target.mkdir(parents=True, exist_ok=True)
    if how == "rsync" or how == "rsync --inplace":
        if shutil.which("rsync") is None:
            pytest.skip("needs rsync: apt-get install rsync (or your system's package of that name)")
        done = subprocess.run(
            [*how.split(), "-a", f"{source}/", f"{target}/"], capture_output=True, text=True
        )
    else:
        done = subprocess.run([*how.split(), f"{source}/.", str(target)], capture_output=True, text=True)
    assert done.returncode in (0, 24), done.stderr  # 24: rsync says that files vanished


def answer(store: Store) -> dict[str, Any]:
    run = store.run(RUN)
    found: dict[str, Any] = {
        "run": (run.name, run.status, run.params, run.tags, run.conflicts, run.damage, run.skipped),
        "metrics": run.metrics,
    }
    for key in ("loss", "acc", "only"):
        points = store.points(RUN, key)
        found[key] = points.steps.tobytes(), points.times_ms.tobytes(), points.values.tobytes()
    return found


def check(store: Store, count: int) -> None:
    store.refresh(None)
    run = store.run(RUN)
    assert (run.status, run.damage, run.skipped) == ("FINISHED", None, 0)
    assert len(run.params) == count // 20 and run.tags == {"kept": "whole"}
    for key, factor in (("loss", 1 / 7), ("acc", -1.0), ("only", 3.0)):
        points = store.points(RUN, key)
        assert points.steps.tolist() == list(range(count)), f"{key}: every step once"
        wanted = [step / 7 if key == "loss" else step * factor for step in range(count)]
        assert points.values.tolist() == wanted
        assert run.metrics[key].count == count


@pytest.mark.parametrize("how", ["cp -r", "cp -a", "rsync", "rsync --inplace"])
def test_a_copy_that_is_made_again_and_again_is_followed_as_the_original_is(
    tmp_path: Path, writer: subprocess.Popen[str], how: str
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    chance = random.Random(how)
    for _ in range(ROUNDS):
        copy(how, here / "runs", there / "runs")
        for root in chance.sample([here, there, there], 2):
            with open_store(str(root)) as store:
                store.refresh(chance.choice([None, 0.01]))
        with open_store(str(here)) as store:  # the copy lies anywhere and is taken into the original's store
            store.fold_folder(there / "runs" / RUN[:2] / RUN)
        time.sleep(chance.random() * 0.02)
    count = end(writer, tmp_path)
    copy(how, here / "runs", there / "runs")
    answers = []
    for root in (here, there):
        with open_store(str(root)) as store:
            check(store, count)
            assert store.fold_folder(there / "runs" / RUN[:2] / RUN).points == 0
            answers.append(answer(store))
    assert answers[0] == answers[1]


def test_a_copy_taken_while_files_were_half_copied(tmp_path: Path, writer: subprocess.Popen[str]) -> None:
    """The copy grows byte by byte, in pieces that end anywhere, and is begun anew over itself."""
    here, there = tmp_path / "here", tmp_path / "there"
    chance = random.Random(11)
    target = there / "runs" / RUN[:2] / RUN
    target.mkdir(parents=True)
    for number in range(ROUNDS):
        for source in sorted((here / "runs" / RUN[:2] / RUN).glob("*.jsonl")):
            data = source.read_bytes()
            if number < ROUNDS - 1:
                data = data[: chance.randrange(len(data) + 1)]
            (target / source.name).write_bytes(data)
            with open_store(str(there)) as store:
                store.refresh(None)
    count = end(writer, tmp_path)
    for source in (here / "runs" / RUN[:2] / RUN).glob("*.jsonl"):
        shutil.copy(source, target)
    for root in (here, there):
        with open_store(str(root)) as store:
            check(store, count)


def test_a_run_that_is_moved_while_it_is_written(tmp_path: Path, writer: subprocess.Popen[str]) -> None:
    """Its process goes on writing to the files that it has open, wherever they lie; both stores stay open meanwhile."""
    places = [tmp_path / "here", tmp_path / "there"]
    stores = [open_store(str(place)) for place in places]
    chance = random.Random(5)
    at = 0
    for _ in range(ROUNDS):
        stores[chance.randrange(2)].refresh(chance.choice([None, 0.005]))
        source, target = (place / "runs" / RUN[:2] / RUN for place in (places[at], places[1 - at]))
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mv", str(source), str(target)], check=True)
        at = 1 - at
        stores[at].refresh(0.01)
        time.sleep(chance.random() * 0.02)
    if at == 0:
        subprocess.run(
            ["mv", str(places[0] / "runs" / RUN[:2] / RUN), str(places[1] / "runs" / RUN[:2])], check=True
        )
    count = end(writer, tmp_path)
    check(stores[1], count)
    # Where it only passed through, what was seen of it is right as far as it goes; back again, all of it is there.
    subprocess.run(
        ["mv", str(places[1] / "runs" / RUN[:2] / RUN), str(places[0] / "runs" / RUN[:2])], check=True
    )
    check(stores[0], count)
    for store in stores:
        store.close()


def test_a_copy_under_another_name_is_the_same_run(tmp_path: Path, writer: subprocess.Popen[str]) -> None:
    """`cp -r` inside the store: journals are known by what they are, not by where they lie."""
    here = tmp_path / "here"
    folder = here / "runs" / RUN[:2] / RUN
    time.sleep(0.05)
    shutil.copytree(folder, folder.with_name("copy of it"))
    shutil.copytree(folder, folder.with_name("f" * 32))
    count = end(writer, tmp_path)
    with open_store(str(here)) as store:
        store.refresh(None, everything=True)
        check(store, count)
        assert store.search("").run_ids == (RUN,)
        with pytest.raises(RunNotFound):
            store.run("f" * 32)

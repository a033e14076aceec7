"""A full or read-only disk: training goes on, one line says so, and nothing that was acknowledged is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mltrack.store import open_store
from mltrack.store.errors import StoreUnavailable
from mltrack.store.sync import sync

RUN = "d15c" + "0" * 28


FILL = """
import os, sys
import mltrack
store, filler = sys.argv[1], sys.argv[2]
def fill():
    with open(filler, "ab", buffering=0) as file:
        size = 65536
        while size:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2
def free():
    os.unlink(filler)
mltrack.set_store(store)
"""


def train(disk: Path, code: str, spool: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "MLTRACK_FACTS": "0",
        "MLTRACK_CONSOLE": "0",
        "MLTRACK_SYSTEM_METRICS": "0",
        "MLTRACK_SPOOL": str(spool),
    }
    done = subprocess.run(
        [sys.executable, "-c", FILL + code, str(disk / "store"), str(disk / "filler")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done


def check(disk: Path, count: int, params: dict[str, str]) -> None:
    with open_store(str(disk / "store")) as store:
        report = store.refresh(None)
        assert report.skipped == 0
        run = store.run(RUN)
        assert run.status == "FINISHED" and run.params == params
        points = store.points(RUN, "loss")
        assert points.steps.tolist() == list(range(count))
        assert points.values.tolist() == [step / 7 for step in range(count)]


def test_what_a_full_disk_refuses_arrives_when_there_is_room_again(disk: Path, tmp_path: Path) -> None:
    code = f"""
mltrack.start_run(run_id={RUN!r})
for step in range(6000):
    if step in (1000, 3000):
        fill()
    if step in (2000, 4000):
        free()
    if step in (1500, 3500):
        mltrack.log_param(f"p{{step}}", "x" * 5000)
    mltrack.log_metric("loss", step / 7, step=step)
"""
    done = train(disk, code, tmp_path / "spool")
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "No space left" in done.stderr or "only part of a record" in done.stderr
    assert not (tmp_path / "spool").exists()
    check(disk, 6000, {"p1500": "x" * 5000, "p3500": "x" * 5000})


@pytest.mark.parametrize("first", [0, 1000])
def test_a_disk_that_stays_full_leaves_the_rest_in_a_named_spool(
    disk: Path, tmp_path: Path, first: int
) -> None:
    spool = tmp_path / "spool"
    code = f"""
if {first} == 0:
    fill()
mltrack.start_run(run_id={RUN!r})
for step in range(3000):
    if step == {first} != 0:
        fill()
    if step == 2000:
        mltrack.log_param("late", "x" * 5000)
    mltrack.log_metric("loss", step / 7, step=step)
"""
    done = train(disk, code, spool)
    warnings = done.stderr.strip().splitlines()
    assert len(warnings) == 2, done.stderr
    assert str(spool) in warnings[-1] and "mltrack sync" in warnings[-1]
    (disk / "filler").unlink()
    with open_store(str(disk / "store")) as store:
        for _ in range(2):  # the second time brings nothing twice
            sync(store, spool)
    check(disk, 3000, {"late": "x" * 5000})


def test_a_read_only_store_is_replaced_by_a_spool(disk: Path, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    with open_store(str(disk / "store")) as store:
        store.refresh(None)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    code = f"""
os.environ.update(MLTRACK_FACTS="1", MLTRACK_CONSOLE="1")
with mltrack.start_run(run_id={RUN!r}):
    for step in range(500):
        mltrack.log_metric("loss", step / 7, step=step)
    mltrack.log_text("kept", "note.txt")
    print("it said so")
"""
    done = train(disk, code, spool)
    assert len(done.stderr.strip().splitlines()) == 1 and str(spool) in done.stderr
    assert "Read-only file system" in done.stderr and "mltrack sync" in done.stderr
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    with open_store(str(disk / "store")) as store:
        sync(store, spool)
        folder = store.run(RUN).folder
        assert folder is not None and (folder / "artifacts" / "note.txt").read_text() == "kept"
        assert (folder / "console.log").read_text() == "it said so\n"
        packages = json.loads(store.database.execute("SELECT facts FROM run")[0][0])["packages"]
        assert (disk / "store" / "blobs" / packages[:2] / packages).is_file()
    check(disk, 500, {})


def test_decisions_and_the_fold_on_a_full_disk(disk: Path, tmp_path: Path) -> None:
    """What cannot be written is refused with a sentence and changes nothing; afterwards all works again."""
    code = f"""
with mltrack.start_run(run_id={RUN!r}):
    for step in range(2000):
        mltrack.log_metric("loss", step / 7, step=step)
"""
    train(disk, code, tmp_path / "spool")
    filler = disk / "filler"
    with open_store(str(disk / "store")) as store:
        store.refresh(None)
        store.set_tags([RUN], {"kept": "1"})
        with filler.open("wb", buffering=0) as file:
            size = 65536
            while size:
                try:
                    file.write(bytes(size))
                except OSError:
                    size //= 2
        for number in range(400):  # the database's own files may have a little room left
            try:
                store.set_tags([RUN], {f"t{number}": "x" * 3000})
            except StoreUnavailable as error:
                assert "space" in str(error) or "grow" in str(error)
                break
        else:
            pytest.fail("the disk took everything")
        before = store.run(RUN).tags
        assert f"t{number}" not in before and store.run(RUN).metrics["loss"].count == 2000
        assert store.search("loss >= 0").run_ids == (RUN,)
    try:
        open_store(str(disk / "store")).close()
    except StoreUnavailable as error:
        assert "Free some space" in str(error)
    filler.unlink()
    with open_store(str(disk / "store")) as store:
        assert store.run(RUN).tags == before, "what was refused is not done later"
        store.set_tags([RUN], {"after": "2"})
        assert store.run(RUN).tags == {**before, "after": "2"}
    for path in (disk / "store").glob("mltrack.db*"):
        path.unlink()
    with open_store(str(disk / "store")) as store:
        store.refresh(None)
        assert store.run(RUN).tags == {**before, "after": "2"}
    check(disk, 2000, {})

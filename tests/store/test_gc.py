"""Cleaning up: what nothing needs goes, what anything needs stays, names are free again, and a kill in between costs nothing."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mltrack.store import open_store
from mltrack.store.client.artifacts import store_blob
from mltrack.store.client.data import describe_input
from mltrack.store.client.journal import Journal, points_line, run_folder
from mltrack.store.errors import Conflict, RunNotFound

T0 = 1_700_000_000_000
DAY = 86400
GC = """
import sys
from mltrack.store import open_store
with open_store() as store:
    print("open", flush=True)
    store.gc(trash_days=-1)
"""


def write(root: Path, run_id: str, name: str = "run", experiment: str = "e", **facts: object) -> None:
    journal = Journal(root, run_id, f"{T0}-aaaaaa", identity={"host": "far"}, time_ms=T0)
    journal.meta("start", T0, name=name, experiment=experiment, user="ann")
    if facts:
        journal.meta("facts", T0, v=facts)
    file = journal.points()
    for step in range(50):
        file.append(points_line(step, T0 + step, {"loss": step / 7}))
    journal.meta("end", T0 + 50, status="FINISHED", exit=0)
    journal.meta("close", T0 + 50, points=file.size)
    journal.close()
    (run_folder(root, run_id) / "artifacts").mkdir()
    (run_folder(root, run_id) / "artifacts" / "model.bin").write_bytes(bytes(1000))


def age(path: Path, days: float) -> None:
    at = time.time() - days * DAY
    os.utime(path, (at, at))


def test_only_what_nothing_needs_goes_and_a_dry_run_tells_the_same(store_root: Path) -> None:
    needed, unused = (store_blob(text, store_root) for text in (b"needed", b"unused"))
    write(store_root, "1" * 32, packages=needed)
    for digest in (needed, unused):
        age(store_root / "blobs" / digest[:2] / digest, 2)
    fresh = store_blob(b"a run that is just starting names it next", store_root)
    folder = run_folder(store_root, "1" * 32)
    old_part, new_part = folder / ".x.part", folder / "artifacts" / ".y.part"
    for part in (old_part, new_part):
        part.write_bytes(bytes(10))
    age(old_part, 2)
    data = [store_root / name for name in ("old.csv", "new.csv")]
    for path in data:
        path.write_text(path.name)
        describe_input(path, store_root, "full")
    notes = sorted((store_root / "cache" / "digests").glob("*/*"))
    assert len(notes) == 2
    age(notes[0], 91)
    with open_store() as store:
        store.refresh(None)
        before = sorted(path for path in store_root.rglob("*") if "mltrack.db" not in path.name)
        dry = store.gc(dry=True)
        assert sorted(path for path in store_root.rglob("*") if "mltrack.db" not in path.name) == before
        freed = store.gc()
    assert dry.count_by_kind == {"half-written files": 1, "unused code snapshots": 1, "remembered digests": 1}
    assert {**freed.count_by_kind, "sealed journals": 0} == {**dry.count_by_kind, "sealed journals": 0}
    assert not old_part.exists() and new_part.exists()
    assert (store_root / "blobs" / needed[:2] / needed).exists() and (
        store_root / "blobs" / fresh[:2] / fresh
    ).exists()
    assert not (store_root / "blobs" / unused[:2] / unused).exists()
    assert sorted((store_root / "cache" / "digests").glob("*/*")) == notes[1:]
    assert (folder / "artifacts" / "model.bin").exists()


def test_trash_goes_when_its_time_is_over_and_not_before(
    store_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, young, kept = ("0" * 31 + digit for digit in "123")
    for run_id in (old, young, kept):
        write(store_root, run_id)
    with open_store() as store:
        store.refresh(None)
        store.trash([old, young])
        store.database.execute(
            "UPDATE run SET deleted_ms = deleted_ms - ? WHERE run_id = ?", (31 * DAY * 1000, old)
        )
        assert store.gc(dry=True).count_by_kind["runs from the trash"] == 1
        assert store.run(young).lifecycle == store.run(old).lifecycle == "trash"
        assert store.gc().count_by_kind["runs from the trash"] == 1
        with pytest.raises(RunNotFound):
            store.run(old)
        assert not run_folder(store_root, old).exists() and run_folder(store_root, young).exists()
        store.restore([young])
        assert store.run(young).lifecycle == "active"
        with pytest.raises(Conflict, match="files are gone"):
            for _ in range(4):
                store.undo()
    # Its journals, copied back from somewhere, do not bring it back.
    write(store_root, old)
    with open_store() as store:
        store.refresh(None, everything=True)
        assert store.search("", lifecycle="all").total == 2
        assert store.gc().count_by_kind["purged runs"] == 1
    assert not run_folder(store_root, old).exists()


def test_a_kill_while_purging_is_finished_by_the_next_clean_up(store_root: Path) -> None:
    chance = random.Random(os.urandom(8))
    kept = "f" * 32
    write(store_root, kept)
    for number in range(3):
        gone = [f"{number}{index:031x}" for index in range(40)]
        for run_id in gone:
            write(store_root, run_id)
        with open_store() as store:
            store.refresh(None)
            store.trash(gone)
        process = subprocess.Popen([sys.executable, "-c", GC], stdout=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.readline() == b"open\n"
        time.sleep(chance.random() * 0.06)
        process.kill()
        process.wait()
        process.stdout.close()
        folders = [run_id for run_id in gone if run_folder(store_root, run_id).exists()]
        with open_store() as store:
            known = store.search("", lifecycle="trash").total
            assert known in (0, 40), "the rows go in one transaction"
            assert known == 0 or len(folders) == 40, "files go only after it"
            store.gc(trash_days=-1)
            assert store.search("", lifecycle="all").run_ids == (kept,)
            assert store.points(kept, "loss").steps.tolist() == list(range(50))
        assert [path.name for path in store_root.glob("runs/*/*")] == [kept]


def test_dropped_journals_end_rebuilding_and_nothing_else(store_root: Path) -> None:
    write(store_root, "1" * 32)
    with open_store() as store:
        store.refresh(None)
        store.gc()
        assert store.gc(dry=True, journals=True).count_by_kind == {"sealed journals": 2}
        store.gc(journals=True)
        assert not list(store_root.glob("runs/*/*/*.zst"))
        assert store.refresh(None, everything=True).points == 0
        assert store.points("1" * 32, "loss").steps.tolist() == list(range(50))
        copy = store.backup()
    assert copy.exists()


def test_names_are_free_again(store_root: Path) -> None:
    """A run, an experiment and a model that went may be followed by others of the same name."""
    write(store_root, "1" * 32, name="again", experiment="kept name")
    with open_store() as store:
        store.refresh(None)
        store.trash(["1" * 32])
        write(store_root, "2" * 32, name="again", experiment="kept name")
        store.refresh(None)
        assert store.resolve("again") == "2" * 32, "what lies in the trash does not take the name"
        store.gc(trash_days=-1)
        write(store_root, "3" * 32, name="third", experiment="kept name")
        store.refresh(None)
        assert store.search("", experiment="kept name").total == 2
        store.rename("3" * 32, "again")
        assert set(store.search("name = again").run_ids) == {"2" * 32, "3" * 32}
        store.registry.register("m", "a")
        store.registry.register("m", "b")
        store.registry.delete_version("m", 2)
        assert store.registry.register("m", "c") == 3, "the number of a deleted version is not given again"

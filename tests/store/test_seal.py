"""Sealed journals: the same bytes, smaller, and everything that could be done before can be done still."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from backports import zstd

from mltrack.store import Store, open_store
from mltrack.store.client.journal import Journal, points_line, run_folder

T0 = 1_700_000_000_000
RUN = "5ea1" * 8
SEAL = """
import sys
from mltrack.store import open_store
with open_store(sys.argv[1]) as store:
    print("open", flush=True)
    store.seal(0)
"""
RESUME = """
import sys
import mltrack
with mltrack.start_run(run_id=sys.argv[1]):
    for value in range(3):
        mltrack.log_metric("loss", float(value))
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLTRACK_CONSOLE", "MLTRACK_FACTS", "MLTRACK_SYSTEM_METRICS"):
        monkeypatch.setenv(name, "0")


def write(root: Path, run_id: str, count: int = 500, end: bool = True, at: int = T0) -> Journal:
    journal = Journal(root, run_id, f"{at:013d}-aaaaaa", identity={"host": "far"}, time_ms=at)
    journal.meta("start", at, name=f"run {run_id[:4]}", experiment="e", user="ann")
    journal.meta("param", at, v={"lr": "0.1"})
    file = journal.points()
    for step in range(count):
        file.append(points_line(step, at + step, {"loss": step / 7, "acc": -step / 3}))
    if end:
        journal.meta("end", at + count, status="FINISHED", exit=0)
        journal.meta("close", at + count, points=file.size)
    journal.close()
    return journal


def bytes_of(root: Path) -> dict[str, bytes]:
    """Every journal by its plain name, unsealed where it is sealed; both where both are there must be equal."""
    found: dict[str, bytes] = {}
    for path in sorted(root.glob("runs/*/*/[mp]*.jsonl*")):
        data = path.read_bytes()
        if path.suffix == ".zst":
            data = zstd.decompress(data)
        plain = path.name.removesuffix(".zst")
        assert found.setdefault(plain, data) == data
    return found


def answer(store: Store, run_id: str) -> object:
    run = store.run(run_id)
    points = store.points(run_id, "loss")
    return run.name, run.status, run.params, run.metrics, points.steps.tobytes(), points.values.tobytes()


def test_sealing_keeps_every_byte_and_the_database_can_be_built_from_them(tmp_path: Path) -> None:
    runs = [f"{number:032x}" for number in range(5)]
    for run_id in runs:
        write(tmp_path, run_id)
    with open_store(str(tmp_path)) as store:
        store.refresh(None)
        before, expected = bytes_of(tmp_path), [answer(store, run_id) for run_id in runs]
        plain = sum(map(len, before.values()))
        freed = store.seal()
        assert freed.count_by_kind == {"sealed journals": 10}
        assert not list(tmp_path.glob("runs/*/*/*.jsonl")) and bytes_of(tmp_path) == before
        sealed = sum(path.stat().st_size for path in tmp_path.glob("runs/*/*/*.zst"))
        assert freed.bytes_by_kind == {"sealed journals": plain - sealed} and sealed * 2 < plain
        assert [answer(store, run_id) for run_id in runs] == expected
        assert store.seal().count_by_kind == {} and store.refresh(None, everything=True).points == 0
    for path in tmp_path.glob("mltrack.db*"):
        path.unlink()
    with open_store(str(tmp_path)) as store:
        assert store.refresh(None, everything=True).points == 5000
        assert [answer(store, run_id) for run_id in runs] == expected
        assert not list((tmp_path / "locks").glob(".*")), "unpacked copies are removed"


def test_what_may_still_change_is_left_alone(tmp_path: Path) -> None:
    names = {
        name: f"{number:032x}"
        for number, name in enumerate(("done", "running", "fresh", "torn", "unread", "marked"))
    }
    for name, run_id in names.items():
        at = int(time.time() * 1000) - 60_000 if name == "fresh" else T0
        write(tmp_path, run_id, 20, end=name != "running", at=at)
    with open_store(str(tmp_path)) as store:
        store.refresh(None)
        (torn,) = run_folder(tmp_path, names["torn"]).glob("points.*")
        with torn.open("ab") as file:
            file.write(b"[20,17000")
        (unread,) = run_folder(tmp_path, names["unread"]).glob("points.*")
        with unread.open("ab") as file:
            file.write(points_line(20, T0, {"loss": 1.0}))
        (jid,) = {path.name.split(".")[1] for path in run_folder(tmp_path, names["marked"]).glob("*.jsonl")}
        (tmp_path / "open" / f"{jid}.{names['marked']}").touch()
        store.seal()
    for name, run_id in names.items():
        left = {path.name.split(".")[0] for path in run_folder(tmp_path, run_id).glob("*.jsonl")}
        partly = {"meta"} if name in ("torn", "unread") else set()
        assert left == (set() if name == "done" else {"meta", "points"} - partly), name


def test_a_sealed_run_can_be_resumed_and_counts_on(tmp_path: Path) -> None:
    write(tmp_path, RUN, 40, at=int(time.time() * 1000) + 3_600_000)  # its clock was an hour ahead
    for _ in range(2):
        with open_store(str(tmp_path)) as store:
            store.refresh(None)
            store.seal(-2 * 3600)
            assert not list(tmp_path.glob("runs/*/*/*.jsonl"))
        done = subprocess.run(
            [sys.executable, "-c", RESUME, RUN],
            env={**os.environ, "MLTRACK_STORE": str(tmp_path)},
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (0, "")
    with open_store(str(tmp_path)) as store:
        store.refresh(None)
        points = store.points(RUN, "loss")
        assert points.steps.tolist() == list(range(46)), "neither begun anew nor superseding what was there"
        assert points.values.tolist() == [step / 7 for step in range(40)] + [0.0, 1.0, 2.0] * 2
        assert store.run(RUN).status == "FINISHED"


def test_a_kill_at_any_moment_of_sealing_loses_no_byte(tmp_path: Path) -> None:
    chance = random.Random(os.urandom(8))
    original = tmp_path / "original"
    runs = [f"{number:032x}" for number in range(40)]
    for run_id in runs:
        write(original, run_id, 120)
    with open_store(str(original)) as store:
        store.refresh(None)
        expected = [answer(store, run_id) for run_id in runs]
    before = bytes_of(original)
    killed_within = 0
    for number in range(4):
        root = tmp_path / f"store {number}"
        shutil.copytree(original, root)
        process = subprocess.Popen(
            [sys.executable, "-c", SEAL, str(root)], stdout=subprocess.PIPE, env={**os.environ}
        )
        assert process.stdout is not None and process.stdout.readline() == b"open\n"
        time.sleep(chance.random() * 0.25)
        process.kill()
        process.wait()
        process.stdout.close()
        killed_within += bool(list(root.glob("runs/*/*/*.zst"))) and bool(list(root.glob("runs/*/*/*.jsonl")))
        assert bytes_of(root) == before
        with open_store(str(root)) as store:
            assert store.refresh(None).points == 0
            store.seal()
            assert [answer(store, run_id) for run_id in runs] == expected
        assert bytes_of(root) == before and not list(root.glob("runs/*/*/*.jsonl"))
        for path in root.glob("mltrack.db*"):
            path.unlink()
        with open_store(str(root)) as store:
            store.refresh(None, everything=True)
            assert [answer(store, run_id) for run_id in runs] == expected
    assert killed_within, "no round was killed while sealing: write more runs"


def test_a_damaged_sealed_journal_costs_its_own_run(tmp_path: Path) -> None:
    runs = [f"{number:032x}" for number in range(3)]
    for run_id in runs:
        write(tmp_path, run_id)
    with open_store(str(tmp_path)) as store:
        store.refresh(None)
        store.seal()
        expected = answer(store, runs[2])
    (bad,) = run_folder(tmp_path, runs[0]).glob("points.*")
    bad.write_bytes(bad.read_bytes()[:-9])
    (worse,) = run_folder(tmp_path, runs[1]).glob("meta.*")
    worse.write_bytes(b"no zstd at all")
    for path in tmp_path.glob("mltrack.db*"):
        path.unlink()
    with open_store(str(tmp_path)) as store:
        report = store.refresh(None, everything=True)
        assert len(report.damaged) == 2 and all("cannot be unpacked" in text for text in report.damaged)
        assert answer(store, runs[2]) == expected
        for run_id in runs[:2]:
            assert "cannot be unpacked" in str(store.run(run_id).damage)
        assert store.run(runs[0]).params == {"lr": "0.1"}, "what is whole of a damaged run is there"
        assert store.points(runs[1], "loss").steps.tolist() == list(range(500))


def test_a_store_that_others_write_too_is_sealed_only_by_who_folds(tmp_path: Path) -> None:
    """Sealing waits for the lock of folding: nobody reads a file that is just being replaced."""
    write(tmp_path, RUN)
    with open_store(str(tmp_path)) as store:
        store.refresh(None)
    process = subprocess.Popen([sys.executable, "-c", SEAL, str(tmp_path)], stdout=subprocess.PIPE)
    with open_store(str(tmp_path)) as store:
        while process.poll() is None:
            store.refresh(None, everything=True)
            assert store.run(RUN).damage is None
        assert process.wait() == 0
        assert store.refresh(None, everything=True).damaged == ()
        assert store.points(RUN, "loss").steps.tolist() == list(range(500))
    notes = json.loads((run_folder(tmp_path, RUN) / "counted.json").read_text())
    assert notes == {"attempt": f"{T0}-aaaaaa", "steps": {"0": {"loss": 500, "acc": 500}}}

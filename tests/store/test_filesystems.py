"""Filesystems without shared memory maps, as FUSE and network filesystems are, and without locks: what is not there is found by
trying, a line says so, and everything works."""

from __future__ import annotations

import errno
import json
import mmap
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mltrack.store import open_store
from mltrack.store.filesystem import _shares_memory, has_locks, probe

RUN = "f05e" * 8
WITHOUT_LOCKS = Path(__file__).parents[1] / "services" / "without_locks.py"
WRITE = """
import sys
import mltrack
with mltrack.start_run(run_id=sys.argv[1], run_name="far"):
    mltrack.log_param("lr", 0.1)
    for step in range(int(sys.argv[2])):
        mltrack.log_metric("loss", step / 7, step=step)
    mltrack.log_text("kept", "note.txt")
"""
FOLD = """
import sys
from mltrack.store import open_store
with open_store(sys.argv[1]) as store:
    print("open", flush=True)
    for _ in range(int(sys.argv[2])):
        store.refresh(None)
        store.set_tags([sys.argv[3]], {sys.argv[4]: "1"})
"""


@contextmanager
def mounted(tmp_path: Path, *command: str) -> Iterator[Path]:
    """A FUSE mount by bindfs. `command`: what runs it, and its options behind its name."""
    if shutil.which("bindfs") is None:
        pytest.skip("needs a FUSE filesystem: apt-get install bindfs (or your system's package of that name)")
    below, folder = tmp_path / "below", tmp_path / "far"
    below.mkdir()
    folder.mkdir()
    done = subprocess.run([*command, str(below), str(folder)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"needs the right to mount FUSE ({done.stderr.strip()}): run where /dev/fuse may be used")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Path]:
    """Direct I/O: mapping a file in shared memory fails with ENODEV."""
    with mounted(tmp_path, "bindfs", "-o", "direct_io") as folder:
        yield folder


@pytest.fixture(params=[errno.ENOLCK, 0], ids=["refused", "granted to everybody"])
def lockless(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """Locks go on to bindfs, whose own the kernel refuses, or grants without effect."""
    forward = ("bindfs", "--multithreaded", "--enable-lock-forwarding")
    with mounted(tmp_path, sys.executable, str(WITHOUT_LOCKS), str(request.param), *forward) as folder:
        yield folder


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLTRACK_CONSOLE", "MLTRACK_FACTS", "MLTRACK_SYSTEM_METRICS"):
        monkeypatch.setenv(name, "0")


def write(root: Path, run_id: str, steps: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WRITE, run_id, str(steps)],
        env={**os.environ, "MLTRACK_STORE": str(root)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_probe_tells_them_apart(far: Path, tmp_path: Path) -> None:
    with (far / "file").open("w+b") as file:
        file.write(bytes(mmap.PAGESIZE))
        file.flush()
        with pytest.raises(OSError):
            mmap.mmap(file.fileno(), mmap.PAGESIZE, mmap.MAP_SHARED)
    assert not _shares_memory(far) and _shares_memory(tmp_path)
    assert has_locks(far) and has_locks(tmp_path)
    found = probe(far)
    assert not found.wal and "fuse" in found.kind and str(far) in found.why
    assert list(far.iterdir()) == [far / "file"], "the probe leaves nothing behind"


def test_a_store_there_uses_no_wal_and_does_everything_else(far: Path) -> None:
    root = far / "store"
    write(root, RUN, 3000)
    with open_store(str(root)) as store:
        assert any("no WAL" in note and "fuse" in note for note in store.location.notes)
        assert store.database.execute("PRAGMA journal_mode") == [("delete",)]
        assert store.refresh(None).points == 3000
        assert store.search("loss > 1 and lr = 0.1").run_ids == (RUN,)
        assert store.points(RUN, "loss").values.tolist() == [step / 7 for step in range(3000)]
        folder = store.run(RUN).folder
        assert folder is not None and (folder / "artifacts" / "note.txt").read_text() == "kept"
        store.set_tags([RUN], {"kept": "1"})
        store.registry.register("m", "x", RUN)
        store.undo()
        assert not (root / "mltrack.db-wal").exists() and not (root / "mltrack.db-shm").exists()
        copy = store.backup()
    with open_store(str(root), readonly=True) as store:
        assert store.run(RUN).tags == {"kept": "1"}
    assert copy.exists()
    sealed = subprocess.run(
        [sys.executable, "-m", "mltrack.tui.cli", "--store", str(root), "ls", "--json"], capture_output=True
    )
    assert json.loads(sealed.stdout)[0]["run_id"] == RUN


def test_the_database_may_lie_on_this_machine(
    far: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, local = far / "store", tmp_path / "local"
    local.mkdir()
    write(root, RUN, 10)
    monkeypatch.setenv("MLTRACK_DATABASE_FOLDER", str(local))
    with open_store(str(root)) as store:
        assert store.database.execute("PRAGMA journal_mode") == [("wal",)]
        store.refresh(None)
        store.note(RUN, "kept with the journals")
    assert not (root / "mltrack.db").exists() and (root / "decisions.jsonl").exists()
    for file in local.iterdir():
        file.unlink()
    with open_store(str(root)) as store:
        store.refresh(None)
        assert store.run(RUN).note == "kept with the journals"
        assert store.points(RUN, "loss").steps.tolist() == list(range(10))


def test_where_locks_do_not_work_the_database_lies_on_this_machine(
    lockless: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = lockless / "store"
    assert not probe(lockless).locks and not has_locks(root)
    write(root, RUN, 100)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", FOLD, str(root), "2", RUN, f"t{number}"], stdout=subprocess.PIPE
        )
        for number in range(3)
    ]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    with open_store(str(root)) as store:
        assert any("no working locks" in note for note in store.location.notes)
        assert str(tmp_path / "cache") in store.location.database
        assert store.points(RUN, "loss").steps.tolist() == list(range(100))
        assert store.run(RUN).tags == {"t0": "1", "t1": "1", "t2": "1"}
        store.seal(older_than_seconds=-1)
    assert sorted(path.name for path in root.iterdir()) == ["decisions.jsonl", "open", "runs"]
    assert not list(lockless.glob(".probe*"))
    # Another machine, or this one after its cache went: all of it is made again from what lies with the store.
    shutil.rmtree(tmp_path / "cache")
    with open_store(str(root)) as store:
        store.refresh(None)
        assert store.points(RUN, "loss").steps.tolist() == list(range(100))
        assert store.run(RUN).tags == {"t0": "1", "t1": "1", "t2": "1"}


def test_folders_that_are_killed_there_leave_a_whole_database(far: Path) -> None:
    """Two processes at a time fold and decide on a growing store; one of them is killed at any moment."""
    root = far / "store"
    write(root, RUN, 2000)
    chance = random.Random(3)
    for number in range(6):
        write(root, f"{number:032x}", 300)
        arguments = [sys.executable, "-c", FOLD, str(root), "4", RUN]
        pair = [
            subprocess.Popen([*arguments, f"t{number}.{side}"], stdout=subprocess.PIPE, text=True)
            for side in range(2)
        ]
        victim = pair[0]
        assert victim.stdout is not None
        if number % 2:
            victim.stdout.readline()
        time.sleep(chance.random() * 0.1)
        victim.send_signal(signal.SIGKILL)
        for process in pair:
            process.communicate(timeout=60)
        assert pair[1].returncode == 0
    with open_store(str(root)) as store:
        store.refresh(None)
        assert store.database.execute("PRAGMA integrity_check") == [("ok",)]
        assert store.search("").total == 7
        assert store.points(RUN, "loss").steps.tolist() == list(range(2000))
        assert all(f"t{number}.1" in store.run(RUN).tags for number in range(6))
        for number in range(6):
            assert store.points(f"{number:032x}", "loss").steps.tolist() == list(range(300))

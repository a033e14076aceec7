"""A remote store: the training writes a local spool, a companion sends it, and an absent store delays nothing."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from mltrack.store import open_store
from mltrack.store.client.location import spool_folder
from mltrack.store.database import file_lock
from mltrack.store.sync import ship, sync

TRAIN = """
import mltrack
with mltrack.start_run(run_name="far") as run:
    for step in range(500):
        mltrack.log_metric("loss", 1 / (step + 1), step)
print(run.run_id)
"""


def train(where: str, spool: Path) -> subprocess.CompletedProcess[str]:
    quiet = dict.fromkeys(("MLTRACK_CONSOLE", "MLTRACK_FACTS", "MLTRACK_SYSTEM_METRICS"), "0")
    environment = {**os.environ, **quiet, "MLTRACK_STORE": where, "MLTRACK_SPOOL": str(spool)}
    return subprocess.run(
        [sys.executable, "-c", TRAIN], env=environment, capture_output=True, text=True, check=True
    )


def stop_shippers(spool: Path) -> None:
    """End the companions of this spool, and nobody else's."""
    for process in psutil.process_iter():
        try:
            if "mltrack.store.sync" in process.cmdline() and process.environ().get("MLTRACK_SPOOL") == str(
                spool
            ):
                process.kill()
        except psutil.Error:
            continue


def test_a_run_reaches_postgresql_by_its_spool(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = tmp_path / "spool"
    monkeypatch.setenv("MLTRACK_SPOOL", str(spool))
    open_store(postgres_url).close()
    try:
        done = train(postgres_url, spool)
        run_id = done.stdout.strip()
        deadline = time.monotonic() + 60
        while True:
            with open_store(postgres_url) as store:
                found = [run for run in store.runs([run_id]) if run.status == "FINISHED"]
                if (
                    found
                    and found[0].metrics.get("loss") is not None
                    and found[0].metrics["loss"].count == 500
                ):
                    assert store.points(run_id, "loss").values.tolist() == [
                        1 / (step + 1) for step in range(500)
                    ]
                    break
            assert time.monotonic() < deadline, "the shipper did not send the run"
            time.sleep(0.2)
    finally:
        stop_shippers(spool)


def test_an_absent_store_loses_nothing_and_the_end_names_the_spool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = tmp_path / "spool"
    try:
        done = train("postgresql://nobody@127.0.0.1:9/none", spool)
    finally:
        stop_shippers(spool)
    assert "mltrack sync" in done.stderr and str(spool) in done.stderr
    monkeypatch.delenv("MLTRACK_STORE", raising=False)
    with open_store(str(tmp_path / "mine")) as store:
        report = sync(store, spool)
        assert report.points == 500
        assert sync(store, spool).points == 0
        assert store.points(done.stdout.strip(), "loss").steps.tolist() == list(range(500))
        assert store.run(done.stdout.strip()).folder is not None


COMPANIONS = """
import os, mltrack, psutil
mltrack.start_run()
print(sum("mltrack.store.sync" in child.cmdline() for child in psutil.Process().children()), flush=True)
os._exit(0)
"""


def test_a_companion_at_work_is_not_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool, where = tmp_path / "spool", "postgresql://nobody@127.0.0.1:9/none"
    for name in ("MLTRACK_FACTS", "MLTRACK_SYSTEM_METRICS"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("MLTRACK_STORE", where)
    monkeypatch.setenv("MLTRACK_SPOOL", str(spool))

    def started() -> int:
        return int(subprocess.check_output([sys.executable, "-c", COMPANIONS], text=True))

    try:
        assert started() == 1
        lock = spool_folder(where) / "locks" / "ship"
        until(lambda: lock.exists() and is_locked(lock))
        assert started() == 0, "it is at work"
        stop_shippers(spool)
        until(lambda: not is_locked(lock))
        assert started() == 1, "it was killed, and what it held with it"
    finally:
        stop_shippers(spool)


def test_a_run_that_begins_while_its_companion_goes_is_sent(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLTRACK_SPOOL", str(tmp_path / "spool"))
    monkeypatch.setenv("MLTRACK_STORE", postgres_url)
    monkeypatch.setattr("mltrack.store.sync.SHIP_IDLE_SECONDS", 0.0)
    open_store(postgres_url).close()
    root = spool_folder(postgres_url)
    looks = []

    @contextmanager
    def lock(*words: object, **named: object) -> Iterator[bool]:
        with file_lock(*words, **named) as mine:  # type: ignore[arg-type]
            yield mine
            looks.append(mine)
            monkeypatch.setattr("mltrack.store.sync.SHIP_IDLE_SECONDS", 2.0)
            if len(looks) == 1:
                # It looked for the last time, and still holds its lock: this run starts no companion.
                assert int(subprocess.check_output([sys.executable, "-c", COMPANIONS], text=True)) == 0

    monkeypatch.setattr("mltrack.store.sync.file_lock", lock)
    ship(postgres_url)
    assert looks == [True, True] and not list((root / "open").iterdir())
    with open_store(postgres_url) as store:
        assert store.search().total == 1


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.05)


def is_locked(path: Path) -> bool:
    with path.open("rb+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False

"""Backups of a store in use, and the drill that they are for: put one in the place of the database and go on."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mltrack.store import Store, open_store
from mltrack.store.client.journal import Journal, points_line
from mltrack.store.errors import StoreUnavailable

T0 = 1_700_000_000_000
BUSY = """
import itertools, sys
from mltrack.store import open_store
from mltrack.store.client.journal import Journal, points_line
root, stop = sys.argv[1:]
import os
with open_store(root) as store:
    print("open", flush=True)
    for number in itertools.count():
        if os.path.exists(stop):
            break
        run_id = f"{number:032x}"
        journal = Journal(store.root, run_id, f"{1700000000000 + number}-aaaaaa", identity={"host": "far"})
        journal.meta("start", 1700000000000 + number, name=f"run {number}", experiment="e", user="ann")
        file = journal.points()
        for step in range(200):
            file.append(points_line(step, 1700000000000 + step, {"loss": number + step / 7}))
        journal.meta("end", 1700000000900, status="FINISHED", exit=0)
        journal.meta("close", points=file.size)
        journal.close()
        store.refresh(None)
        store.set_tags([run_id], {"number": str(number)})
        store.registry.register("m", run_id)
"""


def answer(store: Store) -> dict[str, Any]:
    store.refresh(None)
    ids = store.search("", sort=["name"]).run_ids
    found: dict[str, Any] = {run.run_id: (run.name, run.tags, run.metrics) for run in store.runs(ids)}
    found["models"] = store.registry.versions("m"), store.registry.audit(), store.registry.verify_audit()
    for run_id in ids[:3] + ids[-3:]:
        found[f"points {run_id}"] = store.points(run_id, "loss").values.tobytes()
    return found


def test_backups_of_a_store_in_use_are_whole_and_can_be_gone_on_from(tmp_path: Path) -> None:
    root, stop = tmp_path / "store", tmp_path / "stop"
    writer = subprocess.Popen([sys.executable, "-c", BUSY, str(root), str(stop)], stdout=subprocess.PIPE)
    assert writer.stdout is not None and writer.stdout.readline() == b"open\n"
    backups: list[Path] = []
    with open_store(str(root)) as store:
        deadline = time.monotonic() + 60
        while len(backups) < 4:
            assert time.monotonic() < deadline
            before = store.search("").total
            backups.append(store.backup())
            connection = sqlite3.connect(f"file:{backups[-1]}?mode=ro", uri=True)
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert connection.execute("SELECT count(*) FROM run").fetchone()[0] >= before
            connection.close()
            time.sleep(0.2)
    stop.touch()
    assert writer.wait(timeout=60) == 0
    writer.stdout.close()
    assert not list((root / "backups").glob(".*")), "nothing half-written is left"
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in backups)
    with open_store(str(root)) as store:
        expected = answer(store)
    for number, backup in enumerate(backups):
        # The drill of docs/commands.md: the backup becomes the database of the folder, and the next command goes on.
        restored = tmp_path / f"restored {number}"
        shutil.copytree(root, restored)
        for path in restored.glob("mltrack.db*"):
            path.unlink()
        shutil.copy(backup, restored / "mltrack.db")
        with open_store(str(restored)) as store:
            assert answer(store) == expected


def test_a_backup_goes_where_it_is_told_and_replaces_only_as_a_whole(tmp_path: Path) -> None:
    with open_store(str(tmp_path / "store")) as store:
        store.registry.register("m", "a")
        target = tmp_path / "elsewhere" / "copy.db"
        assert store.backup(target) == target
        first = target.read_bytes()
        store.registry.register("m", "b")
        (tmp_path / "file").touch()
        with pytest.raises(StoreUnavailable, match="could not be written"):
            store.backup(tmp_path / "file" / "copy.db")
        assert target.read_bytes() == first
        store.backup(target)
        assert target.read_bytes() != first
    assert [path.name for path in target.parent.iterdir()] == ["copy.db"]


def test_readers_do_not_block_writers_nor_keep_what_they_read(tmp_path: Path) -> None:
    root = tmp_path / "store"
    run_id = "1" * 32
    journal = Journal(root, run_id, f"{T0}-aaaaaa", identity={"host": "far"}, time_ms=T0)
    journal.meta("start", T0, name="run", experiment="e", user="ann")
    journal.points().append(points_line(0, T0, {"loss": 1.0}))
    journal.close()
    with open_store(str(root)) as reader, open_store(str(root)) as writer:
        writer.refresh(None)
        writer.database.execute("PRAGMA busy_timeout = 0")  # whoever had to wait would fail at once
        for ask in (
            lambda: reader.search("loss > 0", sort=["-loss"]),
            lambda: reader.runs([run_id]),
            lambda: reader.points(run_id, "loss"),
            lambda: reader.experiments(),
            lambda: reader.keys(),
            lambda: reader.registry.audit(),
            lambda: reader.resolve("@last"),
        ):
            ask()
            assert not reader.database.connection.in_transaction
            # A reader that still held its snapshot would keep the log from being emptied.
            assert writer.database.execute("PRAGMA wal_checkpoint(TRUNCATE)")[0][0] == 0
        reader.database.execute("BEGIN")
        before = reader.run(run_id).tags
        writer.set_tags([run_id], {"while": "reading"})
        assert reader.run(run_id).tags == before, "one snapshot per transaction"
        reader.database.execute("ROLLBACK")
        assert reader.run(run_id).tags == {"while": "reading"}
    assert os.path.exists(root / "mltrack.db")

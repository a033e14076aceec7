"""Which run folders a fold looks into: those with a marker, those still running, and those that somebody copied in."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import orjson

from mltrack.store.client.journal import run_folder
from mltrack.store.database import Database

# Files of a copied-in run that changed this recently may still be growing.
COPY_SECONDS = 60.0
# Coarser than any filesystem's clock.
SHARD_NANOSECONDS = 3_000_000_000


class Folders:
    """The run folders below ``root`` (a store, or a spool of one) whose rows are in ``database``."""

    def __init__(self, database: Database, root: Path) -> None:
        self._database = database
        self._root = root
        self._shards: dict[str, int] = {}
        self._copied: set[str] | None = None

    def open(self) -> list[Path]:
        """Folders of runs with a marker, most recently heard first, and of runs that nothing has ended yet: their marker
        may have been taken away by another reader with a database of its own, or by hand."""
        heard: dict[str, int] = {}
        try:
            with os.scandir(self._root / "open") as entries:
                for entry in entries:
                    jid, _, run_id = entry.name.partition(".")
                    if len(jid) == 16 and len(run_id) == 32:
                        try:
                            heard[run_id] = max(heard.get(run_id, 0), entry.stat().st_mtime_ns)
                        except FileNotFoundError:
                            continue
        except FileNotFoundError:
            pass
        folders = [
            run_folder(self._root, run_id) for run_id in sorted(heard, key=lambda run_id: -heard[run_id])
        ]
        running = self._database.execute("SELECT run_id FROM run WHERE status = 'RUNNING' AND source = ''")
        return folders + [run_folder(self._root, str(run_id)) for (run_id,) in running if run_id not in heard]

    def copied_in(self, open_ones: set[str]) -> list[Path]:
        """Run folders without a marker that no row knows: somebody copied them here. Looks only into changed shards.

        They are remembered in the database until all of them is read and nothing changes any more: this process may die
        in between, and the copy may only have begun.
        """
        try:
            shards = [
                (entry.name, entry.stat().st_mtime_ns)
                for entry in os.scandir(self._root / "runs")
                if entry.is_dir()
            ]
        except FileNotFoundError:
            return []
        if self._copied is None:
            self._shards = dict(orjson.loads(self._database.setting("shards", "{}")))
            self._copied = set(orjson.loads(self._database.setting("copied", "[]")))
        before = len(self._copied), len(self._shards)
        changed = [(name, mtime) for name, mtime in shards if self._shards.get(name) != mtime]
        for name, mtime in changed:
            ids = [entry.name for entry in os.scandir(self._root / "runs" / name) if len(entry.name) == 32]
            rows = self._database.execute(
                "SELECT run_id FROM run WHERE run_id >= ? AND run_id < ? UNION SELECT run_id FROM tombstone",
                (name, name + "g"),
            )
            have = {str(row[0]) for row in rows} | open_ones
            self._copied.update(run_id for run_id in ids if run_id not in have)
            # A folder made within the same tick as the last one leaves the same mtime, so that must be past.
            settled = time.time_ns() - mtime > SHARD_NANOSECONDS
            self._shards[name] = mtime if settled else 0
        if changed or before != (len(self._copied), len(self._shards)):
            self._save_copied()
        return [run_folder(self._root, run_id) for run_id in sorted(self._copied - open_ones)]

    def _save_copied(self) -> None:
        with self._database.transaction():
            self._database.set_setting("shards", orjson.dumps(self._shards).decode())
            self._database.set_setting("copied", orjson.dumps(sorted(self._copied or ())).decode())

    def drop_copied(self, read_to_its_end: Callable[[Path], bool]) -> None:
        """Copied-in runs that are read to their end and have not changed for a while need no looking at any more."""
        folders = {run_id: run_folder(self._root, run_id) for run_id in self._copied or ()}
        done = {
            run_id for run_id, folder in folders.items() if _copy_ended(folder) and read_to_its_end(folder)
        }
        if done and self._copied is not None:
            self._copied -= done
            self._save_copied()

    def every(self) -> list[Path]:
        """All run folders there are."""
        folders: list[Path] = []
        try:
            for shard in sorted(os.scandir(self._root / "runs"), key=lambda entry: entry.name):
                if shard.is_dir():
                    folders += [Path(entry.path) for entry in os.scandir(shard.path) if entry.is_dir()]
        except FileNotFoundError:
            pass
        return folders


def _copy_ended(folder: Path) -> bool:
    """Whether nothing in it, or it itself, changed for a while."""
    try:
        files = [path for path in folder.iterdir() if path.name.endswith((".jsonl", ".zst"))]
        # Copying keeps mtimes, but never ctimes.
        newest = max(path.stat().st_ctime for path in (folder, *files))
    except FileNotFoundError:
        return not folder.exists()
    except OSError:
        return True
    return time.time() - newest >= COPY_SECONDS and bool(files)

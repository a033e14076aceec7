"""Bringing a store back after damage: what still reads, the newest backup, the decisions, and all journals again."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from mltrack.store import column_segments, decisions
from mltrack.store.blocks import decode
from mltrack.store.client.journal import make_folder, open_file, random_hex, share_mode
from mltrack.store.database import SCHEMA_VERSION, Database, file_lock, open_sqlite
from mltrack.store.errors import StoreDamaged, StoreError
from mltrack.store.fold import Fold
from mltrack.store.records import FoldReport
from mltrack.store.summary import unpack


@dataclass
class Diagnosis:
    """What was found and what was done, as sentences in order."""

    healthy: bool
    said: list[str] = field(default_factory=list)
    report: FoldReport | None = None


def examine(root: Path, database_path: Path, repair: bool = True) -> Diagnosis:
    """Check the database of the store at ``root``; when it is damaged and ``repair`` is set, build it again."""
    problem = _problem(database_path)
    if problem is None:
        diagnosis = Diagnosis(True, [f"{database_path} is sound."])
        if not repair:
            with closing(open_sqlite(database_path, root, readonly=True)) as database:
                rows = database.execute(
                    "SELECT run_id, damage FROM run WHERE damage IS NOT NULL ORDER BY run_id"
                )
                diagnosis.said += [f"Damaged: {run_id}: {damage}" for run_id, damage in rows]
                diagnosis.said.append(
                    f"The store has {database.execute('SELECT count(*) FROM run')[0][0]:,} runs."
                )
            return diagnosis
        database = open_sqlite(database_path, root)
        if database.setting("schema") == str(SCHEMA_VERSION):  # another's segments are not ours
            column_segments.forget(database)
    else:
        diagnosis = Diagnosis(False, [f"{database_path} is damaged: {problem.rstrip('.')}."])
        if not repair:
            diagnosis.said.append("Nothing was changed; without --check it is rebuilt.")
            return diagnosis
        database = _rebuild(root, database_path, diagnosis)
    try:
        diagnosis.report = Fold(database, root).refresh(None, everything=True)
        if diagnosis.report.folded_by_other:
            diagnosis.said.append("Another process is folding this store; it takes in the journals.")
        else:
            report = diagnosis.report
            diagnosis.said.append(
                f"Journals: {report.records:,} records and {report.points:,} points were missing and are in now."
            )
            if report.skipped:
                diagnosis.said.append(f"{report.skipped:,} lines could not be read and were skipped.")
            diagnosis.said += [f"Damaged: {text}" for text in report.damaged]
        with database.transaction():
            replayed = decisions.replay(database, root, position=0)
        diagnosis.said.append(f"Decisions: {replayed:,} were missing and are applied again.")
        if problem is not None:
            diagnosis.said.append(_salvage(database, root, _put_aside(root)))
        count = database.execute("SELECT count(*) FROM run")[0][0]
        diagnosis.said.append(f"The store has {count:,} runs.")
        if database.setting("schema") == str(SCHEMA_VERSION):
            column_segments.prepare(database)
    finally:
        database.close()
    return diagnosis


def _problem(path: Path) -> str | None:
    """What is wrong with the file, or None."""
    if not path.exists():
        return "there is no such file"
    try:
        connection = sqlite3.connect(path.absolute().as_uri() + "?mode=ro", uri=True, timeout=30)
        try:
            found = connection.execute("PRAGMA integrity_check(5)").fetchall()
            connection.execute("SELECT value FROM setting WHERE key = 'schema'").fetchone()
            if found == [("ok",)]:
                _decode_everything(connection)
        finally:
            connection.close()
    except (sqlite3.Error, StoreDamaged) as error:
        return str(error)
    return None if found == [("ok",)] else str(found[0][0]).splitlines()[0]


def _decode_everything(connection: sqlite3.Connection) -> None:
    """Pages can be sound and their content not: read every summary and every block once. Raises StoreDamaged."""
    for summary, attempts in connection.execute("SELECT summary, attempts FROM run"):
        unpack(summary)
        unpack(attempts)
    # A store that an older mltrack wrote has no outlines.
    outlines = any(row[1] == "zoom" for row in connection.execute("PRAGMA table_info(block)"))
    for data, zoom in connection.execute(f"SELECT data, {'zoom' if outlines else 'NULL'} FROM block"):
        decode(data)
        if zoom is not None:
            decode(zoom)


def _rebuild(root: Path, path: Path, diagnosis: Diagnosis) -> Database:
    """Put the damaged files aside and begin with the newest sound backup, else with an empty database."""
    with file_lock(root, "fold"):
        folder = root / "backups"
        make_folder(folder, root)
        stamp = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{random_hex(4)}"
        for ending in ("", "-wal", "-shm"):
            source = path.with_name(path.name + ending)
            if source.exists():
                os.replace(source, folder / f"damaged-{stamp}.db{ending}")
        diagnosis.said.append(f"It was put aside as {folder / f'damaged-{stamp}.db'}.")
        backups = [file for file in folder.glob("*.db") if not file.name.startswith("damaged-")]
        for backup in sorted(backups, reverse=True):
            if _problem(backup) is None:
                part = path.with_name(f".{path.name}.{random_hex(8)}.part")
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
                with (
                    backup.open("rb") as sound,
                    os.fdopen(open_file(part, flags, share_mode(root)), "wb") as copy,
                ):
                    shutil.copyfileobj(sound, copy, 1 << 20)
                os.replace(part, path)
                diagnosis.said.append(f"Rebuilding from the backup {backup.name}, journals and decisions.")
                break
        else:
            diagnosis.said.append("There is no sound backup: rebuilding from journals and decisions.")
    return open_sqlite(path, root)


def _put_aside(root: Path) -> Path | None:
    """The database this repair put aside."""
    damaged = sorted((root / "backups").glob("damaged-*.db"), key=lambda file: file.stat().st_mtime_ns)
    return damaged[-1] if damaged else None


def _salvage(database: Database, root: Path, damaged: Path | None) -> str:
    """Decisions that only the damaged database knew (their file was lost too), row by row as far as pages can be read."""
    if damaged is None:
        return "There was nothing to salvage."
    found = applied = 0
    try:
        connection = sqlite3.connect(damaged.absolute().as_uri() + "?mode=ro", uri=True)
        try:
            for (text,) in connection.execute("SELECT record FROM decision"):
                record = orjson.loads(text)
                found += 1
                if not database.execute("SELECT 1 FROM decision WHERE id = ?", (record["id"],)):
                    decisions.apply_again(database, record)
                    applied += 1
        finally:
            connection.close()
    except (sqlite3.Error, orjson.JSONDecodeError, KeyError, StoreError) as error:
        return f"From the damaged database {applied:,} more decisions could be read before: {error}."
    return f"From the damaged database {found:,} decisions could be read, {applied:,} of them known nowhere else."

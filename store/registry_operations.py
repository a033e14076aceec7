"""The registry's operations of ``decisions.jsonl``: what register, stage and alias do to the rows, and their inverses."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, TypeAlias

import orjson

from mltrack.store.database import Database

Operation: TypeAlias = dict[str, Any]


def _register(database: Database, operation: Operation, record: dict[str, Any]) -> Operation:
    name, at = str(operation["name"]), int(record["time"])
    database.execute(
        "INSERT INTO registered_model (name, created_ms, updated_ms) VALUES (?, ?, ?) ON CONFLICT (name) DO NOTHING",
        (name, at, at),
    )
    version = int(
        database.execute(
            "UPDATE registered_model SET last_version = last_version + 1, updated_ms = ? WHERE name = ? RETURNING last_version",
            (at, name),
        )[0][0]
    )
    values = (
        name,
        version,
        str(operation.get("source", "")),
        str(operation.get("run", "")),
        str(operation.get("description", "")),
    )
    database.execute(
        "INSERT INTO model_version (name, version, source, run_id, description, actor, created_ms, updated_ms)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (*values, str(record["actor"]), at, at),
    )
    _audit(
        database,
        record,
        name,
        version,
        "registered",
        "",
        str(operation.get("source", "")),
        str(operation.get("reason", "")),
    )
    return {"op": "delete_version", "name": name, "version": version}


def _delete_version(database: Database, operation: Operation, record: dict[str, Any]) -> Operation:
    """Its number is never given again; that is why undoing a deletion puts the row back instead of registering anew."""
    name, version = str(operation["name"]), int(operation["version"])
    row = database.execute(
        "SELECT stage, source, run_id, description, actor, created_ms, updated_ms FROM model_version WHERE name = ? AND version = ?",
        (name, version),
    )
    database.execute("DELETE FROM model_version WHERE name = ? AND version = ?", (name, version))
    _audit(
        database,
        record,
        name,
        version,
        "deleted",
        str(row[0][0]) if row else "",
        "",
        str(operation.get("reason", "")),
    )
    return {"op": "put_version", "name": name, "version": version, "row": list(row[0]) if row else None}


def _put_version(database: Database, operation: Operation, record: dict[str, Any]) -> Operation:
    name, version = str(operation["name"]), int(operation["version"])
    if operation.get("row"):
        database.execute(
            "INSERT INTO model_version (name, version, stage, source, run_id, description, actor, created_ms, updated_ms)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name, version) DO NOTHING",
            (name, version, *operation["row"]),
        )
        _audit(
            database,
            record,
            name,
            version,
            "restored",
            "",
            str(operation["row"][0]),
            str(operation.get("reason", "")),
        )
    return {"op": "delete_version", "name": name, "version": version}


def _stage(database: Database, operation: Operation, record: dict[str, Any]) -> Operation:
    """Set stages of versions: one with its archiving, or (undo) several exactly as they were."""
    name, at = str(operation["name"]), int(record["time"])
    wanted: dict[int, str] = {
        int(version): str(stage) for version, stage in (operation.get("stages") or {}).items()
    }
    if not wanted:
        version, stage = int(operation["version"]), str(operation["stage"])
        if operation.get("archive") and stage in ("Staging", "Production"):
            holders = database.execute(
                "SELECT version FROM model_version WHERE name = ? AND stage = ? AND version <> ? ORDER BY version",
                (name, stage, version),
            )
            wanted = {int(row[0]): "Archived" for row in holders}
        wanted[version] = stage
    before: dict[str, str] = {}
    for version, stage in wanted.items():
        rows = database.execute(
            "SELECT stage FROM model_version WHERE name = ? AND version = ?", (name, version)
        )
        if not rows:
            continue  # deleted since: undoing a promotion does not bring a version back
        before[str(version)] = str(rows[0][0])
        database.execute(
            "UPDATE model_version SET stage = ?, updated_ms = ? WHERE name = ? AND version = ?",
            (stage, at, name, version),
        )
        _audit(
            database, record, name, version, "stage", str(rows[0][0]), stage, str(operation.get("reason", ""))
        )
    return {"op": "stage", "name": name, "stages": before}


def _set_alias(database: Database, operation: Operation, record: dict[str, Any]) -> Operation:
    name, alias, version = str(operation["name"]), str(operation["alias"]), operation.get("version")
    rows = database.execute("SELECT version FROM model_alias WHERE name = ? AND alias = ?", (name, alias))
    old = int(rows[0][0]) if rows else None
    if version is None:
        database.execute("DELETE FROM model_alias WHERE name = ? AND alias = ?", (name, alias))
    else:
        database.execute(
            "INSERT INTO model_alias (name, alias, version) VALUES (?, ?, ?)"
            " ON CONFLICT (name, alias) DO UPDATE SET version = excluded.version",
            (name, alias, int(version)),
        )
    shown = (str(old or ""), str(version or ""))
    _audit(
        database,
        record,
        name,
        int(version or old or 0),
        f"alias {alias}",
        *shown,
        str(operation.get("reason", "")),
    )
    return {"op": "alias", "name": name, "alias": alias, "version": old}


def _audit(
    database: Database,
    record: dict[str, Any],
    name: str,
    version: int,
    action: str,
    old: str,
    new: str,
    reason: str,
) -> None:
    rows = database.execute("SELECT hash FROM audit ORDER BY id DESC LIMIT 1")
    fields = [int(record["time"]), str(record["actor"]), name, version, action, old, new, reason]
    database.execute(
        "INSERT INTO audit (decision, time_ms, actor, name, version, action, old_value, new_value, reason, hash)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (str(record["id"]), *fields, chain(str(rows[0][0]) if rows else "", fields)),
    )


def chain(previous: str, fields: list[Any]) -> str:
    """Hash of an audit row: hex sha256 over the hash before it and its fields as JSON."""
    return hashlib.sha256(previous.encode("ascii") + b"\n" + orjson.dumps(fields)).hexdigest()


OPERATIONS: dict[str, Callable[[Database, Operation, dict[str, Any]], Operation]] = {
    "register": _register,
    "delete_version": _delete_version,
    "put_version": _put_version,
    "stage": _stage,
    "alias": _set_alias,
}

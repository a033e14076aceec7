"""The registry's operations of ``decisions.jsonl``: what they do to the rows, what they leave in the audit, their inverses."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import orjson

from mltrack.store.database import Database
from mltrack.store.errors import Conflict

Operation: TypeAlias = dict[str, Any]

_VERSION_FIELDS = (
    "stage, source, run_id, description, actor, created_ms, updated_ms, staged_ms, staged_by, files"
)
_MODEL_FIELDS = "description, created_ms, updated_ms, last_version, policy"
_REQUEST_FIELDS = "id, name, version, target, actor, reason, time_ms, state, decided_by, decided_ms, answer"
# Tables with rows of a model, besides its own and the audit: a rename takes them along, a deletion keeps them to put back.
_PARTS = {
    "model_version": f"version, {_VERSION_FIELDS}",
    "model_tag": "version, key, value",
    "model_alias": "alias, version",
}


def _make_model(database: Database, name: str, at: int) -> None:
    database.execute(
        "INSERT INTO registered_model (name, created_ms, updated_ms) VALUES (?, ?, ?) ON CONFLICT (name) DO NOTHING",
        (name, at, at),
    )


def _create_model(database: Database, operation: Operation, record: dict[str, Any]) -> Operation:
    """A model without versions."""
    name, at = str(operation["name"]), int(record["time"])
    if database.execute("SELECT 1 FROM registered_model WHERE name = ?", (name,)):
        raise Conflict(f"There is a model '{name}' already.")
    _make_model(database, name, at)
    database.execute(
        "UPDATE registered_model SET description = ? WHERE name = ?",
        (str(operation.get("description", "")), name),
    )
    _audit(database, record, operation, 0, "created", "", "")
    return {"op": "delete_model", "name": name}


def _delete_model(database: Database, operation: Operation, record: dict[str, Any]) -> Operation:
    """With its versions, tags and aliases. The inverse holds the rows."""
    name = str(operation["name"])
    kept: dict[str, list[list[Any]]] = {}
    for table, fields in _PARTS.items():
        kept[table] = [
            list(row) for row in database.execute(f"SELECT {fields} FROM {table} WHERE name = ?", (name,))
        ]
        database.execute(f"DELETE FROM {table} WHERE name = ?", (name,))
    row = database.execute(f"SELECT {_MODEL_FIELDS} FROM registered_model WHERE name = ?", (name,))
    database.execute("DELETE FROM registered_model WHERE name = ?", (name,))
    database.execute(
        "UPDATE model_request SET state = 'withdrawn' WHERE name = ? AND state = 'open'", (name,)
    )
    _audit(database, record, operation, 0, "deleted the model", f"{len(kept['model_version'])} versions", "")
    return {"op": "put_model", "name": name, "row": list(row[0]) if row else None, "parts": kept}


def _put_model(database: Database, operation: Operation, record: dict[str, Any]) -> Operation:
    name = str(operation["name"])
    if operation.get("row"):
        if database.execute("SELECT 1 FROM registered_model WHERE name = ?", (name,)):
            raise Conflict(f"There is a model '{name}' again already.")
        _insert(database, "registered_model", f"name, {_MODEL_FIELDS}", [name, *operation["row"]])
        for table, fields in _PARTS.items():
            for row in operation["parts"].get(table, []):
                _insert(database, table, f"name, {fields}", [name, *row])
        _audit(database, record, operation, 0, "restored the model", "", "")
    return {"op": "delete_model", "name": name}


def _rename_model(database: Database, operation: Operation, record: dict[str, Any]) -> Operation:
    name, to = str(operation["name"]), str(operation["to"])
    if database.execute("SELECT 1 FROM registered_model WHERE name = ?", (to,)):
        raise Conflict(f"There is a model '{to}' already.")
    for table in ("registered_model", *_PARTS, "model_request"):
        database.execute(f"UPDATE {table} SET name = ? WHERE name = ?", (to, name))
    at = int(record["time"])
    database.execute("UPDATE model_version SET updated_ms = ? WHERE name = ?", (at, to))
    _touch(database, to, at)
    _audit(database, record, {**operation, "name": to}, 0, "renamed", name, to)
    return {"op": "rename_model", "name": to, "to": name}


def _register(database: Database, operation: Operation, record: dict[str, Any]) -> Operation:
    name, at = str(operation["name"]), int(record["time"])
    _make_model(database, name, at)
    version = int(
        database.execute(
            "UPDATE registered_model SET last_version = last_version + 1, updated_ms = ? WHERE name = ? RETURNING last_version",
            (at, name),
        )[0][0]
    )
    files = operation.get("files")
    source = str(operation.get("source", ""))
    _insert(
        database,
        "model_version",
        f"name, version, {_VERSION_FIELDS}",
        [
            name,
            version,
            "None",
            source,
            str(operation.get("run", "")),
            str(operation.get("description", "")),
            str(record["actor"]),
            at,
            at,
            at,
            str(record["actor"]),
            orjson.dumps(files).decode() if files is not None else "",
        ],
    )
    for key, value in (operation.get("tags") or {}).items():
        _insert(database, "model_tag", "name, version, key, value", [name, version, str(key), str(value)])
    _audit(database, record, operation, version, "registered", "", source)
    return {"op": "delete_version", "name": name, "version": version}


def _delete_version(database: Database, operation: Operation, record: dict[str, Any]) -> Operation:
    """Its number is never given again; that is why undoing a deletion puts the row back instead of registering anew."""
    name, version = str(operation["name"]), int(operation["version"])
    here = (name, version)
    row = database.execute(
        f"SELECT {_VERSION_FIELDS} FROM model_version WHERE name = ? AND version = ?", here
    )
    aliases = database.execute("SELECT alias FROM model_alias WHERE name = ? AND version = ?", here)
    tags = database.execute("SELECT key, value FROM model_tag WHERE name = ? AND version = ?", here)
    for table in ("model_version", "model_alias", "model_tag"):
        database.execute(f"DELETE FROM {table} WHERE name = ? AND version = ?", here)
    _touch(database, name, int(record["time"]))
    _audit(database, record, operation, version, "deleted", str(row[0][0]) if row else "", "")
    return {
        "op": "put_version",
        "name": name,
        "version": version,
        "row": list(row[0]) if row else None,
        "aliases": [alias for (alias,) in aliases],
        "tags": dict(tags),
    }


def _put_version(database: Database, operation: Operation, record: dict[str, Any]) -> Operation:
    name, version = str(operation["name"]), int(operation["version"])
    row = operation.get("row")
    if row:
        if len(row) == 7:  # written by schema 1
            row = [*row, row[6], row[4], ""]
        _make_model(database, name, int(record["time"]))
        _insert(database, "model_version", f"name, version, {_VERSION_FIELDS}", [name, version, *row])
        for alias in operation.get("aliases") or []:
            _insert(database, "model_alias", "name, alias, version", [name, alias, version])
        for key, value in (operation.get("tags") or {}).items():
            _insert(database, "model_tag", "name, version, key, value", [name, version, key, value])
        _audit(database, record, operation, version, "restored", "", str(row[0]))
    return {"op": "delete_version", "name": name, "version": version}


def _stage(database: Database, operation: Operation, record: dict[str, Any]) -> Operation:
    """Set stages of versions: one with its archiving, or (undo) several exactly as they were."""
    name, at = str(operation["name"]), int(record["time"])
    wanted: dict[int, str] = {
        int(version): str(stage) for version, stage in (operation.get("stages") or {}).items()
    }
    chosen = 0
    if not wanted:
        chosen, stage = int(operation["version"]), str(operation["stage"])
        if operation.get("archive") and stage in ("Staging", "Production"):
            holders = database.execute(
                "SELECT version FROM model_version WHERE name = ? AND stage = ? AND version <> ? ORDER BY version",
                (name, stage, chosen),
            )
            wanted = {int(row[0]): "Archived" for row in holders}
        wanted[chosen] = stage
    before: dict[str, str] = {}
    expected: dict[str, str] = operation.get("expect") or {}
    for version, stage in wanted.items():
        rows = database.execute(
            "SELECT stage FROM model_version WHERE name = ? AND version = ?", (name, version)
        )
        if not rows:
            continue  # deleted since: undoing a promotion does not bring a version back
        if expected.get(str(version), rows[0][0]) != rows[0][0]:
            raise Conflict(
                f"{name} v{version} was moved to {rows[0][0]} since; that is not taken back along the way."
            )
        before[str(version)] = str(rows[0][0])
        database.execute(
            "UPDATE model_version SET stage = ?, updated_ms = ?, staged_ms = ?, staged_by = ? WHERE name = ? AND version = ?",
            (stage, at, at, str(record["actor"]), name, version),
        )
        action = "rolled back" if operation.get("rollback") and version == chosen else "stage"
        _audit(database, record, operation, version, action, str(rows[0][0]), stage)
    _touch(database, name, at)
    after = {str(version): stage for version, stage in wanted.items() if str(version) in before}
    return {"op": "stage", "name": name, "stages": before, "expect": after}


def _set_alias(database: Database, operation: Operation, record: dict[str, Any]) -> Operation:
    name, alias, version = str(operation["name"]), str(operation["alias"]), operation.get("version")
    rows = database.execute("SELECT version FROM model_alias WHERE name = ? AND alias = ?", (name, alias))
    old = int(rows[0][0]) if rows else None
    if "expect" in operation and operation["expect"] != old:
        raise Conflict(f"{name}@{alias} points elsewhere since; that is not taken back along the way.")
    if version is None:
        database.execute("DELETE FROM model_alias WHERE name = ? AND alias = ?", (name, alias))
    else:
        database.execute(
            "INSERT INTO model_alias (name, alias, version) VALUES (?, ?, ?)"
            " ON CONFLICT (name, alias) DO UPDATE SET version = excluded.version",
            (name, alias, int(version)),
        )
    shown = (str(old or ""), str(version or ""))
    action = f"{'rolled back ' if operation.get('rollback') else ''}alias {alias}"
    _audit(database, record, operation, int(version or old or 0), action, *shown)
    return {"op": "alias", "name": name, "alias": alias, "version": old, "expect": version}


def _set_field(database: Database, operation: Operation, record: dict[str, Any]) -> Operation:
    """Description of a model (version 0) or version, or a model's policy."""
    name, version, field = str(operation["name"]), int(operation.get("version", 0)), str(operation["field"])
    if field not in ("description", "policy"):
        raise Conflict(f"A model has no field '{field}' to decide about.")
    table, condition, here = (
        ("model_version", "name = ? AND version = ?", (name, version))
        if version
        else ("registered_model", "name = ?", (name,))
    )
    rows = database.execute(f"SELECT {field} FROM {table} WHERE {condition}", here)
    old = str(rows[0][0]) if rows else ""
    database.execute(
        f"UPDATE {table} SET {field} = ?, updated_ms = ? WHERE {condition}",
        (str(operation["value"]), int(record["time"]), *here),
    )
    _audit(database, record, operation, version, field, old, str(operation["value"]))
    return {**operation, "value": old}


def _set_tag(database: Database, operation: Operation, record: dict[str, Any]) -> Operation:
    """A tag of a model (version 0) or version; value None removes it."""
    name, version, key = str(operation["name"]), int(operation.get("version", 0)), str(operation["key"])
    here = (name, version, key)
    rows = database.execute("SELECT value FROM model_tag WHERE name = ? AND version = ? AND key = ?", here)
    old = str(rows[0][0]) if rows else None
    value = operation.get("value")
    database.execute("DELETE FROM model_tag WHERE name = ? AND version = ? AND key = ?", here)
    if value is not None:
        _insert(database, "model_tag", "name, version, key, value", [*here, str(value)])
    _audit(database, record, operation, version, f"tag {key}", old or "", "" if value is None else str(value))
    return {**operation, "value": old}


def _request(database: Database, operation: Operation, record: dict[str, Any]) -> Operation:
    """Ask for a promotion; an older open request for the same version and target is replaced."""
    name, version, target = str(operation["name"]), int(operation["version"]), str(operation["target"])
    key = str(operation.get("request") or record["id"])
    row = [key, name, version, target, str(record["actor"]), str(operation.get("reason", ""))]
    _insert(database, "model_request", _REQUEST_FIELDS, [*row, int(record["time"]), "open", "", None, ""])
    _touch(database, name, int(record["time"]))
    _audit(database, record, operation, version, "asked", "", target)
    return {"op": "answer", "request": key, "state": "withdrawn"}


def _answer(database: Database, operation: Operation, record: dict[str, Any]) -> Operation:
    """Close a request, or (undo) open it again."""
    key, state = str(operation["request"]), str(operation["state"])
    rows = database.execute("SELECT name, version, target, state FROM model_request WHERE id = ?", (key,))
    if not rows:
        raise Conflict("The request is not there any more.")
    name, version, target, old = rows[0]
    closed = state != "open"
    database.execute(
        "UPDATE model_request SET state = ?, decided_by = ?, decided_ms = ?, answer = ? WHERE id = ?",
        (
            state,
            str(record["actor"]) if closed else "",
            int(record["time"]) if closed else None,
            str(operation.get("reason", "")) if closed else "",
            key,
        ),
    )
    _touch(database, str(name), int(record["time"]))
    said = {**operation, "name": name}
    _audit(database, record, said, int(version), state if closed else "asked again", "", str(target))
    return {"op": "answer", "request": key, "state": str(old)}


def _touch(database: Database, name: str, at: int) -> None:
    """A model was updated: it, what versions it has, or their stages. Tags, aliases and what is said of a version are not that
    (so it is in MLflow, whose clients sort by it)."""
    database.execute("UPDATE registered_model SET updated_ms = ? WHERE name = ?", (at, name))


def _insert(database: Database, table: str, fields: str, values: Sequence[Any]) -> None:
    marks = ", ".join("?" * len(values))
    database.execute(f"INSERT INTO {table} ({fields}) VALUES ({marks}) ON CONFLICT DO NOTHING", values)


def _audit(
    database: Database,
    record: dict[str, Any],
    operation: Operation,
    version: int,
    action: str,
    old: str,
    new: str,
) -> None:
    database.next_seq()  # whoever looks at the registry hears that there is something new
    rows = database.execute("SELECT hash FROM audit ORDER BY id DESC LIMIT 1")
    fields = [
        int(record["time"]),
        str(record["actor"]),
        str(operation["name"]),
        version,
        action,
        old,
        new,
        str(operation.get("reason", "")),
    ]
    how = [str(record.get("channel", "")), str(record.get("identity", ""))]
    _insert(
        database,
        "audit",
        "decision, time_ms, actor, name, version, action, old_value, new_value, reason, channel, identity, hash",
        [str(record["id"]), *fields, *how, chain(str(rows[0][0]) if rows else "", fields, how)],
    )


def chain(previous: str, fields: list[Any], how: list[str]) -> str:
    """Hash of an audit row: hex sha256 over the hash before it and its fields as JSON.

    ``how`` (channel and identity) is left out where both are empty: rows of schema 1 had neither.
    """
    body = [*fields, *how] if any(how) else fields
    return hashlib.sha256(previous.encode("ascii") + b"\n" + orjson.dumps(body)).hexdigest()


def refuse_foreign(database: Database, operation: Operation) -> None:
    """Models of a followed source are changed where they are, not here. Raises Conflict."""
    for name in (operation.get("name"), operation.get("to")):
        rows = database.execute("SELECT source FROM registered_model WHERE name = ?", (str(name),))
        if rows and rows[0][0]:
            raise Conflict(
                f"The model '{name}' belongs to {rows[0][0]}, which is only followed. Change it there, or register its files here"
                " under another name."
            )


OPERATIONS: dict[str, Callable[[Database, Operation, dict[str, Any]], Operation]] = {
    "create_model": _create_model,
    "delete_model": _delete_model,
    "put_model": _put_model,
    "rename_model": _rename_model,
    "register": _register,
    "delete_version": _delete_version,
    "put_version": _put_version,
    "stage": _stage,
    "alias": _set_alias,
    "model_field": _set_field,
    "model_tag": _set_tag,
    "request": _request,
    "answer": _answer,
}

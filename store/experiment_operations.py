"""The parts of decisions about experiments and logged models: what each does to the rows, and its inverse.

Experiments are named, not numbered, in what is written down: numbers are given again when a database is rebuilt.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import orjson

from mltrack.store.database import Database
from mltrack.store.errors import Conflict, ExperimentNotFound
from mltrack.store.experiments import experiment_for

Operation: TypeAlias = dict[str, Any]
MODEL_FIELDS = ("run_id", "name", "status", "model_type", "created_ms", "updated_ms", "deleted_ms")


def named_experiment(database: Database, operation: Operation) -> int:
    """The row number of the experiment that ``operation`` names; an active one before a deleted one."""
    rows = database.execute(
        "SELECT id FROM experiment WHERE name = ? ORDER BY lifecycle", (operation["name"],)
    )
    if not rows:
        raise ExperimentNotFound(f"There is no experiment '{operation['name']}'.")
    return int(rows[0][0])


def _make(database: Database, operation: Operation, record: dict[str, Any]) -> Operation:
    """Make an experiment; its number is the wanted one where that is free."""
    name, at, wanted = str(operation["name"]), int(record["time"]), operation.get("id")
    if database.execute("SELECT 1 FROM experiment WHERE name = ?", (name,)):
        raise Conflict(f"There is an experiment '{name}' already.")
    free = wanted is not None and not database.execute("SELECT 1 FROM experiment WHERE id = ?", (wanted,))
    columns, marks = ("id, ", "?, ") if free else ("", "")
    database.execute(
        f"INSERT INTO experiment ({columns}name, location, created_ms, updated_ms) VALUES ({marks}?, ?, ?, ?)",
        (*([wanted] if free else []), name, str(operation.get("location", "")), at, at),
    )
    if free and database.kind == "postgresql":
        database.execute(
            "SELECT setval(pg_get_serial_sequence('experiment', 'id'), greatest(1, (SELECT max(id) FROM experiment)))"
        )
    database.next_seq()
    return {"op": "experiment_lifecycle", "name": name, "lifecycle": "deleted"}


def _lifecycle(database: Database, operation: Operation, record: dict[str, Any]) -> Operation:
    key, wanted, at = named_experiment(database, operation), str(operation["lifecycle"]), int(record["time"])
    old = str(database.execute("SELECT lifecycle FROM experiment WHERE id = ?", (key,))[0][0])
    database.execute(
        "UPDATE experiment SET lifecycle = ?, deleted_ms = ?, updated_ms = ? WHERE id = ?",
        (wanted, at if wanted == "deleted" else None, at, key),
    )
    database.next_seq()
    return {"op": "experiment_lifecycle", "name": operation["name"], "lifecycle": old}


def _tag(database: Database, operation: Operation, record: dict[str, Any]) -> Operation:
    """Set a tag of an experiment; value None removes it."""
    experiment, key, value = named_experiment(database, operation), str(operation["key"]), operation["value"]
    rows = database.execute(
        "SELECT value FROM experiment_tag WHERE experiment_id = ? AND key = ?", (experiment, key)
    )
    if value is None:
        database.execute("DELETE FROM experiment_tag WHERE experiment_id = ? AND key = ?", (experiment, key))
    else:
        database.execute(
            "INSERT INTO experiment_tag (experiment_id, key, value) VALUES (?, ?, ?)"
            " ON CONFLICT (experiment_id, key) DO UPDATE SET value = excluded.value",
            (experiment, key, str(value)),
        )
    database.next_seq()
    return {**operation, "value": str(rows[0][0]) if rows else None}


def _logged_model(database: Database, operation: Operation, record: dict[str, Any]) -> Operation:
    """Write the row of a logged model whole; without ``row`` it goes."""
    model_id = str(operation["model"])
    inverse: Operation = {"op": "logged_model", "model": model_id, "row": None}
    rows = database.execute(
        f"SELECT e.name, m.detail, {', '.join('m.' + name for name in MODEL_FIELDS)} FROM logged_model m"
        " JOIN experiment e ON e.id = m.experiment_id WHERE m.model_id = ?",
        (model_id,),
    )
    if rows:
        experiment, detail, *values = rows[0]
        inverse["row"] = {
            "experiment": experiment,
            "detail": orjson.loads(detail),
            **dict(zip(MODEL_FIELDS, values, strict=True)),
        }
    database.execute("DELETE FROM logged_model WHERE model_id = ?", (model_id,))
    row = operation["row"]
    if row is not None:
        database.execute(
            f"INSERT INTO logged_model (model_id, experiment_id, detail, {', '.join(MODEL_FIELDS)})"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                model_id,
                experiment_for(database, str(row["experiment"]), int(record["time"])),
                orjson.dumps(row["detail"]).decode(),
                *(row[name] for name in MODEL_FIELDS),
            ),
        )
    return inverse


OPERATIONS: dict[str, Callable[[Database, Operation, dict[str, Any]], Operation]] = {
    "make_experiment": _make,
    "experiment_lifecycle": _lifecycle,
    "experiment_tag": _tag,
    "logged_model": _logged_model,
}

"""What a source has beside runs: tags of experiments, and registered models, which stay the source's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from mltrack.store.database import Database
from mltrack.store.experiments import experiment_for
from mltrack.store.sources.base import Catalogue, LoggedModel, ModelRow

_NOTE = "mlflow.note.content"


def fold_catalogue(
    database: Database, source: str, found: Catalogue, is_gone: Callable[[str], bool]
) -> list[str]:
    """Make the rows what the source says. Returns sentences about what could not be taken. Inside a transaction.

    ``is_gone``: whether a source cannot be read any more, so that another may take over what was its own.
    """
    trouble = list(found.damaged)
    for name, tags in found.experiments.items():
        rows = database.execute(
            "SELECT id, note FROM experiment WHERE name = ? AND lifecycle = 'active'", (name,)
        )
        if not rows:
            continue  # none of its runs is in yet; the next change brings it
        experiment, note = int(rows[0][0]), str(rows[0][1])
        for key, value in tags.items():
            database.execute(
                "INSERT INTO experiment_tag (experiment_id, key, value) VALUES (?, ?, ?) ON CONFLICT (experiment_id, key)"
                " DO UPDATE SET value = excluded.value",
                (experiment, key, value),
            )
        if tags.get(_NOTE) and not note:
            database.execute("UPDATE experiment SET note = ? WHERE id = ?", (tags[_NOTE], experiment))
    trouble += _models(database, source, found.models, is_gone)
    database.next_seq()
    return trouble


def fold_logged_model(
    database: Database, source: str, model: LoggedModel, is_gone: Callable[[str], bool]
) -> None:
    """Make the rows of a logged model what its source says, unless it is another's. Inside a transaction."""
    rows = database.execute("SELECT detail FROM logged_model WHERE model_id = ?", (model.model_id,))
    if rows:
        owner = str(orjson.loads(rows[0][0]).get("source", ""))
        if owner != source and not (owner and is_gone(owner)):
            return
    _forget_logged(database, model.model_id)
    if not model.deleted:
        detail = {
            "params": dict(model.params),
            "tags": dict(model.tags),
            "source": source,
            "where": model.location,
        }
        experiment = experiment_for(database, model.experiment, model.created_ms)
        database.execute(
            "INSERT INTO logged_model (model_id, experiment_id, run_id, name, status, model_type, created_ms, updated_ms, detail)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                model.model_id,
                experiment,
                model.run_id,
                model.name,
                model.status,
                model.model_type,
                model.created_ms,
                model.updated_ms,
                orjson.dumps(detail).decode(),
            ),
        )
        runs: dict[str, list[tuple[Any, ...]]] = {}
        for run_id, key, step, time_ms, value, name, digest in model.metrics:
            runs.setdefault(run_id, []).append((key, name, digest, step, time_ms, number_text(value)))
        for run_id, points in runs.items():
            for (run,) in database.execute("SELECT id FROM run WHERE run_id = ?", (run_id,)):
                database.execute_many(
                    "INSERT INTO model_metric (run, model_id, key, dataset_name, dataset_digest, step, time_ms, value)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                    [(run, model.model_id, *point) for point in points],
                )
    database.next_seq()


def number_text(value: float) -> str:
    """A metric of a logged model as its column holds it."""
    if math.isnan(value):
        return "NaN"
    return repr(value) if math.isfinite(value) else "Infinity" if value > 0 else "-Infinity"


def _forget_logged(database: Database, model_id: str) -> None:
    for table in ("model_metric", "logged_model"):
        database.execute(f"DELETE FROM {table} WHERE model_id = ?", (model_id,))


def forget_models(database: Database, source: str) -> None:
    """Models of a source that is not shown any more. Inside a transaction."""
    for model, detail in database.execute("SELECT model_id, detail FROM logged_model"):
        if orjson.loads(detail).get("source") == source:
            _forget_logged(database, str(model))
    for (name,) in database.execute("SELECT name FROM registered_model WHERE source = ?", (source,)):
        _remove(database, str(name))


def _models(
    database: Database, source: str, rows: Sequence[ModelRow], is_gone: Callable[[str], bool]
) -> list[str]:
    by_name: dict[str, list[ModelRow]] = {}
    for row in rows:
        by_name.setdefault(row.name, []).append(row)
    owners: dict[str, str] = dict(database.execute("SELECT name, source FROM registered_model"))
    for name, owner in owners.items():
        if owner == source and name not in by_name:
            _remove(database, str(name))
    trouble: list[str] = []
    for name, mine in by_name.items():
        other = owners.get(name)
        if other is not None and other != source and not (other and is_gone(other)):
            held = f"one of {other}" if other else "one of this store"
            trouble.append(f"the model '{name}' is not shown: there is {held} with that name")
            continue
        _remove(database, name)
        _write(database, source, name, mine)
    return trouble


def _remove(database: Database, name: str) -> None:
    for table in ("model_version", "model_tag", "model_alias", "registered_model"):
        database.execute(f"DELETE FROM {table} WHERE name = ?", (name,))


def _write(database: Database, source: str, name: str, rows: list[ModelRow]) -> None:
    last = max(row.version for row in rows)
    for row in rows:
        if row.version == 0:
            database.execute(
                "INSERT INTO registered_model (name, description, created_ms, updated_ms, last_version, source)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (name, row.description, row.created_ms, row.updated_ms, last, source),
            )
        else:
            database.execute(
                "INSERT INTO model_version (name, version, stage, source, run_id, description, actor, created_ms, updated_ms,"
                " staged_ms, staged_by) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    name,
                    row.version,
                    row.stage,
                    row.location,
                    row.run_id,
                    row.description,
                    row.actor,
                    row.created_ms,
                    row.updated_ms,
                    row.updated_ms,
                    row.actor,
                ),
            )
        database.execute_many(
            "INSERT INTO model_tag (name, version, key, value) VALUES (?, ?, ?, ?)",
            [(name, row.version, key, value) for key, value in row.tags.items()],
        )
        database.execute_many(
            "INSERT INTO model_alias (name, alias, version) VALUES (?, ?, ?) ON CONFLICT (name, alias) DO NOTHING",
            [(name, alias, row.version) for alias in row.aliases],
        )

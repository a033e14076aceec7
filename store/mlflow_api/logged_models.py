"""logged-models/*: models as things of their own, which 3.x clients need even for listing artifacts."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import orjson

from mltrack.store.client.journal import random_hex
from mltrack.store.experiment_operations import MODEL_FIELDS
from mltrack.store.mlflow_api import artifacts
from mltrack.store.mlflow_api.api import Answer, Api, below
from mltrack.store.mlflow_api.entity_search import Entity, paged, search
from mltrack.store.mlflow_api.validate import check_count
from mltrack.store.mlflow_api.wire import Fields, filled, invalid, missing, number_out
from mltrack.store.runs import followed_place

PENDING, READY, FAILED = "LOGGED_MODEL_PENDING", "LOGGED_MODEL_READY", "LOGGED_MODEL_UPLOAD_FAILED"
_STATUSES = {"1": PENDING, "2": READY, "3": FAILED, "PENDING": PENDING, "READY": READY, "FAILED": FAILED}
_KINDS = {
    "name": "text",
    "model_id": "text",
    "experiment_id": "text",
    "model_type": "text",
    "status": "text",
    "source_run_id": "text",
    "creation_timestamp": "number",
    "creation_time": "number",
    "last_updated_timestamp": "number",
    "last_updated_time": "number",
}
_VERSIONS_TAG = "mlflow.modelVersions"
Row = dict[str, Any]


def _rows(api: Api, condition: str, *values: object) -> list[Row]:
    names = ("model_id", "experiment_id", "detail", *MODEL_FIELDS)
    found = api.database.execute(
        f"SELECT {', '.join(names)} FROM logged_model WHERE {condition} ORDER BY created_ms, model_id", values
    )
    rows: list[Row] = [dict(zip(names, row, strict=True)) for row in found]
    for row in rows:
        row["detail"] = orjson.loads(row["detail"])
    return rows


def _row(api: Api, model_id: str, deleted: bool = False) -> Row:
    """A logged model; one that was deleted only when ``deleted``."""
    found = _rows(api, "model_id = ?" + ("" if deleted else " AND deleted_ms IS NULL"), model_id)
    if not found:
        raise missing(f"Logged model with ID '{model_id[:80]}' not found.")
    return found[0]


def _save(api: Api, row: Row, sentence: str, touched: bool = False) -> Row:
    """``touched``: it counts as an update of the model; tags and params do not."""
    if touched:
        row["updated_ms"] = max(api.now_ms(), int(row["updated_ms"]))
    experiment = api.experiments()[int(row["experiment_id"])].name
    written = {
        "experiment": experiment,
        "detail": row["detail"],
        **{name: row[name] for name in MODEL_FIELDS},
    }
    api.decide([{"op": "logged_model", "model": row["model_id"], "row": written}], sentence)
    return row


def _metrics(api: Api, model_id: str) -> list[Answer]:
    api.writers.fold_all()  # any run may have logged some of them
    rows = api.database.execute(
        "SELECT m.key, m.value, m.time_ms, m.step, r.run_id, m.dataset_name, m.dataset_digest FROM model_metric m"
        " JOIN run r ON r.id = m.run WHERE m.model_id = ? ORDER BY m.key, m.time_ms, m.step",
        (model_id,),
    )
    return [
        filled(
            key=key,
            value=number_out(float(value)),
            timestamp=int(time_ms),
            step=int(step),
            run_id=run_id,
            model_id=model_id,
            dataset_name=name or None,
            dataset_digest=digest or None,
        )
        for key, value, time_ms, step, run_id, name, digest in rows
    ]


def shown(api: Api, row: Row) -> Answer:
    """A logged model as MLflow's clients know it."""
    detail = row["detail"]
    versions = api.database.execute(
        "SELECT name, version FROM model_version WHERE source = ? OR source = ?",
        (f"models:/{row['model_id']}", _uri(api, row)),
    )
    info = filled(
        model_id=row["model_id"],
        experiment_id=str(row["experiment_id"]),
        name=row["name"],
        creation_timestamp_ms=int(row["created_ms"]),
        last_updated_timestamp_ms=int(row["updated_ms"]),
        artifact_uri=_uri(api, row),
        status=row["status"],
        model_type=row["model_type"],
        source_run_id=row["run_id"],
        tags=[{"key": key, "value": value} for key, value in detail.get("tags", {}).items()],
        registrations=[{"name": name, "version": str(version)} for name, version in versions],
    )
    data = filled(
        params=[{"key": key, "value": value} for key, value in detail.get("params", {}).items()],
        metrics=_metrics(api, row["model_id"]),
    )
    return {"info": info, "data": data}


def _uri(api: Api, row: Row) -> str:
    theirs = followed_place(api.database, f"models:/{row['model_id']}")
    if theirs is not None:
        return theirs.as_uri()
    experiment = api.experiments()[int(row["experiment_id"])]
    return below(experiment, f"models/{row['model_id']}/artifacts")


def create(api: Api, fields: Fields) -> Answer:
    experiment = api.experiment(fields.needed("experiment_id"))
    if experiment.lifecycle != "active":
        raise invalid(
            f"The experiment {experiment.id} must be in the 'active' state. Current state is deleted."
        )
    name = fields.text("name") or f"model-{random_hex(8)}"
    if any(character in name for character in "/:.%\"'"):
        raise invalid(
            f"Invalid model name ('{name[:200]}') provided. Model name must be a non-empty string and cannot contain the"
            " following characters: ('/', ':', '.', '%', '\"', \"'\")"
        )
    source_run = fields.text("source_run_id")
    now = api.now_ms()
    row: Row = {
        "model_id": f"m-{random_hex(32)}",
        "experiment_id": experiment.id,
        "detail": {"params": fields.pairs("params"), "tags": fields.pairs("tags")},
        "run_id": source_run,
        "name": name,
        "status": PENDING,
        "model_type": fields.text("model_type"),
        "created_ms": now,
        "updated_ms": now,
        "deleted_ms": None,
    }
    return {"model": shown(api, _save(api, row, f"Logged the model {name}"))}


def get(api: Api, fields: Fields) -> Answer:
    row = _row(api, fields.text("model_id"), fields.flag("allow_deleted"))
    return {"model": shown(api, row)}


def finalize(api: Api, fields: Fields) -> Answer:
    fields.need("status")
    row = _row(api, fields.text("model_id"), deleted=True)
    status = str(fields.values["status"])
    status = _STATUSES.get(status, status)
    if status not in (PENDING, READY, FAILED):
        raise invalid(f"Invalid value '{status[:80]}' for parameter 'status' supplied.")
    row["status"] = status
    return {"model": shown(api, _save(api, row, f"The model {row['name']} is {status}", touched=True))}


def delete(api: Api, fields: Fields) -> Answer:
    row = _row(api, fields.text("model_id"), deleted=True)
    row["deleted_ms"] = api.now_ms()
    _save(api, row, f"Deleted the logged model {row['name']}", touched=True)
    return {}


def set_tags(api: Api, fields: Fields) -> Answer:
    row = _row(api, fields.text("model_id"), deleted=True)
    row["detail"]["tags"] = {**row["detail"].get("tags", {}), **fields.pairs("tags")}
    return {"model": shown(api, _save(api, row, f"Tagged the logged model {row['name']}"))}


def note_registered(api: Api, model_id: str, name: str, version: int) -> None:
    """Write into a logged model's tag which versions were made of it, as MLflow's server does."""
    row = _row(api, model_id)
    tags = row["detail"].setdefault("tags", {})
    try:
        before = json.loads(tags.get(_VERSIONS_TAG, "[]"))
    except ValueError:
        before = []
    listed = [*before, {"name": name, "version": version}] if isinstance(before, list) else []
    tags[_VERSIONS_TAG] = json.dumps(listed)
    _save(api, row, f"Registered the logged model {row['name']}")


def delete_tag(api: Api, fields: Fields) -> Answer:
    row, key = _row(api, fields.text("model_id"), deleted=True), fields.text("tag_key")
    if row["detail"].get("tags", {}).pop(key, None) is None:
        raise missing(f"No tag with key '{key[:200]}' found for model with ID '{row['model_id']}'.")
    _save(api, row, f"Removed a tag of the logged model {row['name']}")
    return {}


def log_params(api: Api, fields: Fields) -> Answer:
    row, params = _row(api, fields.text("model_id")), fields.pairs("params")
    known = row["detail"].get("params", {})
    for key, value in params.items():
        if known.get(key, value) != value:
            raise invalid(
                f"Changing param values is not allowed. The model {row['model_id']} has '{key[:200]}' already."
            )
    row["detail"]["params"] = {**known, **params}
    _save(api, row, f"Logged params of the model {row['name']}")
    return {}


def search_models(api: Api, fields: Fields) -> Answer:
    most = check_count("max_results", fields.whole("max_results") or 100, 1000)
    if fields.values.get("experiment_ids") is None:
        fields.need("experiment_ids")
    experiments = api.searched(fields.texts("experiment_ids"))
    wanted = {
        (item.needed("dataset_name"), item.text("dataset_digest")) for item in fields.objects("datasets")
    }
    entities: list[Entity] = []
    for row in _rows(api, "deleted_ms IS NULL"):
        if int(row["experiment_id"]) not in experiments:
            continue
        created, updated = int(row["created_ms"]), int(row["updated_ms"])
        attributes = {
            "name": row["name"],
            "model_id": row["model_id"],
            "experiment_id": str(row["experiment_id"]),
            "model_type": row["model_type"],
            "status": str(row["status"]).removeprefix("LOGGED_MODEL_"),
            "source_run_id": row["run_id"],
            "creation_timestamp": created,
            "creation_time": created,
            "last_updated_timestamp": updated,
            "last_updated_time": updated,
        }
        logged = _metrics(api, row["model_id"])
        seen = [entry for entry in logged if not wanted or any(_is_of(entry, *each) for each in wanted)]
        if wanted and not seen:
            continue
        metrics: dict[str, list[float]] = {}
        for entry in seen:
            metrics.setdefault(entry["key"], []).append(float(entry["value"]))
        row["logged"] = logged
        detail = row["detail"]
        entities.append(Entity(row, attributes, detail.get("tags", {}), detail.get("params", {}), metrics))
    found = search(
        entities,
        fields.text("filter"),
        (),
        _KINDS,
        default=(("creation_timestamp", True), ("model_id", False)),
        everything=True,
    )
    for rank in reversed([_rank(item) for item in fields.objects("order_by")]):
        found.sort(key=rank)
    asked = {
        "Experiment IDs": fields.texts("experiment_ids"),
        "Filter string": fields.text("filter"),
        "Order by": [dict(item.values) for item in fields.objects("order_by")],
    }
    page, token = paged(found, most, fields.text("page_token"), asked)
    return filled(models=[shown(api, entity.row) for entity in page], next_page_token=token)


def _is_of(entry: Answer, name: str, digest: str) -> bool:
    """Whether a metric was logged of this data set."""
    return (not name or entry.get("dataset_name", "") == name) and (
        not digest or entry.get("dataset_digest", "") == digest
    )


def _rank(item: Fields) -> Callable[[Entity], tuple[int, Any]]:
    """What one entry of `order_by` sorts by: an attribute, or the newest value of a metric (of a data set). Models without it
    come last, both ways."""
    name, descending = item.needed("field_name"), not item.flag("ascending", True)
    kind, dot, key = name.partition(".")
    if dot and kind not in ("metric", "metrics"):
        raise invalid(f"Invalid order by field name: {name[:200]}. Only metrics are supported.")
    if not dot and name not in _KINDS:
        raise invalid(f"Invalid order by field name: {name[:200]}")
    key, of = key.strip('`"'), (item.text("dataset_name"), item.text("dataset_digest"))

    def of_attribute(entity: Entity) -> tuple[int, Any]:
        value = entity.attributes[name]
        return 0, _Backwards(value) if descending else value

    def of_metric(entity: Entity) -> tuple[int, Any]:
        logged = [entry for entry in entity.row["logged"] if entry["key"] == key and _is_of(entry, *of)]
        if not logged:
            return 2, 0.0
        newest = max(logged, key=lambda entry: (entry["timestamp"], entry["step"]))
        value = float(newest["value"])
        return (1, 0.0) if value != value else (0, -value if descending else value)

    return of_metric if dot else of_attribute


class _Backwards:
    """Sorts the other way round."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __lt__(self, other: _Backwards) -> bool:
        return bool(other.value < self.value)


def directories(api: Api, fields: Fields) -> Answer:
    """Files of a logged model, paths relative to its folder."""
    row = _row(api, fields.text("model_id"))
    names = artifacts.split(fields.text("artifact_directory_path"))
    target = artifacts.Place(artifacts.model_folder(api, row["model_id"]), names)
    before = "/".join(names) + "/" if names else ""
    return filled(root_uri=_uri(api, row), files=artifacts.listed(api, target, before))


def files_of(api: Api, model_id: str) -> str:
    """The folder of a logged model's files."""
    return os.fspath(artifacts.model_folder(api, model_id))


ROUTES = {
    ("POST", "logged-models"): create,
    ("POST", "logged-models/search"): search_models,
    ("GET", "logged-models/{model_id}"): get,
    ("PATCH", "logged-models/{model_id}"): finalize,
    ("DELETE", "logged-models/{model_id}"): delete,
    ("PATCH", "logged-models/{model_id}/tags"): set_tags,
    ("DELETE", "logged-models/{model_id}/tags/{tag_key}"): delete_tag,
    ("POST", "logged-models/{model_id}/params"): log_params,
    ("GET", "logged-models/{model_id}/artifacts/directories"): directories,
}

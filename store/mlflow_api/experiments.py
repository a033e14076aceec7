"""experiments/*."""

from __future__ import annotations

import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from mltrack.store.mlflow_api.api import Answer, Api, ExperimentRow
from mltrack.store.mlflow_api.entity_search import Entity, paged, search
from mltrack.store.mlflow_api.validate import (
    check_count,
    check_experiment_name,
    check_key,
    check_length,
    check_name,
)
from mltrack.store.mlflow_api.wire import ApiError, Fields, filled, invalid, missing

SEARCH_MOST = 50_000
TAG_CHARACTERS = 20_000
_FILTERS = {
    "name": "text",
    "experiment_id": "text",
    "creation_time": "number",
    "last_update_time": "number",
}
_VIEWS = {
    "": ("active",),
    "ACTIVE_ONLY": ("active",),
    "DELETED_ONLY": ("deleted",),
    "ALL": ("active", "deleted"),
}
# Enumerations of protobuf may come as their numbers.
_VIEW_NUMBERS = {1: "ACTIVE_ONLY", 2: "DELETED_ONLY", 3: "ALL"}


def view(fields: Fields, name: str = "view_type") -> tuple[str, ...]:
    """The life cycles that a request wants to see."""
    number = fields.values.get(name)
    wanted = _VIEW_NUMBERS.get(number, "") if type(number) is int else fields.text(name)
    if wanted not in _VIEWS:
        raise invalid(
            f"Invalid value '{wanted[:80]}' for parameter '{name}': use ACTIVE_ONLY, DELETED_ONLY or ALL."
        )
    return _VIEWS[wanted]


def shown(api: Api, row: ExperimentRow, tags: Mapping[str, str] | None = None) -> Answer:
    """An experiment as MLflow's clients know it."""
    if tags is None:
        tags = tags_of(api, row.id)
    return filled(
        experiment_id=str(row.id),
        name=row.name,
        artifact_location=row.artifact_location,
        lifecycle_stage=row.lifecycle,
        creation_time=row.created_ms,
        last_update_time=row.updated_ms,
        tags=[{"key": key, "value": value} for key, value in tags.items()],
    )


def tags_of(api: Api, experiment: int) -> dict[str, str]:
    """Tags of one experiment."""
    rows = api.database.execute(
        "SELECT key, value FROM experiment_tag WHERE experiment_id = ? ORDER BY key", (experiment,)
    )
    return {str(key): str(value) for key, value in rows}


def create(api: Api, fields: Fields) -> Answer:
    name = check_experiment_name(fields.needed("name"))
    location = _location(fields.text("artifact_location"))
    tags = {
        check_name("tag", key): check_length("value", value, TAG_CHARACTERS)
        for key, value in fields.pairs("tags").items()
    }
    existing = api.experiment_named(name)
    if existing is not None:
        deleted = (
            ""
            if existing.lifecycle == "active"
            else " It is deleted: restore it, or delete it for good first."
        )
        raise ApiError("RESOURCE_ALREADY_EXISTS", f"Experiment(name={name}) already exists.{deleted}")
    operations = [{"op": "make_experiment", "name": name, "location": location}]
    operations += [{"op": "experiment_tag", "name": name, "key": key, "value": tags[key]} for key in tags]
    api.decide(operations, f"Made the experiment {name}")
    made = api.experiment_named(name)
    assert made is not None
    return {"experiment_id": str(made.id)}


def _location(text: str) -> str:
    """Where clients are to put artifacts, told to them as it is; a path without a root gets the server's folder, as MLflow's does.
    Nothing is ever opened here for it."""
    parts = urlsplit(text)
    if parts.fragment or ".." in parts.query:
        raise invalid(
            f"Invalid artifact location '{text[:200]}': it may have no fragment, and no '..' in its query."
        )
    if not text or parts.path.startswith("/") or parts.scheme not in ("", "file") or parts.netloc:
        return text
    if not parts.scheme:
        return f"{os.getcwd()}/{text}"
    return f"file://{os.getcwd()}/{text.removeprefix('file:')}"


def get(api: Api, fields: Fields) -> Answer:
    return {"experiment": shown(api, api.experiment(fields.needed("experiment_id")))}


def get_by_name(api: Api, fields: Fields) -> Answer:
    name = fields.needed("experiment_name")
    found = api.experiment_named(name)
    if found is None:
        raise missing(f"Could not find experiment with name '{name[:200]}'")
    return {"experiment": shown(api, found)}


def search_experiments(api: Api, fields: Fields) -> Answer:
    most = check_count("max_results", fields.whole("max_results", 0), SEARCH_MOST)
    lifecycles = view(fields)
    tags: dict[int, dict[str, str]] = {}
    for experiment, key, value in api.database.execute(
        "SELECT experiment_id, key, value FROM experiment_tag ORDER BY key"
    ):
        tags.setdefault(int(experiment), {})[str(key)] = str(value)
    entities = [
        Entity(
            row,
            {
                "name": row.name,
                "experiment_id": str(row.id),
                "creation_time": row.created_ms,
                "last_update_time": row.updated_ms,
            },
            tags.get(row.id, {}),
        )
        for row in api.experiments().values()
        if row.lifecycle in lifecycles
    ]
    found = search(
        entities,
        fields.text("filter"),
        fields.texts("order_by"),
        _FILTERS,
        default=(("creation_time", True), ("experiment_id", False)),
        aliases={"id": "experiment_id"},
        lists=frozenset(("experiment_id",)),
        nulls=False,
        twice=True,
    )
    page, token = paged(found, most, fields.text("page_token"))
    return filled(experiments=[shown(api, entity.row, entity.tags) for entity in page], next_page_token=token)


def update(api: Api, fields: Fields) -> Answer:
    name = fields.needed("new_name")
    row = api.experiment(fields.needed("experiment_id"))
    if row.lifecycle != "active":
        raise invalid(f"Cannot rename the experiment {row.id}: it is not active.")
    if name != row.name:
        check_experiment_name(name)
        if api.experiment_named(name) is not None:
            raise ApiError("RESOURCE_ALREADY_EXISTS", f"Experiment(name={name}) already exists.")
        api.decide(
            [{"op": "rename_experiment", "name": row.name, "to": name}], f"Renamed {row.name} to {name}"
        )
    return {}


def delete(api: Api, fields: Fields) -> Answer:
    return _lifecycle(api, fields, "active", "deleted")


def restore(api: Api, fields: Fields) -> Answer:
    return _lifecycle(api, fields, "deleted", "active")


def _lifecycle(api: Api, fields: Fields, now: str, wanted: str) -> Answer:
    """Move an experiment and its runs into the trash, or out of it."""
    row = api.experiment(fields.needed("experiment_id"))
    if row.lifecycle != now:
        raise missing(f"No Experiment with id={row.id} exists in the {now} state.")
    api.writers.fold_all()
    before = "active" if now == "active" else "trash"
    runs = api.database.execute(
        "SELECT run_id FROM run WHERE experiment_id = ? AND lifecycle = ?", (row.id, before)
    )
    value = "trash" if wanted == "deleted" else None
    operations: list[dict[str, object]] = [
        {"op": "experiment_lifecycle", "name": row.name, "lifecycle": wanted}
    ]
    operations += [{"op": "field", "run": run, "field": "lifecycle", "value": value} for (run,) in runs]
    api.decide(operations, f"{'Deleted' if value else 'Restored'} the experiment {row.name}")
    return {}


def _require_active(row: ExperimentRow) -> None:
    if row.lifecycle != "active":
        raise invalid(
            f"The experiment {row.id} must be in the 'active' state. Current state is {row.lifecycle}."
        )


def set_tag(api: Api, fields: Fields) -> Answer:
    fields.need("experiment_id", "key")
    row = api.experiment(fields.needed("experiment_id"))
    key = check_key("tag", fields.needed("key"))
    value = check_length("value", fields.text("value"), TAG_CHARACTERS)
    _require_active(row)
    operation = {"op": "experiment_tag", "name": row.name, "key": key, "value": value}
    api.decide([operation], f"Tagged the experiment {row.name}")
    return {}


def delete_tag(api: Api, fields: Fields) -> Answer:
    fields.need("experiment_id", "key")
    row, key = api.experiment(fields.needed("experiment_id")), fields.needed("key")
    _require_active(row)
    if key not in tags_of(api, row.id):
        raise missing(f"No tag with name: {key[:200]} in experiment with id {row.id}")
    operation = {"op": "experiment_tag", "name": row.name, "key": key, "value": None}
    api.decide([operation], f"Removed a tag of the experiment {row.name}")
    return {}


ROUTES = {
    ("POST", "experiments/create"): create,
    ("GET", "experiments/get"): get,
    ("GET", "experiments/get-by-name"): get_by_name,
    ("POST", "experiments/search"): search_experiments,
    ("GET", "experiments/search"): search_experiments,
    ("POST", "experiments/update"): update,
    ("POST", "experiments/delete"): delete,
    ("POST", "experiments/restore"): restore,
    ("POST", "experiments/set-experiment-tag"): set_tag,
    ("POST", "experiments/delete-experiment-tag"): delete_tag,
}

"""What each route needs: one table over all of them. A route that does not stand here is for nobody.

A need is a role on everything that the request names. What does not exist is treated as the store, so that nobody learns by
asking what there is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from mltrack.store.access import Scope
from mltrack.store.identity import STORE
from mltrack.store.mlflow_api import artifacts
from mltrack.store.mlflow_api.api import Api
from mltrack.store.mlflow_api.wire import ApiError, Fields

VIEWER, EDITOR, MANAGER = "viewer", "editor", "manager"
_WHOLE_STORE = Scope(STORE)
Named = Callable[[Api, Fields], Iterator[tuple[str, Scope]]]
_IN_SOURCE = re.compile(r"(?<![0-9a-f])(m-)?([0-9a-f]{32})(?![0-9a-f])")


@dataclass(frozen=True, slots=True)
class Need:
    """Roles on what a request names. ``listed``: the field of its answer that only shows what the asker may see, and how a
    thing in it is called."""

    named: Named
    changes: bool
    listed: tuple[str, Callable[[Any], Scope]] | None = None


def _nothing(api: Api, fields: Fields) -> Iterator[tuple[str, Scope]]:
    yield from ()


# -- what a request can name


def _experiment(api: Api, number: str) -> Scope:
    try:
        return Scope("experiment", api.experiment(number).name)
    except ApiError:
        return _WHOLE_STORE


def _run(api: Api, run_id: str) -> Scope:
    try:
        return _experiment(api, str(api.run(run_id).experiment_id))
    except ApiError:
        return _WHOLE_STORE


def _logged_model(api: Api, model_id: str) -> Scope:
    rows = api.database.execute("SELECT experiment_id FROM logged_model WHERE model_id = ?", (model_id,))
    return _experiment(api, str(rows[0][0])) if rows else _WHOLE_STORE


def _experiment_of(role: str) -> Named:
    def named(api: Api, fields: Fields) -> Iterator[tuple[str, Scope]]:
        yield role, _experiment(api, fields.text("experiment_id") or "0")
        if fields.text("new_name"):
            yield role, Scope("experiment", fields.text("new_name"))
        if fields.text("source_run_id"):
            yield VIEWER, _run(api, fields.text("source_run_id"))

    return named


def _experiment_by(role: str, field: str) -> Named:
    def named(api: Api, fields: Fields) -> Iterator[tuple[str, Scope]]:
        yield role, Scope("experiment", fields.text(field))

    return named


def _experiments(api: Api, fields: Fields) -> Iterator[tuple[str, Scope]]:
    for number in dict.fromkeys(fields.texts("experiment_ids")):
        yield VIEWER, _experiment(api, number)


def _run_of(role: str) -> Named:
    def named(api: Api, fields: Fields) -> Iterator[tuple[str, Scope]]:
        yield role, _run(api, fields.text("run_id") or fields.text("run_uuid"))
        # What is logged of a run can speak of models of other experiments.
        for entry in (fields, *fields.objects("metrics"), *fields.objects("models")):
            if entry.text("model_id"):
                yield role, _logged_model(api, entry.text("model_id"))

    return named


def _runs_in(field: str) -> Named:
    def named(api: Api, fields: Fields) -> Iterator[tuple[str, Scope]]:
        for run_id in fields.texts(field):
            yield VIEWER, _run(api, run_id)

    return named


def _logged_model_of(role: str) -> Named:
    def named(api: Api, fields: Fields) -> Iterator[tuple[str, Scope]]:
        yield role, _logged_model(api, fields.text("model_id"))

    return named


def _model_of(role: str, new_role: str = EDITOR) -> Named:
    def named(api: Api, fields: Fields) -> Iterator[tuple[str, Scope]]:
        yield role, Scope("model", fields.text("name"))
        if fields.text("new_name"):
            yield new_role, Scope("model", fields.text("new_name"))

    return named


def _new_version(api: Api, fields: Fields) -> Iterator[tuple[str, Scope]]:
    yield EDITOR, Scope("model", fields.text("name"))
    if fields.text("run_id"):
        yield VIEWER, _run(api, fields.text("run_id"))
    if fields.text("model_id"):
        yield VIEWER, _logged_model(api, fields.text("model_id"))
    source = fields.text("source")
    for found in _IN_SOURCE.finditer(source):
        yield VIEWER, _logged_model(api, found[0]) if found[1] else _run(api, found[2])
    # A version of another model has the same files, and whoever may see the new one may read them.
    if source.startswith("models:"):
        text = source.removeprefix("models:").lstrip("/")
        parts = (
            (text.partition("/"), text.rpartition("/"))
            if "/" in text
            else (text.partition("@"), text.rpartition("@"))
        )
        for name in dict.fromkeys(before for before, between, _ in parts if between):
            yield VIEWER, Scope("model", name)


def _in_experiment(entry: Any) -> Scope:
    return Scope("experiment", str(entry["name"]))


def _in_model(entry: Any) -> Scope:
    return Scope("model", str(entry["name"]))


def look(named: Named, listed: tuple[str, Callable[[Any], Scope]] | None = None) -> Need:
    """A route that changes nothing."""
    return Need(named, False, listed)


def change(named: Named) -> Need:
    """A route that changes something, which is written down."""
    return Need(named, True)


_EXPERIMENTS_SHOWN = ("experiments", _in_experiment)

NEEDS: dict[tuple[str, str], Need] = {
    ("POST", "experiments/create"): change(_experiment_by(EDITOR, "name")),
    ("GET", "experiments/get"): look(_experiment_of(VIEWER)),
    ("GET", "experiments/get-by-name"): look(_experiment_by(VIEWER, "experiment_name")),
    ("POST", "experiments/search"): look(_nothing, _EXPERIMENTS_SHOWN),
    ("GET", "experiments/search"): look(_nothing, _EXPERIMENTS_SHOWN),
    ("POST", "experiments/update"): change(_experiment_of(EDITOR)),
    ("POST", "experiments/delete"): change(_experiment_of(MANAGER)),
    ("POST", "experiments/restore"): change(_experiment_of(MANAGER)),
    ("POST", "experiments/set-experiment-tag"): change(_experiment_of(EDITOR)),
    ("POST", "experiments/delete-experiment-tag"): change(_experiment_of(EDITOR)),
    ("POST", "runs/create"): change(_experiment_of(EDITOR)),
    ("GET", "runs/get"): look(_run_of(VIEWER)),
    ("POST", "runs/update"): change(_run_of(EDITOR)),
    ("POST", "runs/delete"): change(_run_of(EDITOR)),
    ("POST", "runs/restore"): change(_run_of(EDITOR)),
    ("POST", "runs/search"): look(_experiments),
    ("POST", "runs/set-tag"): change(_run_of(EDITOR)),
    ("POST", "runs/delete-tag"): change(_run_of(EDITOR)),
    ("POST", "runs/log-metric"): change(_run_of(EDITOR)),
    ("POST", "runs/log-parameter"): change(_run_of(EDITOR)),
    ("POST", "runs/log-batch"): change(_run_of(EDITOR)),
    ("POST", "runs/log-inputs"): change(_run_of(EDITOR)),
    ("POST", "runs/outputs"): change(_run_of(EDITOR)),
    ("POST", "runs/log-model"): change(_run_of(EDITOR)),
    ("GET", "metrics/get-history"): look(_run_of(VIEWER)),
    ("GET", "metrics/get-history-bulk"): look(_runs_in("run_id")),
    ("GET", "metrics/get-history-bulk-interval"): look(_runs_in("run_ids")),
    ("GET", "/get-artifact"): look(_run_of(VIEWER)),
    ("GET", "/model-versions/get-artifact"): look(_model_of(VIEWER)),
    ("POST", "experiments/search-datasets"): look(_experiments),
    ("GET", "artifacts/list"): look(_run_of(VIEWER)),
    ("POST", "logged-models"): change(_experiment_of(EDITOR)),
    ("POST", "logged-models/search"): look(_experiments),
    ("GET", "logged-models/{model_id}"): look(_logged_model_of(VIEWER)),
    ("PATCH", "logged-models/{model_id}"): change(_logged_model_of(EDITOR)),
    ("DELETE", "logged-models/{model_id}"): change(_logged_model_of(EDITOR)),
    ("PATCH", "logged-models/{model_id}/tags"): change(_logged_model_of(EDITOR)),
    ("DELETE", "logged-models/{model_id}/tags/{tag_key}"): change(_logged_model_of(EDITOR)),
    ("POST", "logged-models/{model_id}/params"): change(_logged_model_of(EDITOR)),
    ("GET", "logged-models/{model_id}/artifacts/directories"): look(_logged_model_of(VIEWER)),
    ("POST", "registered-models/create"): change(_model_of(EDITOR)),
    ("GET", "registered-models/get"): look(_model_of(VIEWER)),
    ("PATCH", "registered-models/update"): change(_model_of(EDITOR)),
    ("POST", "registered-models/rename"): change(_model_of(MANAGER)),
    ("DELETE", "registered-models/delete"): change(_model_of(MANAGER)),
    ("GET", "registered-models/search"): look(_nothing, ("registered_models", _in_model)),
    ("POST", "registered-models/get-latest-versions"): look(_model_of(VIEWER)),
    ("GET", "registered-models/get-latest-versions"): look(_model_of(VIEWER)),
    ("POST", "registered-models/set-tag"): change(_model_of(EDITOR)),
    ("DELETE", "registered-models/delete-tag"): change(_model_of(EDITOR)),
    ("POST", "registered-models/alias"): change(_model_of(MANAGER)),
    ("GET", "registered-models/alias"): look(_model_of(VIEWER)),
    ("DELETE", "registered-models/alias"): change(_model_of(MANAGER)),
    ("POST", "model-versions/create"): change(_new_version),
    ("GET", "model-versions/get"): look(_model_of(VIEWER)),
    ("PATCH", "model-versions/update"): change(_model_of(EDITOR)),
    ("DELETE", "model-versions/delete"): change(_model_of(MANAGER)),
    ("POST", "model-versions/transition-stage"): change(_model_of(MANAGER)),
    ("GET", "model-versions/search"): look(_nothing, ("model_versions", _in_model)),
    ("GET", "model-versions/get-download-uri"): look(_model_of(VIEWER)),
    ("POST", "model-versions/set-tag"): change(_model_of(EDITOR)),
    ("DELETE", "model-versions/delete-tag"): change(_model_of(EDITOR)),
}


def file_need(api: Api, method: str, path: str) -> tuple[str, Scope]:
    """What a request about a file needs. The path's own experiment counts for nothing: whose the file is, its run says."""
    role = VIEWER if method in ("GET", "HEAD") else EDITOR
    names = artifacts.split(path)
    if artifacts.place(api, path).run_id:
        return role, _run(api, names[1])
    if len(names) >= 4 and names[1] == "models" and names[3] == "artifacts":
        return role, _logged_model(api, names[2])
    return role, _WHOLE_STORE

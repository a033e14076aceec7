"""What the server takes, as OpenAPI says it: made from its own tables of routes, and from the fields that its handlers read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mltrack.store import mlflow_api
from mltrack.store.mlflow_api.application import FILE_PREFIXES, PREFIXES, ROUTES, UPLOAD, WHO
from mltrack.store.mlflow_api.journals import PREFIX

_READ = re.compile(
    r"\.(text|needed|whole|number|flag|texts|objects|pairs|object)\(\s*\"(\w+)\"|values\.get\(\"(\w+)\"\)"
)
_TEXT: Mapping[str, Any] = {"type": "string", "maxLength": 300}
_PAIRS = {
    "type": "array",
    "maxItems": 4,
    "items": {"type": "object", "properties": {"key": _TEXT, "value": _TEXT}},
}
_TYPES: dict[str, Any] = {
    "whole": {"type": "integer"},
    "number": {"anyOf": [{"type": "number"}, {"enum": ["NaN", "Infinity", "-Infinity", "1e999"]}]},
    "flag": {"type": "boolean"},
    "texts": {"type": "array", "items": _TEXT, "maxItems": 4},
    "pairs": _PAIRS,
    "object": {"type": "object"},
}
_ANSWERS = {"responses": {"default": {"description": "MLflow's answer"}}}


def description(known: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """``known``: texts that name something there, by field, so that requests come further than the first check."""
    fields = _fields(known)
    paths: dict[str, dict[str, Any]] = {}
    for method, route in ROUTES:
        operation: dict[str, Any] = {**_ANSWERS, "parameters": _path_parameters(route, known)}
        if method == "GET":
            operation["parameters"] += [
                {"name": name, "in": "query", "schema": schema}
                for name, schema in fields.items()
                if schema.get("type") != "object"
            ]
        else:
            operation["requestBody"] = {
                "content": {"application/json": {"schema": {"type": "object", "properties": fields}}}
            }
        paths.setdefault(PREFIXES[0] + route, {})[method.lower()] = operation
    for path, methods in _OTHERS.items():
        for method in methods:
            operation = {**_ANSWERS, "parameters": _path_parameters(path, known)}
            names = _QUERIES.get(path, ())
            operation["parameters"] += [
                {"name": name, "in": "query", "schema": fields.get(name, _TEXT)} for name in names
            ]
            if method in ("put", "post"):
                body = {"schema": {"type": "string", "format": "binary"}}
                operation["requestBody"] = {"content": {"application/octet-stream": body}}
            paths.setdefault(path, {})[method] = operation
    info = {"title": "what mltrack server takes", "version": "1"}
    return {"openapi": "3.0.3", "info": info, "paths": paths}


_OTHERS: dict[str, tuple[str, ...]] = {
    FILE_PREFIXES[0]: ("get",),
    FILE_PREFIXES[0] + "/{path}": ("get", "put", "delete"),
    PREFIX + "append/{run_id}/{file}": ("put",),
    PREFIX + "file/{path}": ("put",),
    PREFIX + "state/{path}": ("get",),
    PREFIX + "beat": ("post",),
    UPLOAD: ("post",),
    "/get-artifact": ("get",),
    "/model-versions/get-artifact": ("get",),
    WHO: ("get",),
    "/health": ("get",),
    "/version": ("get",),
    "/api/3.0/mlflow/server-info": ("get",),
}
_QUERIES = {
    FILE_PREFIXES[0]: ("path",),
    PREFIX + "append/{run_id}/{file}": ("offset",),
    UPLOAD: ("run_uuid", "path"),
    "/get-artifact": ("run_uuid", "run_id", "path"),
    "/model-versions/get-artifact": ("name", "version", "path"),
}


def _fields(known: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for file in sorted(Path(str(mlflow_api.__path__[0])).glob("*.py")):
        for how, name, plain in _READ.findall(file.read_text()):
            found.setdefault(name or plain, _TYPES.get(how, _TEXT))
    for name, texts in known.items():
        found[name] = _one_of(texts)
    for name in ("metrics", "params", "datasets", "models", "order_by"):
        inner = {key: schema for key, schema in found.items() if schema.get("type") != "array"}
        items = {
            "type": "object",
            "properties": {**inner, "dataset": {"type": "object", "properties": inner}},
        }
        found[name] = {"type": "array", "maxItems": 3, "items": items}
    for name in ("experiment_ids", "run_ids"):
        found[name] = {"type": "array", "maxItems": 3, "items": _one_of(known[name.removesuffix("s")])}
    return found


def _one_of(texts: Sequence[str]) -> dict[str, Any]:
    return {"anyOf": [{"enum": list(texts)}, _TEXT]}


def _path_parameters(path: str, known: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"enum": list(known.get(name, ("x", "a/b", "..")))},
        }
        for name in re.findall(r"{(\w+)}", path)
    ]

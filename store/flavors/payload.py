"""Requests and answers of MLflow's scoring protocol: JSON or CSV in, predictions out."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from typing import Any

from mltrack.store.flavors.schema import SchemaError, Spec, library

FORMATS = ("dataframe_split", "dataframe_records", "instances", "inputs")
_BESIDE = {"params"}


class PayloadError(ValueError):
    """A request cannot be understood; the message says what is expected."""


def read_json(body: bytes) -> Any:
    """The JSON of a request. Raises PayloadError."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise PayloadError(f"The request is not JSON ({error}).") from None


def parse_request(request: Any, spec: Spec | None) -> tuple[Any, dict[str, Any]]:
    """Data (not held to the signature yet) and params of a request. Raises PayloadError."""
    if not isinstance(request, dict):
        raise PayloadError(f"The request must be an object with one of {', '.join(FORMATS)}.")
    given = [name for name in FORMATS if name in request]
    if len(given) != 1:
        have = "none" if not given else " and ".join(given)
        raise PayloadError(f"The request must have exactly one of {', '.join(FORMATS)}; it has {have}.")
    unknown = set(request) - set(FORMATS) - _BESIDE
    if unknown:
        raise PayloadError(f"The request has {sorted(unknown)[0][:60]!r}, which nobody knows.")
    params = request.get("params") or {}
    if not isinstance(params, dict):
        raise PayloadError("params must be an object.")
    return _data(given[0], request[given[0]], spec), params


def _data(kind: str, value: Any, spec: Spec | None) -> Any:
    if kind == "dataframe_split":
        return _split(value)
    if kind == "dataframe_records":
        if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
            raise PayloadError("dataframe_records must be a list of objects, one for each row.")
        pandas = library("pandas")

        return pandas.DataFrame(value)
    tensors = bool(spec) and spec is not None and spec[0].get("type") == "tensor"
    if kind == "instances":
        return _instances(value, tensors or not spec)
    return _inputs(value, tensors or not spec)


def _split(value: Any) -> Any:
    if not isinstance(value, dict) or not isinstance(value.get("data"), list):
        raise PayloadError("dataframe_split must be an object with columns and data.")
    unknown = set(value) - {"columns", "data", "index"}
    if unknown:
        raise PayloadError(
            f"dataframe_split has {sorted(unknown)[0][:60]!r}; it takes columns, data and index."
        )
    pandas = library("pandas")

    try:
        return pandas.DataFrame(value["data"], columns=value.get("columns"), index=value.get("index"))
    except (ValueError, TypeError, AssertionError) as error:
        raise PayloadError(f"dataframe_split makes no table ({error}).") from None


def _instances(value: Any, arrays: bool) -> Any:
    if not isinstance(value, list):
        raise PayloadError("instances must be a list of rows.")
    if value and all(isinstance(row, dict) for row in value):
        names = set(value[0])
        if any(set(row) != names for row in value):
            raise PayloadError("The rows of instances differ in their names.")
        return _inputs({name: [row[name] for row in value] for name in value[0]}, arrays)
    return _array(value) if arrays else _rows(value)


def _inputs(value: Any, arrays: bool) -> Any:
    if isinstance(value, dict):
        if arrays:
            return {name: _array(column) for name, column in value.items()}
        return value
    return _array(value) if arrays else _rows(value)


def _array(value: Any) -> Any:
    numpy = library("numpy")

    try:
        array = numpy.array(value)
    except ValueError:
        raise PayloadError("The rows differ in length.") from None
    return array


def _rows(value: Any) -> Any:
    pandas = library("pandas")

    try:
        return pandas.DataFrame(value if isinstance(value, list) else [value])
    except (ValueError, TypeError) as error:
        raise PayloadError(f"The rows make no table ({error}).") from None


def parse_csv(body: bytes, spec: Spec | None) -> Any:
    """A table with a heading line. Raises PayloadError."""
    pandas = library("pandas")

    texts = {each["name"]: "str" for each in spec or [] if each.get("type") == "string" and each.get("name")}
    try:
        return pandas.read_csv(io.BytesIO(body), dtype=texts or None)
    except (ValueError, UnicodeDecodeError) as error:
        raise PayloadError(f"The request is not CSV with a heading line ({error}).") from None


def plain(value: Any) -> Any:
    """Predictions as JSON can carry them: tables as rows, arrays as lists, what is no number as null."""
    if hasattr(value, "columns") and hasattr(value, "to_dict"):
        return plain(value.to_dict(orient="records"))
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int | bool):
        return value
    if isinstance(value, bytes):
        import base64

        return base64.b64encode(value).decode("ascii")
    return str(value)


__all__ = ["FORMATS", "PayloadError", "SchemaError", "parse_csv", "parse_request", "plain", "read_json"]

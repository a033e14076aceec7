"""What a model takes and gives: found out from samples, written as MLflow writes it, and held to when the model is asked."""

from __future__ import annotations

import datetime
import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Spec = list[dict[str, Any]]
"""A part of a signature: columns ``{"name", "type", "required"}`` or tensors ``{"type": "tensor", "tensor-spec", "name"?}``."""
_DTYPES = {
    "boolean": "bool",
    "integer": "int32",
    "long": "int64",
    "float": "float32",
    "double": "float64",
    "datetime": "datetime64[ns]",
}
_NUMBERS = ("integer", "long", "float", "double")


def library(name: str) -> Any:
    """numpy or pandas, imported when data needs it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise SchemaError(f"This needs {name}, which is not installed here.") from None


class SchemaError(ValueError):
    """Data is not what the signature says; the message names the column."""


@dataclass(frozen=True)
class ModelSignature:
    """Inputs, outputs and params of a model; a part is None when nobody said."""

    inputs: Spec | None = None
    outputs: Spec | None = None
    params: Spec | None = None

    def to_dict(self) -> dict[str, str | None]:
        """As it stands in an MLmodel file: each part is JSON text."""
        return {
            part: None if value is None else json.dumps(value)
            for part, value in (("inputs", self.inputs), ("outputs", self.outputs), ("params", self.params))
        }

    @classmethod
    def from_dict(cls, stated: Mapping[str, Any]) -> ModelSignature:
        """From an MLmodel file."""
        parts = (stated.get(part) for part in ("inputs", "outputs", "params"))
        return cls(*(json.loads(part) if isinstance(part, str) else part for part in parts))


def infer_signature(
    model_input: Any, model_output: Any = None, params: Mapping[str, Any] | None = None
) -> ModelSignature:
    """The signature of these samples: DataFrames, Series, arrays, dicts of arrays, lists."""
    return ModelSignature(
        None if model_input is None else _infer(model_input),
        None if model_output is None else _infer(model_output),
        [_param(name, value) for name, value in params.items()] if params else None,
    )


def _infer(data: Any) -> Spec:
    if hasattr(data, "columns") and hasattr(data, "dtypes"):
        return [_column(str(name), data[name]) for name in data.columns]
    if hasattr(data, "to_frame"):
        return [_column(None if data.name is None else str(data.name), data)]
    if hasattr(data, "dtype") and hasattr(data, "shape"):
        return [_tensor(data)]
    if isinstance(data, Mapping):
        numpy = library("numpy")

        if all(hasattr(value, "dtype") for value in data.values()):
            return [{**_tensor(numpy.asarray(value)), "name": str(name)} for name, value in data.items()]
        return [
            {
                "type": _type_of_values(value if _is_list(value) else [value]),
                "name": str(name),
                "required": True,
            }
            for name, value in data.items()
        ]
    if _is_list(data):
        if data and isinstance(data[0], Mapping):
            names = dict.fromkeys(str(name) for row in data for name in row)
            return [
                {
                    "type": _type_of_values([row[name] for row in data if row.get(name) is not None]),
                    "name": name,
                    "required": all(row.get(name) is not None for row in data),
                }
                for name in names
            ]
        return [{"type": _type_of_values(data), "required": True}]
    return [{"type": _type_of_values([data]), "required": True}]


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _column(name: str | None, series: Any) -> dict[str, Any]:
    dtype, kind = str(series.dtype), series.dtype.kind
    if kind == "b":
        found = "boolean"
    elif kind in "iu":
        found = "integer" if series.dtype.itemsize < 4 or dtype == "int32" else "long"
    elif kind == "f":
        found = "float" if series.dtype.itemsize <= 4 else "double"
    elif kind == "M":
        found = "datetime"
    else:
        found = _type_of_values(
            [value for value in series.head(1000).tolist() if value is not None and value == value]
        )
    missing = kind not in "biu" and bool(series.isna().any())
    column: dict[str, Any] = {"type": found}
    if name is not None:
        column["name"] = name
    return {**column, "required": not missing}


def _tensor(array: Any) -> dict[str, Any]:
    shape = [-1, *(int(size) for size in array.shape[1:])]
    dtype = "str" if array.dtype.kind == "U" else str(array.dtype)
    return {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": shape}}


def _type_of_values(values: Sequence[Any]) -> str:
    kinds = {type(value) for value in values}
    if kinds and kinds <= {bool}:
        return "boolean"
    if kinds and kinds <= {int}:
        return "long"
    if kinds and kinds <= {int, float}:
        return "double"
    if kinds and kinds <= {bytes, bytearray}:
        return "binary"
    if kinds and all(issubclass(kind, datetime.datetime) for kind in kinds):
        return "datetime"
    return "string"


def _param(name: str, value: Any) -> dict[str, Any]:
    is_list = isinstance(value, list | tuple)
    return {
        "name": name,
        "default": list(value) if is_list else value,
        "shape": [-1] if is_list else None,
        "type": _type_of_values(value if is_list else [value]),
    }


# -- holding to it


def enforce_params(given: Mapping[str, Any], spec: Spec | None) -> dict[str, Any]:
    """Params with their defaults. Raises SchemaError for one of a wrong type; those nobody knows are left out."""
    if spec is None:
        return {}
    found: dict[str, Any] = {}
    for each in spec:
        name, kind = each["name"], str(each.get("type"))
        value = given.get(name, each.get("default"))
        values = value if isinstance(value, list) else [value]
        if value is not None and not all(_fits(item, kind) for item in values):
            raise SchemaError(f"The param {name} must be a {kind}, not {value!r}.")
        found[name] = value
    return found


def _fits(value: Any, kind: str) -> bool:
    if kind in ("integer", "long"):
        return isinstance(value, int) and not isinstance(value, bool)
    if kind in ("float", "double"):
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind == "boolean":
        return isinstance(value, bool)
    return isinstance(value, str) if kind == "string" else True


def enforce(data: Any, spec: Spec | None) -> Any:
    """Data as the model takes it: columns in order and of their types, tensors of their shape. Raises SchemaError."""
    if not spec:
        return data
    if spec[0].get("type") == "tensor":
        return _enforce_tensors(data, spec)
    return _enforce_columns(data, spec)


def _enforce_tensors(data: Any, spec: Spec) -> Any:
    numpy = library("numpy")

    if len(spec) == 1 and not spec[0].get("name"):
        if isinstance(data, Mapping):
            raise SchemaError("The model takes one tensor without a name, not several by name.")
        return _enforce_tensor(data, spec[0], numpy)
    if hasattr(data, "columns"):
        data = {name: data[name].to_numpy() for name in data.columns}
    if not isinstance(data, Mapping):
        raise SchemaError(
            f"The model takes tensors by name: {', '.join(str(each.get('name')) for each in spec)}."
        )
    missing = [str(each["name"]) for each in spec if each["name"] not in data]
    if missing:
        raise SchemaError(f"Missing: {', '.join(missing)}.")
    return {each["name"]: _enforce_tensor(data[each["name"]], each, numpy) for each in spec}


def _enforce_tensor(data: Any, spec: dict[str, Any], numpy: Any) -> Any:
    stated = spec.get("tensor-spec", {})
    name, dtype, shape = (
        str(spec.get("name") or "the input"),
        str(stated.get("dtype")),
        stated.get("shape") or [],
    )
    array = numpy.asarray(data)
    wanted = numpy.dtype(dtype)
    if array.dtype.kind == "O":
        raise SchemaError(f"{name} is no array of {dtype}: its rows differ in length or kind.")
    if array.dtype != wanted and wanted.kind not in "US":
        if (
            array.dtype.kind in "US"
            or (wanted.kind in "iu" and array.dtype.kind == "f")
            or wanted.kind == "b"
        ):
            raise SchemaError(f"{name} must be {dtype}; {array.dtype} cannot be taken for it.")
        array = array.astype(wanted)
    if len(shape) != array.ndim or any(
        size not in (-1, have) for size, have in zip(shape, array.shape, strict=True)
    ):
        raise SchemaError(f"{name} must have the shape {tuple(shape)}, not {array.shape}.")
    return array


def _enforce_columns(data: Any, spec: Spec) -> Any:
    pandas = library("pandas")

    names = [each.get("name") for each in spec]
    if isinstance(data, Mapping):
        plain = {
            str(name): value
            if _is_list(value) or hasattr(value, "__len__") and not isinstance(value, str)
            else [value]
            for name, value in data.items()
        }
        if len({len(value) for value in plain.values()}) > 1:
            raise SchemaError("The columns differ in length.")
        data = pandas.DataFrame(plain)
    elif not hasattr(data, "columns"):
        data = data.to_frame() if hasattr(data, "to_frame") else _frame(data, pandas)
    if names == [None]:
        if len(data.columns) != 1:
            raise SchemaError(f"The model takes one column, not {len(data.columns)}.")
        only = data.columns[0]
        return pandas.DataFrame(
            {only: _cast(data[only], str(spec[0].get("type")), "the input")}, index=data.index
        )
    if all(isinstance(name, int) for name in data.columns) and not set(names) & set(data.columns):
        # Rows without names are taken in the order of the signature.
        if len(data.columns) != len(names):
            raise SchemaError(
                f"The model takes {len(names)} columns ({', '.join(map(str, names))}), not {len(data.columns)}."
            )
        data.columns = pandas.Index(names)
    missing = [str(each["name"]) for each in spec if each["name"] not in data and each.get("required", True)]
    if missing:
        have = ", ".join(str(name) for name in list(data.columns)[:20])
        raise SchemaError(f"Missing columns: {', '.join(missing)}. There are: {have}.")
    found = {
        each["name"]: _cast(
            data[each["name"]], str(each.get("type")), str(each["name"]), each.get("required", True)
        )
        for each in spec
        if each["name"] in data
    }
    return pandas.DataFrame(found, index=data.index)


def _frame(data: Any, pandas: Any) -> Any:
    try:
        return pandas.DataFrame([data] if isinstance(data, str) else data)
    except ValueError as error:
        raise SchemaError(f"The rows make no table ({error}).") from None


def _cast(series: Any, kind: str, name: str, required: bool = True) -> Any:
    dtype, have = _DTYPES.get(kind), series.dtype
    if dtype is None or str(have) == dtype:
        if kind == "string" and have.kind in "biuf" and have.kind != "O":
            raise SchemaError(f"The column {name} must be a string, not {have}.")
        return series
    if kind == "datetime":
        try:
            return series.astype(dtype)
        except (ValueError, TypeError) as error:
            raise SchemaError(f"The column {name} must be a datetime ({error}).") from None
    if have.kind == "O" or not hasattr(have, "itemsize") or have.kind not in "biuf":
        return _cast_objects(series, kind, dtype, name, required)
    wide = "iuf".find(have.kind) >= 0
    if kind == "boolean" or have.kind == "b" or not wide:
        raise SchemaError(f"The column {name} must be a {kind}, not {have}.")
    if kind in ("integer", "long") and have.kind == "f":
        raise SchemaError(
            f"The column {name} must be a {kind}: whole numbers without a point and without gaps, not {have}."
        )
    if kind == "integer" and len(series) and not -(2**31) <= series.min() <= series.max() < 2**31:
        raise SchemaError(f"The column {name} must be an integer of 32 bits.")
    return series.astype(dtype)


def _cast_objects(series: Any, kind: str, dtype: str, name: str, required: bool) -> Any:
    """Mixed values, as JSON gives them where some are null."""
    values = [value for value in series.tolist() if value is not None and value == value]
    if len(values) < len(series) and required and kind not in ("float", "double"):
        raise SchemaError(f"The column {name} must not have gaps.")
    if not all(_fits(value, kind) for value in values):
        wrong = next(value for value in values if not _fits(value, kind))
        raise SchemaError(f"The column {name} must be a {kind}, not {str(wrong)[:60]!r}.")
    return series.astype("float64" if kind in _NUMBERS and len(values) < len(series) else dtype)

"""A short way for tables of numbers: straight from JSON to an array, for models that answer the same to that.

Building a DataFrame and having scikit-learn look at its columns again costs more than most predictions. Whether a model may be
asked this way is found out with its own example: both ways have to give the same answer, exactly.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from mltrack.store.flavors.schema import Spec, library

_WHOLE = ("integer", "long")
Rows = list[list[Any]]


class PlainRows:
    """Checks rows against a signature of numeric columns and asks the model with an array."""

    def __init__(self, names: list[str], whole: list[bool], predict: Callable[[Any], Any]) -> None:
        self._names = names
        self._whole = whole
        self._predict = predict
        self._numpy = library("numpy")

    def predict(self, request: Any) -> Any:
        """The answer; None for a request that has to take the long way: other columns, gaps, texts, params."""
        if not isinstance(request, dict) or len(request) != 1:
            return None
        if "dataframe_split" in request:
            table = request["dataframe_split"]
            if not isinstance(table, dict) or table.get("columns") != self._names or len(table) != 2:
                return None
            rows = table.get("data")
        elif "dataframe_records" in request:
            rows = self._in_order(request["dataframe_records"])
        else:
            return None
        if not isinstance(rows, list) or not rows or not self._fits(rows):
            return None
        return self._predict(self._numpy.array(rows, dtype="float64"))

    def _in_order(self, records: Any) -> Rows | None:
        if not isinstance(records, list):
            return None
        width = len(self._names)
        try:
            rows = [[record[name] for name in self._names] for record in records]
        except (KeyError, TypeError):
            return None
        return rows if all(len(record) == width for record in records) else None

    def _fits(self, rows: Rows) -> bool:
        width = len(self._whole)
        for row in rows:
            if type(row) is not list or len(row) != width:
                return False
            for value, whole in zip(row, self._whole, strict=True):
                kind = type(value)
                if kind is int:
                    # What a double cannot hold exactly, or no 64-bit integer, is for the long way to judge.
                    if not -(2**53) <= value <= 2**53:
                        return False
                elif kind is not float or whole:
                    return False
        return True


def plain_rows(model: Any, spec: Spec | None, ask: Callable[[Any], Any], example: Any) -> PlainRows | None:
    """The short way for a model of scikit-learn, or None. ``ask`` is the long way, ``example`` a request as JSON has it."""
    if not spec or not type(model).__module__.startswith("sklearn.") or not hasattr(model, "predict"):
        return None
    kinds = [each.get("type") for each in spec]
    if not all(
        kind in ("double", "long") and each.get("name") for kind, each in zip(kinds, spec, strict=True)
    ):
        return None
    if "double" not in kinds or any(not each.get("required", True) for each in spec):
        return None
    numpy = library("numpy")
    # Said once for each request otherwise: the columns are in their order, that is checked here.
    warnings.filterwarnings("ignore", message="X does not have valid feature names")
    short = PlainRows([str(each["name"]) for each in spec], [kind in _WHOLE for kind in kinds], model.predict)
    try:
        one, other = numpy.asarray(short.predict(example)), numpy.asarray(ask(example))
    except Exception:  # noqa: BLE001  # a model that wants names may raise anything for an array
        return None
    same = one.dtype == other.dtype and one.shape == other.shape and one.dtype.kind != "O"
    return short if same and bool((one == other).all()) else None

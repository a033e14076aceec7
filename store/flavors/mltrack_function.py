"""Loader of a plain Python function or object with a method predict; copied into the model's folder: it needs no mltrack."""

import pickle
from typing import Any


class _Function:
    def __init__(self, function: Any) -> None:
        self._function = function

    def predict(self, model_input: Any, params: Any = None) -> Any:
        method = getattr(self._function, "predict", None) or self._function
        return method(model_input, **(params or {}))


def _load_pyfunc(path: str) -> _Function:
    with open(path, "rb") as file:
        return _Function(pickle.load(file))

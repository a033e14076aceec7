"""What crosses the wire: requests with typed fields, and errors in MLflow's shape."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import orjson

from mltrack.store.client.values import Refused, check_number
from mltrack.store.errors import (
    BadInput,
    Conflict,
    FilterError,
    MltrackError,
    NotFound,
    ReadOnly,
    StoreError,
)

HTTP_STATUS = {
    "INVALID_PARAMETER_VALUE": 400,
    "BAD_REQUEST": 400,
    "RESOURCE_ALREADY_EXISTS": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "RESOURCE_DOES_NOT_EXIST": 404,
    "ENDPOINT_NOT_FOUND": 404,
    "RESOURCE_CONFLICT": 409,
    "REQUEST_LIMIT_EXCEEDED": 429,
    "REQUEST_TOO_LARGE": 413,
    "NOT_IMPLEMENTED": 501,
    "INTERNAL_ERROR": 500,
    "TEMPORARILY_UNAVAILABLE": 503,
}
_WHOLE_MIN, _WHOLE_MAX = -(1 << 63), (1 << 63) - 1


class ApiError(Exception):
    """A request that is answered with an error. ``code`` is one of HTTP_STATUS."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    @property
    def status(self) -> int:
        """The HTTP status."""
        return HTTP_STATUS[self.code]

    def body(self) -> bytes:
        """The answer's JSON."""
        text = self.message.encode("utf-8", "backslashreplace").decode("utf-8")
        return orjson.dumps({"error_code": self.code, "message": text})


def invalid(message: str) -> ApiError:
    """A value of the request cannot be used."""
    return ApiError("INVALID_PARAMETER_VALUE", message)


def missing(message: str) -> ApiError:
    """A thing that the request names does not exist."""
    return ApiError("RESOURCE_DOES_NOT_EXIST", message)


def from_error(error: MltrackError) -> ApiError:
    """Our errors as MLflow's clients know them. Only a store that is away is worth their trying again."""
    if isinstance(error, FilterError):
        return invalid(f"Invalid filter: {error.message} (at character {error.position} of '{error.text}')")
    if isinstance(error, NotFound):
        return missing(error.message)
    if isinstance(error, Conflict):
        return ApiError("RESOURCE_ALREADY_EXISTS", error.message)
    if isinstance(error, ReadOnly):
        return ApiError("PERMISSION_DENIED", error.message)
    if isinstance(error, StoreError):
        return ApiError("TEMPORARILY_UNAVAILABLE", error.message)
    if isinstance(error, BadInput):
        return invalid(error.message)
    return ApiError("BAD_REQUEST", error.message)


class Fields:
    """The fields of a request, or of an object inside it, by name and with their types checked.

    ``loose``: they come from a query string, where everything is text and a field may be given several times.
    """

    def __init__(self, values: Mapping[str, Any], loose: bool = False, path: str = "") -> None:
        self.values = values
        self._loose = loose
        self._path = path

    def _get(self, name: str) -> Any:
        found = self.values.get(name)
        if self._loose and isinstance(found, list):
            return found[-1]
        return found

    def _wrong(self, name: str, value: Any, wanted: str) -> ApiError:
        try:
            shown = orjson.dumps(value).decode("utf-8")
        except orjson.JSONEncodeError:
            shown = repr(value)
        shown = shown if len(shown) <= 200 else shown[:200] + "..."
        return invalid(
            f"Invalid value {shown} for parameter '{self._path}{name}' supplied: it must be {wanted}."
        )

    def need(self, *names: str) -> None:
        """Each of these must be there."""
        for name in names:
            value = self._get(name)
            if value is None or value == "":
                raise invalid(
                    f"Missing value for required parameter '{self._path}{name}'."
                    " See the API docs for more information about request parameters."
                )

    def text(self, name: str, default: str = "") -> str:
        """A text; ``default`` when it is not there."""
        value = self._get(name)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self._wrong(name, value, "a string")
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise self._wrong(name, value, "valid Unicode") from None
        return value

    def needed(self, name: str) -> str:
        """A text that must be there and not be empty."""
        self.need(name)
        return self.text(name)

    def whole(self, name: str, default: int = 0) -> int:
        """A 64-bit whole number; texts that spell one and floats without a fraction count, as in protobuf's JSON."""
        value = self._get(name)
        if value is None:
            return default
        if isinstance(value, str):
            try:
                value = int(value.strip())
            except ValueError:
                raise self._wrong(name, value, "a whole number") from None
        if isinstance(value, float):
            if not math.isfinite(value) or abs(value) >= 1 << 53:
                raise self._wrong(name, value, "a 64-bit whole number")
            value = int(value)
        if type(value) is not int or not _WHOLE_MIN <= value <= _WHOLE_MAX:
            raise self._wrong(name, value, "a 64-bit whole number")
        return value

    def number(self, name: str) -> float:
        """A float64 that holds exactly what was sent."""
        value = self._get(name)
        if isinstance(value, str):
            try:
                number = float(value)
            except ValueError:
                raise self._wrong(name, value, "a number") from None
            if math.isinf(number) and any(digit.isdigit() for digit in value):
                raise self._wrong(name, value, "within the range of a float64")
            return number
        if type(value) not in (int, float):
            raise self._wrong(name, value, "a number")
        try:
            return check_number(value)
        except Refused:
            raise self._wrong(name, value, "a number that a float64 holds exactly") from None

    def flag(self, name: str, default: bool = False) -> bool:
        """A boolean."""
        value = self._get(name)
        if value is None:
            return default
        if self._loose and value in ("true", "false", "True", "False"):
            return value in ("true", "True")
        if not isinstance(value, bool):
            raise self._wrong(name, value, "true or false")
        return value

    def texts(self, name: str) -> list[str]:
        """A list of texts, empty when it is not there."""
        value = self.values.get(name)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._wrong(name, value, "a list of strings")
        return value

    def objects(self, name: str) -> list[Fields]:
        """A list of objects, empty when it is not there."""
        value = self.values.get(name)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self._wrong(name, value, "a list of objects")
        return [Fields(item, path=f"{self._path}{name}[{place}].") for place, item in enumerate(value)]

    def object(self, name: str) -> Fields:
        """An object; an empty one when it is not there."""
        value = self.values.get(name)
        if value is None:
            value = {}
        if not isinstance(value, dict):
            raise self._wrong(name, value, "an object")
        return Fields(value, path=f"{self._path}{name}.")

    def pairs(self, name: str) -> dict[str, str]:
        """A list of {key, value} as a dictionary; of equal keys the last one counts."""
        found: dict[str, str] = {}
        for item in self.objects(name):
            item.need("key")
            found[item.text("key")] = item.text("value")
        return found


def number_out(value: float) -> float | str:
    """A float64 as proto3 JSON has it."""
    if value != value:
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value


def filled(**fields: Any) -> dict[str, Any]:
    """An answer without the fields that are None or empty lists: proto3's JSON leaves them out."""
    return {name: value for name, value in fields.items() if value is not None and value != []}

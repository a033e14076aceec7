"""Values of a filter: numbers, durations, points in time, statuses.

Each function takes a value as it was written and says, at its place, why it does not fit.
"""

from __future__ import annotations

import math
import re
from datetime import datetime, timedelta
from typing import Literal

from mltrack.store.column_types import NUMBER_ATTRIBUTES, TIME_ATTRIBUTES, Kind, number_in
from mltrack.store.errors import FilterError
from mltrack.store.filter_tree import STATUSES, Amount, Comparator, Moment, Value, Written

_UNIT_MS = {"ms": 1.0, "s": 1e3, "m": 60e3, "h": 3600e3, "d": 86400e3, "w": 7 * 86400e3}
_DURATION_PIECE = re.compile(r"(\d+(?:\.\d+)?)(ms|[wdhms])")
_DURATION = re.compile(rf"(?:{_DURATION_PIECE.pattern})+")
_MLFLOW_NUMBER = re.compile(r"-?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)

HOW_TO_WRITE_A_DURATION = "write it like 90s, 10m, 2h30m or 1d; a bare number is seconds"
HOW_TO_WRITE_A_TIME = "write it like -2d (two days ago), 2026-11-01, '2026-11-01 13:30', or in ms since 1970"


def typed(
    value: Written,
    kind: Kind | Literal["any"],
    name: str,
    comparator: Comparator,
    text: str,
    mlflow: bool = False,
) -> Value:
    """The value in the form in which it is compared with a key of this kind. FilterError where it does not fit.

    A bare key's kind is only known when runs are at hand: its values stay as written until then.
    """
    if kind == "any":
        return value
    if kind == "metric" or (kind == "attribute" and name in NUMBER_ATTRIBUTES):
        what = f"the metric '{name}'" if kind == "metric" else f"'{name}'"
        if mlflow:
            return mlflow_number(value, text, what)
        amount = number(value, text, what) if kind == "metric" else number_attribute(name, value, text)
        if comparator not in ("=", "!="):
            _refuse_nan(value, text)
        return amount
    if mlflow and not value.quoted:
        raise FilterError(text, value.position, f"Expected a value in quotes for '{name}'.")
    if kind == "attribute" and name == "status" and not mlflow:
        return status(value, text)
    if comparator not in ("=", "!="):
        if number_in(value.text) is None:
            message = f"'{comparator}' compares numbers; '{value.text}' is not one."
            raise FilterError(text, value.position, message)
        _refuse_nan(value, text)
    return value


def _refuse_nan(value: Written, text: str) -> None:
    if re.fullmatch(r"\s*[-+]?nan\s*", value.text, re.IGNORECASE):
        raise FilterError(text, value.position, "Nothing is less or more than NaN: use = nan or != nan.")


def number(value: Written, text: str, what: str) -> Amount:
    """The number of a value. `what` names the left side: "the metric 'loss'"."""
    found = number_in(value.text)
    if found is None:
        raise FilterError(text, value.position, f"{_capital(what)} is a number; '{value.text}' is not one.")
    return Amount(found, value.position)


def mlflow_number(value: Written, text: str, what: str) -> Amount:
    """A number as MLflow's grammar takes it: not in quotes, decimal, finite as written."""
    if value.quoted or not _MLFLOW_NUMBER.fullmatch(value.text):
        raise FilterError(text, value.position, f"Expected a number without quotes for {what}.")
    return Amount(float(value.text), value.position)


def duration(value: Written, text: str) -> Amount:
    """A length of time, in ms."""
    seconds = number_in(value.text)
    found = seconds * 1e3 if seconds is not None else duration_ms(value.text)
    if found is None or math.isnan(found):
        message = f"'{value.text}' is not a length of time: {HOW_TO_WRITE_A_DURATION}."
        raise FilterError(text, value.position, message)
    return Amount(found, value.position)


def moment(value: Written, text: str) -> Moment:
    """A point in time. Dates without a time zone are local."""
    written = value.text.strip()
    ms = number_in(written)
    if ms is not None and math.isfinite(ms):
        return Moment(ms, False, 0.0, value.position)
    if written[:1] in ("-", "+"):
        distance = duration_ms(written[1:])
        if distance is not None:
            return Moment(distance if written[0] == "+" else -distance, True, 0.0, value.position)
    try:
        start = datetime.fromisoformat(written)
        span = timedelta(days=1) if len(written) == len("2026-11-01") else timedelta(0)
        start_ms = start.timestamp() * 1e3
        # The next midnight by the calendar: a day on which the clocks change has 23 or 25 hours.
        return Moment(start_ms, False, (start + span).timestamp() * 1e3 - start_ms, value.position)
    except (ValueError, OverflowError, OSError):
        hint = f" '-{written}' is that long ago." if duration_ms(written) is not None else ""
        message = f"'{value.text}' is not a time: {HOW_TO_WRITE_A_TIME}.{hint}"
        raise FilterError(text, value.position, message) from None


def status(value: Written, text: str) -> Written:
    """A status in any letter case, as it is stored."""
    upper = value.text.upper()
    if upper not in STATUSES:
        from difflib import get_close_matches

        close = get_close_matches(upper[:40], STATUSES, n=1)
        hint = f"; did you mean {close[0].lower()}?" if close else "."
        known = ", ".join(name.lower() for name in STATUSES)
        raise FilterError(
            text, value.position, f"No status is called '{value.text}' (there are {known}){hint}"
        )
    return Written(upper, True, value.position)


def number_attribute(name: str, value: Written, text: str) -> Value:
    """The value of a number attribute in the unit of its column."""
    if name in TIME_ATTRIBUTES:
        return moment(value, text)
    if name == "duration":
        return duration(value, text)
    return number(value, text, f"'{name}'")


def duration_ms(text: str) -> float | None:
    """`2h30m` in ms, or None. Letters in either case."""
    lowered = text.lower()
    if not lowered.isascii() or not _DURATION.fullmatch(lowered):
        return None
    return sum(float(count) * _UNIT_MS[unit] for count, unit in _DURATION_PIECE.findall(lowered))


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]

"""MLflow's rules for names, keys and the sizes of requests."""

from __future__ import annotations

import json
import posixpath
import re

from mltrack.store.client.values import TEXT_BYTES
from mltrack.store.mlflow_api.wire import ApiError, invalid

KEY_CHARACTERS = 250
NAME_CHARACTERS = 500
BATCH = {"metrics": 1000, "params": 100, "tags": 100}
BATCH_TOTAL = 1000
_KEY = re.compile(r"[/\w.\- :]*\Z")
_RUN_ID = re.compile(r"[0-9a-f]{32}\Z")


def check_key(kind: str, key: str) -> str:
    """The name of a metric, param or tag."""
    if not key:
        raise invalid(f"Missing value for required parameter 'key': a {kind} needs a name.")
    check_length(f"{kind.capitalize()} name", key, KEY_CHARACTERS)
    problem = ""
    if not _KEY.match(key):
        problem = (
            "Names may only contain alphanumerics, underscores (_), dashes (-), periods (.), spaces ( ), colons (:) and"
            " slashes (/)."
        )
    elif posixpath.normpath(key) != key or key == "." or key.startswith(("..", "/")):
        problem = "Names may be treated as files in certain cases, and must not lead to another name then."
    if problem:
        raise invalid(
            f"Invalid value {json.dumps(key, ensure_ascii=False)} for parameter 'name' supplied: {problem}"
        )
    return key


def check_name(kind: str, key: str) -> str:
    """The name of a tag that comes with a new run or experiment: there MLflow takes any characters."""
    if not key:
        raise invalid(f"Missing value for required parameter 'key': a {kind} needs a name.")
    return check_length("key", key, KEY_CHARACTERS)


def check_length(what: str, text: str, most: int) -> str:
    """A text that MLflow's clients may send only this long."""
    if len(text) > most:
        raise invalid(f"'{what}' exceeds the maximum length of {most} characters")
    return text


def check_value(kind: str, key: str, value: str) -> str:
    """The text of a param or tag: kept whole up to 1 MiB, refused beyond."""
    if len(value.encode("utf-8", "surrogatepass")) > TEXT_BYTES:
        raise invalid(f"The value of the {kind} '{key}' has more than 1 MiB; log it as an artifact.")
    return value


def check_experiment_name(name: str) -> str:
    """The name of an experiment."""
    if not name:
        raise invalid("Missing value for required parameter 'name': an experiment needs a name.")
    return check_length("name", name, NAME_CHARACTERS)


def check_run_id(run_id: str) -> str:
    """The id of a run, as every store of ours has them."""
    if not _RUN_ID.match(run_id):
        raise ApiError("RESOURCE_DOES_NOT_EXIST", f"Run with id={run_id[:80]} not found")
    return run_id


def check_count(name: str, value: int, most: int) -> int:
    """A number of results asked for."""
    if not 1 <= value <= most:
        wanted = "a positive integer" if value < 1 else f"at most {most}"
        raise invalid(f"Invalid value {value} for parameter '{name}' supplied. It must be {wanted}")
    return value


def check_batch(metrics: int, params: int, tags: int) -> None:
    """The sizes of one log-batch request."""
    for name, count in (("metrics", metrics), ("params", params), ("tags", tags)):
        if count > BATCH[name]:
            raise invalid(
                f"A batch logging request can contain at most {BATCH[name]} {name}. Got {count} {name}."
                " Please split up your request and try again."
            )
    if metrics + params + tags > BATCH_TOTAL:
        raise invalid(
            f"A batch logging request can contain at most {BATCH_TOTAL} metrics, params, and tags in total."
            f" Got {metrics + params + tags}."
        )

# pyright: reportMissingImports=false
"""What the scripts of odd things share: a client of the server at argv[1], and what came of each thing without ids and times."""

from __future__ import annotations

import json
import os
import re
import sys
import warnings
from collections.abc import Callable
from typing import Any

warnings.filterwarnings("ignore")
os.environ.update(MLFLOW_ENABLE_ASYNC_LOGGING="false", MLFLOW_HTTP_REQUEST_MAX_RETRIES="0")

import mlflow  # noqa: E402
import requests  # noqa: E402
from mlflow import MlflowClient  # noqa: E402
from mlflow.entities import Dataset, DatasetInput, InputTag  # noqa: E402

ADDRESS = sys.argv[1]
mlflow.set_tracking_uri(ADDRESS)
client = MlflowClient()
said: dict[str, Any] = {}
names: dict[str, str] = {}
NOBODY = "0" * 32


def every(text: str) -> list[str]:
    return [one for line in text.splitlines() for one in line.split("|")]


def plain(value: Any) -> Any:
    if isinstance(value, bool | int) or value is None:
        return value
    if isinstance(value, dict):
        return {plain(str(key)): plain(inner) for key, inner in sorted(value.items())}
    if isinstance(value, (list, tuple, set)):
        return [plain(inner) for inner in value]
    text = str(value)
    for known, name in names.items():
        text = text.replace(known, f"<{name}>")
    return re.sub(r"m-[0-9a-f]{32}", "MODEL", re.sub(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])", "RUN", text))


def told(work: Callable[[], Any]) -> Any:
    """What work returns, or the code of what was refused."""
    try:
        return plain(work())
    except mlflow.exceptions.MlflowException as error:
        return f"!{error.error_code}"
    except requests.HTTPError as error:
        return f"!HTTP {re.findall('[0-9]{3}', str(error))[0]}"
    except (ValueError, TypeError, OSError, LookupError, ArithmeticError) as error:
        # A client's own: its kind is what is compared.
        return f"!{type(error).__name__}"


def after(*done: Any) -> Any:
    return done[-1]


def raw(method: str, path: str, **options: Any) -> Any:
    answer = requests.request(method, f"{ADDRESS}/ajax-api/2.0/{path}", **options)
    body = answer.json()
    return [answer.status_code, body.get("error_code") if answer.status_code >= 400 else body]


def pages(search: Callable[[str | None], Any], name: Callable[[Any], str]) -> list[list[str]]:
    found: list[list[str]] = []
    token = None
    while token or not found:
        page = search(token)
        found.append([name(entry) for entry in page])
        token = page.token
    return found


def dataset(name: str, digest: str, context: str, schema: str | None = None) -> DatasetInput:
    tags = [InputTag("mlflow.data.context", context)] if context else []
    return DatasetInput(Dataset(name, digest, "local", "s", schema), tags)


def tell(*works: Callable[[], None]) -> None:
    """Do them, and print what came of all as one line of JSON."""
    for work in works:
        work()
    print(json.dumps(said))

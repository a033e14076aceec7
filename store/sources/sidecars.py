"""Params of a run that lie beside its data: files that trainers leave there, and what a folder's name says."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mltrack.store.sources.base import read_small, why
from mltrack.store.sources.yaml_text import load_mapping

# In order of precedence: what Hydra resolved, what Lightning saved, what people name such files.
FILES = (
    ".hydra/config.yaml",
    ".hydra/overrides.yaml",
    "hparams.yaml",
    *(f"{name}.{kind}" for name in ("config", "args", "params") for kind in ("yaml", "yml", "json")),
)
# A configuration has fewer values; one with more is data, or repeats itself without end.
PARAMS = 2000
_DEPTH = 50

_NUMBER = r"[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?|\.[0-9]+"
_NAMES = (
    "lr|bs|wd|seed|batch_?size|batch|epochs?|ep|dropout|drop|do|momentum|mom|gamma|beta[12]?|alpha|eps|tau|temp|lambda|lam|"
    "hidden|layers?|depth|width|dim|heads?|warmup|fold|rank|size|clip|decay|embed|emb|nodes?|units|steps?"
)
_ASSIGNED = re.compile(r"(?:^|[_,; ])([A-Za-z][A-Za-z0-9_.]*?)=(.*?)(?=[,; ]|_[A-Za-z][A-Za-z0-9_.]*=|$)")
_GLUED = re.compile(rf"(?<![A-Za-z0-9])({_NAMES})[-_]?({_NUMBER})(?![A-Za-z0-9.])", re.IGNORECASE)


def read_sidecars(folder: Path, names: list[str]) -> tuple[dict[str, str], list[str]]:
    """Params from these files (as in FILES, from ``folder``), nested ones as ``a.b``, and a sentence per file that cannot be read."""
    params: dict[str, str] = {}
    problems: list[str] = []
    for name in names:
        try:
            data = read_small(folder / name)
            if name.endswith("overrides.yaml"):
                found = _overrides(data)
            elif name.endswith(".json"):
                found = _json(data)
            else:
                found = load_mapping(data)
            flat: dict[str, str] = {}
            flatten(found, flat)
        except OSError as error:
            problems.append(f"{name}: {why(error)}")
            continue
        except (ValueError, RecursionError) as error:
            problems.append(f"{name}: {error}")
            continue
        for key, value in flat.items():
            params.setdefault(key, value)
    return params, problems


def _json(data: bytes) -> dict[str, Any]:
    found = json.loads(data)
    if not isinstance(found, dict):
        raise ValueError("not an object of keys and values")
    return found


def _overrides(data: bytes) -> dict[str, str]:
    """Hydra's list of ``key=value`` as typed: only what the resolved configuration does not have is news."""
    found: dict[str, str] = {}
    for line in data.decode("utf-8", "replace").splitlines():
        key, equals, value = line.strip().removeprefix("- ").strip("'\"").partition("=")
        if equals and re.fullmatch(r"[+~]*[\w.@/-]+", key):
            found[key.lstrip("+~")] = value
    return found


def flatten(value: Mapping[str, Any], into: dict[str, str], prefix: str = "", depth: int = 0) -> None:
    """Nested mappings as ``a.b: text``. Raises ValueError for more than a configuration holds."""
    if depth > _DEPTH:
        raise ValueError("nested beyond reason")
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, Mapping) and item:
            flatten(item, into, f"{name}.", depth + 1)
            continue
        into[name] = param_text(item)
        if len(into) > PARAMS:
            raise ValueError(f"more than {PARAMS:,} values: this is no configuration")


def param_text(value: Any) -> str:
    """A value as the logging call would store it; lists as JSON. Raises ValueError for a list that repeats itself."""
    if isinstance(value, list | tuple | dict):
        if _count(value, 0) > PARAMS:
            raise ValueError(f"more than {PARAMS:,} values: this is no configuration")
        return json.dumps(value, default=str, ensure_ascii=False)
    return value if isinstance(value, str) else str(value)


def _count(value: Any, seen: int) -> int:
    """How many values a list holds, counted no further than matters: aliases may make it grow without end."""
    items = value.values() if isinstance(value, dict) else value
    for item in items:
        seen += 1
        if seen > PARAMS:
            break
        if isinstance(item, list | tuple | dict):
            seen = _count(item, seen)
    return seen


def from_name(path: str) -> dict[str, str]:
    """What a folder's name says of its params: ``lr3e-4_bs64_seed1``, ``lr=0.1,opt=adam``. A guess, to be shown as one."""
    found: dict[str, str] = {}
    for part in path.split("/"):
        rest = part
        for key, value in _ASSIGNED.findall(part):
            found[key] = value
            rest = rest.replace(f"{key}={value}", " ")
        for key, value in _GLUED.findall(rest):
            found[key.lower()] = value
    return found

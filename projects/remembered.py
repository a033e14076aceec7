"""What this user launched before: recent projects with their last choices, and which sources were trusted."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from mltrack.store.client.journal import now_ms, random_hex
from mltrack.store.client.location import user_data_folder

_RECENT = 50
_TRUSTED = 2000


def _read(name: str) -> dict[str, Any]:
    try:
        value = json.loads((user_data_folder() / name).read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _write(name: str, value: dict[str, Any]) -> None:
    path = user_data_folder() / name
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{random_hex(8)}.part")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        json.dump(value, file)
    os.replace(temporary, path)


def is_trusted(source: str, commit: str) -> bool:
    """Whether somebody said yes to running this commit of this source."""
    return f"{source} {commit}" in _read("trusted.json")


def trust(source: str, commit: str) -> None:
    """Remember the yes."""
    known = _read("trusted.json")
    known[f"{source} {commit}"] = now_ms()
    newest = sorted(known, key=lambda one: int(known[one]))[-_TRUSTED:]
    _write("trusted.json", {one: known[one] for one in newest})


def remember(address: str, choices: dict[str, Any]) -> None:
    """Put a project at the head of the recent ones, with what was chosen (no secrets)."""
    known = _read("projects.json")
    known.pop(address, None)
    known = dict([*known.items(), (address, {**choices, "time_ms": now_ms()})][-_RECENT:])
    _write("projects.json", known)


def recent() -> list[tuple[str, dict[str, Any]]]:
    """(address, choices), the newest first; folders that are gone are left out."""
    known = [
        (address, choices) for address, choices in _read("projects.json").items() if isinstance(choices, dict)
    ]
    kept = [
        one
        for one in known
        if not os.path.isabs(one[0]) or Path(one[0].partition("#")[0].partition("@")[0]).is_dir()
    ]
    return kept[::-1]


def last_choices(address: str) -> dict[str, Any]:
    """What was chosen the last time; {} for a project that is new here."""
    found = _read("projects.json").get(address)
    return found if isinstance(found, dict) else {}

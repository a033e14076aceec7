"""Launch profiles: what this user's machines need beside what a project declares (network, certificates, caches).

``~/.config/mltrack/profiles.toml`` holds one table per profile; ``[default]`` counts where none is named.
"""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mltrack.projects.errors import ProjectError

_TEXTS = ("network", "build_network", "ca", "memory", "backend", "base_image")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Profile:
    """``network`` is that of the container, ``build_network`` that of the build; None is the engine's own choice."""

    name: str = "default"
    network: str | None = None
    build_network: str | None = None
    ca: Path | None = None
    memory_bytes: int | None = None
    backend: str | None = None
    base_image: str | None = None
    build_args: dict[str, str] = field(default_factory=dict)
    environment: tuple[str, ...] = ()  # names of variables that are passed on
    cache_mounts: tuple[str, ...] = ()  # folders below HOME that are shared with containers
    slurm: dict[str, str] = field(default_factory=dict)  # settings of its jobs


def profiles_file() -> Path:
    """Where profiles are kept."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    return (
        Path(base if os.path.isabs(base) else os.path.expanduser("~/.config")) / "mltrack" / "profiles.toml"
    )


def read_profile(name: str | None) -> Profile:
    """The profile of this name; None: the default one, which need not exist. Raises ProjectError."""
    path = profiles_file()
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        table = {}
    except (OSError, ValueError) as error:
        raise ProjectError(f"it cannot be read ({error})", str(path)) from None
    chosen = table.get(name or "default")
    if chosen is None:
        if name in (None, "default"):
            return Profile()
        known = ", ".join(table) or "none"
        raise ProjectError(f"there is no profile '{name}'; it has: {known}", str(path))
    if not isinstance(chosen, dict):
        raise ProjectError(f"'{name or 'default'}' must be a table", str(path))
    return _profile(name or "default", chosen, str(path))


def _profile(name: str, table: dict[str, Any], path: str) -> Profile:
    for key in table:
        if key not in (*_TEXTS, "build_args", "environment", "cache_mounts", "slurm"):
            raise ProjectError(f"[{name}] has an unknown setting '{key}'", path)
    texts: dict[str, str | None] = {}
    for key in _TEXTS:
        value = table.get(key)
        if value is not None and not isinstance(value, str):
            raise ProjectError(f"[{name}] {key} must be a text", path)
        texts[key] = value
    arguments = table.get("build_args", {})
    if not isinstance(arguments, dict) or not all(isinstance(value, str) for value in arguments.values()):
        raise ProjectError(f"[{name}] build_args must hold texts by name", path)
    ca = Path(os.path.expanduser(texts["ca"])) if texts["ca"] else None
    if ca is not None and not ca.is_file():
        raise ProjectError(f"[{name}] ca names {ca}, which is no file", path)
    return Profile(
        name,
        texts["network"],
        texts["build_network"],
        ca,
        parse_size(texts["memory"]) if texts["memory"] else None,
        texts["backend"],
        texts["base_image"],
        dict(arguments),
        _names(table, "environment", path),
        _names(table, "cache_mounts", path),
        _slurm(table.get("slurm", {}), f"[{name}.slurm]", path),
    )


def _slurm(table: Any, where: str, path: str) -> dict[str, str]:
    from mltrack.projects.sbatch import checked_settings

    if not isinstance(table, dict):
        raise ProjectError(f"{where} must be a table", path)
    try:
        return checked_settings(table)
    except ProjectError as error:
        raise ProjectError(f"{where} {error.message}", path) from None


def _names(table: dict[str, Any], key: str, path: str) -> tuple[str, ...]:
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ProjectError(f"{key} must be a list of texts", path)
    return tuple(value)


def parse_size(text: str) -> int:
    """Bytes of ``8g``, ``512m``, ``1.5 GiB``; powers of 1024. Raises ProjectError."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ProjectError(f"'{text}' is no size such as 8g.")
    return (
        int(float(found[1]) * 1024 ** "kmgt".index(found[2].lower()) * 1024)
        if found[2]
        else int(float(found[1]))
    )

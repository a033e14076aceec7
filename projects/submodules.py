"""Submodules of a fetched repository: which repository at which commit belongs where, by what the commit itself says."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from mltrack.projects.errors import ProjectError

DEPTH = 5
COUNT = 100
_BYTES = 1 << 20


def linked_commits(listing: str) -> dict[str, str]:
    """Commit by path, from ``git ls-tree -r -z``."""
    found = re.findall(r"(?:^|\0)160000 commit ([0-9a-f]{40,64})\t([^\0]+)", listing)
    return {path: commit for commit, path in found}


def declared_urls(tree: Path, run: Callable[..., str]) -> dict[str, str]:
    """URL by path, from .gitmodules. ``run`` is a hardened call of git."""
    path = tree / ".gitmodules"
    if path.is_symlink() or not path.is_file() or path.stat().st_size > _BYTES:
        return {}
    table: dict[str, dict[str, str]] = {}
    for item in run("config", "--no-includes", "--file", str(path), "--list", "-z").split("\0"):
        key, _, value = item.partition("\n")
        name, _, setting = key.removeprefix("submodule.").rpartition(".")
        if key.startswith("submodule.") and name:
            table.setdefault(name, {})[setting] = value
    return {each["path"]: each["url"] for each in table.values() if "path" in each and "url" in each}


def absolute_url(url: str, parent: str) -> str:
    """``url`` as git resolves it: ``./`` and ``../`` start at the address of the repository that names it."""
    if not url.startswith(("./", "../")):
        return url
    found = re.fullmatch(r"([A-Za-z][A-Za-z0-9+.-]*://[^/]*/|[^/:]+:/?|/)(.*)", parent)
    server, path = (found[1], found[2]) if found else ("", parent)
    steps = path.strip("/").split("/")
    for step in url.split("/"):
        if step == "..":
            if not steps:
                raise ProjectError("A submodule's address leads out of the server it starts from.")
            steps.pop()
        elif step not in ("", "."):
            steps.append(step)
    return server + "/".join(steps)


def is_local(base: str) -> bool:
    """Whether an address is a folder of this machine."""
    return os.path.isabs(base)

"""Looking for data of other tools below a folder: quick, bounded, and nowhere that nobody asked for."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from mltrack.store.errors import BadInput
from mltrack.store.sources import KINDS, absolute, identify, reader_class

DEPTH = 4
SECONDS = 2.0
# Folders with more entries hold data, not experiments; no tool we know makes so many runs side by side in a project's folder.
ENTRIES = 5000
# Environments, caches and version control: large, and never what is looked for.
_SKIPPED = frozenset(
    ".git .hg .svn .venv venv env .env .tox .nox node_modules __pycache__ site-packages dist-packages .cache .mypy_cache"
    " .ruff_cache .pytest_cache .ipynb_checkpoints .conda miniconda3 anaconda3 .local .cargo .rustup .npm .eggs proc sys dev"
    " data dataset datasets".split()
)
# What stands in an environment's top folder.
_ENVIRONMENT = frozenset(("pyvenv.cfg", "conda-meta"))


@dataclass
class Discovery:
    """What was found, as (path, kind), and how far the search got. ``refused``: why it did not begin."""

    found: list[tuple[str, str]] = field(default_factory=list)
    folders: int = 0
    complete: bool = True
    refused: str = ""


def discover(
    start: str,
    *,
    depth: int = DEPTH,
    seconds: float = SECONDS,
    environ: Mapping[str, str] | None = None,
) -> Discovery:
    """Sources at or below ``start`` and the one that MLFLOW_TRACKING_URI names. Links and other devices are left alone."""
    result = Discovery()
    _from_environment(os.environ if environ is None else environ, result)
    start = absolute(start)
    if start in ("/", os.path.realpath(os.path.expanduser("~"))):
        result.refused = f"{start} is not searched: go to a project's folder, or name a path"
        return result
    for kind in KINDS:
        reader_class(kind)  # loading their modules may take long on a busy machine, and finds nothing
    deadline = time.monotonic() + seconds
    try:
        device = os.stat(start).st_dev
    except OSError as error:
        result.refused = f"{start} cannot be read ({error.strerror})"
        return result
    waiting = deque([(start, 0)])
    while waiting:
        if time.monotonic() > deadline:
            result.complete = False
            break
        folder, level = waiting.popleft()
        listed = _list(folder)
        if listed is None:
            continue
        folders, files = listed
        result.folders += 1
        found = _candidates(folder, folders, files, result, deadline)
        if level == depth or found.intersection((folder,)):
            continue
        if not _ENVIRONMENT.isdisjoint(files) or not _ENVIRONMENT.isdisjoint(folders):
            continue
        for name in sorted(folders):
            path = os.path.join(folder, name)
            if name in _SKIPPED or path in found:
                continue
            try:
                if os.lstat(path).st_dev == device:
                    waiting.append((path, level + 1))
            except OSError:
                continue
    _group(result, start)
    return result


def _from_environment(environ: Mapping[str, str], result: Discovery) -> None:
    named = environ.get("MLFLOW_TRACKING_URI", "")
    if named.startswith(("http://", "https://")):
        # Offered unseen: a server is asked only when somebody wants to follow it. A password is never remembered.
        if not urlsplit(named).password:
            result.found.append((absolute(named), "mlflow_server"))
    elif named and not named.startswith("databricks"):
        try:
            result.found.append(identify(named))
        except BadInput:
            return  # a folder that no run was logged to yet


def _list(folder: str) -> tuple[list[str], list[str]] | None:
    """Names of folders and of everything else; None for what cannot be read or holds data."""
    folders: list[str] = []
    files: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for number, entry in enumerate(entries):
                if number >= ENTRIES:
                    return None
                (folders if entry.is_dir(follow_symlinks=False) else files).append(entry.name)
    except OSError:
        return None
    return folders, files


def _candidates(
    folder: str, folders: list[str], files: list[str], result: Discovery, deadline: float
) -> set[str]:
    """Ask the readers about what looks like theirs by name. Returns the paths that are."""
    mine: set[str] = set()
    for kind in KINDS:
        reader = reader_class(kind)
        for path in reader.candidates(folder, folders, files):
            if time.monotonic() > deadline:
                return mine
            if (path, kind) not in result.found and path not in mine and reader.recognise(path):
                mine.add(path)
                result.found.append((path, kind))
    return mine


def _group(result: Discovery, start: str) -> None:
    """Many sources of one kind side by side are one source: their parent, where its reader takes it for one."""
    parents: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for path, kind in result.found:
        parents.setdefault((os.path.dirname(path), kind), []).append((path, kind))
    for (parent, kind), members in parents.items():
        if len(members) > 1 and parent != start and reader_class(kind).recognise(parent):
            place = result.found.index(members[0])
            result.found[place] = (parent, kind)
            result.found = [entry for entry in result.found if entry not in members]

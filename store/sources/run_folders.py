"""Where runs lie below a folder, going by names of files: listed anew only where something came or went, so that a look costs a
stat per file."""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mltrack.store.sources.sidecars import FILES

_EVENT_FILE = re.compile(r".*tfevents\.?(\d{10})?.*")
# The folder that torch's and tensorboardX's add_hparams makes below the run's own.
HPARAMS_FOLDER = re.compile(r"\d{10}\.\d+")
# What never holds runs, and what would be walked for nothing.
_SKIPPED = frozenset((".git", "node_modules", "site-packages", "__pycache__", ".venv", "venv"))
_DEPTH = 32
_HYDRA = tuple(name for name in FILES if name.startswith(".hydra/"))
# Hydra's folder may lie above the one that a trainer gives to its logger.
_HYDRA_ABOVE = 3
# A listing younger than a filesystem's clock may tell apart is not relied on.
_UNSURE_NS = 3_000_000_000
# How many folders are looked at to find out whether there are runs at all, and how deep.
_GLANCE, _GLANCE_DEPTH = 300, 3
# A project's own folder: its runs lie below, beside other things, and are looked for one by one.
_PROJECT = frozenset((".git", "mlruns", "mlflow.db", "wandb", ".mltrack", "pyproject.toml", "setup.py"))


@dataclass(frozen=True, slots=True)
class RunFile:
    """A file that a run writes. ``name`` is relative to the run's folder; ``started_ms`` is what its name says, or 0."""

    name: str
    path: str
    size: int
    mtime_ns: int
    started_ms: int


@dataclass(slots=True)
class RunFolder:
    """A folder with such files; ``place`` is relative to the source."""

    place: str
    files: list[RunFile]
    sidecars: list[str]
    sidecar_stamp: str

    @property
    def changed_ns(self) -> int:
        """When the newest file changed."""
        return max(file.mtime_ns for file in self.files)

    @property
    def size(self) -> str:
        """Changes when any file does, or what lies beside them."""
        return f"{sum(file.size for file in self.files)}:{self.sidecar_stamp}"


@dataclass(slots=True)
class _Listing:
    mtime_ns: int
    sure: bool
    folders: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    sidecars: list[str] = field(default_factory=list)
    project: bool = False


class RunFolders:
    """The tree below one folder."""

    def __init__(self, root: Path, wanted: Callable[[str], bool]) -> None:
        """``wanted``: whether a file of this name makes its folder a run."""
        self._root = root
        self._wanted = wanted
        self._listings: dict[str, _Listing] = {}
        self.total = 0

    def glance(self) -> Iterator[str]:
        """Files of runs, as far as a short look shows. A project's folder has none but those right in it: what lies below is
        looked for one by one. Raises OSError."""
        for number, (place, listing) in enumerate(self._walk(_GLANCE_DEPTH)):
            yield from (os.path.join(self._root, place, name) for name in listing.files)
            if number >= _GLANCE or (not place and listing.project):
                break

    def runs(self) -> Iterator[RunFolder | None]:
        """Every run, and None now and then. Raises OSError when the root itself cannot be listed."""
        os.stat(self._root)
        seen: dict[str, _Listing] = {}
        for number, (place, listing) in enumerate(self._walk()):
            seen[place] = listing
            if number % 200 == 199:
                yield None
        self._listings = seen
        own: dict[str, list[str]] = {}
        for place, listing in seen.items():
            if listing.files:
                above, _, name = place.rpartition("/")
                part = HPARAMS_FOLDER.fullmatch(name) and above in seen and seen[above].files
                own.setdefault(above if part else place, []).append(place)
        self.total = len(own)
        for number, (place, places) in enumerate(own.items()):
            files = self._files(place, places, seen)
            if files:
                names = self._sidecars(place, seen)
                yield RunFolder(place or ".", files, names, self._sidecar_stamp(place, names))
            if number % 200 == 199:
                yield None

    def _walk(self, depth: int = _DEPTH) -> Iterator[tuple[str, _Listing]]:
        """Each folder once, links to folders behind all others: they may lead anywhere, also back up."""
        waiting = [""]
        links: list[str] = []
        seen: set[tuple[int, int]] = set()
        while waiting or links:
            place = waiting.pop() if waiting else links.pop()
            path = os.path.join(self._root, place)
            try:
                found = os.stat(path)
                if not stat.S_ISDIR(found.st_mode) or (found.st_dev, found.st_ino) in seen:
                    continue
                seen.add((found.st_dev, found.st_ino))
                listing = self._listings.get(place)
                if listing is None or not listing.sure or listing.mtime_ns != found.st_mtime_ns:
                    listing = self._list(path, found.st_mtime_ns)
            except OSError:
                if not place:
                    raise
                continue  # one folder that may not be read hides no other
            yield place, listing
            if (place.count("/") + 1 if place else 0) < depth:
                below = f"{place}/" if place else ""
                waiting += [below + name for name in listing.folders]
                links += [below + name for name in listing.links]

    def _files(self, place: str, places: list[str], seen: dict[str, _Listing]) -> list[RunFile]:
        files: list[RunFile] = []
        for part in places:
            for name in seen[part].files:
                path = os.path.join(self._root, part, name)
                try:
                    found = os.stat(path)
                except OSError:
                    continue
                match = _EVENT_FILE.fullmatch(name)
                started = int(match[1]) * 1000 if match and match[1] else 0
                relative = f"{part[len(place) :].lstrip('/')}/{name}" if part != place else name
                files.append(RunFile(relative, path, found.st_size, found.st_mtime_ns, started))
        return sorted(files, key=lambda file: (file.started_ms, "/" in file.name, file.name))

    def _sidecars(self, place: str, seen: dict[str, _Listing]) -> list[str]:
        names = [name for name in FILES if name in seen[place].sidecars]
        above, up = place, ""
        for _ in range(_HYDRA_ABOVE):
            if not above or any(name.endswith(_HYDRA) for name in names):
                break
            above, up = above.rpartition("/")[0], f"../{up}"
            names += [up + name for name in _HYDRA if above in seen and name in seen[above].sidecars]
        return names

    def _sidecar_stamp(self, place: str, names: list[str]) -> str:
        parts: list[str] = []
        for name in names:
            try:
                found = os.stat(os.path.join(self._root, place, name))
            except OSError:
                continue
            parts.append(f"{found.st_size}.{found.st_mtime_ns}")
        return "-".join(parts)

    def _list(self, path: str, mtime_ns: int) -> _Listing:
        listing = _Listing(mtime_ns, time.time_ns() - mtime_ns > _UNSURE_NS)
        with os.scandir(path) as entries:
            for entry in entries:
                name = entry.name
                listing.project = listing.project or name in _PROJECT
                try:
                    if entry.is_dir():
                        if name == ".hydra":
                            listing.sidecars += [
                                file for file in _HYDRA if os.path.exists(os.path.join(path, file))
                            ]
                        elif name not in _SKIPPED:
                            (listing.links if entry.is_symlink() else listing.folders).append(name)
                    elif self._wanted(name):
                        listing.files.append(name)
                    elif name in FILES:
                        listing.sidecars.append(name)
                except OSError:
                    continue
        return listing

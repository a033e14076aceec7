"""What goes from a spool, and when: runs of which a server said a week ago that it has every byte, and then the bodies (code, lists
of packages) that only such runs named.

What it said lies in `shipped/<run>`. A run is moved out of the way before it is removed, so that it is here whole or not at all,
whenever whoever removes it is killed; the next one goes on.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import orjson

from mltrack.store.client.journal import make_folder, run_folder

DONE = "shipped"
KEPT_SECONDS = 7 * 86_400.0
_GOING = ".going-"
_DIGEST = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


def note_done(root: Path, folder: Path, confirmed: Sequence[Sequence[str | int]]) -> None:
    """Write down that all of a run was sent, and what of it the server confirmed: name, size and sha256 of every file."""
    make_folder(root / DONE, root)
    part = root / DONE / f".{folder.name}.part"
    part.write_bytes(orjson.dumps(confirmed) if confirmed else b"")
    os.replace(part, root / DONE / folder.name)


def tidy(root: Path, known: Callable[[str], bool], now: float | None = None) -> int:
    """Remove what was confirmed long enough ago. ``known``: whether the server still has the run. Returns the number of runs."""
    for name in _names(root / DONE):
        if name.startswith(_GOING) and len(name) == len(_GOING) + 32:  # somebody was killed on the way
            shutil.rmtree(root / DONE / name, ignore_errors=True)
    removed = 0
    for run_id in _names(root / DONE):
        note = root / DONE / run_id
        folder = run_folder(root, run_id)
        if run_id.startswith(".") or not _is_old(note, now):
            continue
        if not folder.exists():
            note.unlink(missing_ok=True)
        elif _is_as_confirmed(folder, note) and not _is_open(root, run_id) and known(run_id):
            removed += _remove(root, folder, note)
    return removed


def tidy_bodies(root: Path, now: float | None = None) -> int:
    """Remove bodies that no run here names, and none has named for as long as runs are kept. Returns how many."""
    for name in _names(root / DONE):
        digest = name.removeprefix(_GOING)
        if digest != name and len(digest) == 64:  # somebody was killed on the way
            _put_back(root / DONE / name, root / "blobs" / digest[:2] / digest)
    old = [
        path for path in sorted((root / "blobs").glob("*/*")) if len(path.name) == 64 and _is_old(path, now)
    ]
    if not old:
        return 0
    # What a run is about to name it has touched just now.
    named = {name for folder in (root / "runs").glob("*/*") for name in bodies_named(folder)}
    return sum(_remove_body(root, path, now) for path in old if path.name not in named)


def bodies_named(folder: Path) -> set[str]:
    """Every sha256 that a run's journals speak of, of bodies as of artifacts."""
    found: set[str] = set()
    for path in folder.glob("meta.*"):
        with suppress(FileNotFoundError), path.open("rb") as file:
            found.update(digest.decode() for line in file for digest in _DIGEST.findall(line))
    return found


def _remove_body(root: Path, path: Path, now: float | None) -> int:
    make_folder(root / DONE, root)
    going = root / DONE / f"{_GOING}{path.name}"
    try:
        os.rename(path, going)
    except FileNotFoundError:
        return 0  # somebody else was faster
    if not _is_old(going, now):
        _put_back(going, path)  # named anew this very moment; who comes later finds none, and writes it
        return 0
    going.unlink(missing_ok=True)
    return 1


def _put_back(going: Path, path: Path) -> None:
    with suppress(FileNotFoundError):  # somebody else was faster
        if path.exists():
            going.unlink()
        else:
            os.rename(going, path)


def _remove(root: Path, folder: Path, note: Path) -> int:
    going = root / DONE / f"{_GOING}{folder.name}"
    try:
        os.rename(folder, going)
    except OSError:
        return 0  # somebody else was faster
    if _is_open(root, folder.name):
        with suppress(OSError):
            os.rename(going, folder)  # the run goes on this very moment: a marker comes before the first byte
        return 0
    shutil.rmtree(going, ignore_errors=True)
    note.unlink(missing_ok=True)
    return 1


def _is_old(note: Path, now: float | None) -> bool:
    try:
        return (time.time() if now is None else now) - note.stat().st_mtime > KEPT_SECONDS
    except FileNotFoundError:
        return False


def _is_open(root: Path, run_id: str) -> bool:
    return any(name.endswith(f".{run_id}") for name in _names(root / "open"))


def _is_as_confirmed(folder: Path, note: Path) -> bool:
    """Whether nothing is in the folder but what the server has, byte by byte."""
    try:
        confirmed = {
            str(name): (size, digest) for name, size, digest in orjson.loads(note.read_bytes() or b"[]")
        }
    except (OSError, ValueError, TypeError):
        return False
    found = files_below(folder)
    return bool(confirmed) and all(
        confirmed.get(path.relative_to(folder).as_posix()) == (path.stat().st_size, digest_of(path))
        for path in found
    )


def files_below(folder: Path) -> list[Path]:
    """Everything in a folder and below it that is no folder, links included."""
    found: list[Path] = []
    for base, folders, names in os.walk(folder):
        found += [Path(base) / name for name in names]
        found += [Path(base) / name for name in folders if (Path(base) / name).is_symlink()]
    return sorted(found)


def digest_of(path: Path, size: int | None = None) -> str:
    """The sha256 of a file, or of its first ``size`` bytes; "" when there are fewer, and for what is no plain file."""
    if path.is_symlink() or not path.is_file():
        return ""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while size is None or size > 0:
            piece = file.read(1 << 20 if size is None else min(size, 1 << 20))
            if not piece:
                return "" if size is not None else digest.hexdigest()
            digest.update(piece)
            size = None if size is None else size - len(piece)
    return digest.hexdigest()


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []

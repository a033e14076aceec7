"""The files below a run's artifacts: their tree, and one of them opened. Links are shown, never followed; what is no regular file
is never opened."""

from __future__ import annotations

import os
import stat
from io import BufferedReader
from pathlib import Path

from mltrack.store.errors import BadInput, NotFound


def open_below(root: Path, path: str) -> BufferedReader:
    """A regular file below ``root``, opened without following a link on the way. Raises NotFound or BadInput."""
    parts = path.split("/")
    if path.startswith("/") or any(part in ("", ".", "..") for part in parts) or "\0" in path:
        raise BadInput("The path must be relative, without '..'.")
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = -1
    try:
        folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in parts[:-1]:
                inner = os.open(part, flags | os.O_DIRECTORY, dir_fd=folder)
                os.close(folder)
                folder = inner
            # Looked at before it is opened: opening some devices does things.
            if not stat.S_ISREG(os.stat(parts[-1], dir_fd=folder, follow_symlinks=False).st_mode):
                raise BadInput(f"{path} is a link or no file; it is not opened.")
            descriptor = os.open(parts[-1], flags, dir_fd=folder)
        finally:
            os.close(folder)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise BadInput(f"{path} is no regular file; it is not opened.")
        return os.fdopen(descriptor, "rb")
    except OSError as error:
        if descriptor >= 0:
            os.close(descriptor)
        raise NotFound(f"{path} cannot be read: {error.strerror}.") from error


def walk(root: Path) -> list[tuple[str, str, int, str]]:
    """Depth first, folders with the sum of what is in them; unfinished files of a running copy are left out."""
    found: list[tuple[str, str, int, str]] = []

    def enter(folder: str, above: str, depth: int) -> int:
        try:
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            found.append((above.rstrip("/"), "other", 0, error.strerror or "cannot be read"))
            return 0
        total = 0
        for entry in entries:
            path = above + entry.name
            try:
                facts = entry.stat(follow_symlinks=False)
            except OSError:
                continue  # it went while we looked
            mode = facts.st_mode
            if stat.S_ISLNK(mode):
                found.append((path, "link", 0, _target(entry.path)))
            elif stat.S_ISDIR(mode):
                at = len(found)
                found.append((path, "folder", 0, ""))
                size = enter(entry.path, path + "/", depth + 1) if depth < 60 else 0
                found[at] = (path, "folder", size, "")
                total += size
            elif stat.S_ISREG(mode):
                if entry.name.startswith(".") and entry.name.endswith(".part"):
                    continue
                found.append((path, "file", facts.st_size, ""))
                total += facts.st_size
            else:
                found.append((path, "other", 0, _what(mode)))
        return total

    enter(str(root), "", 0)
    return [(printable(path), kind, size, printable(detail)) for path, kind, size, detail in found]


def printable(path: str) -> str:
    """A path as JSON can hold it; a name that is no UTF-8 cannot be opened from here, and shows its bytes."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _target(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return "?"


def _what(mode: int) -> str:
    kinds = (
        (stat.S_ISFIFO, "pipe"),
        (stat.S_ISSOCK, "socket"),
        (stat.S_ISBLK, "device"),
        (stat.S_ISCHR, "device"),
    )
    return next((word for test, word in kinds if test(mode)), "no file")

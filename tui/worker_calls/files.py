"""The files of a run: their tree, and what one of them looks like. Links are shown, never followed; what is no regular
file is never opened."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import Any

from mltrack.store.errors import BadInput, NotFound
from mltrack.store.machines import place_over_there
from mltrack.store.records import RecordedFile, Run
from mltrack.store.ssh_address import SCHEME
from mltrack.store.store import Store
from mltrack.tui.draw.numbers import format_bytes
from mltrack.tui.file_preview import Preview, preview
from mltrack.tui.pickles import WARNING, contains_pickle
from mltrack.tui.raster import Canvas, canvas_of
from mltrack.tui.worker_calls.logged import FOLDER, logged_entries, logged_preview

_MOST_ENTRIES = 20_000
_HEAD_BYTES = 4 << 20
_HASHED_BYTES = 32 << 20
# Others wait for this process, too; who looks asks again.
_SERVER_SECONDS = 0.3
_HOW = {
    "copy": "copied when it was logged",
    "hardlink": "a second name of a read-only file",
    "reflink": "shares its blocks with the original until one changes",
    "text": "written by the run",
}


def files(store: Store, run_id: str) -> dict[str, Any]:
    """Everything below the run's artifacts: [path, kind, bytes, detail] each, folders before what is in them.

    ``kind`` is folder, file, link, other, or logged: in no file of its own (worker_calls/logged.py). The detail is where a link
    points, or what else it is. "more" counts what is left out of a very large tree.
    """
    run = _run(store, run_id)
    if run.source.startswith(("http://", "https://")):
        return _files_at_server(store, run_id)
    root = files_root(run)
    entries: list[list[Any]] = []
    more = 0
    if root is not None:
        for path, kind, size, detail in _walk(root):
            if len(entries) >= _MOST_ENTRIES:
                more += 1
                continue
            entries.append([path, kind, size, detail])
    recorded = {file.path: file for file in _recorded(store, run)}
    found = {entry[0] for entry in entries}
    far = [file for path, file in recorded.items() if file.copy and path not in found]
    more += max(0, len(entries) + len(far) - _MOST_ENTRIES)
    entries = _with_far(entries, far[: max(0, _MOST_ENTRIES - len(entries))])
    entries += logged_entries(run)
    gone = sorted(recorded.keys() - found - {file.path for file in far})
    return {
        "entries": entries,
        "more": more,
        "gone": gone[:100],
        "root": "" if root is None else str(root),
        "why": "" if entries else "No files were logged." if not gone else "The logged files are gone.",
    }


def file_preview(
    store: Store, run_id: str, path: str, width: int, height: int, canvas: Sequence[int] | None = None
) -> dict[str, Any]:
    """What a file looks like: "lines" of [text, style] pairs, "facts" likewise, "kind" a word. ``canvas`` as for
    `compare_pictures`: "pictures" lie over the lines.

    Raises NotFound when it is gone, BadInput for what is no regular file.
    """
    run = _run(store, run_id)
    if path.startswith(f"{FOLDER}/"):
        return logged_preview(run, path, width, height, canvas_of(canvas))
    look = _Look(path, max(20, width), max(5, height), canvas_of(canvas))
    if run.source.startswith(("http://", "https://")):
        return _preview_at_server(store, run_id, look)
    root = files_root(run)
    recorded = next((file for file in _recorded(store, run) if file.path == path), None)
    if recorded is not None and recorded.copy.startswith(SCHEME):
        return _preview_over_there(run, recorded)
    if recorded is not None and recorded.copy and not (root is not None and os.path.lexists(root / path)):
        return _preview_far(store, run_id, recorded, look)
    if root is None:
        raise NotFound("The run has no files.")
    with open_below(root, path) as file:
        facts = os.fstat(file.fileno())
        head = file.read(_HEAD_BYTES)
        dangerous = contains_pickle(path, head, file)
        shown = look.at(head, facts.st_size)
        lines = _facts(recorded, facts, file, str(root / path), followed=bool(run.source))
    if dangerous:
        lines.append([["! ", "red"], [WARNING, "red bold"]])
    return _answer(path, shown, lines, dangerous)


@dataclass(frozen=True)
class _Look:
    """What is looked at, and how much room there is for it."""

    path: str
    width: int
    height: int
    canvas: Canvas | None

    def at(self, head: bytes, size: int) -> Preview:
        return preview(self.path, head, size, self.width, self.height, canvas=self.canvas)


def _answer(path: str, shown: Preview, facts: list[Any], dangerous: bool) -> dict[str, Any]:
    return {
        "path": path,
        "kind": shown.kind,
        "facts": facts,
        "lines": shown.lines,
        "pictures": shown.placed(),
        "pickle": dangerous,
    }


CALLS = (files, file_preview)


def _files_at_server(store: Store, run_id: str) -> dict[str, Any]:
    """As ``files``; "again" while the server has not answered."""
    found = store.files_at_server(run_id, _SERVER_SECONDS)
    if found is None:
        return {"entries": [], "more": 0, "gone": [], "root": "", "why": "No files were logged."}
    sizes: dict[str, int] = {}
    for path, folder, size in found.entries:
        while not folder and "/" in path:
            path = path.rpartition("/")[0]
            sizes[path] = sizes.get(path, 0) + size
    entries = [
        [path, "folder" if folder else "file", sizes.get(path, 0) if folder else size, ""]
        for path, folder, size in found.entries
    ]
    why = "No files were logged."
    if found.waiting:
        why = "The server is being asked for the files ..."
    elif found.problem:
        why = found.problem
    answer = {
        "entries": entries,
        "more": int(found.more),
        "gone": [],
        "root": "",
        "why": "" if entries else why,
    }
    return {**answer, "again": True} if found.waiting else answer


def _preview_at_server(store: Store, run_id: str, look: _Look) -> dict[str, Any]:
    """As ``file_preview``, of the file's beginning; "again" while the server has not sent it."""
    path = look.path
    found = store.head_at_server(run_id, path, _SERVER_SECONDS)
    if found is None or found.problem:
        raise NotFound(
            f"{path} cannot be read: {found.problem if found is not None else 'it is on no server'}"
        )
    if found.waiting:
        lines = [[["The server is being asked for it ...", "dim"]]]
        return {"path": path, "kind": "", "facts": [], "lines": lines, "pickle": False, "again": True}
    dangerous = contains_pickle(path, found.data, BytesIO(found.data))
    shown = look.at(found.data, found.size)
    facts: list[Any] = [
        [["size    ", "dim"], [format_bytes(found.size), ""]],
        [["at      ", "dim"], [store.web_address(run_id, path), ""]],
    ]
    if dangerous:
        facts.append([["! ", "red"], [WARNING, "red bold"]])
    return _answer(path, shown, facts, dangerous)


def _with_far(entries: list[list[Any]], far: list[RecordedFile]) -> list[list[Any]]:
    """The tree with files that lie only in an object store, in the folders where they were logged."""
    if not far:
        return entries
    tree = {str(entry[0]): entry for entry in entries}
    for file in far:
        tree[file.path] = [file.path, "file", file.size, file.copy]
        above = file.path
        while "/" in above:
            above = above.rpartition("/")[0]
            folder = tree.setdefault(above, [above, "folder", 0, ""])
            folder[2] += file.size
    return sorted(tree.values(), key=lambda entry: str(entry[0]).split("/"))


def _recorded(store: Store, run: Run) -> list[RecordedFile]:
    """What was logged; of a run on another machine with the address of each file there, unless an object store has it."""
    there = place_over_there(run.source, run.run_id)
    return [
        file if file.copy or not there else replace(file, copy=f"{SCHEME}{there}/artifacts/{file.path}")
        for file in store.details(run.run_id).files
    ]


def _preview_over_there(run: Run, recorded: RecordedFile) -> dict[str, Any]:
    """A file on another machine, whose journals alone come over."""
    place = recorded.copy.removeprefix(SCHEME)
    facts: list[Any] = [
        [["size    ", "dim"], [format_bytes(recorded.size), ""]],
        [["sha256  ", "dim"], [recorded.sha256[:16] + "…", ""]],
        [["at      ", "dim"], [place, ""]],
    ]
    lines = [[[f"It lies on another machine. `mltrack-tui {run.source}` shows it there.", "dim"]]]
    return {"path": recorded.path, "kind": "", "facts": facts, "lines": lines, "pickle": False}


def _preview_far(store: Store, run_id: str, recorded: RecordedFile, look: _Look) -> dict[str, Any]:
    """As ``file_preview``, of a file in an object store; "again" while that has not sent its beginning."""
    path = recorded.path
    found = store.head_far(run_id, path, _SERVER_SECONDS)
    if found is None or found.problem:
        raise NotFound(f"{path} cannot be read: {found.problem if found is not None else 'it is gone'}")
    if found.waiting:
        lines = [[["The object store is being asked for it ...", "dim"]]]
        return {"path": path, "kind": "", "facts": [], "lines": lines, "pickle": False, "again": True}
    dangerous = contains_pickle(path, found.data, BytesIO(found.data))
    shown = look.at(found.data, recorded.size)
    proven = "  ✓ read back when it was sent"
    if recorded.size == len(found.data):
        same = hashlib.sha256(found.data).hexdigest() == recorded.sha256
        proven = "  ✓ as logged" if same else "  changed since it was logged"
    facts: list[Any] = [
        [["size    ", "dim"], [format_bytes(recorded.size), ""]],
        [
            ["sha256  ", "dim"],
            [recorded.sha256[:16] + "…", ""],
            [proven, "green" if "✓" in proven else "red"],
        ],
        [["at      ", "dim"], [recorded.copy, ""]],
    ]
    if dangerous:
        facts.append([["! ", "red"], [WARNING, "red bold"]])
    return _answer(path, shown, facts, dangerous)


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


def _run(store: Store, run_id: str) -> Run:
    runs = store.runs([run_id])
    if not runs:
        raise NotFound("The run is not in the store any more.")
    return runs[0]


def files_root(run: Run) -> Path | None:
    """Where the files lie: of a run that is followed, in its tool's folder."""
    root = run.artifacts
    return root if root is not None and (run.source or not root.is_symlink()) else None


def _walk(root: Path) -> list[tuple[str, str, int, str]]:
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
    return [(_text(path), kind, size, _text(detail)) for path, kind, size, detail in found]


def _text(path: str) -> str:
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


def _facts(
    recorded: RecordedFile | None, facts: os.stat_result, file: BufferedReader, place: str, followed: bool
) -> list[list[list[str]]]:
    lines: list[list[list[str]]] = [[["size    ", "dim"], [format_bytes(facts.st_size), ""]]]
    if followed:
        lines.append([["stored  ", "dim"], ["where its own tool put it", ""]])
    elif recorded is None:
        lines.append([["logged  ", "dim"], ["not recorded: it was put here by something else", "yellow"]])
    else:
        lines.append([["stored  ", "dim"], [_HOW.get(recorded.how, recorded.how or "not recorded"), ""]])
        same = ["", ""]
        if recorded.size != facts.st_size:
            same = [f"  changed: it was {format_bytes(recorded.size)} when it was logged", "red"]
        elif facts.st_size <= _HASHED_BYTES:
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            same = (
                ["  ✓ as logged", "green"]
                if digest == recorded.sha256
                else ["  changed since it was logged", "red"]
            )
        lines.append([["sha256  ", "dim"], [recorded.sha256[:16] + "…", ""], same])
        if recorded.copy:
            lines.append([["also at ", "dim"], [recorded.copy, ""]])
    lines.append([["path    ", "dim"], [_text(place), ""]])
    return lines

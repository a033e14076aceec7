"""The files of a run: their tree, and what one of them looks like. Links are shown, never followed; what is no regular
file is never opened."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mltrack.store.errors import NotFound
from mltrack.store.machines import files_over_there, place_over_there
from mltrack.store.records import RecordedFile, Run
from mltrack.store.run_files import open_below, printable, walk
from mltrack.store.ssh_address import SCHEME
from mltrack.store.store import Store
from mltrack.tui.draw.numbers import format_bytes
from mltrack.tui.file_preview import Preview, preview
from mltrack.tui.kept_files import ASKED_SECONDS
from mltrack.tui.pickles import WARNING, contains_pickle
from mltrack.tui.raster import Canvas, canvas_of
from mltrack.tui.worker_calls.logged import FOLDER, logged_entries, logged_preview

if TYPE_CHECKING:
    from mltrack.store.far_files import FarFiles

_MOST_ENTRIES = 20_000
_HEAD_BYTES = 4 << 20
_HASHED_BYTES = 32 << 20
_ASKED = "The other machine is being asked for it ..."
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
    machine, told = files_over_there(run), None
    root = files_root(run) if machine is None else None
    entries: list[list[Any]] = []
    more = 0
    if machine is not None:
        told = machine.listing(run_id, ASKED_SECONDS)
        if told.answer is not None:
            listed, more = told.answer
            entries = [_with_place(run, entry) for entry in listed]
    if root is not None:
        for path, kind, size, detail in walk(root):
            if len(entries) >= _MOST_ENTRIES:
                more += 1
                continue
            entries.append([path, kind, size, detail])
    # Until that machine has said what is there, what was logged stands for it.
    files = (
        store.details(run_id).files if told is not None and told.answer is not None else _recorded(store, run)
    )
    recorded = {file.path: file for file in files}
    found = {entry[0] for entry in entries}
    far = [file for path, file in recorded.items() if file.copy and path not in found]
    more += max(0, len(entries) + len(far) - _MOST_ENTRIES)
    entries = _with_far(entries, far[: max(0, _MOST_ENTRIES - len(entries))])
    entries += logged_entries(run)
    gone = sorted(recorded.keys() - found - {file.path for file in far})
    why = "No files were logged." if not gone else "The logged files are gone."
    if told is not None and told.answer is None:
        why = _ASKED if told.waiting else f"{told.problem}."
    answer = {
        "entries": entries,
        "more": more,
        "gone": gone[:100],
        "root": "" if root is None else str(root),
        "why": "" if entries else why,
    }
    return {**answer, "again": True} if told is not None and told.waiting else answer


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
    if (machine := files_over_there(run)) is not None:
        return _preview_over_there(run, machine, recorded, look)
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
    found = store.files_at_server(run_id, ASKED_SECONDS)
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
    found = store.head_at_server(run_id, path, ASKED_SECONDS)
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


def _with_place(run: Run, entry: list[Any]) -> list[Any]:
    """An entry of a run on another machine; of a file with its address there."""
    path, kind, size, detail = entry
    there = place_over_there(run.source, run.run_id)
    return [path, kind, size, f"{SCHEME}{there}/artifacts/{path}" if kind == "file" else detail]


def _preview_over_there(
    run: Run, machine: FarFiles, recorded: RecordedFile | None, look: _Look
) -> dict[str, Any]:
    """As ``file_preview``, of a file on another machine; "again" while that has not sent its beginning."""
    told = machine.head(run.run_id, look.path, ASKED_SECONDS)
    facts: list[Any] = []
    if told.answer is not None:
        facts.append([["size    ", "dim"], [format_bytes(told.answer[1]), ""]])
    elif recorded is not None:
        facts.append([["size    ", "dim"], [format_bytes(recorded.size), ""]])
    if recorded is not None:
        proven = ["", ""]
        if told.answer is not None and told.answer[1] == len(told.answer[0]):
            same = hashlib.sha256(told.answer[0]).hexdigest() == recorded.sha256
            proven = ["  ✓ as logged", "green"] if same else ["  changed since it was logged", "red"]
        facts.append([["sha256  ", "dim"], [recorded.sha256[:16] + "…", ""], proven])
    place = f"{place_over_there(run.source, run.run_id)}/artifacts/{look.path}"
    facts.append([["at      ", "dim"], [place, ""]])
    if told.answer is None:
        line = [[_ASKED, "dim"]] if told.waiting else [[f"{told.problem}.", "yellow"]]
        answer = {"path": look.path, "kind": "", "facts": facts, "lines": [line], "pickle": False}
        return {**answer, "again": True} if told.waiting else answer
    data, size = told.answer
    dangerous = contains_pickle(look.path, data, BytesIO(data))
    if dangerous:
        facts.append([["! ", "red"], [WARNING, "red bold"]])
    return _answer(look.path, look.at(data, size), facts, dangerous)


def _preview_far(store: Store, run_id: str, recorded: RecordedFile, look: _Look) -> dict[str, Any]:
    """As ``file_preview``, of a file in an object store; "again" while that has not sent its beginning."""
    path = recorded.path
    found = store.head_far(run_id, path, ASKED_SECONDS)
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


def _run(store: Store, run_id: str) -> Run:
    runs = store.runs([run_id])
    if not runs:
        raise NotFound("The run is not in the store any more.")
    return runs[0]


def files_root(run: Run) -> Path | None:
    """Where the files lie: of a run that is followed, in its tool's folder."""
    root = run.artifacts
    return root if root is not None and (run.source or not root.is_symlink()) else None


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
    lines.append([["path    ", "dim"], [printable(place), ""]])
    return lines

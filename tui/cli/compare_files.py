"""The same file of two runs: which differ, and how."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mltrack.store.client.artifacts import regular_files
from mltrack.store.errors import BadInput
from mltrack.store.machines import files_over_there
from mltrack.store.mirror_files import PIECE_BYTES
from mltrack.tui.comparison import text_diff
from mltrack.tui.draw.numbers import format_bytes
from mltrack.tui.kept_files import COMMAND_SECONDS

if TYPE_CHECKING:
    from mltrack.store.far_files import Told
    from mltrack.store.records import Run

Line = list[list[str]]
# What a person would read; above it only whether the bytes are the same is said.
_TEXT_BYTES = 2 << 20
_BLOCK = 1 << 20


class NotYet(Exception):
    """Another machine has not answered within the time that there was."""


class _Files:
    """The files of one run: of this machine, or of another, from which they come when they are compared. Raises BadInput, NotYet."""

    def __init__(self, run: Run, seconds: float) -> None:
        self.name = run.name
        self._run_id = run.run_id
        self._seconds = seconds
        self._machine = files_over_there(run)
        self._paths: dict[str, Path] = {}
        if self._machine is not None:
            entries, _ = self._told(self._machine.listing(run.run_id, seconds))
            self.sizes = {path: size for path, kind, size, _ in entries if kind == "file"}
            return
        if run.artifacts is not None and run.artifacts.is_dir():
            self._paths = {name: path for path, name in regular_files(run.artifacts)}
        self.sizes = {name: path.stat().st_size for name, path in self._paths.items()}

    def blocks(self, name: str) -> Iterator[bytes]:
        """The bytes of a file; of another machine's at most the first of it (PIECE_BYTES)."""
        if self._machine is not None:
            yield self._told(self._machine.head(self._run_id, name, self._seconds))[0]
            return
        with self._paths[name].open("rb") as file:
            while block := file.read(_BLOCK):
                yield block

    def is_known(self, name: str) -> bool:
        """Whether ``blocks`` gives all of a file."""
        return self._machine is None or self.sizes[name] <= PIECE_BYTES

    def _told(self, told: Told) -> Any:
        if told.waiting:
            raise NotYet
        if told.problem:
            raise BadInput(f"{told.problem}.")
        return told.answer


def file_lines(one: Run, other: Run, name: str = "", seconds: float = COMMAND_SECONDS) -> list[Line]:
    """The diff of a file that both have; without ``name`` all files of both, with whether they are the same. ``seconds``: how long to
    wait for another machine. Raises BadInput, NotYet."""
    mine, theirs = _Files(one, seconds), _Files(other, seconds)
    if name:
        if name not in mine.sizes or name not in theirs.sizes:
            lacks = one.name if name not in mine.sizes else other.name
            both = ", ".join(sorted(mine.sizes.keys() & theirs.sizes.keys())[:8]) or "none"
            raise BadInput(f"{lacks} has no file {name}; both have {both}.")
        return _diff(mine, theirs, name)
    lines: list[Line] = []
    wide = max((len(key) for key in {*mine.sizes, *theirs.sizes}), default=0)
    for key in sorted({*mine.sizes, *theirs.sizes}):
        if key not in mine.sizes or key not in theirs.sizes:
            said, style = f"only {one.name if key in mine.sizes else other.name} has it", "yellow"
        elif (same := _same(mine, theirs, key)) is None:
            said, style = "as large in both; too large to be fetched and compared", "yellow"
        elif same:
            said, style = "the same", "dim"
        else:
            sizes = " and ".join(format_bytes(files.sizes[key]) for files in (mine, theirs))
            said, style = f"differs   {sizes}", "yellow"
        lines.append([[f" {key:<{wide}}  ", ""], [said, style]])
    return lines or [[[" Neither run has files here.", "dim"]]]


def _diff(left: _Files, right: _Files, name: str) -> list[Line]:
    same = _same(left, right, name)
    if same is None:
        return [[[f" {name} is as large in both, and too large to be fetched and compared.", "yellow"]]]
    if same:
        return [[[f" {name} is the same in both ({format_bytes(left.sizes[name])}).", "green"]]]
    if max(left.sizes[name], right.sizes[name]) > _TEXT_BYTES:
        return [[[f" {name} differs and is too large to be shown.", "yellow"]]]
    texts = [b"".join(files.blocks(name)) for files in (left, right)]
    if any(b"\0" in text for text in texts):
        return [[[f" {name} differs, and is no text.", "yellow"]]]
    decoded = [text.decode("utf-8", "backslashreplace") for text in texts]
    diff = text_diff(decoded[0], decoded[1], (f"{left.name}/{name}", f"{right.name}/{name}"))
    return [[[f" {line}", style]] for line, style in diff] or [
        [[f" {name} differs only in how its lines end.", "yellow"]]
    ]


def _same(left: _Files, right: _Files, name: str) -> bool | None:
    """None where that cannot be said."""
    if left.sizes[name] != right.sizes[name]:
        return False
    if not left.is_known(name) or not right.is_known(name):
        return None
    digests = []
    for files in (left, right):
        digest = hashlib.sha256()
        for block in files.blocks(name):
            digest.update(block)
        digests.append(digest.digest())
    return digests[0] == digests[1]

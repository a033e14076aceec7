"""The same file of two runs: which differ, and how."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mltrack.store.errors import BadInput
from mltrack.tui.comparison import text_diff
from mltrack.tui.draw.numbers import format_bytes

if TYPE_CHECKING:
    from mltrack.store.records import Run

Line = list[list[str]]
# What a person would read; above it only whether the bytes are the same is said.
_TEXT_BYTES = 2 << 20
_BLOCK = 1 << 20


def file_lines(one: Run, other: Run, name: str = "") -> list[Line]:
    """The diff of a file that both have; without ``name`` all files of both, with whether they are the same. Raises BadInput."""
    mine, theirs = _files(one), _files(other)
    if name:
        if name not in mine or name not in theirs:
            lacks = one.name if name not in mine else other.name
            both = ", ".join(sorted(mine.keys() & theirs.keys())[:8]) or "none"
            raise BadInput(f"{lacks} has no file {name}; both have {both}.")
        return _diff(one, other, name, mine[name], theirs[name])
    lines: list[Line] = []
    wide = max((len(key) for key in {*mine, *theirs}), default=0)
    for key in sorted({*mine, *theirs}):
        if key not in mine or key not in theirs:
            said, style = f"only {one.name if key in mine else other.name} has it", "yellow"
        elif _same(mine[key], theirs[key]):
            said, style = "the same", "dim"
        else:
            sizes = " and ".join(format_bytes(path.stat().st_size) for path in (mine[key], theirs[key]))
            said, style = f"differs   {sizes}", "yellow"
        lines.append([[f" {key:<{wide}}  ", ""], [said, style]])
    return lines or [[[" Neither run has files here.", "dim"]]]


def _diff(one: Run, other: Run, name: str, left: Path, right: Path) -> list[Line]:
    if _same(left, right):
        return [[[f" {name} is the same in both ({format_bytes(left.stat().st_size)}).", "green"]]]
    if max(left.stat().st_size, right.stat().st_size) > _TEXT_BYTES:
        return [[[f" {name} differs and is too large to be shown.", "yellow"]]]
    texts = [path.read_bytes() for path in (left, right)]
    if any(b"\0" in text for text in texts):
        return [[[f" {name} differs, and is no text.", "yellow"]]]
    decoded = [text.decode("utf-8", "backslashreplace") for text in texts]
    diff = text_diff(decoded[0], decoded[1], (f"{one.name}/{name}", f"{other.name}/{name}"))
    return [[[f" {line}", style]] for line, style in diff] or [
        [[f" {name} differs only in how its lines end.", "yellow"]]
    ]


def _same(left: Path, right: Path) -> bool:
    if left.stat().st_size != right.stat().st_size:
        return False
    with left.open("rb") as first, right.open("rb") as second:
        while block := first.read(_BLOCK):
            if block != second.read(_BLOCK):
                return False
    return True


def _files(run: Run) -> dict[str, Path]:
    from mltrack.store.client.artifacts import regular_files

    if run.artifacts is None or not run.artifacts.is_dir():
        return {}
    return {name: path for path, name in regular_files(run.artifacts)}

"""Reading what is new in a journal file: whole lines behind a remembered position, whatever happened to the file."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import orjson

from mltrack.store.client.journal import FORMAT

SLICE_BYTES = 256 * 1024
# A line that does not end within this is not a record of ours; reading on for its end would eat the memory.
LINE_BYTES = 64 * 1024 * 1024
_TAIL = 256


class JournalProblem(Exception):
    """The file cannot be folded as it is; the message names the reason."""


@dataclass(frozen=True, slots=True)
class JournalName:
    """What a journal file says it is: its first line."""

    jid: str
    kind: str
    run_id: str
    attempt: str
    rank: int
    role: str
    header: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Slice:
    """Complete lines between two positions. ``restarted``: the file was rewritten, reading began again at its start."""

    lines: list[bytes]
    start: int
    end: int
    size: int
    tail: str
    restarted: bool

    @property
    def offsets(self) -> list[int]:
        """Where each line begins in the file."""
        lengths = (len(line) + 1 for line in self.lines[:-1])
        return list(accumulate(lengths, initial=self.start))


def file_kind(name: str) -> tuple[str, str] | None:
    """``(kind, jid)`` of a journal file name, or None."""
    parts = name.split(".")
    if len(parts) == 3 and parts[0] in ("meta", "points") and parts[2] == "jsonl" and len(parts[1]) == 16:
        return parts[0], parts[1]
    return None


def read_header(path: Path) -> JournalName | None:
    """The first line; None while it is not complete. Raises JournalProblem for a foreign, damaged or newer file."""
    try:
        with path.open("rb") as file:
            line = file.readline(65536)
    except OSError as error:
        raise JournalProblem(f"{path.name} cannot be read ({error.strerror})") from None
    if not line.endswith(b"\n") or b"\0" in line:
        if len(line) == 65536:
            raise JournalProblem(f"{path.name} line 1 is not a journal header")
        return None
    try:
        head = orjson.loads(line)
        version = head["mltrack"]
        if not isinstance(version, int) or version < 1:
            raise ValueError("version")
        if version > FORMAT:
            raise JournalProblem(
                f"{path.name} has journal format {version}; this mltrack reads up to {FORMAT}: update it"
            )
        name = JournalName(
            str(head["jid"]),
            str(head["kind"]),
            str(head["run"]),
            str(head["attempt"]),
            int(head.get("rank", 0)),
            str(head.get("role", "main")),
            head,
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise JournalProblem(f"{path.name} line 1 is not a journal header ({type(error).__name__})") from None
    if name.kind not in ("meta", "points") or len(name.run_id) != 32 or not -1 < name.rank < 1 << 31:
        raise JournalProblem(f"{path.name} line 1 is not a journal header")
    return name


def read_slice(path: Path, position: int, tail: str, limit: int = SLICE_BYTES) -> Slice | None:
    """Up to ``limit`` bytes of whole lines behind ``position``; None when there is nothing new.

    ``tail`` is what the last slice returned for the bytes before ``position``: when they differ now, the file was
    rewritten and is read again from its start (folding it twice is harmless). Raises OSError.
    """
    size = os.stat(path).st_size
    if size <= position:
        return None
    with path.open("rb") as file:
        restarted = False
        before = b""
        if position:
            start = max(0, position - _TAIL)
            file.seek(start)
            before = file.read(position - start)
            if _digest(before) != tail:
                position, before, restarted = 0, b"", True
                file.seek(0)
        data = file.read(limit)
        while b"\n" not in data and b"\0" not in data and len(data) < LINE_BYTES:
            more = file.read(limit * 4)
            if not more:
                break
            data += more
    hole = data.find(b"\0")
    if hole >= 0:
        data = data[:hole]
    whole = data.rfind(b"\n") + 1
    if whole == 0:
        return None
    data = data[:whole]
    lines = data[:-1].split(b"\n")
    return Slice(lines, position, position + whole, size, _digest((before + data)[-_TAIL:]), restarted)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data[-_TAIL:]).hexdigest()[:32]

"""Reading what is new in a journal file: whole lines behind a remembered position, whatever happened to the file."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from mltrack.store.client.journal import FORMAT

SLICE_BYTES = 256 * 1024
# A line that does not end within this is not a record of ours; reading on for its end would eat the memory.
LINE_BYTES = 64 * 1024 * 1024
_TAIL = 256
_LAST_BYTES = 64 * 1024
_JID = re.compile(r"[0-9a-f]{16}")
_RUN_ID = re.compile(r"[0-9a-f]{32}")
# A rank beyond every cluster is damage; the fold packs ranks into 18 bits.
_RANKS = 1 << 18


class JournalProblem(Exception):
    """The file cannot be folded as it is; the message names the reason."""


@dataclass(frozen=True, slots=True)
class JournalName:
    """What a journal file says it is: its first line. ``owner``: whose it is by the kernel, "" where its word counts."""

    jid: str
    kind: str
    run_id: str
    attempt: str
    rank: int
    role: str
    header: dict[str, Any]
    owner: str = ""


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
        with _open(path) as file:
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
            _clean(head),
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise JournalProblem(f"{path.name} line 1 is not a journal header ({type(error).__name__})") from None
    # The ids become parts of paths (markers, signal files): anything but hexadecimal digits could lead out of the store.
    right = (
        name.kind in ("meta", "points")
        and _JID.fullmatch(name.jid)
        and _RUN_ID.fullmatch(name.run_id)
        and len(name.attempt) <= 100
        and 0 <= name.rank < _RANKS
    )
    if not right:
        raise JournalProblem(f"{path.name} line 1 is not a journal header")
    return name


def last_record(path: Path, most: int = _LAST_BYTES) -> dict[str, Any]:
    """The last record of a meta journal: "close" is the one behind which nothing follows. {} for one that cannot be read, or has
    more than ``most`` bytes. Raises OSError."""
    with _open(path) as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - most))
        last = file.read().rstrip(b"\n").rpartition(b"\n")[2]
    try:
        record = orjson.loads(last)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _open(path: Path) -> BinaryIO:
    """The file for reading; OSError when it is none (opening a pipe that somebody put there would wait forever)."""
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a regular file")
    return file


def _clean(head: dict[str, Any]) -> dict[str, Any]:
    """The identity fields of line 1, of the types the evidence rules expect; others are left out, which proves nothing."""
    kept: dict[str, Any] = {
        name: head[name]
        for name in ("host", "machine", "boot", "pidns", "pstart")
        if isinstance(head.get(name), str)
    }
    for name in ("pid", "time"):
        if type(head.get(name)) is int and 0 <= head[name] < 1 << 62:
            kept[name] = head[name]
    return kept


def read_slice(path: Path, position: int, tail: str, limit: int = SLICE_BYTES) -> Slice | None:
    """Up to ``limit`` bytes of whole lines behind ``position``; None when there is nothing new.

    ``tail`` is what the last slice returned for the bytes before ``position``: when they differ now, or the file is
    shorter, it was rewritten and is read again from its start (folding it twice is harmless). Raises OSError.
    """
    size = os.stat(path).st_size
    if size == position:
        return None
    with _open(path) as file:
        restarted = False
        before = b""
        if size < position:
            position, restarted = 0, True
        elif position:
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
        if len(data) >= LINE_BYTES and b"\n" not in data and b"\0" not in data:
            return _skip_line(file, position, len(data), size, restarted)
    hole = data.find(b"\0")
    if hole >= 0:
        data = data[:hole]
    whole = data.rfind(b"\n") + 1
    if whole == 0:
        return None
    data = data[:whole]
    lines = data[:-1].split(b"\n")
    return Slice(lines, position, position + whole, size, _digest((before + data)[-_TAIL:]), restarted)


def _skip_line(file: BinaryIO, position: int, read: int, size: int, restarted: bool) -> Slice | None:
    """A line too long to be ours stands for one unreadable record: what follows it must not be lost with it."""
    while more := file.read(4 * SLICE_BYTES):
        place = more.find(b"\n")
        if place >= 0:
            end = position + read + place + 1
            file.seek(end - _TAIL)
            return Slice([b""], position, end, size, _digest(file.read(_TAIL)), restarted)
        read += len(more)
    return None


def _digest(data: bytes) -> str:
    return hashlib.sha256(data[-_TAIL:]).hexdigest()[:32]

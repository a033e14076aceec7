"""The far side of a mirror: hands a store's journals over a pipe, each time what has come since the last.

What goes over, all of it lines of JSON. First from here ``{"journals": 1, "files": 1, "root": ...}``. Then once ``{"shards":
{shard: digest}}`` from the other side, which says what it has; the answer ``{"differ": [shard, ...]}`` names where that is not what
is here, and ``{"have": {run: {file: bytes}}}`` says it exactly for those. After that each ``{"look": 1}`` is answered by

    {"now": ns, "open": {marker: mtime ns}}                who writes
    {"file": "RUN/NAME", "at": n, "size": n, "whole": b}   with that many bytes behind the line; RUN is "" for decisions.jsonl
    {"run": RUN, "mtime": ns, "names": [...]}              all of a run has come, and these are its files
    {"gone": [RUN, ...]}                                   runs that are not here any more
    {"lost": {marker: [status, proof, ms]}}                whose writers are proven dead: all of them, when they are others than before
    {"done": 1}

Files are asked for over such a connection, too (store/mirror_files.py). Only whole lines go over, and nothing behind a hole
(docs/journal.md). Only reads; the store's database is not opened.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from mltrack import __version__
from mltrack.store.client.location import choose_store
from mltrack.store.client.secrets import redact_url
from mltrack.store.errors import BadInput
from mltrack.store.mirror_files import list_files, read_file
from mltrack.store.proofs import Proof, Writers

PROTOCOL = 1
DECISIONS = "decisions.jsonl"
RUN_ID = re.compile(r"[0-9a-f]{32}")
SHARD = re.compile(r"[0-9a-f]{2}")
JOURNAL = re.compile(r"(?:meta|points)\.[0-9a-f]{16}\.jsonl(?:\.zst)?")
MARKER = re.compile(r"[0-9a-f]{16}\.([0-9a-f]{32})")
# Everything is compared this often; in between what has a marker, and folders in which something was made.
ALL_SECONDS = 25.0
_PIECE = 1 << 20
# A line that does not end within this is none of ours; what reads it knows how to go on behind it.
LINE_BYTES = 64 << 20
Sizes = dict[str, int]


def digest(runs: dict[str, Sizes]) -> str:
    """What stands for the runs of a shard, {run: {file: bytes}}, when two sides compare what they have."""
    return hashlib.sha256(json.dumps(runs, sort_keys=True).encode()).hexdigest()[:16]


def sizes_in(folder: str | Path) -> Sizes:
    """The journals in a run's folder, with their bytes."""
    found: Sizes = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if JOURNAL.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    found[entry.name] = entry.stat(follow_symlinks=False).st_size
    except OSError:
        return found  # somebody else's, or gone meanwhile
    return found


def _names(folder: str | Path, pattern: re.Pattern[str]) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if pattern.fullmatch(name))
    except OSError:
        return []


class FarSide:
    """Serves one other side. ``held`` is what that has of each file, as far as this side knows."""

    def __init__(self, root: Path, source: BinaryIO, sink: BinaryIO) -> None:
        self._root = root
        self._source = source
        self._sink = sink
        self._held: dict[str, Sizes] = {}
        self._seen: dict[str, dict[str, tuple[int, int]]] = {}  # (bytes, mtime) of each file when it was read
        self._folders: dict[str, int] = {}  # mtimes: of shards, and of runs by their ids
        self._marked: set[str] = set()
        self._writers = Writers()
        self._lost: dict[str, Proof] | None = None
        self._all_at = float("-inf")

    def serve(self) -> None:
        """Until the other side hangs up."""
        self._say({"journals": PROTOCOL, "files": 1, "root": str(self._root)})
        answers: dict[str, Callable[[Any], None]] = {
            "shards": self._compare,
            "have": self._take,
            "look": self._look,
            "files": lambda run: self._say(list_files(self._root, str(run))),
            "read": self._read,
        }
        for line in self._source:
            for name, value in json.loads(line).items():
                answers[name](value)
            self._sink.flush()

    def _say(self, message: dict[str, Any]) -> None:
        self._sink.write(json.dumps(message).encode() + b"\n")
        if "journals" in message:
            self._sink.flush()

    # -- what the other side has

    def _compare(self, theirs: dict[str, str]) -> None:
        differ = sorted(theirs)
        for shard in _names(self._root / "runs", SHARD):
            folder = self._root / "runs" / shard
            runs = {run: sizes_in(folder / run) for run in _names(folder, RUN_ID)}
            if theirs.get(shard) == digest(runs):
                differ.remove(shard)
                self._held.update(runs)
        self._say({"differ": differ})

    def _take(self, have: dict[str, Sizes]) -> None:
        self._held.update(have)

    def _read(self, asked: dict[str, Any]) -> None:
        told, data = read_file(self._root, asked)
        self._say(told)
        self._sink.write(data)

    # -- a look

    def _look(self, _: Any) -> None:
        beats = self._open()
        marked = {name.partition(".")[2] for name in beats}
        everything = time.monotonic() - self._all_at > ALL_SECONDS
        self._decisions()
        for run, folder in self._runs(marked, everything):
            self._run(run, folder)
        if everything:
            self._gone()
            self._all_at = time.monotonic()
        self._marked = marked
        lost = self._writers.lost(beats)
        if lost != self._lost:
            self._lost = lost
            self._say({"lost": lost})
        self._say({"done": 1})

    def _open(self) -> dict[str, int]:
        """Tell who writes, before anything is read: who ends meanwhile is told of the next time, with all it has written."""
        found: dict[str, int] = {}
        for name in _names(self._root / "open", MARKER):
            try:
                found[name] = os.stat(self._root / "open" / name).st_mtime_ns
            except OSError:
                continue
        self._say({"now": time.time_ns(), "open": found})
        return found

    def _runs(self, marked: set[str], everything: bool) -> Iterator[tuple[str, str]]:
        """Runs that may have something new, those that go on first, then the newest."""
        first = marked | self._marked
        for run in sorted(first):
            yield run, str(self._root / "runs" / run[:2] / run)
        rest: list[tuple[int, str, str]] = []
        for shard in _names(self._root / "runs", SHARD):
            folder = str(self._root / "runs" / shard)
            try:
                changed = os.stat(folder).st_mtime_ns
                if not everything and self._folders.get(shard) == changed:
                    continue
                self._folders[shard] = changed
                with os.scandir(folder) as entries:
                    rest += [
                        (entry.stat(follow_symlinks=False).st_mtime_ns, entry.name, entry.path)
                        for entry in entries
                        if RUN_ID.fullmatch(entry.name)
                        and entry.name not in first
                        and entry.is_dir(follow_symlinks=False)
                    ]
            except OSError:
                continue
        rest.sort(reverse=True)
        for made, run, path in rest:
            if everything or self._folders.get(run) != made:
                yield run, path

    def _run(self, run: str, folder: str) -> None:
        try:
            changed = os.stat(folder).st_mtime_ns
            with os.scandir(folder) as entries:
                files = {
                    entry.name: entry.stat(follow_symlinks=False)
                    for entry in entries
                    if JOURNAL.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)
                }
        except OSError:
            return  # gone, not made yet, or somebody else's
        seen, held = self._seen.setdefault(run, {}), self._held.setdefault(run, {})
        sent = False
        for name in sorted(files):  # what a run is before its points
            facts = files[name]
            state = (facts.st_size, facts.st_mtime_ns)
            if seen.get(name) == state:
                continue
            try:
                if facts.st_size != held.get(name) or name in seen:
                    sent |= self._send(f"{folder}/{name}", f"{run}/{name}", held, name)
                self._writers.look(Path(folder, name), state)
                seen[name] = state
            except OSError:
                continue  # not ours to read, or gone meanwhile
        lost = held.keys() - files.keys()
        for name in lost:
            held.pop(name)
            seen.pop(name, None)
            self._writers.forget(Path(folder, name))
        self._folders[run] = changed
        if sent or lost:
            newest = max([changed, *(facts.st_mtime_ns for facts in files.values())])
            self._say({"run": run, "mtime": newest, "names": sorted(held)})

    def _send(self, path: str, shown: str, held: Sizes, name: str) -> bool:
        """What is behind the bytes that the other side has; all of it when the file was made anew."""
        at = held.get(name, 0)
        sealed = name.endswith(".zst")
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if sealed or size < at:
                at = 0
            file.seek(at)
            sent = False
            while data := file.read(_PIECE):
                if not sealed:
                    data = _whole_lines(data, file)
                    if not data:
                        break  # the rest is not there yet
                end = at + len(data)
                self._say({"file": shown, "at": at, "size": len(data), "whole": end >= size})
                self._sink.write(data)
                at, sent = end, True
                file.seek(at)
        held[name] = at
        return sent

    def _decisions(self) -> None:
        held = self._held.setdefault("", {})
        try:
            facts = os.stat(self._root / DECISIONS)
        except OSError:
            return
        seen, state = self._seen.setdefault("", {}), (facts.st_size, facts.st_mtime_ns)
        if seen.get(DECISIONS) != state:
            with suppress(OSError):
                self._send(str(self._root / DECISIONS), f"/{DECISIONS}", held, DECISIONS)
                seen[DECISIONS] = state

    def _gone(self) -> None:
        """Runs that were removed here. A folder that cannot be listed proves nothing."""
        there: set[str] = {""}
        for shard in {run[:2] for run in self._held if run}:
            try:
                there.update(os.listdir(self._root / "runs" / shard))
            except FileNotFoundError:
                continue
            except OSError:
                there.update(run for run in self._held if run[:2] == shard)
        gone = sorted(self._held.keys() - there)
        if gone and (self._root / "runs").is_dir():
            for run in gone:
                self._held.pop(run)
                for name in self._seen.pop(run, ()):
                    self._writers.forget(Path(run, name))
            self._say({"gone": gone})


def _whole_lines(data: bytes, file: BinaryIO) -> bytes:
    """The part of ``data`` that ends with a line, and lies before any hole; a line that is longer is read to its end."""
    while True:
        hole = data.find(b"\0")
        if hole >= 0:
            data = data[:hole]
        whole = data.rfind(b"\n") + 1
        if whole or hole >= 0:
            return data[:whole]
        more = file.read(_PIECE)
        if not more:
            return b""
        data += more
        if len(data) > LINE_BYTES:
            return data


def hand_over(where: str | None, protocol: int, source: BinaryIO, sink: BinaryIO) -> None:
    """Be the far side for the store ``where``, until the other side hangs up. Raises BadInput for a store that has no folder here."""
    choice = choose_store(where)
    if protocol != PROTOCOL:
        raise BadInput(
            f"mltrack is {__version__} on that machine and another here; install one of them in both places"
        )
    if choice.is_remote:
        raise BadInput(
            f"the store there is at {redact_url(choice.url)}, which has its own address: name that with --store"
        )
    if not (choice.root / "runs").is_dir():
        raise BadInput(f"there is no store at {choice.root}")
    try:
        FarSide(choice.root, source, sink).serve()
    except BrokenPipeError:
        return  # the other side is gone, and has what it has

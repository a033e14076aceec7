"""Another mltrack store, that of a colleague or of another machine: its journals and what was decided there, only read.

Its database is not opened: journals and ``decisions.jsonl`` say everything (docs/journal.md), may be read while they are
written, and need no locks. A run without an end shows as running, and quiet when its marker was not touched for long. More of its
process can say only the machine that it runs on, this one or another that is asked (store/proofs.py), and its store by sealing it.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import orjson

from mltrack.store.fold_points import parse_points
from mltrack.store.journal_reader import (
    LINE_BYTES,
    JournalName,
    JournalProblem,
    file_kind,
    last_record,
    read_header,
    read_slice,
)
from mltrack.store.proofs import Writers
from mltrack.store.sources.base import PIECE_BYTES, RUN_ID, Found, Piece, Reader, SourcePoints, why
from mltrack.store.upkeep import unsealed

# Records about files of the journal itself; here points are never behind them.
_LEFT_OUT = frozenset(("summary", "close"))
_FIELD_OPS = {"name": "name", "note": "note", "experiment": "experiment"}


class MltrackReader(Reader):
    """Follows the store in a folder."""

    kind: ClassVar[str] = "mltrack"
    title: ClassVar[str] = "mltrack store"

    def __init__(self, path: Path | str) -> None:
        super().__init__(path)
        self._decided: dict[str, dict[str, tuple[int, Any]]] = {}
        self._beats: dict[str, int] = {}
        self._marked: dict[str, int] = {}
        self._lost: dict[str, dict[str, list[Any]]] = {}
        """What is proven of writers that ended without a word, [status, proof, ms] by run and jid."""
        self._writers = Writers()
        self._read_to = 0

    @classmethod
    def recognise(cls, path: Path | str) -> bool:
        folder = Path(path)
        try:
            return (folder / "runs").is_dir() and (
                (folder / "mltrack.db").is_file()
                or (folder / "decisions.jsonl").is_file()
                or (folder / "open").is_dir()
            )
        except OSError:
            return False

    @classmethod
    def candidates(cls, folder: str, folders: Sequence[str], files: Sequence[str]) -> Iterable[str]:
        if ".mltrack" in folders:
            yield os.path.join(folder, ".mltrack")
        if "runs" in folders and ("mltrack.db" in files or "open" in folders):
            yield folder

    # -- looking

    def scan(self, known: Mapping[str, str]) -> Iterator[Found | None]:
        self._read_decisions()
        live = self._beats = self._markers()
        self._read_proofs()
        entries: list[tuple[int, str, str]] = []
        with os.scandir(self.path / "runs") as shards:
            for shard in shards:
                try:
                    with os.scandir(shard.path) as folders:
                        entries += [
                            (folder.stat().st_mtime_ns, folder.name, folder.path)
                            for folder in folders
                            if RUN_ID.fullmatch(folder.name) and folder.is_dir(follow_symlinks=False)
                        ]
                except OSError:
                    continue  # somebody else's, or no folder
                yield None
        self.total = len(entries)
        self.unread = sum(1 for _, run, _ in entries if not known.get(run))
        entries.sort(key=lambda entry: (entry[1] not in live, -entry[0]))
        for changed, run, folder in entries:
            before = known.get(run) or ""
            lost = self._lost.get(run)
            facts = (changed, self._decided.get(run), *([lost] if lost else []))
            mark = hashlib.blake2b(repr(facts).encode(), digest_size=8).hexdigest()
            if run not in live and before == f"E{mark}":
                continue
            # Of what is written to, the files themselves are compared, and the beat of who writes.
            stamp = f"R{mark}{_sizes(folder)}.{live[run]}" if run in live else f"E{mark}"
            if stamp != before:
                yield Found(run, stamp, run in live, folder)

    def _markers(self) -> dict[str, int]:
        """When the writers of each run that goes on were heard of last, in ms."""
        self._marked = {}
        with suppress(OSError), os.scandir(self.path / "open") as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    self._marked[entry.name] = entry.stat().st_mtime_ns
        beats: dict[str, int] = {}
        for name, at in self._marked.items():
            run = name.partition(".")[2]
            beats[run] = max(beats.get(run, 0), at // 1_000_000)
        return beats

    def _read_proofs(self) -> None:
        """Of processes of this machine."""
        for marker in self._marked:
            jid, _, run = marker.partition(".")
            if RUN_ID.fullmatch(run):
                with suppress(OSError):
                    self._writers.look(self.path / "runs" / run[:2] / run / f"meta.{jid}.jsonl")
        self._lost = {}
        self._prove(self._writers.lost(self._marked))

    def _prove_here(self, folder: Path) -> None:
        """Of writers whose marker is gone: their store, which took it away, has proven it already or read their last word."""
        for name in os.listdir(folder):
            with suppress(OSError):
                self._writers.look(folder / name)
        self._prove(self._writers.lost({}, folder.name))

    def _prove(self, proofs: Mapping[str, Sequence[Any]]) -> None:
        for marker, proof in proofs.items():
            jid, _, run = marker.partition(".")
            self._lost.setdefault(run, {})[jid] = list(proof)

    def _read_decisions(self) -> None:
        """What people decided about runs there, the last word for each field. An undo is a decision like any other."""
        path = self.path / "decisions.jsonl"
        try:
            if os.stat(path).st_size < self._read_to:
                self._read_to = 0
            with path.open("rb") as file:
                file.seek(self._read_to)
                data = file.read()
        except OSError:
            return  # nothing was decided, or nothing that we may know
        whole = data[: data.rfind(b"\n") + 1]
        self._read_to += len(whole)
        for line in whole.splitlines():
            try:
                record = orjson.loads(line)
                for operation in record["ops"]:
                    self._decide(operation, int(record["time"]))
            except (ValueError, KeyError, TypeError, AttributeError):
                continue  # a torn line, as in any store

    def _decide(self, operation: dict[str, Any], at: int) -> None:
        if operation["op"] == "tag":
            name = f"tag {operation['key']}"
        elif operation["op"] == "field":
            name = str(operation["field"])
        else:
            return
        mine = self._decided.setdefault(str(operation["run"]), {})
        if operation.get("clear") or (operation["op"] == "field" and operation.get("value") is None):
            mine.pop(name, None)
        else:
            mine[name] = (at, operation.get("value"))

    # -- reading

    def read(self, found: Found, position: str) -> Iterator[Piece]:
        folder, run = Path(found.about), found.place
        state: dict[str, Any] = orjson.loads(position) if position else {}
        files: dict[str, list[Any]] = state.setdefault("files", {})
        damage: str | None = None
        heard = self._beats.get(run, 0)
        silent: list[tuple[JournalName, int]] = []
        for kind in ("meta", "points"):
            for name in sorted(entry.name for entry in os.scandir(folder)):
                named = file_kind(name.removesuffix(".zst"))
                if named is None or named[0] != kind:
                    continue
                path = folder / name
                try:
                    heard = max(heard, os.stat(path).st_mtime_ns // 1_000_000)
                    for records, points, skipped, journal in self._journal(
                        path, f"{kind}.{named[1]}", files, silent
                    ):
                        yield self._piece(run, state, records, points, skipped, journal, damage, heard)
                except (OSError, JournalProblem) as error:
                    reason = why(error) if isinstance(error, OSError) else str(error)
                    damage = f"runs/{run[:2]}/{run}/{name}: {reason}"
        if run not in self._beats:
            self._prove_here(folder)
        for record, journal in self._proofs(folder, run, state, silent):
            yield self._piece(run, state, [record], [], 0, journal, damage, heard)
        records = self._decisions(run)
        digest = hashlib.blake2b(orjson.dumps(records), digest_size=8).hexdigest()
        if digest != state.get("decided") or damage:
            state["decided"] = digest
            where = {"op": "artifacts", "t": 0, "v": f"runs/{run[:2]}/{run}/artifacts"}
            yield self._piece(run, state, [where, *records], [], 0, None, damage, heard)
        elif run in self._beats:  # it goes on, also where it has nothing to say
            yield self._piece(run, state, [], [], 0, None, damage, heard)

    def _journal(
        self, path: Path, key: str, files: dict[str, list[Any]], silent: list[tuple[JournalName, int]]
    ) -> Iterator[tuple[list[dict[str, Any]], list[list[Any]], int, JournalName]]:
        if path.name.endswith(".zst"):
            if files.get(key, [0, ""])[1] == "sealed":
                return
            with tempfile.TemporaryDirectory() as temporary:
                plain = unsealed(path, Path(temporary))
                yield from self._journal(plain, key, files, silent)
                last = last_record(plain, LINE_BYTES) if key.startswith("meta") else {"op": "close"}
                if last.get("op") != "close" and (name := read_header(plain)):
                    at = last.get("t")
                    silent.append((name, at if type(at) is int else int(name.header.get("time", 0))))
            files[key] = [files.get(key, [0, ""])[0], "sealed"]
            return
        name = read_header(path)
        if name is None:
            return
        while True:
            position, tail = files.get(key, [0, ""])
            piece = read_slice(path, int(position), str(tail), PIECE_BYTES)
            if piece is None:
                return
            lines = piece.lines[1:] if piece.start == 0 else piece.lines
            files[key] = [piece.end, piece.tail]
            if name.kind == "points":
                parsed, bad = parse_points(lines) if lines else ([], 0)
                yield [], parsed, bad, name
            else:
                records: list[dict[str, Any]] = []
                bad = 0
                for line in lines:
                    try:
                        record = orjson.loads(line)
                        if record["op"] not in _LEFT_OUT:
                            records.append(record)
                    except (ValueError, KeyError, TypeError):
                        bad += 1
                yield records, [], bad, name

    def _proofs(
        self, folder: Path, run: str, state: dict[str, Any], silent: list[tuple[JournalName, int]]
    ) -> Iterator[tuple[dict[str, Any], JournalName]]:
        """What is proven of writers that ended without a word, where it is new; ``silent``: those whose journals are sealed, which
        their store does when a run has ended."""
        told = state.get("lost", {})
        proven = self._lost.get(run, {})
        found: list[tuple[JournalName, list[Any] | None]] = []
        for jid in sorted(proven.keys() | told.keys()):
            if proven.get(jid) != told.get(jid):
                with suppress(JournalProblem):  # its file is not here: sealed, what was proven holds
                    name = read_header(folder / f"meta.{jid}.jsonl")
                    found += [] if name is None else [(name, proven.get(jid))]
        found += [
            (name, ["LOST", "ended without a word, as its store says", at])
            for name, at in silent
            if not told.get(name.jid)
        ]
        for name, proof in found:
            state["lost"] = {**state.get("lost", {}), name.jid: proof}
            if name.role == "main":
                yield {"op": "lost", "t": time.time_ns() // 1_000_000, "v": proof}, name

    def _decisions(self, run: str) -> list[dict[str, Any]]:
        records: list[dict[str, Any]] = []
        for name, (at, value) in sorted(self._decided.get(run, {}).items()):
            if name.startswith("tag "):
                key = name[4:]
                records.append(
                    {"op": "untag", "t": at, "k": [key]}
                    if value is None
                    else {"op": "tags", "t": at, "v": {key: value}}
                )
            elif name in _FIELD_OPS:
                records.append({"op": _FIELD_OPS[name], "t": at, "v": value})
            elif name == "lifecycle":
                records.append({"op": "lifecycle", "t": at, "v": "trash" if value == "trash" else "active"})
        return records

    def _piece(
        self,
        run: str,
        state: dict[str, Any],
        records: list[dict[str, Any]],
        parsed: list[list[Any]],
        skipped: int,
        journal: JournalName | None,
        damage: str | None,
        heard: int,
    ) -> Piece:
        attempt = journal.attempt if journal is not None else ""
        rank = journal.rank if journal is not None else 0
        position = orjson.dumps(state).decode()
        host = str(journal.header.get("host", "")) if journal is not None else ""
        return Piece(
            run, position, records, _points(parsed), attempt, rank, skipped, damage, heard, host=host
        )


def _points(parsed: list[list[Any]]) -> SourcePoints | None:
    if not parsed:
        return None
    names: dict[str, int] = {}
    keys: list[int] = []
    steps: list[int] = []
    times: list[int] = []
    values: list[float] = []
    for record in parsed:
        for place in range(2, len(record), 2):
            keys.append(names.setdefault(record[place], len(names)))
            steps.append(record[0])
            times.append(record[1])
            values.append(record[place + 1])
    return SourcePoints(
        list(names),
        np.array(keys, np.int32),
        np.array(steps, np.int64),
        np.array(times, np.int64),
        np.array(values, np.float64),
    )


def _sizes(folder: str) -> str:
    try:
        with os.scandir(folder) as entries:
            return str(sum(entry.stat().st_size for entry in entries if file_kind(entry.name) is not None))
    except OSError:
        return ""

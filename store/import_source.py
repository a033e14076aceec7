"""Making runs of another tool our own: journals as if they had been logged here, and copies of their files.

After that the source may go. A run keeps its id, so that importing again takes only what is not here yet; a run that was only
followed until now becomes native, with everything that was decided about it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import orjson

from mltrack.store import model_files, sources
from mltrack.store.client.journal import (
    FORMAT,
    encode_number,
    make_folder,
    open_file,
    random_hex,
    run_folder,
    share_mode,
)
from mltrack.store.database import Database, file_lock
from mltrack.store.errors import ReadOnly
from mltrack.store.fold_catalogue import number_text
from mltrack.store.fold_sources import journal_name
from mltrack.store.journal_reader import JournalName
from mltrack.store.records import ENDED
from mltrack.store.runs import source_artifacts
from mltrack.store.sources.base import Found, Piece, Reader, SourcePoints, stable_id, why
from mltrack.store.store import Store

if TYPE_CHECKING:
    from mltrack.store.far_files import FarFiles

# A run that changed this recently is still being written.
LIVE_SECONDS = 15 * 60
_COPY_BYTES = 1 << 20
_MODEL_ID = re.compile(r"m-[0-9a-zA-Z_-]{1,80}")
_ENDS = ("FINISHED", "FAILED", "KILLED")
_OF_SOURCES = frozenset(("status", "experiment", "lifecycle", "artifacts"))


def artifact(at: int, path: str, size: int, sha256: str) -> dict[str, Any]:
    """The record of a file that was copied."""
    return {"op": "artifact", "t": at, "path": path, "size": size, "sha256": sha256, "how": "copy"}


@dataclass
class Imported:
    """What an import did; ``left`` says why a run was not taken, or not all of it."""

    runs: int = 0
    points: int = 0
    files: int = 0
    bytes: int = 0
    known: int = 0
    left: list[str] = field(default_factory=list)


@dataclass
class _Writer:
    """The journals of one run while they are written, below a folder that nobody looks into yet."""

    folder: Path
    mode: int
    run_id: str
    journals: dict[str, tuple[JournalName, list[dict[str, Any]]]] = field(default_factory=dict)
    points: dict[str, BinaryIO] = field(default_factory=dict)
    said: dict[str, Any] = field(default_factory=dict)
    lost: dict[str, Any] = field(default_factory=dict)
    heard_ms: int = 0
    damage: str | None = None
    count: int = 0

    def add(self, piece: Piece) -> None:
        """Take a piece in: its points go to their file at once."""
        name = journal_name(piece)
        self.heard_ms = max(self.heard_ms, piece.heard_ms or 0)
        self.damage = piece.damage or self.damage
        _, records = self.journals.setdefault(name.jid, (name, []))
        for record in piece.records:
            if record["op"] == "lost":
                self.lost[name.jid] = record["v"]
            elif record["op"] in _OF_SOURCES:
                self.said[str(record["op"])] = dict(record)
            else:
                records.append(dict(record))
        if piece.points is not None and len(piece.points):
            if name.jid not in self.points:
                self.points[name.jid] = self._open("points", name)
            file = self.points[name.jid]
            for line in _lines(piece.points):
                file.write(line)
            self.count += len(piece.points)

    def newest(self) -> str:
        """The journal of the newest attempt, which says how the run ended."""
        return max(self.journals.values(), key=lambda entry: (entry[0].rank == 0, entry[0].attempt))[0].jid

    def is_lost(self) -> bool:
        """Whether it is proven that the newest attempt ended without a word."""
        return bool(self.journals) and self.lost.get(self.newest()) is not None

    def finish(self, artifacts: list[dict[str, Any]]) -> None:
        """Write the meta journals, with how the run ended and its files. Raises OSError."""
        if not self.journals:
            return
        newest = self.newest()
        for jid, (name, records) in self.journals.items():
            if "experiment" in self.said:
                for record in records:
                    if record["op"] == "start":
                        record["experiment"] = self.said["experiment"]["v"]
            if jid == newest:
                records += artifacts
                if not any(record["op"] == "end" for record in records):
                    records.append(self._end(self.lost.get(jid)))
            size = 0
            if jid in self.points:
                size = self.points[jid].tell()
                self.points[jid].close()
            with self._open("meta", name) as file:
                for record in records:
                    file.write(orjson.dumps(record) + b"\n")
                at = max((int(record["t"]) for record in records), default=0)
                file.write(orjson.dumps({"t": at, "op": "close", "points": size}) + b"\n")

    def _end(self, lost: list[Any] | None) -> dict[str, Any]:
        if lost is not None:  # no journal says that of itself: it was proven by others
            status, proof, at = lost
            reason = proof if status == "KILLED" else f"lost: {proof}"
            return {"op": "end", "t": at, "status": "KILLED", "reason": reason}
        said = self.said.get("status", {})
        status = str(said.get("v", ""))
        if status in _ENDS:
            end = {"op": "end", "t": int(said.get("end") or self.heard_ms), "status": status}
            return {**end, "reason": said["reason"]} if said.get("reason") else end
        reason = "it had no end when it was imported"
        return {"op": "end", "t": self.heard_ms, "status": "KILLED", "reason": reason}

    def _open(self, kind: str, name: JournalName) -> BinaryIO:
        path = self.folder / f"{kind}.{name.jid}.jsonl"
        file = os.fdopen(open_file(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, self.mode), "wb")
        head = {
            "mltrack": FORMAT,
            "kind": kind,
            "jid": name.jid,
            "run": self.run_id,
            "attempt": name.attempt,
            "rank": name.rank,
            "role": "main" if name.rank == 0 else "rank",
            "host": "",
            "time": name.header["time"],
        }
        file.write(orjson.dumps(head) + b"\n")
        return file

    def close(self) -> None:
        """Give open files back."""
        for file in self.points.values():
            file.close()


def import_source(store: Store, path: str, progress: Callable[[Imported], None] | None = None) -> Imported:
    """Copy every run of a source into the store. Raises BadInput for what is no source, StoreError."""
    if store.database.readonly or store.followed is not None:
        raise ReadOnly(f"The store {store.location.root} is open read-only; nothing was imported.")
    where, kind = sources.identify(path)
    with file_lock(store.root, "import"):
        for part in (store.root / "runs").glob("*/.*.part"):  # of an import that was killed
            shutil.rmtree(part, ignore_errors=True)
        return _import_all(store, where, kind, progress)


def _import_all(store: Store, where: str, kind: str, progress: Callable[[Imported], None] | None) -> Imported:
    far: FarFiles | None = None
    reader: Reader
    if kind == "ssh":
        from mltrack.store.import_far import far_reader

        reader, far = far_reader(where)
    else:
        reader = sources.open_reader(kind, where)
    result = Imported()
    for found in reader.scan({}):
        if not isinstance(found, Found):
            continue
        try:
            pieces = reader.read(found, "")
            if found.run:
                _import_run(store, where, found, pieces, result, reader.is_run, far)
            else:
                _import_model(store, where, found, pieces, result)
        except OSError as error:
            result.left.append(f"{found.place}: {why(error)}")
        if progress is not None:
            progress(result)
    return result


def _import_run(
    store: Store,
    where: str,
    found: Found,
    pieces: Iterator[Piece],
    result: Imported,
    is_run: Callable[[str], bool],
    far: FarFiles | None,
) -> None:
    first = next(pieces, None)
    if first is None:
        return
    run_id = first.run_id
    own = run_folder(store.root, run_id)
    rows = store.database.execute("SELECT source FROM run WHERE run_id = ?", (run_id,))
    if own.exists() or (rows and rows[0][0] == ""):
        result.known += 1
        if own.exists() and not (rows and rows[0][0] == ""):  # an import was ended behind its copy
            if rows:
                _make_native(store.database, run_id)
            store.fold_folder(own)
        return
    part = own.parent / f".{random_hex(12)}.part"
    make_folder(part, store.root)
    writer = _Writer(part, share_mode(store.root), run_id)
    try:
        writer.add(first)
        for piece in pieces:
            writer.add(piece)
        unfinished = writer.said.get("status", {}).get("v", "RUNNING") not in ENDED
        ended = any(record["op"] == "end" for _, records in writer.journals.values() for record in records)
        ended = ended or writer.is_lost()
        if unfinished and not ended and time.time() * 1000 - writer.heard_ms < LIVE_SECONDS * 1000:
            result.left.append(f"{found.place}: is still running; follow it, or import it when it has ended")
            return
        place = writer.said.get("artifacts")
        artifacts = source_artifacts(where, {"artifacts": ["", place["v"]]}) if place else None
        copied = (
            list(
                _copy_files(
                    artifacts, part / "artifacts", store.root, writer.mode, writer.heard_ms, result, is_run
                )
            )
            if artifacts
            else []
        )
        if far is not None:
            from mltrack.store.import_far import FarRun

            run = FarRun(far, run_id, store.root, writer.mode, result.left)
            run.rest(writer.journals[writer.newest()][1], part)
            copied = [artifact(writer.heard_ms, *file) for file in run.files(part / "artifacts")]
            result.files += len(copied)
            result.bytes += sum(int(record["size"]) for record in copied)
        writer.finish(copied)
        os.rename(part, own)
    finally:
        writer.close()
        shutil.rmtree(part, ignore_errors=True)
    if rows:
        _make_native(store.database, run_id)
    store.fold_folder(own)
    result.runs += 1
    result.points += writer.count
    if writer.damage:
        result.left.append(f"{found.place}: only in part ({writer.damage})")
    if writer.said.get("lifecycle", {}).get("v") == "trash":
        store.trash([run_id])


def _import_model(store: Store, where: str, found: Found, pieces: Iterator[Piece], result: Imported) -> None:
    """A logged model: its row as a decision, its files where the store keeps those of its own."""
    piece = next(pieces, None)
    model = piece.model if piece is not None else None
    if piece is not None and piece.damage:
        result.left.append(f"{found.place}: only in part ({piece.damage})")
    if model is None or model.deleted or not _MODEL_ID.fullmatch(model.model_id):
        return
    rows = store.database.execute("SELECT detail FROM logged_model WHERE model_id = ?", (model.model_id,))
    if rows and not orjson.loads(rows[0][0]).get("source"):
        return
    own = store.root / model_files.FOLDER / model.model_id
    files = source_artifacts(where, {"artifacts": ["", model.location]})
    if files is not None and not own.exists():
        part = own.parent / f".{random_hex(12)}.part"
        make_folder(part, store.root)
        try:
            for _ in _copy_files(
                files, part / "artifacts", store.root, share_mode(store.root), 0, result, lambda _: False
            ):
                pass
            os.rename(part, own)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    row = {
        "experiment": model.experiment,
        "run_id": model.run_id,
        "name": model.name,
        "status": model.status,
        "model_type": model.model_type,
        "created_ms": model.created_ms,
        "updated_ms": model.updated_ms,
        "deleted_ms": None,
        "detail": {"params": dict(model.params), "tags": dict(model.tags)},
    }
    operation = {"op": "logged_model", "model": model.model_id, "row": row}
    store.decide([operation], f"Imported the logged model {model.name or model.model_id}")
    metrics: dict[str, list[list[Any]]] = {}
    for run_id, key, step, at, value, name, digest in model.metrics:
        number = value if math.isfinite(value) else number_text(value)
        metrics.setdefault(run_id, []).append([model.model_id, key, step, at, number, name, digest])
    for run_id, values in metrics.items():
        _add_model_metrics(store, run_id, model.model_id, values)


def _add_model_metrics(store: Store, run_id: str, model_id: str, rows: list[list[Any]]) -> None:
    """What an imported run logged of a model, as one more journal of it."""
    folder = run_folder(store.root, run_id)
    jid = stable_id("jid", f"{run_id}\0{model_id}")[:16]
    first = next(iter(sorted(folder.glob("meta.*.jsonl"))), None)
    if first is None:
        return  # the run was not taken
    with first.open("rb") as file:
        header = orjson.loads(file.readline())
    at = max(int(row[3]) for row in rows)
    records = [
        {**header, "jid": jid},
        {"t": at, "op": "model_metric", "v": rows},
        {"t": at, "op": "close", "points": 0},
    ]
    part = folder / f".{random_hex(12)}.part"
    out = open_file(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, share_mode(store.root))
    with os.fdopen(out, "wb") as file:
        for record in records:
            file.write(orjson.dumps(record) + b"\n")
    os.rename(part, folder / f"meta.{jid}.jsonl")
    store.fold_folder(folder)


def _copy_files(
    source: Path,
    target: Path,
    root: Path,
    mode: int,
    at: int,
    result: Imported,
    is_run: Callable[[str], bool],
) -> Iterator[dict[str, Any]]:
    """Copy regular files, links left out; a record for each."""
    for base, folders, names in os.walk(source):
        folders[:] = [name for name in folders if not is_run(os.path.join(base, name))]
        for name in sorted(names):
            path = Path(base) / name
            relative = path.relative_to(source)
            try:
                fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as error:
                result.left.append(f"{path}: {why(error)}")
                continue
            with os.fdopen(fd, "rb") as reader:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    result.left.append(f"{path}: not a regular file")
                    continue
                make_folder((target / relative).parent, root)
                digest, size = hashlib.sha256(), 0
                out = open_file(target / relative, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
                with os.fdopen(out, "wb") as copy:
                    while block := reader.read(_COPY_BYTES):
                        copy.write(block)
                        digest.update(block)
                        size += len(block)
            result.files += 1
            result.bytes += size
            yield artifact(at, str(relative), size, digest.hexdigest())


def _make_native(database: Database, run_id: str) -> None:
    """A run that was followed until now: from here on its journals say what it is."""
    with database.transaction():
        run, text = database.execute("SELECT id, state FROM run WHERE run_id = ?", (run_id,))[0]
        state = {
            name: value
            for name, value in orjson.loads(text).items()
            if name not in _OF_SOURCES and not name.startswith("lost ")
        }
        database.execute(
            "UPDATE run SET source = '', damage = NULL, state = ? WHERE id = ?",
            (orjson.dumps(state).decode(), run),
        )


def _lines(points: SourcePoints) -> Iterator[bytes]:
    names = [json.dumps(name) for name in points.names]
    for key, step, at, value in zip(
        points.key.tolist(), points.step.tolist(), points.time_ms.tolist(), points.value.tolist(), strict=True
    ):
        yield f"[{step},{at},{names[key]},{encode_number(value)}]\n".encode()

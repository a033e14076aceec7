"""``mlflow.db`` and MLflow's tables in PostgreSQL, schemas of 2.x and 3.x: columns by name, tables we do not know left alone.

A server may be writing. Statements are short and each is a transaction of its own, so that SQLite's shared lock is held for
milliseconds only; nothing is ever locked, created or written. At rest a look costs one stat and one counter.

SQLite numbers rows in the order they came (rowid), so that new points and params are those behind the last number: the
``checkpoint`` remembers it. PostgreSQL has no such number: points are read in order of time, and all again when their number
does not fit (equal points are one).
"""

from __future__ import annotations

import hashlib
import os
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import orjson

from mltrack.store.sources.base import Catalogue, Found, Piece, Reader, SourcePoints
from mltrack.store.sources.mlflow_models import ModelAbout, read_table_model, table_links, table_models
from mltrack.store.sources.mlflow_registry import table_catalogue
from mltrack.store.sources.mlflow_run import FIELD_TAGS, RunFacts, milliseconds, mlflow_run_id
from mltrack.store.sources.sql import Tables, open_tables

_NEEDED = ("experiments", "runs", "metrics", "params", "tags")
_ROWS = 5000
_POINTS = 20_000
# While a server writes, everything is compared this often, and for no more than a twentieth of the time; in between only
# what runs, and what has new points or params.
_ALL_SECONDS, _ALL_SHARE = 2.0, 20


class MlflowDatabaseReader(Reader):
    """Follows one database."""

    kind: ClassVar[str] = "mlflow_db"
    title: ClassVar[str] = "MLflow database"

    def __init__(self, path: Path | str) -> None:
        super().__init__(path)
        self._tables: Tables | None = None
        self._mark: object = None  # the database's own mark when the last scan had ended
        self._catalogued: object = None
        self._whole = False  # whether that scan compared everything
        self._compared = float("-inf")
        self._pause = _ALL_SECONDS
        self._tags: dict[str, int] = {}
        self._experiments: dict[int, tuple[str, bool]] = {}

    @classmethod
    def recognise(cls, path: Path | str) -> bool:
        try:
            tables = open_tables(str(path))
        except OSError:
            return False
        try:
            return all("run_uuid" in tables.columns(name) for name in ("runs", "metrics", "params"))
        except OSError:
            return False
        finally:
            tables.close()

    @classmethod
    def candidates(cls, folder: str, folders: Sequence[str], files: Sequence[str]) -> Iterable[str]:
        for name in files:
            if name == "mlflow.db" or (name.endswith((".db", ".sqlite", ".sqlite3")) and "mlflow" in name):
                yield os.path.join(folder, name)

    # -- looking

    def scan(self, known: Mapping[str, str]) -> Iterator[Found | None]:
        tables = self._connected()
        mark = tables.mark()
        every = not self._tags or time.monotonic() - self._compared > self._pause
        if mark is not None and mark == self._mark and (self._whole or not every):
            return
        ends = tables.last_rows(("metrics", "params"))
        seen: dict[str, int] = orjson.loads(self.checkpoint) if self.checkpoint else {}
        if any(ends.get(name, 0) < number for name, number in seen.items()):
            seen = {}  # another database lies there now, or somebody has cleaned it up
        touched: set[str] = set()
        if seen:
            for name, number in seen.items():
                touched |= tables.runs_behind(name, number)
        yield None
        self._experiments = {
            int(row["experiment_id"]): (str(row["name"]), row["lifecycle_stage"] == "deleted")
            for row in tables.rows("experiments", ("experiment_id", "name", "lifecycle_stage"))
        }
        rows: list[dict[str, Any]] = []
        for part in tables.pages("runs", _RUN_COLUMNS, _ROWS):
            rows += part
            yield None
        self.total = len(rows)
        self.unread = sum(1 for row in rows if not known.get(str(row["run_uuid"])))
        rows.sort(key=lambda row: -(milliseconds(row["start_time"]) or 0))
        live = [row for row in rows if row["status"] in ("RUNNING", "SCHEDULED")]
        if every:
            began = time.monotonic()
            self._tags = {}
            for part in tables.pages("tags", ("run_uuid", "key", "value"), _ROWS):
                for row in part:
                    self._add_tag(row)
                yield None
            self._compared = time.monotonic()
            self._pause = max(_ALL_SECONDS, _ALL_SHARE * (self._compared - began))
        else:
            self._refresh_tags(tables, [str(row["run_uuid"]) for row in live] + sorted(touched))
        news = tables.live_marks([str(row["run_uuid"]) for row in live])
        ended = [row for row in rows if row["status"] not in ("RUNNING", "SCHEDULED")]
        for number, row in enumerate(live + ended):
            place = str(row["run_uuid"])
            before = known.get(place) or ""
            digest = self._digest(row)
            reached = before.partition(":")[2]
            if place in touched or not before or not seen:
                reached = ".".join(str(ends[name]) for name in sorted(ends))
            stamp = f"{digest}:{news.get(place, reached)}"
            if stamp != before:
                yield Found(place, stamp, number < len(live), row)
            elif number % 1024 == 0:
                yield None
        if every:
            yield from table_models(tables, self._experiments, known)
        self.checkpoint = orjson.dumps(ends).decode() if ends else ""
        self._mark, self._whole = mark, every

    def catalogue(self, stamp: str) -> Catalogue | None:
        if self._catalogued is not None and self._catalogued == self._mark:
            return None
        self._catalogued = self._mark
        folder = "" if "://" in self.where else os.path.join(os.path.dirname(self.where), "mlruns")
        return table_catalogue(self._connected(), folder, stamp)

    def _connected(self) -> Tables:
        if self._tables is not None and self._tables.moved():
            self._tables.close()
            self._tables, self._mark = None, None
        if self._tables is None:
            self._tables = open_tables(self.where)
            for name in _NEEDED:
                if not self._tables.columns(name):
                    raise OSError(0, f"is no MLflow database (it has no table {name})", self.where)
        return self._tables

    def _add_tag(self, row: Mapping[str, Any]) -> None:
        run = str(row["run_uuid"])
        text = f"{row['key']}\0{row['value']}".encode("utf-8", "surrogatepass")
        # A sum does not depend on the order that rows come in.
        self._tags[run] = self._tags.get(run, 0) + zlib.crc32(text) + 1

    def _refresh_tags(self, tables: Tables, runs: list[str]) -> None:
        for run in runs:
            self._tags.pop(run, None)
        for row in tables.rows_of("tags", ("run_uuid", "key", "value"), runs):
            self._add_tag(row)

    def _digest(self, row: Mapping[str, Any]) -> str:
        place = str(row["run_uuid"])
        facts = repr((list(row.values()), self._experiments.get(row["experiment_id"]), self._tags.get(place)))
        return hashlib.blake2b(facts.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()

    # -- reading

    def read(self, found: Found, position: str) -> Iterator[Piece]:
        tables, row, place = self._connected(), found.about, found.place
        if isinstance(row, ModelAbout):
            yield from read_table_model(tables, found)
            return
        before: dict[str, Any] = orjson.loads(position) if position else {}
        at = milliseconds(row["start_time"]) or 0
        records: list[dict[str, Any]] = []
        tags = {
            str(tag["key"]): str(tag["value"] if tag["value"] is not None else "")
            for tag in tables.rows_of("tags", ("run_uuid", "key", "value"), [place])
        }
        marks = {
            key: zlib.crc32(value.encode("utf-8", "surrogatepass")) for key, value in sorted(tags.items())
        }
        old: dict[str, int] = before.get("t", {})
        changed = {key: tags[key] for key, mark in marks.items() if old.get(key) != mark}
        gone = [key for key in old if key not in marks]
        if changed:
            records.append({"op": "tags", "t": at, "v": changed})
        if gone:
            records.append({"op": "untag", "t": at, "k": gone})
        params = {
            str(param["key"]): str(param["value"] if param["value"] is not None else "")
            for param in tables.rows_of("params", ("run_uuid", "key", "value"), [place])
        }
        if len(params) != before.get("p", 0):
            records.append({"op": "param", "t": at, "v": params})
        inputs = list(tables.inputs(place))
        if len(inputs) != before.get("i", 0):
            records += [{"op": "input", "t": at, "digest_kind": "mlflow", **each} for each in inputs]
        links = table_links(tables, place, at)
        if len(links) != before.get("l", 0):
            records += links
        digest = self._digest(row)
        if digest != before.get("d"):
            records += self._facts(row, at, tags).records(gone)
        after = {"t": marks, "p": len(params), "i": len(inputs), "l": len(links), "d": digest}
        newest = max(at, milliseconds(row["end_time"]) or 0)
        begun = False
        for points, reached in tables.points(place, before.get("m"), _POINTS):
            newest = max(newest, int(points[1].max()) if len(points[1]) else 0)
            piece = _piece(place, {**after, "m": reached}, [] if begun else records, points, newest)
            yield piece
            begun = True
        if not begun and (records or {**after, "m": before.get("m")} != before):
            yield _piece(place, {**after, "m": before.get("m")}, records, None, newest)

    def _facts(self, row: Mapping[str, Any], at: int, tags: Mapping[str, str]) -> RunFacts:
        name, deleted = self._experiments.get(row["experiment_id"], (str(row["experiment_id"]), False))
        return RunFacts(
            at,
            milliseconds(row["end_time"]),
            str(row.get("name") or ""),
            str(row.get("user_id") or ""),
            str(row["status"] or "RUNNING"),
            name,
            deleted or row.get("lifecycle_stage") == "deleted",
            self._artifacts(row),
            {key: tags[key] for key in FIELD_TAGS if key in tags},
        )

    def _artifacts(self, row: Mapping[str, Any]) -> str:
        """Where a run's files are: as the database says when they are there, else beside the database, which may have moved."""
        said = str(row.get("artifact_uri") or "").removeprefix("file://")
        if "://" in self.where or ("://" in said and not said.startswith("mlflow-artifacts:")):
            return said
        if os.path.isabs(said) and os.path.isdir(said):
            return said
        below = f"{row['experiment_id']}/{row['run_uuid']}/artifacts"
        choices = [f"../mlruns/{below}", f"../mlartifacts/{below}"]
        if said and "://" not in said and ":" not in said and not os.path.isabs(said):
            choices.insert(0, f"../{said.removeprefix('./')}")
        for choice in choices:
            if os.path.isdir(os.path.normpath(os.path.join(self.where, choice))):
                return choice
        return choices[-1] if said.startswith("mlflow-artifacts:") else said


_RUN_COLUMNS = (
    "run_uuid",
    "name",
    "user_id",
    "status",
    "start_time",
    "end_time",
    "lifecycle_stage",
    "artifact_uri",
    "experiment_id",
)


def _piece(
    place: str,
    position: dict[str, Any],
    records: list[dict[str, Any]],
    points: tuple[list[str], Any, Any, Any] | None,
    newest: int,
) -> Piece:
    found = None
    if points is not None and len(points[0]):
        names, key = np.unique(np.array(points[0], object), return_inverse=True)
        found = SourcePoints(names.tolist(), key.astype(np.int32), points[2], points[1], points[3])
    return Piece(mlflow_run_id(place), orjson.dumps(position).decode(), records, found, heard_ms=newest)

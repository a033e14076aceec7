"""trackio's folder: one SQLite file per project, with a row of JSON per logged step. Read-only, and never locked for long."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import orjson

from mltrack.store.sources.base import RUN_ID, Found, Piece, Reader, points, stable_id
from mltrack.store.sources.sidecars import flatten
from mltrack.store.sources.sql import SqliteTables

_LIVE_SECONDS = 600.0
_ROWS = 2_000
_NAMES, _TEXTS, _TEXT = 200, 50, 4096
_SPECIAL = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


@dataclass
class _State:
    """What is remembered of a run between two looks: the last rows read, and what they amount to."""

    metrics: int = 0
    system: int = 0
    config: str = ""
    start_ms: int = 0
    others: dict[str, list[Any]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    told: str = ""

    @classmethod
    def parse(cls, position: str) -> _State:
        """The state of a position; a new one for what is none of ours."""
        try:
            return cls(**json.loads(position)) if position else cls()
        except (ValueError, TypeError):
            return cls()


@dataclass
class _Project:
    """A project's file as it was at the last look: its marks, the last row numbers, and (by run) the newest of them."""

    mark: tuple[int, ...] = ()
    reached: dict[str, int] = field(default_factory=dict)
    runs: dict[str, list[int]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)


class TrackioReader(Reader):
    """A folder of projects, or one project's file."""

    kind: ClassVar[str] = "trackio"
    title: ClassVar[str] = "trackio"

    def __init__(self, path: Path | str) -> None:
        super().__init__(path)
        self._projects: dict[str, _Project] = {}

    @classmethod
    def recognise(cls, path: Path | str) -> bool:
        try:
            return any(_is_trackio(file) for file in _files(Path(path)))
        except OSError:
            return False

    @classmethod
    def candidates(cls, folder: str, folders: Sequence[str], files: Sequence[str]) -> Iterable[str]:
        """A folder of that name, and one named by what trackio's writer leaves beside each file."""
        if "trackio" in folders:
            yield os.path.join(folder, "trackio")
        if any(name.endswith(".lock") and f"{name[:-5]}.db" in files for name in files):
            yield folder

    def scan(self, known: Mapping[str, str]) -> Iterator[Found | None]:
        now = time.time()
        found: list[tuple[int, Found]] = []
        total = 0
        broken: OSError | None = None
        for file in _files(self.path):
            project = self._projects.setdefault(file.stem, _Project())
            mark = _mark(file)
            if mark != project.mark:
                try:
                    _look(file, project)
                except OSError as error:
                    broken = broken or error  # said when the other projects were listed
                    continue
                project.mark = mark
            changed = max(mark[1], mark[3])
            total += len(project.runs)
            for run, numbers in project.runs.items():
                place = f"{file.stem}/{run}"
                stamp = ":".join(map(str, numbers))
                if known.get(place) != stamp:
                    live = now - changed / 1e9 < _LIVE_SECONDS
                    about = (file, project.names.get(run, run), changed // 1_000_000)
                    found.append((max(numbers), Found(place, stamp, live, about)))
            yield None
        self.total = total
        self.unread = sum(1 for _, run in found if not known.get(run.place))
        for _, entry in sorted(found, key=lambda pair: -pair[0]):
            yield entry
        if broken is not None:
            raise broken

    def read(self, found: Found, position: str) -> Iterator[Piece]:
        file, name, changed_ms = found.about
        run = found.place.partition("/")[2]
        tables = SqliteTables(str(file))
        try:
            read = _RunRead(self.path, file, run, name, changed_ms, _State.parse(position))
            yield from read.pieces(tables)
        finally:
            tables.close()


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.glob("*.db") if file.is_file() and file.stat().st_size)
    return [path] if path.is_file() else []


def _is_trackio(file: Path) -> bool:
    try:
        tables = SqliteTables(str(file))
    except OSError:
        return False
    try:
        return {"run_name", "step", "metrics", "timestamp"} <= set(tables.columns("metrics"))
    except OSError:
        return False
    finally:
        tables.close()


def _mark(file: Path) -> tuple[int, ...]:
    marks: list[int] = []
    for name in (file, f"{file}-wal"):
        try:
            found = os.stat(name)
            marks += [found.st_size, found.st_mtime_ns]
        except FileNotFoundError:
            marks += [0, 0]
    return tuple(marks)


def _run_column(tables: SqliteTables, table: str) -> str:
    """Runs have ids since trackio 0.10 or so; before, their name was all they had."""
    return "run_id" if "run_id" in tables.columns(table) else "run_name"


def _look(file: Path, project: _Project) -> None:
    """Which runs have rows behind those that were known."""
    tables = SqliteTables(str(file))
    try:
        for place, table in enumerate(("metrics", "system_metrics", "configs")):
            if not tables.columns(table):
                continue
            run = _run_column(tables, table)
            last = project.reached.get(table, 0)
            top = int(tables.query(f"SELECT coalesce(max(id), 0) FROM {table}")[0][0])
            if top < last:  # another file lies there now
                last = 0
            rows = tables.query(
                f"SELECT {run}, max(id), max(run_name) FROM {table} WHERE id > ? AND id <= ? GROUP BY {run}",
                (last, top),
            )
            for name, number, shown in rows:
                project.runs.setdefault(str(name), [0, 0, 0])[place] = int(number)
                project.names[str(name)] = str(shown)
            project.reached[table] = top
    finally:
        tables.close()


class _RunRead:
    """One look at one run."""

    def __init__(self, source: Path, file: Path, run: str, name: str, changed_ms: int, state: _State) -> None:
        self._source = source
        self._file = file
        self._run = run
        self._name = name
        self._changed_ms = changed_ms
        self._state = state
        self._records: list[dict[str, Any]] = []
        self._run_id = run if RUN_ID.fullmatch(run) else stable_id("trackio", f"{file.stem}/{run}")

    def pieces(self, tables: SqliteTables) -> Iterator[Piece]:
        """Everything behind the rows read before."""
        state = self._state
        if state.start_ms == 0:
            self._introduce(tables)
        self._read_config(tables)
        for table in ("metrics", "system_metrics"):
            if not tables.columns(table):
                continue
            field_name = "metrics" if table == "metrics" else "system"
            while rows := self._next_rows(tables, table, getattr(state, field_name)):
                setattr(state, field_name, int(rows[-1][0]))
                yield self._piece(rows, table == "system_metrics")
        told = json.dumps([state.others, state.texts])
        if told != state.told and (state.others or state.texts):
            state.told = told
            facts = {"logged": state.others, "texts": state.texts}
            self._add("facts", self._changed_ms, v={key: value for key, value in facts.items() if value})
        yield Piece(self._run_id, self._position(), self._records, heard_ms=self._changed_ms)

    def _position(self) -> str:
        return json.dumps(vars(self._state), separators=(",", ":"))

    def _next_rows(self, tables: SqliteTables, table: str, last: int) -> list[tuple[Any, ...]]:
        """In order of the rows' numbers: what is new lies at the end of the table, whatever its step."""
        run = _run_column(tables, table)
        if last == 0:
            first = tables.query(f"SELECT min(id) FROM {table} WHERE {run} = ?", (self._run,))[0][0]
            last = int(first or 1) - 1
        step = "step" if "step" in tables.columns(table) else "NULL"
        # The plus keeps SQLite from taking the run's index, and with it all rows of the run again for every part.
        return tables.query(
            f"SELECT id, timestamp, {step}, metrics FROM {table} WHERE +{run} = ? AND id > ? ORDER BY id LIMIT ?",
            (self._run, last, _ROWS),
        )

    def _add(self, op: str, time_ms: int, **fields: Any) -> None:
        self._records.append({"t": time_ms, "op": op, **fields})

    def _introduce(self, tables: SqliteTables) -> None:
        first = tables.query(
            f"SELECT min(timestamp) FROM metrics WHERE {_run_column(tables, 'metrics')} = ?", (self._run,)
        )
        start = _milliseconds(first[0][0]) or self._changed_ms
        config = self._config(tables)
        self._state.start_ms = start = _milliseconds(config.get("_Created")) or start
        user = config.get("_Username")
        self._add("start", start, name=self._name, experiment=self._file.stem, user=str(user) if user else "")
        if isinstance(config.get("_Group"), str):
            self._add("tags", start, v={"group": config["_Group"]})
        media = self._file.parent / "media" / self._file.stem / self._name
        if media.is_dir():
            self._add("artifacts", start, v=str(media))

    def _config(self, tables: SqliteTables) -> dict[str, Any]:
        if not tables.columns("configs"):
            return {}
        rows = tables.query(
            f"SELECT config FROM configs WHERE {_run_column(tables, 'configs')} = ?", (self._run,)
        )
        try:
            found = orjson.loads(rows[0][0]) if rows else {}
        except (orjson.JSONDecodeError, TypeError):
            return {}
        return found if isinstance(found, dict) else {}

    def _read_config(self, tables: SqliteTables) -> None:
        config = {key: value for key, value in self._config(tables).items() if not key.startswith("_")}
        params: dict[str, str] = {}
        flatten(config, params)
        told = json.dumps(params)
        if params and told != self._state.config:
            self._state.config = told
            self._add("param", self._state.start_ms, v=params)

    def _piece(self, rows: list[tuple[Any, ...]], system: bool) -> Piece:
        names: dict[str, int] = {}
        keys: list[int] = []
        steps: list[int] = []
        times: list[int] = []
        values: list[float] = []
        skipped = 0
        for _, stamp, step, text in rows:
            try:
                logged = orjson.loads(text)
                time_ms = _milliseconds(stamp)
                number = max(0, time_ms - self._state.start_ms) // 1000 if step is None else int(step)
                items = list(_items("system/" if system else "", logged, 0))
            except (orjson.JSONDecodeError, TypeError, ValueError, AttributeError):
                skipped += 1
                continue
            for name, value in items:
                if isinstance(value, float):
                    keys.append(names.setdefault(name, len(names)))
                    steps.append(number)
                    times.append(time_ms)
                    values.append(value)
                else:
                    self._take_other(name, value, number)
        columns = points(list(names), keys, steps, times, values)
        records, self._records = self._records, []
        position = self._position()
        return Piece(self._run_id, position, records, columns, skipped=skipped, heard_ms=self._changed_ms)

    def _take_other(self, name: str, value: Any, step: int) -> None:
        state = self._state
        if isinstance(value, str):
            if name in state.texts or len(state.texts) < _TEXTS:
                state.texts[name] = value[:_TEXT]
            return
        kind = str(value.get("_type", "object")) if isinstance(value, dict) else "list"
        name = f"{kind} {name}"
        found = state.others.get(name)
        if found is None and len(state.others) < _NAMES:
            found = state.others[name] = [0, step, step]
        if found is not None:
            found[0] += 1
            found[1:] = [min(found[1], step), max(found[2], step)]


def _items(prefix: str, logged: dict[str, Any], depth: int) -> Iterator[tuple[str, Any]]:
    """Names and values of one row: numbers as floats, nested ones as ``a.b``; texts and anything else as they are."""
    for key, value in logged.items():
        name = f"{prefix}{key}"
        if isinstance(value, bool | int | float):
            yield name, float(value)
        elif isinstance(value, str):
            yield name, _SPECIAL.get(value, value)
        elif isinstance(value, dict) and "_type" not in value and depth < 20:
            yield from _items(f"{name}.", value, depth + 1)
        elif value is not None:
            yield name, value


def _milliseconds(stamp: object) -> int:
    """ms of an ISO time, which is UTC when it names no zone; 0 for anything else."""
    try:
        found = datetime.fromisoformat(str(stamp))
    except ValueError:
        return 0
    return round((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)

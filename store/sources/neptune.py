"""What neptune-exporter leaves of Neptune's projects: ``<project>/<run>_part_<n>.parquet``, a row per value. Needs pyarrow.

Single values are params, float series metrics, ``sys/`` what the run is called and how it ended. Of text series the newest is kept, of
histograms and files how many there are; files lie in a folder ``files`` beside the export.
"""

from __future__ import annotations

import errno
import importlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mltrack.store.sources.base import Found, Piece, Reader, SourcePoints, stable_id, why

_PART = re.compile(r"(.+-[0-9a-f]{16})_part_(\d+)\.parquet")
_PROJECT = re.compile(r".+-[0-9a-f]{16}")
_BATCH = 20_000
_NAMES, _TEXTS, _TEXT, _PARAMS = 200, 50, 4096, 5000
_SINGLE = {
    "float": "float_value",
    "int": "int_value",
    "string": "string_value",
    "bool": "bool_value",
    "datetime": "datetime_value",
}
_OTHERS = {"histogram_series": "histograms", "file": "files", "file_series": "files"}
_VALUES = (*_SINGLE.values(), "string_set_value")
_COLUMNS = (
    "project_id", "run_id", "attribute_path", "attribute_type", "step", "timestamp", *_VALUES, "file_value",
)  # fmt: skip


@dataclass
class _State:
    """What is remembered of a run between two looks."""

    groups: dict[str, int] = field(default_factory=dict)
    """Part -> row groups read."""
    ids: list[str] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    others: dict[str, list[Any]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    last_ms: int = 0

    @classmethod
    def parse(cls, position: str) -> _State:
        """The state of a position; a new one for what is none of ours."""
        try:
            return cls(**json.loads(position)) if position else cls()
        except (ValueError, TypeError):
            return cls()

    def position(self) -> str:
        """As text."""
        return json.dumps(vars(self), separators=(",", ":"))


class NeptuneReader(Reader):
    """A folder of exported projects, or one project of it."""

    kind: ClassVar[str] = "neptune"
    title: ClassVar[str] = "Neptune export"

    @classmethod
    def recognise(cls, path: Path | str) -> bool:
        try:
            return any(True for _ in _parts(Path(path)))
        except OSError:
            return False

    @classmethod
    def candidates(cls, folder: str, folders: Sequence[str], files: Sequence[str]) -> Iterable[str]:
        """The exporter's own folders end in 16 hex digits."""
        if any(_PROJECT.fullmatch(name) for name in folders) or any(_PART.fullmatch(name) for name in files):
            yield folder

    def scan(self, known: Mapping[str, str]) -> Iterator[Found | None]:
        runs: dict[str, list[tuple[int, Path]]] = {}
        for place, number, path in _parts(self.path):
            runs.setdefault(place, []).append((number, path))
        if runs:
            _parquet(self.path)
        self.total, self.unread = len(runs), len(runs.keys() - known.keys())
        found: list[tuple[int, Found]] = []
        for place, parts in runs.items():
            parts.sort()
            stats = [path.stat() for _, path in parts]
            changed = max(entry.st_mtime_ns for entry in stats)
            stamp = f"{len(parts)}:{sum(entry.st_size for entry in stats)}:{changed}"
            if known.get(place) != stamp:
                found.append((changed, Found(place, stamp, False, [path for _, path in parts])))
        for _, entry in sorted(found, key=lambda pair: -pair[0]):
            yield entry

    def read(self, found: Found, position: str) -> Iterator[Piece]:
        yield from _RunRead(self.path, found.about, _State.parse(position)).pieces(found.place)


def _parts(path: Path) -> Iterator[tuple[str, int, Path]]:
    """(run's place, number, file) of every part at or one folder below a path. Raises OSError."""
    with os.scandir(path) as entries:
        names = sorted((entry.name, entry.is_dir()) for entry in entries)
    for name, is_folder in names:
        if is_folder and _PROJECT.fullmatch(name) and not _PROJECT.fullmatch(path.name):
            for place, number, file in _parts(path / name):
                yield f"{name}/{place}", number, file
        elif not is_folder and (match := _PART.fullmatch(name)):
            yield match[1], int(match[2]), path / name


def _parquet(path: Path) -> Any:
    """pyarrow's reader of Parquet. Raises OSError with what to install."""
    try:
        return importlib.import_module("pyarrow.parquet")
    except ImportError:
        needs = "a Neptune export needs pyarrow: pip install 'mltrack-tui[import]'"
        raise OSError(errno.ENOENT, needs, str(path)) from None


class _RunRead:
    """One look at one run."""

    def __init__(self, source: Path, parts: list[Path], state: _State) -> None:
        self._source = source
        self._parts = parts
        self._state = state
        self._records: list[dict[str, Any]] = []

    def pieces(self, place: str) -> Iterator[Piece]:
        """Row groups that were not read yet; the last piece says what all of it amounts to."""
        problems: list[str] = []
        if not self._state.ids:
            self._introduce()
        readable = bool(self._state.ids)
        if not readable:
            self._state.ids = ["", place]
        for path in self._parts:
            try:
                yield from self._read_part(path)
            except (OSError, ValueError, KeyError) as error:  # pyarrow's errors are ValueErrors and OSErrors
                reason = why(error) if isinstance(error, OSError) else str(error)
                problems.append(f"{path.name}: {' '.join(reason.split())[:300]}")
        if readable:
            self._sum_up()
        yield self._piece(None, damage="; ".join(problems) or None)

    def _piece(
        self, columns: SourcePoints | None, position: str | None = None, damage: str | None = None
    ) -> Piece:
        records, self._records = self._records, []
        run_id = stable_id("neptune", "/".join(self._state.ids))
        return Piece(run_id, position or self._state.position(), records, columns, damage=damage)

    def _add(self, op: str, time_ms: int, **fields: Any) -> None:
        self._records.append({"t": time_ms, "op": op, **fields})

    def _read_part(self, path: Path) -> Iterator[Piece]:
        state = self._state
        with _parquet(path).ParquetFile(str(path)) as file:
            have = set(file.schema_arrow.names)
            if not {"attribute_path", "attribute_type"} <= have:
                raise ValueError("has no columns attribute_path and attribute_type")
            for group in range(state.groups.get(path.name, 0), file.num_row_groups):
                before = state.position()
                columns = [name for name in _COLUMNS if name in have]
                for batch in file.iter_batches(_BATCH, row_groups=[group], columns=columns):
                    # All of a row group is read again or none: its counts must not count twice.
                    points = self._take(batch)
                    if len(points):
                        yield self._piece(points, position=before)
                state.groups[path.name] = group + 1
                yield self._piece(None)

    # -- rows

    def _take(self, batch: Any) -> SourcePoints:
        pyarrow, compute = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.compute")
        state = self._state
        kinds = batch.column("attribute_type")
        series = batch.filter(compute.equal(kinds, "float_series"))
        for row in batch.filter(compute.invert(compute.equal(kinds, "float_series"))).to_pylist():
            self._take_row(row)
        names = series.column("attribute_path").dictionary_encode()
        steps = compute.cast(series.column("step"), pyarrow.int64(), safe=False).fill_null(0)
        times = compute.cast(series.column("timestamp"), pyarrow.int64()).fill_null(0)
        values = series.column("float_value").to_numpy(zero_copy_only=False)
        known = ~np.isnan(values) | series.column("float_value").is_valid().to_numpy(zero_copy_only=False)
        time_ms = times.to_numpy(zero_copy_only=False).astype(np.int64)
        if len(time_ms):
            state.last_ms = max(state.last_ms, int(time_ms.max()))
        return SourcePoints(
            [re.sub(r"^monitoring/", "system/", str(name)) for name in names.dictionary.to_pylist()],
            names.indices.to_numpy(zero_copy_only=False).astype(np.int32)[known],
            steps.to_numpy(zero_copy_only=False).astype(np.int64)[known],
            time_ms[known],
            values.astype(np.float64)[known],
        )

    def _take_row(self, row: dict[str, Any]) -> None:
        state, path, kind = self._state, str(row["attribute_path"]), row["attribute_type"]
        if kind in _SINGLE or kind == "string_set":
            value = row.get(_SINGLE.get(kind, "string_set_value"))
            if not path.startswith("sys/") and value is not None and len(state.params) < _PARAMS:
                state.params[path] = json.dumps(value) if isinstance(value, list) else str(value)
        elif kind == "string_series":
            if path in state.texts or len(state.texts) < _TEXTS:
                state.texts[path] = str(row.get("string_value"))[:_TEXT]
        elif kind in _OTHERS:
            name = f"{_OTHERS[kind]} {path}"
            step = int(row["step"] or 0)
            found = state.others.get(name)
            if found is None and len(state.others) < _NAMES:
                found = state.others[name] = [0, step, step]
            if found is not None:
                found[0] += 1
                found[1:] = [min(found[1], step), max(found[2], step)]
            file = row.get("file_value")
            if isinstance(file, dict) and file.get("path"):
                state.about.setdefault("files", str(file["path"]))

    def _introduce(self) -> None:
        """Who the run is: that may stand anywhere in its parts, and is told before its points."""
        compute = importlib.import_module("pyarrow.compute")
        about = self._state.about
        for path in self._parts:
            try:
                with _parquet(path).ParquetFile(str(path)) as file:
                    have = set(file.schema_arrow.names)
                    columns = [name for name in (*_COLUMNS[:4], *_VALUES) if name in have]
                    for batch in file.iter_batches(_BATCH, columns=columns):
                        if not self._state.ids and batch.num_rows:
                            ids = [str(batch.column(name)[0].as_py()) for name in _COLUMNS[:2]]
                            self._state.ids = ids
                        mine = compute.starts_with(batch.column("attribute_path"), "sys/")
                        for row in batch.filter(mine).to_pylist():
                            value = row.get(_SINGLE.get(row["attribute_type"], "string_set_value"))
                            moment = isinstance(value, datetime)
                            about[row["attribute_path"]] = (
                                round(value.timestamp() * 1000) if moment else value
                            )
            except (OSError, ValueError, KeyError):
                continue  # said when the part is read
        if not self._state.ids:
            return
        # Of an export without the times of its runs the file's own has to do.
        about.setdefault(
            "start", int(about.get("sys/creation_time") or self._parts[0].stat().st_mtime * 1000)
        )
        start = int(about["start"])
        name = about.get("sys/name")
        named = str(name) if name and name != "Untitled" else self._state.ids[1]
        user = str(about.get("sys/owner") or "")
        self._add("start", start, name=named, experiment=self._state.ids[0], user=user)
        if about.get("sys/description"):
            self._add("note", start, v=str(about["sys/description"]))
        tags = {str(tag): "true" for key in ("sys/tags", "sys/group_tags") for tag in about.get(key) or ()}
        shown = [key for key in ("sys/id", "sys/experiment/name") if about.get(key)]
        tags |= {key.replace("sys/", "neptune."): str(about[key]) for key in shown}
        if tags:
            self._add("tags", start, v=tags)

    def _sum_up(self) -> None:
        state, about = self._state, self._state.about
        start = int(about.get("start") or 0)
        end = max(state.last_ms, start, int(about.get("sys/modification_time") or 0))
        if state.params:
            self._add("param", start, v=state.params)
        facts = {"logged": state.others, "texts": state.texts}
        if any(facts.values()):
            self._add("facts", end, v={key: value for key, value in facts.items() if value})
        status = "RUNNING" if about.get("sys/state") in ("Active", "running") else "FINISHED"
        self._add("status", end, v="FAILED" if about.get("sys/failed") else status, end=end)
        place = self._files()
        if place is not None:
            self._add("artifacts", start, v=str(place))

    def _files(self) -> Path | None:
        """The run's folder among the exported files: what its files' paths have in common with the export's layout."""
        parts = Path(str(self._state.about.get("files", ""))).parts[:2]
        root = self._source.parent if _PROJECT.fullmatch(self._source.name) else self._source
        folder = root.parent / "files" / Path(*parts) if len(parts) == 2 and ".." not in parts else None
        return folder if folder is not None and folder.is_dir() else None

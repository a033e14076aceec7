"""The run table as columns, kept up to date by the change counter: what search and sort run on.

A column is read on first use and kept; a run that changed is patched into the columns that are there. Metrics come from stored
segments (column_segments.py) and, for runs that these do not cover, from the runs' packed summaries.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import orjson

from mltrack.store import column_segments
from mltrack.store import summary as summaries
from mltrack.store.column_types import Aggregate, Kind, Number, NumberKind, Text, TextKind
from mltrack.store.database import Database
from mltrack.store.summary import Rows

# Reading columns anew is cheaper than patching this many changed runs into them.
PATCH_RUNS = 5000
# Of more summaries than this the wanted metric is picked run by run.
MOST_SORTED = 500_000
_SLICE = 500
_FIRST = ("id", "seq", "run_id", "start_ms")
_TEXTS = {
    "run_id": "run_id",
    "run_name": "name",
    "experiment": "experiment_id",
    "status": "status",
    "user": "owner",
    "host": "host",
    "note": "note",
    "lifecycle": "lifecycle",
    "parent_id": "parent_id",
    "damage": "damage",
}
# Few distinct values: runs by value are read in half the time of a value per run.
_GROUPED = frozenset(("experiment", "status", "lifecycle", "parent_id"))
_USUAL = {"lifecycle": "active"}  # what nearly all runs have, and no index leads to
_NUMBERS = {"start_time": "start_ms", "end_time": "end_ms", "heard": "heard_ms", "step": "step"}
_FIELDS = {"last": "last", "min": "low", "max": "high", "count": "count"}
_TABLES = {
    "param": ("value", "param WHERE key = ?"),
    "tag": ("CASE WHEN edited = 1 THEN edit ELSE value END", "tag WHERE key = ?"),
}
_Key = tuple[str, ...]


class RunColumns:
    """Columns of all runs of a store, one entry per run in order of creation."""

    def __init__(self, database: Database, root: Path | None = None) -> None:
        """``root``: the store's folder, which the artifacts of its runs lie in."""
        self._database = database
        self._artifacts = "" if root is None else f"{root.absolute().as_uri()}/runs"
        self._metric_ids: dict[str, int] = {}
        self._forget()

    def _forget(self) -> None:
        self._seq = -1
        self._ids: list[int] = []
        self._seqs: list[int] = []
        self._place_of: dict[int, int] | None = None
        self._values: dict[str, list[Any]] = {}  # attributes as the database has them, by its column
        self._columns: dict[_Key, Number | Text] = {}
        self._codes: dict[_Key, dict[str, int]] = {}  # the dictionaries of text columns, for patching
        self._experiments: dict[int, str] = {}
        self._loose: dict[int, Rows] | None = None  # summaries of runs no segment covers, by place
        self._by_number: npt.NDArray[np.int64] | None = None  # the place of each row number
        self._sorted: tuple[Rows, npt.NDArray[np.int64]] | None = (
            None  # the same, by metric, with their places
        )

    # -- keeping up

    def refresh(self) -> None:
        """Read what changed since the last call."""
        seq = int(self._database.execute("SELECT value FROM setting WHERE key = 'seq'")[0][0])
        total = int(self._database.execute("SELECT count(*) FROM run")[0][0])
        if seq == self._seq and total == len(self._ids):
            return
        if self._seq >= 0:
            changed = self._database.execute(
                "SELECT id, seq FROM run WHERE seq > ? ORDER BY id", (self._seq,)
            )
            new = sum(1 for run, _ in changed if run not in self._place)
            if len(changed) <= PATCH_RUNS and total == len(self._ids) + new:
                self._patch([int(run) for run, _ in changed], [int(at) for _, at in changed])
                self._seq = seq
                return
        self._forget()
        by_column = _lists(self._database, _FIRST, "run")
        if by_column[0] != sorted(by_column[0]):
            order = np.argsort(by_column[0]).tolist()
            by_column = [[values[place] for place in order] for values in by_column]
        self._ids, self._seqs = by_column[0], by_column[1]
        self._values = dict(zip(_FIRST[2:], by_column[2:], strict=True))
        self._place_of = None
        self._experiments = self._experiment_names()
        self._seq = seq

    def _experiment_names(self) -> dict[int, str]:
        return {
            int(number): str(name)
            for number, name in self._database.execute("SELECT id, name FROM experiment")
        }

    def _patch(self, runs: list[int], seqs: list[int]) -> None:
        """Lay changed and new runs over what was read."""
        names = self._experiment_names()
        if names != self._experiments:
            self._experiments = names
            self._columns.pop(("text", "attribute", "experiment"), None)
        if not runs:
            return
        self._by_number = None
        for run, seq in zip(runs, seqs, strict=True):
            place = self._place.setdefault(run, len(self._ids))
            if place == len(self._ids):
                self._ids.append(run)
                self._seqs.append(seq)
                for values in self._values.values():
                    values.append(None)
            else:
                self._seqs[place] = seq
        places = np.array([self._place[run] for run in runs], np.int64)
        if self._values:
            fetched = self._of_runs(f"SELECT id, {', '.join(self._values)} FROM run WHERE", "id", runs)
            for run, *found in fetched:
                for values, value in zip(self._values.values(), found, strict=True):
                    values[self._place[int(run)]] = value
        if self._loose is not None:
            for run, blob in self._of_runs("SELECT id, summary FROM run WHERE", "id", runs):
                self._loose[self._place[int(run)]] = summaries.unpack(bytes(blob) if blob else None)
            self._sorted = None
        for key, column in list(self._columns.items()):
            self._patch_column(key, column, runs, places)

    def _patch_column(
        self, key: _Key, column: Number | Text, runs: list[int], places: npt.NDArray[np.int64]
    ) -> None:
        shape, kind, name = key[:3]
        if isinstance(column, Number):
            if kind == "metric":
                part = self._summaries_of(places)
                values, present = self._from_rows(*part, self._metric_id(name), key[3])
                self._columns[key] = _patched(column, self.n, places, values[places], present[places])
            elif name == "duration":
                del self._columns[key]
            else:
                raw = self._values[_NUMBERS[name]]
                fresh = _number([raw[place] for place in places.tolist()])
                self._columns[key] = _patched(column, self.n, places, fresh.values, fresh.present)
            return
        if kind == "dataset":
            del self._columns[key]
            return
        texts: list[str | None]
        if kind == "attribute":
            texts = self._attribute_texts(name, runs, places)
        else:
            value, source = _TABLES[kind]
            found = dict(self._of_runs(f"SELECT run, {value} FROM {source} AND", "run", runs, (name,)))
            texts = [found.get(run) for run in runs]
        known = self._codes[key]
        codes = np.full(self.n, -1, np.int32)
        codes[: len(column.codes)] = column.codes
        codes[places] = [-1 if text is None else known.setdefault(text, len(known)) for text in texts]
        if len(known) == len(column.values):
            patched = Text(codes, column.values)
            # What was worked out of the distinct values is still true.
            for worked_out in ("numbers", "lowered", "ranks"):
                if worked_out in column.__dict__:
                    patched.__dict__[worked_out] = column.__dict__[worked_out]
        else:
            patched = Text(codes, tuple(known))
        self._columns[key] = patched

    def _of_runs(
        self, select: str, column: str, runs: Sequence[int], first: tuple[Any, ...] = ()
    ) -> list[tuple[Any, ...]]:
        """Rows of a statement that lacks its last condition, for many runs."""
        rows: list[tuple[Any, ...]] = []
        for start in range(0, len(runs), _SLICE):
            part = runs[start : start + _SLICE]
            marks = ", ".join("?" * len(part))
            rows += self._database.execute(f"{select} {column} IN ({marks})", (*first, *part))
        return rows

    @property
    def _place(self) -> dict[int, int]:
        """The place of each row number."""
        if self._place_of is None:
            self._place_of = dict(zip(self._ids, range(len(self._ids)), strict=True))
        return self._place_of

    # -- the protocol of search

    @property
    def n(self) -> int:
        """Number of runs."""
        return len(self._ids)

    @property
    def run_ids(self) -> Sequence[str]:
        """The run id of each row."""
        return self._attribute("run_id")

    def experiment_numbers(self) -> npt.NDArray[np.int64]:
        """int64[n]: the row number of each run's experiment."""
        return np.array(self._attribute("experiment_id"), np.int64)

    def number(self, kind: NumberKind, key: str, aggregate: Aggregate = "last") -> Number:
        """See ``Columns.number``."""
        name = ("number", kind, key, aggregate if kind == "metric" else "")
        found = self._columns.get(name)
        if not isinstance(found, Number):
            found = self._metric(key, aggregate) if kind == "metric" else self._number_attribute(key)
            if kind == "attribute" or self._metric_id(key) is not None:
                self._columns[name] = found
        return found

    def _number_attribute(self, key: str) -> Number:
        if key == "duration":
            start, end, heard = (
                self.number("attribute", name) for name in ("start_time", "end_time", "heard")
            )
            until = np.where(end.present, end.values, heard.values)
            return Number(until - start.values, start.present & (end.present | heard.present))
        column = _NUMBERS.get(key)
        if column is None:
            return Number(np.zeros(self.n), np.zeros(self.n, np.bool_))
        return _number(self._attribute(column))

    def text(self, kind: TextKind, key: str) -> Text:
        """See ``Columns.text``."""
        name = ("text", kind, key)
        found = self._columns.get(name)
        if not isinstance(found, Text):
            found = self._dataset(key) if kind == "dataset" else self._text(name, kind, key)
            self._columns[name] = found
        return found

    def _text(self, name: _Key, kind: str, key: str) -> Text:
        known: dict[str, int] = {}
        self._codes[name] = known
        codes = np.full(self.n, -1, np.int32)
        if kind != "attribute":
            value, source = _TABLES[kind]
            runs, values = _lists(self._database, ("run", value), source, (key,))
            places = self._places_of(np.array(runs, np.int64))
            here = places >= 0
            codes[places[here]] = _coded(values, known)[here]
        elif key in _GROUPED:
            usual = _USUAL.get(key)
            if usual is not None and self.n:
                codes[:] = known.setdefault(usual, len(known))
            for value, numbers in _groups(self._database, _TEXTS[key], usual):
                text = self._experiments.get(int(value), "") if key == "experiment" else str(value)
                places = self._places_of(numbers)
                codes[places[places >= 0]] = known.setdefault(text, len(known))
        elif key == "artifact_uri":
            codes = _coded([self._artifact_uri(run_id) for run_id in self.run_ids], known)
        elif key in _TEXTS:
            values = self._attribute(_TEXTS[key])
            codes = _coded(values, known)
        return Text(codes, tuple(known))

    def _places_of(self, runs: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Place of each row number, -1 for runs that are not here."""
        if self._by_number is None:
            self._by_number = np.full(max(self._ids, default=0) + 1, -1, np.int64)
            self._by_number[np.array(self._ids, np.int64)] = np.arange(self.n)
        known = (runs >= 0) & (runs < len(self._by_number))
        return np.where(known, self._by_number[np.where(known, runs, 0)], -1)

    def _artifact_uri(self, run_id: str) -> str | None:
        return f"{self._artifacts}/{run_id[:2]}/{run_id}/artifacts" if self._artifacts else None

    def _attribute_texts(
        self, key: str, runs: Sequence[int], places: npt.NDArray[np.int64]
    ) -> list[str | None]:
        """A text of some runs, by their row numbers and places."""
        if key == "artifact_uri":
            return [self._artifact_uri(self.run_ids[int(place)]) for place in places.tolist()]
        column = _TEXTS.get(key, "")
        values: list[Any]
        if column in self._values:
            values = [self._values[column][place] for place in places.tolist()]
        elif column:
            found = dict(self._of_runs(f"SELECT id, {column} FROM run WHERE", "id", runs))
            values = [found.get(run) for run in runs]
        else:
            values = [None] * len(runs)
        return [self._experiments.get(value, "") for value in values] if key == "experiment" else values

    def _attribute(self, column: str) -> list[Any]:
        """One column of the database for every row here."""
        if column not in self._values:
            runs, values = _lists(self._database, ("id", column), "run")
            if runs != self._ids:  # runs came or went since the refresh, or did not come in order
                found = dict(zip(runs, values, strict=True))
                values = [found.get(run) for run in self._ids]
            self._values[column] = values
        return self._values[column]

    def _dataset(self, key: str) -> Text:
        column = {"name": "name", "digest": "digest", "context": "context"}.get(key)
        known: dict[str, int] = {}
        codes: list[int] = []
        owners: list[int] = []
        if column is not None:
            for run, value in self._database.execute(f"SELECT run, {column} FROM run_input"):
                if run in self._place:
                    owners.append(self._place[run])
                    codes.append(known.setdefault(value, len(known)))
        return Text(np.array(codes, np.int32), tuple(known), np.array(owners, np.int64))

    # -- metrics

    def _metric(self, key: str, aggregate: Aggregate) -> Number:
        metric = self._metric_id(key)
        if metric is None:
            return Number(np.zeros(self.n), np.zeros(self.n, np.bool_))
        loose = self._load_loose()
        values, present = self._from_rows(*self._by_metric(metric), metric, aggregate)
        is_loose = np.zeros(self.n, np.bool_)
        is_loose[list(loose)] = True
        for part in column_segments.read(self._database, metric, aggregate):
            places = self._places_of(part.runs)
            mine = (places >= 0) & ~is_loose[places]
            values[places[mine]] = part.values[mine]
            present[places[mine]] = True
        return Number(values, present)

    def _load_loose(self) -> dict[int, Rows]:
        """Summaries of the runs that no segment covers. Writes segments first where there are none."""
        if self._loose is None:
            runs, seqs = np.array(self._ids, np.int64), np.array(self._seqs, np.int64)
            covered = column_segments.covered(self._database, runs, seqs)
            if column_segments.build(self._database, runs, ~covered):
                covered = column_segments.covered(self._database, runs, seqs)
            places = np.flatnonzero(~covered)
            # A segment written again by another process after our last refresh covers a run as it is then: as new or newer.
            if len(places) * 2 > self.n:
                rows = self._database.execute("SELECT id, summary FROM run")
            else:
                rows = self._of_runs("SELECT id, summary FROM run WHERE", "id", runs[places].tolist())
            place_of = dict(zip(runs[places].tolist(), places.tolist(), strict=True))
            self._loose = {
                place_of[run]: summaries.unpack(bytes(blob) if blob else None)
                for run, blob in rows
                if run in place_of
            }
        return self._loose

    def _by_metric(self, metric: int) -> tuple[Rows, npt.NDArray[np.int64]]:
        """Rows in order of metrics with their places; only those of ``metric`` where sorting all would take seconds."""
        if self._sorted is None:
            loose = self._load_loose()
            if sum(map(len, loose.values())) > MOST_SORTED:
                return _joined([rows[rows["key"] == metric] for rows in loose.values()], list(loose))
            rows, owner = _joined(list(loose.values()), list(loose))
            order = np.argsort(rows["key"], kind="stable")
            self._sorted = rows[order], owner[order]
        return self._sorted

    def _summaries_of(self, places: npt.NDArray[np.int64]) -> tuple[Rows, npt.NDArray[np.int64]]:
        loose = self._load_loose()
        rows, owner = _joined(
            [loose.get(place, summaries.no_rows()) for place in places.tolist()], places.tolist()
        )
        order = np.argsort(rows["key"], kind="stable")
        return rows[order], owner[order]

    def _from_rows(
        self, rows: Rows, owner: npt.NDArray[np.int64], metric: int | None, aggregate: str
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """One aggregate of one metric, from summary rows in order of metrics."""
        values, present = np.zeros(self.n), np.zeros(self.n, np.bool_)
        if metric is not None:
            left, right = np.searchsorted(rows["key"], [metric, metric + 1])
            rows, owner = rows[left:right], owner[left:right]
            shown = (rows["rank"] == 0) & (rows["count"] > 0)
            values[owner[shown]] = rows[_FIELDS[aggregate]][shown]
            present[owner[shown]] = True
        return values, present

    # -- which keys there are

    def has(self, kind: Kind, key: str) -> bool:
        """Whether any run has this key."""
        if kind == "attribute":
            return key in _TEXTS or key in _NUMBERS or key in ("duration", "artifact_uri")
        if kind == "dataset":
            return key in ("name", "digest", "context")
        if kind == "metric":
            return self._metric_id(key) is not None
        table = "param" if kind == "param" else "tag"
        return bool(self._database.execute(f"SELECT 1 FROM {table} WHERE key = ? LIMIT 1", (key,)))

    def keys(self, kind: Kind) -> Sequence[str]:
        """All keys of this kind that any run has."""
        if kind == "attribute":
            return [*_TEXTS, *_NUMBERS, "duration", "artifact_uri"]
        if kind == "dataset":
            return ["name", "digest", "context"]
        if kind == "metric":
            return [str(row[0]) for row in self._database.execute("SELECT key FROM metric_key ORDER BY key")]
        table = "param" if kind == "param" else "tag"
        # The next larger one again and again: an index leads to each, where DISTINCT reads a row for every run and key.
        rows = self._database.execute(
            f"SELECT key FROM (WITH RECURSIVE known(key) AS (SELECT min(key) FROM {table} UNION ALL"
            f" SELECT (SELECT min(key) FROM {table} WHERE key > known.key) FROM known WHERE known.key IS NOT NULL)"
            " SELECT key FROM known) AS found WHERE key IS NOT NULL ORDER BY key"
        )
        return [str(key) for (key,) in rows]

    def _metric_id(self, key: str) -> int | None:
        if key not in self._metric_ids:
            rows = self._database.execute("SELECT id FROM metric_key WHERE key = ?", (key,))
            if not rows:
                return None
            self._metric_ids[key] = int(rows[0][0])
        return self._metric_ids[key]


def _lists(
    database: Database, names: Sequence[str], source: str, parameters: tuple[Any, ...] = ()
) -> list[list[Any]]:
    """Columns of numbers and texts as lists, in any order of rows. As JSON, which SQLite and orjson pass on in a third of the time."""
    if database.kind == "sqlite":
        aggregates = ", ".join(f"json_group_array({name})" for name in names)
        try:
            texts = database.connection.execute(f"SELECT {aggregates} FROM {source}", parameters).fetchone()
            return [orjson.loads(text) for text in texts]
        except (sqlite3.Error, orjson.JSONDecodeError):
            pass  # more than SQLite can hold in one text, or damage, which reading row by row names
    rows = database.execute(f"SELECT {', '.join(names)} FROM {source}", parameters)
    return [[row[place] for row in rows] for place in range(len(names))]


def _groups(database: Database, column: str, usual: str | None) -> list[tuple[Any, npt.NDArray[np.int64]]]:
    """The values of a column of runs, each with the row numbers of its runs, int64; without null and the ``usual`` one."""
    condition = f"{column} IS NOT NULL" if usual is None else f"{column} <> ?"
    parameters = () if usual is None else (usual,)
    if database.kind == "sqlite":
        select = f"SELECT {column}, json_group_array(id) FROM run WHERE {condition} GROUP BY {column}"
        try:
            rows = database.connection.execute(select, parameters).fetchall()
            return [(value, np.array(orjson.loads(numbers), np.int64)) for value, numbers in rows]
        except (sqlite3.Error, orjson.JSONDecodeError):
            pass  # as above
    numbers_of: dict[Any, list[int]] = {}
    for number, value in database.execute(f"SELECT id, {column} FROM run WHERE {condition}", parameters):
        numbers_of.setdefault(value, []).append(int(number))
    return [(value, np.array(numbers, np.int64)) for value, numbers in numbers_of.items()]


def _coded(values: Sequence[str | None], known: dict[str, int]) -> npt.NDArray[np.int32]:
    """The code of each text, -1 for None. ``known`` is empty and becomes the dictionary."""
    distinct = dict.fromkeys(values)
    absent = None in distinct
    distinct.pop(None, None)
    known.update(zip(cast("dict[str, None]", distinct), range(len(distinct)), strict=True))
    table = cast("dict[str | None, int]", known)
    if absent:
        table = {**table, None: -1}
    return np.fromiter(map(table.__getitem__, values), np.int32, len(values))


def _number(values: Sequence[float | None]) -> Number:
    """A column from numbers and None."""
    numbers = np.array(values, np.float64)  # None becomes NaN; whole numbers of these columns are never NaN
    present = ~np.isnan(numbers)
    return Number(np.where(present, numbers, 0.0), present)


def _patched(
    old: Number,
    n: int,
    places: npt.NDArray[np.int64],
    values: npt.NDArray[np.float64],
    present: npt.NDArray[np.bool_],
) -> Number:
    """A copy of a column, with other values at these places and room for ``n`` rows."""
    all_values, all_present = np.zeros(n), np.zeros(n, np.bool_)
    all_values[: len(old.values)], all_present[: len(old.present)] = old.values, old.present
    all_values[places], all_present[places] = values, present
    return Number(all_values, all_present)


def _joined(parts: list[Rows], places: list[int]) -> tuple[Rows, npt.NDArray[np.int64]]:
    """Rows of many summaries and for each row the place of its run."""
    return summaries.joined(parts), np.repeat(np.array(places, np.int64), [len(part) for part in parts])

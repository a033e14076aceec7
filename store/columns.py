"""The run table as columns, kept up to date by the change counter: what search and sort run on.

A column is read on first use and kept; a run that changed is patched into the columns that are there. Columns come from stored
segments (column_segments.py) and, for runs that these do not hold for, from the runs' own rows and packed summaries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from mltrack.store import column_segments
from mltrack.store import summary as summaries
from mltrack.store.column_segments import TAG_VALUE
from mltrack.store.column_types import Aggregate, Kind, Number, NumberKind, Text, TextKind
from mltrack.store.database import Database
from mltrack.store.series import Ints
from mltrack.store.summary import Rows

# Reading columns anew is cheaper than patching this many changed runs into them.
PATCH_RUNS = 5000
# Of more summaries than this the wanted metric is picked run by run.
MOST_SORTED = 500_000
_SLICE = 500
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
_NUMBERS = {"start_time": "start_ms", "end_time": "end_ms", "heard": "heard_ms", "step": "step"}
_EXPERIMENT = "experiment_id"
_FIELDS = {"last": "last", "min": "low", "max": "high", "count": "count"}
# Where the runs' own values are: what they are, the run's row number, the rows.
_TABLES = {"param": ("value", "run", "param WHERE key = ?"), "tag": (TAG_VALUE, "run", "tag WHERE key = ?")}
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
        self._purged = 0
        self._ids = np.zeros(0, np.int64)  # the row number of each run
        self._run_ids: list[str] = []
        self._stored = np.zeros(0, np.bool_)  # whether segments hold for the run
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
        if seq == self._seq:
            return
        # A purged run leaves nothing behind but its tombstone. Counting those takes no time, counting all runs does.
        purged = int(self._database.execute("SELECT count(*) FROM tombstone")[0][0])
        changed: list[int] | None = None
        if self._seq >= 0 and purged == self._purged:
            rows = self._database.execute("SELECT id FROM run WHERE seq > ? ORDER BY id", (self._seq,))
            changed = [int(run) for (run,) in rows]
        try:
            if changed is not None and len(changed) <= PATCH_RUNS:
                self._patch(changed)
            else:
                self._forget()
                self._read_runs()
        except BaseException:
            self._forget()  # half of a change would be neither old nor new
            raise
        self._seq, self._purged = seq, purged

    def _read_runs(self) -> None:
        held, others = column_segments.coverage(self._database)
        ids = np.concatenate((held.runs, others))
        order = np.argsort(ids, kind="stable")
        self._ids = ids[order]
        self._stored = order < len(held.runs)
        self._experiments = self._experiment_names()
        self._run_ids = held.values[: self.n]
        if not np.array_equal(held.codes, np.arange(self.n)):
            run_ids = np.full(self.n, "", np.object_)
            run_ids[self._stored] = np.array(held.values, np.object_)[held.codes]
            places, own = self._unstored("attribute", "run_id")
            run_ids[places] = own
            self._run_ids = cast("list[str]", run_ids.tolist())

    def _experiment_names(self) -> dict[int, str]:
        return {
            int(number): str(name)
            for number, name in self._database.execute("SELECT id, name FROM experiment")
        }

    def _patch(self, runs: list[int]) -> None:
        """Lay changed and new runs over what was read."""
        names = self._experiment_names()
        if names != self._experiments:
            self._experiments = names
            self._columns.pop(("text", "attribute", "experiment"), None)
        if not runs:
            return
        places = self._places_of(np.array(runs, np.int64))
        if (places < 0).any():
            new = np.array(runs, np.int64)[places < 0]
            self._ids = np.append(self._ids, new)
            self._run_ids += [""] * len(new)
            self._stored = np.append(self._stored, np.zeros(len(new), np.bool_))
            self._by_number = None
            places = self._places_of(np.array(runs, np.int64))
        self._stored[places] = False
        wanted = {"run_id", _EXPERIMENT}.union(
            _NUMBERS.get(name) or _TEXTS.get(name, "run_id")
            for _, kind, name, *_ in self._columns
            if kind == "attribute"
        )
        rows = self._of_runs(f"SELECT id, {', '.join(wanted)} FROM run WHERE", "id", runs)
        by_run = {int(run): dict(zip(wanted, found, strict=True)) for run, *found in rows}
        fresh = [by_run.get(run, {}) for run in runs]  # one may have been purged since
        for place, row in zip(places.tolist(), fresh, strict=True):
            self._run_ids[place] = row.get("run_id", self._run_ids[place])
        if self._loose is not None:
            place_of = dict(zip(runs, places.tolist(), strict=True))
            for run, blob in self._of_runs("SELECT id, summary FROM run WHERE", "id", runs):
                self._loose[place_of[int(run)]] = summaries.unpack(bytes(blob) if blob else None)
            self._sorted = None
        for key, column in list(self._columns.items()):
            self._patch_column(key, column, runs, places, fresh)

    def _patch_column(
        self,
        key: _Key,
        column: Number | Text,
        runs: list[int],
        places: npt.NDArray[np.int64],
        fresh: Sequence[Mapping[str, Any]],
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
                numbers = _number([row.get(_NUMBERS.get(name, name)) for row in fresh])
                self._columns[key] = _patched(column, self.n, places, numbers.values, numbers.present)
            return
        if kind == "dataset":
            del self._columns[key]
            return
        texts: list[str | None]
        if kind == "attribute":
            texts = [self._attribute_text(name, row) for row in fresh]
        else:
            value, _, source = _TABLES[kind]
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

    # -- the protocol of search

    @property
    def n(self) -> int:
        """Number of runs."""
        return len(self._ids)

    @property
    def run_ids(self) -> Sequence[str]:
        """The run id of each row."""
        return self._run_ids

    def experiment_numbers(self) -> npt.NDArray[np.int64]:
        """int64[n]: the row number of each run's experiment."""
        return self.number("attribute", _EXPERIMENT).values.astype(np.int64)

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
        values, present = np.zeros(self.n), np.zeros(self.n, np.bool_)
        column = _EXPERIMENT if key == _EXPERIMENT else _NUMBERS.get(key)
        if column is not None:
            if self._stored.any():
                runs, numbers = column_segments.read_integers(self._database, column)
                places, kept = self._stored_places(runs)
                values[places], present[places] = numbers[kept], True
            places, found = self._unstored("attribute", column)
            own = _number(found)
            values[places], present[places] = own.values, own.present
        return Number(values, present)

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
        if name == ("text", "attribute", "artifact_uri"):
            codes = _coded([self._artifact_uri(run_id) for run_id in self.run_ids], known)
        elif name == ("text", "attribute", "experiment"):
            numbers = self.experiment_numbers()
            table = np.full(max((*self._experiments, int(numbers.max(initial=0)))) + 1, -1, np.int32)
            for number, text in self._experiments.items():
                table[number] = known.setdefault(text, len(known))
            codes = table[numbers]
        elif kind != "attribute" or key in _TEXTS:
            column = _TEXTS[key] if kind == "attribute" else key
            places, within, texts = self._stored_texts(kind, column)
            others, more = self._unstored(kind, column)
            coded = _coded([*texts, *more], known)
            codes[places] = coded[within]
            codes[others] = coded[len(texts) :]
        return Text(codes, tuple(known))

    def _stored_texts(self, kind: str, column: str) -> tuple[Ints, Ints, list[str]]:
        """Places of the runs that a segment holds a text for, and its code into the texts."""
        if not self._stored.any():
            return np.zeros(0, np.int64), np.zeros(0, np.int64), []
        found = column_segments.read_texts(self._database, kind, column)
        places, kept = self._stored_places(found.runs)
        return places, found.codes[kept], found.values

    def _stored_places(self, runs: Ints) -> tuple[Ints, npt.NDArray[np.bool_]]:
        """Places of those of the runs that segments hold for, and which these are."""
        places = self._places_of(runs)
        kept = (places >= 0) & self._stored[places]
        return places[kept], kept

    def _unstored(self, kind: str, column: str) -> tuple[Ints, list[Any]]:
        """Places of the runs that no segment holds for, and their own values."""
        places = np.flatnonzero(~self._stored)
        if not len(places):
            return places, []
        value, run, source = _TABLES.get(kind, (column, "id", "run"))
        parameters = (column,) if kind in _TABLES else ()
        if len(places) * 2 > self.n:
            runs, values = self._database.lists((run, value), source, parameters)
        else:
            select = f"SELECT {run}, {value} FROM {source} {'AND' if parameters else 'WHERE'}"
            rows = self._of_runs(select, run, self._ids[places].tolist(), parameters)
            runs, values = [row[0] for row in rows], [row[1] for row in rows]
        found = self._places_of(np.array(runs, np.int64))
        if (found < 0).any():  # runs that came since the refresh
            values = [text for text, place in zip(values, found.tolist(), strict=True) if place >= 0]
        return found[found >= 0], values

    def _places_of(self, runs: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Place of each row number, -1 for runs that are not here."""
        if self._by_number is None:
            self._by_number = np.full(int(self._ids.max(initial=0)) + 1, -1, np.int64)
            self._by_number[self._ids] = np.arange(self.n)
        known = (runs >= 0) & (runs < len(self._by_number))
        return np.where(known, self._by_number[np.where(known, runs, 0)], -1)

    def _artifact_uri(self, run_id: str) -> str | None:
        return f"{self._artifacts}/{run_id[:2]}/{run_id}/artifacts" if self._artifacts else None

    def _attribute_text(self, key: str, row: Mapping[str, Any]) -> str | None:
        """A text of a run, from its row in the database."""
        if key == "artifact_uri":
            return self._artifact_uri(row.get("run_id", ""))
        if key == "experiment":
            return self._experiments.get(row.get(_EXPERIMENT, 0), "")
        value = row.get(_TEXTS.get(key, ""))
        return None if value is None else str(value)

    def _dataset(self, key: str) -> Text:
        column = {"name": "name", "digest": "digest", "context": "context"}.get(key)
        known: dict[str, int] = {}
        rows: list[tuple[Any, ...]] = []
        if column is not None:
            rows = self._database.execute(f"SELECT run, {column} FROM run_input WHERE {column} <> ''")
        owners = self._places_of(np.array([run for run, _ in rows], np.int64))
        codes = np.array([known.setdefault(value, len(known)) for _, value in rows], np.int32)
        return Text(codes[owners >= 0], tuple(known), owners[owners >= 0])

    # -- metrics

    def _metric(self, key: str, aggregate: Aggregate) -> Number:
        metric = self._metric_id(key)
        if metric is None:
            return Number(np.zeros(self.n), np.zeros(self.n, np.bool_))
        values, present = self._from_rows(*self._by_metric(metric), metric, aggregate)
        if self._stored.any():
            runs, numbers = column_segments.read_metric(self._database, metric, aggregate)
            places, kept = self._stored_places(runs)
            values[places], present[places] = numbers[kept], True
        return Number(values, present)

    def _load_loose(self) -> dict[int, Rows]:
        """Summaries of the runs that no segment holds for. Writes segments first where there are none."""
        if self._loose is None:
            if column_segments.build(self._database, self._ids[~self._stored]):
                # A segment written again by another process after our last refresh has a run as it is then: as new or newer.
                places = self._places_of(column_segments.coverage(self._database)[0].runs)
                self._stored[places[places >= 0]] = True
            places, blobs = self._unstored("attribute", "summary")
            self._loose = {
                place: summaries.unpack(bytes(blob) if blob else None)
                for place, blob in zip(places.tolist(), blobs, strict=True)
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

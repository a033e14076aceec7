"""The run table as columns, kept up to date by the change counter: what search and sort run on.

Metrics come from the packed summaries of all runs, sorted by metric once; runs that changed since are laid over that. A
column is built on first use and reused until a run changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mltrack.store import summary as summaries
from mltrack.store.column_types import Aggregate, Kind, Number, NumberKind, Text, TextKind
from mltrack.store.database import Database
from mltrack.store.summary import Rows

# Rebuilding everything is cheaper than laying this many changed runs over it each time.
OVERLAY_RUNS = 5000
_BASE = (
    "SELECT r.id, r.seq, r.run_id, r.name, e.name, r.status, r.owner, r.host, r.note, r.lifecycle, r.parent_id, r.start_ms, r.end_ms,"
    " r.heard_ms, r.step FROM run r JOIN experiment e ON e.id = r.experiment_id"
)
_TEXTS = {
    "run_id": 2,
    "run_name": 3,
    "experiment": 4,
    "status": 5,
    "user": 6,
    "host": 7,
    "note": 8,
    "lifecycle": 9,
    "parent_id": 10,
}
_NUMBERS = {"start_time": 11, "end_time": 12, "heard": 13, "step": 14}
_FIELDS = {"last": "last", "min": "low", "max": "high", "count": "count"}


class RunColumns:
    """Columns of all runs of a store, one entry per run in order of creation."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._seq = -1
        self._rows: list[tuple[Any, ...]] = []
        self._place: dict[int, int] = {}
        self._base: Rows | None = None
        self._base_owner: npt.NDArray[np.int64] = np.empty(0, np.int64)
        self._stale: set[int] = set()
        self._overlay: tuple[Rows, npt.NDArray[np.int64]] | None = None
        self._cache: dict[tuple[str, ...], Any] = {}
        self._metric_ids: dict[str, int] = {}

    # -- keeping up

    def refresh(self) -> None:
        """Read what changed since the last call."""
        rows = self._database.execute("SELECT value FROM setting WHERE key = 'seq'")
        seq = int(rows[0][0])
        total = int(self._database.execute("SELECT count(*) FROM run")[0][0])
        if seq == self._seq and total == len(self._rows):
            return
        changed = self._database.execute(_BASE + " WHERE r.seq > ? ORDER BY r.id", (self._seq,))
        gone = total < len(self._rows) + sum(1 for row in changed if row[0] not in self._place)
        if gone or self._seq < 0:
            self._rows = self._database.execute(_BASE + " ORDER BY r.id")
            self._place = {int(row[0]): place for place, row in enumerate(self._rows)}
            self._base = None
        else:
            for row in changed:
                place = self._place.setdefault(int(row[0]), len(self._rows))
                if place == len(self._rows):
                    self._rows.append(row)
                else:
                    self._rows[place] = row
                self._stale.add(place)
            if len(self._stale) > OVERLAY_RUNS:
                self._base = None
        self._overlay = None
        self._seq = seq
        self._cache.clear()

    def _load_base(self) -> Rows:
        if self._base is None:
            places: list[int] = []
            blobs: list[bytes] = []
            for run, blob in self._database.execute("SELECT id, summary FROM run WHERE summary IS NOT NULL"):
                if int(run) in self._place:
                    places.append(self._place[int(run)])
                    blobs.append(bytes(blob))
            rows, owner = _joined(blobs, places)
            order = np.argsort(rows["key"], kind="stable")
            self._base, self._base_owner = rows[order], owner[order]
            self._stale = set()
            self._overlay = None
        return self._base

    def _load_overlay(self) -> tuple[Rows, npt.NDArray[np.int64]]:
        if self._overlay is None:
            places, blobs = [], []
            for place in sorted(self._stale):
                blob = self._database.execute("SELECT summary FROM run WHERE id = ?", (self._rows[place][0],))
                if blob and blob[0][0]:
                    places.append(place)
                    blobs.append(bytes(blob[0][0]))
            self._overlay = _joined(blobs, places)
        return self._overlay

    # -- the protocol of search

    @property
    def n(self) -> int:
        """Number of runs."""
        return len(self._rows)

    @property
    def run_ids(self) -> Sequence[str]:
        """The run id of each row."""
        found: Sequence[str] = self._cached(("run_ids",), lambda: [str(row[2]) for row in self._rows])
        return found

    def number(self, kind: NumberKind, key: str, aggregate: Aggregate = "last") -> Number:
        """See ``Columns.number``."""
        found: Number = self._cached(
            ("number", kind, key, aggregate), lambda: self._number(kind, key, aggregate)
        )
        return found

    def _number(self, kind: NumberKind, key: str, aggregate: Aggregate) -> Number:
        if kind == "metric":
            return self._metric(key, aggregate)
        if key == "duration":
            start, end, heard = (
                self.number("attribute", name) for name in ("start_time", "end_time", "heard")
            )
            until = np.where(end.present, end.values, heard.values)
            return Number(until - start.values, start.present & (end.present | heard.present))
        column = _NUMBERS.get(key)
        if column is None:
            return Number(np.zeros(self.n), np.zeros(self.n, np.bool_))
        values = [row[column] for row in self._rows]
        return Number(
            np.array([0 if value is None else value for value in values], np.float64),
            np.array([value is not None for value in values], np.bool_),
        )

    def _metric(self, key: str, aggregate: Aggregate) -> Number:
        values, present = np.zeros(self.n), np.zeros(self.n, np.bool_)
        metric = self._metric_id(key)
        if metric is None:
            return Number(values, present)
        base = self._load_base()
        left, right = np.searchsorted(base["key"], [metric, metric + 1])
        parts = [(base[left:right], self._base_owner[left:right], True)]
        parts.append((*self._load_overlay(), False))
        for rows, owner, is_base in parts:
            mine = (rows["rank"] == 0) & (rows["key"] == metric) & (rows["count"] > 0)
            if is_base and self._stale:
                mine &= ~np.isin(owner, np.fromiter(self._stale, np.int64, len(self._stale)))
            places = owner[mine]
            values[places] = rows[_FIELDS[aggregate]][mine]
            present[places] = True
        return Number(values, present)

    def text(self, kind: TextKind, key: str) -> Text:
        """See ``Columns.text``."""
        found: Text = self._cached(("text", kind, key), lambda: self._text(kind, key))
        return found

    def _text(self, kind: TextKind, key: str) -> Text:
        if kind == "attribute":
            column = _TEXTS.get(key)
            if column is None:
                return Text(np.full(self.n, -1, np.int32), ())
            return self._coded((place, row[column]) for place, row in enumerate(self._rows))
        if kind == "dataset":
            return self._dataset(key)
        if kind == "param":
            rows = self._database.execute("SELECT run, value FROM param WHERE key = ?", (key,))
        else:
            rows = self._database.execute(
                "SELECT run, CASE WHEN edited = 1 THEN edit ELSE value END FROM tag WHERE key = ?", (key,)
            )
        return self._coded((self._place[run], value) for run, value in rows if run in self._place)

    def _coded(self, pairs: Iterable[tuple[int, str | None]]) -> Text:
        codes = np.full(self.n, -1, np.int32)
        known: dict[str, int] = {}
        for place, value in pairs:
            if value is not None:
                codes[place] = known.setdefault(value, len(known))
        return Text(codes, tuple(known))

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

    def has(self, kind: Kind, key: str) -> bool:
        """Whether any run has this key."""
        if kind == "attribute":
            return key in _TEXTS or key in _NUMBERS or key == "duration"
        if kind == "dataset":
            return key in ("name", "digest", "context")
        if kind == "metric":
            return self._metric_id(key) is not None
        table = "param" if kind == "param" else "tag"
        return bool(self._database.execute(f"SELECT 1 FROM {table} WHERE key = ? LIMIT 1", (key,)))

    def keys(self, kind: Kind) -> Sequence[str]:
        """All keys of this kind that any run has."""
        if kind == "attribute":
            return [*_TEXTS, *_NUMBERS, "duration"]
        if kind == "dataset":
            return ["name", "digest", "context"]
        if kind == "metric":
            return [str(row[0]) for row in self._database.execute("SELECT key FROM metric_key ORDER BY key")]
        table = "param" if kind == "param" else "tag"
        return [
            str(row[0]) for row in self._database.execute(f"SELECT DISTINCT key FROM {table} ORDER BY key")
        ]

    def _metric_id(self, key: str) -> int | None:
        if key not in self._metric_ids:
            rows = self._database.execute("SELECT id FROM metric_key WHERE key = ?", (key,))
            if not rows:
                return None
            self._metric_ids[key] = int(rows[0][0])
        return self._metric_ids[key]

    def _cached(self, key: tuple[str, ...], make: Callable[[], Any]) -> Any:
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]


def _joined(blobs: list[bytes], places: list[int]) -> tuple[Rows, npt.NDArray[np.int64]]:
    """Rows of many summaries and for each row the place of its run."""
    parts = [summaries.unpack(blob) for blob in blobs]
    rows = np.concatenate([summaries.no_rows(), *parts])
    sizes = np.array([len(part) for part in parts], np.int64)
    return rows, np.repeat(np.array(places, np.int64), sizes)

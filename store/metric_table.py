"""Metrics of some runs side by side, as arrays: a row per key, a column per run.

A hundred runs of 1,500 metrics are 150,000 summaries: as objects they take seconds, as columns a tenth of one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import orjson

from mltrack.store import summary as summaries
from mltrack.store.database import Database
from mltrack.store.records import Summary
from mltrack.store.runs import lay_over, metric_names, of_runs, summaries_by_key

_FLOATS = ("last", "low", "high")
_INTS = ("first_step", "last_step", "last_time", "low_step", "high_step", "count", "nan")

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class MetricTable:
    """The summaries of ``keys`` (in alphabetical order) by run. Every array is [keys, runs]."""

    keys: list[str]
    present: Flags
    floats: dict[str, Floats]
    """By field: last, low, high. 0 where absent."""
    ints: dict[str, npt.NDArray[np.int64]]
    """By field: steps, times and counts. 0 where absent."""

    def values(self, aggregate: str, direction: Callable[[str], str]) -> tuple[Floats, Flags]:
        """One aggregate (last, min, max or best by the ``direction`` of a key) of all keys and runs, and where there is one:
        a series of nothing but NaN has no least value."""
        if aggregate == "last":
            return self.floats["last"], self.present
        if aggregate == "best":
            least = np.array([direction(key) == "min" for key in self.keys], np.bool_)[:, None]
        else:
            least = np.array([[aggregate == "min"]])
        values = np.where(least, self.floats["low"], self.floats["high"])
        return values, self.present & (self.ints["count"] != self.ints["nan"])

    def summary(self, key: int, run: int) -> Summary | None:
        """The summary of a key in a run, by their places."""
        if not self.present[key, run]:
            return None
        last, low, high = (float(self.floats[name][key, run]) for name in _FLOATS)
        first, last_step, last_time, low_step, high_step, count, nan = (
            int(self.ints[name][key, run]) for name in _INTS
        )
        known = count != nan
        return Summary(
            self.keys[key],
            first,
            last_step,
            last_time,
            last,
            low if known else None,
            low_step if known else None,
            high if known else None,
            high_step if known else None,
            count,
            nan,
        )


def read_metrics(database: Database, run_ids: Sequence[str]) -> MetricTable:
    """The metrics of these runs, in this order; unknown runs have none. Summaries that are not folded yet are included."""
    names = metric_names(database)
    rows_of: dict[int, summaries.Rows] = {}
    pending_of: dict[int, dict[str, Summary]] = {}
    column_of = {run_id: column for column, run_id in enumerate(run_ids)}
    for run_id, blob, state in of_runs(database, "r.run_id, r.summary, r.state", list(column_of)):
        column = column_of[run_id]
        waiting = orjson.loads(state).get("pending", {}) if '"pending"' in state else {}
        laid = [entry["v"] for entry in waiting.values() if entry.get("rank") == 0]
        if laid:
            pending_of[column] = summaries_by_key(blob, names)
            for entry in laid:
                lay_over(pending_of[column], entry)
            continue
        rows = summaries.unpack(bytes(blob) if blob else None)
        rows_of[column] = rows[(rows["rank"] == 0) & (rows["count"] > 0)]
    numbers = sorted(set().union(*(rows["key"].tolist() for rows in rows_of.values())))
    keys = sorted(
        {
            *(names.get(number, "?") for number in numbers),
            *(key for one in pending_of.values() for key in one),
        }
    )
    place_of = {key: place for place, key in enumerate(keys)}
    places = np.zeros((numbers[-1] + 1) if numbers else 0, np.int64)
    places[numbers] = [place_of[names.get(number, "?")] for number in numbers]
    # A run after the other in memory, as they are written.
    shape = (len(run_ids), len(keys))
    table = MetricTable(
        keys,
        np.zeros(shape, np.bool_).T,
        {name: np.zeros(shape).T for name in _FLOATS},
        {name: np.zeros(shape, np.int64).T for name in _INTS},
    )
    for column, rows in rows_of.items():
        at = places[rows["key"]]
        table.present[at, column] = True
        for name, floats in table.floats.items():
            floats[at, column] = rows[name]
        for name, ints in table.ints.items():
            ints[at, column] = rows[name]
    for column, found in pending_of.items():
        for key, one in found.items():
            at = place_of[key]
            table.present[at, column] = True
            for name, value in (("last", one.last), ("low", one.min), ("high", one.max)):
                table.floats[name][at, column] = 0.0 if value is None else value
            whole = (
                one.first_step,
                one.last_step,
                one.last_time_ms,
                one.min_step,
                one.max_step,
                one.count,
                one.nan_count,
            )
            for name, number in zip(_INTS, whole, strict=True):
                table.ints[name][at, column] = number or 0
    return table

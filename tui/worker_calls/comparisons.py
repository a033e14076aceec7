"""A comparison as the compare screen scrolls through it: metrics as arrays, everything else as rows, cells made when seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, TypeVar

import numpy as np

from mltrack.store.errors import BadInput
from mltrack.store.metric_table import Flags, Floats, MetricTable
from mltrack.store.records import Run, Summary
from mltrack.store.store import Store
from mltrack.tui.cli.compare import others_of
from mltrack.tui.comparison import FEW_RUNS, Row, Witnesses, other_rows, param_effects, telling_rank
from mltrack.tui.goal import about, current, direction_of, guess_goal, guess_loss, is_background
from mltrack.tui.kept_files import KeptFiles

MOST_RUNS = 100
# For lists of packages on other machines, once: they are kept here.
_FAR_SECONDS = 2.0
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Comparison:
    """Rows by place: the metrics in ``order``, then the others. The runs hold no metric but the goal."""

    aggregate: str
    runs: list[Run]
    table: MetricTable
    values: Floats
    known: Flags
    differs: Flags
    """By key of the table: whether the runs disagree."""
    order: list[int]
    """The keys of the table, by their places in it, as they are shown."""
    others: list[Row]
    goal: str | None
    loss: str | None
    other_ids: list[str]
    of: str

    def __len__(self) -> int:
        return len(self.order) + len(self.others)

    def row(self, place: int) -> Row:
        """The row at a place."""
        if place >= len(self.order):
            return self.others[place - len(self.order)]
        key = self.order[place]
        pairs = zip(self.values[key].tolist(), self.known[key].tolist(), strict=True)
        return Row("metrics", self.table.keys[key], tuple(value if known else None for value, known in pairs))

    def find(self, section: str, name: str) -> Row | None:
        """The row of a section with this key."""
        if section == "metrics":
            place = next((at for at, key in enumerate(self.order) if self.table.keys[key] == name), None)
            return None if place is None else self.row(place)
        return next((row for row in self.others if (row.section, row.key) == (section, name)), None)

    def summaries(self, name: str) -> list[Summary | None]:
        """A metric of all runs."""
        key = self.table.keys.index(name)
        return [self.table.summary(key, column) for column in range(len(self.runs))]


_kept: tuple[tuple[object, ...], Comparison] | None = None


def comparison(store: Store, run_ids: Sequence[str], aggregate: str) -> Comparison:
    """The comparison, kept until something in the store changes: rows are asked for as one scrolls."""
    global _kept
    if len(run_ids) > MOST_RUNS:
        raise BadInput(f"At most {MOST_RUNS} runs can be compared; {len(run_ids):,} are marked.")
    made_of = (store.root, tuple(run_ids), store.database.setting("seq"), current())
    if _kept is None or _kept[0] != made_of:
        _kept = made_of, _comparison(store, run_ids)
    if _kept[1].aggregate != aggregate:
        _kept = made_of, _by_aggregate(_kept[1], aggregate)
    return _kept[1]


_of: tuple[tuple[object, ...], tuple[str, ...]] | None = None


def experiments_of(store: Store, run_ids: Sequence[str]) -> tuple[str, ...]:
    """The experiments of these runs, kept like their comparison."""
    global _of
    asked = (store.root, tuple(run_ids), store.database.setting("seq"))
    if _of is None or _of[0] != asked:
        runs = store.runs(run_ids[:MOST_RUNS], (), (), folders=False)
        _of = asked, tuple({run.experiment for run in runs})
    return _of[1]


def as_decided(call: Callable[..., Answer]) -> Callable[..., Answer]:
    """A call about runs, with the goal and the directions that were decided for their experiments."""

    @wraps(call)
    def asked(store: Store, run_ids: Sequence[str], *arguments: Any, **options: Any) -> Answer:
        with about(experiments_of(store, run_ids)):
            return call(store, run_ids, *arguments, **options)

    return asked


def _comparison(store: Store, run_ids: Sequence[str]) -> Comparison:
    """Without values and order of the metrics."""
    runs = store.runs(run_ids, metrics=())
    table = store.metric_table([run.run_id for run in runs])
    goal = guess_goal(dict(zip(table.keys, table.present.sum(axis=1).tolist(), strict=True)))
    if goal is not None:
        at = table.keys.index(goal)
        found = [table.summary(at, column) for column in range(len(runs))]
        runs = [
            replace(run, metrics={} if one is None else {goal: one})
            for run, one in zip(runs, found, strict=True)
        ]
    other_ids, of = others_of(store, runs)
    effects: dict[str, float] = {}
    if goal is not None:
        # Many runs explain each other.
        population = runs if len(runs) > FEW_RUNS else population_of(store, runs, other_ids, goal)
        effects = param_effects(runs, population, goal)
    others = other_rows(runs, read_blob=KeptFiles(store, runs, _FAR_SECONDS), effects=effects)
    nothing = np.zeros(0)
    flags = np.zeros(0, np.bool_)
    return Comparison("", runs, table, nothing, flags, flags, [], others, goal, None, other_ids, of)


def _by_aggregate(made: Comparison, aggregate: str) -> Comparison:
    table, goal = made.table, made.goal
    values, known = table.values(aggregate, direction_of)
    first = values[:, :1]
    equal = (values == first) | (np.isnan(values) & np.isnan(first))
    differs = ~(equal | ~known).all(axis=1) | (known.any(axis=1) & ~known.all(axis=1))
    order = _order(table, known, goal)
    loss = guess_loss([table.keys[key] for key in order if not _is_system(table.keys[key])], goal)
    # The goal and one loss first: what a person compares by.
    order.sort(key=lambda key: (table.keys[key] != goal, table.keys[key] != loss))
    return replace(
        made, aggregate=aggregate, values=values, known=known, differs=differs, order=order, loss=loss
    )


def population_of(store: Store, runs: Sequence[Run], other_ids: Sequence[str], goal: str) -> list[Run]:
    """The runs and others to learn from; of the others only the best value of the goal is
    there, and the params that the runs differ in."""
    keys = {key for run in runs for key in run.params}
    differing = [key for key in keys if len({run.params.get(key) for run in runs}) > 1]
    others = store.runs(other_ids, metrics=(), params=differing, folders=False)
    store.columns.refresh()
    # As columns, which the table of runs has read: the summaries of 500 runs would be unpacked for one number each.
    numbers = store.columns.number("metric", goal, direction_of(goal))
    place_of = {run_id: place for place, run_id in enumerate(store.columns.run_ids)}
    found = list(runs)
    for run in others:
        place = place_of.get(run.run_id)
        if place is not None and numbers.present[place]:
            best = float(numbers.values[place])
            run = replace(run, metrics={goal: Summary(goal, 0, 0, 0, best, best, 0, best, 0, 1, 0)})
        found.append(run)
    return found


def witnesses_of(store: Store, made: Comparison, goal: str) -> Witnesses:
    """What explains the difference between two of the runs."""
    return Witnesses.of(population_of(store, made.runs, made.other_ids, goal), goal)


def _order(table: MetricTable, known: Flags, goal: str | None) -> list[int]:
    """The keys of the table as they are shown: those worth looking at first, system/* last."""
    missing = (~known).sum(axis=1).tolist()
    keys = range(len(table.keys))
    shown = [key for key in keys if not _is_system(table.keys[key])]
    system = [key for key in keys if _is_system(table.keys[key])]
    shown.sort(key=lambda key: telling_rank(table.keys[key], missing[key], goal))
    system.sort(key=lambda key: (is_background(table.keys[key]), table.keys[key]))
    return [*shown, *system]


def _is_system(name: str) -> bool:
    return name.startswith("system/")

"""Which columns the table of runs has: those worth seeing first, then what the person added, moved and hid.

A column is a dict for the screen: "id" (`kind:key`), "kind", "key", "heading", "align", "weight" (who gives way on a narrow
screen; EXTRA and more are only reached by scrolling), "widest", "sort" (the order that puts the best first, or None) and
what its cells are written with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mltrack.store.direction import guess_direction
from mltrack.store.records import Run
from mltrack.tui.cli.columns import Choice, chosen_column, telling_params
from mltrack.tui.goal import guess_goal, guess_loss, is_background

EXTRA = 20
_MORE_METRICS, _MORE_PARAMS = 24, 24
# What gives way first: the trend, params that tell less, the step; never the name, the status and the goal.
_LOSS, _AGE, _OWNER, _EXPERIMENT, _STEP, _TREND = 2, 1, 4, 7, 8, 14
_PARAMS = (3, 5, 10, 11, 12, 13)
_ATTRIBUTE_SORTS = {
    "run": "run_name",
    "status": "status",
    "experiment": "experiment",
    "user": "user",
    "host": "host",
    "age": "-start_time",
    "start_time": "-start_time",
    "end_time": "-end_time",
    "duration": "-duration",
    "step": "-step",
    "note": "note",
    "parent": "parent_id",
}
_WIDEST = {"run": 32, "status": 18, "experiment": 20, "user": 12}
_HEADINGS = {"user": "OWNER", "start_time": "STARTED", "end_time": "ENDED"}
_RIGHT = ("age", "start_time", "end_time", "duration", "step")
ATTRIBUTES = tuple(key for key in (*_ATTRIBUTE_SORTS, "reason", "id") if key != "run")
"""Attributes that can be columns, beside the name."""


@dataclass(frozen=True)
class Layout:
    """What a person decided about the columns of one experiment."""

    goal: str | None = None
    directions: Mapping[str, str] | None = None
    aggregates: Mapping[str, str] | None = None
    hidden: Sequence[str] = ()
    added: Sequence[str] = ()
    order: Sequence[str] = ()

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> Layout:
        """From what the screen keeps, which may have been written by another version."""
        known = {name: saved[name] for name in cls.__dataclass_fields__ if name in saved}
        return cls(**known)

    def direction(self, key: str) -> str:
        """`max` or `min`: decided, else guessed from the name."""
        return (self.directions or {}).get(key) or guess_direction(key)


def choose_columns(
    sample: Sequence[Run], keys: Mapping[str, int], layout: Layout, aggregate: str, one_experiment: bool
) -> list[dict[str, Any]]:
    """The columns in order. ``sample`` are runs with their params; ``keys`` counts the runs that have a metric."""
    builder = _Builder(sample, layout, aggregate)
    goal = goal_of(keys, layout)
    loss = guess_loss((key for key, count in keys.items() if count * 3 >= len(sample)), goal)
    builder.attribute("run", 0)
    builder.attribute("status", 0)
    if not one_experiment:
        builder.attribute("experiment", _EXPERIMENT)
    if goal is not None:
        builder.metric(goal, 0, role="goal")
        builder.add("step", goal, "@step", _STEP)
    if loss is not None:
        builder.metric(loss, _LOSS)
    if goal is not None:
        builder.add("trend", goal, "trend", _TREND, align="left", widest=12)
    telling = telling_params(sample)
    for place, key in enumerate(telling):
        builder.param(key, _PARAMS[min(place, len(_PARAMS) - 1)])
    if len({run.user for run in sample}) > 1:
        builder.attribute("user", _OWNER)
    builder.attribute("age", _AGE)
    for id in layout.added:
        builder.named(id)
    usual = sorted(keys, key=lambda key: (is_background(key), -keys[key], key))
    more = [key for key in usual if key not in (goal, loss) and not key.startswith("system/")]
    for key in more[:_MORE_METRICS]:
        builder.metric(key, EXTRA)
    params = dict.fromkeys(key for run in sample for key in run.params if key not in telling)
    for key in list(params)[:_MORE_PARAMS]:
        builder.param(key, EXTRA + 1)
    return builder.done()


def goal_of(keys: Mapping[str, int], layout: Layout) -> str | None:
    """The goal metric: the one that was chosen, else the one that looks like it."""
    return layout.goal if layout.goal is not None else guess_goal(keys)


def sort_key(column_id: str, aggregate: str, direction: str) -> str | None:
    """The sort key that puts the best, newest or first by alphabet on top; None where there is no order."""
    kind, _, key = column_id.partition(":")
    if kind == "attribute":
        return _ATTRIBUTE_SORTS.get(key)
    quoted = quote(key)
    if quoted is None or kind == "step":
        return None
    if kind in ("param", "tag"):
        return f"{kind}s.{quoted}"
    suffix = {"best": f".{direction}", "last": ""}.get(aggregate, f".{aggregate}")
    return f"{'' if direction == 'min' else '-'}metrics.{quoted}{suffix}"


def quote(key: str) -> str | None:
    """A key as the filter language takes it whatever is in it, or None where it cannot be written."""
    for mark in '`"':
        if mark not in key:
            return f"{mark}{key}{mark}"
    return None


def _natural(role: str) -> str:
    """The goal shows its best value, other metrics where they are."""
    return "best" if role == "goal" else "last"


class _Builder:
    def __init__(self, sample: Sequence[Run], layout: Layout, aggregate: str) -> None:
        self._sample = sample
        self._layout = layout
        self._aggregate = aggregate
        self._columns: dict[str, dict[str, Any]] = {}

    def add(
        self,
        kind: str,
        key: str,
        heading: str,
        weight: int,
        align: str = "right",
        widest: int = 24,
        role: str = "",
    ) -> None:
        id = f"{kind}:{key}"
        if id in self._columns:
            return
        aggregate = self._aggregate_of(id, key, role)
        direction = self._layout.direction(key) if kind in ("metric", "step", "trend") else ""
        self._columns[id] = {
            "id": id,
            "kind": kind,
            "key": key,
            "role": role,
            "heading": heading,
            "align": align,
            "weight": weight,
            "widest": widest,
            "aggregate": aggregate,
            "direction": direction,
            "sort": sort_key(f"metric:{key}" if kind == "trend" else id, aggregate, direction),
        }

    def metric(self, key: str, weight: int, role: str = "") -> None:
        aggregate = self._aggregate_of(f"metric:{key}", key, role)
        arrow = ""
        if not is_background(key) or key in (self._layout.directions or {}):
            arrow = "↓" if self._layout.direction(key) == "min" else "↑"
        heading = key if aggregate == _natural(role) else f"{key} {aggregate}"
        self.add("metric", key, heading + arrow, weight, role=role)

    def _aggregate_of(self, id: str, key: str, role: str) -> str:
        metric = f"metric:{key}" if id.startswith(("step:", "trend:")) else id
        chosen = (self._layout.aggregates or {}).get(metric) or self._aggregate
        if chosen == "best" and role != "goal" and is_background(key):
            return "last"  # a learning rate has no best
        return chosen or _natural("goal" if metric != id else role)

    def param(self, key: str, weight: int) -> None:
        align = chosen_column(Choice("param", key), self._sample, 0).align
        self.add("param", key, key, weight, align, 18)

    def attribute(self, key: str, weight: int) -> None:
        align = "right" if key in _RIGHT else "left"
        self.add("attribute", key, _HEADINGS.get(key, key.upper()), weight, align, _WIDEST.get(key, 40))

    def named(self, id: str) -> None:
        """A column the person asked for: it gives way after the guessed ones."""
        kind, _, key = id.partition(":")
        if kind == "metric":
            self.metric(key, _LOSS)
        elif kind == "param":
            self.param(key, _LOSS)
        elif kind == "tag":
            self.add("tag", key, key, _LOSS, "left", 24)
        elif kind == "attribute" and key in ATTRIBUTES:
            self.attribute(key, _LOSS)

    def done(self) -> list[dict[str, Any]]:
        hidden = set(self._layout.hidden) - {"attribute:run"}
        places = {id: place for place, id in enumerate(self._layout.order)}
        kept = [column for id, column in self._columns.items() if id not in hidden]
        if places:
            first, rest = kept[:1], kept[1:]
            moved = sorted(
                (column for column in rest if column["id"] in places), key=lambda each: places[each["id"]]
            )
            others = [column for column in rest if column["id"] not in places]
            kept = [*first, *moved, *others]
        return kept

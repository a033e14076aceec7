"""Which params go along with the goal metric over many runs: by rank, and by a forest where scikit-learn is there. Pure."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
LEAST_RUNS = 5
_TREES = 100
# Each tree learns from so many runs of all: the process that grows them answers nobody meanwhile.
_RUNS_A_TREE = 256


@dataclass(frozen=True)
class Importance:
    """Of one param. ``correlation`` is Spearman's, for params that are numbers: -1..1. ``share`` of the goal's ranks that goes along with
    it: 0..1. ``forest`` is its part in the splits of a forest, all params together 1; None without scikit-learn."""

    key: str
    runs: int
    share: float
    correlation: float | None
    forest: float | None = None


def importances(
    params: Mapping[str, Sequence[str | float | None]], goal: Sequence[float | None]
) -> list[Importance]:
    """Params in order of their share. A number is a value that may be ranked, a text one that may only be equal.

    Runs without the goal are left out; of each param, runs without it. Params with one value say nothing and are left out. An
    association, not a proof: params that were changed together share it.
    """
    values = np.array([np.nan if value is None else value for value in goal], np.float64)
    known = np.isfinite(values)
    found: list[Importance] = []
    for key, column in params.items():
        here = known & np.array([value is not None for value in column], np.bool_)
        if here.sum() < LEAST_RUNS:
            continue
        mine = [column[place] for place in np.flatnonzero(here).tolist()]
        if len(set(mine)) < 2:
            continue
        goal_ranks = ranks(values[here])
        numbers = [value for value in mine if isinstance(value, float)]
        if len(numbers) == len(mine):
            correlation = _correlation(ranks(np.array(numbers)), goal_ranks)
            found.append(Importance(key, len(mine), correlation**2, correlation))
        elif len(set(mine)) < len(mine):  # each its own value explains everything and nothing
            found.append(Importance(key, len(mine), _between(mine, goal_ranks), None))
    weights = forest({one.key: params[one.key] for one in found}, values, known) if found else None
    if weights is not None:
        found = [Importance(one.key, one.runs, one.share, one.correlation, weights[one.key]) for one in found]
    return sorted(found, key=lambda one: (-one.share, one.key))


def forest(
    params: Mapping[str, Sequence[str | float | None]], goal: Floats, known: npt.NDArray[np.bool_]
) -> dict[str, float] | None:
    """The parts of params in a random forest's splits; None where scikit-learn is not installed. Same data, same answer."""
    if importlib.util.find_spec("sklearn") is None or known.sum() < LEAST_RUNS:
        return None
    from sklearn.ensemble import RandomForestRegressor  # type: ignore[import-not-found,unused-ignore]

    columns = []
    for column in params.values():
        codes = {value: float(code) for code, value in enumerate(sorted({str(value) for value in column}))}
        columns.append([value if isinstance(value, float) else codes[str(value)] for value in column])
    table = np.array(columns, np.float64).T[known]
    few = min(len(table), _RUNS_A_TREE)
    grown = RandomForestRegressor(n_estimators=_TREES, max_samples=few, random_state=0)
    grown.fit(table, ranks(goal[known]))
    return dict(zip(params, map(float, grown.feature_importances_), strict=True))


def ranks(values: Floats) -> Floats:
    """Places in ascending order, from 0; equal values share the mean of theirs."""
    _, member, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return ((last - count + last - 1) / 2.0)[member]


def _correlation(left: Floats, right: Floats) -> float:
    left, right = left - left.mean(), right - right.mean()
    size = float(np.sqrt((left**2).sum() * (right**2).sum()))
    return float((left * right).sum() / size) if size else 0.0


def _between(groups: Sequence[object], values: Floats) -> float:
    """The share of the variance that lies between groups."""
    total = float(((values - values.mean()) ** 2).sum())
    if not total:
        return 0.0
    members: dict[object, list[int]] = {}
    for place, group in enumerate(groups):
        members.setdefault(group, []).append(place)
    within = sum(float(((values[places] - values[places].mean()) ** 2).sum()) for places in members.values())
    return 1.0 - within / total

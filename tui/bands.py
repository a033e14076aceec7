"""Runs that differ only in their seed as one curve: the mean, and a band of a standard deviation around it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_SEED = re.compile(r"(?:^|[._/\-])(?:seed|random_state)$", re.IGNORECASE)


@dataclass(frozen=True)
class Band:
    """The mean of ``n`` runs at each x, and a standard deviation (of a sample) below and above; NaN where fewer than two run."""

    x: Floats
    mean: Floats
    low: Floats
    high: Floats
    n: int


def is_seed(key: str) -> bool:
    """Whether a param is a seed by its name."""
    return _SEED.search(key) is not None


def seed_groups(params: Sequence[Mapping[str, str]]) -> list[tuple[str, list[int]]]:
    """(what sets them apart, places of the runs) of runs that have all params but seeds in common, in the order of their first run."""
    keys = sorted({key for one in params for key in one if not is_seed(key)})
    differing = [key for key in keys if len({one.get(key) for one in params}) > 1]
    groups: dict[tuple[str | None, ...], list[int]] = {}
    for place, one in enumerate(params):
        groups.setdefault(tuple(one.get(key) for key in differing), []).append(place)
    named = []
    for values, places in groups.items():
        words = [f"{key}={value}" for key, value in zip(differing, values, strict=True) if value is not None]
        named.append((" ".join(words) or "all", places))
    return named


def make_band(series: Sequence[tuple[Floats, Floats]], columns: int) -> Band:
    """The band of several series (x ascending, y may hold NaN) at ``columns`` places, each read as a line between its finite points.

    A series counts only between its own first and last point: a run that ended early does not go on.
    """
    finite = [(x[np.isfinite(y)], y[np.isfinite(y)]) for x, y in series]
    finite = [(x, y) for x, y in finite if len(x)]
    if not finite:
        nothing = np.empty(0)
        return Band(nothing, nothing, nothing, nothing, 0)
    first, last = min(float(x[0]) for x, _ in finite), max(float(x[-1]) for x, _ in finite)
    at = np.linspace(first, last, max(2, columns)) if last > first else np.array([first])
    values = np.stack([np.interp(at, x, y, left=np.nan, right=np.nan) for x, y in finite])
    here = np.isfinite(values)
    count = here.sum(axis=0)
    scale = float(np.abs(values[here]).max()) or 1.0
    filled = np.where(here, values / scale, 0.0)
    mean = np.divide(filled.sum(axis=0), count, out=np.full(len(at), np.nan), where=count > 0)
    away = np.where(here, filled - np.where(count > 0, mean, 0.0), 0.0)
    variance = np.divide((away**2).sum(axis=0), count - 1, out=np.full(len(at), np.nan), where=count > 1)
    std = np.sqrt(variance)
    return Band(at, mean * scale, (mean - std) * scale, (mean + std) * scale, len(finite))

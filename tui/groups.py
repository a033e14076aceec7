"""Runs that share params as one: how many there are, mean, spread, least and greatest of their metrics. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mltrack.store.column_types import Number, Text
from mltrack.tui.draw.numbers import format_column, format_number

Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Spread:
    """Of the finite values of ``n`` runs. ``std`` is that of a sample (n - 1), None for one run; ``without`` have no finite value."""

    n: int
    mean: float
    std: float | None
    low: float
    high: float
    without: int = 0


@dataclass(frozen=True)
class Group:
    """``values`` of the keys it was made by, None where its runs have none; ``places`` of its runs among the columns."""

    values: tuple[str | None, ...]
    places: Places
    spreads: Mapping[str, Spread | None]

    @property
    def count(self) -> int:
        """How many runs it is made of."""
        return len(self.places)


def spread(values: npt.NDArray[np.float64], present: npt.NDArray[np.bool_]) -> Spread | None:
    """The spread of what is there and finite; None when nothing is."""
    finite = values[present & np.isfinite(values)]
    if not len(finite):
        return None
    # Scaled, so that the squares of very large and very small values stay numbers.
    scale = float(np.abs(finite).max()) or 1.0
    std = float(np.std(finite / scale, ddof=1)) * scale if len(finite) > 1 else None
    mean = float(np.mean(finite / scale)) * scale
    return Spread(len(finite), mean, std, float(finite.min()), float(finite.max()), len(values) - len(finite))


def make_groups(places: Places, by: Sequence[Text], metrics: Mapping[str, Number]) -> list[Group]:
    """The groups in the order in which their first runs come. Values that spell one number are one: 1e-3 and 0.001."""
    keys = (
        np.stack([_codes(text)[places] for text in by], axis=1)
        if by
        else np.zeros((len(places), 0), np.int64)
    )
    _, first, member = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    member = member.reshape(-1)
    groups: list[Group] = []
    for group in np.argsort(first).tolist():
        mine = places[member == group]
        one = places[first[group]]
        values = tuple(text.values[text.codes[one]] if text.codes[one] >= 0 else None for text in by)
        spreads = {key: spread(number.values[mine], number.present[mine]) for key, number in metrics.items()}
        groups.append(Group(values, mine, spreads))
    return groups


def sort_groups(groups: Sequence[Group], key: str, direction: str) -> list[Group]:
    """The best mean first; groups without a value last."""

    def rank(group: Group) -> tuple[bool, float]:
        found = group.spreads.get(key)
        return found is None, 0.0 if found is None else found.mean if direction == "min" else -found.mean

    return sorted(groups, key=rank)


def spread_texts(spreads: Sequence[Spread | None]) -> list[tuple[str, str]]:
    """For each ("mean ±std", "min .. max") with as many digits as tell them apart; empty texts for None."""
    # Rounded first: means of different numbers of runs nearly always differ somewhere, and nobody reads that far.
    means = format_column([float(f"{one.mean:.4g}") if one else None for one in spreads], 4)
    found = []
    for one, mean in zip(spreads, means, strict=True):
        if one is None:
            found.append(("", ""))
            continue
        std = f" ±{_two_digits(one.std)}" if one.std is not None else ""
        low, high = format_column([one.low, one.high], 4)
        found.append((mean + std, f"{low} .. {high}" if one.n > 1 else ""))
    return found


def _two_digits(std: float) -> str:
    """Two digits that count, without an exponent as long as that is readable: .00088."""
    if not 1e-6 <= std < 1:
        return format_number(std, 2)
    places = 1 - math.floor(math.log10(std))
    return f"{std:.{places}f}".removeprefix("0")


def _codes(text: Text) -> Places:
    """The codes, with all spellings of one number as one."""
    numbers = text.numbers
    table = np.arange(len(text.values) + 1, dtype=np.int64)
    table[-1] = -1
    first: dict[float, int] = {}
    for code in np.flatnonzero(numbers.present & np.isfinite(numbers.values)).tolist():
        table[code] = first.setdefault(float(numbers.values[code]), code)
    codes: Places = table[text.codes]
    return codes

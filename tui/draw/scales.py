"""Scales and ticks of an axis: where a value lies between 0 and 1, and which values are worth a label."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mltrack.tui.draw.numbers import format_column, format_number, format_si

_LARGEST = sys.float_info.max
_SMALLEST = 5e-324
_NARROWEST = 1e-300
# From here on a value is written with an SI letter: 20k, 7.1G.
_SI_FROM = 10_000
# How much of its span an axis may grow at each end to end in a round value.
_ROUND_ROOM = 0.15
ScaleName = Literal["linear", "log", "symlog"]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scale:
    """An axis from `low` to `high`, both finite and low < high."""

    low: float
    high: float
    name: ScaleName = "linear"
    linear_below: float = 1.0
    """symlog only: magnitudes below it are drawn linearly."""

    def place(self, values: Floats) -> Floats:
        """Positions, 0 at `low` and 1 at `high`; NaN where a value has none (zero or less on a log axis)."""
        if self.name == "linear" and abs(self.low) < 1e150 and abs(self.high) < 1e150:
            return (values - self.low) * (1.0 / (self.high - self.low))
        bottom, top = (float(edge) for edge in self._bend(np.array([self.low, self.high])))
        with np.errstate(over="ignore", invalid="ignore"):
            placed: Floats = (self._bend(values) / 2 - bottom / 2) / (top / 2 - bottom / 2)
        return placed

    def _bend(self, values: Floats) -> Floats:
        if self.name == "linear":
            return values
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.name == "log":
                return np.where(values > 0, np.log10(np.where(values > 0, values, 1.0)), np.nan)
            bent: Floats = np.sign(values) * np.log10(1.0 + np.abs(values) / self.linear_below)
        return bent


def choose_scale(lowest: float, highest: float, name: ScaleName = "linear") -> Scale:
    """A scale that shows lowest..highest; a constant gets room above and below. On a log axis both must be positive."""
    if name == "log":
        if lowest == highest:
            return Scale(max(lowest / 2, _SMALLEST), min(highest, _LARGEST / 2) * 2, "log")
        return Scale(lowest, highest, "log")
    if lowest == highest:
        room = abs(lowest) * 0.1 or 1.0
        lowest, highest = max(lowest - room, -_LARGEST), min(highest + room, _LARGEST)
    if not (highest - lowest > 0):  # neighbours so close that the room vanished
        lowest, highest = np.nextafter(lowest, -np.inf), np.nextafter(highest, np.inf)
    if highest - lowest < _NARROWEST:  # its inverse would be infinite
        lowest, highest = lowest - _NARROWEST, highest + _NARROWEST
    below = max(abs(lowest), abs(highest)) * 1e-3 if name == "symlog" else 1.0
    return Scale(float(lowest), float(highest), name, below)


def widen(scale: Scale, most: int) -> Scale:
    """The same scale with its ends moved out to round values that lie near: labels then stand at both ends of the axis."""
    if scale.name != "linear":
        return scale
    ticks = _round_steps(scale.low, scale.high, max(2, most))
    if len(ticks) < 2:
        return scale
    step = ticks[-1] / (len(ticks) - 1) - ticks[0] / (len(ticks) - 1)
    if not 0 < step < math.inf:
        return scale
    room = (scale.high / 2 - scale.low / 2) * 2 * _ROUND_ROOM
    low, high = ticks[0] - step, ticks[-1] + step
    digits = max(0, 1 - math.floor(math.log10(step)))
    if digits < 300:
        low, high = round(low, digits), round(high, digits)
    wide = Scale(
        ticks[0] if scale.low - ticks[0] == 0 else low if scale.low - low <= room else scale.low,
        ticks[-1] if scale.high - ticks[-1] == 0 else high if high - scale.high <= room else scale.high,
    )
    return wide if math.isfinite(wide.high) and math.isfinite(wide.low) else scale


def choose_ticks(scale: Scale, most: int) -> list[float]:
    """At most `most` round values inside the scale, ascending; at least its two ends when nothing round fits."""
    most = max(2, most)
    if scale.name == "log":
        ticks = _powers(scale.low, scale.high, most)
        if len(ticks) < 2:
            ticks = _within_a_power(scale.low, scale.high, most)
        if len(ticks) >= 2:
            return ticks
    elif scale.name == "symlog":
        return _symlog_ticks(scale, most)
    ticks = _round_steps(scale.low, scale.high, most)
    return ticks if len(ticks) >= 2 else [scale.low, scale.high]


def label_ticks(ticks: Sequence[float], *, counts: bool = False) -> list[str]:
    """Labels that differ: values share their decimals, counts (steps) get SI letters."""
    if counts:
        for digits in (3, 4, 5, 6):
            labels = [format_si(tick, digits) for tick in ticks]
            if len(set(labels)) == len(labels):
                return labels
        return [format_number(tick, 9) for tick in ticks]
    largest = max((abs(tick) for tick in ticks), default=0.0)
    if _SI_FROM <= largest < 1e18 and all(abs(tick) >= 1 or tick == 0 for tick in ticks):
        return label_ticks(ticks, counts=True)
    labels = format_column(list(ticks), digits=1)
    return labels if len(set(labels)) == len(labels) else [format_number(tick, 9) for tick in ticks]


def _round_steps(low: float, high: float, most: int) -> list[float]:
    rough = (high / 2 - low / 2) / (most - 1) * 2
    if not math.isfinite(rough) or rough <= 0:
        return []
    power = math.floor(math.log10(rough))
    for factor, exponent in ((1, 0), (2, 0), (5, 0), (1, 1), (2, 1), (5, 1)):
        digits = power + exponent
        step = factor * 10.0**digits if digits >= -300 else 0.0
        if step <= 0 or not math.isfinite(step):
            return []
        first = math.ceil(low / step - 1e-9)
        last = math.floor(high / step + 1e-9)
        if last - first + 1 <= most:
            # Rounded to the step, so that 0.30000000000000004 does not become a label.
            return [
                round(index * step, max(0, -digits)) if digits > -15 else index * step
                for index in range(first, last + 1)
            ]
    return []


def _powers(low: float, high: float, most: int) -> list[float]:
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    stride = 1
    while (last - first) // stride + 1 > most:
        stride += 1
    return [10.0**exponent for exponent in range(first, last + 1, stride)]


def _within_a_power(low: float, high: float, most: int) -> list[float]:
    """1, 2 and 5 times a power, for a log axis shorter than two powers."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    if last - first > 4:
        return []
    ticks = [
        factor * 10.0**exponent
        for exponent in range(max(first, -300), min(last, 308) + 1)
        for factor in (1, 2, 5)
    ]
    ticks = [tick for tick in ticks if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]
    return ticks if len(ticks) <= most else []


def _symlog_ticks(scale: Scale, most: int) -> list[float]:
    ticks: list[float] = [0.0] if scale.low <= 0 <= scale.high else []
    side = max(1, (most - 1) // 2)
    for sign, edge in ((1.0, scale.high), (-1.0, -scale.low)):
        if edge > scale.linear_below:
            ticks += [sign * power for power in _powers(scale.linear_below, edge, side)]
    inside = sorted(tick for tick in ticks if scale.low <= tick <= scale.high)
    return inside if len(inside) >= 2 else [scale.low, scale.high]

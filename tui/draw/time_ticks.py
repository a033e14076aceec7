"""Ticks of an axis of time: dates and times of day as a person reads them, or time since the start."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

from mltrack.tui.draw.numbers import format_number
from mltrack.tui.draw.times import format_duration

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
# Steps that fall on round moments, in seconds; longer ones are whole days.
_STEPS = (
    *(1, 2, 5, 10, 15, 30),
    *(_MINUTE * count for count in (1, 2, 5, 10, 15, 30)),
    *(_HOUR * count for count in (1, 2, 3, 6, 12)),
)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_FIRST_MOMENT_MS, _LAST_MOMENT_MS = -2_000_000_000_000, 250_000_000_000_000


def date_ticks(low_ms: float, high_ms: float, most: int) -> list[tuple[float, str]]:
    """At most ``most`` round local moments as (ms since 1970, label): 11:42, and the date where the day changes."""
    if not _FIRST_MOMENT_MS < low_ms < high_ms < _LAST_MOMENT_MS:
        return []
    most = max(2, most)
    span = (high_ms - low_ms) / 1000
    if span < most:
        return _parts_of_a_second(low_ms, high_ms, most)
    step = _step_for(span, most)
    begin = datetime.fromtimestamp(low_ms / 1000)
    if step >= _DAY:
        moment = begin.replace(hour=0, minute=0, second=0, microsecond=0)
        if moment < begin:
            moment += timedelta(days=1)
    else:
        midnight = begin.replace(hour=0, minute=0, second=0, microsecond=0)
        since = (begin - midnight).total_seconds()
        moment = midnight + timedelta(seconds=math.ceil(since / step) * step)
    ticks: list[tuple[float, str]] = []
    day = None
    while (at := moment.timestamp() * 1000) <= high_ms and len(ticks) < most:
        if step >= 300 * _DAY:
            label = f"{moment.year}"
        elif step >= _DAY or moment.date() != day and (moment.hour, moment.minute) == (0, 0):
            label = f"{moment.day} {_MONTHS[moment.month - 1]}"
        elif day is None and span > _DAY / 2:
            label = f"{moment.day} {_MONTHS[moment.month - 1]} {moment:%H:%M}"
        else:
            label = f"{moment:%H:%M:%S}" if step < _MINUTE else f"{moment:%H:%M}"
        day = moment.date()
        ticks.append((at, label))
        # Local clocks: a step of days stays at midnight when the clocks are put on.
        moment = moment + timedelta(days=step // _DAY) if step >= _DAY else moment + timedelta(seconds=step)
    return ticks


def duration_ticks(low: float, high: float, most: int) -> list[tuple[float, str]]:
    """At most ``most`` round durations as (seconds, label): 0, 30m, 1h, 1h30m."""
    most = max(2, most)
    if not 1e-200 < high - low < 1e12 or abs(low) > 1e12 or abs(high) > 1e12:
        return []
    if high - low < most:
        power = 10.0 ** math.floor(math.log10((high - low) / most))
        step = next(
            power * factor for factor in (1, 2, 5, 10, 20) if (high - low) / (power * factor) <= most - 1
        )
        first = math.ceil(low / step - 1e-9)
        last = math.floor(high / step + 1e-9)
        return [(index * step, f"{format_number(index * step, 6)}s") for index in range(first, last + 1)]
    step = float(_step_for(high - low, most))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [(index * step, _short_duration(index * step)) for index in range(first, last + 1)]


def _step_for(span: float, most: int) -> int:
    for step in _STEPS:
        if span / step <= most - 1:
            return step
    days = span / _DAY / max(1, most - 1)
    for factor in (1, 2, 7, 14, 30, 60, 91, 182, 365):
        if days <= factor:
            return factor * _DAY
    return math.ceil(days / 365) * 365 * _DAY


def _parts_of_a_second(low_ms: float, high_ms: float, most: int) -> list[tuple[float, str]]:
    step = next(
        (ms for ms in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if (high_ms - low_ms) / ms <= most - 1), 1000
    )
    first, last = math.ceil(low_ms / step), math.floor(high_ms / step)
    ticks = [float(index * step) for index in range(first, last + 1)]
    return [
        (tick, f"{datetime.fromtimestamp(tick // 1000):%H:%M:%S}.{int(tick % 1000):03d}")
        for tick in ticks[:most]
    ]


def _short_duration(seconds: float) -> str:
    """Without the zero that format_duration would end in: 2h, not 2h00m."""
    text = "0" if seconds == 0 else format_duration(seconds)
    for ending in ("00m", "00s", "00h"):
        if text.endswith(ending):
            return text[:-3]
    return text

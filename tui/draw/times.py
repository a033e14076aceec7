"""Durations, ages and moments in few characters. All times are milliseconds since 1970 unless a name says otherwise."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from mltrack.tui.draw.numbers import MISSING

_MINUTE = 60
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR


def format_duration(seconds: float | None) -> str:
    """How long something takes, two units: 340ms, 45s, 6m12s, 3h07m, 12d04h."""
    if seconds is None or math.isnan(seconds):
        return MISSING
    if seconds < 0:
        return "-" + format_duration(-seconds)
    if math.isinf(seconds):
        return "never"
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    if seconds < 9.95 and seconds != int(seconds):
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole}s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}m{whole % _MINUTE:02d}s"
    if whole < _DAY:
        return f"{whole // _HOUR}h{whole % _HOUR // _MINUTE:02d}m"
    return f"{whole // _DAY}d{whole % _DAY // _HOUR:02d}h"


def format_age(seconds: float | None) -> str:
    """How long ago, one unit: now, 45s, 6m, 3h, 9d, 41d, 3y. What lies ahead (clocks differ) is `now`."""
    if seconds is None or math.isnan(seconds):
        return MISSING
    if seconds < 1:
        return "now"
    for unit, letter in ((400 * _DAY, "y"), (2 * _DAY, "d"), (_HOUR, "h"), (_MINUTE, "m")):
        if seconds >= unit:
            return f"{int(seconds // (365 * _DAY if letter == 'y' else _DAY if letter == 'd' else unit))}{letter}"
    return f"{int(seconds)}s"


def format_moment(time_ms: int | None, now_ms: int | None = None) -> str:
    """A local date and time; today (as `now_ms` has it) only the time: 11:42:08, 23 Nov 10:02, 2025-11-23 10:02."""
    if time_ms is None:
        return MISSING
    try:
        moment = datetime.fromtimestamp(time_ms / 1000).astimezone()
    except (ValueError, OverflowError, OSError):
        return f"{time_ms} ms"  # a clock that stood in the year 60000 is still shown
    if now_ms is not None:
        today = datetime.fromtimestamp(now_ms / 1000).astimezone()
        if moment.date() == today.date():
            return moment.strftime("%H:%M:%S")
        if abs((today - moment).days) < 300:
            return f"{moment.day} {_MONTHS[moment.month - 1]} {moment:%H:%M}"
    return moment.strftime("%Y-%m-%d %H:%M")


def format_timestamp(time_ms: int | None) -> str:
    """The whole moment in UTC for files: 2026-11-23T10:02:11.123Z."""
    if time_ms is None:
        return ""
    try:
        moment = datetime.fromtimestamp(time_ms // 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return f"{time_ms} ms"
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{time_ms % 1000:03d}Z"


# Spelled out so that the locale of the terminal changes no column's width.
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

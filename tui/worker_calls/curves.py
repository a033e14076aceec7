"""Curves of one run as the charts draw them: bucketed to the screen, on any x axis, and what happened in them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mltrack.store.curve import bucket, smooth
from mltrack.store.curve_events import CurveEvent, find_events
from mltrack.store.direction import guess_direction
from mltrack.store.errors import NotFound
from mltrack.store.records import Points, Run
from mltrack.store.store import Store
from mltrack.store.zoom import Zoom
from mltrack.tui.goal import guess_goal, guess_loss, is_background
from mltrack.tui.worker_calls.series_memory import memory, outlines
from mltrack.tui.worker_calls.starts import starts_of

Floats = npt.NDArray[np.float64]

_CLOCK_POINTS = 400
# Shorter series are read and drawn point by point in a few milliseconds.
_LONG = 20_000
_MOST_EVENTS = 60


@dataclass(frozen=True)
class _Axis:
    """What x is, and the series that tells when which step was."""

    name: str
    start_ms: int
    clock: Points | None
    other: Points | None


def curves(
    store: Store,
    run_id: str,
    keys: Sequence[str],
    columns: int,
    low: float | None = None,
    high: float | None = None,
    weight: float = 0.0,
    x: str = "step",
    every_rank: bool = False,
) -> dict[str, Any]:
    """Per key its lines: at most ``columns`` min/max pairs between ``low`` and ``high``, as base64 of little-endian float64.

    ``x`` is step, time (ms since 1970), relative (seconds since the run's start) or the key of another metric. A line has
    {"rank", "x", "y"}, and where there are some "smooth" and "old" (points that a later start took over) as pairs. "ends" are
    the least and largest x of the whole series; "clock" pairs of step and ms.
    """
    run = _run(store, run_id)
    if run is None:
        return {"lines": {}, "clock": None}
    lines: dict[str, Any] = {}
    if x == "step" and weight <= 0 and not every_rank:
        lines = _outlined(store, run, keys, columns, low, high)
    if len(lines) == len(keys) and (clock := _outlined_clock(store, run)) is not None:
        return {"lines": lines, "clock": clock, "x": x}
    axis = _axis(store, run, x)
    keys = [key for key in keys if key not in lines]
    series = memory.series(store, run_id, keys)
    for key in keys:
        ranks = series.get(key, [])
        shown = ranks if every_rank else [points for points in ranks if points.rank == 0][:1] or ranks[:1]
        drawn = [_line(points, axis, columns, low, high, weight) for points in shown]
        ends = [line.pop("ends") for line in drawn]
        ends = [pair for pair in ends if pair is not None]
        lines[key] = {
            "lines": drawn,
            "ranks": len(ranks),
            "ends": [min(pair[0] for pair in ends), max(pair[1] for pair in ends)] if ends else None,
        }
    return {"lines": lines, "clock": _clock_pairs(axis.clock), "x": x}


def _outlined(
    store: Store, run: Run, keys: Sequence[str], columns: int, low: float | None, high: float | None
) -> dict[str, Any]:
    """The lines of long series, from their outlines: as long as their points are not here already, and of a run of one rank."""
    found: dict[str, Any] = {}
    for key in keys:
        if not _is_long(store, run, key) or not outlines.of_one_rank(store, run.run_id):
            continue
        curve = outlines.curve(store, run.run_id, key, columns, low, high)
        if curve is not None:
            line = {"rank": 0, "x": pack(curve[0]), "y": pack(curve[1])}
            found[key] = {"lines": [line], "ranks": 1, "ends": list(curve[2])}
    return found


def _outlined_clock(store: Store, run: Run) -> list[list[float]] | None:
    """As `_clock_pairs`, where no points have to be read for it."""
    key = reference_key(run)
    outline = (
        outlines.outline(store, run.run_id, key) if key is not None and _is_long(store, run, key) else None
    )
    return None if outline is None else _clock_pairs(outline)


def _is_long(store: Store, run: Run, key: str) -> bool:
    """Whether an outline saves anything: of what the sampler logs the places depend on all points of another series."""
    summary = run.metrics.get(key)
    long = summary is not None and summary.count >= _LONG and not key.startswith("system/")
    return long and not memory.has(store, run.run_id, key)


def timed_curve(
    store: Store,
    run_id: str,
    key: str,
    x: str,
    start_ms: int,
    columns: int,
    low: float | None,
    high: float | None,
    weight: float,
) -> tuple[Floats, Floats, tuple[float, float]]:
    """A curve by time (ms since 1970) or relative (seconds since ``start_ms``), and where its series begins and ends. Raises
    NotFound for a run without the metric."""
    ranks = memory.series(store, run_id, [key]).get(key, [])
    points = next(iter([one for one in ranks if one.rank == 0] or ranks), None)
    if points is None or not len((points := _valid(points)).values):
        raise NotFound(f"The run has no metric {key}.")
    places = _places(points, _Axis(x, start_ms, None, None))
    places, values = _ascending(places, smooth(points.values, weight) if weight > 0 else points.values)
    return *bucket(places, values, columns, low, high), (float(places[0]), float(places[-1]))


def events(store: Store, run_id: str, key: str, x: str = "step", alone: bool = False) -> dict[str, Any]:
    """What happened in the run as this metric shows it, in order of x: {"kind", "low", "high", "at", "text"} each; ``alone``
    without what the goal and the loss show."""
    run = _run(store, run_id)
    if run is None:
        return {"key": key, "x": x, "events": []}
    axis = _axis(store, run, x)
    found: list[dict[str, Any]] = []
    goal = guess_goal(dict.fromkeys(run.metrics, 1))
    loss = guess_loss(run.metrics, goal)
    for name in dict.fromkeys(name for name in ((key,) if alone else (key, goal, loss)) if name is not None):
        points = next(iter(memory.series(store, run_id, [name]).get(name, [])), None)
        if points is None:
            continue
        valid = ~points.superseded
        places = _places(points, axis)[valid]
        values = points.values[valid]
        if not len(values):
            continue
        best = _best(name, values, places)
        if best is not None and name in (key, goal) and not is_background(name):
            if name == key:
                best["text"] = ""
            found.append(best)
        if name in (key, loss):
            about = "" if name == key else name
            found += [_event(event, places, about) for event in find_events(values)[:_MOST_EVENTS]]
        if name == key and points.superseded.any():
            found += _resumes(points, axis)
    if not any(event["kind"] == "resumed" for event in found):
        found += _later_starts(store, run, axis)
    found.sort(key=lambda event: float(event["at"]))
    return {"key": key, "x": x, "events": [event for event in found if np.isfinite(event["at"])]}


CALLS = (curves, events)


def reference_key(run: Run) -> str | None:
    """The metric whose points say best when which step was: the loss, or the one with most points."""
    usual = [key for key in run.metrics if not key.startswith("system/")]
    if not usual:
        return None
    loss = guess_loss(usual, None)
    most = max(usual, key=lambda key: run.metrics[key].count)
    return loss if loss is not None and run.metrics[loss].count * 2 >= run.metrics[most].count else most


def clock_of(store: Store, run: Run) -> Points | None:
    """The points of the reference metric that count, in order of steps; None when the run has no metric."""
    key = reference_key(run)
    if key is None:
        return None
    ranks = memory.series(store, run.run_id, [key]).get(key, [])
    return _valid(ranks[0]) if ranks else None


def _run(store: Store, run_id: str) -> Run | None:
    return next(iter(store.runs([run_id])), None)


def _axis(store: Store, run: Run, x: str) -> _Axis:
    other = None
    if x not in ("step", "time", "relative"):
        ranks = memory.series(store, run.run_id, [x]).get(x, [])
        other = _valid(ranks[0]) if ranks else None
    return _Axis(x, run.start_ms or 0, clock_of(store, run), other)


def _valid(points: Points) -> Points:
    if not points.superseded.any():
        return points
    keep = ~points.superseded
    return Points(
        points.key,
        points.rank,
        points.steps[keep],
        points.times_ms[keep],
        points.values[keep],
        points.superseded[keep],
    )


def _places(points: Points, axis: _Axis) -> Floats:
    """x of each point; NaN where it has none."""
    times = points.times_ms.astype(np.float64)
    if axis.name == "time":
        return times
    if axis.name == "relative":
        return (times - axis.start_ms) / 1000.0
    # The sampler of the hardware counts on its own: its points lie where the training was at that time.
    sampled = points.key.startswith("system/") and axis.clock is not None and len(axis.clock.steps) > 1
    if axis.name == "step":
        if not sampled or axis.clock is None:
            return points.steps.astype(np.float64)
        clock_times = np.maximum.accumulate(axis.clock.times_ms).astype(np.float64)
        return np.interp(times, clock_times, axis.clock.steps.astype(np.float64))
    if axis.other is None or not len(axis.other.steps):
        return np.full(len(times), np.nan)
    if sampled:
        at = np.searchsorted(np.maximum.accumulate(axis.other.times_ms), points.times_ms, "right") - 1
    else:
        at = np.searchsorted(axis.other.steps, points.steps, "right") - 1
    return np.where(at >= 0, axis.other.values[np.maximum(at, 0)], np.nan)


def _line(
    points: Points, axis: _Axis, columns: int, low: float | None, high: float | None, weight: float
) -> dict[str, Any]:
    places = _places(points, axis)
    line: dict[str, Any] = {"rank": points.rank}
    old = points.superseded
    if old.any():
        line["old"] = _packed(*bucket(*_ascending(places[old], points.values[old]), columns, low, high))
        places, values, steps = places[~old], points.values[~old], points.steps[~old]
    else:
        values, steps = points.values, points.steps
    if axis.name == "step" and len(steps) and (steps[1:] == steps[:-1]).any():
        # One value per step: where several were logged the last one counts.
        last = np.append(steps[1:] != steps[:-1], True)
        places, values = places[last], values[last]
    x, y = _ascending(places, values)
    line["ends"] = [float(x[0]), float(x[-1])] if len(x) else None
    line["x"], line["y"] = _packed(*bucket(x, y, columns, low, high))
    if weight > 0:
        line["smooth"] = _packed(*bucket(*_ascending(places, smooth(values, weight)), columns, low, high))
    return line


def _ascending(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    if not np.isfinite(x).all():
        kept = np.isfinite(x)
        x, y = x[kept], y[kept]
    if len(x) > 1 and (x[1:] < x[:-1]).any():
        order = np.argsort(x, kind="stable")
        return x[order], y[order]
    return x, y


def _packed(x: Floats, y: Floats) -> tuple[str, str]:
    return pack(x), pack(y)


def pack(values: Floats) -> str:
    """Floats as base64 of little-endian float64."""
    return base64.b64encode(np.ascontiguousarray(values, "<f8").tobytes()).decode()


def _clock_pairs(clock: Points | Zoom | None) -> list[list[float]] | None:
    if clock is None or not len(clock.steps):
        return None
    chosen = np.unique(np.linspace(0, len(clock.steps) - 1, _CLOCK_POINTS).astype(np.intp))
    times = np.maximum.accumulate(clock.times_ms)
    return [clock.steps[chosen].tolist(), times[chosen].tolist()]


def _best(key: str, values: Floats, places: Floats) -> dict[str, Any] | None:
    finite = np.where(np.isfinite(values), values, np.nan)
    if not np.isfinite(finite).any():
        return None
    at = int(np.nanargmin(finite) if guess_direction(key) == "min" else np.nanargmax(finite))
    place = float(places[at])
    return {
        "kind": "best",
        "low": place,
        "high": place,
        "at": place,
        "text": key,
    }


def _event(event: CurveEvent, places: Floats, about: str) -> dict[str, Any]:
    text = f"x{event.factor:.1f}" if event.factor is not None and event.factor < 1e6 else ""
    if event.kind in ("nan", "inf"):
        text = f"({event.count:,})"
    return {
        "kind": event.kind,
        "low": float(places[event.first]),
        "high": float(places[event.last]),
        "at": float(places[event.peak]),
        "text": " ".join(part for part in (text, about) if part),
    }


def _resumes(points: Points, axis: _Axis) -> list[dict[str, Any]]:
    """Where a later start took over: the first step of the points that replace older ones."""
    places = _places(points, axis)
    old = np.flatnonzero(points.superseded)
    first_step = int(points.steps[old].min())
    at = np.flatnonzero(~points.superseded & (points.steps >= first_step))
    if not len(at):
        return []
    place = float(places[at[0]])
    return [
        {"kind": "resumed", "low": place, "high": place, "at": place, "text": f"{len(old):,} points redone"}
    ]


def _later_starts(store: Store, run: Run, axis: _Axis) -> list[dict[str, Any]]:
    """Starts after the first one, where the curve is at that time."""
    found: list[dict[str, Any]] = []
    for attempt in starts_of(run, store.details(run.run_id).attempts)[1:]:
        if attempt.start_ms is None:
            continue
        if axis.name == "time":
            place = float(attempt.start_ms)
        elif axis.name == "relative":
            place = (attempt.start_ms - axis.start_ms) / 1000.0
        elif axis.clock is not None and len(axis.clock.steps):
            later = int(np.searchsorted(np.maximum.accumulate(axis.clock.times_ms), attempt.start_ms))
            at = min(later, len(axis.clock.steps) - 1)
            place = float(_places(axis.clock, axis)[at])
        else:
            continue
        found.append({"kind": "resumed", "low": place, "high": place, "at": place, "text": attempt.host})
    return found

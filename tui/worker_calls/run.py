"""What the screen of one run asks first: its head, its metrics in order, its params, and which tabs have something."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from mltrack.store.direction import guess_direction
from mltrack.store.records import Run, Summary
from mltrack.store.ssh_address import SCHEME
from mltrack.store.store import Store
from mltrack.tui.cli.columns import derived_mark, logged_names, runs_with_key
from mltrack.tui.cli.logs import log_place
from mltrack.tui.cli.run_look import duration_seconds, now_ms, status_cell, status_sentence
from mltrack.tui.draw.numbers import format_parameter, format_step
from mltrack.tui.draw.sparkline import draw_bar
from mltrack.tui.draw.times import format_age, format_duration, format_moment
from mltrack.tui.goal import direction_arrow, guess_goal, guess_loss, is_background
from mltrack.tui.worker_calls.curves import clock_of

_GPU = re.compile(r"system/(gpu\d+)/(util|memory_bytes|temperature_c)$")
_RATE_MS, _RATE_POINTS = 300_000, 500
_MOST_COUNTED = 100_000


def run_page(store: Store, run_id: str) -> dict[str, Any]:
    """The head of a run's screen, its metrics in the order worth looking at, its params, and which tabs have something.

    A metric is [key, best, its step, last, count, NaN, first step, last step, arrow]; NaN and infinities are texts, which float()
    reads. "time" are the first and last moment of the run in ms.
    """
    runs = store.runs([run_id])
    if not runs:
        return {"gone": True}
    run, now = runs[0], now_ms()
    keys = runs_with_key(runs)
    goal = guess_goal(keys)
    loss = guess_loss(keys, goal)
    order = sorted(
        run.metrics,
        key=lambda key: (key.startswith("system/"), is_background(key), key != goal, key != loss, key),
    )
    parent = next(iter(store.runs([run.parent_id])), None) if run.parent_id else None
    live = run.status in ("RUNNING", "SCHEDULED")
    times = [summary.last_time_ms for summary in run.metrics.values()]
    last = max([moment for moment in (run.heard_ms, run.end_ms, *times) if moment is not None], default=now)
    return {
        "name": run.name,
        "experiment": run.experiment,
        "parent": None if parent is None else parent.name,
        "status": run.status,
        "sentence": _sentence(run, now),
        "style": status_cell(run, now).style or "",
        "progress": progress(run, now, _steps_per_second(store, run) if live else None, False)
        or _origin(run, now),
        "live": live,
        "pinned": bool(run.pinned),
        "time": [run.start_ms or last, last],
        "metrics": [_metric_line(run.metrics[key]) for key in order],
        "params": [
            [key, format_parameter(value) + derived_mark(run, key), value, run.conflicts.get(key, "")]
            for key, value in run.params.items()
        ],
        "files": count_files(
            run, len(store.details(run_id).files if run.source.startswith(SCHEME) else store.far([run_id]))
        ),
        "log": log_place(run)[0] is not None or bool(run.facts.get("console")),
        "code": mark_of_code(run),
        "ranks": len(store.details(run_id).ranks),
    }


def mark_of_code(run: Run) -> str:
    """± when the code was not what its commit says, a blank when it was; nothing when nothing is known of code or packages."""
    code = run.facts.get("git")
    if isinstance(code, Mapping) and code.get("dirty"):
        return "±"
    return " " if any(run.facts.get(name) for name in ("git", "packages", "command", "code_note")) else ""


def count_files(run: Run, far: int = 0) -> int:
    """Entries below the run's artifacts, at most as many as a screen could show, what is in no file of its own, and ``far``: what lies
    only in an object store, or on another machine."""
    count = len(logged_names(run)) + far
    if run.artifacts is None:
        return count
    for _, folders, names in os.walk(run.artifacts, followlinks=False):
        folders[:] = [name for name in folders if not name.startswith(".")]
        count += len(names)
        if count >= _MOST_COUNTED:
            break
    return count


CALLS = (run_page,)


def _metric_line(summary: Summary) -> list[Any]:
    down = guess_direction(summary.key) == "min"
    best, step = (summary.min, summary.min_step) if down else (summary.max, summary.max_step)
    return [
        summary.key,
        jsonable(best),
        step,
        jsonable(summary.last),
        summary.count,
        summary.nan_count,
        summary.first_step,
        summary.last_step,
        direction_arrow(summary.key),
    ]


def jsonable(value: float | None) -> float | str | None:
    """NaN and infinities as texts: JSON has no numbers for them."""
    return value if value is None or -np.inf < value < np.inf else str(value)


def _sentence(run: Run, now: int) -> str:
    """● running 3h12m  heard 1s ago; how it ended, and why; that it is in the trash."""
    if run.lifecycle == "trash":
        return f"in the trash   {status_sentence(run, now)}"
    if run.damage is not None or run.status != "RUNNING" or run.quiet:
        return status_sentence(run, now)
    age = "" if run.heard_ms is None else format_age((now - run.heard_ms) / 1000)
    heard = "" if not age else "  heard now" if age == "now" else f"  heard {age} ago"
    return f"● running {format_duration(duration_seconds(run, now))}{heard}"


def _steps_per_second(store: Store, run: Run) -> float | None:
    """How fast the run was lately: over its last points, at most five minutes."""
    clock = clock_of(store, run)
    if clock is None or len(clock.steps) < 2:
        return None
    begin = int(np.searchsorted(np.maximum.accumulate(clock.times_ms), clock.times_ms[-1] - _RATE_MS))
    begin = min(max(begin, len(clock.steps) - _RATE_POINTS), len(clock.steps) - 2)
    steps = int(clock.steps[-1] - clock.steps[begin])
    spent = int(clock.times_ms[-1] - clock.times_ms[begin]) / 1000
    return steps / spent if steps > 0 and spent > 0 else None


def progress(run: Run, now: int, rate: float | None = None, heard: bool = True) -> str:
    """step 41,220/100,000 ▇▇▁▁ 41%  1.9 it/s  ETA 8h31m  gpu1 97% 71G 68C; nothing when no step is known.

    ``rate`` is how fast it was lately, in steps per second; without it the mean since the start counts.
    """
    if run.step is None or run.status not in ("RUNNING", "SCHEDULED"):
        return ""
    parts = [f"step {format_step(run.step)}" + (f"/{format_step(run.total)}" if run.total else "")]
    if run.total:
        share = run.step / run.total
        parts[0] += f" {draw_bar(share, 16)} {min(100, max(0, int(100 * share)))}%"
    since = run.start_ms
    if (
        rate is None
        and since is not None
        and run.heard_ms is not None
        and run.heard_ms > since
        and run.step > 0
    ):
        rate = run.step / ((run.heard_ms - since) / 1000)
    if rate:
        parts.append(f"{rate:.3g} it/s" if rate >= 0.1 else f"{format_duration(1 / rate)} a step")
        if run.total and run.total > run.step:
            parts.append(f"ETA {format_duration((run.total - run.step) / rate)}")
    if heard and run.heard_ms is not None:
        age = format_age((now - run.heard_ms) / 1000)
        parts.append("heard now" if age == "now" else f"heard {age} ago")
    parts += gpu_figures(run)[:2]
    return "  ".join(parts)


def gpu_figures(run: Run) -> list[str]:
    """gpu1 97% 71G 68C for each GPU the run was sampled on, as it was last."""
    found: dict[str, dict[str, float]] = {}
    for key, summary in run.metrics.items():
        if (hit := _GPU.match(key)) and summary.last == summary.last:
            found.setdefault(hit[1], {})[hit[2]] = summary.last
    figures: list[str] = []
    for name in sorted(found, key=lambda name: int(name[3:])):
        values, parts = found[name], [name]
        if "util" in values:
            parts.append(f"{values['util']:.0f}%")
        if "memory_bytes" in values:
            parts.append(f"{values['memory_bytes'] / 1e9:.0f}G")
        if "temperature_c" in values:
            parts.append(f"{values['temperature_c']:.0f}C")
        figures.append(" ".join(parts))
    return figures


def _origin(run: Run, now: int) -> str:
    """Who ran it where, when, and how long, for a run that makes no progress any more."""
    parts = [
        f"{run.user or 'unknown'} on {run.host or 'unknown'}",
        f"started {format_moment(run.start_ms, now)}",
    ]
    parts.append(f"ran {format_duration(duration_seconds(run, now))}")
    if run.step is not None:
        parts.append(f"step {format_step(run.step)}" + (f"/{format_step(run.total)}" if run.total else ""))
    return "  ".join(parts)

"""What the screen asks its worker for: answers that are ready to be drawn. Runs in the worker's process.

Every function is a call of the worker: it gets the store and plain values, and returns what JSON can carry. Texts are
as the store has them; the screen cleans them where they become cells.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mltrack.store.client.host import user
from mltrack.store.curve import bucket, smooth
from mltrack.store.direction import guess_direction
from mltrack.store.records import Run, Summary
from mltrack.store.store import Store
from mltrack.store.worker import serve as serve_store
from mltrack.tui.cli.columns import (
    Choice,
    aggregate_of,
    chosen_column,
    marked_name,
    runs_with_key,
    telling_params,
)
from mltrack.tui.cli.logs import last_state, log_place, read_lines, start_of_last_lines
from mltrack.tui.cli.run_look import (
    age_of,
    duration_seconds,
    now_ms,
    short_names,
    status_cell,
    status_sentence,
)
from mltrack.tui.cli.show import write_page
from mltrack.tui.cli.table import Cell
from mltrack.tui.cli.terminal import Terminal
from mltrack.tui.draw.numbers import format_column, format_parameter, format_step
from mltrack.tui.draw.sparkline import draw_bar
from mltrack.tui.draw.times import format_age, format_duration, format_moment
from mltrack.tui.goal import direction_arrow, guess_goal, guess_loss, is_background

# Columns are chosen by the first rows in order: what a person sees first decides what is worth seeing.
_SAMPLE = 200
_MORE_METRICS, _MORE_PARAMS = 24, 24
_LOG_BYTES = 1 << 20


def view(
    store: Store,
    filter: str = "",
    experiment: str | None = None,
    sort: Sequence[str] = (),
    aggregate: str = "best",
    first: int = 0,
    also: Sequence[str] = (),
) -> dict[str, Any]:
    """The ids of the runs that match, in order, and the columns worth showing; counts of the whole store.

    "rows" are the cells of the ``first`` runs in order and of those of ``also`` that still match.
    """
    page = store.search(filter, experiment=experiment, sort=sort)
    ids = page.run_ids
    sample = store.runs(ids[:_SAMPLE])
    keys = runs_with_key(sample)
    goal = guess_goal(keys)
    best = None
    if goal is not None:
        order = best_first("metric", goal, "best")
        winner = store.search(filter, experiment=experiment, sort=(order,), limit=1).run_ids if order else ()
        best = winner[0] if winner else None
    status = store.columns.text("attribute", "status")
    lifecycle = store.columns.text("attribute", "lifecycle")
    active = (
        lifecycle.codes == lifecycle.values.index("active")
        if "active" in lifecycle.values
        else np.zeros(len(status.codes), np.bool_)
    )
    counts = np.bincount(status.codes[active & (status.codes >= 0)], minlength=len(status.values))
    experiments = sorted({run.experiment for run in sample})
    columns = _columns(sample, keys, goal, aggregate)
    cut = _common_prefix([run.name for run in sample]) if len(ids) <= _SAMPLE else 0
    shown = (set(also) & set(ids)) | set(ids[:first]) if also else ids[:first]
    return {
        "ids": ids,
        "unknown": page.unknown_keys,
        "columns": columns,
        "best": best,
        "cut": cut,
        "rows": rows(store, list(shown), columns, best, cut),
        "all": int(active.sum()),
        "statuses": {
            word: int(count) for word, count in zip(status.values, counts.tolist(), strict=True) if count
        },
        "experiment": experiments[0] if len(experiments) == 1 else None,
        "user": user(),
        "root": str(store.location.root),
    }


def best_first(kind: str, key: str, aggregate: str) -> str | None:
    """The sort key that puts the best, newest or first by alphabet on top; None where there is no order."""
    if kind == "attribute":
        return {
            "run": "run_name",
            "status": "status",
            "experiment": "experiment",
            "user": "user",
            "age": "-start_time",
        }.get(key)
    quoted = _quoted(key)
    if quoted is None or kind == "step":
        return None
    if kind != "metric":
        return f"{kind}s.{quoted}"
    down = guess_direction(key) == "min"
    suffix = {"best": ".min" if down else ".max", "last": ""}.get(aggregate, f".{aggregate}")
    return f"{'' if down else '-'}metrics.{quoted}{suffix}"


def rows(
    store: Store, run_ids: Sequence[str], columns: Sequence[Mapping[str, Any]], best: str | None, cut: int
) -> dict[str, Any]:
    """For each run that is still there its cells as [text, style], and whether it needs a look (damaged, failed)."""
    runs = store.runs(run_ids)
    now = now_ms()
    cells: dict[str, list[list[str]]] = {run.run_id: [] for run in runs}
    for column in columns:
        for run, cell in zip(runs, _cells(column, runs, now, best, cut), strict=True):
            cells[run.run_id].append([cell.text, cell.style or ""])
    return {
        run.run_id: {"cells": cells[run.run_id], "name": run.name, "user": run.user, "status": run.status}
        for run in runs
    }


def preview(store: Store, run_id: str) -> dict[str, Any]:
    """A few lines on the run under the cursor."""
    runs = store.runs([run_id])
    if not runs:
        return {"title": "", "lines": []}
    run, now = runs[0], now_ms()
    code = run.facts.get("git")
    sha = str(code.get("commit", ""))[:8] if isinstance(code, Mapping) else ""
    dirty = " ±" if isinstance(code, Mapping) and code.get("dirty") else ""
    title = [run.name, f"{run.experiment}", f"code {sha}{dirty}" if sha else "", run.user]
    if run.status == "RUNNING" and run.pid:
        title.append(f"pid {run.pid} on {run.host}")
    first: list[str] = [_progress(run, now) or status_sentence(run, now)]
    lines = [[[part, ""] for part in first]]
    params = "  ".join(f"{key} {format_parameter(value)}" for key, value in list(run.params.items())[:12])
    lines.append([["params ", "dim"], [params or "none recorded", ""]])
    tags = "  ".join(f"{key}={value}" if value else key for key, value in run.tags.items())
    if tags or run.note:
        note = f"   note {run.note.splitlines()[0]}" if run.note else ""
        lines.append([["tags ", "dim"], [(tags or "none") + note, ""]])
    last = log_tail(store, run_id, 1)
    shown = last["lines"][-1] if last["lines"] else last["why"]
    lines.append([["log  ", "dim"], [shown, "" if last["lines"] else "dim"]])
    return {"title": "  ".join(part for part in title if part), "lines": lines}


def run_page(store: Store, run_id: str, width: int) -> dict[str, Any]:
    """Everything about a run: head, metrics in the order worth looking at, params, and the page `mltrack show` prints."""
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
    return {
        "name": run.name,
        "experiment": run.experiment,
        "status": run.status,
        "sentence": status_sentence(run, now),
        "style": status_cell(run, now).style or "",
        "progress": _progress(run, now) or _origin(run, now),
        "live": run.status in ("RUNNING", "SCHEDULED"),
        "metrics": [_metric_line(run.metrics[key]) for key in order],
        "params": [
            [key, format_parameter(value), run.conflicts.get(key, "")] for key, value in run.params.items()
        ],
        "page": _printed(run, width),
    }


def curves(
    store: Store,
    run_id: str,
    keys: Sequence[str],
    columns: int,
    low: float | None = None,
    high: float | None = None,
    weight: float = 0.0,
) -> dict[str, Any]:
    """For each key {"x", "y", "smooth"}: at most ``columns`` min/max pairs between ``low`` and ``high``; NaN and infinities
    are texts, which float() reads. "ends" are the first and last step of the whole series."""
    found: dict[str, Any] = {}
    for key in keys:
        points = store.points(run_id, key)
        steps = points.steps.astype(np.float64)
        # One value per step: where several were logged the last one counts.
        last = np.append(steps[1:] != steps[:-1], True) if len(steps) else np.zeros(0, np.bool_)
        steps, values = steps[last], points.values[last]
        x, y = bucket(steps, values, columns, low, high)
        entry: dict[str, Any] = {
            "x": x.tolist(),
            "y": _jsonable(y),
            "ends": [float(steps[0]), float(steps[-1])] if len(steps) else None,
        }
        if weight > 0:
            smooth_x, smooth_y = bucket(steps, smooth(values, weight), columns, low, high)
            entry["smooth"] = [smooth_x.tolist(), _jsonable(smooth_y)]
        found[key] = entry
    return found


def log_tail(store: Store, run_id: str, lines: int) -> dict[str, Any]:
    """The last lines of what a run printed; ``why`` says why there are none."""
    runs = store.runs([run_id])
    if not runs:
        return {"lines": [], "why": "The run is not in the store any more.", "place": ""}
    path, offset = log_place(runs[0])
    if path is None:
        console = runs[0].facts.get("console")
        tty = (
            f": it printed to the terminal {console['tty']}"
            if isinstance(console, dict) and console.get("tty")
            else ""
        )
        return {"lines": [], "why": f"Output not captured{tty}.", "place": ""}
    try:
        with path.open("rb") as file:
            begin = max(start_of_last_lines(file, offset, lines), file.seek(0, io.SEEK_END) - _LOG_BYTES)
            file.seek(begin)
            text = [last_state(line) for line in read_lines(file)]
    except OSError as error:
        return {"lines": [], "why": f"{path}: {error.strerror}", "place": str(path)}
    return {"lines": text, "why": "Nothing printed yet.", "place": str(path)}


CALLS: dict[str, Callable[..., Any]] = {
    call.__name__: call for call in (view, rows, preview, run_page, curves, log_tail)
}


def serve(where: str | None, readonly: bool) -> None:
    """Be the worker of a screen, on standard input and output."""
    serve_store(where, readonly, CALLS)


def _columns(
    sample: Sequence[Run], keys: Mapping[str, int], goal: str | None, aggregate: str
) -> list[dict[str, Any]]:
    """Weight says who gives way on a narrow screen, as in `mltrack ls`; 20 and more are only reached by scrolling."""
    columns: list[dict[str, Any]] = []

    def add(kind: str, key: str, heading: str, weight: int, align: str = "right", widest: int = 24) -> None:
        columns.append(
            {
                "kind": kind,
                "key": key,
                "aggregate": aggregate,
                "heading": heading,
                "align": align,
                "weight": weight,
                "widest": widest,
                "sort": best_first(kind, key, aggregate),
            }
        )

    def add_metric(key: str, weight: int, kind: str = "metric") -> None:
        shown = key if aggregate in ("last", "best") else f"{key} {aggregate}"
        add(kind, key, shown + direction_arrow(key), weight)

    loss = guess_loss((key for key, count in keys.items() if count * 3 >= len(sample)), goal)
    add("attribute", "run", "RUN", 0, "left", 32)
    add("attribute", "status", "STATUS", 0, "left", 18)
    if len({run.experiment for run in sample}) > 1:
        add("attribute", "experiment", "EXPERIMENT", 7, "left", 20)
    if goal is not None:
        add_metric(goal, 0, "goal")
        columns[-1]["sort"] = best_first("metric", goal, aggregate)
        add("step", goal, "@step", 8)
    if loss is not None:
        add_metric(loss, 2)
    telling = telling_params(sample)
    for place, key in enumerate(telling):
        add("param", key, key, (3, 5, 10, 11, 12, 13)[min(place, 5)], _side(key, sample), 18)
    if len({run.user for run in sample}) > 1:
        add("attribute", "user", "OWNER", 4, "left", 12)
    add("attribute", "age", "AGE", 1)
    usual = sorted(keys, key=lambda key: (key.startswith("system/"), is_background(key), -keys[key], key))
    for key in [key for key in usual if key not in (goal, loss) and not key.startswith("system/")][
        :_MORE_METRICS
    ]:
        add_metric(key, 20)
    params = dict.fromkeys(key for run in sample for key in run.params if key not in telling)
    for key in list(params)[:_MORE_PARAMS]:
        add("param", key, key, 21, _side(key, sample), 18)
    return columns


def _side(key: str, sample: Sequence[Run]) -> str:
    return chosen_column(Choice("param", key), sample, 0).align


def _cells(
    column: Mapping[str, Any], runs: Sequence[Run], now: int, best: str | None, cut: int
) -> Sequence[Cell]:
    kind, key, aggregate = str(column["kind"]), str(column["key"]), str(column["aggregate"])
    if kind == "attribute" and key == "run":
        names = [("…" + run.name[cut:]) if cut else run.name for run in runs]
        return [Cell(marked_name(run, name), "bold") for run, name in zip(runs, names, strict=True)]
    if kind == "attribute" and key == "age":
        return [Cell(age_of(run, now)) for run in runs]
    if kind == "goal":
        values = [_value(run.metrics.get(key), aggregate) for run in runs]
        return [
            Cell("★" + text, "best") if run.run_id == best and aggregate == "best" else Cell(text)
            for run, text in zip(runs, format_column(values, 4, 6), strict=True)
        ]
    if kind == "metric":
        values = [_value(run.metrics.get(key), aggregate) for run in runs]
        return [Cell(text) for text in format_column(values, 3, 3)]
    if kind == "step":
        return [Cell(_step_of(run.metrics.get(key), aggregate)) for run in runs]
    choice = Choice("param" if kind == "param" else "attribute", key)
    return [cell if isinstance(cell, Cell) else Cell(cell) for cell in chosen_column(choice, runs, now).cells]


def _value(summary: Summary | None, aggregate: str) -> float | None:
    return None if summary is None else aggregate_of(summary, aggregate)


def _step_of(summary: Summary | None, aggregate: str) -> str:
    if summary is None:
        return ""
    if aggregate == "best":
        aggregate = guess_direction(summary.key)
    steps = {"min": summary.min_step, "max": summary.max_step}
    return format_step(steps.get(aggregate, summary.last_step))


def _metric_line(summary: Summary) -> dict[str, Any]:
    down = guess_direction(summary.key) == "min"
    best, step = (summary.min, summary.min_step) if down else (summary.max, summary.max_step)
    values = format_column([best, summary.last], 4, 6)
    return {
        "key": summary.key,
        "arrow": direction_arrow(summary.key),
        "best": f"{'min' if down else 'max'} {values[0]} @{format_step(step)}"
        if best is not None
        else "only NaN",
        "last": f"last {values[1]}",
        "count": summary.count,
        "nan": summary.nan_count,
        "ends": [summary.first_step, summary.last_step],
    }


def _progress(run: Run, now: int) -> str:
    """step 41,220/100,000 ▇▇▁▁ 41%  1.9 steps/s  ETA 8h31m  heard 1s ago; nothing when no step is known."""
    if run.step is None or run.status not in ("RUNNING", "SCHEDULED"):
        return ""
    parts = [f"step {format_step(run.step)}" + (f"/{format_step(run.total)}" if run.total else "")]
    if run.total:
        share = run.step / run.total
        parts.append(f"{draw_bar(share, 16)} {min(100, max(0, int(100 * share)))}%")
    if run.start_ms is not None and run.heard_ms is not None and run.heard_ms > run.start_ms and run.step > 0:
        rate = run.step / ((run.heard_ms - run.start_ms) / 1000)
        parts.append(f"{rate:.3g} steps/s" if rate >= 0.1 else f"{format_duration(1 / rate)} a step")
        if run.total and run.total > run.step:
            parts.append(f"ETA {format_duration((run.total - run.step) / rate)}")
    if run.heard_ms is not None:
        age = format_age((now - run.heard_ms) / 1000)
        parts.append("heard now" if age == "now" else f"heard {age} ago")
    return "  ".join(parts)


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


def _printed(run: Run, width: int) -> str:
    """What `mltrack show --all` prints, with colours; the data in it is cleaned already."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        write_page(run, Terminal(max(40, width), 50, True, True, False), True)
    return output.getvalue()


def _common_prefix(names: Sequence[str]) -> int:
    """Characters that all names begin with and that the table leaves out."""
    if not names:
        return 0
    short = short_names(names)[0]
    return len(names[0]) - len(short) + 1 if short.startswith("…") and short != names[0] else 0


def _quoted(key: str) -> str | None:
    for quote in '`"':
        if quote not in key:
            return f"{quote}{key}{quote}"
    return None  # no way to write it in the filter language


def _jsonable(values: np.ndarray[Any, np.dtype[np.float64]]) -> list[float | str]:
    """NaN and infinities as texts: JSON has no numbers for them."""
    return [value if -np.inf < value < np.inf else str(value) for value in values.tolist()]

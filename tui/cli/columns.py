"""Columns of a run list: which are shown when nobody says, and what a name given to --columns means."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mltrack.tui.cli.run_look import age_of, distinct_values, duration_seconds, short_names, status_cell
from mltrack.tui.cli.table import Cell, Column
from mltrack.tui.draw.numbers import format_column, format_parameter, format_step, parse_number
from mltrack.tui.draw.sparkline import draw_sparkline
from mltrack.tui.draw.times import format_duration, format_moment
from mltrack.tui.goal import direction_of, guess_goal, guess_loss

if TYPE_CHECKING:
    from mltrack.store.records import Run, Summary

# Who gives way when the terminal is narrow: age 1, loss 2, owner 4, experiment 6, step of the best 7.
_PARAM_WEIGHTS = (3, 5, 10, 11, 12, 13)
_TREND_CELLS = 8
_AGGREGATES = ("last", "min", "max", "best", "count", "step")


@dataclass(frozen=True)
class Choice:
    """One column by name: `run`, `status`, `lr`, `params.lr`, `metrics.val/acc.max`, `tags.team`."""

    kind: Literal["attribute", "metric", "param", "tag"]
    key: str
    aggregate: str = "last"


_ATTRIBUTES: dict[str, Callable[[Run, int], object]] = {
    "id": lambda run, now: run.run_id,
    "run_id": lambda run, now: run.run_id,
    "run": lambda run, now: run.name,
    "name": lambda run, now: run.name,
    "run_name": lambda run, now: run.name,
    "experiment": lambda run, now: run.experiment,
    "status": lambda run, now: run.status,
    "user": lambda run, now: run.user,
    "owner": lambda run, now: run.user,
    "host": lambda run, now: run.host,
    "start": lambda run, now: run.start_ms,
    "start_time": lambda run, now: run.start_ms,
    "end": lambda run, now: run.end_ms,
    "end_time": lambda run, now: run.end_ms,
    "duration": duration_seconds,
    "age": age_of,
    "step": lambda run, now: run.step,
    "note": lambda run, now: run.note,
    "reason": lambda run, now: run.reason,
    "parent": lambda run, now: run.parent_id,
}


def parse_columns(text: str, runs: Sequence[Run]) -> list[Choice]:
    """The columns of `--columns a,b,c`. A bare name is an attribute, else a metric, else a param, else a tag."""
    return [_parse(name.strip(), runs) for name in text.split(",") if name.strip()]


def _parse(name: str, runs: Sequence[Run]) -> Choice:
    if name in _ATTRIBUTES:
        return Choice("attribute", name)
    for prefix, kind in (("metrics.", "metric"), ("params.", "param"), ("tags.", "tag")):
        if name.startswith(prefix):
            key = name[len(prefix) :]
            return (
                _metric(key, runs) if kind == "metric" else Choice("param" if kind == "param" else "tag", key)
            )
    choice = _metric(name, runs)
    if any(choice.key in run.metrics for run in runs):
        return choice
    if not any(name in run.params for run in runs) and any(name in run.tags for run in runs):
        return Choice("tag", name)
    return Choice("param", name)


def _metric(name: str, runs: Sequence[Run]) -> Choice:
    key, dot, aggregate = name.rpartition(".")
    if dot and aggregate in _AGGREGATES and not any(name in run.metrics for run in runs):
        return Choice("metric", key, aggregate)
    return Choice("metric", name)


def missing_columns(text: str, runs: Sequence[Run]) -> list[str]:
    """Names among the columns asked for that none of these runs has: likely slips."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    return [
        name
        for name, choice in zip(names, parse_columns(text, runs), strict=True)
        if choice.kind != "attribute" and all(value_of(choice, run, 0) is None for run in runs)
    ]


def value_of(choice: Choice, run: Run, now: int) -> object:
    """The exact value: text, number, ms since 1970, or None."""
    if choice.kind == "attribute":
        return _ATTRIBUTES[choice.key](run, now)
    if choice.kind == "param":
        return run.params.get(choice.key)
    if choice.kind == "tag":
        return run.tags.get(choice.key)
    summary = run.metrics.get(choice.key)
    return None if summary is None else aggregate_of(summary, choice.aggregate)


def aggregate_of(summary: Summary, aggregate: str) -> float | None:
    """One number of a summary; `best` is min or max by the direction that the metric's name suggests."""
    if aggregate == "best":
        aggregate = direction_of(summary.key)
    if aggregate == "min":
        return summary.min
    if aggregate == "max":
        return summary.max
    if aggregate == "count":
        return float(summary.count)
    if aggregate == "step":
        return float(summary.last_step)
    return summary.last


def chosen_column(choice: Choice, runs: Sequence[Run], now: int) -> Column:
    """A table column for a name that was asked for: it never gives way."""
    heading = choice.key if choice.aggregate == "last" else f"{choice.key}.{choice.aggregate}"
    values = [value_of(choice, run, now) for run in runs]
    if choice.kind == "metric":
        return Column(heading, format_column([_as_float(value) for value in values]), "right", 0, 80)
    if choice.kind == "param":
        return _param_column(choice.key, runs, 0)
    if choice.key == "status":
        return Column("STATUS", [status_cell(run, now) for run in runs], weight=0)
    if choice.key in ("start", "start_time", "end", "end_time"):
        return Column(heading.upper(), [format_moment(_as_int(value), now) for value in values], "right", 0)
    if choice.key == "duration":
        return Column("DURATION", [format_duration(_as_float(value)) for value in values], "right", 0)
    if choice.key == "step":
        return Column("STEP", [format_step(_as_float(value)) for value in values], "right", 0)
    heading = heading.upper() if choice.kind == "attribute" else heading
    return Column(heading, ["" if value is None else str(value) for value in values], weight=0, widest=60)


def default_columns(
    runs: Sequence[Run],
    now: int,
    *,
    one_experiment: bool,
    sort: Sequence[str] = (),
    read_values: Callable[[str, str], Sequence[float]] | None = None,
) -> list[Column]:
    """What one wants to see first: name, status, the goal with its step, a loss, the params that vary, owner, age.

    read_values(run_id, key) gives the values of a series; without it there is no trend.
    """
    shown_keys = runs_with_key(runs)
    goal = guess_goal(shown_keys)
    loss = guess_loss((key for key, count in shown_keys.items() if count * 3 >= len(runs)), goal)
    names = short_names([run.name for run in runs])
    columns = [
        Column(
            "RUN",
            [Cell(marked_name(run, name), "bold") for run, name in zip(runs, names, strict=True)],
            weight=0,
            widest=32,
        ),
        Column("STATUS", [status_cell(run, now) for run in runs], weight=0),
    ]
    if not one_experiment:
        columns.append(
            Column("EXPERIMENT", [run.experiment for run in runs], weight=6, widest=24, narrowest=12)
        )
    if goal is not None:
        # A table sorted by the last value shows that, else its order would look wrong.
        sorted_by_last = any(key.lstrip("-+").removeprefix("metrics.") == goal for key in sort)
        columns += _goal_columns(goal, runs, "last" if sorted_by_last else "best")
    if loss is not None:
        columns.append(Column(loss, format_column([_last(run, loss) for run in runs], 3, 3), "right", 2))
        if read_values is not None:
            columns.append(Column("trend", _trends(runs, loss, read_values), weight=8))
    params = telling_params(runs)
    columns += [_param_column(key, runs, _PARAM_WEIGHTS[place]) for place, key in enumerate(params)]
    if len({run.user for run in runs}) > 1:
        columns.append(Column("OWNER", [run.user for run in runs], weight=4, widest=12, narrowest=8))
    columns.append(Column("AGE", [age_of(run, now) for run in runs], "right", 1))
    return columns


def telling_params(runs: Sequence[Run]) -> list[str]:
    """Params that most runs have and that differ most; seeds differ always and explain nothing, so they come last."""

    def rank(item: tuple[str, int]) -> tuple[bool, bool, int, str]:
        key, different = item
        present = sum(key in run.params for run in runs)
        return 2 * present < len(runs), "seed" in key.lower(), -different, key

    varied = [(key, count) for key, count in distinct_values(runs).items() if count > 1]
    return [key for key, _ in sorted(varied, key=rank)][: len(_PARAM_WEIGHTS)]


def _goal_columns(goal: str, runs: Sequence[Run], aggregate: str) -> list[Column]:
    direction = direction_of(goal)
    summaries = [run.metrics.get(goal) for run in runs]
    values = [None if summary is None else aggregate_of(summary, aggregate) for summary in summaries]
    numbers = [value for value in values if value is not None and not math.isnan(value)]
    winner = (max(numbers) if direction == "max" else min(numbers)) if numbers else None
    cells = [
        Cell("★" + text, "best") if winner is not None and value == winner else Cell(text)
        for value, text in zip(values, format_column(values, 4, 6), strict=True)
    ]
    steps = []
    for summary in summaries:
        if summary is None:
            steps.append("")
            continue
        best_step = summary.max_step if direction == "max" else summary.min_step
        steps.append(format_step(summary.last_step if aggregate == "last" else best_step))
    arrow = "↑" if direction == "max" else "↓"
    return [Column(goal + arrow, cells, "right", 0), Column("@step", steps, "right", 7)]


def _trends(runs: Sequence[Run], key: str, read_values: Callable[[str, str], Sequence[float]]) -> list[str]:
    """A curve per run over the steps of the longest run, so that what stopped early is short."""
    longest = max((run.metrics[key].last_step for run in runs if key in run.metrics), default=0)
    texts: list[str] = []
    for run in runs:
        if key not in run.metrics:
            texts.append("")
            continue
        values = read_values(run.run_id, key)
        last = run.metrics[key].last_step
        whole = len(values) * longest // last if last > 0 else len(values)
        texts.append(draw_sparkline(values, _TREND_CELLS, whole=whole))
    return texts


def _param_column(key: str, runs: Sequence[Run], weight: int) -> Column:
    texts = [format_parameter(run.params.get(key, "")) for run in runs]
    numeric = all(not text or parse_number(text) is not None for text in texts)
    marks = [derived_mark(run, key) for run in runs]
    if any(marks):  # digits stay below digits
        texts = [text + (mark or " ") for text, mark in zip(texts, marks, strict=True)]
    return Column(key, texts, "right" if numeric else "left", weight, 18)


def derived_mark(run: Run, key: str) -> str:
    """A star for a param that nobody recorded: the name of the run's folder said it."""
    derived = run.facts.get("derived")
    return "*" if isinstance(derived, list) and key in derived and key in run.params else ""


def logged_names(run: Run) -> dict[str, list[int]]:
    """What another tool logged beside numbers: "kind name" -> [how many, first step, last step]."""
    logged = run.facts.get("logged")
    if not isinstance(logged, dict):
        return {}
    return {
        str(name): list(seen)
        for name, seen in logged.items()
        if isinstance(seen, list) and len(seen) >= 3 and all(type(value) is int for value in seen)
    }


def marked_name(run: Run, name: str) -> str:
    dirty = run.facts.get("git", {}).get("dirty") if isinstance(run.facts.get("git"), dict) else False
    return name + (" ±" if dirty else "") + (" ✎" if run.note else "")


def runs_with_key(runs: Sequence[Run]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for run in runs:
        for key, summary in run.metrics.items():
            # A value that never moved (a constant, a single point beside curves) is no goal.
            counts[key] = counts.get(key, 0) + (summary.count > 0)
    return counts


def _last(run: Run, key: str) -> float | None:
    summary = run.metrics.get(key)
    return None if summary is None else summary.last


def _as_float(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def _as_int(value: object) -> int | None:
    return value if isinstance(value, int) else None

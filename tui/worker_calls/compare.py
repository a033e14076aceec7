"""What the compare screen asks: rows side by side, the diff behind a row, the curves of all runs over each other."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mltrack.store.client.git_process import Git, GitProblem
from mltrack.store.curve import Floats, bucket, smooth
from mltrack.store.errors import NotFound
from mltrack.store.records import Run
from mltrack.store.store import Store
from mltrack.tui.cli.compare import ABSENT
from mltrack.tui.cli.run_look import duration_seconds, now_ms, status_cell
from mltrack.tui.comparison import (
    Reason,
    Row,
    differing_packages,
    find_reasons,
    goal_values,
    parse_packages,
    patch_style,
    text_diff,
)
from mltrack.tui.draw.braille import curve_letter, curve_letters
from mltrack.tui.draw.numbers import (
    format_change,
    format_column,
    format_number,
    format_parameter,
    format_step,
)
from mltrack.tui.draw.times import format_duration
from mltrack.tui.goal import direction_arrow
from mltrack.tui.kept_files import ASKED_SECONDS, KeptFiles
from mltrack.tui.worker_calls.comparisons import MOST_RUNS, Comparison, as_decided, comparison, witnesses_of
from mltrack.tui.worker_calls.curves import events, pack, timed_curve
from mltrack.tui.worker_calls.series_memory import outlines

# Commits between two runs are listed when their repository is here; a slow disk is not waited for.
_GIT_SECONDS = 2.0
_COMMITS = 40
_PATCH_LINES = 4000
_LONG_TEXT = 40

Lines = list[list[list[str]]]


@as_decided
def compare(store: Store, run_ids: Sequence[str], aggregate: str = "best", first: int = 24) -> dict[str, Any]:
    """The runs that are still there and an entry for each row: [section, key, label, differs]. "cells" are those of the
    ``first`` rows, by place; `compare_cells` has the others."""
    made = comparison(store, run_ids, aggregate)
    now = now_ms()
    return {
        "runs": [
            {
                "id": run.run_id,
                "name": run.name,
                "status": [status_cell(run, now).text, status_cell(run, now).style or ""],
                "duration": format_duration(duration_seconds(run, now)),
                "experiment": run.experiment,
            }
            for run in made.runs
        ],
        "rows": [
            *(_metric_entry(made.table.keys[key], bool(made.differs[key])) for key in made.order),
            *([row.section, row.key, row.key, row.differs] for row in made.others),
        ],
        "cells": _cells_of(made, range(min(first, len(made)))),
        "goal": made.goal,
        "loss": made.loss,
        "ranked": f"ranked by effect on {made.goal}" if any(row.effect for row in made.others) else "",
        "of": made.of,
    }


@as_decided
def compare_cells(
    store: Store, run_ids: Sequence[str], aggregate: str, places: Sequence[int]
) -> dict[str, Any]:
    """The cells of these rows: {place: [[text, style] for each run]}."""
    return _cells_of(comparison(store, run_ids, aggregate), places)


@as_decided
def compare_detail(
    store: Store, run_ids: Sequence[str], aggregate: str, section: str, key: str, place: int
) -> dict[str, Any]:
    """What stands behind a row: the diff of the first run and the one at ``place`` (the second, for the first itself)."""
    made = comparison(store, run_ids, aggregate)
    row = made.find(section, key)
    if row is None:
        return {"title": key, "lines": [[["The row is gone.", "dim"]]]}
    other = place if 0 < place < len(made.runs) else min(1, len(made.runs) - 1)
    letters = f"{curve_letter(0)} and {curve_letter(other)}"
    if section == "metrics":
        return {"title": f"{key} of {len(made.runs)} runs", "lines": _metric_detail(store, made, row)}
    if (section, key) == ("circumstances", "commit"):
        one, two = made.runs[0], made.runs[other]
        read = KeptFiles(store, [one, two], ASKED_SECONDS)
        return {"title": f"code of {letters}", "lines": _code_detail(read, one, two), "again": read.waiting}
    if (section, key) == ("circumstances", "packages"):
        read = KeptFiles(store, made.runs, ASKED_SECONDS)
        return {
            "title": "packages that differ",
            "lines": _package_detail(read, made.runs),
            "again": read.waiting,
        }
    if (section, key) == ("circumstances", "data"):
        return {"title": "data", "lines": _data_detail(made.runs)}
    return {"title": f"{key}: {letters}", "lines": _value_detail(made, row, other)}


def compare_curves(
    store: Store,
    run_ids: Sequence[str],
    keys: Sequence[str],
    columns: int,
    low: float | None = None,
    high: float | None = None,
    weight: float = 0.0,
    x: str = "step",
) -> dict[str, list[dict[str, Any] | None]]:
    """Per metric and run {"x", "y", "ends"} of at most ``columns`` min/max pairs as base64 of little-endian float64, smoothed
    when ``weight`` says so; None where the run has no such metric. ``x`` is step, time or relative, as in `curves`."""
    found: dict[str, list[dict[str, Any] | None]] = {key: [] for key in keys}
    starts: dict[str, int] = {}
    if x == "relative":
        read = store.runs(run_ids[:MOST_RUNS], (), (), folders=False)
        starts = {run.run_id: run.start_ms or 0 for run in read}
    # A run after the other: what lies loose of it is read once.
    for run_id in run_ids[:MOST_RUNS]:
        for key in keys:
            try:
                if x == "step":
                    places, y, ends = _curve(store, run_id, key, columns, low, high, weight)
                else:
                    start = starts.get(run_id, 0)
                    places, y, ends = timed_curve(store, run_id, key, x, start, columns, low, high, weight)
            except NotFound:
                found[key].append(None)
                continue
            found[key].append({"x": pack(places), "y": pack(y), "ends": ends})
    return found


def compare_events(store: Store, run_ids: Sequence[str], key: str, x: str = "step") -> dict[str, Any]:
    """What happened in these runs as the metric shows it: {"key", "x", "events": [[where, "a spike x15.4"], ...]} in order of x."""
    found: list[tuple[float, str]] = []
    for place, run_id in enumerate(run_ids[:MOST_RUNS]):
        for event in events(store, run_id, key, x, alone=True)["events"]:
            kind = {"nan": "NaN"}.get(event["kind"], event["kind"])
            text = " ".join(part for part in (curve_letter(place), kind, event["text"]) if part)
            found.append((float(event["at"]), text))
    return {"key": key, "x": x, "events": [list(event) for event in sorted(found)]}


def _curve(
    store: Store, run_id: str, key: str, columns: int, low: float | None, high: float | None, weight: float
) -> tuple[Floats, Floats, tuple[float, float]]:
    """The curve of one run and where its series begins and ends. Raises NotFound."""
    # A smooth curve needs all points that lie before it.
    outlined = outlines.curve(store, run_id, key, columns, low, high) if weight <= 0 else None
    if outlined is not None:
        return outlined
    points = store.points(run_id, key)
    steps = points.steps.astype(np.float64)
    last = np.append(steps[1:] != steps[:-1], True)
    steps, values = steps[last], points.values[last]
    x, y = bucket(steps, smooth(values, weight) if weight > 0 else values, columns, low, high)
    return x, y, (float(steps[0]), float(steps[-1]))


CALLS = (compare, compare_cells, compare_detail, compare_curves, compare_events)


def _metric_entry(key: str, differs: bool) -> list[Any]:
    return ["metrics", key, f"{key} {direction_arrow(key)}".rstrip(), differs]


def _cells_of(made: Comparison, places: Sequence[int] | range) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for place in places:
        row = made.row(place)
        found[str(place)] = _metric_cells(made, row) if row.section == "metrics" else _text_cells(row)
    return found


def _metric_cells(made: Comparison, row: Row) -> list[list[str]]:
    values = [value if isinstance(value, float) else None for value in row.values]
    texts, best, reference = format_column(values, 4), row.best, row.reference
    differs = row.differs
    key = made.table.keys.index(row.key)
    cells: list[list[str]] = []
    for column, (value, text) in enumerate(zip(values, texts, strict=True)):
        if value is None:
            cells.append([ABSENT, "dim"])
        elif reference is None or not differs or (best is None and value == reference):
            cells.append([text, "" if differs else "dim"])
        elif value == best and (summary := made.table.summary(key, column)) is not None:
            step = {summary.min: summary.min_step, summary.max: summary.max_step}.get(
                value, summary.last_step
            )
            cells.append([f"{text} ★ @{format_step(step)}", "best"])
        else:
            cells.append([f"{text}  {format_change(value, reference)}", ""])
    return cells


def _text_cells(row: Row) -> list[list[str]]:
    cells: list[list[str]] = []
    usual, differs = row.usual, row.differs
    for value in row.values:
        if value is None:
            cells.append([ABSENT, "yellow" if differs and usual is not None else "dim"])
            continue
        # A tag without a value is a word that is set.
        text = format_parameter(str(value)) if row.section == "params" else str(value) or "✓"
        odd = differs and value != usual
        cells.append([f"{text} ◄" if odd else text, "yellow" if odd else "" if differs else "dim"])
    return cells


# -- behind a row


def _metric_detail(store: Store, made: Comparison, row: Row) -> Lines:
    width = max(len(run.name) for run in made.runs)
    lines: Lines = []
    letters = curve_letters(len(made.runs))
    for place, (run, summary) in enumerate(zip(made.runs, made.summaries(row.key), strict=True)):
        head = [f" {letters[place]} {run.name:<{width}}  ", f"curve:{place}"]
        if summary is None:
            lines.append([head, ["not logged", "dim"]])
            continue
        texts = format_column([summary.last, summary.min, summary.max], 5)
        nan = f"   {summary.nan_count:,} NaN" if summary.nan_count else ""
        lines.append(
            [
                head,
                [f"last {texts[0]} @{format_step(summary.last_step)}", ""],
                [f"   min {texts[1]} @{format_step(summary.min_step)}", ""],
                [f"   max {texts[2]} @{format_step(summary.max_step)}", ""],
                [f"   {summary.count:,} points{nan}", "dim"],
            ]
        )
    if row.key != made.goal:
        return lines
    results = [value for value in goal_values(made.runs, row.key) if value is not None]
    if len(results) < 2:
        return lines
    top = (min if direction_arrow(row.key) == "↓" else max)(results)
    values = goal_values(made.runs, row.key)
    best = values.index(top)
    witnesses = witnesses_of(store, made, row.key)
    for place, run in enumerate(made.runs):
        if place == best or values[place] is None:
            continue
        lines += [
            [],
            [
                [
                    f" Why {curve_letter(best)} is better than {curve_letter(place)}: what differs, and how "
                    f"{made.of} with the same value do",
                    "bold",
                ]
            ],
        ]
        reasons = find_reasons(made.runs[best], run, witnesses, row.key)
        lines += [_reason_line(reason) for reason in reasons] or [[["  nothing recorded differs", "dim"]]]
    return lines


def _reason_line(reason: Reason) -> list[list[str]]:
    mine, theirs = (format_parameter(value) if value is not None else "absent" for value in reason.values)
    if reason.key.lower().endswith("seed"):
        verdict, style = "luck: every run has its own", "dim"
    elif reason.median is None:
        verdict, style = "may be it: no other run has this value", "yellow"
    elif reason.blame >= 0.5:
        verdict = f"may be it: {reason.others} others with it have a median of {format_number(reason.median)}"
        style = "yellow"
    else:
        verdict = f"not it: {reason.others} others with it have a median of {format_number(reason.median)}"
        style = "green"
    return [[f"  {reason.key:<18} ", "cyan"], [f"{mine} against {theirs}   ", ""], [verdict, style]]


def _code_detail(read: KeptFiles, one: Run, other: Run) -> Lines:
    left, right = (_git(run) for run in (one, other))
    lines: Lines = [
        [
            [f" {run.name}  ", "bold"],
            [f"{code.get('commit', 'no commit recorded')}", ""],
            [f"  {code.get('branch') or ''}", "dim"],
        ]
        for run, code in ((one, left), (other, right))
    ]
    lines.append([])
    first, second = str(left.get("commit") or ""), str(right.get("commit") or "")
    if first and first == second:
        lines.append([[" The same commit.", "green"]])
    elif first and second:
        lines += _commits_between(str(one.facts.get("cwd") or ""), first, second)
    patches = [str(code.get("patch") or "") for code in (left, right)]
    texts = [read(patch) if patch else "" for patch in patches]
    lines.append([])
    for run, patch, text in zip((one, other), patches, texts, strict=True):
        if patch and text is None:
            told = f" The uncommitted changes of {run.name} are not here: blobs/{patch[:8]}… {read.absence(patch)}."
            lines.append([[told, "yellow"]])
    if None in texts or not any(texts):
        return [*lines, *([] if any(texts) else [[[" No uncommitted changes in either.", "dim"]]])]
    if texts[0] == texts[1]:
        lines.append([[" Both have the same uncommitted changes:", "green"]])
        shown = [(line, patch_style(line)) for line in str(texts[0]).splitlines()]
    elif not texts[0] or not texts[1]:
        owner = one if texts[0] else other
        lines.append([[f" Only {owner.name} has uncommitted changes:", "yellow"]])
        shown = [(line, patch_style(line)) for line in str(texts[0] or texts[1]).splitlines()]
    else:
        lines.append([[" The uncommitted changes differ; the diff of the two patches:", "yellow"]])
        shown = text_diff(str(texts[0]), str(texts[1]), (one.name, other.name), None)
    return [*lines, *([[f" {text}", style]] for text, style in shown[:_PATCH_LINES])]


def _git(run: Run) -> Mapping[str, Any]:
    git = run.facts.get("git")
    return git if isinstance(git, Mapping) else {}


def _commits_between(folder: str, first: str, second: str) -> Lines:
    """The commits that one has and the other has not, when the repository is on this machine."""
    program = shutil.which("git")
    if not (os.path.isabs(folder) and os.path.isdir(folder)) or program is None:
        return [[[" The commits differ; their repository is not on this machine.", "yellow"]]]
    if not all(letter in "0123456789abcdef" for letter in first + second):
        return [[[" The commits differ.", "yellow"]]]
    git = Git(program, _GIT_SECONDS)
    lines: Lines = []
    try:
        for sentence, have, lack in (
            ("only in the second run", second, first),
            ("only in the first run", first, second),
        ):
            output = git.run(
                os.fsencode(folder),
                *("-c", "log.showSignature=false", "log", "--no-color", "--format=%h  %as  %an  %s"),
                *(f"--max-count={_COMMITS + 1}", have, f"^{lack}", "--"),
            )
            found = output.decode("utf-8", "backslashreplace").splitlines()
            if found:
                more = f", the newest {_COMMITS}" if len(found) > _COMMITS else ""
                lines.append([[f" Commits {sentence}{more}:", "bold"]])
                lines += [[[f"   {line}", ""]] for line in found[:_COMMITS]]
    except GitProblem as problem:
        return [[[f" The commits differ; which lie between them cannot be said: {problem}.", "yellow"]]]
    return lines or [[[" The commits differ but have the same history.", "dim"]]]


def _package_detail(read: KeptFiles, runs: Sequence[Run]) -> Lines:
    lists = [parse_packages(read(str(run.facts.get("packages") or "")) or "") for run in runs]
    known = [packages for packages in lists if packages]
    names = differing_packages(known)
    if not known:
        return [[[" No list of packages was recorded.", "dim"]]]
    if not names:
        return [[[f" All {len(known[0])} packages are the same.", "green"]]]
    width = max(len(name) for name in names)
    lines: Lines = []
    for name in names:
        versions = [packages.get(name, "absent") for packages in lists]
        usual = max(set(versions), key=versions.count)
        lines.append(
            [[f" {name:<{width}}  ", "cyan"]]
            + [
                [f"{curve_letter(place)} {version}   ", "yellow" if version != usual else ""]
                for place, version in enumerate(versions)
            ]
        )
    same = len(known[0]) - sum(name in known[0] for name in names)
    return [*lines, [], [[f" {same:,} packages are the same.", "dim"]]]


def _data_detail(runs: Sequence[Run]) -> Lines:
    lines: Lines = []
    for place, run in enumerate(runs):
        lines.append([[f" {curve_letter(place)} {run.name}", f"curve:{place}"]])
        for entry in run.inputs:
            size = entry.get("size")
            rows = f"   {int(size):,} bytes" if isinstance(size, int) else ""
            lines.append(
                [
                    [
                        f"     {entry.get('name', '')}  {entry.get('context') or ''}  {entry.get('source') or ''}{rows}",
                        "",
                    ]
                ]
            )
            lines.append([[f"     {entry.get('digest', '')}", "dim"]])
        if not run.inputs:
            lines.append([["     no data recorded", "dim"]])
    return lines


def _value_detail(made: Comparison, row: Row, other: int) -> Lines:
    values = [str(value) if value is not None else None for value in row.values]
    lines: Lines = []
    long = any(value is not None and (len(value) > _LONG_TEXT or "\n" in value) for value in values)
    one, two = values[0], values[other]
    if long and one is not None and two is not None and one != two:
        names = (made.runs[0].name, made.runs[other].name)
        # A long value of one line is told apart by its pieces.
        split = [
            value if "\n" in value else value.replace(",", ",\n").replace(" ", "\n") for value in (one, two)
        ]
        lines += [
            [[f" {text}", style]] for text, style in text_diff(split[0], split[1], names, None)[:_PATCH_LINES]
        ]
        lines.append([])
    width = max(len(run.name) for run in made.runs)
    letters = curve_letters(len(made.runs))
    for place, (run, value) in enumerate(zip(made.runs, values, strict=True)):
        text = ABSENT if value is None else value
        odd = "yellow" if row.differs and value != row.usual else ""
        lines.append([[f" {letters[place]} {run.name:<{width}}  ", f"curve:{place}"], [text, odd]])
    if row.section == "params" and row.effect is not None and made.goal:
        lines += [
            [],
            [
                [
                    f" May explain up to {row.effect:.0%} of the difference in {made.goal}, over {made.of}.",
                    "dim",
                ]
            ],
        ]
    return lines

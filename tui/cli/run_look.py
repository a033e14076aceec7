"""How a run is shown in text: status, age, names without their common prefix, and its JSON."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mltrack.tui.cli.table import Cell
from mltrack.tui.draw.glyphs import DAMAGED, QUIET, STATUS_LOOKS, UNKNOWN
from mltrack.tui.draw.times import format_age

if TYPE_CHECKING:
    from mltrack.store.records import Run

_REASON_CELLS = 12
_SIGNAL = re.compile(r"signal [0-9]+ \((SIG[A-Z0-9]+)\)")


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def status_cell(run: Run, now: int) -> Cell:
    """Glyph and word, with what matters most about it: progress, silence, or why it ended."""
    if run.damage is not None:
        return Cell(f"{DAMAGED.glyph} {DAMAGED.word}", DAMAGED.colour)
    if run.status == "RUNNING" and run.quiet:
        silent = f" {format_age((now - run.heard_ms) / 1000)}" if run.heard_ms is not None else ""
        return Cell(f"{QUIET.glyph} {QUIET.word}{silent}", QUIET.colour)
    look = STATUS_LOOKS.get(run.status, UNKNOWN)
    word = look.word
    if run.status == "RUNNING" and run.total and run.step is not None:
        word = f"{min(100, max(0, 100 * run.step // run.total))}%"
    elif run.status in ("FAILED", "KILLED") and run.reason:
        first = run.reason.strip().split("\n")[0]
        named = _SIGNAL.fullmatch(first)
        first = named[1] if named else first
        word = first if len(first) <= _REASON_CELLS else first[: _REASON_CELLS - 1] + "…"
    return Cell(f"{look.glyph} {word}", look.colour)


def status_sentence(run: Run, now: int) -> str:
    """The status in full, for the head of a page."""
    if run.damage is not None:
        return f"{DAMAGED.glyph} {DAMAGED.word}: {run.damage}"
    cell = status_cell(run, now)
    if run.status in ("FAILED", "KILLED", "LOST"):
        look = STATUS_LOOKS[run.status]
        code = f" (exit code {run.exit_code})" if run.exit_code is not None else ""
        return f"{look.glyph} {look.word}{code}" + (f": {run.reason}" if run.reason else "")
    if run.status == "RUNNING" and not run.quiet and run.heard_ms is not None:
        done = f" {cell.text.split()[1]}" if cell.text.endswith("%") else ""
        age = format_age((now - run.heard_ms) / 1000)
        return f"● running{done}, heard {'just now' if age == 'now' else f'{age} ago'}"
    if run.status == "SCHEDULED" and run.reason:
        return f"{cell.text}: {run.reason}"
    return cell.text


def is_slurms(run: Run) -> bool:
    """Whether mltrack submitted this run to Slurm, which then knows more of it than its journals."""
    asked = run.facts.get("project")
    return isinstance(asked, Mapping) and asked.get("backend") == "slurm"


def age_of(run: Run, now: int) -> str:
    """How long ago something last happened to the run."""
    last = (
        run.heard_ms if run.status == "RUNNING" and run.heard_ms is not None else run.end_ms or run.start_ms
    )
    return "" if last is None else format_age((now - last) / 1000)


def duration_seconds(run: Run, now: int) -> float | None:
    """From start to end, or until now (until last heard, for a run that is lost)."""
    if run.start_ms is None:
        return None
    end = run.end_ms or (run.heard_ms if run.status == "LOST" else now if run.status == "RUNNING" else None)
    return None if end is None else (end - run.start_ms) / 1000


def short_names(names: Sequence[str]) -> list[str]:
    """Names without the prefix that all share, cut at a separator: the tail is what tells them apart."""
    if len(set(names)) < 3:
        return list(names)
    first, last = min(names), max(names)
    common = 0
    while common < min(len(first), len(last)) and first[common] == last[common]:
        common += 1
    # Only a long prefix is worth the loss.
    cut = max((first.rfind(mark, 0, common) + 1 for mark in "/_-."), default=0)
    if cut < 8:
        return list(names)
    return ["…" + name[cut:] for name in names]


def run_json(run: Run) -> dict[str, object]:
    """The JSON object of a run, as `mltrack ls --json` documents it."""
    from mltrack.tui.cli.output import (
        json_number,  # with click behind it, which the app's worker does without
    )

    return {
        "run_id": run.run_id,
        "run_name": run.name,
        "experiment": run.experiment,
        "status": run.status,
        "user": run.user,
        "start_time": run.start_ms,
        "end_time": run.end_ms,
        "params": run.params,
        "metrics": {key: json_number(summary.last) for key, summary in run.metrics.items()},
        "tags": run.tags,
    }


def distinct_values(runs: Sequence[Run]) -> Mapping[str, int]:
    """For each param, how many different values the runs have (absent counts as one)."""
    values: dict[str, set[str | None]] = {}
    for run in runs:
        for key in run.params:
            values.setdefault(key, set())
    for key, seen in values.items():
        for run in runs:
            seen.add(run.params.get(key))
    return {key: len(seen) for key, seen in values.items()}

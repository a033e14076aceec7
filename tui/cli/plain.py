"""`mltrack-tui --plain`: the table once, then a line for everything that happens to a run; nothing is drawn over.

For screen readers, log files and terminals that cannot place their cursor.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mltrack.tui.cli.output import write_text
from mltrack.tui.cli.run_look import now_ms, status_sentence
from mltrack.tui.cli.session import Session
from mltrack.tui.cli.terminal import pause
from mltrack.tui.draw.numbers import format_number, format_step

if TYPE_CHECKING:
    from mltrack.store.records import Run
    from mltrack.store.store import Store

_LOOK_SECONDS = 1.0
_SAMPLE = 200
_RUNNING = ("running", "quiet")
_Seen = dict[str, tuple[str, str, float | None]]
"""Per run its status as a sentence without what changes by itself, its name, and its goal value."""


def follow_plainly(
    session: Session, filter_text: str, seconds: float | None = None, since_ms: int | None = None
) -> None:
    """Print a line for each run that begins (since ``since_ms``: none while a table was made is left out), ends, falls
    silent or gets a new best, until ctrl+c or for ``seconds``."""
    from mltrack.store.opening import open_store

    until = None if seconds is None else time.monotonic() + seconds
    with open_store(session.where) as store:
        watch = _Watch(store, filter_text, since_ms)
        watch.look()
        while until is None or time.monotonic() < until:
            pause(_LOOK_SECONDS)
            seen = watch.seen
            for line in changes(seen, watch.look()):
                write_text(line, session.terminal)


def changes(before: _Seen, after: Mapping[str, tuple[str, str, float | None]]) -> list[str]:
    """What happened between two looks, a sentence each."""
    lines: list[str] = []
    for run_id, (status, name, best) in after.items():
        old = before.get(run_id)
        if old is None:
            lines.append(f"new run {name}: {status}")
        elif old[0] != status:
            lines.append(f"{name}: {status}" + (f", best {format_number(best)}" if best is not None else ""))
        elif best is not None and best != old[2]:
            lines.append(f"{name}: new best {format_number(best)}")
    lines += [f"{old[1]} left the list" for run_id, old in before.items() if run_id not in after]
    return lines


class _Watch:
    """Looks at a store again and again, each time only at runs that may be different now."""

    def __init__(self, store: Store, filter_text: str, since_ms: int | None) -> None:
        self.seen: _Seen = {}
        self._since_ms = since_ms
        self._store = store
        self._filter = filter_text
        self._seq = -1
        self._goal: str | None = None

    def look(self) -> _Seen:
        """What is there now."""
        from mltrack.store.direction import guess_direction
        from mltrack.tui.goal import guess_goal

        store = self._store
        store.refresh()
        seq = store.change_counter()
        ids = store.search(self._filter).run_ids
        goal = guess_goal(store.count_metrics(ids[:_SAMPLE]))
        before = self.seen if goal == self._goal else {}
        changed = set(store.changed_since(self._seq)) if before else set[str]()
        # A run that is running can fall silent without a change.
        again = [
            run_id
            for run_id in ids
            if run_id not in before or run_id in changed or before[run_id][0] in _RUNNING
        ]
        runs = store.runs(again, () if goal is None else (goal,), (), folders=False)
        down = goal is not None and guess_direction(goal) == "min"
        fresh: _Seen = {}
        for run in runs:
            if self._seq < 0 and self._since_ms is not None and (run.start_ms or 0) >= self._since_ms:
                continue  # new to whoever has read the table: the next look finds it
            summary = run.metrics.get(goal) if goal is not None else None
            best = None if summary is None else summary.min if down else summary.max
            fresh[run.run_id] = (_steady(run), run.name, best)
        self.seen = {
            run_id: found for run_id in ids if (found := fresh.get(run_id) or before.get(run_id)) is not None
        }
        self._seq, self._goal = seq, goal
        return self.seen


def _steady(run: Run) -> str:
    """The status without ages and progress, which change by themselves."""
    if run.status == "RUNNING":
        return _RUNNING[run.quiet]
    step = f" at step {format_step(run.step)}" if run.step is not None else ""
    return status_sentence(run, now_ms()) + step

"""Runs under their parents, in any order of runs: `mltrack ls --tree`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mltrack.tui.cli.output import json_number
from mltrack.tui.draw.glyphs import STATUS_LOOKS

if TYPE_CHECKING:
    from mltrack.store.records import Run
    from mltrack.store.store import Store

# Deeper trees are drawn flat from here on; a parent that is its own descendant cannot hang anything either.
_DEEPEST = 16


@dataclass(frozen=True)
class Branch:
    """One run of the tree. `lines` is drawn before its name; `children` sums up all its direct children."""

    run: Run
    depth: int
    lines: str
    children: Children | None


@dataclass(frozen=True)
class Children:
    """The direct children of a run: how many of each status, and the one that is best at the goal."""

    count: int
    statuses: Mapping[str, int]
    goal: str | None
    best: Run | None

    def phrase(self) -> str:
        """For a person: `41, 7 running`."""
        notable = [status for status in ("RUNNING", "FAILED", "LOST") if self.statuses.get(status)]
        said = [f"{self.statuses[status]} {STATUS_LOOKS[status].word}" for status in notable]
        return ", ".join([f"{self.count:,}", *said])

    def json(self) -> dict[str, object]:
        """`{"count", "statuses", "best": {"run_id", "key", "value"} | null}`."""
        best = None
        if self.best is not None and self.goal is not None:
            value = _best(self.best, self.goal)
            best = {"run_id": self.best.run_id, "key": self.goal, "value": json_number(value)}
        return {"count": self.count, "statuses": dict(self.statuses), "best": best}


def grow(store: Store, runs: Sequence[Run], goal: str | None) -> list[Branch]:
    """The runs in their order, each child under its parent: a family stands where its first member stands.

    A parent that is not among the runs (filtered out, or on another page) is shown too, above its children.
    """
    known = {run.run_id: run for run in runs}
    wanted = {run.parent_id for run in runs if run.parent_id} - set(known)
    while wanted:
        found = store.runs(sorted(wanted))
        known.update({run.run_id: run for run in found})
        wanted = {run.parent_id for run in found if run.parent_id} - set(known)
    below: dict[str, list[str]] = {}
    roots: dict[str, None] = {}
    for run in runs:
        line = [run.run_id]
        while (parent := known[line[-1]].parent_id) in known and parent not in line and len(line) < _DEEPEST:
            line.append(parent)
        roots.setdefault(line[-1])
        for child, parent in zip(line, line[1:], strict=False):
            siblings = below.setdefault(parent, [])
            if child not in siblings:
                siblings.append(child)
    branches: list[Branch] = []

    def add(run_id: str, depth: int, before: str, last: bool) -> None:
        mark = "" if depth == 0 else "└ " if last else "├ "
        children = _children(store, run_id, goal)
        branches.append(Branch(known[run_id], depth, before + mark, children))
        inside = before if depth == 0 else before + ("  " if last else "│ ")
        members = below.get(run_id, [])
        for place, child in enumerate(members):
            add(child, depth + 1, inside, place == len(members) - 1)

    for root in roots:
        add(root, 0, "", True)
    return branches


def with_best_of_children(branch: Branch) -> Run:
    """The run as a table shows it: one that has not logged the goal itself stands for the best of its children."""
    children = branch.children
    if children is None or children.best is None or children.goal is None:
        return branch.run
    if children.goal in branch.run.metrics:
        return branch.run
    metrics = {**branch.run.metrics, children.goal: children.best.metrics[children.goal]}
    return replace(branch.run, metrics=metrics)


def _children(store: Store, run_id: str, goal: str | None) -> Children | None:
    mine = f"parent_id = '{run_id}'"
    count = store.search(mine, limit=1).total
    if not count:
        return None
    totals = {status: store.search(f"{mine} and status = {status}", limit=1).total for status in STATUS_LOOKS}
    best = None
    if goal is not None:
        quoted = goal.replace("`", "``")
        ids = store.search(
            f"{mine} and metrics.`{quoted}` is not null", sort=[f"metrics.`{quoted}`.best"], limit=1
        ).run_ids
        best = next((run for run in store.runs(ids) if goal in run.metrics), None)
    return Children(count, {status: total for status, total in totals.items() if total}, goal, best)


def _best(run: Run, key: str) -> float | None:
    from mltrack.tui.cli.columns import aggregate_of

    return aggregate_of(run.metrics[key], "best")

"""Exact values for files and clipboards, and where a run's files lie."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mltrack.store.records import Run
from mltrack.store.store import Store
from mltrack.tui.cli.columns import Choice, aggregate_of, value_of
from mltrack.tui.cli.run_look import now_ms
from mltrack.tui.draw.times import format_timestamp
from mltrack.tui.worker_calls.files import files_root

# As many runs as one answer may carry at once without filling memory.
_SLICE = 1000
# https://host/path.git, ssh://git@host/path, git@host:path
_REMOTE = re.compile(
    r"(?:https?://|ssh://)?(?:[\w.-]+@)?(?P<host>[\w-]+(?:\.[\w-]+)+)(?::\d+)?[:/](?P<path>[\w./~-]+?)(?:\.git)?/?"
)
_TIMES = ("start", "start_time", "end", "end_time")


def export_runs(store: Store, run_ids: Sequence[str], columns: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """{"headings", "rows"}: the id of each run and the exact value of each column; None where it has none. Floats that JSON
    does not have are texts."""
    shown = [column for column in columns if column["kind"] != "trend"]
    now = now_ms()
    rows: list[list[Any]] = []
    for start in range(0, len(run_ids), _SLICE):
        for run in store.runs(run_ids[start : start + _SLICE]):
            rows.append([run.run_id, *(_plain(_value(run, column, now)) for column in shown)])
    return {"headings": ["run_id", *(_heading(column) for column in shown)], "rows": rows}


def run_folder_of(store: Store, run_id: str) -> str | None:
    """Where the files of a run lie, as far as this machine knows."""
    runs = store.runs([run_id])
    return str(runs[0].folder) if runs and runs[0].folder is not None else None


def place_outside(
    store: Store, run_id: str, column: str = "", path: str = "", web: bool = False
) -> dict[str, str] | None:
    """What can be opened of a run outside of the terminal: {"target": an absolute path or a web address, "what": its name in
    a sentence}. The cell of ``column`` where it holds one, the logged file or folder ``path``, with ``web`` its commit; else
    the run's folder. None where there is none."""
    runs = store.runs([run_id])
    if not runs:
        return None
    run = runs[0]
    kind, _, key = column.partition(":")
    if kind in ("param", "tag"):
        value = (run.params if kind == "param" else run.tags).get(key, "")
        if _is_place(value):
            return {"target": value, "what": key}
    if web and (address := _commit_address(run)):
        return {"target": address, "what": "the commit"}
    if address := store.web_address(run_id, path):
        return {"target": address, "what": "the file" if path else "the run's page"}
    root = files_root(run) if path and ".." not in path.split("/") else None
    if root is not None and os.path.exists(root / path.lstrip("/")):
        return {"target": str(root / path.lstrip("/")), "what": "the file"}
    return {"target": str(run.folder), "what": "the run's folder"} if run.folder is not None else None


CALLS = (export_runs, run_folder_of, place_outside)


def _is_place(value: str) -> bool:
    if any(ord(letter) < 32 for letter in value) or len(value) > 4096:
        return False
    return value.startswith(("http://", "https://")) or (os.path.isabs(value) and os.path.exists(value))


def _commit_address(run: Run) -> str:
    """Where a browser shows the commit, as the hosts of git repositories have agreed; empty where that cannot be known."""
    code = run.facts.get("git")
    if not isinstance(code, Mapping):
        return ""
    remote, commit = str(code.get("remote") or ""), str(code.get("commit") or "")
    found = _REMOTE.fullmatch(remote)
    if found is None or not re.fullmatch(r"[0-9a-f]{7,64}", commit):
        return ""
    return f"https://{found['host']}/{found['path']}/commit/{commit}"


def _heading(column: Mapping[str, Any]) -> str:
    key = str(column["key"])
    if column["kind"] == "step":
        return f"{key} step"
    return key


def _value(run: Run, column: Mapping[str, Any], now: int) -> object:
    kind, key = str(column["kind"]), str(column["key"])
    aggregate = str(column.get("aggregate") or "best")
    if kind in ("metric", "goal", "step"):
        summary = run.metrics.get(key)
        if summary is None:
            return None
        end = str(column.get("direction") or "") if aggregate == "best" else aggregate
        if kind != "step":
            return aggregate_of(summary, end or aggregate)
        best = aggregate_of(summary, end or aggregate)
        return {summary.min: summary.min_step, summary.max: summary.max_step}.get(best, summary.last_step)
    if kind == "attribute" and key == "age":
        return format_timestamp(run.end_ms or run.heard_ms or run.start_ms)
    if kind == "attribute":
        value = value_of(Choice("attribute", key), run, now)
        return format_timestamp(value) if key in _TIMES and isinstance(value, int) else value
    return value_of(Choice("tag" if kind == "tag" else "param", key), run, now)


def _plain(value: object) -> object:
    if isinstance(value, float) and not (float("-inf") < value < float("inf")):
        return str(value)
    return value

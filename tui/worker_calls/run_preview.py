"""A few lines on the run under the cursor of the table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mltrack.projects.jobs import job_folder, read_job
from mltrack.projects.slurm_jobs import look
from mltrack.store.records import Run
from mltrack.store.ssh_address import SCHEME
from mltrack.store.store import Store
from mltrack.tui.cli.columns import derived_mark
from mltrack.tui.cli.run_look import is_slurms, now_ms, status_sentence
from mltrack.tui.draw.glyphs import STATUS_LOOKS
from mltrack.tui.draw.numbers import format_parameter
from mltrack.tui.worker_calls.logs import log_tail
from mltrack.tui.worker_calls.run import progress


def preview(store: Store, run_id: str) -> dict[str, Any]:
    """A few lines on the run under the cursor."""
    runs = store.runs([run_id], ())
    if not runs:
        return {"run_id": run_id, "title": "", "lines": []}
    run, now = runs[0], now_ms()
    code = run.facts.get("git")
    sha = str(code.get("commit", ""))[:8] if isinstance(code, Mapping) else ""
    dirty = " ±" if isinstance(code, Mapping) and code.get("dirty") else ""
    title = [run.name, f"{run.experiment}", f"code {sha}{dirty}" if sha else "", run.user]
    where = _in_slurm(store, run) if is_slurms(run) and run.status in ("RUNNING", "SCHEDULED") else ""
    if where and run.status == "RUNNING":
        title.append(where)
    elif run.status == "RUNNING" and run.pid:
        title.append(f"pid {run.pid} on {run.host}")
    status = status_sentence(run, now)
    if where and run.status == "SCHEDULED":
        status = f"{STATUS_LOOKS['SCHEDULED'].glyph} queued: {where}"
    lines = [[[progress(run, now) or status, ""]]]
    last: dict[str, Any] = {"lines": [], "why": "on its machine; the run's own page reads it there"}
    if not run.source.startswith(SCHEME):  # a cursor that goes over rows is no reason to fetch anything
        last = log_tail(store, run_id, 1)
    shown = last["lines"][-1] if last["lines"] else last["why"]
    lines.append([["log  ", "dim"], [shown, "" if last["lines"] else "dim"]])
    tags = "  ".join(f"{key}={value}" if value else key for key, value in run.tags.items())
    note = f"   note {run.note.splitlines()[0]}" if run.note else ""
    lines.append([["tags ", "dim"], [(tags or "none") + note, ""]])
    params = "  ".join(
        f"{key} {format_parameter(value)}{derived_mark(run, key)}"
        for key, value in list(run.params.items())[:12]
    )
    lines.append([["params ", "dim"], [params or "none recorded", ""]])
    return {"run_id": run_id, "title": "  ".join(part for part in title if part), "lines": lines}


def _in_slurm(store: Store, run: Run) -> str:
    """Where its job is, or why it waits, as far as Slurm was asked: the preview itself asks nobody."""
    job = read_job(job_folder(store.root, run.run_id))
    if job is None or job.ended:
        return ""
    text = str(look([job], ask=False)[0].state.get("text") or "")
    told = run.facts.get("slurm")
    if not text and isinstance(told, Mapping):
        text = f"on {told.get('job_nodelist')} (Slurm job {told.get('job_id')})"
    return text


CALLS = (preview,)

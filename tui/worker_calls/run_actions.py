"""What the table of runs does to runs, beside the decisions of the store: notes, stopping, weighing what would go."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Sequence
from typing import Any

from mltrack.projects.jobs import job_folder, read_job
from mltrack.projects.slurm_jobs import handle_of
from mltrack.store.errors import BadInput
from mltrack.store.records import Run
from mltrack.store.store import Store
from mltrack.tui.cli.process import living_process, process_of, signal_process
from mltrack.tui.cli.trash import size_of
from mltrack.tui.worker_calls.launch import stop_slurm


def note_of(store: Store, run_id: str) -> str:
    """The note of a run."""
    return _run(store, run_id).note


def write_note(store: Store, run_id: str, before: str, text: str) -> Any:
    """Write a note, unless somebody changed it since it was read. Raises Conflict."""
    _run(store, run_id)
    return store.note(run_id, text, before)


def with_children(store: Store, run_ids: Sequence[str]) -> list[str]:
    """These runs and all below them."""
    ids = dict.fromkeys(run_ids)
    waiting = list(run_ids)
    while waiting:
        quoted = ", ".join(f"'{run_id}'" for run_id in waiting if run_id.isalnum())
        below = store.search(f"parent_id in ({quoted})").run_ids if quoted else ()
        waiting = [run_id for run_id in below if run_id not in ids]
        ids.update(dict.fromkeys(waiting))
    return list(ids)


def weigh(store: Store, run_ids: Sequence[str]) -> dict[str, Any]:
    """What deleting these runs means: their children go with them. {"ids", "owners", "bytes", "running"}."""
    runs = store.runs(with_children(store, run_ids), (), ())
    return {
        "ids": [run.run_id for run in runs],
        "owners": sorted({run.user for run in runs if run.user}),
        "bytes": sum(size_of(run, store) for run in runs),
        "running": sum(run.status == "RUNNING" for run in runs),
    }


def stop_target(store: Store, run_id: str) -> dict[str, Any]:
    """What stopping a run would end: {"name", "pid", "started", "what", "user"}; of a job of Slurm, the pid is 0. Raises
    BadInput with the reason where it cannot be stopped from here."""
    run = _run(store, run_id)
    if run.status not in ("RUNNING", "SCHEDULED"):
        raise BadInput(f"{run.name} is not running.")
    job = read_job(job_folder(store.root, run_id))
    number = handle_of(job) if job is not None and job.job.slurm and not job.ended else None
    if number is not None:
        return {
            "name": run.name,
            "pid": 0,
            "started": number,
            "what": f"Slurm job {number}",
            "user": run.user,
        }
    slurm = run.facts.get("slurm")
    if isinstance(slurm, dict) and slurm.get("job_id"):
        raise BadInput(
            f"{run.name} was submitted without mltrack: `mltrack stop {run_id[:12]}` asks Slurm for it."
        )
    header = process_of(run)
    pid, started = living_process(run, header)
    what = f"process {pid} on {header.get('host')}"
    return {"name": run.name, "pid": pid, "started": started, "what": what, "user": run.user}


def stop(store: Store, run_id: str, pid: int, started: str) -> dict[str, str]:
    """Ask the process that was shown to end. It is looked at again: a pid alone is never trusted."""
    target = stop_target(store, run_id)
    if (target["pid"], target["started"]) != (pid, started):
        raise BadInput(f"{target['name']} is another process by now; nothing was stopped.")
    job = read_job(job_folder(store.root, run_id))
    if pid == 0 and job is not None:
        stop_slurm(job)
        return {"sentence": f"Asked Slurm to end {target['name']} (scancel {started})"}
    signal_process(pid, started, signal.SIGTERM)
    return {"sentence": f"Asked process {pid} of {target['name']} to end (SIGTERM)"}


def rerun_target(store: Store, run_id: str) -> dict[str, str]:
    """What running this run again would do: {"name", "command", "code"}. Raises BadInput where it is not known."""
    from mltrack.tui.cli.reproduce import recorded_command

    run = _run(store, run_id)
    git = run.facts.get("git")
    code = git if isinstance(git, dict) else {}
    changed = " with its changes" if code.get("patch") else ""
    return {
        "name": run.name,
        "command": shlex.join(recorded_command(run)),
        "code": f"{str(code.get('commit') or 'no commit')[:10]}{changed}",
    }


def _run(store: Store, run_id: str) -> Run:
    runs = store.runs([run_id], (), ())
    if not runs:
        raise BadInput("The run is not in the store any more.")
    return runs[0]


CALLS = (note_of, write_note, weigh, stop_target, stop, rerun_target)

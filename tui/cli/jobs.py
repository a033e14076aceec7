"""`mltrack jobs`: what is queued, being built, running and done on this machine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mltrack.store.errors import NotFound
from mltrack.tui.clean import clean
from mltrack.tui.cli.exit_codes import ExitCode
from mltrack.tui.cli.output import list_options, warn, write_csv, write_json, write_lines, write_text
from mltrack.tui.cli.session import Session
from mltrack.tui.cli.table import Cell, Column, draw_table
from mltrack.tui.draw.times import format_age

if TYPE_CHECKING:
    from mltrack.projects.jobs import JobState

# Columns of --csv.
_FIELDS = "run_id run_name experiment phase status exit_code reason backend gpu project entry_point created_ms".split()
# So long the list waits for ends that only Slurm knows of to be written down.
_SETTLE_SECONDS = 10.0
_STYLES = {"running": "green", "preparing": "cyan", "queued": "yellow"}


@click.command("jobs")
@click.option("--all", "everything", is_flag=True, help="Also what ended more than a day ago.")
@click.option("--cancel", metavar="RUN", help="Take a job out of the queue, or stop it.")
@list_options
@click.pass_obj
def jobs_command(
    session: Session, everything: bool, cancel: str | None, as_json: bool, as_csv: bool, raw: bool
) -> int:
    """List the jobs of this store; jobs that lost their supervisor are taken up again."""
    from mltrack.projects.jobs import list_jobs, stop_job
    from mltrack.projects.launch import take_up_orphans
    from mltrack.projects.slurm_jobs import look
    from mltrack.store.client.location import choose_store

    root = choose_store(session.where).root
    if take_up_orphans(root):
        time.sleep(1.0)  # they need a moment to say where they stand
    jobs = look(list_jobs(root), _SETTLE_SECONDS)
    if cancel is not None:
        found = [job for job in jobs if job.job.run_id.startswith(cancel) or job.job.run_name == cancel]
        if len(found) != 1:
            raise NotFound(f"{'No job' if not found else 'More than one job'} is called {clean(cancel, 60)}.")
        done = stop_job(found[0])
        write_text(f"{'Stopped' if done else 'Asked to stop'} {found[0].job.run_name}.", session.terminal)
        return ExitCode.OK if done else ExitCode.FAILED
    since = 0 if everything else time.time() * 1000 - 24 * 3600 * 1000
    jobs = [job for job in jobs if not job.ended or int(job.state.get("ended_ms") or 0) >= since]
    if as_json:
        write_json([job_json(job) for job in jobs])
        return ExitCode.OK
    if as_csv:
        rows = ([job_json(job)[name] for name in _FIELDS] for job in jobs)
        write_csv(_FIELDS, rows, raw=raw)
        return ExitCode.OK
    if not jobs:
        warn("no jobs; `mltrack run PROJECT` starts one")
        return ExitCode.OK
    write_lines(draw_table(_columns(jobs), session.terminal))
    return ExitCode.OK


def job_json(job: JobState) -> dict[str, Any]:
    """The stable shape of `--json`."""
    asked = job.job.facts.get("project") or {}
    return {
        "run_id": job.job.run_id,
        "run_name": job.job.run_name,
        "experiment": job.job.experiment,
        "phase": job.phase,
        "status": job.state.get("status"),
        "exit_code": job.state.get("exit_code"),
        "reason": job.state.get("reason") or None,
        "text": job.state.get("text") or None,
        "step": job.state.get("step"),
        "steps": job.state.get("steps"),
        "backend": job.job.backend,
        "gpu": job.job.gpu,
        "scheduler": "slurm" if job.job.slurm else None,
        "slurm": job.state.get("slurm"),
        "project": asked.get("address"),
        "entry_point": asked.get("entry"),
        "parent": job.job.parent,
        "line": job.job.line,
        "watched": job.watched,
        "created_ms": job.job.created_ms,
        "since_ms": job.state.get("since_ms"),
    }


def phase_text(job: JobState) -> str:
    """queued, building 3/9, running, done, failed 1, stopped."""
    if job.phase == "preparing":
        step, steps = job.state.get("step"), job.state.get("steps")
        return f"building {step}/{steps}" if step else "preparing"
    if job.ended:
        status, code = str(job.state.get("status", "")), job.state.get("exit_code")
        words = {"FINISHED": "done", "KILLED": "stopped"}
        return words.get(status, f"failed {code}" if code is not None else "lost")
    return job.phase if job.watched or job.phase == "queued" else f"{job.phase}?"


def _columns(jobs: list[JobState]) -> list[Column]:
    now = time.time() * 1000
    # Why a job of Slurm waits is what one looks for.
    says = 1 if any(job.state.get("slurm") for job in jobs) else 5
    return [
        Column("RUN", [job.job.run_id[:8] for job in jobs], weight=0),
        Column("NAME", [job.job.run_name for job in jobs], weight=0),
        Column("STATE", [Cell(phase_text(job), _STYLES.get(job.phase)) for job in jobs], weight=0),
        Column("BACKEND", [job.job.backend for job in jobs], weight=2),
        Column("GPU", [job.job.gpu for job in jobs], weight=3),
        Column(
            "PROJECT",
            [Path(str((job.job.facts.get("project") or {}).get("address", ""))).name for job in jobs],
            weight=4,
        ),
        Column(
            "AGE",
            [format_age(max(0.0, (now - job.job.created_ms) / 1000)) for job in jobs],
            "right",
            weight=1,
        ),
        Column(
            "SAYS",
            [str(job.state.get("reason") or job.state.get("text") or "") for job in jobs],
            weight=says,
            widest=40 if says > 1 else 72,
            narrowest=18 if says > 1 else 30,
        ),
    ]

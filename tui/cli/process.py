"""`mltrack stop`: the process behind a run."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from mltrack.store.errors import BadInput
from mltrack.tui.clean import clean
from mltrack.tui.cli.exit_codes import ExitCode
from mltrack.tui.cli.output import warn, write_text
from mltrack.tui.cli.session import Session, resolve_run

if TYPE_CHECKING:
    from mltrack.projects.jobs import JobState
    from mltrack.store.records import Run

_LOOK_SECONDS = 0.1
_SLURM_LOOK_SECONDS = 1.0  # each look is a question to the controller


@click.command("stop")
@click.argument("run")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--kill", is_flag=True, help="SIGKILL instead of SIGTERM: the process cannot clean up.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="Wait so long for it to end.",
)
@click.pass_obj
def stop_command(session: Session, run: str, yes: bool, kill: bool, timeout: float) -> int:
    """Stop the process of a run on this machine, or its Slurm job."""
    with session.open() as store:
        found = resolve_run(store, run)
    if found.status not in ("RUNNING", "SCHEDULED"):
        raise BadInput(f"{clean(found.name, 60)} is not running; it is {found.status}.")
    header = process_of(found)
    job = _job_of(session, found)
    if job is not None:
        return _stop_job(session, found, job, yes, kill, timeout)
    slurm = found.facts.get("slurm")
    if isinstance(slurm, Mapping) and slurm.get("job_id"):
        return _stop_slurm(session, found, str(slurm["job_id"]), yes, kill, timeout)
    pid, started = living_process(found, header)
    shown = f"{clean(found.name, 60)}: process {pid} on {header.get('host')}, of {clean(found.user, 40) or 'nobody known'}"
    if not yes and not _confirmed(shown):
        return ExitCode.FAILED
    signal_process(pid, started, signal.SIGKILL if kill else signal.SIGTERM)
    if _wait_for_end(pid, started, timeout):
        write_text(f"Stopped {shown}.", session.terminal)
        return ExitCode.OK
    warn(f"process {pid} did not end within {timeout:g} s; `mltrack stop --kill {found.run_id[:12]}` ends it")
    return ExitCode.FAILED


def _confirmed(shown: str) -> bool:
    if not sys.stdin.isatty():
        raise BadInput("Nobody is there to confirm this; add --yes to mean it.")
    sys.stderr.write(f"Stop {shown}? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _job_of(session: Session, run: Run) -> JobState | None:
    """The job behind a run that mltrack launched, while it goes on: its supervisor ends containers and process groups."""
    if not isinstance(run.facts.get("project"), Mapping):
        return None
    from mltrack.projects.jobs import job_folder, read_job
    from mltrack.store.client.location import choose_store

    found = read_job(job_folder(choose_store(session.where).root, run.run_id))
    if found is None or found.ended:
        return None
    return found if found.watched or found.job.slurm else None


def _stop_job(session: Session, run: Run, job: JobState, yes: bool, kill: bool, timeout: float) -> int:
    from mltrack.projects.jobs import stop_job

    backend = "slurm" if job.job.slurm else job.job.backend
    shown = f"{clean(run.name, 60)}: {backend} job on {clean(run.host, 60)}, of {clean(run.user, 40) or 'nobody known'}"
    if not yes and not _confirmed(shown):
        return ExitCode.FAILED
    if stop_job(job, timeout + 10, kill):
        write_text(f"Stopped {shown}.", session.terminal)
        return ExitCode.OK
    warn(f"the job did not end within {timeout:g} s; `mltrack stop --kill {run.run_id[:12]}` ends it")
    return ExitCode.FAILED


def _stop_slurm(session: Session, run: Run, number: str, yes: bool, kill: bool, timeout: float) -> int:
    """A run in a job that somebody submitted without us: scancel, when the job is theirs who ask."""
    from mltrack.projects.slurm_jobs import cancel
    from mltrack.projects.slurm_queue import cluster_name, is_number, look_up, owner_of

    name = clean(run.name, 60)
    if not is_number(number):
        raise BadInput(
            f"{name} names no number of a Slurm job, but {clean(number, 40)!r}; stop it with scancel."
        )
    if run.folder is None or os.stat(run.folder).st_uid != os.geteuid():
        raise BadInput(f"{name} was written by somebody else; only its owner can stop it.")
    slurm = run.facts.get("slurm")
    cluster = slurm.get("cluster_name") if isinstance(slurm, Mapping) else None
    if cluster and cluster != cluster_name():
        raise BadInput(f"{name} runs on the cluster {clean(str(cluster), 40)}: run `mltrack stop` there.")
    owner, known = owner_of(number), look_up(number)
    if owner is None or known is None or known.ended:
        raise BadInput(f"Slurm job {number} of {name} has ended already.")
    if owner != os.geteuid():
        raise BadInput(f"Slurm job {number} of {name} belongs to somebody else; only its owner can stop it.")
    shown = f"{name}: Slurm job {number}, of {clean(run.user, 40) or 'nobody known'}"
    if not yes and not _confirmed(shown):
        return ExitCode.FAILED
    cancel(number, kill)
    deadline = time.monotonic() + timeout
    while known is not None and not known.ended:
        if time.monotonic() >= deadline:
            warn(f"the job did not end within {timeout:g} s; Slurm kills it when its KillWait is over")
            return ExitCode.FAILED
        time.sleep(_SLURM_LOOK_SECONDS)
        known = look_up(number)
    write_text(f"Stopped {shown}.", session.terminal)
    return ExitCode.OK


def process_of(run: Run) -> Mapping[str, object]:
    """The identity of the process that writes the newest attempt of a run: line 1 of its journal. {} when unknown."""
    from mltrack.store.journal_reader import JournalProblem, read_header

    newest: tuple[str, Mapping[str, object]] = ("", {})
    for path in sorted(run.folder.glob("meta.*.jsonl")) if run.folder is not None else []:
        try:
            name = read_header(path)
        except JournalProblem:
            continue
        if name is not None and name.role == "main" and name.attempt > newest[0]:
            newest = (name.attempt, name.header)
    return newest[1]


def living_process(run: Run, header: Mapping[str, object]) -> tuple[int, str]:
    """(pid, start time) when the process is proven to be the run's and to live here. Never trusts a pid alone."""
    from mltrack.store.client import host

    here = host.identity()
    where = clean(str(header.get("host") or run.host or "an unknown machine"), 60)
    if not header or header.get("boot") != here.get("boot"):
        raise BadInput(f"{clean(run.name, 60)} runs on {where}, not here: run `mltrack stop` there.")
    if header.get("pidns") != here.get("pidns"):
        raise BadInput(
            f"{clean(run.name, 60)} runs in another container on {where}: run `mltrack stop` in it."
        )
    pid, started = header.get("pid"), str(header.get("pstart") or "")
    if not started:
        # A number alone may be anybody's by now.
        raise BadInput(
            f"Nothing says when the process of {clean(run.name, 60)} began, so that it could be another one by now: stop it yourself."
        )
    if not isinstance(pid, int) or not host.is_alive(pid, started):
        raise BadInput(f"The process of {clean(run.name, 60)} is gone already.")
    return pid, started


def signal_process(pid: int, started: str, number: signal.Signals) -> None:
    """Signal exactly this process: a handle on it is taken before its start time is compared."""
    from mltrack.store.client import host

    try:
        if not hasattr(os, "pidfd_open"):
            os.kill(pid, number)
            return
        handle = os.pidfd_open(pid)
        try:
            if host.is_alive(pid, started):
                signal.pidfd_send_signal(handle, number)
        finally:
            os.close(handle)
    except ProcessLookupError:
        return
    except PermissionError:
        raise BadInput(f"Process {pid} belongs to somebody else; only its owner can stop it.") from None


def _wait_for_end(pid: int, started: str, timeout: float) -> bool:
    from mltrack.store.client import host

    deadline = time.monotonic() + timeout
    while host.is_alive(pid, started):
        if time.monotonic() >= deadline:
            return False
        time.sleep(_LOOK_SECONDS)
    return True

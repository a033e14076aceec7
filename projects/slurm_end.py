"""Ends of Slurm's jobs that nobody on a node could write down, from what Slurm says of them. Run as a process of its own:
``python -P -m mltrack.projects.slurm_end ROOT RUN_ID...``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from mltrack.projects.backends.base import Outcome
from mltrack.projects.backends.slurm import Submission
from mltrack.projects.detached import become_quiet, forget_ranks
from mltrack.projects.errors import LaunchError
from mltrack.projects.job import Job
from mltrack.projects.jobs import JobLock, JobState, job_folder, read_job
from mltrack.projects.slurm_jobs import cluster_of, handle_of, is_forsaken, whole_of
from mltrack.projects.slurm_queue import SlurmJob, cluster_name, look_up, read_queue

# So long a process of a node may take to write its end and to let go of its job.
LOCK_SECONDS = 10.0
_TAIL_BYTES = 8192
# Slurm's own exit code for a job whose output file could not be opened on the node (signal 53).
_NO_OUTPUT = 128 + 53
# What slurmstepd writes into the job's output; the state is plainly FAILED where no cgroups are.
_OOM = re.compile(r"slurmstepd.*(exceeded memory limit|oom[-_ ]kill|out of memory)", re.IGNORECASE)
OUT_OF_MEMORY = "out of memory: Slurm killed it"
_WORDS = {
    "TIMEOUT": "over its time limit",
    "DEADLINE": "over its deadline",
    "PREEMPTED": "preempted by Slurm",
    "CANCELLED": "cancelled",
}


def says_out_of_memory(line: str) -> bool:
    """Whether a line of a job's output is Slurm's word that it took too much memory."""
    return _OOM.match(line) is not None


def outcome_of(job: SlurmJob | None) -> Outcome:
    """How a job ended, by Slurm; None: Slurm has forgotten it."""
    if job is None:
        return Outcome(None, "Slurm does not know the job any more, and it left no end", status="FAILED")
    code = job.exit_code
    node = f" ({job.node})" if job.node else ""
    if job.state == "COMPLETED":
        return Outcome(code or 0, "", status="FINISHED")
    if job.state in ("CANCELLED", "PREEMPTED", "REVOKED"):
        return Outcome(None, _WORDS.get(job.state, "taken back by Slurm"), status="KILLED")
    if job.state in ("NODE_FAIL", "BOOT_FAIL"):
        return Outcome(None, f"its node failed{node}", status="FAILED")
    if job.state == "OUT_OF_MEMORY":
        return Outcome(code or 137, OUT_OF_MEMORY, True, "FAILED")
    if code == _NO_OUTPUT:
        return Outcome(
            None,
            f"the store's folder cannot be written on its node{node}: it must be shared",
            status="FAILED",
        )
    reason = _WORDS.get(job.state) or f"ended by Slurm: {job.state}" + (
        f", {job.reason}" if job.reason else ""
    )
    if job.state == "FAILED" and code:
        reason = f"exit code {code}" if code <= 128 else f"signal {code - 128}"
    return Outcome(code, reason, status="FAILED")


def output_file(job: Job, number: str) -> Path:
    """Where Slurm writes what the batch script itself prints, and why it ended it."""
    return (
        job_folder(job.root, job.parent if "task" in job.slurm and job.parent else job.run_id)
        / f"slurm-{number}.out"
    )


def settle(folder: Path) -> None:
    """Write down what became of a job: its end, or that it was requeued. Only what Slurm says now counts."""
    found = read_job(folder)
    if found is None or not found.own:
        return  # what others can write is nothing to act on
    lock = JobLock(folder)
    if not lock.wait(LOCK_SECONDS):
        return  # its process lives
    try:
        found = read_job(folder)
        if found is None or found.ended or not found.own or tasks_of(found):
            return
        queue = read_queue()
        number = handle_of(found, queue)
        if number is None and not is_forsaken(found, queue, by_lock=True):
            return
        try:
            if number and cluster_of(found) not in ("", cluster_name()):
                return  # another cluster's, which these commands know nothing of
            job = look_up(number) if number else None
        except LaunchError:
            return  # whoever looks next tries again
        if job is not None and job.run_id not in ("", whole_of(found)):
            job = None  # numbers begin anew after some millions
        supervisor = Submission(found.job, folder)
        if job is not None and not job.ended:
            started = int((found.state.get("handle") or {}).get("restarts") or 0)
            if found.phase in ("preparing", "running") and job.restarts > started:
                supervisor.resume()
                supervisor.hand_over("requeued by Slurm")
            return
        supervisor.resume()
        said = _tail(output_file(found.job, number)) if number else []
        supervisor.say(said)
        if number is None:
            supervisor.end(Outcome(None, "it never reached Slurm", status="FAILED"))
        elif job is not None and job.state != "COMPLETED" and any(map(says_out_of_memory, said)):
            supervisor.end(Outcome(137, OUT_OF_MEMORY, True, "FAILED"))
        else:
            supervisor.end(outcome_of(job))
    finally:
        lock.close()
    end_sweep_of(found.job)


def _tail(path: Path) -> list[str]:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            return file.read().decode("utf-8", "backslashreplace").splitlines()[-20:]
    except OSError:
        return []


def end_sweep_of(job: Job) -> None:
    """End the sweep that this job was a task of, when it was the last."""
    if "task" in job.slurm and job.parent:
        end_sweep(job_folder(job.root, job.parent))


def end_sweep(folder: Path) -> None:
    """End a sweep whose tasks have all ended."""
    found = read_job(folder)
    if found is None or found.ended or not found.own or not found.job.slurm.get("tasks"):
        return
    if any(not one.ended for one in tasks_of(found)):
        return
    lock = JobLock(folder)
    try:
        if not lock.wait(LOCK_SECONDS):
            return
        found = read_job(folder)
        if found is None or found.ended or not found.own:
            return
        tasks = tasks_of(found)
        if any(not one.ended for one in tasks):
            return
        lost = _ended_unseen(found, {one.job.run_id for one in tasks})
        if lost is None:
            return
        supervisor = Submission(found.job, folder)
        supervisor.resume()
        stopped = [one for one in tasks if one.state.get("status") == "KILLED"]
        well = [*(one.state.get("status") == "FINISHED" for one in tasks), *lost]
        if stopped and len(stopped) == len(well):
            supervisor.end(Outcome(None, "cancelled", status="KILLED"))
        else:
            supervisor.end_sweep(well)
    finally:
        lock.close()


def _ended_unseen(parent: JobState, seen: set[str]) -> list[bool] | None:
    """How the tasks ended whose folders are gone or were never made, by Slurm; None: one of them may go on."""
    unseen = [
        task for task, run_id in enumerate(parent.job.slurm.get("children", ())) if str(run_id) not in seen
    ]
    if not unseen:
        return []
    queue = read_queue()
    number = handle_of(parent, queue)
    ended: list[bool] = []
    for task in unseen:
        if number is None:
            if not is_forsaken(parent, queue, by_lock=True):
                return None
            ended.append(False)
            continue
        try:
            job = look_up(f"{number}_{task}")
        except LaunchError:
            return None  # whoever looks next tries again
        if job is not None and job.run_id in ("", parent.job.run_id) and not job.ended:
            return None
        ended.append(job is not None and job.state == "COMPLETED")
    return ended


def tasks_of(parent: JobState) -> list[JobState]:
    """The jobs of a sweep, the last first: those are the ones that still go on."""
    ids = [str(one) for one in parent.job.slurm.get("children", ())]
    found = (read_job(job_folder(parent.job.root, one)) for one in reversed(ids))
    return [one for one in found if one is not None]


def main() -> None:
    """Settle the named jobs of a store, and end sweeps that are over."""
    forget_ranks()
    root, *ids = sys.argv[1:]
    for run_id in ids:
        folder = job_folder(root, run_id)
        if folder.is_dir():
            become_quiet(folder)
            settle(folder)
            end_sweep(folder)


if __name__ == "__main__":
    main()

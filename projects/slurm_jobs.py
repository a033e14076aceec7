"""Jobs of Slurm as whoever looks sees them: what is written down of them, overlaid with what squeue says now.

Looking asks Slurm only while such a job goes on. A job that Slurm says has ended, and whose node left no end, gets one from a
process of its own (slurm_end.py).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mltrack.projects.errors import LaunchError
from mltrack.projects.jobs import NOT_OWN, JobState, job_folder, read_job
from mltrack.projects.slurm_queue import (
    Queue,
    SlurmJob,
    checked_number,
    cluster_name,
    is_number,
    look_up,
    read_queue,
    run_slurm,
)

HANDLE = "slurm.json"
"""In the job's folder: {"job", "cluster", "time_ms"}, by who submitted; state.json is the node's to write from then on."""
# Between sbatch and the first sight of the job in squeue, and between the last word of a node and its file being seen here.
UNSEEN_SECONDS = 60.0
GRACE_SECONDS = 3.0
# A process settles so many at once: each is a question to Slurm.
SETTLED_AT_ONCE = 20
_LOOK_SECONDS = 0.1

_REASONS = {
    "Resources": "waits until nodes are free",
    "Priority": "others come first",
    "Dependency": "waits for other jobs",
    "BeginTime": "a pause, because it was requeued or is to begin later",
    "JobArrayTaskLimit": "waits for other tasks of the sweep",
    "JobHeldUser": "held by its owner: scontrol release",
    "JobHeldAdmin": "held by an administrator",
    "PartitionTimeLimit": "the partition allows less time",
    "PartitionNodeLimit": "the partition has fewer nodes",
    "ReqNodeNotAvail": "waits for nodes that are down or reserved",
    "BadConstraints": "no node is like that",
}
_settled: dict[str, float] = {}


def handle_of(found: JobState, queue: Queue | None = None) -> str | None:
    """Slurm's name of the job (``17``, ``17_3``); None while it has none."""
    handle = found.state.get("handle")
    if isinstance(handle, dict) and is_number(str(handle.get("slurm"))):
        return str(handle["slurm"])
    task, whole = found.job.slurm.get("task"), whole_of(found)
    number = str(_submitted(job_folder(found.job.root, whole)).get("job") or "")
    if not number and queue is not None:
        known = queue.of_run(whole)
        number = known.job_id.partition("_")[0] if known is not None else ""
    number = number if task is None else f"{number}_{task}"
    return number if is_number(number) else None


def whole_of(found: JobState) -> str:
    """The run that the comment of its job names: itself, or the sweep that it is a task of."""
    return found.job.parent if "task" in found.job.slurm and found.job.parent else found.job.run_id


def cluster_of(found: JobState) -> str:
    """The cluster it was submitted to; "" where that was not written down."""
    return str(_submitted(job_folder(found.job.root, whole_of(found))).get("cluster") or "")


def known_of(found: JobState, number: str, queue: Queue) -> SlurmJob | None:
    """The job in the queue. Two clusters may share a home: a job of the same number that is another run's is not it."""
    known = queue.jobs.get(number)
    return known if known is None or known.run_id in ("", whole_of(found)) else None


def _submitted(folder: Path) -> dict[str, Any]:
    try:
        value = json.loads((folder / HANDLE).read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def is_forsaken(found: JobState, queue: Queue, by_lock: bool = False) -> bool:
    """Whether nobody submits a job any more that Slurm did not have when it was asked. ``by_lock``: who asks holds the job's
    lock, so that it is no sign of a submitter."""
    if queue.problem or not queue.time_s:
        return False
    whole = read_job(job_folder(found.job.root, whole_of(found))) or found
    silent = queue.time_s - int(found.state.get("since_ms") or 0) / 1000
    submitting = whole.watched and not (by_lock and whole.job.run_id == found.job.run_id)
    return not submitting and silent > UNSEEN_SECONDS


def look(jobs: Sequence[JobState], wait: float = 0.0, ask: bool = True) -> list[JobState]:
    """The jobs, those of Slurm as they stand there. ``wait``: so long for ends that have to be written down first; ``ask``
    False: by what is known already, and nothing is written down."""
    known = with_sweeps(jobs) if ask else list(jobs)
    if not any(job.job.slurm and not job.ended for job in known):
        return list(jobs)
    queue = read_queue(ask)
    if not ask:
        return list(_overlaid(jobs, queue))
    over = {id(job) for job in _over(known, queue)}
    if over:
        _settle([job for job in known if id(job) in over], wait)
    found = [(read_job(job.folder) or job) if id(job) in over else job for job in known]
    return list(_overlaid(found, queue))[: len(jobs)]


def with_sweeps(jobs: Sequence[JobState]) -> list[JobState]:
    """The jobs, and after them what else belongs to their sweeps that go on: a list of the newest may end within one."""
    ids = {job.job.run_id for job in jobs}
    lists = [*jobs]
    for root, whole in {(job.job.root, whole_of(job)) for job in jobs if job.job.slurm}:
        parent = read_job(job_folder(root, whole)) if whole not in ids else None
        if parent is not None and not parent.ended:
            lists.append(parent)
    ids.update(job.job.run_id for job in lists)
    for parent in [job for job in lists if job.job.slurm.get("tasks") and not job.ended]:
        missing = [str(one) for one in parent.job.slurm.get("children", ()) if str(one) not in ids]
        found = (read_job(job_folder(parent.job.root, one)) for one in missing)
        lists += [one for one in found if one is not None]
    return lists


def look_for(root: Path, run_ids: Iterable[str]) -> None:
    """For whoever waits for these runs: let ends be written down that only Slurm knows of."""
    look([job for job in (read_job(job_folder(root, one)) for one in run_ids) if job is not None])


def _over(jobs: Sequence[JobState], queue: Queue) -> list[JobState]:
    own = [job for job in jobs if job.own and job.job.slurm and not job.ended]  # nothing is done about others
    over = [job for job in own if _is_over(job, queue)]
    # A sweep ends with its last task; where that could not end it, because others left nothing, somebody else has to.
    alive = {job.run_id for job in queue.jobs.values() if not job.ended}
    alive |= {whole_of(job) for job in jobs if "task" in job.job.slurm and not job.ended}
    for job in own:
        if not job.job.slurm.get("tasks") or not queue.time_s or queue.problem or job in over:
            continue
        since = queue.time_s - int(job.state.get("since_ms") or 0) / 1000
        if since > UNSEEN_SECONDS and job.job.run_id not in alive and handle_of(job, queue) is not None:
            over.append(job)
    return over


def _is_over(found: JobState, queue: Queue) -> bool:
    """Whether Slurm says that the job does not go on as it is written down."""
    if queue.problem or not queue.time_s:
        return False
    number = handle_of(found, queue)
    if found.job.slurm.get("tasks") and number is not None:
        return False  # it ends with the last of its tasks
    if number is None:
        return is_forsaken(found, queue)
    known = known_of(found, number, queue)
    if known is None:
        return queue.time_s - int(found.state.get("since_ms") or 0) / 1000 > UNSEEN_SECONDS
    if known.ended:
        return time.time() - known.ended_s > GRACE_SECONDS
    handle = found.state.get("handle")
    started = int(handle.get("restarts") or 0) if isinstance(handle, dict) else 0
    return known.state == "PENDING" and found.phase in ("preparing", "running") and known.restarts > started


def _settle(over: list[JobState], wait: float) -> None:
    now = time.monotonic()
    due = [job for job in over if now - _settled.get(job.job.run_id, -1e9) > GRACE_SECONDS * 2]
    due = due[:SETTLED_AT_ONCE]
    for job in due:
        _settled[job.job.run_id] = now
    if due:
        settle_now(due[0].job.root, [job.job.run_id for job in due], wait)


def settle_now(root: str, run_ids: Iterable[str], wait: float) -> None:
    """Let a process write down what Slurm says of these jobs, and wait for it so long."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "mltrack.projects.slurm_end", root, *run_ids],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    if wait:
        try:
            process.wait(wait)
        except subprocess.TimeoutExpired:
            return


# -- what Slurm says now, laid over


def _overlaid(jobs: Sequence[JobState], queue: Queue) -> Iterator[JobState]:
    tasks: dict[str, list[JobState]] = {}
    shown: list[JobState] = []
    for job in jobs:
        one = _with_queue(job, queue) if job.job.slurm and not job.ended else job
        shown.append(one)
        if "task" in one.job.slurm and one.job.parent:
            tasks.setdefault(one.job.parent, []).append(one)
    for one in shown:
        if one.job.slurm.get("tasks") and not one.ended:
            yield _with_tasks(one, tasks.get(one.job.run_id, []))
        else:
            yield one


def _with_queue(found: JobState, queue: Queue) -> JobState:
    if found.job.slurm.get("tasks"):
        return replace(found, watched=True)
    number = handle_of(found, queue)
    if number is None:
        return found if found.watched else replace(found, watched=not is_forsaken(found, queue))
    known = known_of(found, number, queue)
    phase, text = found.phase, str(found.state.get("text") or "")
    if known is None:
        if phase == "queued":
            text = queue.problem or f"submitted (Slurm job {number})"
    elif known.state == "PENDING":
        phase, text = "queued", pending_text(known)
    elif not known.ended:
        phase = "running" if phase == "queued" else phase
        text = text if phase == "preparing" else running_text(known)
    slurm = {
        "job": number,
        "state": known.state if known else None,
        "reason": known.reason or None if known else None,
        "node": known.node or None if known else None,
        "restarts": known.restarts if known else None,
    }
    return replace(found, phase=phase, watched=True, state={**found.state, "text": text, "slurm": slurm})


def pending_text(job: SlurmJob) -> str:
    """Why a job waits: Slurm's own word, and what it means."""
    word = job.reason.partition(",")[0]
    meaning = f": {_REASONS[word]}" if word in _REASONS else ""
    again = f", requeued {job.restarts}x" if job.restarts else ""
    return f"{job.reason or 'waits to be looked at'}{meaning} (Slurm job {job.job_id}{again})"


def running_text(job: SlurmJob) -> str:
    """Where a job runs."""
    again = f", start {job.restarts + 1}" if job.restarts else ""
    state = "" if job.state == "RUNNING" else f", {job.state.lower()}"
    return f"on {job.node or 'its node'}{again}{state} (Slurm job {job.job_id})"


def _with_tasks(parent: JobState, tasks: list[JobState]) -> JobState:
    count = int(parent.job.slurm["tasks"])
    ended = sum(task.ended for task in tasks)
    running = sum(task.phase in ("running", "preparing") for task in tasks)
    if not tasks:
        return parent
    text = f"{ended} of {count} ended, {running} running"
    number = handle_of(parent)
    phase = "running" if ended or running else "queued"
    return replace(
        parent,
        phase=phase,
        state={**parent.state, "text": f"{text} (Slurm job {number})" if number else text},
    )


# -- being stopped


def stop_by_slurm(found: JobState, seconds: float, kill: bool) -> bool:
    """scancel, and wait until the end is written down; True when it is. Raises LaunchError."""
    number = handle_of(found, read_queue(ask=False))
    assert number is not None
    if not found.own:
        raise LaunchError(NOT_OWN)
    cluster = cluster_of(found)
    if cluster not in ("", cluster_name()):
        raise LaunchError(f"The job was submitted to the cluster {cluster}; stop it there.")
    known = look_up(number)
    # Numbers begin anew after some millions, and what the folder says may be old: another job is not ours to end.
    if known is None or known.run_id in ("", whole_of(found)):
        cancel(number, kill)
    deadline, ask = time.monotonic() + seconds, 0.0
    while True:
        again = read_job(found.folder)
        if again is None or again.ended:
            return True
        if time.monotonic() >= ask:
            # Asked for by hand, and for this job alone: a waiting one is over at once, and no node will say so.
            known = None if found.job.slurm.get("tasks") else look_up(number)
            if known is None or known.ended or known.run_id not in ("", whole_of(found)):
                going = [found.job.run_id, *found.job.slurm.get("children", ())]
                settle_now(found.job.root, going, max(seconds, 1.0))
            ask = time.monotonic() + 1.0
        elif time.monotonic() >= deadline:
            return False
        time.sleep(_LOOK_SECONDS)


def cancel(number: str, kill: bool = False) -> None:
    """Ask Slurm to end a job: SIGTERM, and SIGKILL after the cluster's KillWait, or at once. Raises LaunchError."""
    checked_number(number)
    if kill:
        try:
            run_slurm(["scancel", "--signal=KILL", "--full", number])
        except LaunchError:
            pass  # it waits, or has just ended: the next call says
    try:
        run_slurm(["scancel", number])
    except LaunchError as error:
        if "Invalid job id" not in error.message and "already" not in error.message:
            raise

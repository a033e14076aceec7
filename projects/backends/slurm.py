"""A job of Slurm: the run is made and its environment prepared here, then sbatch has it, and nobody of us needs to stay.

On the node our own process (slurm_node.py) goes on with the run. What that cannot write down, because it was killed with its
node or never started, whoever looks at the jobs later proves from what Slurm says (slurm_jobs.py, slurm_end.py).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mltrack.projects.backends.base import Report
from mltrack.projects.detached import answer, become_quiet
from mltrack.projects.errors import LaunchError
from mltrack.projects.job import Job
from mltrack.projects.jobs import JobLock, create_job, forget_old, job_folder, write_json
from mltrack.projects.sbatch import output_pattern, public_settings, render_script, submit_environment
from mltrack.projects.slurm_jobs import HANDLE
from mltrack.projects.slurm_queue import SlurmSilent, cluster_name, is_number, run_slurm
from mltrack.projects.supervise import Supervisor
from mltrack.store.client.journal import now_ms
from mltrack.store.errors import MltrackError


def inner_job(job: Job) -> Job:
    """The job as its node sees it: what it runs in there; GPUs are given by Slurm."""
    inside = "venv" if job.slurm.get("inside") == "venv" else "local"
    return replace(job, backend=inside, gpu="none", waits=False)


class Submission(Supervisor):
    """The supervisor of a job until Slurm has it."""

    def __init__(self, job: Job, folder: Path) -> None:
        super().__init__(inner_job(job), folder)

    def prepare(self) -> None:
        """Make the environment here, because nodes may reach no package index. Raises LaunchError."""
        if self.job.backend != "venv":
            return
        try:
            facts = self.backend.prepare(Report(self._say, self._output, self._step, self._handle))
            if self._run is not None:
                self._run.record("facts", v={"environment": facts})
        finally:
            self.backend.close()

    def fail(self, error: Exception) -> None:
        """The end of a run that never reached Slurm."""
        self.end(self._failed(error))


def submit(parent: Job, children: Sequence[Job], at_once: int) -> None:
    """In a process of its own: make the run, answer, prepare, make the runs of a sweep, submit all of it as one job."""
    folder = create_job(parent)
    lock = JobLock(folder)
    lock.take()
    whole = Submission(parent, folder)
    whole.listen()
    whole.begin()
    answer(run_id=parent.run_id, folder=str(folder), children=[child.run_id for child in children])
    become_quiet(folder)
    try:
        whole.prepare()
        if whole.stopped:
            raise LaunchError("It was stopped before Slurm had it.")
    except (MltrackError, OSError) as error:
        whole.fail(error)
        return
    whole.say([f"submits to Slurm: {public_settings(parent.slurm['settings'])}"])
    # The job may start before sbatch has answered: what we write of it stands before that.
    whole.hand_over("is being submitted to Slurm", "RUNNING" if children else "SCHEDULED")
    tasks = [Submission(child, create_job(child)) for child in children]
    for task in tasks:
        task.begin()
        task.hand_over("waits in Slurm's queue")
    try:
        number = _sbatch(parent, children, at_once)
    except SlurmSilent:
        return  # it may have the job all the same: its comment tells whoever looks
    except (MltrackError, OSError) as error:
        for one in (*tasks, whole):
            one.resume("preparing")
            one.fail(error)
        return
    handle = {"job": number, "cluster": "", "time_ms": now_ms()}
    write_json(folder / HANDLE, handle)
    try:
        write_json(folder / HANDLE, {**handle, "cluster": cluster_name()})
    except LaunchError:
        pass  # it is submitted all the same
    if whole.stopped:
        run_slurm(["scancel", number])
    forget_old(parent.root)


def _sbatch(parent: Job, children: Sequence[Job], at_once: int) -> str:
    """Slurm's number of the job. Raises LaunchError with what sbatch said."""
    settings = {str(key): str(value) for key, value in dict(parent.slurm["settings"]).items()}
    environment = submit_environment(parent.environment, settings)
    given = [_with_own(job, environment) for job in (children or [parent])]
    # What all tasks have in common stands there once: scripts have a size limit.
    tasks = [{key: value for key, value in one.items() if value != given[0][key]} for one in given]
    script = render_script(
        run_id=parent.run_id,
        name=parent.run_name,
        settings=settings,
        folder=parent.folder,
        output=output_pattern(
            str(job_folder(parent.root, parent.run_id)), "slurm-%A_%a.out" if children else "slurm-%j.out"
        ),
        python=sys.executable,
        payload=json.dumps({"job": given[0], "tasks": tasks}, separators=(",", ":")),
        tasks=len(children),
        at_once=at_once,
    )
    said = run_slurm(["sbatch", "--parsable"], script, environment)
    # Sites put a script of theirs in front, which may say something first.
    number = (said.strip().splitlines() or [""])[-1].strip().partition(";")[0]
    if not is_number(number):
        raise SlurmSilent(f"sbatch did not say a job's number, but: {said.strip()[:200]}")
    return number


def _with_own(job: Job, environment: dict[str, str]) -> dict[str, Any]:
    """The job with those variables only that sbatch does not pass on anyway."""
    own = {name: value for name, value in job.environment.items() if environment.get(name) != value}
    kept = {name: value for name, value in own.items() if not name.startswith(("SLURM_", "SBATCH_", "CUDA_"))}
    return {**asdict(job), "environment": kept}

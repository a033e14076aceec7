"""On the node: the parent of one job of Slurm, which goes on with the run that was made when it was submitted.

The batch script starts it with the job on its standard input. Each start of the script is a new start of the same run, so a
job that is requeued goes on where it was.
"""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from mltrack.projects.backends.base import Outcome
from mltrack.projects.backends.slurm import inner_job
from mltrack.projects.detached import forget_ranks
from mltrack.projects.errors import LaunchError
from mltrack.projects.identity import client_folder, package_places, with_client
from mltrack.projects.job import Job, job_from
from mltrack.projects.jobs import JobLock, job_folder, read_job
from mltrack.projects.sbatch import container_command
from mltrack.projects.slurm_end import OUT_OF_MEMORY, end_sweep_of, output_file, says_out_of_memory
from mltrack.projects.slurm_queue import look_up
from mltrack.projects.supervise import Supervisor

# How long whoever submitted us, or looks at us, may hold the job's lock.
LOCK_SECONDS = 30.0
_DUE_TO = re.compile(r"\*\*\* (?:JOB|STEP) \S+ ON \S+ CANCELLED AT \S+(?: DUE TO ([A-Z ]+?))? \*\*\*")


class NodeSupervisor(Supervisor):
    """The supervisor of a job on its node. Slurm's own words say why it was ended."""

    def __init__(self, job: Job, folder: Path, number: str) -> None:
        super().__init__(_contained(inner_job(job)), folder)
        self.number = number
        self.restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0") or 0)
        self._output_file = output_file(job, number)
        self._output_before = _size(self._output_file)

    def begin_again(self) -> None:
        """A start of the run that is there already."""
        node = os.environ.get("SLURMD_NODENAME") or os.uname().nodename
        self.resume("preparing", text=f"starts on {node}", handle=self._named({}))
        again = f", start {self.restarts + 1}" if self.restarts else ""
        self._say(f"Slurm job {self.number} on {node}{again}")

    def _handle(self, handle: dict[str, Any]) -> None:
        super()._handle(self._named(handle))

    def _named(self, handle: dict[str, Any]) -> dict[str, Any]:
        return {**handle, "slurm": self.number, "restarts": self.restarts}

    def verdict(self, outcome: Outcome, last: tuple[str, ...]) -> tuple[str, str]:
        said = self._said_by_slurm()
        found = _DUE_TO.search(said)
        if found is None:
            if outcome.exit_code == 137 and any(map(says_out_of_memory, said.splitlines())):
                return "FAILED", OUT_OF_MEMORY
            return super().verdict(outcome, last)
        due = found[1] or ""
        if due == "TIME LIMIT":
            return "FAILED", "over its time limit"
        if due in ("JOB REQUEUE", "NODE FAILURE") or (due == "PREEMPTION" and self._will_restart()):
            return "SCHEDULED", f"requeued by Slurm ({due.lower()})"
        return "KILLED", "preempted by Slurm" if due == "PREEMPTION" else "cancelled"

    def _said_by_slurm(self) -> str:
        """What its daemon wrote into the script's output in this start: why it ends the job, before it sends the signal."""
        try:
            with open(self._output_file, "rb") as file:
                file.seek(self._output_before)
                return file.read(1 << 20).decode("utf-8", "backslashreplace")
        except OSError:
            return ""

    def _will_restart(self) -> bool:
        try:
            found = look_up(self.number)
        except LaunchError:
            return True  # who looks later proves the end, if it was one
        return found is None or found.restarts > self.restarts


def _contained(job: Job) -> Job:
    """The job with its command inside of the image that was asked for."""
    tool, image = str(job.slurm.get("inside", "")), str(job.slurm.get("image", ""))
    if not image or tool in ("venv", "local"):
        return job
    init, store = package_places()
    binds = [job.root, job.folder, str(client_folder()), str(init.parent), str(store)]
    gpus = bool(os.environ.get("SLURM_JOB_GPUS"))
    return replace(
        job, command=container_command(tool, image, job.command, job.folder, list(dict.fromkeys(binds)), gpus)
    )


def _size(path: Path) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


def main() -> int:
    """Read the job, do it, exit with its code: Slurm's own record then says the same as ours."""
    outside = dict(os.environ)
    forget_ranks()
    given = json.load(sys.stdin)
    task = outside.get("SLURM_ARRAY_TASK_ID", "")
    array = outside.get("SLURM_ARRAY_JOB_ID", "")
    number = f"{array}_{task}" if task else outside["SLURM_JOB_ID"]
    table = {**given["job"], **given["tasks"][int(task or 0)]}
    job = job_from(table)
    environment = {**outside, **job.environment}
    client = str(client_folder())
    if client not in environment.get("PYTHONPATH", "").split(os.pathsep):
        environment["PYTHONPATH"] = with_client(environment.get("PYTHONPATH"), client)
    folder = job_folder(job.root, job.run_id)
    if not folder.is_dir():
        sys.stderr.write(
            f"mltrack: the store {job.root} is not to be seen on {os.uname().nodename}; it must be shared\n"
        )
        return 1
    lock = JobLock(folder)
    lock.wait(LOCK_SECONDS)
    supervisor = NodeSupervisor(replace(job, environment=environment), folder, number)
    supervisor.listen()
    supervisor.begin_again()
    supervisor.work()
    lock.close()
    end_sweep_of(job)
    ended = read_job(folder)
    code = ended.state.get("exit_code") if ended is not None else None
    if isinstance(code, int):
        return code
    return 0 if ended is not None and ended.state.get("status") == "FINISHED" else 1


if __name__ == "__main__":
    sys.exit(main())

"""What Slurm says of this user's jobs: squeue at most every half minute for all processes of the user together, and
scontrol and sacct for a job that squeue does not name any more."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mltrack.projects.errors import LaunchError
from mltrack.projects.sbatch import run_of, slurm_environment
from mltrack.store.client.journal import random_hex
from mltrack.store.filesystem import cache_folder

# A controller serves thousands: so often it is asked, however many of us watch. Sites may set more (or, to test, less).
ASK_SECONDS = 30.0
_COMMAND_SECONDS = 20.0
_ALIVE: tuple[str, ...] = (
    "PENDING",
    "RUNNING",
    "SUSPENDED",
    "COMPLETING",
    "CONFIGURING",
    "REQUEUED",
    "REQUEUE_HOLD",
    "REQUEUE_FED",
)
_ALIVE += ("RESIZING", "SIGNALING", "STAGE_OUT", "STOPPED", "SPECIAL_EXIT", "POWER_UP_NODE", "RESV_DEL_HOLD")
_FORMAT = "%A|%F|%K|%T|%e|%N|%k|%r"


# Where the cluster's name stands, unless SLURM_CONF says where.
_CONFIGURATIONS = ("/etc/slurm/slurm.conf", "/run/slurm/conf/slurm.conf", "/etc/slurm-llnl/slurm.conf")
# What this process learned last: whoever cannot write the file below does not ask more often for that.
_learned: dict[str, Queue] = {}
_asking = threading.Lock()


class SlurmSilent(LaunchError):
    """Slurm did not answer: what was asked for may have happened all the same."""


@dataclass(frozen=True, slots=True)
class SlurmJob:
    """A job or one task of an array (``17_3``). ``exit_code`` as a shell gives it; None where it was not said."""

    job_id: str
    state: str
    reason: str = ""
    node: str = ""
    exit_code: int | None = None
    restarts: int = 0
    ended_s: int = 0
    run_id: str = ""  # of its comment: the run, or the sweep that it is a task of

    @property
    def ended(self) -> bool:
        """Nothing of it runs any more, and it will not start again by itself."""
        return self.state not in _ALIVE


@dataclass(frozen=True, slots=True)
class Queue:
    """The jobs of this user at a moment. ``problem``: a sentence when Slurm did not answer."""

    jobs: dict[str, SlurmJob]
    time_s: float = 0.0
    problem: str = ""

    def of_run(self, run_id: str) -> SlurmJob | None:
        """The newest job that names this run in its comment."""
        found = [job for job in self.jobs.values() if job.run_id == run_id]
        return max(found, key=lambda job: int(job.job_id.partition("_")[0]), default=None)


def ask_seconds() -> float:
    """How far apart two questions to Slurm are at least."""
    try:
        return max(0.2, float(os.environ.get("MLTRACK_SLURM_SECONDS", "") or ASK_SECONDS))
    except ValueError:
        return ASK_SECONDS


def run_slurm(
    command: list[str], text: str | None = None, environment: Mapping[str, str] | None = None
) -> str:
    """The output of one of Slurm's commands. Raises LaunchError with what it said."""
    try:
        done = subprocess.run(
            command,
            input=text or "",  # none of them waits for what a person types
            env=slurm_environment(os.environ if environment is None else environment),
            capture_output=True,
            text=True,
            errors="backslashreplace",
            timeout=_COMMAND_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        raise LaunchError(
            f"{command[0]} is not on this machine: jobs are submitted where Slurm's commands are."
        ) from None
    except subprocess.TimeoutExpired:
        raise SlurmSilent(f"{command[0]} did not answer within {_COMMAND_SECONDS:g} s.") from None
    except OSError as error:
        raise LaunchError(f"{command[0]} cannot be run ({error.strerror}).") from None
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split())[:300]
        silent = any(word in said for word in ("timed out", "Unable to contact", "Connection refused"))
        raise (SlurmSilent if silent else LaunchError)(
            f"{command[0]}: {said or f'exit code {done.returncode}'}"
        )
    return done.stdout


# -- the queue, once for everybody


def read_queue(ask: bool = True) -> Queue:
    """What squeue said last; asks it again when that is old enough and nobody else does. ``ask`` False: only what is known."""
    configuration = os.environ.get("SLURM_CONF", "")
    name = hashlib.sha256(f"{configuration}\n{_cluster_here(configuration)}".encode()).hexdigest()[:12]
    path = cache_folder() / "slurm" / f"queue-{name}.json"
    known = _known(path)
    if not ask or _fresh(known) or not _asking.acquire(blocking=False):
        return known
    lock = -1
    try:
        # Without a lock (a full quota, a filesystem that has none) each process asks for itself, as seldom.
        with suppress(OSError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return known  # somebody is asking: what they learn is there the next time
        known = _known(path)
        if _fresh(known):
            return known
        queue = ask_queue()
        if queue.problem:
            queue = Queue(known.jobs, queue.time_s, queue.problem)
        _learned[str(path)] = queue
        _write(path, queue)
        return queue
    finally:
        if lock >= 0:
            os.close(lock)
        _asking.release()


@cache
def _cluster_here(configuration: str) -> str:
    """The cluster that a configuration file names, else this machine: clusters may share a home, and with it our cache."""
    for path in (configuration,) if configuration else _CONFIGURATIONS:
        with suppress(OSError):
            text = Path(path).read_text("utf-8", "replace")
            found = re.search(r"^\s*ClusterName\s*=\s*(\S+)", text, re.MULTILINE | re.IGNORECASE)
            if found:
                return found[1]
    return os.uname().nodename


def _write(path: Path, queue: Queue) -> None:
    jobs = [asdict(job) for job in queue.jobs.values()]
    temporary = path.with_name(f".{random_hex(8)}.part")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            json.dump({"time": queue.time_s, "problem": queue.problem, "jobs": jobs}, file)
        os.replace(temporary, path)
    except OSError:
        with suppress(OSError):
            os.unlink(temporary)


def is_fresh() -> bool:
    """Whether what is known of the queue is too new to ask again."""
    return _fresh(read_queue(ask=False))


def _fresh(queue: Queue) -> bool:
    return 0 <= time.time() - queue.time_s < ask_seconds()


def _known(path: Path) -> Queue:
    """The newer of what this process and what any process of the user learned."""
    learned = _learned.get(str(path), Queue({}))
    try:
        value = json.loads(path.read_bytes())
        jobs = [SlurmJob(**job) for job in value["jobs"]]
        written = Queue({job.job_id: job for job in jobs}, float(value["time"]), str(value["problem"]))
    except (OSError, ValueError, TypeError, KeyError):
        return learned
    return learned if learned.time_s > written.time_s else written


def ask_queue() -> Queue:
    """Ask squeue now, in JSON where it knows that."""
    now = time.time()
    base = ["squeue", "--me", "--states=all", "--array"]
    try:
        said = run_slurm([*base, "--json"])
        found = parse_json(said, os.geteuid())
    except (LaunchError, ValueError, TypeError, KeyError, AttributeError):
        try:
            found = parse_text(run_slurm([*base, "--noheader", f"--format={_FORMAT}"]))
        except LaunchError as error:
            return Queue({}, now, error.message)
    return Queue({job.job_id: job for job in found}, now)


def parse_json(text: str, uid: int) -> list[SlurmJob]:
    """The jobs of user ``uid`` in the output of ``squeue --json``, which of some versions names everybody's."""
    found: list[SlurmJob] = []
    for job in json.loads(text)["jobs"]:
        if "user_id" in job and _number(job["user_id"]) not in (uid, None):
            continue
        state = job["job_state"]
        states = [str(one).upper() for one in (state if isinstance(state, list) else [state])]
        array, task = _number(job.get("array_job_id")), _number(job.get("array_task_id"))
        tasks = [task] if task is not None else _tasks(str(job.get("array_task_string") or ""))
        for one in tasks if array else [None]:
            found.append(
                SlurmJob(
                    job_id=f"{array}_{one}" if array and one is not None else str(_number(job["job_id"])),
                    state=_base(states),
                    reason=_said(job.get("state_reason")),
                    node=str(job.get("nodes") or ""),
                    exit_code=_exit_code(job.get("exit_code")),
                    restarts=_number(job.get("restart_cnt")) or 0,
                    ended_s=_number(job.get("end_time")) or 0,
                    run_id=run_of(str(job.get("comment") or "")),
                )
            )
    return found


def _base(states: list[str]) -> str:
    """Newer versions give the state with its flags: a job that is requeued is pending, one that completes still goes on."""
    for flag in ("REQUEUED", "REQUEUE_HOLD", "COMPLETING"):
        if flag in states and len(states) > 1:
            return flag
    return states[0] if states else ""


def _number(value: Any) -> int | None:
    """A number as 22.05 writes it, or as later versions do: {"set": true, "infinite": false, "number": 5}."""
    if isinstance(value, dict):
        return int(value["number"]) if value.get("set") else None
    return None if value is None else int(value)


def _said(reason: object) -> str:
    return "" if reason in (None, "None", "(null)") else str(reason)


def _exit_code(value: Any) -> int | None:
    if isinstance(value, dict) and "return_code" in value:
        signal = value.get("signal") or {}
        number = _number(signal.get("signal_id", signal.get("id")))
        return 128 + number if number else _number(value["return_code"])
    status = _number(value)
    if status is None:
        return None
    return 128 + (status & 0x7F) if status & 0x7F else (status >> 8) & 0xFF


def _tasks(text: str) -> list[int]:
    """The waiting tasks of an array: ``0,3-5%2``."""
    found: list[int] = []
    for part in text.partition("%")[0].split(","):
        first, dash, last = part.partition("-")
        if first.isdigit() and (not dash or last.isdigit()):
            found += range(int(first), int(last if dash else first) + 1)
    return found


def parse_text(text: str) -> list[SlurmJob]:
    """The output of ``squeue --format``."""
    found: list[SlurmJob] = []
    for line in text.splitlines():
        fields = line.split("|", 7)
        if len(fields) != 8:
            continue
        job, array, task, state, ended, nodes, comment, reason = fields
        tasks: list[int | None] = [int(task)] if task.isdigit() else [*_tasks(task)] or [None]
        for one in tasks:
            name = job if one is None else f"{array}_{one}"
            found.append(
                SlurmJob(name, state, _said(reason), nodes, ended_s=_moment(ended), run_id=run_of(comment))
            )
    return found


def _moment(text: str) -> int:
    try:
        return int(time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S")))
    except ValueError:
        return 0


# -- one job


def is_number(text: str) -> bool:
    """Whether it is a job's number or a task's (``17``, ``17_3``), and no option for one of Slurm's commands."""
    return re.fullmatch(r"[0-9]+(_[0-9]+)?", text) is not None


def checked_number(text: str) -> str:
    """A number that was read from somewhere. Raises LaunchError."""
    if not is_number(text):
        raise LaunchError(f"{text[:40]!r} is no number of a Slurm job.")
    return text


def look_up(job_id: str) -> SlurmJob | None:
    """A job by what scontrol, else sacct, knows; None when Slurm has forgotten it. Raises LaunchError: no answer."""
    checked_number(job_id)
    try:
        found = parse_record(run_slurm(["scontrol", "--oneliner", "show", "job", job_id]), job_id)
        if found is not None:
            return found
    except LaunchError as error:
        if "Invalid job id" not in error.message:
            raise
    if shutil.which("sacct") is None:
        return None
    command = ["sacct", "--allocations", "--parsable2", "--noheader", "--jobs", job_id]
    try:
        said = run_slurm([*command, "--format=State,ExitCode,NodeList,End"])
    except LaunchError as error:
        if "disabled" in error.message:
            return None  # a cluster without accounting has no other memory
        raise
    for line in said.splitlines():
        fields = line.split("|")
        if len(fields) == 4:
            return SlurmJob(
                job_id,
                fields[0].split(" ")[0],
                node=fields[2],
                exit_code=_pair(fields[1]),
                ended_s=_moment(fields[3]),
            )
    return None


def parse_record(text: str, job_id: str) -> SlurmJob | None:
    """A line of ``scontrol --oneliner show job``."""
    line = next((line for line in text.splitlines() if line.startswith("JobId=")), "")
    fields = dict(re.findall(r"(?:^|\s)([A-Za-z/]+)=(\S*)", line))
    if "JobState" not in fields:
        return None
    return SlurmJob(
        job_id,
        fields["JobState"],
        _said(fields.get("Reason")),
        fields.get("NodeList", "").replace("(null)", ""),
        _pair(fields.get("ExitCode", "")),
        int(fields.get("Restarts", "0") or 0),
        _moment(fields.get("EndTime", "")),
        run_of(fields.get("Comment", "")),
    )


def cluster_name() -> str:
    """The cluster whose commands these are. Raises LaunchError."""
    found = re.search(r"^ClusterName\s*=\s*(\S+)", run_slurm(["scontrol", "show", "config"]), re.MULTILINE)
    return found[1] if found else ""


def owner_of(job_id: str) -> int | None:
    """The number of the user whose job it is; None when Slurm does not know the job. Raises LaunchError."""
    checked_number(job_id)
    try:
        said = run_slurm(["scontrol", "--oneliner", "show", "job", job_id])
    except LaunchError as error:
        if "Invalid job id" in error.message:
            return None
        raise
    # A job's name may hold the same words; it stands before them.
    found = re.findall(r"\sUserId=\S*?\(([0-9]+)\) GroupId=", said)
    return int(found[-1]) if found else None


def _pair(text: str) -> int | None:
    """``exit code:signal``."""
    code, colon, signal = text.partition(":")
    if not colon or not code.isdigit() or not signal.isdigit():
        return None
    return 128 + int(signal) if int(signal) else int(code)

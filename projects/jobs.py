"""The jobs of a store: one folder each below ``jobs/`` that says what it is, where it stands and who looks after it.

STORE/jobs/<run id>/job.json      what was asked for, without secrets
STORE/jobs/<run id>/state.json    where it stands; replaced as a whole
STORE/jobs/<run id>/lock          held by its supervisor as long as that lives

What stands there is acted on (processes are ended, folders removed), so in a store that is shared with a group the others may look,
and only the owner writes.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mltrack.projects.errors import LaunchError
from mltrack.projects.job import Job, Types, job_from, kept
from mltrack.store.client import host
from mltrack.store.client.journal import make_folder, now_ms, open_file, random_hex, share_mode

PHASES = ("queued", "preparing", "running", "ended")
NOT_OWN = "Only its owner can stop a job, and only while nobody else may write to its folder below the store's jobs/."
# Ended jobs beyond this many are forgotten; their runs are not.
KEPT_JOBS = 500
# What is read of a state, which somebody else may have written.
_STATE: Types = {
    "phase": str,
    "since_ms": int,
    "ended_ms": int,
    "text": str,
    "reason": str,
    "status": str,
    "exit_code": int,
    "step": int,
    "steps": int,
    "sweep": str,
    "supervisor": {"pid": int, "pstart": str, "host": str, "machine": str},
    "handle": {"restarts": int},
}


@dataclass(frozen=True, slots=True)
class JobState:
    """Where a job stands. ``watched``: its supervisor lives. ``own``: nobody but us can have written what was read here."""

    job: Job
    folder: Path
    phase: str
    watched: bool
    state: dict[str, Any]
    own: bool = False

    @property
    def ended(self) -> bool:
        """Nothing of it runs any more."""
        return self.phase == "ended"


def job_folder(root: str | Path, run_id: str) -> Path:
    """Where a job is kept."""
    return Path(root) / "jobs" / run_id


def create_job(job: Job) -> Path:
    """Write a new job down. Raises LaunchError where somebody else has put a folder in its place."""
    root, folder = Path(job.root), job_folder(job.root, job.run_id)
    make_folder(folder.parent, root)
    try:
        os.mkdir(folder, 0o700)
        if _mode(root) != 0o600:
            os.chmod(folder, 0o2750)
    except FileExistsError:
        if os.lstat(folder).st_uid != os.geteuid():
            raise LaunchError(f"{folder} belongs to somebody else; launch it again.") from None
    _replace(folder / "job.json", job.public(), root)
    return folder


def _mode(root: Path) -> int:
    """Of a job's files: the group of the store reads them at most."""
    return share_mode(root) & ~stat.S_IWGRP


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write another file of a job; readers see the old or the new one."""
    _replace(path, value, path.parent.parent.parent)


def write_state(folder: Path, state: dict[str, Any]) -> None:
    """Replace the state; readers see the old or the new one."""
    write_json(folder / "state.json", state)


def _replace(path: Path, value: dict[str, Any], root: Path) -> None:
    temporary = path.with_name(f".{random_hex(8)}.part")
    content = json.dumps(value, separators=(",", ":")).encode()
    fd = open_file(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _mode(root))
    with os.fdopen(fd, "wb") as file:
        file.write(content)
    os.replace(temporary, path)


class JobLock:
    """Held by whoever looks after a job; freed by the kernel when that process dies, however."""

    def __init__(self, folder: Path) -> None:
        self._fd = open_file(folder / "lock", os.O_RDWR | os.O_CREAT, _mode(folder.parent.parent))

    def take(self) -> bool:
        """False when somebody else has it."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Free it."""
        os.close(self._fd)

    def wait(self, seconds: float) -> bool:
        """Take it, waiting for somebody who holds it for a moment; False when that takes longer."""
        deadline = time.monotonic() + seconds
        while not self.take():
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.05)
        return True


def read_job(folder: Path) -> JobState | None:
    """A job as it stands; None when the folder holds none that can be read."""
    try:
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        content, own = _read(opened, "job.json")
        try:
            state, own_state = _read(opened, "state.json")
        except (OSError, ValueError):
            state, own_state = {}, True
        own = own and own_state and _is_own(os.fstat(opened))
        # Where it lies says which job it is: a copy, or what somebody wrote into it, does not.
        place = {"root": str(folder.parent.parent), "run_id": folder.name}
        job = job_from({**content, **place}) if isinstance(content, dict) else None
    except (OSError, ValueError, TypeError):
        return None
    finally:
        os.close(opened)
    if job is None:
        return None
    state = kept(state, _STATE) if isinstance(state, dict) else {}
    phase = str(state.get("phase", "queued"))
    return JobState(job, folder, phase if phase in PHASES else "queued", _watched(folder), state, own)


def _read(folder: int, name: str) -> tuple[Any, bool]:
    with os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder), "rb") as file:
        return json.load(file), _is_own(os.fstat(file.fileno()))


def _is_own(facts: os.stat_result) -> bool:
    return facts.st_uid == os.geteuid() and not facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _watched(folder: Path) -> bool:
    try:
        fd = os.open(folder / "lock", os.O_RDONLY | os.O_CLOEXEC)  # those of others we may only read
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def list_jobs(root: str | Path, limit: int = KEPT_JOBS) -> list[JobState]:
    """The newest jobs: those that go on first, then the ended ones, each newest first; of a sweep its parent, then its jobs as
    they come up."""
    folder = Path(root) / "jobs"
    try:
        entries = [entry for entry in os.scandir(folder) if len(entry.name) == 32]
    except OSError:
        return []
    entries.sort(key=lambda entry: entry.stat().st_mtime_ns, reverse=True)
    found = [job for job in (read_job(Path(entry.path)) for entry in entries[:limit]) if job is not None]
    launched = {one.job.run_id: one.job.created_ms for one in found}

    def place(one: JobState) -> tuple[bool, int, bool, bool, int, str]:
        job = one.job
        since = launched.get(job.parent or "", job.created_ms)
        return one.ended, -since, job.parent is not None, one.phase == "queued", job.created_ms, job.run_name

    return sorted(found, key=place)


def forget_old(root: str | Path) -> None:
    """Remove the folders of long ended jobs beyond KEPT_JOBS. A sweep that goes on still needs those of its jobs."""
    jobs = list_jobs(root, 1 << 30)
    going = {job.job.run_id for job in jobs if not job.ended}
    ended = [job for job in jobs if job.ended]
    for job in ended[KEPT_JOBS:]:
        if job.job.parent not in going:
            shutil.rmtree(job.folder, ignore_errors=True)


def stop_job(found: JobState, seconds: float = 20.0, kill: bool = False) -> bool:
    """Ask the supervisor to end the job, and wait; True when it has ended. Raises LaunchError when nobody listens."""
    if found.ended:
        return True
    if not found.own:
        raise LaunchError(NOT_OWN)
    if found.job.slurm:
        from mltrack.projects.slurm_jobs import handle_of, stop_by_slurm
        from mltrack.projects.slurm_queue import read_queue

        if handle_of(found, read_queue()) is not None:
            return stop_by_slurm(found, seconds, kill)
    if found.phase == "queued" and found.state.get("sweep"):
        # The sweep's process looks before it starts a child.
        os.close(open_file(found.folder / "cancel", os.O_WRONLY | os.O_CREAT, _mode(Path(found.job.root))))
        return True
    if not found.watched:
        raise LaunchError("Nobody looks after this job; `mltrack jobs` takes it up again.")
    supervisor = found.state.get("supervisor") or {}
    pid, started = int(supervisor.get("pid") or 0), str(supervisor.get("pstart") or "")
    if supervisor.get("boot") != host.boot() or supervisor.get("pidns") != host.pid_namespace():
        raise LaunchError(f"The job runs on {supervisor.get('host', 'another machine')}; stop it there.")
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        handle = -1
    if handle >= 0:
        try:
            if host.is_alive(pid, started):
                signal.pidfd_send_signal(handle, signal.SIGQUIT if kill else signal.SIGTERM)
        except PermissionError:
            raise LaunchError("The job belongs to somebody else; only its owner can stop it.") from None
        except ProcessLookupError:
            pass  # it has just ended; the state below tells
        finally:
            os.close(handle)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        again = read_job(found.folder)
        if again is None or again.ended:
            return True
        time.sleep(0.05)
    return False


def new_state(phase: str, **more: object) -> dict[str, Any]:
    """A state with the time and the identity of this process as supervisor."""
    return {"phase": phase, "since_ms": now_ms(), "supervisor": host.identity(), **more}

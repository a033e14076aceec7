"""A job as a process of this machine, in the environment that is there."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from mltrack.projects.backends.base import STOP_SECONDS, Outcome, Report
from mltrack.projects.errors import LaunchError
from mltrack.projects.job import Job
from mltrack.projects.jobs import job_folder
from mltrack.store.client import host

# The job's output comes through a named pipe that the job itself holds open on both sides: it neither dies nor blocks
# at once when its supervisor does, and the next supervisor reads on.
PIPE = "output"
DRAIN_SECONDS = 0.2
PIPE_BYTES = 1 << 20
_F_SETPIPE_SZ = 1031


class LocalBackend:
    """``prepare`` leaves the environment alone; the virtual environment's backend changes only that."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.environment = dict(job.environment)
        self.folder = Path(job.folder)
        self._process: subprocess.Popen[bytes] | None = None
        self._pid = 0
        self._pstart = ""
        self._reader = -1
        self._kills_before = 0
        self._stopped = threading.Event()

    def prepare(self, report: Report) -> dict[str, Any]:
        if self.job.copies:
            # A checkout in the cache is shared: each job gets its own to write in.
            target = job_folder(self.job.root, self.job.run_id) / "project"
            shutil.copytree(self.folder, target, symlinks=True, dirs_exist_ok=True)
            self.folder = target
        if shutil.which("python", path=self.environment.get("PATH")) is None:
            # Where only python3 exists, "python train.py" means the interpreter we run on.
            own = os.path.dirname(sys.executable)
            self.environment["PATH"] = f"{self.environment.get('PATH', os.defpath)}{os.pathsep}{own}"
        return {}

    def start(self, report: Report) -> None:
        pipe = job_folder(self.job.root, self.job.run_id) / PIPE
        pipe.unlink(missing_ok=True)
        os.mkfifo(pipe, 0o600)
        both = os.open(pipe, os.O_RDWR | os.O_CLOEXEC)
        try:
            _widen(both)
            self._reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            self._kills_before = _kernel_kills()
            program = self.job.command[0]
            found = program if "/" in program else shutil.which(program, path=self.environment.get("PATH"))
            if found is None:
                raise LaunchError(f"{program}: command not found")
            self._process = subprocess.Popen(
                self.job.command,
                executable=None if "/" in program else found,
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=both,
                stderr=both,
                start_new_session=True,
                close_fds=True,
            )
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise LaunchError(f"{self.job.command[0]}: cannot be run ({reason})") from None
        finally:
            os.close(both)
        self._pid = self._process.pid
        self._pstart = host.process_start(self._pid) or ""
        report.handle(
            {"pid": self._pid, "pstart": self._pstart, "boot": host.boot(), "pidns": host.pid_namespace()}
        )

    def attach(self, handle: dict[str, Any], report: Report) -> bool:
        pid, started = int(handle.get("pid") or 0), str(handle.get("pstart") or "")
        if handle.get("boot") != host.boot() or handle.get("pidns") != host.pid_namespace():
            return False
        self._pid, self._pstart = pid, started
        pipe = job_folder(self.job.root, self.job.run_id) / PIPE
        try:
            self._reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return host.is_alive(pid, started)
        return True

    def follow(self, report: Report) -> Outcome:
        poller = select.poll()
        if self._reader >= 0:
            poller.register(self._reader, select.POLLIN)
        handle = self._handle()
        if handle >= 0:
            poller.register(handle, select.POLLIN)
        try:
            while not self._ended():
                # With a handle the kernel wakes us; without one we look.
                for fd, event in poller.poll(10_000 if handle >= 0 else 200):
                    if fd == self._reader and event & select.POLLIN:
                        self._read(report)
            quiet = time.monotonic() + DRAIN_SECONDS
            while time.monotonic() < quiet:
                if self._read(report):
                    quiet = time.monotonic() + DRAIN_SECONDS
                else:
                    time.sleep(0.01)
        finally:
            if handle >= 0:
                os.close(handle)
        return self._outcome()

    def stop(self, kill: bool) -> None:
        if self._ended():
            return
        self._signal(signal.SIGKILL if kill else signal.SIGTERM)
        if not kill:
            deadline = time.monotonic() + STOP_SECONDS
            while time.monotonic() < deadline and not self._stopped.wait(0.05):
                if self._ended():
                    return
            self._signal(signal.SIGKILL)

    def close(self) -> None:
        self._stopped.set()
        if self._reader >= 0:
            os.close(self._reader)
            self._reader = -1
        folder = job_folder(self.job.root, self.job.run_id)
        (folder / PIPE).unlink(missing_ok=True)
        if self.job.copies:
            shutil.rmtree(folder / "project", ignore_errors=True)

    # -- the process

    def _handle(self) -> int:
        try:
            return os.pidfd_open(self._pid)
        except OSError:
            return -1

    def _ended(self) -> bool:
        if self._process is not None:
            return self._process.poll() is not None
        return not host.is_alive(self._pid, self._pstart)

    def _signal(self, number: signal.Signals) -> None:
        """To everything the job started. The group lives as long as one of it, so its number is still the job's."""
        try:
            if not self._ended() or self._process is not None:
                os.killpg(self._pid, number)
        except (ProcessLookupError, PermissionError):
            return

    def _read(self, report: Report) -> bool:
        if self._reader < 0:
            return False
        try:
            piece = os.read(self._reader, 1 << 16)
        except BlockingIOError:
            return False
        if piece:
            report.output(piece)
        return bool(piece)

    def _outcome(self) -> Outcome:
        if self._process is None:
            return Outcome(None, "its exit code went to a supervisor that was killed")
        code = self._process.returncode
        if code == -signal.SIGKILL and _kernel_kills() > self._kills_before:
            return Outcome(137, "out of memory: the kernel killed it", True)
        return Outcome(128 - code if code < 0 else code)


def _widen(fd: int) -> None:
    import fcntl

    try:
        fcntl.fcntl(fd, _F_SETPIPE_SZ, PIPE_BYTES)
    except OSError:
        return  # the user's share of pipe memory is used up; the usual 64 KiB do


def _kernel_kills() -> int:
    """How many processes the kernel has killed for want of memory since boot; 0 where it does not say."""
    try:
        with open("/proc/vmstat", encoding="ascii") as file:
            for line in file:
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
    except (OSError, ValueError):
        return 0
    return 0

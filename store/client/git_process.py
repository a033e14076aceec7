"""Running the git binary so that it can do nothing but answer: a fixed environment, one deadline, bounded output."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import tempfile
from time import monotonic

from mltrack.store.client.secrets import redact_text

OUTPUT_BYTES = 64 << 20
_OVERRIDES = (
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "protocol.ext.allow=never",
    "submodule.recurse=false",
)
_ENVIRONMENT = {
    "GIT_ALLOW_PROTOCOL": "https:ssh:file",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_LFS_SKIP_SMUDGE": "1",
    # Never write the index of the repository, never fetch missing objects, never follow replaced ones.
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_PAGER": "cat",
    "LC_ALL": "C",
}


class GitProblem(Exception):
    """git could not answer; the message is half a sentence for the user, without secrets."""


class Git:
    """The binary with what all calls of one snapshot share: the environment and the end of the time allowed."""

    def __init__(self, program: str, seconds: float) -> None:
        self.program = program
        self.seconds = seconds
        self.deadline = monotonic() + seconds
        # The caller's GIT_* (a hook's GIT_DIR, GIT_EXTERNAL_DIFF, GIT_CONFIG_*) would redirect or start things.
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        self.environment.update(_ENVIRONMENT)

    def run(
        self,
        folder: bytes,
        *arguments: str | bytes,
        feed: bytes = b"",
        allowed: tuple[int, ...] = (0,),
        limit: int = OUTPUT_BYTES,
    ) -> bytes:
        """Standard output of ``git arguments`` in ``folder``. Raises GitProblem on failure, time-out or too much output."""
        command: list[str | bytes] = [self.program]
        for override in _OVERRIDES:
            command += ["-c", override]
        command += arguments
        # Files instead of pipes for input and errors: one pipe to read, so nothing can wait for anything.
        with tempfile.TemporaryFile() as errors, tempfile.TemporaryFile() as given:
            given.write(feed)
            given.seek(0)
            try:
                process = subprocess.Popen(
                    command,
                    cwd=folder,
                    env=self.environment,
                    stdin=given,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    start_new_session=True,
                )
            except OSError as error:
                raise GitProblem(f"git does not start ({error.strerror})") from None
            assert process.stdout is not None
            with process.stdout:
                try:
                    output = self._read(process.stdout.fileno(), limit)
                    process.wait(max(0.05, self.deadline - monotonic()))
                except (GitProblem, subprocess.TimeoutExpired):
                    self._kill(process)
                    if monotonic() >= self.deadline:
                        raise GitProblem(f"git took longer than {self.seconds:g} s") from None
                    raise
            if process.returncode not in allowed:
                errors.seek(0)
                raise GitProblem(_reason(errors.read(4096), process.returncode))
        return output

    def _read(self, fd: int, limit: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        # poll, not select: a training may have thousands of files open.
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        while True:
            remaining = self.deadline - monotonic()
            if remaining <= 0 or not poller.poll(remaining * 1000):
                raise GitProblem("time ran out")
            part = os.read(fd, 1 << 20)
            if not part:
                return b"".join(parts)
            parts.append(part)
            size += len(part)
            if size > limit:
                raise GitProblem(f"the changes are larger than {limit >> 20} MiB")

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(0.5)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            return  # gone, or stuck in the kernel on a dead mount: it cannot be waited for


def _reason(errors: bytes, code: int) -> str:
    text = errors.decode("utf-8", "backslashreplace").strip()
    if "not a git repository" in text:
        return "the folder is not in a git repository"
    if "dubious ownership" in text or "unsafe repository" in text:
        return "the git repository belongs to another user (git's safe.directory allows it)"
    if "must be run in a work tree" in text:
        return "the git repository has no working tree here"
    first = text.splitlines()[0] if text else f"git ended with {code}"
    return redact_text(first.removeprefix("fatal: "))[:300]

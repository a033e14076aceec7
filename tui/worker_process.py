"""The worker as a child process. Standard library only: it is started before anything slow is imported."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from typing import IO, Any

from mltrack import __version__

FIRST = 0
"""The id of the question that the worker is started with."""
_LAST_WORDS = 2000
_PIECE = 1 << 20
_THREADS = ("OPENBLAS_NUM_THREADS",)


def _nameless_file() -> IO[bytes]:
    if sys.platform == "linux":
        return open(os.memfd_create("worker-errors"), "w+b")
    import tempfile  # 3 ms, before anything is there

    return tempfile.TemporaryFile()


class WorkerProcess:
    """A running worker. Started as early as possible: before Textual is imported."""

    def __init__(self, where: str | None, readonly: bool) -> None:
        self.began = time.monotonic()
        self._errors = _nameless_file()  # lives as long as the process
        # One thread for linear algebra, which the worker has none of: numpy's would spin on the processor that the screen
        # starts on. What the worker launches must not inherit that.
        ours = [name for name in _THREADS if name not in os.environ]
        self.host = ""
        """What ssh calls the machine that it runs on; "" for this one."""
        if where is not None and where.startswith("ssh://"):
            from mltrack.store.ssh_address import remote_of

            remote = remote_of(where)
            assert remote is not None
            self.host = remote.host
            # Over there may be another version, whose answers would be something else.
            command = remote.command(
                ["worker", f"--screen-version={__version__}", *(["--readonly"] if readonly else [])]
            )
        else:
            # -c instead of -m: no second import of the package's __main__, and the folder we run in is not searched. What is
            # imported is no garbage: not looking for any saves a tenth.
            code = (
                "import gc, sys; gc.disable(); sys.path[:1] = []; from mltrack.tui.worker_calls import serve; "
                f"serve({where!r}, {readonly!r}, {ours!r})"
            )
            command = [sys.executable, "-c", code]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            # A table of 100,000 runs is a line of megabytes: in small pieces the thread that reads it would wait for the
            # interpreter after each of them.
            bufsize=_PIECE,
            env={**os.environ, **dict.fromkeys(ours, "1")},
            start_new_session=True,  # ctrl+c and a resize are the screen's
        )
        assert self.process.stdout is not None
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            try:
                fcntl.fcntl(self.process.stdout, fcntl.F_SETPIPE_SZ, _PIECE)
            except PermissionError:
                pass  # this user has as many large pipes as the system allows: answers come in smaller pieces
        self.asked_first = False

    def ask_first(self, call: str, **options: Any) -> None:
        """Ask before anything else is there: the answer waits in the pipe until Live listens."""
        assert self.process.stdin is not None
        request = {"id": FIRST, "call": call, "with": options}
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
        except OSError:
            return  # it died at once: whoever listens will say so
        self.asked_first = True

    def last_words(self) -> str:
        """The last line of what it wrote to standard error."""
        size = self._errors.seek(0, 2)
        self._errors.seek(max(0, size - _LAST_WORDS))
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else ""

    def close(self) -> None:
        """End it: the worker ends with its input. Waits a moment, then insists."""
        try:
            if self.process.stdin is not None:
                self.process.stdin.close()
        except OSError:
            pass  # it is gone already
        try:
            self.process.wait(1.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

"""The worker as a child process. Standard library only: it is started before anything slow is imported."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from typing import IO, Any

FIRST = 0
"""The id of the question that the worker is started with."""
_LAST_WORDS = 2000


class WorkerProcess:
    """A running worker. Started as early as possible: before Textual is imported."""

    def __init__(self, where: str | None, readonly: bool) -> None:
        self.began = time.monotonic()
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # lives as long as the process
        # -c instead of -m: no second import of the package's __main__, and the folder we run in is not searched.
        code = (
            "import sys; sys.path[:1] = []; from mltrack.tui.worker_calls import serve; "
            f"serve({where!r}, {readonly!r})"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,  # ctrl+c and a resize are the screen's
        )
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

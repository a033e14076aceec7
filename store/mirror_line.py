"""A connection to the mltrack of another machine that hands over journals and files: the system's ssh, lines of JSON, bytes behind
some of them, and a sentence for how it ended."""

from __future__ import annotations

import json
import subprocess
import tempfile
from contextlib import suppress
from typing import IO, Any

from mltrack.store.mirror_far import PROTOCOL
from mltrack.store.ssh_address import Remote

_LINE = 16 << 20
_GREETING = 100
_LAST_WORDS = 2000


class Lost(Exception):
    """Nothing comes any more; the message is the reason, or "" when ssh said it."""


ENDS = (Lost, OSError, ValueError, KeyError, TypeError, AttributeError)
"""What ends a connection: it broke, or nobody of ours answers so."""


class Line:
    """One connection, for as long as it lasts. Raises OSError when ssh cannot be started."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._errors = tempfile.TemporaryFile()
        command = remote.command(["worker", f"--journals={PROTOCOL}"], packed=True)
        try:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors
            )
        except OSError as error:
            self._errors.close()
            why = f"ssh cannot be started: {error.strerror}; is it installed?"
            raise OSError(error.errno, f"No connection to {remote.host} ({why})") from None
        assert self.process.stdin is not None and self.process.stdout is not None
        self.sink: IO[bytes] = self.process.stdin
        self.source: IO[bytes] = self.process.stdout

    def end(self, error: BaseException | None = None) -> str:
        """End it. The sentence that says why it had to."""
        why = ""
        if isinstance(error, Lost):
            why = str(error)
        elif isinstance(error, OSError):
            # Ours is a disk that is full, or a folder that is not ours; a pipe that broke is the connection's end.
            why = "" if isinstance(error, BrokenPipeError) else f"{error.filename}: {error.strerror}"
        elif error is not None:
            why = f"it does not answer as mltrack does: {error}"
        with suppress(OSError):
            self.sink.close()
        try:
            self.process.wait(2.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.source.close()
        why = why or _last_words(self._errors) or f"ssh ended with {self.process.returncode}"
        self._errors.close()
        if "--journals" in why:  # the option that we have called it with
            why = "mltrack there is too old to hand over its journals; install the version that is here"
        return f"No connection to {self._remote.host} ({why.rstrip('.')})"


def say(sink: IO[bytes], message: dict[str, Any]) -> None:
    """Send a line."""
    sink.write(json.dumps(message).encode() + b"\n")
    sink.flush()


def heard(source: IO[bytes]) -> dict[str, Any]:
    """The next line. Raises Lost, and ValueError for what is none of ours."""
    line = source.readline(_LINE)
    if not line.endswith(b"\n"):
        raise Lost("")
    message = json.loads(line)
    if not isinstance(message, dict):
        raise ValueError("not an object")
    return message


def hello(source: IO[bytes]) -> dict[str, Any]:
    """The first line of ours; shells over there may greet before it."""
    for _ in range(_GREETING):
        line = source.readline(_LINE)
        if not line.endswith(b"\n"):
            raise Lost("")
        if line.startswith(b'{"journals"'):
            message: dict[str, Any] = json.loads(line)
            if message["journals"] != PROTOCOL:
                raise Lost(
                    "mltrack there hands over its journals in another way; install one version in both places"
                )
            return message
    raise ValueError("it greets without end")


def _last_words(errors: IO[bytes]) -> str:
    size = errors.seek(0, 2)
    errors.seek(max(0, size - _LAST_WORDS))
    lines = errors.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1].removeprefix("mltrack: ") if lines else ""

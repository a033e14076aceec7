"""What every way of running a job can do, as the supervisor uses it."""

from __future__ import annotations

import signal as signals
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

STOP_SECONDS = 10.0
"""How long a job may take to end after it was asked to, before it is killed."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended. ``exit_code`` as a shell gives it (128 + n after signal n); None when nobody could know."""

    exit_code: int | None
    reason: str = ""
    out_of_memory: bool = False
    status: str = ""  # what a scheduler said of the end; "": the exit code decides

    @property
    def signal(self) -> str | None:
        """The name of the signal that ended it."""
        if self.exit_code is None or not 128 < self.exit_code < 193:
            return None
        try:
            return signals.Signals(self.exit_code - 128).name
        except ValueError:
            return None


@dataclass
class Report:
    """Where a backend tells what it does. ``output`` takes raw bytes of the job, ``say`` a line of our own words."""

    say: Callable[[str], None]
    output: Callable[[bytes], None]
    step: Callable[[int, int, str], None]  # of a build: number, of how many, what
    handle: Callable[[dict[str, Any]], None]  # what finds the job again after this process is gone


class Backend(Protocol):
    """One job on one backend. Methods raise LaunchError with a sentence; ``close`` never raises and may come at any time."""

    def prepare(self, report: Report) -> dict[str, Any]:
        """Build or find the environment. Returns facts for the run."""
        ...

    def start(self, report: Report) -> None:
        """Start the process."""
        ...

    def attach(self, handle: dict[str, Any], report: Report) -> bool:
        """Take up a job that another supervisor started; False when it is gone without a trace."""
        ...

    def follow(self, report: Report) -> Outcome:
        """Pass its output on until it has ended."""
        ...

    def stop(self, kill: bool) -> None:
        """Ask it to end, or kill it. Called from another thread."""
        ...

    def close(self) -> None:
        """Remove what must not stay."""
        ...

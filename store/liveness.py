"""Whether a run's writer still lives, from evidence only: heartbeat, process identity, boot id."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mltrack.store.client import host
from mltrack.store.client.journal import random_hex

# Five missed beats of 15 s: silent long enough to say so, not long enough to prove anything.
QUIET_SECONDS = 75
# What another host's writer may miss before it counts as lost; undone by its next beat.
LOST_SECONDS = 15 * 60


@dataclass(frozen=True, slots=True)
class Evidence:
    """``lost`` is proven; ``quiet`` only silent. ``why`` is for people."""

    lost: bool
    quiet: bool
    why: str


class Here:
    """Who we are, for telling our own processes from other hosts', and what time the store's filesystem has."""

    def __init__(self, root: Path | None) -> None:
        """``root`` None: of a store in which nothing may be written, so that this machine's clock must do."""
        self.identity = host.identity()
        self._root = root

    @cached_property
    def now_ms(self) -> int:
        """The filesystem's time, asked for only when somebody's silence must be judged."""
        return _filesystem_now(self._root)

    def judge(self, header: dict[str, Any], beat_ms: int) -> Evidence:
        """Evidence about the process of a journal's first line, last heard at ``beat_ms`` (mtime of its marker)."""
        if not any(header.get(name) for name in ("host", "boot", "pid")):
            return Evidence(False, False, "")  # a server wrote for a client that it knows nothing of
        mine = self.identity
        same_machine = bool(mine.get("host")) and all(
            header.get(name) == mine.get(name) for name in ("host", "machine")
        )
        if header.get("boot") and header.get("boot") == mine.get("boot"):
            if header.get("pidns") and header.get("pidns") == mine.get("pidns"):
                pid, started = int(header.get("pid") or 0), str(header.get("pstart") or "")
                if host.is_alive(pid, started):
                    return Evidence(False, False, "")
                return Evidence(True, False, f"process {pid} is gone")
            same_machine = False
        silent = max(0, self.now_ms - beat_ms) / 1000.0
        if same_machine and header.get("machine") and header.get("boot") and silent >= QUIET_SECONDS:
            # Machines cloned from one image share name and machine id: a beat a moment ago says that it is another one.
            return Evidence(True, False, "the machine was restarted")
        if silent >= LOST_SECONDS:
            return Evidence(
                True, True, f"not heard from {header.get('host', 'its host')} for {int(silent // 60)} minutes"
            )
        return Evidence(False, silent >= QUIET_SECONDS, "")


def how_it_died(folder: Path | None, jid: str, why: str) -> tuple[str, str, int | None]:
    """KILLED with the signal and when (ms), where the process left its mark while dying, else LOST with the proof."""
    if folder is not None:
        for number, name in ((15, "SIGTERM"), (1, "SIGHUP")):
            try:
                facts = os.stat(folder / f"signal.{jid}.{number}")
                if facts.st_size > 0:
                    return "KILLED", f"signal {number} ({name})", facts.st_mtime_ns // 1_000_000
            except OSError:
                continue
    return "LOST", why, None


def _filesystem_now(root: Path | None) -> int:
    """The time the filesystem gives a file now: heartbeats are mtimes, and its clock may differ from ours."""
    import time

    if root is None:
        return time.time_ns() // 1_000_000
    probe = root / "open" / f".now-{random_hex(8)}"
    try:
        fd = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.utime(fd)
            return os.fstat(fd).st_mtime_ns // 1_000_000
        finally:
            os.close(fd)
            os.unlink(probe)
    except OSError:
        return time.time_ns() // 1_000_000

"""What proves that a run's process is gone, and what does not; and that nobody else is signalled in its place."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mltrack.store.client import host
from mltrack.store.errors import BadInput
from mltrack.store.liveness import LOST_SECONDS, QUIET_SECONDS, Here
from mltrack.store.records import Run
from mltrack.tui.cli.process import living_process, signal_process

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs Linux's /proc")


@pytest.fixture
def child() -> Iterator[tuple[subprocess.Popen[bytes], dict[str, Any]]]:
    """A living process and the first line that its journal would have."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    header = {**host.identity(), "pid": process.pid, "pstart": host.process_start(process.pid)}
    yield process, header
    process.kill()
    process.wait()


def test_evidence(tmp_path: Path, child: tuple[subprocess.Popen[bytes], dict[str, Any]]) -> None:
    (tmp_path / "open").mkdir()
    here, (process, header) = Here(tmp_path), child

    def judge(silent_seconds: float, **other: str) -> tuple[bool, bool, str]:
        found = here.judge({**header, **other}, here.now_ms - int(silent_seconds * 1000))
        return found.lost, found.quiet, found.why

    lives = (False, False, "")
    assert judge(10 * LOST_SECONDS) == lives, "a process that is there is not lost, however silent"
    assert judge(0, pstart="1")[0], "another process has got its number"
    # The machine was started again: what it ran is gone, unless somebody of that name spoke a moment ago.
    assert judge(QUIET_SECONDS, boot="before") == (True, False, "the machine was restarted")
    assert judge(QUIET_SECONDS - 5, boot="before") == lives
    # Of another machine only silence is heard.
    far = {"host": "far", "machine": "other", "boot": "its own"}
    assert judge(QUIET_SECONDS - 5, **far) == lives
    assert judge(QUIET_SECONDS + 5, **far) == (False, True, "")
    lost, quiet, why = judge(LOST_SECONDS + 5, **far)
    assert lost and quiet and why == "not heard from far for 15 minutes"
    process.kill()
    process.wait()
    assert judge(0) == (True, False, f"process {process.pid} is gone")


def test_only_the_very_process_is_signalled(child: tuple[subprocess.Popen[bytes], dict[str, Any]]) -> None:
    process, header = child
    run = Run("0" * 32, "named", "e", "RUNNING")
    for wrong in ({"pstart": "1"}, {"pstart": ""}, {"boot": "before"}, {"pidns": "1"}, {"pid": None}):
        with pytest.raises(BadInput):
            living_process(run, {**header, **wrong})
    signal_process(
        process.pid, "1", signal.SIGKILL
    )  # between the look and the signal the number changed hands
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)
    signal_process(*living_process(run, header), signal.SIGTERM)
    assert process.wait(10) == -signal.SIGTERM

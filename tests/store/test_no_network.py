"""No network, ever, unless an address was given: in a namespace without one, everything works."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

STORY = """
import socket, sys
try:
    socket.create_connection(("127.0.0.1", 9), 1)
except OSError as error:
    assert error.errno == 101, error  # unreachable: not even a loopback
import mltrack
from mltrack.store import open_store
with mltrack.start_run(run_name="alone") as run:
    mltrack.log_param("lr", 0.1)
    for step in range(100):
        mltrack.log_metric("loss", step / 7, step=step)
    mltrack.log_text("kept", "note.txt")
with open_store() as store:
    store.refresh(None)
    store.set_tags([run.run_id], {"a": "1"})
    assert store.run("alone").metrics["loss"].count == 100
    assert store.backup().exists()
"""


def test_logging_folding_and_listing_need_no_network(tmp_path: Path) -> None:
    environment = {**os.environ, "MLTRACK_STORE": str(tmp_path / "store")}
    outcomes = []
    for arguments in (["-c", "pass"], ["-c", STORY], ["-m", "mltrack.tui.cli", "ls", "--json"]):
        done = subprocess.run(
            ["unshare", "-n", sys.executable, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        if arguments[1] == "pass" and done.returncode:
            pytest.skip(f"needs the right to make a network namespace ({done.stderr.strip()}): run as root")
        assert done.returncode == 0, done.stderr
        outcomes.append((done.stdout, done.stderr))
    assert outcomes[1] == ("", "")
    assert '"alone"' in outcomes[2][0] and outcomes[2][1] == ""

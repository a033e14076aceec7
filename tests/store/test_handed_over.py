"""A start of a run that says that the run goes on without it: a job in a queue is not lost because its submitter has ended."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.conftest import take_in

from mltrack.store.opening import open_store
from mltrack.store.records import Run

_RUN = "0123456789abcdef" * 2
_SUBMIT = f"""
import mltrack
run = mltrack.start_run(run_id="{_RUN}")
run.finish("%s", None, {{"reason": "waits in a queue"}})
"""
_GO_ON = f"""
import os, mltrack
mltrack.start_run(run_id="{_RUN}")
mltrack.log_metric("loss", 1.0)
os._exit(0)
"""


def after(script: str) -> Run:
    subprocess.run([sys.executable, "-c", script], check=True)
    with open_store() as store:
        take_in(store)
        return store.run(_RUN)


def test_a_run_in_a_queue_is_no_lost_one(store_root: Path) -> None:
    run = after(_SUBMIT % "SCHEDULED")
    assert (run.status, run.reason, run.end_ms) == ("SCHEDULED", "waits in a queue", None)
    assert after(_SUBMIT % "RUNNING").status == "RUNNING"


def test_its_next_start_is_judged_by_its_own_process_and_may_hand_it_over_again(store_root: Path) -> None:
    after(_SUBMIT % "SCHEDULED")
    assert after(_GO_ON).status == "LOST"
    run = after(_SUBMIT % "SCHEDULED")
    assert (run.status, run.end_ms, run.metrics["loss"].count) == ("SCHEDULED", None, 1)
    assert after(_SUBMIT % "FINISHED").status == "FINISHED"

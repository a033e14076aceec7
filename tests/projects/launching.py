"""What the tests of launching share: projects, starting them, waiting for their ends."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from mltrack.projects.jobs import JobState, job_folder, read_job
from mltrack.projects.launch import start
from mltrack.projects.plan import Plan, Request, make_plan
from mltrack.store.client.journal import run_folder
from mltrack.store.client.location import choose_store
from mltrack.store.opening import open_store
from mltrack.store.records import Run

DEADLINE = 120.0


def write_project(folder: Path, **files: str) -> Path:
    """Files of a project; in names ``__`` is a slash and ``_DOT_`` a dot."""
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return folder


def plan_for(folder: Path, backend: str, **asked: Any) -> Plan:
    return make_plan(Request(str(folder), backend=backend, **asked), choose_store())


def launch(
    folder: Path, backend: str, change: Callable[[Plan], Plan] = lambda plan: plan, **asked: Any
) -> str:
    """Start a project; returns its run id."""
    return start(change(plan_for(folder, backend, **asked)))[0]


def with_docker(**more: Any) -> Callable[[Plan], Plan]:
    return lambda plan: replace(plan, docker={**plan.docker, **more})


def state_of(run_id: str) -> JobState:
    found = read_job(job_folder(choose_store().root, run_id))
    assert found is not None
    return found


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.03)
    raise AssertionError(f"waited in vain until {what}")


def wait_for_end(run_id: str) -> Run:
    wait_until(lambda: state_of(run_id).ended, f"the job ended: {state_of(run_id).state} {console(run_id)}")
    with open_store() as store:
        store.refresh(None)
        return store.run(run_id)


def console(run_id: str) -> str:
    path = run_folder(choose_store().root, run_id) / "console.log"
    return path.read_text("utf-8") if path.exists() else ""

"""What stands in the files of a job may have been written by another member of the group: whatever it is, the list of jobs shows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mltrack.projects.job import Job
from mltrack.projects.jobs import create_job, list_jobs, new_state, read_job, write_state
from mltrack.projects.slurm_jobs import look
from mltrack.store import Store, open_store
from mltrack.store.client.journal import random_hex
from mltrack.tui.cli.jobs import _columns, job_json
from mltrack.tui.worker_calls.launch import jobs_page

NAMES = [item.name for item in fields(Job)]
INSIDE = ["tasks", "task", "children", "inside", "settings", "project", "address", "pid", "restarts", "slurm"]
STATE = [
    *("phase", "since_ms", "ended_ms", "text", "reason", "status", "exit_code", "step", "steps", "sweep"),
    *("supervisor", "handle", "slurm"),
]
SIMPLE = st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(max_size=5)
ANYTHING = st.recursive(
    SIMPLE,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(INSIDE), inner),
    max_leaves=6,
)


def job(run_id: str, root: str, **more: Any) -> Job:
    shape: dict[str, Any] = {"backend": "local", "command": ["true"], "environment": {}, "folder": "/p"}
    return Job(run_id=run_id, run_name="n", experiment="e", store=root, root=root, **{**shape, **more})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with open_store(str(tmp_path_factory.mktemp("s"))) as opened:
        yield opened


@settings(max_examples=300, deadline=None)
@given(
    asked=st.dictionaries(st.sampled_from(NAMES), ANYTHING, max_size=3),
    state=st.dictionaries(st.sampled_from(STATE), ANYTHING, max_size=3),
    slurm=st.booleans(),
)
def test_any_content_of_a_jobs_files_is_shown_or_left_out(
    asked: dict[str, Any], state: dict[str, Any], slurm: bool, store: Store
) -> None:
    root = store.root
    shutil.rmtree(root / "jobs", ignore_errors=True)
    good = create_job(job(random_hex(32), str(root), created_ms=2))
    write_state(good, new_state("running"))
    parts: dict[str, Any] = {"slurm": {"settings": {}, "tasks": 2, "children": []}} if slurm else {}
    odd = create_job(job(random_hex(32), str(root), created_ms=1, **parts))
    (odd / "job.json").write_text(json.dumps({**json.loads((odd / "job.json").read_text()), **asked}))
    (odd / "state.json").write_text(json.dumps({**new_state("running"), **state}))
    found = look(list_jobs(root), ask=False)
    assert good.name in [one.job.run_id for one in found]
    assert json.dumps([job_json(one) for one in found])
    assert _columns(found)
    assert good.name in json.dumps(jobs_page(store))


def test_a_whole_file_of_ours_is_read_as_it_was_written(store_root: Any) -> None:
    made = job(
        random_hex(32),
        str(store_root),
        parent=random_hex(32),
        slurm={"settings": {"time": "10"}, "task": 1, "inside": "venv"},
        facts={"project": {"address": "/p", "entry": "main", "commit": "c"}, "more": [1]},
        shown=["true"],
        created_ms=3,
    )
    folder = create_job(made)
    state = new_state(
        "running", text="goes", step=1, steps=2, handle={"pid": 3, "restarts": 1}, exit_code=None
    )
    write_state(folder, state)
    found = read_job(folder)
    assert found is not None
    assert found.job.public() == made.public()
    assert found.state == state

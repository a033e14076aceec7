"""From enter to the process: a launch beside `docker run` of the same image, in turn; and a hundred jobs that wait."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from pathlib import Path

import pytest
from measure import Figures
from tests.projects.launching import console, plan_for, wait_until, write_project

from mltrack.projects.jobs import create_job, job_folder, new_state, read_job, write_state
from mltrack.projects.launch import Launcher, start
from mltrack.projects.plan import Request, make_plan
from mltrack.projects.planned_job import job_of
from mltrack.store import open_store
from mltrack.store.client.location import choose_store
from mltrack.tui.worker_calls import launch as calls

ROUNDS = 9
BEYOND_SECONDS = 0.3
SAYS_WHEN = ["python", "-S", "-c", "import time; print(time.time())"]


def test_a_launch_starts_its_process_as_soon_as_docker_run(
    store_root: Path, tmp_path: Path, figures: Figures
) -> None:
    if not os.environ.get("DOCKER_HOST"):
        pytest.skip("needs a container engine: run `export $(tests/services/start-docker.sh)`")
    profiles = Path(os.environ["XDG_CONFIG_HOME"]) / "mltrack" / "profiles.toml"
    profiles.parent.mkdir(parents=True)
    profiles.write_text('[default]\nbuild_network = "host"\nnetwork = "none"\n')
    folder = write_project(
        tmp_path / "p",
        MLproject="entry_points:\n  main:\n    command: python -S -c 'import time; print(time.time())'\n",
    )

    def ended(run_id: str) -> bool:
        found = read_job(job_folder(store_root, run_id))
        return found is not None and found.ended

    def ours() -> float:
        plan = plan_for(folder, "docker")
        launcher = Launcher("docker")  # as the form does while a person looks at it
        time.sleep(2)
        began = time.time()
        run_id, _ = start(plan, launcher)
        wait_until(lambda: ended(run_id), "it ended")
        return float(console(run_id).split()[-1]) - began

    def theirs() -> float:
        began = time.time()
        words = ["docker", "run", "--rm", "--init", "--network", "none", image, *SAYS_WHEN]
        return float(subprocess.run(words, capture_output=True, text=True, check=True).stdout) - began

    ours()  # builds
    image = plan_for(folder, "docker").image
    pairs = [(ours(), theirs()) for _ in range(ROUNDS)]
    beyond = statistics.median(own - other for own, other in pairs)
    own, other = (statistics.median(column) for column in zip(*pairs, strict=True))
    figures.add(
        "Enter to the start of the process in a container, beside `docker run` of the same image",
        f"{BEYOND_SECONDS} s more",
        f"{beyond:+.2f} s ({own:.2f} s; `docker run` {other:.2f} s)",
    )
    assert beyond < 2 * BEYOND_SECONDS, pairs


def test_a_hundred_waiting_jobs_cost_the_screen_nothing_one_would_notice(
    store_root: Path, tmp_path: Path, figures: Figures, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_project(tmp_path / "p", MLproject="entry_points:\n  main: {command: 'true'}\n")
    plan = make_plan(Request(str(folder), backend="local"), choose_store())
    for _ in range(100):
        job = job_of(plan)
        write_state(create_job(job), new_state("queued", sweep="x"))
    monkeypatch.setattr(calls, "_taken_up", True)
    with open_store() as store:
        page = calls.jobs_page(store)
        spent = []
        for _ in range(20):
            began = time.process_time()
            page = calls.jobs_page(store)
            spent.append(time.process_time() - began)
    assert len(page["jobs"]) == 100
    figures.add(
        "100 queued jobs: CPU of the worker per look at them (the screen of jobs looks twice a second)",
        "no delay of keys",
        f"{1000 * statistics.median(spent):.1f} ms",
    )
    assert statistics.median(spent) < 0.05

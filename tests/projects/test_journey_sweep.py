"""Part of journey J4 in a real terminal: six runs of one form, watched as jobs, compared as runs."""

from __future__ import annotations

from pathlib import Path

from tests.projects.launching import wait_for_end, write_project
from tests.tui.conftest import TerminalApp, command_environment

from mltrack.projects.jobs import list_jobs
from mltrack.store.client.location import choose_store
from mltrack.store.opening import open_store


def test_a_sweep_of_six_is_launched_watched_and_compared_from_the_screen(store_root: Path) -> None:
    write_project(
        Path.cwd() / "grid",
        MLproject="""\
            name: grid
            entry_points:
              main:
                parameters:
                  lr: {type: float, default: 0.1}
                  seed: {type: int, default: 0}
                command: "python train.py {lr} {seed}"
            """,
        train_DOT_py="""\
            import sys
            import mltrack
            with mltrack.start_run():
                for step in range(5):
                    mltrack.log_metric("loss", float(sys.argv[1]) * (1 + int(sys.argv[2])) / (1 + step), step=step)
            """,
    )
    store_root.mkdir()
    # No engine answers there: the environment that is there will do.
    environ = command_environment(DOCKER_HOST="unix:///nowhere/docker.sock")
    app = TerminalApp(environ, "--store", str(store_root), columns=120, lines=30)
    app.until("mltrack|runs|Runs|help")
    app.press("3").until("found here")
    app.press("\r").until("ready: 1 run")
    app.press("G\r").until("name=value")
    app.press("lr=1e-4,1e-3\r").until("ready: 2 runs")
    app.press("G\r").until("name=value")
    app.press("seed=0..2\r").until("ready: 6 runs")
    app.press("r").until("sweep lr seed")
    app.until("nothing is running")
    parent = next(job.job.run_id for job in list_jobs(choose_store().root) if job.job.backend == "sweep")
    assert wait_for_end(parent).status == "FINISHED"
    app.press("1").until("loss")
    app.press("/").press("seed >= 0\r")
    app.redrawn("6 of 7")
    app.press("A")
    app.redrawn("6 marked")
    app.press("c").until("Compare 6 runs")
    app.redrawn(r"(?s)PARAMS.*lr.*seed.*loss")
    assert app.press("Q").finish() == 0
    assert app.left_as_found()
    with open_store() as store:
        store.refresh(None)
        children = [
            run for run in store.runs([job.job.run_id for job in list_jobs(store_root)]) if run.parent_id
        ]
    assert {(run.params["lr"], run.params["seed"], run.status) for run in children} == {
        (lr, seed, "FINISHED") for lr in ("1e-4", "1e-3") for seed in ("0", "1", "2")
    }
    assert all(run.parent_id == parent and run.metrics["loss"].count == 5 for run in children)

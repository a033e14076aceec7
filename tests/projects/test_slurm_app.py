"""Slurm in the app: the form, why a job waits, and its end, on a real cluster."""

from __future__ import annotations

from pathlib import Path

from tests.projects.launching import console, launch, wait_for_end, wait_until, write_project
from tests.projects.test_app_launch import jobs, play, shows, type_in, until
from textual.pilot import Pilot

from mltrack.tui.screens.jobs import JobsScreen
from mltrack.tui.screens.launch import LaunchScreen
from mltrack.tui.screens.run import RunScreen


def test_a_job_is_launched_waits_and_is_cancelled_by_keys(cluster: None, store_root: Path) -> None:
    store_root.mkdir()
    project = write_project(
        Path.cwd() / "demo",
        MLproject="name: demo\nentry_points:\n  main: {command: python wait.py}\n",
        wait_DOT_py="import time\nprint('waiting now', flush=True)\ntime.sleep(600)\n",
    )
    first = launch(project, "slurm", name="first", slurm={"nodes": "2", "gres": "gpu:2"})
    wait_until(lambda: "waiting now" in console(first), "it ran")

    async def story(pilot: Pilot[None]) -> None:
        await shows(pilot, "on n[1-2] (Slurm job")  # below the table: the run under the cursor
        await pilot.press("3")
        await shows(pilot, "main  slurm")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, LaunchScreen))
        await shows(pilot, "ready: 1 run as a job of Slurm")  # as the last time, with its settings
        await pilot.press("tab", "tab")
        await shows(pilot, "gpu:a100:1")
        for _ in range(8):
            if pilot.app.screen.rows.current == "S time":  # type: ignore[attr-defined]
                break
            await pilot.press("j")
        await pilot.press("enter")
        await type_in(pilot, "10")
        await until(pilot, lambda: "--slurm time=10" in ((pilot.app.screen.plan or {}).get("line") or ""))  # type: ignore[attr-defined]
        await pilot.press("d")
        await shows(pilot, "time 10")
        await pilot.press("q")
        await until(pilot, lambda: isinstance(pilot.app.screen, LaunchScreen))
        await pilot.press("r")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunScreen))
        await pilot.press("4")
        await until(pilot, lambda: isinstance(pilot.app.screen, JobsScreen))
        await shows(pilot, "Resources: waits until nodes are free")
        await shows(pilot, "on n[1-2] (Slurm job")
        waiting = next(job for job in pilot.app.screen.jobs if job["phase"] == "queued")  # type: ignore[attr-defined]
        rows = pilot.app.screen.rows  # type: ignore[attr-defined]
        for _ in range(2):
            if rows.current == waiting["run_id"]:
                break
            await pilot.press("j")
        assert rows.current == waiting["run_id"]
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunScreen))
        await pilot.press("q")
        await until(pilot, lambda: isinstance(pilot.app.screen, JobsScreen))
        await pilot.press("X")
        await shows(pilot, f"Cancel {waiting['run_name']}")
        await pilot.press("y")
        await shows(pilot, "cancelled")
        await until(pilot, lambda: rows.keys[:1] == [first])  # what goes on stands above what has ended
        await pilot.press("g")
        await until(pilot, lambda: rows.current == first)
        await pilot.press("X")
        await shows(pilot, "Stop first")
        await pilot.press("y")
        await shows(pilot, "nothing is running")

    play(store_root, story, (140, 30))
    assert wait_for_end(first).status == "KILLED"
    assert {wait_for_end(run_id).reason for run_id in jobs()} == {"cancelled"}

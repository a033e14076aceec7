"""Projects, Launch and Jobs by keys, on a real worker."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.projects.launching import console, state_of, wait_for_end, write_project
from textual.pilot import Pilot
from textual.widgets import Input

from mltrack.projects.jobs import list_jobs
from mltrack.store.client.location import choose_store
from mltrack.store.opening import open_store
from mltrack.tui.app import MltrackApp
from mltrack.tui.screens.dialogs import Prompt, Question
from mltrack.tui.screens.jobs import JobsScreen
from mltrack.tui.screens.launch import LaunchScreen
from mltrack.tui.screens.projects import ProjectsScreen
from mltrack.tui.screens.run import RunScreen
from mltrack.tui.screens.runs import RunsScreen

Story = Callable[[Pilot[None]], Awaitable[None]]


@pytest.fixture
def project(store_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in the working folder."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2] / "src"))
    return write_project(
        Path.cwd() / "demo",
        MLproject="""\
            name: demo
            entry_points:
              main:
                parameters: {lr: {type: float, default: 0.1}}
                command: "python train.py {lr}"
              wait: {command: "python wait.py"}
            """,
        train_DOT_py="""\
            import sys
            import mltrack
            with mltrack.start_run():
                mltrack.log_metric("loss", float(sys.argv[1]), step=0)
            print("trained with", sys.argv[1])
            """,
        wait_DOT_py="import time\nprint('waiting now')\ntime.sleep(600)\n",
    )


def text(pilot: Pilot[None]) -> str:
    strips = pilot.app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip).rstrip() for strip in strips)


async def until(pilot: Pilot[None], condition: Callable[[], Any]) -> Any:
    for _ in range(6000):
        value = condition()
        if value:
            return value
        await pilot.pause(0.01)
    raise AssertionError("it never came; on the screen:\n" + text(pilot))


async def shows(pilot: Pilot[None], words: str) -> None:
    await until(pilot, lambda: words in text(pilot))


async def type_in(pilot: Pilot[None], words: str) -> None:
    names = {
        "_": "underscore",
        "\\": "backslash",
        " ": "space",
        ".": "full_stop",
        "-": "minus",
        ",": "comma",
        "=": "equals_sign",
    }
    await pilot.press(*(names.get(letter, letter) for letter in words), "enter")


def play(root: Path, story: Story, size: tuple[int, int] = (80, 24)) -> None:
    async def run() -> None:
        app = MltrackApp(str(root), place=str(root))
        async with app.run_test(size=size) as pilot:
            await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen) and app.live.running)
            await story(pilot)

    asyncio.run(run())


def jobs() -> list[str]:
    return [job.job.run_id for job in list_jobs(choose_store().root)]


async def open_form(pilot: Pilot[None]) -> None:
    await pilot.press("3")
    await until(pilot, lambda: isinstance(pilot.app.screen, ProjectsScreen))
    await shows(pilot, "found here")
    await pilot.press("enter")
    await until(pilot, lambda: isinstance(pilot.app.screen, LaunchScreen))
    await until(pilot, lambda: isinstance(pilot.app.screen, LaunchScreen) and pilot.app.screen.form)


async def choose_local(pilot: Pilot[None]) -> None:
    """The backend's field, on the second tab."""
    await pilot.press("tab")
    for _ in range(4):
        await until(pilot, lambda: isinstance(pilot.app.screen, LaunchScreen) and pilot.app.screen.plan)
        if "in the environment that is there" in text(pilot):
            break
        await pilot.press("enter")
    await shows(pilot, "in the environment that is there")
    await pilot.press("shift+tab")


def test_change_the_learning_rate_and_run_it(project: Path, store_root: Path) -> None:
    store_root.mkdir()

    async def story(pilot: Pilot[None]) -> None:
        await open_form(pilot)
        await choose_local(pilot)
        await shows(pilot, "python train.py 0.1")
        await pilot.press("j", "j", "enter")
        await pilot.press("backspace", "backspace", "backspace")
        await type_in(pilot, "0.25")
        await shows(pilot, "python train.py 0.25")
        await pilot.press("d")
        await shows(pilot, "Dry run")
        line = f"mltrack --store {store_root} run {project} -e main -P lr=0.25 --backend local"
        assert line in " ".join(text(pilot).split())
        assert jobs() == []
        await pilot.press("q")
        await until(pilot, lambda: isinstance(pilot.app.screen, LaunchScreen))
        await pilot.press("g", "enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunScreen))
        await shows(pilot, "trained with 0.25")
        await pilot.press("4")
        await until(pilot, lambda: isinstance(pilot.app.screen, JobsScreen))
        await shows(pilot, "done")
        await pilot.press("r")  # again: the form, filled in
        await until(pilot, lambda: isinstance(pilot.app.screen, LaunchScreen))
        await shows(pilot, "python train.py 0.25")

    play(store_root, story, (140, 30))
    run = wait_for_end(jobs()[0])
    assert run.params == {"lr": "0.25"} and run.metrics["loss"].last == 0.25


def test_a_sweep_is_launched_watched_and_stopped(project: Path, store_root: Path) -> None:
    store_root.mkdir()

    async def story(pilot: Pilot[None]) -> None:
        await open_form(pilot)
        await choose_local(pilot)
        await pilot.press("j", "enter")  # the other entry point
        await shows(pilot, "python wait.py")
        await pilot.press("G", "enter")
        await type_in(pilot, "seed=0..2")
        await shows(pilot, "ready: 3 runs")
        assert "-P seed=0,1,2 --backend local" in " ".join(text(pilot).split())
        await pilot.press("r")
        await until(pilot, lambda: isinstance(pilot.app.screen, JobsScreen))
        await until(pilot, lambda: len(jobs()) == 4)
        await shows(pilot, "2 running  2 queued")
        parent = next(job["run_id"] for job in pilot.app.screen.jobs if job["backend"] == "sweep")  # type: ignore[attr-defined]
        child = next(
            job["run_id"]
            for job in pilot.app.screen.jobs  # type: ignore[attr-defined]
            if job["phase"] == "running" and job["backend"] == "local"
        )
        await until(pilot, lambda: "waiting now" in console(child))
        rows = pilot.app.screen.rows  # type: ignore[attr-defined]
        for _ in range(4):
            if rows.current == parent:
                break
            await pilot.press("j")
        assert rows.current == parent
        assert rows.keys[0] == parent, "the sweep stands above what belongs to it"
        for _ in range(4):
            if rows.current == child:
                break
            await pilot.press("j")
        await shows(pilot, "waiting now")  # what it printed last
        await pilot.press("g", "X")
        await shows(pilot, "Stop sweep")
        await pilot.press("y")
        await until(pilot, lambda: state_of(parent).ended)
        await shows(pilot, "nothing is running")
        await pilot.press("r")  # all of it again
        await until(pilot, lambda: isinstance(pilot.app.screen, LaunchScreen))
        await shows(pilot, "ready: 3 runs")

    play(store_root, story, (100, 24))
    with open_store() as store:
        store.refresh(None)
        assert {run.status for run in store.runs(jobs())} == {"KILLED"}


def test_what_cannot_work_is_said_in_one_line(project: Path, store_root: Path) -> None:
    store_root.mkdir()
    (project / "MLproject").write_text(
        "entry_points:\n  main:\n    parameters: {data: path}\n    command: ls {data}\n"
    )

    async def story(pilot: Pilot[None]) -> None:
        await open_form(pilot)
        await shows(pilot, "needs a value for data")
        await pilot.press("r")
        await shows(pilot, "There is no plan yet")
        await pilot.press("q", "a")
        await type_in(pilot, "nowhere")
        await shows(pilot, "There is no folder nowhere")

    play(store_root, story)
    assert jobs() == []


def test_what_is_typed_is_what_is_launched(project: Path, store_root: Path) -> None:
    """A comma that is meant, a secret that is not shown, and the same again by `r`."""
    store_root.mkdir()

    async def story(pilot: Pilot[None]) -> None:
        await open_form(pilot)
        await choose_local(pilot)
        for words in ("words=a\\,b", "api_key=hunter2hunter2"):
            await pilot.press("G", "enter")
            await type_in(pilot, words)
        await shows(pilot, "api_key")
        await shows(pilot, "ready: 1 run")
        assert "hunter2" not in text(pilot)
        await pilot.press("r")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunScreen))
        await shows(pilot, "trained with 0.1")
        await pilot.press("4")
        await shows(pilot, "done")
        await pilot.press("r")
        await until(pilot, lambda: isinstance(pilot.app.screen, LaunchScreen))
        await shows(pilot, "a\\,b")
        await shows(pilot, "was a secret and is not kept: type it again")

    play(store_root, story, (120, 30))
    run = wait_for_end(jobs()[0])
    assert run.params == {"lr": "0.1", "words": "a,b", "api_key": "***"}


def test_strange_code_is_asked_about_once_per_commit(project: Path, store_root: Path) -> None:
    for command in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run(["git", *command], cwd=project, check=True)
    store_root.mkdir()

    async def open_address(pilot: Pilot[None]) -> None:
        await pilot.press("3")
        await until(pilot, lambda: isinstance(pilot.app.screen, ProjectsScreen))
        await pilot.press("a")
        await until(pilot, lambda: isinstance(pilot.app.screen, Prompt))
        pilot.app.screen.query_one("#prompt", Input).value = f"file://{project}/.git@main"
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, LaunchScreen) and pilot.app.screen.plan)

    async def story(pilot: Pilot[None]) -> None:
        await open_address(pilot)
        await choose_local(pilot)
        await pilot.press("r")
        await until(pilot, lambda: isinstance(pilot.app.screen, Question))
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=project, capture_output=True, text=True, check=True
        )
        asked = " ".join(text(pilot).split())
        assert f"at {commit.stdout[:12]} is new here. It would run python train.py 0.1" in asked
        assert "Run its code? [y/N]" in asked
        await pilot.press("n")
        await until(pilot, lambda: isinstance(pilot.app.screen, LaunchScreen))
        assert jobs() == []
        await pilot.press("r")
        await until(pilot, lambda: isinstance(pilot.app.screen, Question))
        await pilot.press("y")
        await shows(pilot, "trained with 0.1")
        await open_address(pilot)
        await pilot.press("r")  # trusted now, also by the command
        await until(pilot, lambda: len(jobs()) == 2)
        assert not isinstance(pilot.app.screen, Question)

    play(store_root, story)
    assert {wait_for_end(run_id).status for run_id in jobs()} == {"FINISHED"}

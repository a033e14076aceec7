"""Keys in, state and lines out: the app on a real worker and a real store, without a terminal."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from tests.conftest import folder_of
from textual.pilot import Pilot

from mltrack.tui.app import MltrackApp
from mltrack.tui.clean import cell_width
from mltrack.tui.screens.help import HelpScreen
from mltrack.tui.screens.run import RunScreen
from mltrack.tui.screens.runs import RunsScreen
from mltrack.tui.screens.system import SystemScreen
from mltrack.tui.widgets.lines import Lines
from mltrack.tui.widgets.look import LastFilter, strip_of
from mltrack.tui.widgets.run_table import RunTable

Command = tuple[tuple[str, ...], dict[str, str]]
Story = Callable[[Pilot[None]], Awaitable[None]]
# Generous: a machine with other things to do takes long over each key.
_SECONDS = 60.0


@pytest.fixture(autouse=True)
def _worker_finds_the_package(command: Command, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PYTHONPATH", command[1]["PYTHONPATH"])
    yield


def play(store: str, story: Story, size: tuple[int, int] = (80, 24), **options: bool) -> None:
    """Open the app on a store, wait for its first rows, and do as the story says."""

    async def run() -> None:
        app = MltrackApp(store, place=store, **options)  # type: ignore[arg-type]  # only flags come here
        async with app.run_test(size=size) as pilot:
            await until(
                pilot, lambda: isinstance(pilot.app.screen, RunsScreen) and pilot.app.screen.view is not None
            )
            await story(pilot)

    asyncio.run(run())


async def until(pilot: Pilot[None], condition: Callable[[], object]) -> None:
    """Let messages and the worker go on until something is so."""
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        if condition():
            return
        await pilot.pause(0.005)
    raise AssertionError("it never came; on the screen:\n" + "\n".join(lines(pilot)))


def lines(pilot: Pilot[None]) -> list[str]:
    """The screen as text."""
    strips = pilot.app.screen._compositor.render_strips()
    return ["".join(segment.text for segment in strip).rstrip() for strip in strips]


def table(pilot: Pilot[None]) -> RunTable:
    return pilot.app.screen.query_one(RunTable)


def foot(pilot: Pilot[None]) -> str:
    return "".join(pilot.app.screen.query_one("#foot", Lines).text())


def test_the_first_screen(demo_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "───" in lines(pilot)[17])
        shown = lines(pilot)
        assert re.match(r" all experiments  79 runs  10● 61✓ 7✗ 1! .*live$", shown[0])
        assert re.match(r"   RUN +STATUS +(val/)?acc↑ .*loss↓ .*AGE$", shown[2])
        assert shown[-1].startswith(" enter open   / filter   space mark   s sort")
        assert shown[-2].startswith(" $ mltrack --store ")
        assert any("! damaged" in line for line in shown)
        assert max(map(cell_width, shown)) <= 80

    play(demo_store, story)


def test_filter_tells_the_place_and_keeps_what_was_shown(demo_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        await pilot.press("slash", *"opt.name = lion")
        await until(pilot, lambda: "14 of 79" in lines(pilot)[1])  # not what a half of it finds
        found = list(table(pilot).ids)
        await pilot.press(*" and (")
        await until(pilot, lambda: "^ The filter ends" in lines(pilot)[2])
        # Half a filter is no reason to hide what could stand at its cursor; who has left it reads the whole sentence.
        await until(pilot, lambda: "status" in foot(pilot))
        # The caret stands under the end of the text, where something is missing.
        assert lines(pilot)[2].index("^") == len(" / opt.name = lion and (")
        assert table(pilot).ids == found
        await pilot.press("enter")
        await until(pilot, lambda: re.search(r"filter ends.*\.", foot(pilot)))
        await pilot.press("escape")
        await until(pilot, lambda: "79 of 79" in lines(pilot)[1])
        await pilot.press("slash", *"no_such_key = 1", "enter")
        await until(pilot, lambda: "no run has" in lines(pilot)[2])
        assert "no_such_key" in lines(pilot)[2]
        # What is damaged stays in sight: it may be just what is looked for.
        await until(pilot, lambda: "0 of 79 + 1 damaged" in lines(pilot)[1])
        await pilot.press("q")
        await until(pilot, lambda: "79 of 79" in lines(pilot)[1])

    play(demo_store, story)


def test_sort_marks_and_aggregates_keep_the_cursor_on_its_run(demo_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        runs = table(pilot)
        await pilot.press("t")
        await until(pilot, lambda: len(runs.ids) == 79)
        await pilot.press("j", "j", "space", "j", "space")
        marked, here = set(runs.marks), runs.current
        assert len(marked) == 2
        before = list(runs.ids)
        await pilot.press("l", "l", "s")
        await until(pilot, lambda: list(runs.ids) != before)
        assert runs.current == here and runs.marks == marked
        assert "▼" in lines(pilot)[2]
        best_first = list(runs.ids)
        await pilot.press("g")
        await until(pilot, lambda: "★" in lines(pilot)[3])
        await pilot.press("s")
        await until(pilot, lambda: list(runs.ids) != best_first)
        await pilot.press("m")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen) and "best value" in foot(pilot))
        await pilot.press("A")
        assert len(runs.marks) == 79
        await pilot.press("A")
        assert not runs.marks
        await pilot.press("G")
        assert runs.row == 78
        await pilot.press("dollar_sign")
        assert runs.column == runs.layout_of_columns.order[-1].id
        await pilot.press("0")
        assert runs.column == "attribute:run"

    play(demo_store, story)


def test_help_shows_the_keys_and_goes_away(demo_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(pilot.app.screen, HelpScreen))
        await until(pilot, lambda: any("mark the run, move down" in line for line in lines(pilot)))
        await pilot.press("G")
        await until(pilot, lambda: any("run a shell command" in line for line in lines(pilot)))
        await pilot.press("q")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))

    play(demo_store, story)


def test_changes_ask_and_can_be_taken_back(small_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        runs = table(pilot)
        first = runs.current
        assert first is not None
        await pilot.press("R", *"-new", "enter")
        await until(pilot, lambda: runs.name_of(first).endswith("-new"))
        await pilot.press("u")
        await until(pilot, lambda: not runs.name_of(first).endswith("-new"))
        await pilot.press("U")
        await until(pilot, lambda: runs.name_of(first).endswith("-new"))
        await pilot.press("T", *"team=blue", "enter")
        await until(pilot, lambda: "Tagged" in foot(pilot))
        await pilot.press("slash", *"team = blue", "enter")
        await until(pilot, lambda: len(runs.ids) == 1)
        await pilot.press("escape")
        await until(pilot, lambda: len(runs.ids) == 3)
        # Enter is no: the default of a question that destroys.
        await pilot.press("D", "enter")
        await pilot.press("A", "D")
        await until(
            pilot,
            lambda: any(
                "Delete 3 runs of alice, bob, carol to trash" in line and "[y/N]" in line
                for line in lines(pilot)
            ),
        )
        await pilot.press("y")
        await until(pilot, lambda: len(runs.ids) == 0)
        await pilot.press("u")
        await until(pilot, lambda: len(runs.ids) == 3)

    play(small_store, story)


def test_readonly_says_why(small_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        assert "read-only" in lines(pilot)[0]
        await pilot.press("T", "x", "enter")
        await until(pilot, lambda: "read-only" in foot(pilot))

    play(small_store, story, readonly=True)


def test_new_runs_arrive_without_moving_the_cursor(small_store: str, command: Command) -> None:
    async def story(pilot: Pilot[None]) -> None:
        runs = table(pilot)
        await pilot.press("j")
        here = runs.current
        code = (
            "import mltrack\nwith mltrack.start_run(name='newcomer'): mltrack.log_metric('loss', .5, step=1)"
        )
        log = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            code,
            env={**command[1], "MLTRACK_STORE": small_store},
            stdout=subprocess.DEVNULL,
        )
        assert await log.wait() == 0
        await until(pilot, lambda: any("newcomer" in line for line in lines(pilot)))
        assert runs.current == here
        assert runs.row == 2

    play(small_store, story)


def test_a_worker_that_dies_is_started_again(small_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        app = pilot.app
        assert isinstance(app, MltrackApp)
        before = app.live.pid
        assert before is not None
        os.kill(before, signal.SIGKILL)
        await until(pilot, lambda: "started again" in foot(pilot))
        assert app.live.pid not in (None, before)
        runs = table(pilot)
        await pilot.press("slash", *"status = running", "enter")
        await until(pilot, lambda: len(runs.ids) == 0)

    play(small_store, story)


@pytest.mark.parametrize("size", [(20, 5), (40, 12), (200, 50)])
def test_any_size_will_do(demo_store: str, size: tuple[int, int]) -> None:
    async def story(pilot: Pilot[None]) -> None:
        await pilot.press("G", "l", "l", "s", "enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunScreen))
        await pilot.press("l", "plus", "tab", "tab", "tab", "q")
        await pilot.resize_terminal(80, 24)
        await pilot.resize_terminal(*size)
        assert max(map(cell_width, lines(pilot))) <= size[0]

    play(demo_store, story, size)


def test_ascii_draws_nothing_else(demo_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "---" in lines(pilot)[17])
        assert all(line.isascii() for line in lines(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunScreen))
        assert all(line.isascii() for line in lines(pilot))

    play(demo_store, story, ascii_only=True)
    play(demo_store, _nothing)  # back to the usual characters for the tests that follow


async def _nothing(pilot: Pilot[None]) -> None:
    return


HOSTILE = "a\x1b]52;c;eA==\x07b\x9b31m\u202ec[@click='app.exit']d[/]\ne"


def test_whatever_becomes_cells_is_harmless() -> None:
    strip = strip_of(((HOSTILE, ""),), 60)
    text = "".join(segment.text for segment in strip)
    assert len(text) == 60 and text.isprintable() and "[@click='app.exit']" in text


def test_the_last_filter_lets_no_control_character_out() -> None:
    from rich.segment import Segment
    from textual.color import Color

    (segment,) = LastFilter().apply([Segment(HOSTILE)], Color(0, 0, 0))
    assert segment.text.isprintable()


def test_a_damaged_run_opens_where_it_says_why(demo_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        # The newest run of the demo is the damaged one.
        await pilot.press("g", "enter")
        await until(
            pilot, lambda: isinstance(pilot.app.screen, RunScreen) and "[Overview]" in lines(pilot)[2]
        )
        await until(pilot, lambda: any("is not a journal header" in line for line in lines(pilot)))
        assert "Charts" not in lines(pilot)[2]
        # Who goes on meant the charts all along.
        for _ in range(3):
            await pilot.press("J")
        await until(pilot, lambda: "ddp-bee-64" in lines(pilot)[0] and "[Charts" in lines(pilot)[2])

    play(demo_store, story)


def test_o_opens_what_lies_outside_or_says_where(
    demo_store: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = tmp_path / "asked"
    for name in ("xdg-open", "browser"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho {name} "$@" > {asked}.new && mv {asked}.new {asked}\n')
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)

    async def story(pilot: Pilot[None]) -> None:
        # sage-owl-41 has files, and a commit of a repository with an address.
        await pilot.press("slash", *"name = sage-owl-41", "enter")
        await until(pilot, lambda: table(pilot).name_of(str(table(pilot).current)) == "sage-owl-41")
        folder = f"{folder_of(demo_store)}/runs/"
        await pilot.press("o")
        await until(pilot, lambda: "The run's folder: /" in foot(pilot) and "no desktop here" in foot(pilot))
        monkeypatch.setenv("DISPLAY", ":77")
        await pilot.press("o")
        await until(pilot, lambda: "(opened with xdg-open)" in foot(pilot))
        await until(pilot, asked.exists)
        assert asked.read_text().startswith(f"xdg-open {folder}")
        monkeypatch.setenv("BROWSER", "browser")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunScreen) and pilot.app.screen.page)
        await pilot.press("shift+tab", "shift+tab")
        await until(pilot, lambda: "[Code" in lines(pilot)[2])
        await pilot.press("o")
        await until(pilot, lambda: "(opened with browser)" in foot(pilot))
        await until(
            pilot, lambda: asked.read_text().startswith("browser https://example.org/vision/cifar/commit/")
        )
        await pilot.press("5")
        await until(pilot, lambda: isinstance(pilot.app.screen, SystemScreen))
        await pilot.press("o")
        await until(pilot, lambda: "There is nothing here that lies in a folder" in foot(pilot))

    play(demo_store, story, (160, 30))

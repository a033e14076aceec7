"""Keys in, state and lines out: the app on a real worker and a real store, without a terminal."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator

import pytest
from textual.pilot import Pilot

from mltrack.tui.app import MltrackApp
from mltrack.tui.clean import cell_width
from mltrack.tui.screens.help import HelpScreen
from mltrack.tui.screens.run import RunScreen
from mltrack.tui.screens.runs import RunsScreen
from mltrack.tui.widgets.charts import Charts
from mltrack.tui.widgets.lines import Lines
from mltrack.tui.widgets.look import LastFilter, parse_printed, strip_of
from mltrack.tui.widgets.run_table import RunTable

Command = tuple[tuple[str, ...], dict[str, str]]
Story = Callable[[Pilot[None]], Awaitable[None]]
_MANY = 3000


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
    for _ in range(_MANY):
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
    return pilot.app.screen.query_one("#foot", Lines).text()[0]


def test_the_first_screen(demo_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "───" in lines(pilot)[17])
        shown = lines(pilot)
        assert re.match(r" mltrack .*66 runs .*6● running 52✓ done", shown[0])
        assert re.match(r"   RUN +STATUS +val/acc↑ .*train/loss↓ .*AGE$", shown[2])
        assert shown[-1].startswith(" enter open   / filter   space mark   s sort")
        assert shown[-2].startswith(" $ mltrack --store ")
        assert any("! damaged" in line for line in shown)
        assert max(map(len, shown)) <= 80

    play(demo_store, story)


def test_filter_tells_the_place_and_keeps_what_was_shown(demo_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        await pilot.press("slash", *"opt.name = lion")
        await until(pilot, lambda: 0 < len(table(pilot).ids) < 66)
        found = list(table(pilot).ids)
        await pilot.press(*" and (")
        await until(pilot, lambda: lines(pilot)[2].lstrip().startswith("^") and "filter ends" in foot(pilot))
        # The caret stands under the end of the text, where something is missing.
        assert lines(pilot)[2].index("^") == len(" / opt.name = lion and (")
        assert table(pilot).ids == found
        await pilot.press("escape")
        await until(pilot, lambda: len(table(pilot).ids) == 66)
        await pilot.press("slash", *"no_such_key = 1", "enter")
        await until(pilot, lambda: "no run has" in lines(pilot)[2])
        assert "no_such_key" in lines(pilot)[2]
        await until(pilot, lambda: any("No run matches" in line for line in lines(pilot)))
        await pilot.press("q")
        await until(pilot, lambda: len(table(pilot).ids) == 66)

    play(demo_store, story)


def test_sort_marks_and_aggregates_keep_the_cursor_on_its_run(demo_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        runs = table(pilot)
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
        await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen) and "last" in foot(pilot))
        await pilot.press("A")
        assert len(runs.marks) == 66
        await pilot.press("A")
        assert not runs.marks
        await pilot.press("G")
        assert runs.row == 65
        await pilot.press("dollar_sign")
        assert runs.column == runs._order[-1].id
        await pilot.press("0")
        assert runs.column == ("attribute", "run")

    play(demo_store, story)


def test_help_shows_the_keys_and_goes_away(demo_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(pilot.app.screen, HelpScreen))
        await until(pilot, lambda: any("mark the run, move down" in line for line in lines(pilot)))
        await pilot.press("G")
        await until(pilot, lambda: any("take back the last change" in line for line in lines(pilot)))
        await pilot.press("q")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))

    play(demo_store, story)


def test_a_run_its_charts_and_one_cursor_through_them(demo_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        await pilot.press("slash", *"val/acc.max > .93 and status = running", "enter")
        await until(pilot, lambda: len(table(pilot).ids) == 1)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunScreen))
        charts = pilot.app.screen.query_one(Charts)
        await until(pilot, lambda: charts.series and charts.series[0].came)
        shown = lines(pilot)
        assert "sage-owl-41" in shown[0] and "41%" in shown[1]
        assert any(re.search(r"val/acc↑ .*max \.9312 @4,200", line) for line in shown)
        assert any("⠉" in line or "⣀" in line for line in shown), "curves are there"
        await pilot.press("l")
        end = charts.cursor
        assert end == charts._ends()[1]
        await pilot.press("h", "h")
        assert charts.cursor is not None and end is not None and charts.cursor < end
        assert "step " in charts.text()[-1] and "val/acc" in charts.text()[-1]
        assert sum("│" in line[10:] for line in charts.text()) > 5
        await pilot.press("plus", "plus")
        assert charts.window is not None and charts.window[0] <= charts.cursor <= charts.window[1]
        await pilot.press("0", "s", "y", "i")
        assert charts.window is None
        await until(pilot, lambda: charts.series[0].smooth is not None)
        assert any("log" in line and "smooth .6" in line for line in charts.text())
        await pilot.press("j", "enter")
        assert charts.full and charts.chosen == 1
        await pilot.press("escape", "escape")
        assert charts.cursor is None and not charts.full
        await pilot.press("tab")
        await until(pilot, lambda: any("batch_size" in line for line in lines(pilot)))
        await pilot.press("tab")
        # The log is open at its end.
        await until(pilot, lambda: "41000 INFO" in lines(pilot)[-3])
        await pilot.press("tab")
        await until(pilot, lambda: any("METRIC" in line or "command" in line for line in lines(pilot)))
        await pilot.press("escape")
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
        await until(pilot, lambda: any("Put 3 runs" in line and "[y/N]" in line for line in lines(pilot)))
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
        await pilot.press("j", "l", "l", "s", "enter")
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


def test_colours_of_the_command_become_styles() -> None:
    assert parse_printed("\x1b[1mname\x1b[0m  rest\n\x1b[33m? quiet\x1b[0m") == [
        (("name", "bold"), ("  rest", "")),
        (("? quiet", "yellow"), ("", "")),
    ]

"""Every key of the table on every screen: nothing crashes, help names it, and the palette does it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.screen import Screen

from mltrack.tui.app import MltrackApp
from mltrack.tui.clipboard import copy_file
from mltrack.tui.config import Config
from mltrack.tui.keys import KEYS, TOGETHER, Key, keys_of
from mltrack.tui.screens.base import BaseScreen
from mltrack.tui.screens.compare import CompareScreen
from mltrack.tui.screens.help import HelpScreen
from mltrack.tui.screens.run import RunScreen
from mltrack.tui.screens.runs import RunsScreen
from mltrack.tui.screens.system import SystemScreen
from mltrack.tui.screens.text import TextScreen
from mltrack.tui.widgets.compare_table import CompareTable
from mltrack.tui.widgets.run_table import RunTable

Command = tuple[tuple[str, ...], dict[str, str]]
Story = Callable[[Pilot[None]], Awaitable[None]]
# These end the app, or give the terminal away; tests of a real terminal press them.
LEAVES = {"quit_now", "suspend"}


@pytest.fixture(autouse=True)
def _surroundings(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("PYTHONPATH", command[1]["PYTHONPATH"])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("TMUX", raising=False)
    monkeypatch.setenv("EDITOR", "true")
    monkeypatch.chdir(tmp_path)
    yield


async def until(pilot: Pilot[None], condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if condition():
            return
        await pilot.pause(0.005)
    raise AssertionError("it never came; on the screen:\n" + text(pilot))


def text(pilot: Pilot[None]) -> str:
    strips = pilot.app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip).rstrip() for strip in strips)


def play(store: str, story: Story, size: tuple[int, int] = (80, 24), config: Config | None = None) -> None:
    async def run() -> None:
        app = MltrackApp(store, place=store, readonly=True, config=config)
        async with app.run_test(size=size) as pilot:
            await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen) and pilot.app.screen.view)
            await story(pilot)

    asyncio.run(run())


async def to_runs(pilot: Pilot[None]) -> None:
    table = pilot.app.screen.query_one(RunTable)
    await pilot.press("escape") if table.marks else None


async def to_experiments(pilot: Pilot[None]) -> None:
    await pilot.press("tab")


async def to_run(pilot: Pilot[None]) -> None:
    await pilot.press("slash", *"calm-elk-12", "enter")
    await until(
        pilot, lambda: len(pilot.app.screen.query_one(RunTable).ids) <= 3
    )  # its parent, itself, the damaged one
    table = pilot.app.screen.query_one(RunTable)
    while (row := table.known(table.current)) is None or row["name"] != "calm-elk-12":
        await pilot.press("j")
    await pilot.press("enter")
    await until(pilot, lambda: isinstance(pilot.app.screen, RunScreen) and pilot.app.screen.page)


async def to_log(pilot: Pilot[None]) -> None:
    await to_run(pilot)
    for _ in range(8):
        if "log" in focuses(pilot):
            break
        await pilot.press("tab")
    assert "log" in focuses(pilot)


async def to_params(pilot: Pilot[None]) -> None:
    await to_run(pilot)
    for _ in range(8):
        if "text" in focuses(pilot):
            break
        await pilot.press("tab")
    assert "text" in focuses(pilot)


async def to_compare(pilot: Pilot[None]) -> None:
    table = pilot.app.screen.query_one(RunTable)
    if len(table.ids) < 20:
        await pilot.press("t")
        await until(pilot, lambda: len(table.ids) > 20)
    await pilot.press("g", "j", "space", "space", "c")
    assert len(table.marks) == 2
    await until(pilot, lambda: isinstance(pilot.app.screen, CompareScreen) and pilot.app.screen.page)


async def to_overlay(pilot: Pilot[None]) -> None:
    await to_compare(pilot)
    await pilot.press("tab")


async def to_system(pilot: Pilot[None]) -> None:
    await pilot.press("5")
    await until(pilot, lambda: isinstance(pilot.app.screen, SystemScreen) and "MEMORY" in text(pilot))


async def to_help(pilot: Pilot[None]) -> None:
    await pilot.press("question_mark")


async def to_models(pilot: Pilot[None]) -> None:
    await pilot.press("2")
    await until(pilot, lambda: "models" in focuses(pilot))


PLACES: dict[str, Callable[[Pilot[None]], Awaitable[None]]] = {
    "runs": to_runs,
    "experiments": to_experiments,
    "run": to_run,
    "log": to_log,
    "text": to_params,
    "compare_rows": to_compare,
    "overlay": to_overlay,
    "system": to_system,
    "actions": to_help,
    "models": to_models,
}


def focuses(pilot: Pilot[None]) -> tuple[str, ...]:
    screen = pilot.app.screen
    return screen.focuses() if isinstance(screen, BaseScreen) else ()


async def come_back(pilot: Pilot[None], stack: list[Screen[Any]]) -> None:
    """Out of questions and screens that a key opened, to where it was pressed."""
    for _ in range(12):
        if pilot.app.screen_stack == stack:
            return
        if len(pilot.app.screen_stack) < len(stack):
            return
        await pilot.press("escape")
        await pilot.pause()
    raise AssertionError(f"no way back from {pilot.app.screen!r}:\n{text(pilot)}")


# Pressing all keys everywhere takes minutes: most places have their turn in .ci/long.
QUICK = ("runs", "experiments", "system", "actions")


@pytest.mark.parametrize(
    "place", [place if place in QUICK else pytest.param(place, marks=pytest.mark.long) for place in PLACES]
)
def test_every_key_acts_or_says_why(demo_store: str, place: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        await PLACES[place](pilot)
        here = focuses(pilot)
        assert any(set(here) <= set(together) for together in TOGETHER), here
        for key in list(keys_of(*here)):  # type: ignore[arg-type]  # focuses of the screen
            if key.id in LEAVES or (key.id == "back" and len(pilot.app.screen_stack) == 1):
                continue
            for name in key.keys:
                stack = list(pilot.app.screen_stack)
                await pilot.press(name)
                await pilot.pause()
                assert pilot.app._exception is None, (place, key.id, name)
                await come_back(pilot, stack)
                if focuses(pilot) != here:
                    while len(pilot.app.screen_stack) > 1:
                        pilot.app.pop_screen()
                        await pilot.pause()
                    runs = pilot.app.screen
                    assert isinstance(runs, RunsScreen)
                    await fresh(pilot, runs)
                    await PLACES[place](pilot)
                    assert focuses(pilot) == here, (place, key.id, name)

    play(demo_store, story)


async def fresh(pilot: Pilot[None], runs: RunsScreen) -> None:
    """The table as it was at first."""
    for _ in range(6):
        if not runs.filter_text and focuses(pilot)[0] == "runs":
            break
        await pilot.press("escape")
    runs.table.marks.clear()
    await until(pilot, lambda: len(runs.table.ids) > 10)


def test_help_and_palette_offer_every_action(demo_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        runs = pilot.app.screen
        assert isinstance(runs, RunsScreen)
        for place in PLACES:
            if place != "actions":
                await offered_at(pilot, place)
                while len(pilot.app.screen_stack) > 2:
                    pilot.app.pop_screen()
                    await pilot.pause()
                await fresh(pilot, runs)

    async def offered_at(pilot: Pilot[None], place: str) -> None:
        await PLACES[place](pilot)
        here = focuses(pilot)
        for opener in ("question_mark", "colon"):
            await pilot.press(opener)
            screen = pilot.app.screen
            assert isinstance(screen, HelpScreen)
            offered = {row.key.id for row in screen.actions.rows if row.key is not None}
            assert offered == {key.id for key in keys_of(*here)}  # type: ignore[arg-type]
            assert all(":" in row.line[0][0] for row in screen.actions.rows if row.typed)
            await pilot.press("escape")
            await until(pilot, lambda: focuses(pilot) == here)

    play(demo_store, story)


@pytest.mark.long
def test_the_palette_does_what_is_chosen(demo_store: str, tmp_path: Path) -> None:
    async def story(pilot: Pilot[None]) -> None:
        app = pilot.app
        await pilot.press("colon", *"mark the run", "enter")
        table = app.screen.query_one(RunTable)
        assert len(table.marks) == 1
        await pilot.press("colon", *"5", "enter")
        await until(pilot, lambda: table.row == 4)
        await pilot.press("colon", *"theme light", "enter")
        assert app.theme == "mltrack-light"
        await pilot.press("colon", *"theme neon", "enter")
        await until(pilot, lambda: "no theme 'neon'" in text(pilot))
        await pilot.press("colon", "t", "h", "tab", *"dark", "enter")
        assert app.theme == "mltrack-dark"
        await pilot.press("colon", *"zzzz", "enter")
        await until(pilot, lambda: "Nothing is called so" in text(pilot))
        await pilot.press("escape")
        await pilot.press("colon", *"w runs.csv", "enter")
        await until(pilot, lambda: (tmp_path / "runs.csv").exists())
        rows = (tmp_path / "runs.csv").read_text().splitlines()
        assert rows[0].startswith("run_id,run,status") and len(rows) == 1 + len(table.ids)
        await pilot.press("colon", *"w runs.csv", "enter")
        await until(pilot, lambda: "nothing was overwritten" in text(pilot))
        await pilot.press("question_mark", "slash", *"gpu", "enter")
        await until(pilot, lambda: isinstance(app.screen, SystemScreen))
        await pilot.press("colon", "q", "enter")
        await until(pilot, lambda: not app.is_running or app._exit)

    play(demo_store, story)


@pytest.mark.long
def test_copying_says_where_it_went(demo_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        table = pilot.app.screen.query_one(RunTable)
        await pilot.press("j", "y")
        await until(pilot, lambda: "copied.txt" in text(pilot))
        assert copy_file().read_text() == table.current
        await pilot.press("Y")
        await until(pilot, lambda: copy_file().read_text().startswith("| run_id"))
        assert len(copy_file().read_text().splitlines()) == 2 + len(table.ids)
        await to_compare(pilot)
        await pilot.press("y")
        value = pilot.app.screen.query_one(CompareTable).cell
        await until(pilot, lambda: copy_file().read_text() == value)
        await pilot.press("Y")
        await until(pilot, lambda: "| metrics" in copy_file().read_text())

    play(demo_store, story)


def test_undo_takes_back_marks_and_then_decisions(small_store: str) -> None:
    async def run() -> None:
        app = MltrackApp(small_store, place=small_store)
        async with app.run_test(size=(80, 24)) as pilot:
            await until(pilot, lambda: isinstance(app.screen, RunsScreen) and app.screen.view)
            table = app.screen.query_one(RunTable)
            await pilot.press("space", "space")
            two = set(table.marks)
            await pilot.press("T", *"keep", "enter")
            await until(pilot, lambda: "u takes it back" in text(pilot))
            await pilot.press("A")
            assert len(table.marks) == 3
            await pilot.press("u")
            assert table.marks == two
            await pilot.press("u")
            await until(pilot, lambda: "Undid" in text(pilot))
            assert table.marks == two, "the decision was taken back, not the marks before it"
            await pilot.press("u")
            assert len(table.marks) == 1
            await pilot.press("U")
            assert table.marks == two

    asyncio.run(run())


def test_own_keys_act_and_are_shown(demo_store: str) -> None:
    config = Config(keys={"mark_all": ("ctrl+a", "Z")}, troubles=("config.toml: there is no action 'x'.",))

    async def story(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "there is no action 'x'" in text(pilot))
        table = pilot.app.screen.query_one(RunTable)
        await pilot.press("A")
        assert not table.marks
        await pilot.press("Z")
        assert table.marks
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(pilot.app.screen, HelpScreen))
        await pilot.press("slash", *"mark all")
        await until(pilot, lambda: "ctrl+a Z" in text(pilot))

    play(demo_store, story, config=config)


def test_digits_go_to_screens_from_anywhere(demo_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        await to_run(pilot)
        await pilot.press("5")
        assert isinstance(pilot.app.screen, SystemScreen) and len(pilot.app.screen_stack) == 2
        await pilot.press("1")
        assert isinstance(pilot.app.screen, RunsScreen)

    play(demo_store, story)


def test_what_changes_something_has_a_twin_at_the_prompt() -> None:
    """Capital letters and `e` change what others see; each says how the command line does it."""
    changes = [
        key for key in KEYS if any(name in ("T", "R", "D", "X", "P", "B", "M", "e") for name in key.keys)
    ]
    assert [key.id for key in changes if not key.twin] == []
    words = {
        key.twin.split()[1]
        for key in KEYS
        if key.twin.startswith("mltrack ") and key.twin.split()[1][0] != "-"
    }
    from mltrack.tui.cli.main import COMMANDS

    known = {name for group in COMMANDS.values() for name in group}
    assert words <= known


def test_a_key_is_shown_as_people_write_it() -> None:
    assert Key("x", ("question_mark", "ctrl+d", "dollar_sign"), "runs", "x").shown == "? ctrl+d $"
    assert TextScreen("t", []).focuses() == ("text", "everywhere")

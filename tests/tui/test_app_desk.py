"""What the desk does behind keys and `:`, on a real worker and the demo store."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from tests.conftest import folder_of
from textual.pilot import Pilot

from mltrack.store import open_store
from mltrack.tui.app import MltrackApp
from mltrack.tui.commands import COMMANDS, parse_command
from mltrack.tui.screens.compare import CompareScreen
from mltrack.tui.screens.dialogs import Question
from mltrack.tui.screens.run import RunScreen
from mltrack.tui.screens.runs import RunsScreen
from mltrack.tui.screens.text import TextScreen
from mltrack.tui.screens.tidy import TIDYING

Command = tuple[tuple[str, ...], dict[str, str]]
Story = Callable[[Pilot[None]], Awaitable[None]]


@pytest.fixture(autouse=True)
def _worker_finds_the_package(command: Command, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PYTHONPATH", command[1]["PYTHONPATH"])
    yield


async def until(pilot: Pilot[None], condition: Callable[[], object]) -> None:
    for _ in range(6000):
        if condition():
            return
        await pilot.pause(0.005)
    raise AssertionError("it never came; on the screen:\n" + text(pilot))


def text(pilot: Pilot[None]) -> str:
    strips = pilot.app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip).rstrip() for strip in strips)


def play(store: str, story: Story, size: tuple[int, int] = (100, 30)) -> None:
    async def run() -> None:
        app = MltrackApp(store, place=store)
        async with app.run_test(size=size) as pilot:
            await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen) and pilot.app.screen.view)
            await story(pilot)

    asyncio.run(run())


async def type_command(pilot: Pilot[None], words: str) -> None:
    """Type a command behind `:` as a person does."""
    names = {
        " ": "space",
        "/": "slash",
        "-": "minus",
        ".": "full_stop",
        "_": "underscore",
        ",": "comma",
        "=": "equals_sign",
    }
    await pilot.press("colon", *(names.get(letter, letter) for letter in words), "enter")


def test_r_shows_the_command_before_it_runs_again_and_checkout_says_why_not(
    demo_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    async def story(pilot: Pilot[None]) -> None:
        await pilot.press("slash", *"sage-owl-41", "enter")
        await until(pilot, lambda: "1 of" in text(pilot))
        await pilot.press("r")
        await until(pilot, lambda: isinstance(pilot.app.screen, Question))
        await until(pilot, lambda: "again: python train.py" in text(pilot))
        await pilot.press("n")
        await type_command(pilot, "checkout out")
        # The story's commits are nowhere.
        await until(pilot, lambda: "cannot be had" in text(pilot))

    play(demo_store, story)


def test_the_server_for_mlflows_clients_is_started_looked_for_and_ended(small_store: str) -> None:
    from mltrack.store.mlflow_api import background

    store = folder_of(small_store)

    async def story(pilot: Pilot[None]) -> None:
        await type_command(pilot, "server")
        await until(pilot, lambda: "No server of this store runs" in text(pilot))
        await type_command(pilot, "server start 0")
        await until(pilot, lambda: isinstance(pilot.app.screen, TextScreen))
        there = background.running(store)
        assert there is not None
        await until(pilot, lambda: f"export MLFLOW_TRACKING_URI={there.address}" in text(pilot))
        with urllib.request.urlopen(f"{there.address}/health", timeout=20) as answer:
            assert answer.read() == b"OK"
        await pilot.press("escape")
        await type_command(pilot, "server stop")
        await until(pilot, lambda: "Ended the server" in text(pilot))
        assert background.running(store) is None

    try:
        play(small_store, story)
    finally:
        if background.running(store) is not None:
            background.stop(store)


def test_w_writes_a_report_of_marked_runs_and_a_figure_of_a_chart(
    demo_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page, figure = Path("r.html"), Path("f.pdf")

    async def story(pilot: Pilot[None]) -> None:
        await pilot.press("j", "j", "space", "space")
        await type_command(pilot, f"w {page}")
        await until(pilot, lambda: "Wrote a report of 2 runs" in text(pilot))
        await type_command(pilot, f"w {figure}")
        await until(pilot, lambda: "A pdf holds a chart" in text(pilot))
        await pilot.press("c")
        await until(pilot, lambda: isinstance(pilot.app.screen, CompareScreen) and pilot.app.screen.page)
        await pilot.press("tab")
        await type_command(pilot, f"w {figure}")
        await until(pilot, lambda: "Wrote " in text(pilot))
        await type_command(pilot, f"w {page}")
        await until(pilot, lambda: "is there already" in text(pilot))

    play(demo_store, story)
    assert page.read_text().count("<svg") >= 3 and "https://" not in page.read_text()
    assert figure.read_bytes().startswith(b"%PDF-1.4")


def test_what_is_carried_out_can_be_typed() -> None:
    assert {command.name for command in COMMANDS} >= {*TIDYING, "diff", "group", "view", "plot", "alerts"}
    assert parse_command("diff") is not None and parse_command(":diff a/b.yaml") is not None
    assert parse_command("move") is None and parse_command("restore") is None


def test_runs_move_go_and_come_back_by_words(own_demo: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        await pilot.press("slash", *"calm-elk-12", "enter")
        await until(pilot, lambda: "1 of" in text(pilot))
        await type_command(pilot, "move other/place")
        await until(pilot, lambda: "to other/place" in text(pilot))
        await type_command(pilot, "restore calm-elk-12")
        await until(pilot, lambda: "calm-elk-12 is not in the trash" in text(pilot))
        await type_command(pilot, "trash")
        await until(pilot, lambda: "The trash is empty" in text(pilot))
        await pilot.press("q", "D")
        await until(pilot, lambda: isinstance(pilot.app.screen, Question))
        await pilot.press("y")
        await until(pilot, lambda: "to the trash" in text(pilot))
        await type_command(pilot, "trash")
        await until(pilot, lambda: "calm-elk-12" in text(pilot) and ":restore NAME" in text(pilot))
        assert "other/place" in text(pilot)
        await pilot.press("q")
        await type_command(pilot, "restore calm-elk-12")
        await until(pilot, lambda: "Restored" in text(pilot))
        for said in ("Undid: Restored", "Undid: Moved", "Undid: Moved"):
            await pilot.press("u")
            await until(pilot, lambda said=said: said in text(pilot))  # type: ignore[misc]

    play(own_demo, story)


def test_a_run_is_stopped_and_noted_from_its_own_screen(
    demo_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    async def story(pilot: Pilot[None]) -> None:
        await pilot.press("slash", *"calm-elk-12", "enter")
        await until(pilot, lambda: "1 of" in text(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunScreen) and "Charts" in text(pilot))
        await pilot.press("X")
        await until(pilot, lambda: "calm-elk-12 is not running" in text(pilot))
        await pilot.press("e")
        await until(pilot, lambda: "At a prompt: mltrack note" in text(pilot))

    play(demo_store, story)


def test_a_run_is_tagged_named_pinned_and_put_into_the_trash_from_its_own_screen(
    own_demo: str,
) -> None:
    async def story(pilot: Pilot[None]) -> None:
        await pilot.press("slash", *"calm-elk-12", "enter")
        runs = pilot.app.screen
        assert isinstance(runs, RunsScreen)
        await until(pilot, lambda: runs.view and runs.view["found"] == 1)
        await until(pilot, lambda: runs.table.current is not None)
        run_id = str(runs.table.current)
        runs.table.marks.add(run_id)
        await pilot.press("enter")
        run = pilot.app.screen
        assert isinstance(run, RunScreen)
        await until(pilot, lambda: run.page)
        await pilot.press("T", *"good", "enter")
        await until(pilot, lambda: "Tagged" in text(pilot) and "u takes it back" in text(pilot))
        await pilot.press("R", "end", *"x", "enter")
        await until(pilot, lambda: run.page and run.page["name"] == "calm-elk-12x")
        await pilot.press("p")
        assert runs.saved.pins == [run_id]
        await pilot.press("p")
        assert runs.saved.pins == []
        await pilot.press("P")
        await until(pilot, lambda: run.page and run.page["pinned"])
        await pilot.press("P")
        await until(pilot, lambda: run.page and not run.page["pinned"])
        await pilot.press("M")
        await until(pilot, lambda: "The run has no model" in text(pilot))
        await pilot.press("r")
        await until(pilot, lambda: isinstance(pilot.app.screen, Question))
        await until(pilot, lambda: "Run calm-elk-12x again" in text(pilot))
        await pilot.press("n", "D")
        await until(pilot, lambda: isinstance(pilot.app.screen, Question))
        await until(pilot, lambda: "Delete calm-elk-12x of" in text(pilot))
        await pilot.press("y")
        await until(pilot, lambda: "in the trash" in text(pilot))
        await pilot.press("u")
        await until(pilot, lambda: run.page and "in the trash" not in run.page["sentence"])
        await until(pilot, lambda: "calm-elk-12x" in text(pilot))
        await pilot.press("escape", "u")
        await until(pilot, lambda: "1 marked, as before" in text(pilot))
        await pilot.press("u")
        await until(pilot, lambda: "Undid: Unpinned" in text(pilot))

    play(own_demo, story)


def test_marked_runs_are_purged_and_the_store_is_cleaned_up_from_the_app(
    own_demo: str,
) -> None:
    purged: list[str] = []

    async def story(pilot: Pilot[None]) -> None:
        await type_command(pilot, "purge marked")
        await until(pilot, lambda: "No run is marked" in text(pilot))
        await pilot.press("slash", *"sage-owl-41", "enter")
        await until(pilot, lambda: "1 of" in text(pilot))
        await pilot.press("space")
        await type_command(pilot, "purge marked")
        await until(pilot, lambda: "sage-owl-41 is still running" in text(pilot))
        runs = pilot.app.screen
        assert isinstance(runs, RunsScreen)
        runs.table.marks.clear()
        await pilot.press("escape", "slash", *"calm-elk-12", "enter")
        await until(
            pilot, lambda: runs.table.current and runs.table.name_of(runs.table.current) == "calm-elk-12"
        )
        gone = str(runs.table.current)
        await pilot.press("space")
        await type_command(pilot, "purge marked")
        await until(pilot, lambda: "Type purge:" in text(pilot) and "gone for good" in text(pilot))
        assert "1 run of" in text(pilot)
        await pilot.press(*"purge", "enter")
        await until(pilot, lambda: "Purged" in text(pilot))
        assert not runs.table.marks
        purged.append(gone)
        await type_command(pilot, "gc journals")
        await until(pilot, lambda: isinstance(pilot.app.screen, Question))
        await until(pilot, lambda: "only backups can replace" in text(pilot))
        await pilot.press("n")
        await type_command(pilot, "gc")
        await until(pilot, lambda: isinstance(pilot.app.screen, Question))
        await pilot.press("y")
        await until(pilot, lambda: "Cleaned up: " in text(pilot))
        await type_command(pilot, "checkpoints delete")
        await until(pilot, lambda: "checkpoint" in text(pilot))

    play(own_demo, story)
    with open_store(own_demo) as store:
        assert purged and not store.runs(purged)


def test_the_filter_that_is_there_says_how_it_is_emptied(demo_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        await pilot.press("slash", *"calm-elk-12", "enter")
        await until(pilot, lambda: "1 of" in text(pilot))
        await pilot.press("slash")
        await until(pilot, lambda: "ctrl+u empties" in text(pilot))
        await pilot.press("ctrl+u")
        await until(pilot, lambda: "79 of 79" in text(pilot) and "ctrl+u" not in text(pilot))

    play(demo_store, story)

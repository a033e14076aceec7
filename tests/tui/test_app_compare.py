"""Runs side by side, by keys, on a real worker and the demo store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest
from textual.pilot import Pilot

from mltrack.tui.app import MltrackApp
from mltrack.tui.screens.compare import CompareScreen
from mltrack.tui.screens.runs import RunsScreen
from mltrack.tui.screens.text import TextScreen
from mltrack.tui.widgets.compare_table import CompareTable
from mltrack.tui.widgets.run_table import RunTable

Command = tuple[tuple[str, ...], dict[str, str]]
Story = Callable[[Pilot[None]], Awaitable[None]]


@pytest.fixture(autouse=True)
def _worker_finds_the_package(command: Command, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PYTHONPATH", command[1]["PYTHONPATH"])
    yield


async def until(pilot: Pilot[None], condition: Callable[[], object]) -> None:
    for _ in range(3000):
        if condition():
            return
        await pilot.pause(0.005)
    raise AssertionError("it never came; on the screen:\n" + "\n".join(lines(pilot)))


def lines(pilot: Pilot[None]) -> list[str]:
    strips = pilot.app.screen._compositor.render_strips()
    return ["".join(segment.text for segment in strip).rstrip() for strip in strips]


def text(pilot: Pilot[None]) -> str:
    return "\n".join(lines(pilot))


async def mark(pilot: Pilot[None], *names: str) -> None:
    """Mark runs by name, as a person does: filter, mark, take the filter away."""
    table = pilot.app.screen.query_one(RunTable)
    for name in names:
        marked = len(table.marks)
        await pilot.press("slash", *name, "enter")
        await until(pilot, lambda: len(set(table.ids) - table.context) == 1)
        await pilot.press("space")
        assert len(table.marks) == marked + 1
        await pilot.press("escape")
        await until(pilot, lambda: len(table.ids) > 10)


def play(store: str, story: Story, size: tuple[int, int] = (80, 24), names: tuple[str, ...] = ()) -> None:
    async def run() -> None:
        app = MltrackApp(store, place=store)
        async with app.run_test(size=size) as pilot:
            await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen) and pilot.app.screen.view)
            await mark(pilot, *names)
            if names:
                await pilot.press("c")
                await until(
                    pilot, lambda: isinstance(pilot.app.screen, CompareScreen) and pilot.app.screen.page
                )
            await story(pilot)

    asyncio.run(run())


STORY = ("sage-owl-41", "calm-elk-12", "dim-ram-23")


def test_less_than_two_marked_say_so(demo_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        await pilot.press("c")
        await until(pilot, lambda: "Mark two runs or more" in lines(pilot)[-1])
        assert isinstance(pilot.app.screen, RunsScreen)

    play(demo_store, story)


def test_the_story_is_solved(demo_store: str) -> None:
    """dim-ram-23 is worse because of its crop and data, not because of its learning rate."""

    async def story(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "data.crop" in text(pilot) and "★" in text(pilot))
        shown = lines(pilot)
        assert shown[0].startswith(" Compare 3 runs   d differs only: on")
        places = {row.split()[0]: place for place, row in enumerate(shown) if row.strip()}
        crop = next(place for place, row in enumerate(shown) if row.startswith(" data.crop"))
        lr = next(place for place, row in enumerate(shown) if row.startswith(" lr"))
        assert places["PARAMS"] < crop < lr, "the param that is to blame stands first"
        best = next(row for row in shown if "val/acc" in row)
        assert best.count("★") == 1 and "-12.8%" in best
        assert "5 differ, 20 equal folded" in text(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, TextScreen))
        why = next(row for row in lines(pilot) if "data.crop" in row)
        assert "may be it" in why
        cleared = next(row for row in lines(pilot) if row.lstrip().startswith("lr "))
        assert "not it" in cleared
        await pilot.press("q")
        await until(pilot, lambda: isinstance(pilot.app.screen, CompareScreen))
        await pilot.press("q")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))

    play(demo_store, story, names=STORY)


@pytest.mark.parametrize("size", [(80, 24), (20, 5)], ids=str)
def test_every_size_and_both_halves(demo_store: str, size: tuple[int, int]) -> None:
    async def story(pilot: Pilot[None]) -> None:
        screen = pilot.app.screen
        assert isinstance(screen, CompareScreen)
        await pilot.press(
            "d", "j", "l", "G", "g", "tab", "l", "plus", "s", "y", "i", "enter", "escape", "escape"
        )
        await until(pilot, lambda: not screen.overlay.full)
        assert max(map(len, lines(pilot))) <= size[0]
        await pilot.press("slash", *"opt", "enter")
        await until(
            pilot,
            lambda: [entry.label for entry in screen.rows.entries if entry.place is not None][0][:3] == "opt",
        )
        await pilot.press("escape")
        await until(pilot, lambda: screen.narrow == "")

    play(demo_store, story, size, STORY)


def test_aggregate_equals_and_rows_behind_rows(demo_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        screen = pilot.app.screen
        assert isinstance(screen, CompareScreen)
        few = len(screen.rows.entries)
        await pilot.press("d")
        assert len(screen.rows.entries) > few + 15, "equals are shown"
        await pilot.press("d", "m")
        await until(pilot, lambda: "m last" in text(pilot))
        assert "-m last" in text(pilot)
        rows = pilot.app.screen.query_one(CompareTable)
        for label, wanted in (
            ("commit", "RandomCrop(config.crop"),
            ("packages", "2.15.0"),
            ("data", "c100"),
            ("host", "gpu1"),
        ):
            place = next(index for index, entry in enumerate(rows.entries) if entry.label == label)
            rows._go(place)
            await pilot.press("l", "l", "enter")
            await until(pilot, lambda: isinstance(pilot.app.screen, TextScreen))
            await until(pilot, lambda wanted=wanted: wanted in text(pilot))
            await pilot.press("escape")
            await until(pilot, lambda: pilot.app.screen is screen)

    play(demo_store, story, (120, 40), STORY)


def test_the_chart_has_one_cursor_through_all_curves(demo_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        screen = pilot.app.screen
        assert isinstance(screen, CompareScreen)
        await until(pilot, lambda: len(screen.overlay.series) == 3)
        await pilot.press("tab", "g", "ctrl+d")
        title = screen.overlay.text()[0]
        assert "step " in title and "  a " in title and "  b " in title and "  c " in title
        assert "│" in "".join(screen.overlay.text()[1:])
        key = screen.overlay.key
        await pilot.press("j")
        assert screen.overlay.key != key
        await pilot.press("tab")
        assert screen.focused is screen.rows

    play(demo_store, story, names=STORY)


def test_the_chart_goes_by_time_too_and_from_event_to_event(demo_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        screen = pilot.app.screen
        assert isinstance(screen, CompareScreen)
        overlay = screen.overlay

        def came() -> bool:
            return len(overlay.series) == 3 and overlay._asked is None

        await until(pilot, came)
        await pilot.press("tab", "N")
        await until(pilot, lambda: overlay.cursor is not None)
        last = overlay.cursor
        assert last is not None and any(f" {letter} " in overlay.text()[0] for letter in "abc")
        await pilot.press("N")
        assert overlay.cursor is not None and overlay.cursor < last
        await pilot.press("n")
        assert overlay.cursor == last
        await pilot.press("x")
        assert overlay.cursor is None
        await until(pilot, lambda: came() and "x duration" in overlay.text()[0])
        assert overlay._ends()[0] >= 0 and overlay._ends()[1] < 1e8, "seconds since each run's start"
        await pilot.press("plus", "x")
        await until(pilot, lambda: came() and "x time" in overlay.text()[0])
        assert overlay._ends()[0] > 1e12 and overlay.window is None, "ms since 1970"
        await pilot.press("n")
        await until(pilot, lambda: overlay.cursor is not None and overlay.cursor > 1e12)
        await pilot.press("x")
        await until(pilot, lambda: came() and "x " not in overlay.text()[0])
        assert overlay._ends()[1] < 1e8

    play(demo_store, story, names=STORY)


def test_a_page_of_metrics_has_one_cursor_and_gives_one_the_whole_screen(demo_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        screen = pilot.app.screen
        assert isinstance(screen, CompareScreen)
        overlay = screen.overlay
        await pilot.press("tab", "a")
        await until(pilot, lambda: len(overlay._places()) >= 3)
        await until(pilot, lambda: all(overlay._chart(key).came for key, _ in overlay._places()))
        await until(pilot, lambda: not overlay._waiting and "loading" not in "".join(overlay.text()))
        first = [key for key, _ in overlay._places()]
        await pilot.press("g", "ctrl+d", "plus")
        await until(
            pilot, lambda: overlay.window is not None and overlay._asked is None and not overlay._waiting
        )
        shown = overlay.text()
        titles = [row for row in shown if first[0] in row]
        assert titles and "step " in titles[0] and " a " in titles[0] and " b " in titles[0]
        cursors = {index for row in shown for index, character in enumerate(row) if character == "│"}
        assert cursors, "the frames and the cursor"
        await pilot.press("space")
        await until(pilot, lambda: overlay.key not in first)
        await until(pilot, lambda: all(overlay._chart(key).came for key, _ in overlay._places()))
        await pilot.press("less_than_sign", "0", "s", "j", "enter")
        await until(pilot, lambda: not overlay.page and overlay.full and len(overlay._places()) == 1)
        await pilot.press("a", "a")
        await until(pilot, lambda: not overlay.full)
        await pilot.press("a", "escape", "escape")
        await until(pilot, lambda: not overlay.page and not overlay.full and screen.rows.display)

    play(demo_store, story, (110, 40), STORY)


def test_the_files_of_two_runs_and_the_diff_of_one(demo_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        await pilot.press("colon", *"diff", "enter")
        await until(pilot, lambda: "Files: sage-owl-41 and " in lines(pilot)[0])
        await until(pilot, lambda: "confusion_matrix.json" in text(pilot))
        await pilot.press("q")
        await until(pilot, lambda: isinstance(pilot.app.screen, CompareScreen))
        await pilot.press("l", "l")
        named = {"_": "underscore", "/": "slash", ".": "full_stop", " ": "space"}
        words = "diff images/predictions/000004000.png"
        await pilot.press("colon", *(named.get(letter, letter) for letter in words), "enter")
        await until(pilot, lambda: "000004000.png: sage-owl-41 and " in lines(pilot)[0])

    play(demo_store, story, names=STORY)


def test_the_end_of_a_reason_is_read_on_a_narrow_screen(demo_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        await pilot.press("enter")
        await until(pilot, lambda: "Why a is better than b" in text(pilot))
        assert "\u2026" not in text(pilot)
        assert all(row.startswith(" " * 4) for row in lines(pilot) if row.strip().startswith("points"))

    play(demo_store, story, names=STORY)


def test_a_long_value_keeps_the_mark_of_what_differs(demo_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        await pilot.press("slash", *"commit", "enter")
        await until(pilot, lambda: any(row.lstrip("\u258c ").startswith("commit") for row in lines(pilot)))
        await until(pilot, lambda: "5ffab92d3a" in text(pilot))
        row = next(row for row in lines(pilot) if row.lstrip("\u258c ").startswith("commit"))
        assert row.count("\u25c4") == 2 and "\u2026 \u25c4" in row
        await pilot.press("l", "l")
        assert not (pilot.app.screen.query_one(CompareTable).cell or "\u25c4").endswith("\u25c4")

    play(demo_store, story, names=STORY)


def test_three_runs_are_plotted_by_what_differs_and_the_command_below_does_the_same(demo_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        await pilot.press("p")
        await until(pilot, lambda: "parallel   data.crop, lr, opt.name" in text(pilot))
        assert "plot --kind parallel ''" in text(pilot)
        await pilot.press("colon", *"plot", "space", *"hist", "space", *"lr", "enter")
        await until(pilot, lambda: "hist   lr   3 runs" in text(pilot))
        assert "plot --kind hist lr " in text(pilot)
        await pilot.press("q")
        await until(pilot, lambda: isinstance(pilot.app.screen, CompareScreen))

    play(demo_store, story, names=STORY)

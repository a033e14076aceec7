"""The table of runs by keys: families, experiments, columns, cell filters, completion, ranges, notes, stopping."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

import mltrack
from mltrack.tui.app import MltrackApp
from mltrack.tui.saved_view import SavedView
from mltrack.tui.screens.column_chooser import ColumnChooser
from mltrack.tui.screens.runs import RunsScreen
from mltrack.tui.widgets.experiment_pane import ExperimentPane
from mltrack.tui.widgets.filter_input import FilterInput
from mltrack.tui.widgets.run_table import RunTable

Command = tuple[tuple[str, ...], dict[str, str]]
OpenApp = Callable[..., Any]
Story = Callable[[Pilot[None]], Awaitable[None]]
# Generous: a machine with other things to do takes long over each key.
_SECONDS = 60.0


@pytest.fixture(autouse=True)
def _worker_finds_the_package(command: Command, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PYTHONPATH", command[1]["PYTHONPATH"])
    yield


def play(store: str, story: Story, size: tuple[int, int] = (80, 24), saved: SavedView | None = None) -> None:
    async def run() -> None:
        app = MltrackApp(store, place=store, saved=saved)
        async with app.run_test(size=size) as pilot:
            await until(pilot, lambda: screen(pilot).view is not None)
            await story(pilot)

    asyncio.run(run())


async def until(pilot: Pilot[None], condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        if condition():
            return
        await pilot.pause(0.005)
    raise AssertionError("it never came; on the screen:\n" + "\n".join(lines(pilot)))


def screen(pilot: Pilot[None]) -> Any:
    found = [each for each in pilot.app.screen_stack if isinstance(each, RunsScreen)]
    return found[0] if found else SavedView  # before the first screen: it has no view


def lines(pilot: Pilot[None]) -> list[str]:
    strips = pilot.app.screen._compositor.render_strips()
    return ["".join(segment.text for segment in strip).rstrip() for strip in strips]


def has(pilot: Pilot[None], pattern: str) -> bool:
    return any(re.search(pattern, line) for line in lines(pilot))


def table(pilot: Pilot[None]) -> RunTable:
    found = screen(pilot).table
    assert isinstance(found, RunTable)
    return found


async def go_to_run(pilot: Pilot[None], name: str) -> None:
    """Filter for a name, so that the cursor is on it."""
    await pilot.press("slash", *name, "enter")
    await until(pilot, lambda: screen(pilot).view["found"] == 1)
    await until(
        pilot, lambda: table(pilot).current and table(pilot).name_of(str(table(pilot).current)) == name
    )


async def go_to_row(pilot: Pilot[None], name: str) -> None:
    names = [table(pilot).name_of(run_id) for run_id in table(pilot).ids]
    await pilot.press("g", *("j" * names.index(name)))


async def go_to_column(pilot: Pilot[None], id: str) -> None:
    await pilot.press("0")
    for _ in range(70):
        if table(pilot).column == id:
            return
        await pilot.press("l")
    raise AssertionError(f"no column {id}: {[column.id for column in table(pilot).columns]}")


def cifar() -> SavedView:
    return SavedView(experiment="vision/cifar")


def test_families_fold_and_speak_for_their_members(demo_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        runs = table(pilot)
        assert len(runs.ids) == 5
        assert has(pilot, r"▸ sweep-7  40 .*30✓ 5✗ .*★\.9312 ")
        # The mean of five seeds, not the best of them, and its spread where the trend would be.
        assert has(pilot, r"▸ seeds-adamw  5 +5 ✓ done +\.9279 .*±\.0013")
        await go_to_row(pilot, "sweep-7")
        parent = runs.current
        await pilot.press("enter")
        await until(pilot, lambda: len(runs.ids) == 45)
        assert runs.current == parent and has(pilot, "▾ sweep-7  40")
        # Children stay under their parent for any order, and the family under its best.
        await go_to_column(pilot, "metric:val/acc")
        await pilot.press("s")
        await until(pilot, lambda: has(pilot, "▼"))
        await until(pilot, lambda: runs.ids[0] == parent)
        children = [row for row in map(runs.known, runs.ids[1:41]) if row is not None]
        assert children and all(row["depth"] == 1 for row in children)
        await pilot.press("g", "j", "j")
        await pilot.press("0", "h")
        assert runs.current == parent, "from a child to its parent"
        await pilot.press("h")
        await until(pilot, lambda: len(runs.ids) == 5)
        await pilot.press("t")
        await until(pilot, lambda: len(runs.ids) == 55)
        assert not has(pilot, "[▸▾] s")

    play(demo_store, story, (200, 30), cifar())


def test_nan_is_never_best(demo_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: len(table(pilot).ids) == 55)
        await go_to_column(pilot, "metric:train/loss")
        await pilot.press("s", "g")
        await until(pilot, lambda: has(pilot, "▲"))
        assert not any("NaN" in line for line in lines(pilot)[:10])
        await pilot.press("asterisk")
        await until(pilot, lambda: screen(pilot).view["goal"] == "train/loss")
        await until(pilot, lambda: has(pilot, r"★\.1"))
        await pilot.press("s")
        await until(pilot, lambda: has(pilot, "▼"))
        assert not has(pilot, "★NaN")

    saved = SavedView(experiment="vision/cifar", flat=True)
    play(demo_store, story, (120, 40), saved)
    assert saved.layouts == {"vision/cifar": {"goal": "train/loss"}}


def test_only_this_value_and_without_it(demo_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        runs = table(pilot)
        await go_to_run(pilot, "calm-elk-12")
        await go_to_column(pilot, "param:opt.name")
        await pilot.press("escape", "t")
        await until(pilot, lambda: len(runs.ids) == 55)
        await until(pilot, lambda: runs.name_of(str(runs.current)) == "calm-elk-12")
        await pilot.press("f")
        await until(pilot, lambda: screen(pilot).filter_text == "opt.name = lion")
        await until(pilot, lambda: 0 < screen(pilot).view["found"] < 30)
        lions = screen(pilot).view["found"]
        await go_to_column(pilot, "metric:val/acc")
        await pilot.press("f")
        await until(pilot, lambda: "max(val/acc) >= 0.92" in screen(pilot).filter_text)
        await until(pilot, lambda: 0 < screen(pilot).view["found"] < lions)
        await pilot.press("escape")
        await until(pilot, lambda: screen(pilot).view["found"] == 55)
        await go_to_column(pilot, "param:opt.name")
        await pilot.press("F")
        await until(pilot, lambda: screen(pilot).filter_text == "opt.name != lion")
        await until(pilot, lambda: 0 < screen(pilot).view["found"] < 55 - lions + 1)

    play(demo_store, story, (200, 50), cifar())


def test_the_run_under_the_cursor_stays_there_when_the_filter_goes(demo_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        runs = table(pilot)
        await go_to_run(pilot, "calm-elk-12")
        await pilot.press("escape")
        await until(pilot, lambda: screen(pilot).view["found"] == 55)
        # It is in a family of forty, which was closed: now it is open, and stays so.
        assert runs.name_of(str(runs.current)) == "calm-elk-12" and len(runs.ids) == 45
        assert has(pilot, r"^▌ .*calm-elk-12")
        # A filter opens every family; what was opened without one does not come out closed under it.
        await pilot.press("slash", *"opt.name = lion", "enter")
        await until(pilot, lambda: 1 < screen(pilot).view["found"] < 30)
        under = len(runs.ids)
        await until(pilot, lambda: runs.name_of(str(runs.current)) == "calm-elk-12")
        # Closed under a filter, a family is so until another filter.
        await pilot.press("0", "h", "h")
        await until(pilot, lambda: len(runs.ids) < under)
        assert runs.name_of(str(runs.current)) == "sweep-7"
        await pilot.press("escape")
        await until(pilot, lambda: screen(pilot).view["found"] == 55)
        assert runs.name_of(str(runs.current)) == "sweep-7" and len(runs.ids) == 45

    play(demo_store, story, saved=SavedView(experiment="vision/cifar"))


def test_problems_one_after_the_other_and_back(demo_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        runs = table(pilot)
        names: list[str] = []
        for _ in range(4):
            before = runs.current
            await pilot.press("n")
            await until(pilot, lambda: runs.current not in (None, before))  # noqa: B023
            await until(pilot, lambda: runs.known(runs.current) is not None)
            names.append(runs.name_of(str(runs.current)))
        assert len(set(names)) == 4 and "numb-bat-19" in names, names
        assert len(runs.ids) == 45, "the family that hides one is opened"
        await pilot.press("N")
        await until(pilot, lambda: runs.name_of(str(runs.current)) == names[-2])

    play(demo_store, story, saved=SavedView(experiment="vision/cifar"))


def test_experiments_are_chosen_in_their_pane(demo_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        await pilot.press("tab")
        pane = pilot.app.screen.query_one(ExperimentPane)
        await until(pilot, lambda: has(pilot, r"^▌?all experiments +\d\d"))
        await until(pilot, lambda: has(pilot, r"▾ vision/ +55"))
        for _ in range(9):
            if pane.here != "vision/":
                await pilot.press("j")
        assert pane.here == "vision/"
        await pilot.press("h")
        await until(pilot, lambda: has(pilot, "▸ vision/") and not has(pilot, " cifar +55"))
        await pilot.press("enter")
        await until(pilot, lambda: screen(pilot).view["all"] == 55)
        assert lines(pilot)[0].startswith(" vision/ ")
        assert has(pilot, r"\$ mltrack .*-x vision/")
        await pilot.press("q")
        await until(pilot, lambda: screen(pilot).view["all"] > 60)
        assert pilot.app.is_running

    play(demo_store, story)


def test_wide_screens_have_experiments_beside_the_table(demo_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: has(pilot, r"EXPERIMENT +RUNS .*RUN +STATUS"))
        await pilot.press("x")
        await until(pilot, lambda: not has(pilot, "EXPERIMENT +RUNS"))
        await pilot.press("x")
        await until(pilot, lambda: has(pilot, "EXPERIMENT +RUNS"))
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: not has(pilot, "EXPERIMENT +RUNS"))

    play(demo_store, story, (200, 50))


def test_completion_of_keys_values_and_joints(demo_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        field = pilot.app.screen.query_one("#filter", FilterInput)
        await pilot.press("slash", *"opt.na")
        await until(pilot, lambda: "opt.name" in lines(pilot)[-1])
        await pilot.press("tab")
        await until(pilot, lambda: field.value == "opt.name ")
        await pilot.press(*"= ")
        await until(pilot, lambda: re.search(r"adamw +lion", lines(pilot)[-1]))
        await pilot.press("tab", "tab")
        await until(pilot, lambda: field.value == "opt.name = lion ")
        await pilot.press("shift+tab")
        await until(pilot, lambda: field.value == "opt.name = adamw ")
        await pilot.press(*"a")
        await until(pilot, lambda: re.search(r"tab and", lines(pilot)[-1]))
        await pilot.press("tab", *"stat")
        await until(pilot, lambda: "status" in lines(pilot)[-1])
        await pilot.press("tab", *"= fin")
        await until(pilot, lambda: "finished" in lines(pilot)[-1])
        await pilot.press("tab", "enter")
        await until(pilot, lambda: screen(pilot).filter_text == "opt.name = adamw and status = finished ")
        await until(pilot, lambda: 0 < screen(pilot).view["found"] < 40)

    play(demo_store, story)


def test_completion_for_those_who_do_not_look(demo_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        field = pilot.app.screen.query_one("#filter", FilterInput)
        # Nothing is waited for: tab means what stands there when it is pressed, not what was offered before.
        await pilot.press("slash", *"opt.na", "tab", *"= lion", "enter")
        await until(pilot, lambda: screen(pilot).filter_text == "opt.name = lion")
        await until(pilot, lambda: screen(pilot).view["found"] == 14)
        await pilot.press("slash", "home", *"status = fin", "tab", "tab", "tab")
        await until(pilot, lambda: field.value == "status = finished opt.name = lion")
        assert field.cursor_position == len("status = finished ")

    play(demo_store, story)


def test_columns_are_chosen_among_thousands(demo_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        await pilot.press("C")
        await until(pilot, lambda: isinstance(pilot.app.screen, ColumnChooser))
        await until(pilot, lambda: has(pilot, r"1,5\d\d found"))
        assert not has(pilot, "^ +system/")
        await pilot.press(*"layers/03/attn.k/grad")
        await until(pilot, lambda: has(pilot, " 1 found"))
        await pilot.press("enter", "escape")
        key = "metric:layers/03/attn.k/grad_norm"
        await until(pilot, lambda: key in [column.id for column in table(pilot).columns])
        await pilot.press("C", *"experiment", "enter", "escape")
        await until(
            pilot, lambda: "attribute:experiment" not in [column.id for column in table(pilot).columns]
        )

    play(demo_store, story)


def test_the_menu_of_a_column(demo_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        runs = table(pilot)
        await go_to_column(pilot, "param:lr")
        width = runs.layout_of_columns.width(runs.current_column)  # type: ignore[arg-type]
        await pilot.press("full_stop", "plus", "plus")
        await until(pilot, lambda: runs.layout_of_columns.width(runs.current_column) == width + 2)  # type: ignore[arg-type]
        await pilot.press("less_than_sign")
        await until(pilot, lambda: screen(pilot).scope_layout().get("order"))
        order = [column.id for column in runs.columns]
        await until(pilot, lambda: [column.id for column in runs.columns].index("param:lr") < 6)
        await pilot.press("r")
        await until(pilot, lambda: screen(pilot).scope_layout() == {})
        await pilot.press("x")
        await until(pilot, lambda: "param:lr" not in [column.id for column in runs.columns])
        assert "param:lr" in order and not has(pilot, "narrower")
        await go_to_column(pilot, "metric:val/acc")
        await pilot.press("full_stop", "d", "escape")
        await until(pilot, lambda: runs.current_column.direction == "min")  # type: ignore[union-attr]
        await until(pilot, lambda: has(pilot, "acc↓"))

    play(demo_store, story, (120, 30), SavedView(experiment="vision/cifar"))


def test_ranges_are_marked_and_parents_that_do_not_match_are_not(demo_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        runs = table(pilot)
        await pilot.press("slash", *"opt.name = lion", "enter")
        await until(pilot, lambda: screen(pilot).view["found"] == 14)
        found = screen(pilot).view["found"]
        await pilot.press("g", "v", "G")
        await until(pilot, lambda: f"range of {found}" in lines(pilot)[1])
        await pilot.press("v")
        assert len(runs.marks) == found and not runs.marks & runs.context
        await pilot.press("v", "escape")
        assert runs.range_from is None and screen(pilot).filter_text
        await pilot.press("A")
        assert not runs.marks

    play(demo_store, story)


def test_two_keys_of_order(demo_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        runs = table(pilot)
        await go_to_column(pilot, "attribute:status")
        await pilot.press("s")
        await go_to_column(pilot, "metric:val/acc")
        await pilot.press("S")
        await until(pilot, lambda: screen(pilot).view["sort_keys"] == ["status", "-metrics.`val/acc`.max"])
        await until(pilot, lambda: has(pilot, "▲STATUS") and has(pilot, "▽"))
        assert runs.sort == [("attribute:status", False), ("metric:val/acc", False)]

    play(demo_store, story, (100, 30))


def test_pins_stay_on_top(small_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        runs = table(pilot)
        last = runs.ids[-1]
        await pilot.press("G", "P")
        await until(pilot, lambda: runs.ids[0] == last and has(pilot, "⚑"))
        assert runs.current == last
        await pilot.press("p")
        await until(pilot, lambda: has(pilot, "Pinned for everybody: .* P takes that away"))
        await pilot.press("P")
        await until(pilot, lambda: runs.ids[-1] == last)
        await pilot.press("u")
        await until(pilot, lambda: runs.ids[0] == last)

    play(small_store, story)


def test_a_small_p_pins_for_one_person_alone(small_store: str) -> None:
    saved = SavedView()

    async def story(pilot: Pilot[None]) -> None:
        runs = table(pilot)
        last = runs.ids[-1]
        await pilot.press("G", "p")
        await until(pilot, lambda: runs.ids[0] == last and has(pilot, "⚑"))
        assert runs.current == last and has(pilot, "Pinned .*, for you alone")
        await pilot.press("u")
        await until(pilot, lambda: runs.ids[-1] == last)
        await pilot.press("U")
        await until(pilot, lambda: runs.ids[0] == last)
        assert saved.pins == [last]

    play(small_store, story, saved=saved)

    async def later(pilot: Pilot[None]) -> None:
        assert table(pilot).ids[0] == saved.pins[0], "it comes back with the view"

    play(small_store, later, saved=saved)

    async def another(pilot: Pilot[None]) -> None:
        assert not has(pilot, "⚑") and table(pilot).ids[-1] == saved.pins[0]

    play(small_store, another)


def test_a_note_in_the_editor(open_app: OpenApp, command: Command, small_store: str, tmp_path: Path) -> None:
    editor = tmp_path / "my editor"
    editor.write_text('#!/bin/sh\n[ "$1" = -- ] || exit 9\nprintf "hello from sed" > "$2"\n')
    editor.chmod(0o755)
    environ = {**command[1], "EDITOR": f"'{editor}'", "VISUAL": ""}
    app = open_app(environ, "--store", small_store)
    app.until("run-000002")
    app.press("e").until("Noted on")
    app.press("Q")
    assert app.finish() == 0
    noted = subprocess.run(
        [*command[0], "--store", small_store, "note", "run-000002"],
        env=command[1],
        capture_output=True,
        text=True,
    )
    assert noted.stdout.strip() == "hello from sed"


def test_a_note_that_somebody_else_changed_is_kept_beside(
    open_app: OpenApp, command: Command, small_store: str, tmp_path: Path
) -> None:
    other = f"{sys.executable} -m mltrack.tui.cli --store {small_store} note run-000002 theirs"
    editor = tmp_path / "editor"
    editor.write_text(f'#!/bin/sh\n{other} >/dev/null\nprintf mine > "$2"\n')
    editor.chmod(0o755)
    environ = {**command[1], "EDITOR": str(editor), "VISUAL": "", "TMPDIR": str(tmp_path)}
    app = open_app(environ, "--store", small_store, columns=160)
    app.until("run-000002")
    app.press("e").until("changed by somebody else.*Your text is in")
    app.press("Q")
    assert app.finish() == 0
    (kept,) = tmp_path.glob("mltrack-note-*")
    assert kept.read_text() == "mine"


def test_stopping_names_the_process_and_asks(small_store: str, command: Command) -> None:
    code = (
        "import mltrack, time\nwith mltrack.start_run(name='endless'):\n"
        " mltrack.log_metric('loss', 1, step=1)\n print('up', flush=True)\n time.sleep(600)"
    )
    training = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**command[1], "MLTRACK_STORE": small_store},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert training.stdout is not None and training.stdout.readline() == "up\n"

    async def story(pilot: Pilot[None]) -> None:
        runs = table(pilot)
        await until(pilot, lambda: has(pilot, "endless"))
        await pilot.press("g", "X")
        await until(
            pilot, lambda: has(pilot, rf"Stop endless: process {training.pid} on \S+, of \S+\? \[y/N\]")
        )
        await pilot.press("enter")
        assert training.poll() is None, "enter is no"
        await pilot.press("X")
        await until(pilot, lambda: has(pilot, "Stop endless"))
        await pilot.press("y")
        await until(pilot, lambda: training.poll() is not None)
        await until(pilot, lambda: not has(pilot, "● running"))
        await pilot.press("G", "X")
        await until(pilot, lambda: has(pilot, "is not running"))
        assert len(runs.ids) == 4

    try:
        play(small_store, story)
    finally:
        training.kill()
        training.wait()


def test_deleting_a_family_names_all_of_it(demo_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        await go_to_row(pilot, "seeds-lion")
        await pilot.press("D")
        await until(pilot, lambda: has(pilot, r"Delete 6 runs of .*kept 30 days\)\? \[y/N\]"))
        await pilot.press("n")

    play(demo_store, story, (120, 30), cifar())


def test_coming_back_to_an_empty_table_the_keys_are_not_the_filters(tmp_path: Path) -> None:
    store = tmp_path / "empty"
    store.mkdir()

    async def story(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: screen(pilot).has_class("-empty"))
        await pilot.press("3")
        await until(pilot, lambda: not isinstance(pilot.app.screen, RunsScreen))
        await pilot.press("1")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))
        await pilot.press("/", "x")
        field = screen(pilot).query_one("#filter", FilterInput)
        await until(pilot, lambda: field.value)
        assert field.value == "x", "the slash opened the filter, it is not a part of it"

    play(str(store), story)


@pytest.mark.parametrize("size", [(20, 5), (30, 8)])
def test_everything_opens_in_a_tiny_window(demo_store: str, size: tuple[int, int]) -> None:
    async def story(pilot: Pilot[None]) -> None:
        for opens, moves in (("tab", "j"), ("C", "down"), ("full_stop", "j")):
            await pilot.press(opens)
            # At the root escape would leave the app.
            await until(pilot, lambda: pilot.app.screen.focused is not table(pilot))
            await pilot.press(moves, "escape")
            await until(pilot, lambda: pilot.app.screen.focused is table(pilot))
        await pilot.press(
            "slash", "l", "tab", "escape", "v", "G", "escape", "n", "dollar_sign", "0", "m", "t"
        )
        for width, height in ((200, 50), (1, 1), (40, 3), (80, 24), (5, 2), size):
            await pilot.resize_terminal(width, height)
        assert pilot.app.is_running

    play(demo_store, story, size)


def test_keys_are_not_text_on_an_empty_table_that_was_left_and_came_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = str(tmp_path / "empty")

    async def story(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: has(pilot, "Log something"))
        assert "there are." in " ".join(" ".join(lines(pilot)).split()), "the sentence to its end"
        await pilot.press("3")
        await until(pilot, lambda: pilot.app.screen is not screen(pilot))
        await pilot.press("1")
        await until(pilot, lambda: pilot.app.screen is screen(pilot))
        await until(pilot, lambda: screen(pilot).is_current)
        await pilot.pause()
        assert screen(pilot).focused is None
        await pilot.press("t", "slash", "x")
        assert screen(pilot).query_one("#filter", Input).value == "x", "t is a key, / leads to the field"
        await pilot.press("backspace", "enter")
        await until(pilot, lambda: not isinstance(screen(pilot).focused, Input))
        # Now somebody logs, while another screen lies above.
        await pilot.press("3")
        await until(pilot, lambda: pilot.app.screen is not screen(pilot))
        with mltrack.start_run(run_name="first"):
            mltrack.log_metric("loss", 0.5)
        await pilot.press("1")
        await until(pilot, lambda: table(pilot).ids and screen(pilot).focused is table(pilot))
        await pilot.press("slash", "f")
        assert screen(pilot).query_one("#filter", Input).value == "f"

    monkeypatch.setenv("MLTRACK_STORE", store)
    play(store, story)

"""The screen of one run by keys: charts with one cursor, events, axes, filter, pages; live curves in small frames."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from textual import events
from textual.pilot import Pilot

from mltrack.store import open_store
from mltrack.store.client import log
from mltrack.store.client.destination import Destination
from mltrack.store.client.run import ActiveRun
from mltrack.store.copies import set_destination
from mltrack.store.upload import SMALL_BYTES, send_now
from mltrack.tui.app import MltrackApp
from mltrack.tui.clean import cell_width
from mltrack.tui.screens.run import RunScreen
from mltrack.tui.screens.runs import RunsScreen
from mltrack.tui.screens.text import TextScreen
from mltrack.tui.widgets.charts import Charts
from mltrack.tui.widgets.lines import Lines, TextPage
from mltrack.tui.widgets.log_view import LogView
from mltrack.tui.widgets.run_table import RunTable

Command = tuple[tuple[str, ...], dict[str, str]]
Story = Callable[[Pilot[None]], Awaitable[None]]
# Generous: a machine with other things to do takes long over each key.
_SECONDS = 60.0


@pytest.fixture(autouse=True)
def _worker_finds_the_package(command: Command, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PYTHONPATH", command[1]["PYTHONPATH"])
    yield


def play(store: str, run: str, story: Story, size: tuple[int, int] = (80, 24), **options: bool) -> None:
    """Open the app on a store, open the run of this name, wait for its first curve, and do as the story says."""

    async def go() -> None:
        app = MltrackApp(store, place=store, filter_text=f'run_name = "{run}"', **options)  # type: ignore[arg-type]
        async with app.run_test(size=size) as pilot:
            await until(
                pilot, lambda: isinstance(pilot.app.screen, RunsScreen) and pilot.app.screen.view is not None
            )
            await pilot.press("enter")
            await until(pilot, lambda: isinstance(pilot.app.screen, RunScreen))
            await until(pilot, lambda: charts(pilot).series and charts(pilot).series[0].came)
            await story(pilot)

    asyncio.run(go())


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


def charts(pilot: Pilot[None]) -> Charts:
    return pilot.app.screen.query_one(Charts)


def foot(pilot: Pilot[None]) -> str:
    return pilot.app.screen.query_one("#foot", Lines).text()[0]


def pane(pilot: Pilot[None]) -> list[str]:
    """The lines below the charts."""
    return charts(pilot).text()[-4:]


def test_charts_and_one_cursor_through_them(demo_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        shown = lines(pilot)
        assert "sage-owl-41" in shown[0] and "41,220/100,000" in shown[1]
        assert any(re.search(r"val/acc↑ .*best \.9312 @4,200 +last \.9", line) for line in shown), shown
        assert any("⠉" in line or "⣀" in line for line in shown), "curves are there"
        assert "steps" not in pane(pilot)[0] and "step 0 to 41,200" in pane(pilot)[0]
        view = charts(pilot).window
        await pilot.press("l")
        end = view.cursor
        assert end == 41_200
        await pilot.press("h", "h")
        assert view.cursor is not None and end is not None and view.cursor < end
        assert "into the run" in pane(pilot)[0] and "val/acc" in pane(pilot)[1]
        # One line through both charts: in the same column of every row.
        columns = {line.index("│", 8) for line in charts(pilot).text()[1:8] if "│" in line[8:]}
        assert len(columns) == 1
        await pilot.press("plus", "plus")
        assert view.zoomed is not None and view.zoomed[0] <= view.cursor <= view.zoomed[1]
        first = view.zoomed
        await pilot.press("ctrl+u", *["pageup"] * 8)
        assert view.zoomed is not None and view.zoomed[0] < first[0], "the view pans with the cursor"
        await pilot.press("0", "s", "y", "i")
        assert view.zoomed is None
        await until(pilot, lambda: charts(pilot).series[0].lines[0].smooth is not None)
        assert any("y log" in line and "smooth .6" in line for line in charts(pilot).text())
        await pilot.press("j", "enter")
        assert charts(pilot).full and charts(pilot).chosen == 1
        await pilot.press("escape", "escape")
        assert view.cursor is None and not charts(pilot).full
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))

    play(demo_store, "sage-owl-41", story)


def test_n_goes_from_event_to_event(demo_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        await pilot.press("j")
        events = r"best 4,200 .*best 12,340 .*NaN 16,500-16,680 .*spike 33,600"
        await until(pilot, lambda: re.search(events, pane(pilot)[2]))
        seen = []
        for _ in range(4):
            await pilot.press("n")
            seen.append(charts(pilot).window.cursor)
        assert seen == [4_200, 12_340, 16_500, 33_600]
        await until(pilot, lambda: "step 33,600" in pane(pilot)[0])
        assert "spike x1" in pane(pilot)[1]
        await pilot.press("N")
        assert charts(pilot).window.cursor == 16_500

    play(demo_store, "sage-owl-41", story)


def test_a_later_start_is_an_event_and_what_it_replaced_is_faint(demo_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "resumed 9,000" in pane(pilot)[2])
        assert all(series.lines[0].old is not None for series in charts(pilot).series if series.came)

    play(demo_store, "long-jay-02", story)


def test_other_x_axes_keep_the_cursor_where_it_was(demo_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: charts(pilot).pane.clock is not None)
        await pilot.press("n", "n", "plus")
        step = charts(pilot).window.cursor
        assert step is not None
        await pilot.press("x")
        await until(pilot, lambda: charts(pilot).x == "time" and charts(pilot).series[0].came)
        assert f"step {step:,.0f}" in pane(pilot)[0]
        await pilot.press("x")
        await until(pilot, lambda: charts(pilot).x == "relative" and charts(pilot).series[0].came)
        assert f"step {step:,.0f}" in pane(pilot)[0]
        await pilot.press("x", *"images", "enter")
        await until(pilot, lambda: charts(pilot).x == "images_per_second" and charts(pilot).series[0].came)
        await until(pilot, lambda: charts(pilot).window.ends is not None)
        assert any("x images_per_second" in line for line in lines(pilot))
        await pilot.press("x")
        assert charts(pilot).x == "step"

    play(demo_store, "sage-owl-41", story)


def test_filter_and_pages_of_1500_metrics(demo_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        widget = charts(pilot)
        assert len(widget.series) == 1500
        here = [series.key for series in widget.series if series.came]
        assert len(here) < 30, "only what is visible was asked for"
        await pilot.press("space")
        assert widget.chosen == 15
        await until(pilot, lambda: widget.series[15].came)
        await pilot.press("b", "slash", *"layers/0?/mlp.in/grad*", "enter")
        await until(pilot, lambda: len(widget.series) == 10)
        await until(pilot, lambda: widget.series[0].came)
        assert "layers/0?/mlp.in/grad*" in lines(pilot)[2]
        await pilot.press("slash")
        await pilot.press(*["backspace"] * 30, *"mlp.(in|out)/act_(mean|std)$", "enter")
        await until(pilot, lambda: len(widget.series) == 92)
        await pilot.press("slash", *["backspace"] * 30, *"val|train/loss", "enter")
        await until(pilot, lambda: [series.key for series in widget.series][:1] == ["val/acc"])
        assert [series.key for series in widget.series] == ["val/acc", "train/loss", "val/loss"]
        await pilot.press("slash", *["backspace"] * 30, *"(x", "enter")
        await until(pilot, lambda: "no regular expression" in foot(pilot))
        await pilot.press("slash", *["backspace"] * 30, *"nothing-like-it", "enter")
        await until(pilot, lambda: any("No metric matches" in line for line in lines(pilot)))
        await pilot.press("escape")
        assert len(widget.series) == 1500

    play(demo_store, "wide-bee-15", story, size=(200, 50))


def test_every_rank_is_a_line_with_its_letter(demo_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        await pilot.press("j", "a", "enter")
        await until(pilot, lambda: len(charts(pilot).series[1].lines) == 8)
        await pilot.pause()
        ends = "".join(line[-2:] for line in charts(pilot).text())
        assert set("abcdefgh") <= set(ends)
        assert any("8 ranks" in line for line in lines(pilot))

    play(demo_store, "ddp-bee-64", story)


def test_next_run_keeps_the_tab(demo_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        screen = pilot.app.screen
        assert isinstance(screen, RunScreen)
        # Behind the one that the filter finds stands the damaged one that no filter hides.
        await pilot.press("J", "J")
        assert "last run" in foot(pilot)
        await pilot.press("K", "tab")
        await until(pilot, lambda: any("batch_size" in line for line in lines(pilot)))
        assert screen.tab == "Params"

    play(demo_store, "sage-owl-41", story)


@pytest.mark.parametrize("size", [(20, 5), (40, 12), (60, 16), (200, 50)])
def test_any_size_will_do(demo_store: str, size: tuple[int, int]) -> None:
    async def story(pilot: Pilot[None]) -> None:
        await pilot.press("l", "plus", "enter", "tab", "tab", "tab")
        await pilot.resize_terminal(*size)
        await pilot.press("tab", "h", "enter", "x", "y")
        await until(pilot, lambda: max(map(cell_width, lines(pilot))) <= size[0])
        await pilot.resize_terminal(80, 24)
        await pilot.resize_terminal(*size)
        await until(pilot, lambda: max(map(cell_width, lines(pilot))) <= size[0])

    play(demo_store, "sage-owl-41", story)


def test_the_log_at_the_cursor_is_searched_and_followed(demo_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        await pilot.press("j")
        await until(pilot, lambda: "spike" in pane(pilot)[2])
        await pilot.press("G", "N")
        await until(pilot, lambda: "33602 WARN loss scale reduced" in pane(pilot)[3])
        await pilot.press("L")
        view = pilot.app.screen.query_one(LogView)
        await until(pilot, lambda: any("▌ 33602 WARN" in line for line in lines(pilot)))
        assert not view.following
        await pilot.press("F")
        await until(pilot, lambda: "41000 INFO" in lines(pilot)[-3])
        assert "following" in lines(pilot)[-2] and view.total > 40
        # Of a bar that was painted over only its last state is there, and a colour is a colour.
        assert any(line.strip().startswith("41000/100000 |########") for line in lines(pilot))
        await pilot.press("g", "slash", *"micro-batches", "enter")
        await until(pilot, lambda: any("▌ 16502 WARN" in line for line in lines(pilot)))
        await pilot.press("n")
        await until(pilot, lambda: any("▌ 40961 WARN" in line for line in lines(pilot)))
        await pilot.press("n")
        await until(pilot, lambda: "round" in foot(pilot))
        await pilot.press("escape", "slash", *"nowhere", "enter")
        await until(pilot, lambda: "Nothing in the log has 'nowhere'" in foot(pilot))
        await pilot.press("escape", "t")
        await until(pilot, lambda: "Nothing" in foot(pilot) or "No problem" in foot(pilot))

    play(demo_store, "sage-owl-41", story)


def test_the_traceback_of_a_failed_run(demo_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        await pilot.press("L", "t")
        await until(pilot, lambda: any("▌Traceback" in line for line in lines(pilot)))
        assert any("OutOfMemoryError: CUDA out of memory" in line for line in lines(pilot))

    play(demo_store, "bold-yak-07", story)


def test_params_are_filtered_and_pages_searched(demo_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        screen = pilot.app.screen
        assert isinstance(screen, RunScreen)
        await pilot.press("tab")
        page = screen.query_one("#params", TextPage)
        await until(pilot, lambda: len(page.lines) == 25)
        await pilot.press("slash", *"opt.", "enter")
        await until(pilot, lambda: 0 < len(page.lines) < 8)
        assert all("opt." in line for line in page.text())
        await pilot.press("escape")
        assert len(page.lines) == 25 and pilot.app.screen is screen
        while screen.tab != "Code":
            await pilot.press("tab")
        await until(pilot, lambda: any("UNCOMMITTED" in line for line in lines(pilot)))
        await pilot.press("slash", *"torch", "enter")
        await until(pilot, lambda: any("torch" in line for line in lines(pilot)))
        await pilot.press("n", "N", "slash", *"x-nowhere", "enter")
        await until(pilot, lambda: "Nothing here has 'torchx-nowhere'" in foot(pilot))

    play(demo_store, "sage-owl-41", story)


def test_files_and_code_have_their_tabs(demo_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        screen = pilot.app.screen
        assert isinstance(screen, RunScreen)
        await until(pilot, lambda: "Files 5" in lines(pilot)[2])
        while screen.tab != "Files":
            await pilot.press("tab")
        await until(pilot, lambda: any("confusion_matrix.json" in line for line in lines(pilot)))
        await pilot.press("j", "j")
        await until(pilot, lambda: any("✓ as logged" in line for line in lines(pilot)))
        await until(pilot, lambda: any("plane" in line and "truck" in line for line in lines(pilot)))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, TextScreen))
        await pilot.press("q")
        await until(pilot, lambda: pilot.app.screen is screen)
        await pilot.press("g", "h")
        await until(pilot, lambda: not any("best.txt" in line for line in lines(pilot)))
        await pilot.press("tab")
        await until(pilot, lambda: any("ENVIRONMENT" in line for line in lines(pilot)))

    play(demo_store, "calm-elk-12", story, size=(130, 40))


def test_files_in_an_object_store_are_listed_and_shown(store_root: Path, s3_place: str) -> None:
    with open_store(str(store_root)) as store:
        set_destination(store.database, store.root, Destination(s3_place, drop_local=True))
    with log.start_run(run_name="far-away", system_metrics=False) as run:
        run.sending = float("inf")
        log.log_metrics({"loss": 0.25}, 1)
        log.log_metrics({"loss": 0.125}, 2)
        log.log_text("a line of it\n" * (SMALL_BYTES // 10), "deep/long.txt")
    done = send_now(str(store_root), print)
    assert done is not None and done.dropped == 1

    async def story(pilot: Pilot[None]) -> None:
        screen = pilot.app.screen
        assert isinstance(screen, RunScreen)
        await until(pilot, lambda: "Files 1" in lines(pilot)[2])
        while screen.tab != "Files":
            await pilot.press("tab")
        await until(pilot, lambda: any("long.txt" in line and "s3" in line for line in lines(pilot)))
        await pilot.press("j")
        await until(pilot, lambda: any("✓ as logged" in line for line in lines(pilot)))
        await until(pilot, lambda: any("a line of it" in line for line in lines(pilot)))
        assert any(f"at      {s3_place}"[:60] in line for line in lines(pilot))

    play(str(store_root), "far-away", story, size=(130, 40))


def test_empty_tabs_are_hidden(demo_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "Charts 6" in lines(pilot)[2])
        assert "Files" not in lines(pilot)[2] and "Logs" not in lines(pilot)[2]

    play(demo_store, "ddp-bee-64", story)


HOSTILE = "a\x1b]52;c;eA==\x07b\x9b31m\u202ec[@click='app.exit']d[/] e\x1b[2J"


def test_hostile_texts_are_harmless_on_every_tab(store_root: Path, store_address: str) -> None:
    with log.start_run(name=HOSTILE, experiment=HOSTILE, tags={HOSTILE: HOSTILE}) as run:
        run.log_params({HOSTILE: HOSTILE})
        for step in range(50):
            run.log_metrics({HOSTILE: float(step), "loss": 1.0 / (step + 1)}, step=step)
        log.log_text(HOSTILE, f"dir/{HOSTILE.replace('/', '')}.txt")
        folder, run_id = run.folder, run.run_id
    (folder / "console.log").write_bytes(f"10 WARN {HOSTILE}\n{HOSTILE}\r{HOSTILE}\n".encode() * 5)

    async def story() -> None:
        app = MltrackApp(store_address, place=HOSTILE)
        async with app.run_test(size=(120, 40)) as pilot:
            await until(pilot, lambda: isinstance(app.screen, RunsScreen) and app.screen.view is not None)
            await until(pilot, lambda: len(app.screen.query_one(RunTable).ids) == 1)
            await pilot.press("enter")
            await until(pilot, lambda: isinstance(app.screen, RunScreen) and app.screen.page is not None)
            screen = app.screen
            assert isinstance(screen, RunScreen)
            assert screen.run_id == run_id and len(screen.tabs()) == 6
            await until(pilot, lambda: charts(pilot).series and charts(pilot).series[0].came)
            await pilot.press("h", "n", "x", "x", "x", *"]52", "enter", "slash", *"@click", "enter")
            for _ in range(6):
                await pilot.press("tab", "j", "enter")
                await pilot.pause(0.2)
                assert all(line.isprintable() for line in lines(pilot)), lines(pilot)
                if app.screen is not screen:
                    await pilot.press("q")
            assert app.screen is screen and app.is_running

    asyncio.run(story())


def test_a_live_run_goes_on_and_waits_while_nobody_looks(store_root: Path, store_address: str) -> None:
    async def story(run: ActiveRun) -> None:
        app = MltrackApp(store_address, place="store")
        async with app.run_test(size=(80, 24)) as pilot:
            await until(pilot, lambda: isinstance(app.screen, RunsScreen) and app.screen.view is not None)
            await until(pilot, lambda: len(app.screen.query_one(RunTable).ids) == 1)
            await pilot.press("enter")
            await until(pilot, lambda: isinstance(app.screen, RunScreen) and app.screen.page is not None)
            screen, widget = app.screen, charts(pilot)
            assert isinstance(screen, RunScreen)
            await until(pilot, lambda: widget.series and widget.series[0].came)
            reach = widget.window.range[1]
            assert reach > 99, "a live axis ends a little behind the last point"
            run.log_metric("loss", 0.25, step=100)
            await until(pilot, lambda: widget.series[0].last == 0.25)
            await until(pilot, lambda: 0.25 in widget.series[0].lines[0].y)
            assert widget.window.range[1] == reach, "one more point moves nothing else"
            app.post_message(events.AppBlur())
            await until(pilot, lambda: not app.app_focus)
            run.log_metric("loss", 0.125, step=101)
            await until(pilot, lambda: screen._stale)
            assert widget.series[0].last == 0.25
            app.post_message(events.AppFocus())
            await until(pilot, lambda: widget.series[0].last == 0.125)

    with log.start_run(name="going-on") as run:
        for step in range(100):
            run.log_metric("loss", 1.0 / (step + 1), step=step)
        asyncio.run(story(run))

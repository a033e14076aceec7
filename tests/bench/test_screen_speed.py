"""The app in a real terminal beside a Textual hello-world table: first rows, bytes and times of keys, idle, memory, many live runs.

Times are wall time and mean something on a quiet machine; their ratios to the table beside it hold on others too.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from big_store import make_store
from journals import START_MS, write_run
from measure import MARGIN, Figures
from terminal import Keys, Terminal

from mltrack.store import open_store
from mltrack.store.client.journal import points_line

pytestmark = pytest.mark.long
_HELLO = """
import os, sys
os.environ["TEXTUAL_ANIMATIONS"] = "none"
from textual.app import App
from textual.widgets import DataTable
class Hello(App):
    def compose(self):
        yield DataTable(cursor_type="row")
    def on_mount(self):
        table = self.query_one(DataTable)
        table.add_columns("RUN", "STATUS", "loss")
        for number in range(int(sys.argv[1])):
            table.add_row(f"hello-{number}", "done", ".5")
        table.focus()
Hello().run()
"""
_ROUNDS = 9
_DOWN, _PAGE_DOWN = "\x1b[B", "\x1b[6~"


def _app(store: Path, state: Path, *more: str, columns: int = 80, lines: int = 24) -> Terminal:
    return Terminal(
        "-m", "mltrack.tui.entry", "--store", str(store), *more, columns=columns, lines=lines, state=state
    )


def _hello(folder: Path, rows: int) -> Terminal:
    script = folder / "hello.py"
    script.write_text(_HELLO)
    return Terminal(str(script), str(rows), state=folder)


def _end_of_newest_name(store: Path) -> bytes:
    """What its row in the table ends with: the prefix that all names share is left out there."""
    with open_store(str(store), readonly=True) as opened:
        name = opened.runs(opened.search("", limit=1).run_ids, metrics=())[0].name
        return re.escape(name.rpartition("-")[2].encode())


@pytest.fixture(scope="module", params=["10k runs", "100k runs", "1,500 runs x 1,500 metrics"])
def shape(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path]]:
    name: str = request.param
    root = tmp_path_factory.mktemp("runs")
    if name.startswith("1,500"):
        make_store(root, 1500, metrics=1500, points=2, params=150, experiments=1)
    else:
        make_store(root, 10_000 if name == "10k runs" else 100_000, points=2)
    with open_store(str(root)) as store:
        # Makes the stored columns, as the store's process has long done.
        store.search("", sort=("-metrics.`eval/metric_00`.max",), limit=1)
    yield name, root


@pytest.fixture(scope="module")
def shape_10k(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ten")
    make_store(root, 10_000, points=2)
    return root


def test_first_rows(shape: tuple[str, Path], tmp_path: Path, figures: Figures) -> None:
    name, store = shape
    promise = {"10k runs": 1.3, "100k runs": 1.5}.get(name)
    newest = _end_of_newest_name(store)
    ratios: list[float] = []
    fresh: list[float] = []
    again: list[float] = []
    for turn in range(_ROUNDS):
        terminal = _hello(tmp_path, 22)
        usual = terminal.until(b"hello-5")
        terminal.end()
        terminal = _app(store, tmp_path / f"state-{turn}")
        fresh.append(terminal.until(newest))
        terminal.leave()
        ratios.append(fresh[-1] / usual)
        # The page that was left is there at once, faint until the worker has confirmed it.
        terminal = _app(store, tmp_path / f"state-{turn}")
        again.append(terminal.until(newest) / usual)
        terminal.end()
    ratio = statistics.median(ratios)
    figures.add(
        f"First rows, {name}, beside a Textual hello-world table; the page of the last time",
        f"{promise}x" if promise else "",
        f"{ratio:.2f}x ({statistics.median(fresh) * 1000:.0f} ms); {statistics.median(again):.2f}x",
    )
    assert promise is None or ratio < MARGIN * promise
    assert statistics.median(again) < 1


def test_keys(shape: tuple[str, Path], tmp_path: Path, figures: Figures) -> None:
    name, store = shape
    terminal = _hello(tmp_path, 300)
    terminal.until(b"hello-5")
    terminal.quiet()
    usual = {
        "move": terminal.keys([_DOWN] * 30, 0.08),
        "page": terminal.keys([_PAGE_DOWN] * 10, 0.08),
        "column": None,
    }
    terminal.end()
    terminal = _app(store, tmp_path)
    terminal.until(_end_of_newest_name(store))
    terminal.quiet()
    found = {
        "move": terminal.keys("jk" * 50),
        "page": terminal.keys([_PAGE_DOWN] * 40),
        "column": terminal.keys("lh" * 10),
    }
    held = terminal.hold("j", 4.0)
    terminal.quiet()
    before = terminal.cpu()
    idle = terminal.listen(5.0)
    load = (terminal.cpu() - before) / 5.0
    memory = terminal.memory_kb()
    terminal.end()
    for kind, promise_bytes, promise_ms in (("move", 1000, 20), ("page", 6000, 50), ("column", 1000, 20)):
        beside = usual[kind]
        figures.add(
            f"A {kind} at 80x24, {name}, 256 colours: bytes with all that follows; key to frame p50 / p99",
            f"{promise_bytes / 1000:g} kB; p99 {promise_ms} ms",
            str(found[kind]),
            f"hello-world table: {beside}" if beside else "",
        )
        assert found[kind].size <= promise_bytes
        assert found[kind].milliseconds(0.5) < MARGIN * promise_ms
    figures.add(
        f"A key held down, {name}: frames a second; lag",
        "29; 50 ms",
        f"{held.frames:.1f}; {held.lag * 1000:.0f} ms",
    )
    assert held.frames > 29 / MARGIN
    figures.add(f"Idle, {name}: bytes in 5 s; CPU", "0; 1 %", f"{idle}; {load:.1%}")
    assert idle == 0
    promised = 150 if name.startswith("1,500") else 100
    figures.add(f"The screen process, {name}", f"{promised} MB", f"{memory / 1000:.0f} MB")
    assert memory <= promised * 1000


def test_keys_while_points_are_folded(shape_10k: Path, tmp_path: Path, figures: Figures) -> None:
    """The worker folds all the time; 50 million points wait in a store of 50 such journals, which is the same for a key."""
    chunk = b"".join(
        points_line(step, START_MS + step, {"loss": 0.123456789 + step}) for step in range(100_000)
    )
    for number in range(10):
        journal = write_run(shape_10k, ["loss"], 1, end=False, seed=number)
        for _ in range(20):
            journal.points().append(chunk)
        journal.close()
    terminal = _app(shape_10k, tmp_path)
    terminal.until(rb"10,0")
    terminal.listen(2.0)
    moves, pages = terminal.keys("jk" * 20, 0.1), terminal.keys([_PAGE_DOWN] * 20, 0.15)
    held = terminal.hold("j", 3.0)
    terminal.end()
    with open_store(str(shape_10k), readonly=True) as store:
        waiting = store.refresh(0.0).pending_bytes if not store.database.readonly else 1
    figures.add(
        "The same while millions of unread points are folded: a move; a page; frames of a held key; CPU of a move p50 / p99",
        "p99 20 ms; p99 50 ms; 29",
        f"{moves.milliseconds(0.5):.1f} / {moves.milliseconds(0.99):.1f} ms; "
        f"{pages.milliseconds(0.5):.1f} / {pages.milliseconds(0.99):.1f} ms; {held.frames:.1f}; "
        f"{moves.cpu_milliseconds(0.5):.1f} / {moves.cpu_milliseconds(0.99):.1f} ms",
    )
    assert waiting
    assert moves.milliseconds(0.5) < 20 * MARGIN and pages.milliseconds(0.5) < 50 * MARGIN
    assert moves.cpu_milliseconds(0.99) < 20


def test_fifty_live_runs(tmp_path: Path, figures: Figures) -> None:
    writer = subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "fifty_runs.py"), str(tmp_path / "store")]
    )
    try:
        terminal = _app(tmp_path / "store", tmp_path)
        terminal.until(rb"owl-\d+")
        terminal.listen(5.0)
        before = terminal.cpu()
        size = terminal.listen(10.0)
        load = (terminal.cpu() - before) / 10
        moves = terminal.keys("jk" * 30, 0.05)
        terminal.end()
    finally:
        writer.kill()
        writer.wait()
    figures.add(
        "50 live runs log 100 metrics each second: CPU of the screen process; bytes a second; a move p50 / p99; its CPU p50 / p99",
        "10 %; ; p99 20 ms",
        f"{load:.1%}; {size / 10:.0f}; {moves.milliseconds(0.5):.1f} / {moves.milliseconds(0.99):.1f} ms; "
        f"{moves.cpu_milliseconds(0.5):.1f} / {moves.cpu_milliseconds(0.99):.1f} ms",
    )
    assert load < 0.10 * MARGIN
    assert moves.milliseconds(0.5) < 20 * MARGIN and moves.cpu_milliseconds(0.99) < 20


def test_compare_a_hundred_runs(shape: tuple[str, Path], tmp_path: Path, figures: Figures) -> None:
    name, store = shape
    if not name.startswith("1,500"):
        pytest.skip("about wide runs")
    opened: list[float] = []
    moves, pages = Keys(), Keys()
    for turn in range(5):
        terminal = _app(store, tmp_path / str(turn), "--filter", "seed < 100", columns=120, lines=40)
        terminal.until(rb"100 of 1,500")
        terminal.quiet()
        terminal.write("A")
        terminal.until(rb"100 marked")
        terminal.quiet()
        began = terminal.write("c")
        opened.append(terminal.until(rb"eval/metric_\d+", began))
        terminal.quiet(0.5)
        if turn == 4:
            moves, pages = terminal.keys("jk" * 20), terminal.keys([_PAGE_DOWN] * 10)
        terminal.end()
    milliseconds = statistics.median(opened) * 1000
    figures.add(
        "Comparing 100 runs x 1,500 metrics x 150 params: opens; a move; a page, p50 / p99 (120x40)",
        "300 ms; p99 20 ms; p99 50 ms",
        f"{milliseconds:.0f} ms; {moves.milliseconds(0.5):.1f} / {moves.milliseconds(0.99):.1f} ms; "
        f"{pages.milliseconds(0.5):.1f} / {pages.milliseconds(0.99):.1f} ms",
    )
    assert milliseconds < 300 * MARGIN

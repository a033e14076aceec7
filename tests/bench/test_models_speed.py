"""The models screen over 1,000 models of 100 versions each, in a real terminal."""

from __future__ import annotations

import statistics
from functools import partial
from pathlib import Path

import pytest
from many_models import make_registry
from measure import MARGIN, Figures, cpu_of
from terminal import Terminal

from mltrack.store import open_store
from mltrack.tui.worker_calls.models import models

pytestmark = pytest.mark.long
_PAGE_DOWN, _PAGE_UP = "\x1b[6~", "\x1b[5~"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("registry")
    make_registry(root, 1000, 100)
    return root


def _open(registry: Path, state: Path) -> tuple[Terminal, float]:
    """The app on the models screen, and the seconds from the key to the whole of it."""
    terminal = Terminal("-m", "mltrack.tui.entry", "--store", str(registry), state=state)
    terminal.until(rb"runs")
    terminal.quiet()
    began = terminal.write("2")
    # Rows and board come with one answer.
    seconds = terminal.until(rb"model-0000.*way back", began)
    terminal.quiet()
    return terminal, seconds


def test_opening_and_keys(registry: Path, tmp_path: Path, figures: Figures) -> None:
    opened: list[float] = []
    for turn in range(4):
        terminal, seconds = _open(registry, tmp_path / str(turn))
        opened.append(seconds)
        terminal.leave()
    terminal, seconds = _open(registry, tmp_path / "keys")
    opened.append(seconds)
    moves = terminal.keys("j" * 30 + "k" * 30)
    pages = terminal.keys([_PAGE_DOWN] * 20 + [_PAGE_UP] * 20)
    ends = terminal.keys("Gg" * 5)
    versions = terminal.keys("lh" * 10)
    held = terminal.hold("j", 4.0)
    terminal.quiet()
    before = terminal.cpu()
    idle = terminal.listen(5.0)
    load = (terminal.cpu() - before) / 5.0
    memory = terminal.memory_kb()
    terminal.leave()
    figures.add(
        "1,000 models x 100 versions at 80x24: the models screen opens",
        "300 ms",
        f"{statistics.median(opened) * 1000:.0f} ms",
    )
    figures.add(
        "The same: a move; a page; first and last: bytes with the board that follows; key to frame p50 / p99",
        "p99 20 ms; p99 50 ms",
        f"{moves}; {pages}; {ends}",
    )
    figures.add(
        "The same: another version; frames a second of a held key, its lag; idle bytes in 5 s, CPU; the screen process",
        "; 29, 50 ms; 0, 1 %; 100 MB",
        f"{versions}; {held.frames:.1f}, {held.lag * 1000:.0f} ms; {idle}, {load:.1%}; {memory / 1000:.0f} MB",
    )
    assert statistics.median(opened) < 0.3 * MARGIN
    assert moves.milliseconds(0.5) < 20 * MARGIN
    assert pages.milliseconds(0.5) < 50 * MARGIN
    assert held.frames > 29 / MARGIN
    assert idle == 0
    assert memory <= 100_000


def test_what_the_worker_does_for_it(registry: Path, figures: Figures) -> None:
    with open_store(str(registry)) as store:
        cold = cpu_of(lambda: models(store))
        everything = statistics.median(cpu_of(lambda: models(store)) for _ in range(5))
        names = [f"model-{number:04}" for number in range(0, 200, 10)]
        one = statistics.median(cpu_of(partial(models, store, name=name, rows=False)) for name in names)
    figures.add(
        "The same, CPU in the worker: all rows and a board, first and again; the board of another model",
        "",
        f"{cold * 1000:.0f}, {everything * 1000:.0f} ms; {one * 1000:.1f} ms",
    )

"""W&B's `wandb leet` and `terminalboard` beside the app, in the same terminal, on the same ten runs of 6 x 5,000 points.

Each does what it can do: leet goes through runs with their charts (its zoom and values need a mouse), terminalboard moves a
cursor through one chart of all runs.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from measure import Figures
from terminal import Keys, Terminal

pytestmark = pytest.mark.long
_COLUMNS, _LINES = 120, 40
_DOWN, _RIGHT = "\x1b[B", "\x1b[C"
_MLTRACK = (sys.executable, "-m", "mltrack.tui.cli")


@pytest.fixture(scope="module")
def others() -> Path:
    """The programs of a virtual environment with them and with tensorboardX."""
    folder = Path(os.environ.get("MLT_TERMINALS", "/nowhere")) / "bin"
    if not (folder / "wandb").exists() or not (folder / "terminalboard").exists():
        pytest.skip(
            "needs wandb, terminalboard, 'plotext<6' and tensorboardX in a virtual environment that MLT_TERMINALS names"
        )
    return folder


@pytest.fixture(scope="module")
def data(others: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("beside")
    script = Path(__file__).parent / "terminals_data.py"
    subprocess.run([others / "python", script, root], check=True, capture_output=True)
    return root


def _said(first: float, keys: Keys) -> str:
    return f"{first * 1000:.0f} ms; {keys.size:.0f} B; {keys.milliseconds(0.5):.0f}, {keys.milliseconds(0.99):.0f} ms"


def test_the_same_in_other_terminals(
    others: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figures: Figures
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    said: dict[str, str] = {}

    leet = Terminal(
        "leet",
        str(data / "wandb"),
        columns=_COLUMNS,
        lines=_LINES,
        state=tmp_path,
        program=str(others / "wandb"),
    )
    first = leet.until(rb"train/metric_0")
    leet.quiet(2.0)
    leet.press("\x1b", 1.0)
    said["leet, next run"] = _said(first, leet.keys([_DOWN] * 8, 1.0))
    leet.end()

    board = Terminal(
        str(data / "tb"),
        columns=_COLUMNS,
        lines=_LINES,
        state=tmp_path,
        program=str(others / "terminalboard"),
    )
    first = board.until(rb"train/metric_0")
    board.quiet(2.0)
    board.press("\r", 1.0)
    said["terminalboard, cursor"] = _said(first, board.keys([_RIGHT] * 20, 0.5))
    board.end()

    store = tmp_path / "store"
    subprocess.run(
        [*_MLTRACK, "--store", store, "source", "add", data / "wandb"], check=True, capture_output=True
    )
    app = Terminal(
        "-m", "mltrack.tui.entry", "--store", str(store), columns=_COLUMNS, lines=_LINES, state=tmp_path
    )
    first = app.until(rb"(?s)run-\d+.*run-\d+|metric_0")
    app.quiet()
    said["mltrack, next run"] = _said(first, app.keys([_DOWN] * 8, 0.5))
    app.press("A")
    app.press("c", 1.5)
    app.press("\t")
    app.press("g", 1.0)
    said["mltrack, cursor"] = _said(first, app.keys("l" * 20, 0.3))
    app.press("q")
    app.press("q")
    app.press("q", 1.0)
    app.press("\r", 1.5)
    said["mltrack, next run with its charts"] = _said(first, app.keys("J" * 8, 0.7))
    app.end()
    for what, figure in said.items():
        figures.add(
            f"Ten runs of 6 x 5,000 points, {what}: first charts or rows; bytes of a key; key to frame p50, p99",
            "",
            figure,
        )
    assert len(said) == 5

"""What a person does, from the first key to the last, on a real terminal that is read back."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# The wide window shows the same story: it goes with the long tests.
SIZES = [(80, 24), pytest.param(200, 50, marks=pytest.mark.long)]
APP = (sys.executable, "-m", "mltrack.tui.entry")

# Logs every 50 ms until it is stopped: a spike, then NaN, then on.
TRAINING = """
import math, time, mltrack
run = mltrack.start_run(run_name="live-one", experiment="watching")
mltrack.log_params({"lr": 3e-4, "epochs": 9})
print("begin training", flush=True)
for step in range(1, 100_000):
    loss = 2 / (1 + step / 20) + (3 if step == 60 else 0)
    mltrack.log_metric("train/loss", math.nan if step == 80 else loss, step=step)
    if step % 10 == 0:
        print(f"step {step} loss {loss:.3f}", flush=True)
        mltrack.log_metric("val/acc", 1 - 1 / (1 + step / 30), step=step)
    time.sleep(0.05)
"""


@pytest.mark.parametrize(("columns", "lines"), SIZES)
def test_a_sweep_is_understood(
    terminal: Callable[..., Any], story_store: str, columns: int, lines: int, tmp_path: Path
) -> None:
    """J2: open the sweep, sort, filter, mark three, compare, see what is to blame, take it away as a file."""
    app = terminal(columns, lines, *APP, "--store", story_store)
    app.until(r"sweep-7")
    # Flat, and by the goal metric: its way is known, so the first press puts the best on top.
    app.type("t").until(r"calm-elk-12|eager-bee")
    # The cursor stays on its run when the order changes; g goes to the top.
    app.type("lls" if columns < 100 else "llls").until(r"▼val/acc")
    app.type("g").until(r"AGE[^\n]*\n[^\n]*sage-owl-41")
    app.type("/").type("lr < 1e-2 and (opt.name = adamw or opt.name = lion)")
    app.press("Enter").until(r"52 of \d\d")
    # NaN is never best: the star stands at the highest number.
    star = app.line("★")
    assert ".9312" in star and "sage-owl-41" in star
    app.type("q").until(r"(\d\d) of \1")
    app.type("/").type("name in (sage-owl-41, calm-elk-12, dim-ram-23)")
    app.press("Enter")
    app.until(r"[ (]3 of \d\d")
    app.type("A")
    app.until("3 marked")
    app.type("c")
    shown = app.until(r"(?s)Compare 3 runs.*data\.crop.*")
    assert re.search(r"5 differ, 20 equal folded", "\n".join(shown))
    rows = [line.split()[0] for line in shown if line.strip() and not line.startswith(" $")]
    rows = rows[rows.index("PARAMS") :]
    assert rows.index("data.crop") < rows.index("lr"), "what is to blame stands first"
    best = next(line for line in shown if "val/acc" in line)
    assert best.count("★") == 1 and "-12.8%" in best
    app.press("Enter")
    app.until("may be it")
    app.type("G").until(r"(?s)\n +lr .{0,150}not it")
    app.press("Escape")
    app.until("Compare 3 runs")
    # One cursor through all curves.
    app.press("Tab").type("g")
    app.press("C-d")
    app.until(r"step [\d,]+  a [\d.]+  b [\d.]+  c [\d.]+")
    target = tmp_path / "compare.md"
    app.type(":").type(f"w {target}")
    app.press("Enter")
    app.until("Wrote ")
    text = target.read_text()
    assert "step" in text
    app.type("qq").type(":").type(f"w {tmp_path / 'rows.md'}")
    app.press("Enter")
    app.until(r"Wrote \d+ rows to")
    assert "data.crop" in (tmp_path / "rows.md").read_text()
    app.type("Q")
    assert app.ended() == 0


@pytest.mark.parametrize(("columns", "lines"), SIZES)
def test_a_live_training_is_watched_and_stopped(
    terminal: Callable[..., Any], environ: dict[str, str], columns: int, lines: int, tmp_path: Path
) -> None:
    """J3: the run appears by itself, its curves move, events are jumped to, the log is read, X stops it after a question."""
    store = tmp_path / "store"
    app = terminal(columns, lines, *APP, "--store", str(store))
    app.until("Nothing is logged")
    training = subprocess.Popen(
        [sys.executable, "-c", TRAINING],
        env={**environ, "MLTRACK_STORE": str(store), "MLTRACK_FACTS": "0", "MLTRACK_CONSOLE": "1"},
        stdout=subprocess.PIPE,
        cwd=tmp_path,
    )
    try:
        app.until(r"live-one\s+● ")
        app.press("Enter")
        app.until(r"train/loss")
        # Live: the last step goes on without a key.
        first = int(re.findall(r"step (\d+)", "\n".join(app.until(r"step \d+")))[0])
        app.until(rf"step (?!{first}\b)\d+")
        # The window is dragged while it runs.
        app.resize(60, 18)
        app.resize(columns, lines)
        app.until(r"train/loss")
        for _ in range(200):
            if int(re.findall(r"step (\d+)", "\n".join(app.until(r"step \d+")))[0]) > 90:
                break
            time.sleep(0.1)
        app.type("n")
        app.until(r"step \d+")
        app.press("Escape")
        app.type("L")
        app.until(r"begin training|step \d+ loss")
        for _ in range(4):
            if any(re.search(r"RUN +STATUS", line) for line in app.screen()):
                break
            app.type("q")
            time.sleep(0.5)
        app.until(r"RUN +STATUS")
        app.type("X")
        question = app.until(r"\[y/N\]")
        assert any("live-one" in line for line in question)
        app.press("Enter")
        # The next question is another one: this one is gone before it is asked.
        app.until(r"(?s)\A(?!.*\[y/N\])")
        assert training.poll() is None, "the default is no"
        app.type("X")
        app.until(r"\[y/N\]")
        app.type("y")
        training.wait(60)
        app.until(r"live-one\s+✗|live-one\s+! |killed", 60)
        app.type("Q")
        assert app.ended() == 0
    finally:
        if training.poll() is None:
            os.kill(training.pid, signal.SIGKILL)
        training.communicate()

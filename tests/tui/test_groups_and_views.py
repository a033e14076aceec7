"""Groups and named views: at the prompt and in the app they are the same."""

from __future__ import annotations

import json
import statistics
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Command = tuple[tuple[str, ...], dict[str, str]]
OpenApp = Callable[..., Any]


def test_groups_are_those_of_the_runs(mltrack: Run, demo_store: str) -> None:
    asked = ("--store", demo_store, "ls", "status = finished", "-x", "vision/cifar")
    runs = json.loads(mltrack(*asked, "--json", "--limit", "0").stdout)
    groups = json.loads(mltrack(*asked, "--group-by", "opt.name,seed", "-c", "train/loss", "--json").stdout)
    assert sum(group["runs"] for group in groups) == len(runs) > 20
    chosen = ("ls", "status = finished and opt.name = lion and seed = '1'", "-x", "vision/cifar")
    table = mltrack("--store", demo_store, *chosen, "-c", "run_id,train/loss.min", "--csv").stdout
    best = [float(line.split(",")[1]) for line in table.splitlines()[1:]]
    lion = next(group for group in groups if group["by"] == {"opt.name": "lion", "seed": "1"})
    found = lion["metrics"]["train/loss"]
    assert (found["n"], found["min"], found["max"]) == (len(best), min(best), max(best))
    assert abs(found["mean"] - statistics.fmean(best)) < 1e-12
    assert len(best) < 2 or abs(found["std"] - statistics.stdev(best)) < 1e-12
    means = [group["metrics"]["train/loss"]["mean"] for group in groups if group["metrics"]["train/loss"]]
    assert means == sorted(means)
    assert mltrack(*asked, "--group-by", "no_such_param").returncode == 2


def test_a_view_saved_in_the_app_is_one_at_the_prompt(
    open_app: OpenApp, command: Command, mltrack: Run, demo_store: str, tmp_path: Path
) -> None:
    environ = {**command[1], "XDG_DATA_HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path)}
    app = open_app(environ, "--store", demo_store, columns=140)
    app.until("sweep-7")
    app.press("/seed = 1 and opt.name = lion\r").until(r"\d+ of 79")
    app.press(":view save lions\r").until("Saved as lions")
    app.press("b").until("Group by")
    app.press("\x15seed,opt.name\r").until(r"by seed,opt.name.*1 group of \d+ runs")
    app.press("\r").until(r"seed = 1 and opt.name = lion")
    app.press("\x1b").until("79 of 79")
    app.press(":view lions\r").until("View lions")
    app.press("\x1b").until("79 of 79")
    app.press(":view\r").until("Views")
    app.press("1").until("View lions")
    app.press("Q")
    app.finish()
    data = {"XDG_DATA_HOME": str(tmp_path)}
    told = mltrack("--store", demo_store, "ls", "--view", "lions", "--json", environ=data)
    asked = mltrack("--store", demo_store, "ls", "seed = 1 and opt.name = lion", "--json")
    assert json.loads(told.stdout) == json.loads(asked.stdout) != []
    answer = mltrack("--store", demo_store, "ls", "--view", "../lions", environ=data)
    assert answer.returncode == 2 and "there are lions" in answer.stderr

"""The goal and the directions that were decided in the table hold for everything that compares runs, in the app and at the prompt."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mltrack.store import open_store
from mltrack.tui import goal
from mltrack.tui.saved_view import SavedView, save_view, view_file
from mltrack.tui.worker_calls import compare as compare_calls
from mltrack.tui.worker_calls import plots, report, runs, tidy

Run = Callable[..., "subprocess.CompletedProcess[str]"]
# By their names more of both is better, and val/score is the goal; here it is the width that counts, and less of both.
DECIDED = {"widths": {"goal": "width", "directions": {"width": "min", "val/score": "min"}}}
LOGGING = """
import mltrack
with mltrack.start_run(run_name="sweep", experiment="widths", system_metrics=False):
    for number in range(6):
        with mltrack.start_run(run_name=f"child-{number}", experiment="widths", nested=True, system_metrics=False):
            mltrack.log_param("lr", 10.0 ** -number)
            for step in range(200):
                mltrack.log_metrics({"val/score": number + step / 1000, "width": number + 1 + (step > 0) * 3}, step)
"""


@pytest.fixture(autouse=True)
def _nothing_is_remembered() -> Iterator[None]:
    yield
    goal.remember({})


@pytest.fixture
def store(tmp_path: Path, store_address: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    subprocess.run(
        [sys.executable, "-c", LOGGING], env={**os.environ, "MLTRACK_STORE": store_address}, check=True
    )
    return store_address


@pytest.fixture
def state(tmp_path: Path) -> dict[str, str]:
    """The environment of a command that has what the app kept."""
    return {"XDG_STATE_HOME": str(tmp_path / "state")}


def test_what_holds_for_runs_of_one_and_of_several_experiments() -> None:
    goal.remember(
        {
            "": {"goal": "all", "directions": {"c": "max"}},
            "v/": {"goal": "folder", "directions": {"b": "max"}},
            "v/a": {"goal": "own", "directions": {"a": "min", "b": "min"}},
            "x": {"hidden": []},
        }
    )
    assert goal.decided(["v/a"]) == goal.Decided("own", {"a": "min", "b": "min"})
    assert goal.decided(["v/a", "v/b"]) == goal.Decided("folder", {"a": "min", "b": "max"})
    assert goal.decided(["v/a", "x"]) == goal.Decided("all", {"a": "min", "b": "min", "c": "max"})
    assert goal.decided(["x"]) == goal.Decided()
    with goal.about(["v/a"]):
        assert (goal.direction_of("a"), goal.direction_arrow("a")) == ("min", "↓")
        assert goal.guess_goal({"own": 1, "val/acc": 9}) == "own"
        assert goal.guess_goal({"val/acc": 9}) == "val/acc"  # the chosen one is in none of these runs
    assert goal.direction_of("a") == "max"


def test_the_app_compares_reports_plots_and_keeps_by_what_was_decided(store: str, tmp_path: Path) -> None:
    with open_store(store) as opened:
        opened.refresh(None)
        ids = opened.search("name like 'child%'", sort=("name",)).run_ids
        for decided, wanted in (({}, ("val/score ↑", 5)), (DECIDED, ("width ↓", 0))):
            runs.CALLS[0](opened, layouts=decided)
            page = compare_calls.compare(opened, run_ids=ids)
            label, best = wanted
            assert (page["rows"][0][2], page["goal"]) == (label, label.partition(" ")[0])
            assert ["★" in cell[0] for cell in page["cells"]["0"]].index(True) == best
            detail = compare_calls.compare_detail(opened, ids, "best", "metrics", str(page["goal"]), 1)
            assert f"Why {'abcdef'[best]} is better than" in json.dumps(detail)
            report.write_report(opened, ids, str(tmp_path / f"{best}.html"))
            assert label in (tmp_path / f"{best}.html").read_text()
            drawn = plots.plot_page(opened, "importance", (), ids, "", None, 90, 20, False)
            assert label.partition(" ")[0] in drawn["title"]
            kept = tidy.weigh_keep(opened, ids[0], 1)
            assert (kept["goal"], kept["names"]) == (label.partition(" ")[0], [f"child-{best}"])


def test_commands_go_by_what_the_app_kept(
    store: str, state: dict[str, str], mltrack: Run, tmp_path: Path
) -> None:
    def said(*words: str) -> str:
        answer = mltrack("--store", store, *words, environ=state)
        assert answer.returncode == 0, answer.stderr
        return answer.stdout

    children = [f"child-{number}" for number in range(6)]
    assert "val/score ↑" in said("compare", *children) and "ranked by effect on val/score" in said(
        "compare", *children
    )
    save_view(view_file(store), SavedView(layouts=DECIDED))
    compared = said("compare", *children)
    assert "ranked by effect on width" in compared
    assert re.search(r"width ↓ +1 ★ +2 ", compared)
    said("report", *children, "-o", str(tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text()
    assert "width ↓" in page and "val/score ↓" in page
    assert "width" in said("plot", "--kind", "importance", "", *children).splitlines()[0]
    assert "child-0  width" in said("keep", "1", "sweep", "--dry-run")


def test_alerts_watch_the_goal_that_was_decided(store: str, state: dict[str, str], mltrack: Run) -> None:
    code = """
import mltrack, time
with mltrack.start_run(run_name="flat", experiment="widths", system_metrics=False):
    for step in range(1000):
        mltrack.log_metrics({"val/score": step / 1000, "width": 5.0 if step else 1.0}, step)
    print("logged", flush=True)
    input()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "MLTRACK_STORE": store},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as training:
        assert training.stdout is not None
        training.stdout.readline()
        before = mltrack("--store", store, "alerts", "--json", environ=state)
        assert json.loads(before.stdout) == []  # the score is best at its end
        save_view(view_file(store), SavedView(layouts=DECIDED))
        after = json.loads(mltrack("--store", store, "alerts", "--json", environ=state).stdout)
        training.communicate("\n")
    assert [(one["kind"], one["about"]) for one in after] == [("plateau", "width")]
    assert "not been better than 1 since step 0" in after[0]["sentence"]

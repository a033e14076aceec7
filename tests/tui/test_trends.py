"""The small curves in the table of runs."""

from __future__ import annotations

from pathlib import Path

import pytest

import mltrack
from mltrack.store import open_store
from mltrack.tui.worker_calls import runs
from mltrack.tui.worker_calls.runs import RunViews


def test_each_of_many_live_runs_gets_its_turn(store_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No time for more than one, and all have new points at every look: none of them waits for ever."""
    monkeypatch.setattr(runs, "_TREND_SECONDS", -1.0)
    live = [
        mltrack.start_run(run_name=f"r{number}", nested=True, system_metrics=False) for number in range(5)
    ]
    with open_store(str(store_root)) as store:
        views = RunViews()
        shown: list[str] = []
        for look in range(10):
            for run in live:
                for step in (2 * look, 2 * look + 1):
                    run.log_metric("loss", 1 / (step + 1), step)
            store.refresh(None)
            found = views.view(store, flat=True)
            answer = views.trends(store, found["ids"], "loss")
            assert answer["more"] and all(answer["texts"].values())
            shown += answer["texts"]
    for _ in live:
        mltrack.end_run()
    assert sorted(shown) == sorted(2 * [run.run_id for run in live])

"""The rules of alerts: each fires on what is proven, once, and not on what is only near it."""

from __future__ import annotations

import dataclasses

import numpy as np

from mltrack.store.curve_events import find_events
from mltrack.store.records import Run, Summary
from mltrack.tui.alerts import Condition, conditions, gpu_metrics, news, proven_spikes, watched_metrics

MINUTE = 60_000
NOW = 1_800_000_000_000


def summary(key: str, best_step: int, last: int, nan: int = 0, count: int | None = None) -> Summary:
    points = last + 1 if count is None else count
    return Summary(key, 0, last, NOW, 0.5, 0.1, best_step, 0.9, best_step, points, nan)


def run(status: str = "RUNNING", *metrics: Summary, **facts: object) -> Run:
    known = {metric.key: metric for metric in metrics}
    made = Run("r1", "sage-owl", "vision", status, start_ms=NOW, metrics=known)
    return dataclasses.replace(made, **facts)  # type: ignore[arg-type]


def kinds(found: list[Condition]) -> list[str]:
    return [condition.kind for condition in found]


def test_ends_are_told_by_how_they_came() -> None:
    assert kinds(conditions(run("FINISHED"), NOW)) == ["finished"]
    assert [c.sentence for c in conditions(run("FAILED", reason="CUDA OOM"), NOW)] == ["failed: CUDA OOM"]
    assert kinds(conditions(run("KILLED"), NOW)) == ["failed"]
    assert kinds(conditions(run("LOST"), NOW)) == ["lost"]


def test_silence_is_no_alert() -> None:
    assert conditions(run("RUNNING", quiet=True), NOW) == []


def test_nan_of_a_metric_but_not_of_the_machine() -> None:
    found = conditions(
        run("RUNNING", summary("loss", 9, 9, nan=2), summary("system/gpu0/util", 9, 9, nan=4)), NOW
    )
    assert [(c.kind, c.about) for c in found] == [("nan", "loss")]


def test_a_plateau_needs_half_of_the_steps_without_a_better_value() -> None:
    assert conditions(run("RUNNING", summary("val/acc", 60, 100)), NOW) == []
    assert kinds(conditions(run("RUNNING", summary("val/acc", 50, 100)), NOW)) == ["plateau"]
    assert (
        conditions(run("RUNNING", summary("val/acc", 0, 100, count=10)), NOW) == []
    )  # too few points to say
    assert kinds(conditions(run("FINISHED", summary("val/acc", 0, 100)), NOW)) == ["finished"]


def test_a_gpu_is_idle_when_samples_cover_the_time_and_all_say_so() -> None:
    key = "system/gpu0/util"
    going = run("RUNNING", summary(key, 1, 90))
    assert gpu_metrics(going) == [key]

    def about(loads: list[float], every: int = MINUTE // 2) -> list[str]:
        samples = [(NOW - every * (len(loads) - place), load) for place, load in enumerate(loads)]
        return kinds(conditions(going, NOW, (), {key: samples}))

    assert about([0.0] * 30) == ["idle-gpu"]
    assert about([90.0] * 10 + [0.0] * 21) == ["idle-gpu"]
    assert about([0.0] * 25 + [40.0] + [0.0] * 4) == []
    assert about([0.0] * 12) == []  # six minutes are not ten
    assert about([0.0] * 3, 10 * MINUTE) == []  # nobody looked in between


def test_a_spike_counts_with_points_behind_it_and_to_the_bad_side_only() -> None:
    noise = np.random.default_rng(1).normal(0, 0.01, 400)
    loss = 1.0 + noise
    loss[200], loss[399] = 9.0, 9.0
    steps = list(range(400))
    found = proven_spikes("loss", steps, loss.tolist(), find_events(loss))
    assert [(spike.step, round(spike.value)) for spike in found] == [(200, 9)]
    accuracy = 0.5 + noise
    accuracy[100], accuracy[200] = 5.0, -4.0
    found = proven_spikes("val/acc", steps, accuracy.tolist(), find_events(accuracy))
    assert [spike.step for spike in found] == [200]
    assert (
        "jumped to 9"
        in conditions(run(), NOW, proven_spikes("loss", steps, loss.tolist(), find_events(loss)))[0].sentence
    )


def test_goal_and_loss_are_watched_and_nothing_else() -> None:
    going = run("RUNNING", summary("val/acc", 1, 9), summary("train/loss", 1, 9), summary("lr", 1, 9))
    assert watched_metrics(going) == ["val/acc", "train/loss"]


def test_news_is_what_did_not_hold_before_and_old_runs_are_none() -> None:
    nan, lost = Condition("r1", "nan", "loss", ""), Condition("r1", "lost", "", "")
    runs = {"r1": run()}
    assert news({"r1": frozenset({nan.identity})}, {"r1": [nan, lost]}, NOW, runs) == [lost]
    assert news({"r1": frozenset({lost.identity})}, {"r1": []}, NOW, runs) == []
    # A run that began while we watch brings everything; one that was there before we looked, nothing.
    assert news({}, {"r1": [nan]}, NOW - MINUTE, runs) == [nan]
    assert news({}, {"r1": [nan]}, NOW + MINUTE, runs) == []

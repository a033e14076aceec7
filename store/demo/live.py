"""The part of the story that goes on while one looks: runs in progress, one of which spikes and recovers."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass

import numpy as np

from mltrack.store.demo import curves
from mltrack.store.demo.story import GoingOn, Story
from mltrack.store.demo.sweep import TOTAL_STEPS
from mltrack.store.demo.writer import Series

TICK_SECONDS = 0.5
_STEPS_PER_TICK = 20
_SPIKE_AFTER_SECONDS = 30.0
_SPIKE_SECONDS = 8.0
_BEAT_SECONDS = 5.0
_SUMMARY_SECONDS = 30.0


@dataclass
class _Live:
    going: GoingOn
    random: np.random.Generator
    step: int
    finished: bool = False


def continue_runs(
    story: Story,
    *,
    seconds: float | None,
    stop: threading.Event,
) -> None:
    """Log on, twice a second, until `seconds` have passed or `stop` is set. The runs are ended as killed then.

    Runs that reach their last step finish.
    """
    began = time.monotonic()
    lives = [
        _Live(going, curves.random_for(story.seed, going.trial.name + " live"), going.trial.stop)
        for going in story.going_on
    ]
    for live in lives:
        live.going.run.start_ms = time.time_ns() // 1_000_000 - int(live.step * live.going.run.step_ms)
    next_beat = next_summary = 0.0
    try:
        while not stop.is_set() and (seconds is None or time.monotonic() - began < seconds):
            elapsed = time.monotonic() - began
            for live in lives:
                if not live.finished:
                    _tick(live, elapsed)
            if elapsed >= next_beat:
                next_beat = elapsed + _BEAT_SECONDS
                for run in (*story.companions, *(live.going.run for live in lives)):
                    run.journal.beat()
            if elapsed >= next_summary:
                next_summary = elapsed + _SUMMARY_SECONDS
                for live in lives:
                    if not live.finished:
                        live.going.run.summarize(_now())
            stop.wait(TICK_SECONDS)
    finally:
        left = [live.going.run for live in lives if not live.finished]
        for run in (*left, *story.companions):
            run.end("KILLED", _now(), signal="SIGINT", reason="the demo was left")


def _tick(live: _Live, elapsed: float) -> None:
    """One record of training metrics; validation every 200 steps."""
    run, trial, random = live.going.run, live.going.trial, live.random
    live.step += _STEPS_PER_TICK
    loss = trial.floor + abs(float(random.normal(0, 0.012)))
    norm = 0.8 + float(random.gamma(2.0, 0.15))
    since = elapsed - _SPIKE_AFTER_SECONDS
    if trial.name == "sage-owl-41" and 0 <= since < _SPIKE_SECONDS:
        height = math.exp(-since / 2.0)
        loss *= 1 + 14 * height
        norm *= 1 + 60 * height
        if since < TICK_SECONDS:
            run.console([f"{live.step:>7} WARN loss scale reduced 8192 -> 4096, NaN in 1 micro-batch"])
    rate = trial.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, live.step / TOTAL_STEPS)))
    now = _now()
    run.start_ms = now - int(live.step * run.step_ms)
    step = np.array([live.step], dtype=np.int64)
    keys = ("train/loss", "lr", "grad_norm", "images_per_second")
    run.log(Series(keys, step, np.array([[loss, rate, norm, 1180 + float(random.normal(0, 14))]])))
    if live.step % curves.VALIDATE_EVERY < _STEPS_PER_TICK:
        accuracy = trial.best - abs(float(random.normal(0, 0.002))) - 0.001
        run.log(Series(("val/acc", "val/loss"), step, np.array([[accuracy, 0.18 + 2.2 * (1 - accuracy)]])))
        run.console([f"{live.step:>7} INFO train/loss {loss:.4f} val/acc {accuracy:.4f}"])
    if live.step % 100 < _STEPS_PER_TICK:
        run.meta("progress", now, step=live.step, total=TOTAL_STEPS)
    if live.step >= TOTAL_STEPS:
        live.finished = True
        run.end("FINISHED", now, exit=0)


def _now() -> int:
    return time.time_ns() // 1_000_000

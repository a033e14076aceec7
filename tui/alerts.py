"""What a person wants to be told about runs that go on: how they ended, NaN, spikes, plateaus, idle GPUs.

Pure rules over what is recorded. A condition is something that is proven to hold for a run now; an alert is a condition that
did not hold at the look before. A run that only fell silent is no alert: silence proves nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from mltrack.tui.draw.numbers import format_number, format_step
from mltrack.tui.goal import direction_arrow, guess_goal, guess_loss, is_background

if TYPE_CHECKING:
    from mltrack.store.curve_events import CurveEvent
    from mltrack.store.records import Run

Kind: TypeAlias = Literal["finished", "failed", "lost", "nan", "spike", "plateau", "idle-gpu"]
KINDS: tuple[Kind, ...] = ("finished", "failed", "lost", "nan", "spike", "plateau", "idle-gpu")
GOOD: frozenset[Kind] = frozenset(("finished",))
# A metric that has been best in the first half of its steps, over at least so many points, goes nowhere.
PLATEAU_SHARE, PLATEAU_POINTS = 0.5, 40
# A GPU of a running run that did next to nothing for so long, by at least so many samples.
IDLE_PERCENT, IDLE_MINUTES, IDLE_SAMPLES = 5.0, 10, 10
_UTIL = re.compile(r"system/gpu\d+/util")


@dataclass(frozen=True, slots=True)
class Condition:
    """``about`` tells conditions of one kind and run apart: the metric, and for a spike its step too."""

    run_id: str
    kind: Kind
    about: str
    sentence: str

    @property
    def identity(self) -> str:
        """Equal for the same condition at another look."""
        return f"{self.run_id} {self.kind} {self.about}"


@dataclass(frozen=True, slots=True)
class Spike:
    """A spike of a watched metric with points behind it, so that it is known to be one."""

    key: str
    step: int
    value: float
    factor: float | None = None


Samples: TypeAlias = Sequence[tuple[int, float]]
"""(ms since 1970, percent) in order of time."""


def watched_metrics(run: Run) -> list[str]:
    """The metrics whose spikes matter: the goal and a loss. A metric that only measures is in neither place."""
    known = dict.fromkeys(run.metrics, 1)
    goal = guess_goal(known)
    loss = guess_loss(known, goal)
    return [key for key in (goal, loss) if key is not None]


def gpu_metrics(run: Run) -> list[str]:
    """The keys under which the load of its GPUs is."""
    return [key for key in run.metrics if _UTIL.fullmatch(key)]


def proven_spikes(
    key: str, steps: Sequence[int], values: Sequence[float], events: Sequence[CurveEvent]
) -> list[Spike]:
    """The bad ones of a series' events: up where less is better, down where more is; not at its very end."""
    bad = "spike" if direction_arrow(key) == "↓" else "drop"
    last = len(steps) - 1
    return [
        Spike(key, steps[event.peak], values[event.peak], event.factor)
        for event in events
        if event.kind == bad and event.last < last
    ]


def conditions(
    run: Run, now_ms: int, spikes: Sequence[Spike] = (), gpus: Mapping[str, Samples] | None = None
) -> list[Condition]:
    """Everything that holds for a run now."""
    found: list[Condition] = []

    def add(kind: Kind, about: str, sentence: str) -> None:
        found.append(Condition(run.run_id, kind, about, sentence))

    why = f": {run.reason}" if run.reason else ""
    if run.status == "FINISHED":
        add("finished", "", "finished")
    elif run.status in ("FAILED", "KILLED"):
        add("failed", "", f"{'failed' if run.status == 'FAILED' else 'was stopped'}{why}")
    elif run.status == "LOST":
        add("lost", "", f"is lost{why}")
    for key, summary in run.metrics.items():
        if summary.nan_count and not key.startswith("system/"):
            add("nan", key, f"{key} is NaN ({summary.nan_count:,} of {summary.count:,} points)")
    for spike in spikes:
        times = f", {spike.factor:.0f} times the level around it" if spike.factor else ""
        add(
            "spike",
            f"{spike.key} {spike.step}",
            f"{spike.key} jumped to {format_number(spike.value)} at step {format_step(spike.step)}{times}",
        )
    if run.status == "RUNNING":
        for key in watched_metrics(run)[:1]:
            sentence = _plateau(run, key)
            if sentence:
                add("plateau", key, sentence)
        for key, samples in (gpus or {}).items():
            if _idle(samples, now_ms):
                gpu = key.split("/")[1]
                add("idle-gpu", gpu, f"{gpu} has done nothing for {IDLE_MINUTES} minutes")
    return found


def news(
    before: Mapping[str, frozenset[str]],
    now: Mapping[str, Sequence[Condition]],
    began_ms: int,
    runs: Mapping[str, Run],
) -> list[Condition]:
    """What holds now and did not before, by run. Of runs never seen before only what began since ``began_ms`` is new."""
    found: list[Condition] = []
    for run_id, holding in now.items():
        known = before.get(run_id)
        if known is None and (runs[run_id].start_ms or 0) < began_ms:
            continue
        found += [condition for condition in holding if condition.identity not in (known or ())]
    return found


def _plateau(run: Run, key: str) -> str:
    summary = run.metrics[key]
    arrow = direction_arrow(key)
    best, step = (summary.min, summary.min_step) if arrow == "↓" else (summary.max, summary.max_step)
    if not arrow or is_background(key) or best is None or step is None:
        return ""
    whole = summary.last_step - summary.first_step
    if summary.count < PLATEAU_POINTS or summary.last_step - step < PLATEAU_SHARE * whole:
        return ""
    return f"{key} has not been better than {format_number(best)} since step {format_step(step)}"


def _idle(samples: Samples, now_ms: int) -> bool:
    """Whether the last minutes are covered by samples that all say so."""
    since = now_ms - IDLE_MINUTES * 60_000
    recent = [value for time_ms, value in samples if time_ms >= since]
    covered = bool(samples) and samples[0][0] <= since and len(recent) >= IDLE_SAMPLES
    return covered and all(value < IDLE_PERCENT for value in recent)

"""Which runs of a sweep to keep, and which checkpoints nothing needs. Pure: runs and files in, what may go and why out."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from mltrack.store.records import Run

_CHECKPOINT = re.compile(r"\.(?:ckpt|pt|pth|safetensors|h5|keras|msgpack|npz|bin|orbax)$", re.IGNORECASE)
_IN_FOLDER = re.compile(r"(?:^|/)(?:checkpoints?|ckpts?|weights|snapshots?)(?:[-_/]|$)", re.IGNORECASE)
_BEST = re.compile(r"(?:^|[/_.\-])best(?:[/_.\-]|$)", re.IGNORECASE)
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class Trimmed:
    """``kept`` by their value, the best first; ``others`` may go; ``spared`` stay for a reason of their own."""

    kept: tuple[Run, ...]
    others: tuple[Run, ...]
    spared: tuple[tuple[Run, str], ...]


def keep_best(
    runs: Sequence[Run], goal: str, count: int, direction: Literal["max", "min"], models: Collection[str] = ()
) -> Trimmed:
    """The ``count`` best finished runs by the best value of ``goal``; runs that go on, are pinned or made a registered model are spared.

    NaN and runs without the goal come last: they are the first to go.
    """

    def value(run: Run) -> float:
        summary = run.metrics.get(goal)
        best = None if summary is None else summary.min if direction == "min" else summary.max
        if best is None or not math.isfinite(best):
            return math.inf
        return best if direction == "min" else -best

    spared = [(run, why) for run in runs if (why := _spared(run, models))]
    ids = {run.run_id for run, _ in spared}
    ranked = sorted((run for run in runs if run.run_id not in ids), key=lambda run: (value(run), run.run_id))
    return Trimmed(tuple(ranked[:count]), tuple(ranked[count:]), tuple(spared))


def _spared(run: Run, models: Collection[str]) -> str:
    if run.status == "RUNNING":
        return "goes on"
    if run.run_id in models:
        return "a registered model is made of it"
    return "is pinned" if run.pinned else ""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint file of a run. ``needed`` says why it stays; empty: nothing needs it."""

    run_id: str
    name: str
    size: int
    changed_ns: int
    needed: str


def judge_checkpoints(
    run: Run, files: Sequence[tuple[str, int, int]], models: Collection[str] = ()
) -> list[Checkpoint]:
    """The checkpoints among a run's files (name, bytes, time of change in ns). Of a run that ended the newest stays and whatever is called
    best; of one that goes on, is pinned or made a registered model everything stays."""
    found = [file for file in files if is_checkpoint(file[0])]
    if not found:
        return []
    whole = _spared(run, models)
    newest = max(found, key=lambda file: (_step(file[0]), file[2], file[0]))
    return [
        Checkpoint(
            run.run_id,
            name,
            size,
            changed,
            f"the run {whole}" if whole.startswith(("goes", "is")) else whole or _why(name, newest[0]),
        )
        for name, size, changed in found
    ]


def is_checkpoint(name: str) -> bool:
    """Whether a file is one by its name: the ending of weights, in a folder of checkpoints or numbered by a step."""
    if not _CHECKPOINT.search(name):
        return False
    stem = name.rsplit("/", 1)[-1].lower()
    return bool(_IN_FOLDER.search(name) or re.search(r"(?:ckpt|checkpoint|epoch|step|iter)", stem))


def _why(name: str, newest: str) -> str:
    if name == newest:
        return "the newest of its run"
    return "called best" if _BEST.search(name) else ""


def _step(name: str) -> int:
    """The last number in a name, which is the step or epoch where there is one."""
    numbers = _NUMBER.findall(name.rsplit(".", 1)[0])
    return int(numbers[-1][:18]) if numbers else -1

"""Everything that crosses a layer: frozen, plain, without a database behind it. Times are ms since 1970."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ENDED = frozenset({"FINISHED", "FAILED", "KILLED", "LOST"})


@dataclass(frozen=True, slots=True)
class Summary:
    """One metric of one run. ``min`` and ``max`` leave NaN out and are None when nothing else was logged."""

    key: str
    first_step: int
    last_step: int
    last_time_ms: int
    last: float
    min: float | None
    min_step: int | None
    max: float | None
    max_step: int | None
    count: int
    nan_count: int


@dataclass(frozen=True, slots=True)
class Run:
    """One run with its effective values: journals, overruled by decisions."""

    run_id: str
    name: str
    experiment: str
    status: str
    reason: str = ""
    user: str = ""
    host: str = ""
    pid: int | None = None
    start_ms: int | None = None
    end_ms: int | None = None
    heard_ms: int | None = None
    quiet: bool = False
    parent_id: str | None = None
    note: str = ""
    lifecycle: str = "active"
    pinned: bool = False
    step: int | None = None
    total: int | None = None
    exit_code: int | None = None
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, Summary] = field(default_factory=dict)
    conflicts: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    inputs: tuple[dict[str, Any], ...] = ()
    folder: Path | None = None
    damage: str | None = None
    skipped: int = 0
    source: str = ""


@dataclass(frozen=True, slots=True)
class Experiment:
    """A named group of runs with counts by status and the time of its last activity."""

    experiment_id: int
    name: str
    lifecycle: str
    runs: int
    statuses: dict[str, int]
    last_ms: int | None


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """A series in order of (step, time, value): int64[n], int64[n] ms, float64[n], bool[n]."""

    key: str
    rank: int
    steps: npt.NDArray[np.int64]
    times_ms: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]
    superseded: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Page:
    """Run ids in sort order; ``total`` matches in all; ``next`` continues behind the last one."""

    run_ids: tuple[str, ...]
    total: int
    next: str | None = None
    unknown_keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FoldReport:
    """What a fold did: records and points taken, lines skipped, bytes still unread, and what could not be read."""

    records: int = 0
    points: int = 0
    skipped: int = 0
    pending_bytes: int = 0
    damaged: tuple[str, ...] = ()
    folded_by_other: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """A change a person made: id for undo, and a sentence for the screen."""

    id: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Location:
    """Where a store is, why this one, and what a person should know about it."""

    root: Path
    database: str
    kind: str
    chosen_by: str
    notes: tuple[str, ...] = ()

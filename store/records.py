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
    artifacts: Path | None = None  # the folder with the run's files, when there is one on this machine
    damage: str | None = None
    skipped: int = 0
    source: str = ""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One start of a run; ``status`` is empty when no end of it was recorded."""

    name: str
    start_ms: int | None
    end_ms: int | None
    status: str
    reason: str
    exit_code: int | None
    host: str
    pid: int | None


@dataclass(frozen=True, slots=True)
class RecordedFile:
    """What was recorded of an artifact when it was logged: bytes, digest, how it was stored, and the address of its copy in an
    object store ("" without one)."""

    path: str
    size: int
    sha256: str
    how: str
    copy: str = ""


@dataclass(frozen=True, slots=True)
class RunModel:
    """A logged model that a run made or read (``way`` output or input), with its newest metrics."""

    model_id: str
    name: str
    way: str
    status: str
    params: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True)
class RunDetails:
    """What only the page of one run shows. ``refused`` holds (what, why); ``sequence`` changes with every change."""

    sequence: int
    attempts: tuple[Attempt, ...]
    ranks: tuple[int, ...]
    files: tuple[RecordedFile, ...]
    refused: tuple[tuple[str, str], ...]
    journals: int
    sealed: int
    models: tuple[RunModel, ...] = ()


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
    """What a fold did: records and points taken, lines skipped, what could not be read, and what is still unread: bytes of
    journals, and runs of sources."""

    records: int = 0
    points: int = 0
    skipped: int = 0
    pending_bytes: int = 0
    damaged: tuple[str, ...] = ()
    folded_by_other: bool = False
    waiting_runs: int = 0

    def and_sources(self, others: FoldReport) -> FoldReport:
        """This fold of journals together with one of sources."""
        return FoldReport(
            self.records + others.records,
            self.points + others.points,
            self.skipped + others.skipped,
            self.pending_bytes,
            self.damaged + others.damaged,
            self.folded_by_other,
            others.waiting_runs,
        )


@dataclass(frozen=True, slots=True)
class Decision:
    """A change a person made: id for undo, and a sentence for the screen; ``trouble`` says what of it could not be done."""

    id: str
    sentence: str
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who decides, through what (tui, cli, rest, python), and how that is known.

    ``identity``: "kernel" (the system's user of this process), "token" (a server checked it) or "claimed" (nobody did).
    """

    name: str
    channel: str
    identity: str


@dataclass(frozen=True, slots=True)
class Location:
    """Where a store is, why this one, and what a person should know about it."""

    root: Path
    database: str
    kind: str
    chosen_by: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceState:
    """Data of another tool that is followed. ``problem``: why nothing can be read there now."""

    path: str
    kind: str
    title: str
    followed: bool
    runs: int
    waiting: int = 0
    damaged: int = 0
    problem: str = ""

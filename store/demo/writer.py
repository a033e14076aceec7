"""Writing runs of the past: the client's journal with times that were, and machines that are not here."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mltrack.store.client.artifacts import store_blob, store_bytes
from mltrack.store.client.journal import (
    Journal,
    encode_number,
    make_folder,
    open_file,
    random_hex,
    share_mode,
)
from mltrack.store.client.series_state import SeriesState

Floats = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]


def digest(*parts: object) -> str:
    """64 hex digits that depend only on the parts: ids of seeded data."""
    return hashlib.sha256(
        "\0".join(str(part) for part in parts).encode("utf-8", "surrogateescape")
    ).hexdigest()


def machine(host: str, pid: int) -> dict[str, object]:
    """The identity of a process on a machine of the story; its boot is of no machine that exists."""
    made = digest("machine", host)
    return {
        "host": host,
        "machine": made[:32],
        "boot": f"{made[:8]}-{made[8:12]}-4{made[13:16]}-8{made[17:20]}-{made[20:32]}",
        "pidns": "4026531836",
        "pid": pid,
        "pstart": "0",
    }


@dataclass
class Series:
    """Metrics that are logged together: one record per step. values[steps, keys]."""

    keys: Sequence[str]
    steps: Whole
    values: Floats

    def cut(self, before_step: int) -> Series:
        """Only the steps before this one."""
        kept = self.steps < before_step
        return Series(self.keys, self.steps[kept], self.values[kept])


@dataclass
class PastRun:
    """One process' part of a run: everything it wrote, with the times at which it did.

    `step_ms` is how long one step takes. A rank above 0 writes points only and never starts or ends the run.
    """

    root: Path
    run_id: str
    name: str
    experiment: str
    owner: str
    identity: dict[str, object]
    start_ms: int
    step_ms: float = 500.0
    rank: int = 0
    first_step: int = 0
    journal: Journal = field(init=False)
    _states: dict[str, SeriesState] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        attempt = f"{self.start_ms:013d}-{digest(self.run_id, self.start_ms)[:6]}"
        role = "main" if self.rank == 0 else "rank"
        self.journal = Journal(
            self.root, self.run_id, attempt, self.rank, role, self.identity, time_ms=self.start_ms
        )

    def time_of(self, step: float) -> int:
        """When a step was reached, ms since 1970."""
        return int(self.start_ms + (step - self.first_step) * self.step_ms)

    def start(self, **fields: object) -> None:
        """The start record; `fields` as in the journal format (parent, tags, total, command ...)."""
        tags = fields.pop("tags", None)
        who: dict[str, Any] = {"name": self.name, "experiment": self.experiment, "user": self.owner}
        self.meta("start", None, **{"resumed": False, **who, **fields})
        if isinstance(tags, Mapping):
            self.meta("tags", v=dict(tags))

    def meta(self, op: str, at_ms: int | None = None, **fields: object) -> None:
        """Any meta record."""
        self.journal.meta(op, self.start_ms if at_ms is None else at_ms, **fields)

    def params(self, params: Mapping[str, object]) -> None:
        """Write-once settings."""
        self.meta("param", v={key: str(value) for key, value in params.items()})

    def log(self, series: Series) -> None:
        """Points, in one write."""
        prefixes = [state.prefix for state in (self._state(key) for key in series.keys)]
        times = self.start_ms + (series.steps - self.first_step) * self.step_ms
        lines: list[str] = []
        for step, time_ms, row in zip(
            series.steps.tolist(), times.astype(np.int64).tolist(), series.values.tolist(), strict=True
        ):
            parts = [prefix + encode_number(value) for prefix, value in zip(prefixes, row, strict=True)]
            lines.append(f"[{step},{time_ms}{''.join(parts)}]\n")
            for key, value in zip(series.keys, row, strict=True):
                self._states[key].add(step, time_ms, value)
        if lines:
            self.journal.points().append("".join(lines).encode("ascii"))

    def artifact(self, path: str, content: bytes, at_ms: int | None = None) -> None:
        """A file of the run."""
        stored = store_bytes(content, self.root, self._folder() / "artifacts", path)
        self.meta("artifact", at_ms, path=stored.path, size=stored.size, sha256=stored.sha256, how=stored.how)

    def console(self, lines: Sequence[str]) -> None:
        """What the run printed."""
        path = self._folder() / "console.log"
        with open(
            path, "ab", opener=lambda name, flags: open_file(name, flags, share_mode(self.root))
        ) as file:
            file.write("".join(line + "\n" for line in lines).encode("utf-8", "surrogateescape"))

    def facts(self, **facts: object) -> None:
        """What is recorded beside what is logged; `patch` and `packages` are given as text and kept by digest."""
        kept: dict[str, Any] = dict(facts)
        git = kept.get("git")
        if isinstance(git, dict) and isinstance(git.get("patch"), str):
            kept["git"] = {**git, "patch": store_blob(git["patch"].encode(), self.root)}
        if isinstance(kept.get("packages"), str):
            kept["packages"] = store_blob(kept["packages"].encode(), self.root)
        self.meta("facts", v=kept)

    def summarize(self, at_ms: int) -> None:
        """The summary record of all that was logged so far."""
        if self._states:
            values = {
                key: [_quoted(value) for value in state.summary()] for key, state in self._states.items()
            }
            self.meta("summary", at_ms, upto=self.journal.points().size, v=values)

    def end(self, status: str, at_ms: int, **why: object) -> None:
        """The end of the run, and of this process."""
        self.summarize(at_ms)
        if self.rank == 0:
            self.meta("end", at_ms, status=status, elapsed=max(0, at_ms - self.start_ms), **why)
        size = self.journal.points_file.size if self.journal.points_file is not None else 0
        self.meta("close", at_ms, points=size)
        self.journal.close()

    def fall_silent(self, heard_ms: int) -> None:
        """No end was written: the process was last heard at this time."""
        self.summarize(heard_ms)
        self.journal.close()
        os.utime(self.journal.marker, (heard_ms / 1000, heard_ms / 1000))

    def _state(self, key: str) -> SeriesState:
        import json

        if key not in self._states:
            self._states[key] = SeriesState(key, f",{json.dumps(key)},")
        return self._states[key]

    def _folder(self) -> Path:
        make_folder(self.journal.folder, self.root)
        return self.journal.folder


def damage_run(root: Path, run_id: str, time_ms: int) -> None:
    """A run whose journal begins with what is no journal: it is listed with the reason, and hides nobody else."""
    folder = root / "runs" / run_id[:2] / run_id
    make_folder(folder, root)
    make_folder(root / "open", root)
    jid = random_hex(16)
    # Just written to, so that it is seen: where it stands in the table goes by that.
    (folder / f"meta.{jid}.jsonl").write_bytes(b"name: run_0007\nrun_id missing\n")
    marker = root / "open" / f"{jid}.{run_id}"
    marker.touch(share_mode(root))
    os.utime(marker, (time_ms / 1000, time_ms / 1000))


def _quoted(value: object) -> object:
    if isinstance(value, float) and value - value != 0.0:
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    return value

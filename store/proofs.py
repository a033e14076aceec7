"""Which writers of a store are proven dead, told by the machine that they ran on: from their journals, without the store's database.

Of silence nothing is told: it proves nothing. Only reads.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mltrack.store.journal_reader import JournalProblem, file_kind, last_record, read_header
from mltrack.store.liveness import QUIET_SECONDS, Here, how_it_died

Proof = tuple[str, str, int]
"""LOST or KILLED, the proof for people, and when it was last heard of (ms)."""


@dataclass(frozen=True)
class _Writer:
    path: Path
    state: tuple[int, int]  # (bytes, mtime) of its meta journal, all of which has been handed over
    header: dict[str, Any]


class Writers:
    """Those who have not closed their journals, by their markers (JID.RUN)."""

    def __init__(self) -> None:
        self._open: dict[str, _Writer] = {}

    def look(self, path: Path, state: tuple[int, int] | None = None) -> None:
        """The meta journal at ``path`` was handed over as far as (bytes, mtime) ``state``; None: as it is now. Raises OSError."""
        marker = _marker(path)
        if marker is None:
            return
        if state is None:
            facts = os.stat(path)
            state = (facts.st_size, facts.st_mtime_ns)
        if marker in self._open and self._open[marker].state == state:
            return
        self._open.pop(marker, None)
        try:
            name = read_header(path)
        except JournalProblem:
            return
        # A server says nothing of its client's process, and a rank or a sampler may go before its run does.
        if name is None or name.role != "main" or not name.header.get("pid"):
            return
        if last_record(path).get("op") != "close":
            self._open[marker] = _Writer(path, state, name.header)

    def forget(self, path: Path) -> None:
        """That journal is not there any more, or sealed."""
        marker = _marker(path)
        if marker is not None:
            self._open.pop(marker, None)

    def lost(self, beats: Mapping[str, int], run: str = "") -> dict[str, Proof]:
        """The proofs, by marker; of one ``run`` only. ``beats``: mtimes (ns) of the markers that are there."""
        here = Here(None)
        found: dict[str, Proof] = {}
        for marker, writer in self._open.items():
            if not marker.endswith(run):
                continue
            heard = _heard(writer, beats.get(marker, 0))
            evidence = here.judge(writer.header, heard)
            if not evidence.lost or evidence.quiet:
                continue
            try:
                facts = os.stat(writer.path)
            except OSError:
                continue
            # Behind the proof: what it wrote with its last breath, which may be its end, must have been handed over.
            if (facts.st_size, facts.st_mtime_ns) == writer.state:
                jid = marker.partition(".")[0]
                status, reason, mark = how_it_died(writer.path.parent, jid, evidence.why)
                in_time = mark is not None and heard <= mark <= heard + 1000 * QUIET_SECONDS
                found[marker] = (status, reason, mark if mark is not None and in_time else heard)
        return found


def _marker(path: Path) -> str | None:
    """The marker of who writes a meta journal, RUN/meta.JID.jsonl; None for any other file."""
    kind, jid = file_kind(path.name) or ("", "")
    return f"{jid}.{path.parent.name}" if kind == "meta" else None


def _heard(writer: _Writer, beat: int) -> int:
    """When it was last heard of (ms). Its marker (``beat``, ns) is taken away by whoever folds the store over there."""
    try:
        points = os.stat(writer.path.with_name(writer.path.name.replace("meta", "points", 1))).st_mtime_ns
    except OSError:
        points = 0  # it logged none
    return max(writer.state[1], beat, points) // 1_000_000

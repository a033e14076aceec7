"""Reading runs and their series; finding the run a person means."""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from mltrack.store import summary as summaries
from mltrack.store.blocks import read_points
from mltrack.store.client.journal import run_folder
from mltrack.store.database import Database
from mltrack.store.errors import AmbiguousRun, NotFound, RunNotFound
from mltrack.store.fold_points import attempt_order, cuts
from mltrack.store.liveness import QUIET_SECONDS
from mltrack.store.records import ENDED, Points, Run, Summary
from mltrack.store.series import distinct, value_order

_COLUMNS = (
    "r.id, r.run_id, r.name, e.name, r.status, r.reason, r.owner, r.host, r.pid, r.start_ms, r.end_ms, r.heard_ms, r.parent_id, r.note,"
    " r.lifecycle, r.pinned, r.step, r.total, r.exit_code, r.facts, r.damage, r.skipped, r.source, r.summary, r.state"
)
_SLICE = 500


def read_runs(database: Database, root: Path, run_ids: Sequence[str], now_ms: int) -> list[Run]:
    """The runs with these ids, in this order; unknown ids are left out."""
    found: dict[str, Run] = {}
    names = {int(key): str(name) for key, name in database.execute("SELECT id, key FROM metric_key")}
    for start in range(0, len(run_ids), _SLICE):
        part = list(run_ids[start : start + _SLICE])
        marks = ", ".join("?" * len(part))
        rows = database.execute(
            f"SELECT {_COLUMNS} FROM run r JOIN experiment e ON e.id = r.experiment_id WHERE r.run_id IN ({marks})",
            part,
        )
        ids = [row[0] for row in rows]
        marks = ", ".join("?" * len(ids)) or "NULL"
        params: dict[int, dict[str, str]] = {}
        conflicts: dict[int, dict[str, str]] = {}
        tags: dict[int, dict[str, str]] = {}
        inputs: dict[int, list[dict[str, Any]]] = {}
        for run, key, value, other in database.execute(
            f"SELECT run, key, value, other FROM param WHERE run IN ({marks}) ORDER BY key", ids
        ):
            params.setdefault(run, {})[key] = value
            if other is not None:
                conflicts.setdefault(run, {})[key] = other
        for run, key, value in database.execute(
            f"SELECT run, key, CASE WHEN edited = 1 THEN edit ELSE value END FROM tag WHERE run IN ({marks}) ORDER BY key",
            ids,
        ):
            if value is not None:
                tags.setdefault(run, {})[key] = value
        for run, *fields in database.execute(
            f"SELECT run, name, digest, context, source, digest_kind, size FROM run_input WHERE run IN ({marks}) ORDER BY name",
            ids,
        ):
            inputs.setdefault(run, []).append(
                dict(zip(("name", "digest", "context", "source", "digest_kind", "size"), fields, strict=True))
            )
        for row in rows:
            key = row[0]
            run = _run(
                row,
                root,
                names,
                now_ms,
                params.get(key, {}),
                conflicts.get(key, {}),
                tags.get(key, {}),
                inputs.get(key, []),
            )
            found[run.run_id] = run
    return [found[run_id] for run_id in run_ids if run_id in found]


def _run(
    row: tuple[Any, ...],
    root: Path,
    names: dict[int, str],
    now_ms: int,
    params: dict[str, str],
    conflicts: dict[str, str],
    tags: dict[str, str],
    inputs: list[dict[str, Any]],
) -> Run:
    state = orjson.loads(row[24])
    metrics = _metrics(row[23], names)
    for pending in state.get("pending", {}).values():
        if pending.get("rank") == 0:
            _lay_over(metrics, pending["v"])
    folder = run_folder(root, row[1])
    status, heard = str(row[4]), row[11]
    return Run(
        run_id=row[1],
        name=row[2],
        experiment=row[3],
        status=status,
        reason=row[5],
        user=row[6],
        host=row[7],
        pid=row[8],
        start_ms=row[9],
        end_ms=row[10],
        heard_ms=heard,
        quiet=status not in ENDED and heard is not None and now_ms - heard > QUIET_SECONDS * 1000,
        parent_id=row[12],
        note=row[13],
        lifecycle=row[14],
        pinned=bool(row[15]),
        step=row[16],
        total=row[17],
        exit_code=row[18],
        params=params,
        tags=tags,
        metrics=metrics,
        conflicts=conflicts,
        facts=_facts(orjson.loads(row[19]), state),
        inputs=tuple(inputs),
        folder=folder if folder.is_dir() else None,
        damage=row[20],
        skipped=row[21],
        source=row[22],
    )


def _facts(facts: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """The facts with how the newest ended attempt ended (signal, traceback, elapsed) as "end"."""
    ends = [name for name in state if name.startswith("end ")]
    if ends:
        ended = state[max(ends)][1]
        facts["end"] = {name: ended[name] for name in ("signal", "traceback", "elapsed") if name in ended}
    return facts


def _metrics(blob: bytes | None, names: dict[int, str]) -> dict[str, Summary]:
    rows = summaries.unpack(bytes(blob) if blob else None)
    found: list[Summary] = []
    for row in rows[(rows["rank"] == 0) & (rows["count"] > 0)]:
        empty = int(row["count"]) == int(row["nan"])
        found.append(
            Summary(
                names.get(int(row["key"]), "?"),
                int(row["first_step"]),
                int(row["last_step"]),
                int(row["last_time"]),
                float(row["last"]),
                None if empty else float(row["low"]),
                None if empty else int(row["low_step"]),
                None if empty else float(row["high"]),
                None if empty else int(row["high_step"]),
                int(row["count"]),
                int(row["nan"]),
            )
        )
    return {summary.key: summary for summary in sorted(found, key=lambda summary: summary.key)}


def _lay_over(metrics: dict[str, Summary], pending: dict[str, list[Any]]) -> None:
    """Summary records of the journal whose points are not all folded yet: shown where they know more."""
    for key, fields in pending.items():
        known = metrics.get(key)
        if known is not None and known.count >= int(fields[8]):
            continue
        first, last_step, last_time, last, low, low_step, high, high_step, count, nan = fields
        metrics[key] = Summary(
            key,
            int(first),
            int(last_step),
            int(last_time),
            float(last),
            None if low is None else float(low),
            low_step,
            None if high is None else float(high),
            high_step,
            int(count),
            int(nan),
        )


def run_number(database: Database, run_id: str) -> int:
    """The row number of a run. Raises RunNotFound."""
    rows = database.execute("SELECT id FROM run WHERE run_id = ?", (run_id,))
    if not rows:
        raise RunNotFound(f"There is no run {run_id} in this store. 'mltrack ls' lists the runs.")
    return int(rows[0][0])


def read_series(database: Database, run_id: str, key: str, rank: int = 0, superseded: bool = False) -> Points:
    """One series in order of (step, time, value); points that a later attempt took over only when asked for."""
    run = run_number(database, run_id)
    rows = database.execute("SELECT id FROM metric_key WHERE key = ?", (key,))
    points = read_points(database, run, int(rows[0][0])) if rows else None
    if points is not None and (points.rank != rank).any():
        points = points.take(points.rank == rank)
    if points is None or len(points) == 0:
        have = database.execute("SELECT summary FROM run WHERE id = ?", (run,))[0][0]
        names = {
            int(number): str(name) for number, name in database.execute("SELECT id, key FROM metric_key")
        }
        known = sorted(_metrics(have, names))
        listed = (
            f"It has: {', '.join(known[:10])}{', …' if len(known) > 10 else ''}."
            if known
            else "It has logged no metric."
        )
        raise NotFound(f"The run {run_id[:8]} has no metric '{key}'. {listed}")
    points = distinct(points)
    old = np.zeros(len(points), np.bool_)
    if (points.attempt == points.attempt[0]).all():  # then they are in order already
        return Points(key, rank, points.step, points.time, points.value, old)
    rows_by_attempt = summaries.rows_of_points(points)
    limits, newer = cuts(rows_by_attempt, attempt_order(database, run))
    for row, limit, taken_over in zip(rows_by_attempt, limits, newer, strict=True):
        if taken_over:
            old |= (points.attempt == row["attempt"]) & (points.step >= limit)
    value = value_order(points.value)
    order = np.lexsort((old, value, points.time, points.step))
    points, old, value = points.take(order), old[order], value[order]
    # Two attempts may have written equal points, which are one: the attempt is not part of what a point is.
    again = np.zeros(len(points), np.bool_)
    again[1:] = (
        (points.step[1:] == points.step[:-1])
        & (points.time[1:] == points.time[:-1])
        & (value[1:] == value[:-1])
    )
    keep = ~again if superseded else ~again & ~old
    points, old = points.take(keep), old[keep]
    return Points(key, rank, points.step, points.time, points.value, old)


def resolve(database: Database, reference: str) -> str:
    """The run id that a person means: an id, a unique prefix, a name, ``@last`` or ``@running``.

    Raises RunNotFound, or AmbiguousRun with the candidates.
    """
    active = "lifecycle = 'active'"
    if reference in ("@last", "@running"):
        condition = "status = 'RUNNING' AND " + active if reference == "@running" else active
        rows = database.execute(
            f"SELECT run_id FROM run WHERE {condition} ORDER BY start_ms DESC, id DESC LIMIT 2"
        )
        if not rows:
            raise RunNotFound(
                "No run is running." if reference == "@running" else "There is no run in this store yet."
            )
        if reference == "@running" and len(rows) > 1:
            every = database.execute(
                f"SELECT run_id FROM run WHERE {condition} ORDER BY start_ms DESC LIMIT 20"
            )
            raise AmbiguousRun("Several runs are running; name one of them.", [str(row[0]) for row in every])
        return str(rows[0][0])
    text = reference.strip()
    if len(text) >= 4 and all(digit in string.hexdigits for digit in text):
        prefix = text.lower()
        rows = database.execute(
            "SELECT run_id FROM run WHERE run_id >= ? AND run_id < ? LIMIT 21", (prefix, prefix + "g")
        )
        if len(rows) == 1:
            return str(rows[0][0])
        if rows:
            raise AmbiguousRun(
                f"Several runs begin with '{text}'; give more digits.", [str(row[0]) for row in rows]
            )
    rows = database.execute(
        f"SELECT run_id FROM run WHERE name = ? AND {active} ORDER BY start_ms DESC LIMIT 21", (text,)
    )
    if not rows:
        rows = database.execute(
            "SELECT run_id FROM run WHERE name = ? ORDER BY start_ms DESC LIMIT 21", (text,)
        )
    if len(rows) == 1:
        return str(rows[0][0])
    if rows:
        raise AmbiguousRun(f"Several runs are named '{text}'; use an id.", [str(row[0]) for row in rows])
    raise RunNotFound(f"No run has the id, prefix or name '{reference}'. 'mltrack ls' lists the runs.")

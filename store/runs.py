"""Reading runs and their series; finding the run a person means."""

from __future__ import annotations

import os
import string
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import numpy.typing as npt
import orjson

from mltrack.store import summary as summaries
from mltrack.store.blocks import read_points, read_window, read_zoom
from mltrack.store.client.journal import run_folder
from mltrack.store.database import Database
from mltrack.store.errors import AmbiguousRun, NotFound, RunNotFound
from mltrack.store.fold_points import attempt_order, cuts
from mltrack.store.liveness import QUIET_SECONDS
from mltrack.store.records import ENDED, Points, Run, Summary
from mltrack.store.series import Floats, Ints, PointColumns, distinct, value_order
from mltrack.store.zoom import Zoom

_COLUMNS = (
    "r.id, r.run_id, r.name, e.name, r.status, r.reason, r.owner, r.host, r.pid, r.start_ms, r.end_ms, r.heard_ms, r.parent_id, r.note,"
    " r.lifecycle, r.pinned, r.step, r.total, r.exit_code, r.facts, r.damage, r.skipped, r.source, r.summary, r.state"
)
_SLICE = 500
# A name in a sentence is no longer than this.
_NAME_SHOWN = 60

_SUMMARY_COLUMNS = (
    "key",
    "first_step",
    "last_step",
    "last_time",
    "last",
    "low",
    "low_step",
    "high",
    "high_step",
    "count",
    "nan",
)


def read_runs(
    database: Database,
    root: Path,
    run_ids: Sequence[str],
    now_ms: int,
    only_metrics: Collection[str] | None = None,
    only_params: Collection[str] | None = None,
    folders: bool = True,
) -> list[Run]:
    """The runs with these ids, in this order; unknown ids are left out. A run may have thousands of metrics: with
    ``only_metrics`` or ``only_params`` no others are read. Without ``folders`` the disk is not looked at."""
    found: dict[str, Run] = {}
    names = metric_names(database, only_metrics)
    wanted = None if only_metrics is None else np.array(sorted(names), np.int64)
    param_keys = "" if only_params is None else f" AND key IN ({', '.join('?' * len(only_params)) or 'NULL'})"
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
            f"SELECT run, key, value, other FROM param WHERE run IN ({marks}){param_keys} ORDER BY key",
            [*ids, *(only_params or ())],
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
            f"SELECT run, name, digest, context, source, digest_kind, size, detail FROM run_input WHERE run IN ({marks})"
            " ORDER BY name, digest, context",
            ids,
        ):
            inputs.setdefault(run, []).append(
                dict(
                    zip(
                        ("name", "digest", "context", "source", "digest_kind", "size", "detail"),
                        fields,
                        strict=True,
                    )
                )
            )
        for row in rows:
            key = row[0]
            run = _run(
                row,
                root if folders else None,
                names,
                wanted,
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
    root: Path | None,
    names: dict[int, str],
    wanted: npt.NDArray[np.int64] | None,
    now_ms: int,
    params: dict[str, str],
    conflicts: dict[str, str],
    tags: dict[str, str],
    inputs: list[dict[str, Any]],
) -> Run:
    state = orjson.loads(row[24])
    metrics = summaries_by_key(row[23], names, wanted)
    known = None if wanted is None else set(names.values())
    for pending in state.get("pending", {}).values():
        if pending.get("rank") == 0:
            lay_over(
                metrics,
                {key: at for key, at in pending["v"].items() if known is None or key in known},
            )
    folder: Path | None = run_folder(root, row[1]) if root is not None else None
    artifacts: Path | None = None
    if root is None:
        pass
    elif row[22]:
        artifacts = source_artifacts(row[22], state)
        folder = artifacts.parent if artifacts is not None and artifacts.name == "artifacts" else None
    else:
        assert folder is not None
        folder = folder if folder.is_dir() else None
        artifacts = folder / "artifacts" if folder is not None and (folder / "artifacts").is_dir() else None
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
        folder=folder,
        artifacts=artifacts,
        damage=row[20],
        skipped=row[21],
        source=row[22],
    )


def source_artifacts(source: str, state: dict[str, Any]) -> Path | None:
    """Where the files of another tool's run lie on this machine: relative to the source, so that it may be moved."""
    said = state.get("artifacts")
    where = str(said[1]) if isinstance(said, list) else ""
    if where.startswith("file://"):
        where = unquote(urlsplit(where).path)
    if not where or "://" in where or "\0" in where:
        return None
    path = Path(os.path.normpath(os.path.join(source, where)))
    return path if path.is_dir() else None


def followed_place(database: Database, source: str) -> Path | None:
    """Where ``runs:/ID/name`` or ``models:/m-ID`` lies when the run or logged model is followed; None for all others."""
    kind, _, rest = source.partition(":/")
    name, _, below = rest.partition("/")
    if kind == "runs":
        rows = database.execute("SELECT source, state FROM run WHERE run_id = ? AND source <> ''", (name,))
        root = source_artifacts(str(rows[0][0]), orjson.loads(rows[0][1])) if rows else None
    elif kind == "models" and name.startswith("m-"):
        rows = database.execute("SELECT detail FROM logged_model WHERE model_id = ?", (name,))
        detail = orjson.loads(rows[0][0]) if rows else {}
        root = (
            source_artifacts(detail["source"], {"artifacts": ["", detail["where"]]})
            if detail.get("source")
            else None
        )
    else:
        return None
    if root is None or ".." in below.split("/"):
        return None
    return root / below if below else root


def _facts(facts: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """The facts with how the newest ended attempt ended (signal, traceback, elapsed) as "end"."""
    ends = [name for name in state if name.startswith("end ")]
    if ends:
        ended = state[max(ends)][1]
        facts["end"] = {name: ended[name] for name in ("signal", "traceback", "elapsed") if name in ended}
    return facts


def metric_names(database: Database, only: Collection[str] | None = None) -> dict[int, str]:
    """The keys of metrics by their numbers."""
    where = "" if only is None else f" WHERE key IN ({', '.join('?' * len(only)) or 'NULL'})"
    found = database.execute(f"SELECT id, key FROM metric_key{where}", tuple(only or ()))
    return {int(number): str(name) for number, name in found}


def summaries_by_key(
    blob: bytes | None, names: dict[int, str], wanted: npt.NDArray[np.int64] | None = None
) -> dict[str, Summary]:
    """A stored summary as one Summary for each key; with ``wanted`` only these keys, by their numbers."""
    if wanted is not None and len(wanted) == 0:
        return {}
    rows = summaries.unpack(bytes(blob) if blob else None)
    if wanted is not None:
        rows = rows[np.isin(rows["key"], wanted)]
    rows = rows[(rows["rank"] == 0) & (rows["count"] > 0)]
    # Column by column: a field of a structured scalar costs more than the whole Summary.
    columns = {name: rows[name].tolist() for name in _SUMMARY_COLUMNS}
    found = [
        Summary(
            names.get(key, "?"),
            first_step,
            last_step,
            last_time,
            last,
            None if count == nan else low,
            None if count == nan else low_step,
            None if count == nan else high,
            None if count == nan else high_step,
            count,
            nan,
        )
        for key, first_step, last_step, last_time, last, low, low_step, high, high_step, count, nan in zip(
            *columns.values(), strict=True
        )
    ]
    found.sort(key=lambda summary: summary.key)
    return {summary.key: summary for summary in found}


def lay_over(metrics: dict[str, Summary], pending: dict[str, list[Any]]) -> None:
    """What stands in for points that are not folded yet, shown where it knows more; only in stores of the first versions is it
    not in the summary already."""
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


def count_metrics(database: Database, run_ids: Sequence[str]) -> dict[str, int]:
    """For each metric key, how many of these runs have it, summaries that are not folded yet included."""
    names = metric_names(database)
    found: list[npt.NDArray[np.int32]] = [summaries.keys_of(None)]
    counts: dict[str, int] = {}
    for blob, state in of_runs(database, "r.summary, r.state", run_ids):
        keys = np.unique(summaries.keys_of(bytes(blob) if blob else None))
        found.append(keys)
        if '"pending"' in state:
            known = {names.get(number, "?") for number in keys.tolist()}
            for pending in orjson.loads(state).get("pending", {}).values():
                for key in pending["v"] if pending.get("rank") == 0 else ():
                    if key not in known:
                        known.add(key)
                        counts[key] = counts.get(key, 0) + 1
    numbers, times = np.unique(np.concatenate(found), return_counts=True)
    for number, count in zip(numbers.tolist(), times.tolist(), strict=True):
        key = names.get(number, "?")
        counts[key] = counts.get(key, 0) + count
    return counts


def shared_params(database: Database, run_ids: Sequence[str]) -> tuple[dict[str, str], set[str]]:
    """The params that all of these runs have with one value, and the keys of all others that any of them has."""
    lowest: dict[str, str] = {}
    highest: dict[str, str] = {}
    counts: dict[str, int] = {}
    for start in range(0, len(run_ids), _SLICE):
        part = list(run_ids[start : start + _SLICE])
        marks = ", ".join("?" * len(part))
        for key, low, high, count in database.execute(
            "SELECT p.key, min(p.value), max(p.value), count(*) FROM run r JOIN param p ON p.run = r.id"
            f" WHERE r.run_id IN ({marks}) GROUP BY p.key",
            part,
        ):
            lowest[key] = min(lowest.get(key, low), low)
            highest[key] = max(highest.get(key, high), high)
            counts[key] = counts.get(key, 0) + int(count)
    shared = {
        key: value for key, value in lowest.items() if counts[key] == len(run_ids) and highest[key] == value
    }
    return shared, set(counts) - set(shared)


def pinned(database: Database) -> list[str]:
    """Ids of the pinned runs."""
    rows = database.execute(
        "SELECT r.run_id FROM edit e JOIN run r ON r.id = e.run WHERE e.field = 'pinned' AND r.pinned = 1"
    )
    return [str(row[0]) for row in rows]


def of_runs(database: Database, columns: str, run_ids: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Columns of these runs, in any order."""
    for start in range(0, len(run_ids), _SLICE):
        part = list(run_ids[start : start + _SLICE])
        marks = ", ".join("?" * len(part))
        yield from database.execute(f"SELECT {columns} FROM run r WHERE r.run_id IN ({marks})", part)


def run_number(database: Database, run_id: str) -> int:
    """The row number of a run. Raises RunNotFound."""
    rows = database.execute("SELECT id FROM run WHERE run_id = ?", (run_id,))
    if not rows:
        raise RunNotFound(f"There is no run {run_id} in this store. 'mltrack ls' lists the runs.")
    return int(rows[0][0])


def read_outline(database: Database, run_id: str, key: str, loose: PointColumns) -> Zoom | None:
    """The outline of a series of rank 0; None where there is none and all points have to be read."""
    rows = database.execute("SELECT id FROM metric_key WHERE key = ?", (key,))
    return read_zoom(database, run_number(database, run_id), int(rows[0][0]), loose) if rows else None


def read_outlined(database: Database, run_id: str, key: str, low: float, high: float) -> tuple[Ints, Floats]:
    """Steps and values from ``low`` to ``high``, and some others, of a series of rank 0 that has an outline; unsorted."""
    rows = database.execute("SELECT id FROM metric_key WHERE key = ?", (key,))
    points = read_window(database, run_number(database, run_id), int(rows[0][0]), low, high)
    points = points.take(points.rank == 0)
    return points.step, points.value


def read_series(database: Database, run_id: str, key: str, rank: int = 0, superseded: bool = False) -> Points:
    """One series in order of (step, time, value); points that a later attempt took over only when asked for."""
    run = run_number(database, run_id)
    rows = database.execute("SELECT id FROM metric_key WHERE key = ?", (key,))
    points = read_points(database, run, int(rows[0][0])) if rows else None
    if points is not None and (points.rank != rank).any():
        points = points.take(points.rank == rank)
    if points is None or len(points) == 0:
        have = database.execute("SELECT summary FROM run WHERE id = ?", (run,))[0][0]
        known = sorted(summaries_by_key(have, metric_names(database)))
        listed = (
            f"It has: {', '.join(known[:10])}{', …' if len(known) > 10 else ''}."
            if known
            else "It has logged no metric."
        )
        if key in known and rank == 0:
            raise NotFound(
                f"The points of '{key}' are not here yet: of run {run_id[:8]} there is only a summary."
            )
        raise NotFound(f"The run {run_id[:8]} has no metric '{key}'. {listed}")
    return series_in_order(database, run, key, rank, points, superseded)


def series_in_order(
    database: Database, run: int, key: str, rank: int, points: PointColumns, superseded: bool
) -> Points:
    """The points of one key and rank (at least one) in order of (step, time, value), equal ones once."""
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
            # A damaged run that does not say when it began began some time.
            f"SELECT run_id FROM run WHERE {condition}"
            " ORDER BY CASE WHEN damage IS NOT NULL AND owner = '' THEN 1 ELSE 0 END, start_ms DESC, id DESC LIMIT 2"
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


def in_words(database: Database, run_ids: Sequence[str]) -> str:
    """These runs in a sentence: the name of one, of many letters the first; the number of several."""
    if len(run_ids) != 1:
        return f"{len(run_ids)} runs"
    rows = list(database.execute("SELECT name FROM run WHERE run_id = ?", (run_ids[0],)))
    name = str(rows[0][0]) if rows else ""
    short = name if len(name) <= _NAME_SHOWN else name[: _NAME_SHOWN - 1] + "…"
    return short or f"run {run_ids[0][:8]}"

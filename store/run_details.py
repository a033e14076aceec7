"""What only the page of one run shows: its starts, ranks, recorded files, refusals, and several series at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from mltrack.store import summary as summaries
from mltrack.store.blocks import decode
from mltrack.store.client.destination import object_name
from mltrack.store.database import Database
from mltrack.store.fold_points import attempt_order
from mltrack.store.records import Attempt, Points, RecordedFile, RunDetails, RunModel
from mltrack.store.runs import run_number, series_in_order
from mltrack.store.series import PointColumns, join


def read_details(database: Database, run_id: str) -> RunDetails:
    """Raises RunNotFound."""
    run = run_number(database, run_id)
    state_text, facts_text, summary, sequence = database.execute(
        "SELECT state, facts, summary, seq FROM run WHERE id = ?", (run,)
    )[0]
    state = orjson.loads(state_text)
    rows = summaries.unpack(bytes(summary) if summary else None)
    refused = orjson.loads(facts_text).get("refused", {})
    journals = database.execute(
        "SELECT count(*), coalesce(sum(skipped), 0), count(sealed) FROM journal WHERE run = ?", (run,)
    )[0]
    return RunDetails(
        sequence=int(sequence),
        attempts=tuple(_attempts(database, run, state)),
        ranks=tuple(sorted({int(rank) for rank in rows["rank"].tolist()})) or (0,),
        files=tuple(
            RecordedFile(
                str(path),
                int(size),
                str(sha256),
                str(how),
                f"{place}/{object_name(run_id, path, sha256)}" if place else "",
            )
            for path, size, sha256, how, place in database.execute(
                "SELECT a.path, a.size, a.sha256, a.how, c.place FROM artifact a LEFT JOIN artifact_copy c ON c.run = a.run"
                " AND c.path = a.path AND c.sha256 = a.sha256 WHERE a.run = ? ORDER BY a.path",
                (run,),
            )
        ),
        refused=tuple((str(what), str(why)) for _, (what, why) in sorted(refused.items())),
        journals=int(journals[0]),
        sealed=int(journals[2]),
        models=tuple(_models(database, run, run_id)),
    )


def _models(database: Database, run: int, run_id: str) -> list[RunModel]:
    found: list[RunModel] = []
    rows = database.execute(
        "SELECT m.model_id, m.name, m.status, m.detail, l.way FROM logged_model m LEFT JOIN model_link l"
        " ON l.model_id = m.model_id AND l.run = ? WHERE m.deleted_ms IS NULL AND (m.run_id = ? OR m.model_id IN"
        " (SELECT model_id FROM model_link WHERE run = ?)) ORDER BY m.created_ms, m.model_id LIMIT 200",
        (run, run_id, run),
    )
    for model, name, status, detail, way in rows:
        said = orjson.loads(detail)
        metrics = database.execute(
            "SELECT key, value FROM model_metric WHERE model_id = ? ORDER BY key, time_ms, step", (model,)
        )
        params, tags = said.get("params", {}), said.get("tags", {})
        values = {str(key): float(value) for key, value in metrics}
        found.append(RunModel(str(model), str(name), str(way or "output"), str(status), params, tags, values))
    return found


def run_sequence(database: Database, run_id: str) -> int:
    """The change counter of a run's last change. Raises RunNotFound."""
    run_number(database, run_id)
    return int(database.execute("SELECT seq FROM run WHERE run_id = ?", (run_id,))[0][0])


def changed_since(database: Database, seq: int) -> list[str]:
    """Ids of the runs that changed after this value of the change counter."""
    return [str(row[0]) for row in database.execute("SELECT run_id FROM run WHERE seq > ?", (seq,))]


def read_many_series(database: Database, run_id: str, keys: Sequence[str]) -> dict[str, list[Points]]:
    """The series of these metrics, of every rank, superseded points included; keys without points are left out.

    Blocks that hold several metrics are decoded once.
    """
    run = run_number(database, run_id)
    marks = ", ".join("?" * len(keys)) or "NULL"
    numbers = {
        int(number): str(key)
        for number, key in database.execute(
            f"SELECT id, key FROM metric_key WHERE key IN ({marks})", list(keys)
        )
    }
    marks = ", ".join("?" * len(numbers)) or "NULL"
    parts: dict[int, list[PointColumns]] = {number: [] for number in numbers}
    for number, data in database.execute(
        f"SELECT key, data FROM block WHERE run = ? AND (key IN ({marks}) OR key IS NULL) ORDER BY id",
        [run, *numbers],
    ):
        points = decode(data)
        if number is not None:
            parts[int(number)].append(points)
            continue
        for wanted in parts:
            rows = np.flatnonzero(points.key == wanted)
            if len(rows):
                parts[wanted].append(points.take(rows))
    found: dict[str, list[Points]] = {}
    for number, key in numbers.items():
        if not parts[number]:
            continue
        points = join(parts[number])
        alone = int(points.rank[0])
        if (points.rank == alone).all():
            found[key] = [series_in_order(database, run, key, alone, points, superseded=True)]
            continue
        found[key] = [
            series_in_order(database, run, key, rank, points.take(points.rank == rank), superseded=True)
            for rank in np.unique(points.rank).tolist()
        ]
    return found


def _attempts(database: Database, run: int, state: dict[str, Any]) -> list[Attempt]:
    begins = {name[6:]: value[1] for name, value in state.items() if name.startswith("begin ")}
    ends = {name[4:]: value[1] for name, value in state.items() if name.startswith("end ")}
    order = attempt_order(database, run)
    rows = database.execute("SELECT name, no FROM attempt WHERE run = ?", (run,))
    numbers = {str(name): int(no) for name, no in rows}
    found: list[Attempt] = []
    for name in sorted({*begins, *numbers}, key=lambda name: (order.get(numbers.get(name, -1), -1), name)):
        begin, end = begins.get(name, {}), ends.get(name, {})
        header = begin.get("header", {})
        started = begin.get("start") or (int(name[:13]) if name[:13].isdigit() else None)
        found.append(
            Attempt(
                name=name,
                start_ms=None if started is None else int(started),
                end_ms=None if end.get("end") is None else int(end["end"]),
                status=str(end.get("status", "")),
                reason=str(end.get("reason", "")),
                exit_code=end.get("exit"),
                host=str(header.get("host", "")),
                pid=int(header["pid"]) if isinstance(header.get("pid"), int) else None,
            )
        )
    return found

"""What a run is now: the journals' stamped values, overruled by decisions, and evidence about its writer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import orjson

from mltrack.store.database import Database
from mltrack.store.experiments import experiment_for
from mltrack.store.liveness import Here


def settle_run(
    database: Database,
    run: int,
    here: Here | None = None,
    beats: dict[str, int] | None = None,
    folder: Path | None = None,
    keep_status: bool = True,
    touch: bool = False,
) -> str:
    """Write the effective values of a run's row; returns its status. Inside a transaction.

    ``beats``: mtime in ms of each of its markers; without ``here`` the evidence is left as it was. The change counter moves
    when a value changed or ``touch`` says that something beside this row did (points, params, tags).
    """
    row = database.execute(
        "SELECT state, status, reason, lifecycle, heard_ms, end_ms, start_ms, name, experiment_id, run_id, note, parent_id, step,"
        " total, exit_code, owner, host, pid, damage, seq FROM run WHERE id = ?",
        (run,),
    )[0]
    state: dict[str, Any] = orjson.loads(row[0])
    if state.get("pending"):
        _drop_folded_summaries(database, run, state)
    edits = {
        str(field): str(value)
        for field, value in database.execute("SELECT field, value FROM edit WHERE run = ?", (run,))
    }
    begins = {name[6:]: value for name, (_, value) in _stamped(state) if name.startswith("begin ")}
    ends = {name[4:]: value for name, (_, value) in _stamped(state) if name.startswith("end ")}
    status, reason, heard, ended, exit_code = str(row[1]), str(row[2]), row[4], row[5], row[14]
    newest = max(begins, default=None)
    begin = begins.get(newest, {}) if newest else {}
    header: dict[str, Any] = begin.get("header", {})
    if newest is not None:
        end = ends.get(newest)
        if end is not None:
            status, reason = end["status"], str(end.get("reason", ""))
            ended, exit_code = int(end["end"]), end.get("exit")
            heard = max(int(heard or 0), ended)
        else:
            if status not in ("LOST", "KILLED") or _start_changed(row, begin):
                status, reason, ended, exit_code = "RUNNING", "", None, None
            if here is not None:
                beat = (beats or {}).get(str(begin.get("jid")))
                if beat is not None:
                    heard = max(int(heard or 0), beat)
                evidence = here.judge(header, int(heard or begin.get("start", 0)))
                if evidence.lost:
                    status, reason = _how_it_died(folder, str(begin.get("jid")), evidence.why)
                    ended = int(heard or begin.get("start", 0))
                elif status in ("LOST", "KILLED"):
                    status, reason, ended = "RUNNING", "", None
    elif ends:
        end = ends[max(ends)]
        status, reason, ended = end["status"], str(end.get("reason", "")), int(end["end"])
    first = _value(state, "first", {})
    start = int(first.get("start") or row[6] or 0)
    experiment_id = int(row[8])
    if "experiment" in edits:
        experiment_id = int(edits["experiment"])
    elif first:
        experiment_id = experiment_for(database, str(first["experiment"]), start)
    values = (
        status,
        reason,
        edits.get("lifecycle", "active"),
        heard,
        ended,
        start,
        edits.get("name", str(_value(state, "name", row[7]))),
        experiment_id,
        edits.get("note", str(_value(state, "note", ""))),
        _value(state, "parent", row[11]),
        _value(state, "step", row[12]),
        _value(state, "total", row[13]),
        exit_code,
        str(_value(state, "user", row[15])),
        str(header.get("host", row[16])),
        int(header["pid"]) if header.get("pid") else row[17],
        int(edits.get("pinned", "0")),
    )
    old = database.execute(
        "SELECT status, reason, lifecycle, heard_ms, end_ms, start_ms, name, experiment_id, note, parent_id, step, total, exit_code,"
        " owner, host, pid, pinned FROM run WHERE id = ?",
        (run,),
    )[0]
    if tuple(old) == values and not touch and keep_status:
        return status
    database.execute(
        "UPDATE run SET status = ?, reason = ?, lifecycle = ?, heard_ms = ?, end_ms = ?, start_ms = ?, name = ?, experiment_id = ?,"
        " note = ?, parent_id = ?, step = ?, total = ?, exit_code = ?, owner = ?, host = ?, pid = ?, pinned = ?, seq = ? WHERE id = ?",
        (*values, database.next_seq(), run),
    )
    if not keep_status:
        database.execute("UPDATE run SET status = 'FAILED', reason = 'damaged' WHERE id = ?", (run,))
    return status


def _drop_folded_summaries(database: Database, run: int, state: dict[str, Any]) -> None:
    """Summary records stand in only until the points they sum up are folded; the points know better from then on."""
    rows = database.execute("SELECT jid, position FROM journal WHERE run = ? AND kind = 'points'", (run,))
    folded = {str(jid): int(position) for jid, position in rows}
    waiting = {jid: kept for jid, kept in state["pending"].items() if folded.get(jid, 0) < int(kept["upto"])}
    if len(waiting) != len(state["pending"]):
        state["pending"] = waiting
        database.execute("UPDATE run SET state = ? WHERE id = ?", (orjson.dumps(state).decode(), run))


def _stamped(state: dict[str, Any]) -> list[tuple[str, tuple[str, Any]]]:
    return [
        (name, (value[0], value[1]))
        for name, value in state.items()
        if isinstance(value, list) and len(value) == 2
    ]


def _value(state: dict[str, Any], name: str, default: Any) -> Any:
    found = state.get(name)
    return found[1] if isinstance(found, list) else default


def _start_changed(row: tuple[Any, ...], begin: dict[str, Any]) -> bool:
    """A newer attempt began after the run was judged lost."""
    return int(begin.get("start", 0)) > int(row[5] or 0)


def _how_it_died(folder: Path | None, jid: str, why: str) -> tuple[str, str]:
    """KILLED with the signal when the process left its mark while dying, else LOST with the proof."""
    if folder is not None:
        for number, name in ((15, "SIGTERM"), (1, "SIGHUP")):
            try:
                if os.path.getsize(folder / f"signal.{jid}.{number}") > 0:
                    return "KILLED", f"signal {number} ({name})"
            except OSError:
                continue
    return "LOST", why

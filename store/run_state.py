"""What a run is now: the journals' stamped values, overruled by decisions, and evidence about its writer."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mltrack.store.database import Database, Row
from mltrack.store.experiments import ExperimentNames
from mltrack.store.journal_state import REOPENED, save_state, whole_state
from mltrack.store.liveness import QUIET_SECONDS, Here, how_it_died
from mltrack.store.pending import lay_over


def rows_to_settle(database: Database, runs: Iterable[int]) -> dict[int, Row]:
    """What ``settle_run`` reads of each run, where many are settled in one transaction; each is good for once."""
    rows = database.select_in(
        "SELECT id, status, reason, lifecycle, heard_ms, end_ms, start_ms, name, experiment_id, run_id, note, parent_id, step,"
        " total, exit_code, owner, host, pid, pinned, state, source, EXISTS (SELECT 1 FROM edit WHERE run = run.id), pending"
        " FROM run WHERE id IN",
        runs,
    )
    return {int(row[0]): row for row in rows}


def settle_run(
    database: Database,
    run: int,
    here: Here | None = None,
    beats: dict[str, int] | None = None,
    folder: Path | None = None,
    keep_status: bool = True,
    touch: bool = False,
    row: Row | None = None,
    names: ExperimentNames | None = None,
) -> str:
    """Write the effective values of a run's row; returns its status. Inside a transaction.

    ``beats``: mtime in ms of each of its markers; without ``here`` the evidence is left as it was. The change counter moves
    when a value changed or ``touch`` says that something beside this row did (points, params, tags). ``row`` and ``names``
    spare questions where many runs are settled.
    """
    row = rows_to_settle(database, [run])[run] if row is None else row
    state = whole_state(row[19], row[22])
    if state.get("pending"):
        _drop_folded_summaries(database, run, state)
        lay_over(database, run, state["pending"])
    edits: dict[str, str] = {}
    if row[21]:
        edits = dict(database.execute("SELECT field, value FROM edit WHERE run = ?", (run,)))
    begins = {name[6:]: value for name, (_, value) in _stamped(state) if name.startswith("begin ")}
    ends = {
        name[4:]: {**value, "logged": int(stamp.partition(".")[0])}
        for name, (stamp, value) in _stamped(state)
        if name.startswith("end ")
    }
    status, reason, ended, exit_code = str(row[1]), str(row[2]), row[5], row[14]
    newest = max(begins, default=None)
    begin = begins.get(newest, {}) if newest else {}
    header: dict[str, Any] = begin.get("header", {})
    jid = str(begin.get("jid", ""))
    heard = None if row[4] is None else int(row[4])
    if not row[20] and (newest not in ends or ends[newest]["status"] in REOPENED):
        kept = newest not in ends and state.get("beat", jid if len(begins) == 1 and not ends else "") == jid
        heard = _beat(database, run, state, jid, heard if kept else None, (beats or {}).get(jid))
    if newest is not None:
        end = ends.get(newest)
        if end is not None and end["status"] not in REOPENED:
            status, reason = end["status"], str(end.get("reason", ""))
            ended, exit_code = end["end"], end.get("exit")
            heard = _heard_at_last(row, end)
        else:
            exit_code = None
            if end is not None:
                # Whoever wrote this has ended: the run goes on elsewhere, or waits for it, and silence proves nothing.
                status, reason = end["status"], str(end.get("reason", ""))
                ended = end.get("until")
            elif (proven := _value(state, f"lost {newest}", None)) is not None:
                status, reason, ended = proven["status"], proven["reason"], proven["end"]
            elif row[20] or status not in ("LOST", "KILLED") or _start_changed(row, begin):
                status, reason, ended = "RUNNING", "", None
            if here is not None and end is None:
                last = heard or int(begin.get("start", 0))
                evidence = here.judge(header, last)
                if evidence.lost:
                    status, reason, mark = how_it_died(folder, jid, evidence.why)
                    # Its beats are older than its death, and the first is older than its start.
                    last = max(last, int(begin.get("start", 0)))
                    ended = mark if mark is not None and last <= mark <= last + 1000 * QUIET_SECONDS else last
                elif status in ("LOST", "KILLED"):
                    status, reason, ended = "RUNNING", "", None
    elif ends:
        end = ends[max(ends)]
        status, reason, ended = end["status"], str(end.get("reason", "")), end["end"]
        heard = _heard_at_last(row, end)
    said = _value(state, "status", None)
    if said is not None:  # a run of another tool is what that says
        status, reason, ended = said["status"], said["reason"], said["end"]
    first = _value(state, "first", {})
    start = int(first.get("start") or row[6] or 0)
    experiment_id = int(row[8])
    if "experiment" in edits:
        experiment_id = int(edits["experiment"])
    elif first:
        named = str(_value(state, "experiment", first["experiment"]))
        names = ExperimentNames(database) if names is None else names
        experiment_id = names.number(named, int(first.get("logged") or start))
    lifecycle = edits.get("lifecycle", str(_value(state, "lifecycle", "active")))
    if row[20] and database.execute("SELECT 1 FROM source WHERE path = ? AND hidden = 1", (row[20],)):
        lifecycle = "removed"
    values = (
        status,
        reason,
        lifecycle,
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
    if (*row[1:9], *row[10:19]) == values and not touch and keep_status:
        return status
    database.execute(
        "UPDATE run SET status = ?, reason = ?, lifecycle = ?, heard_ms = ?, end_ms = ?, start_ms = ?, name = ?, experiment_id = ?,"
        " note = ?, parent_id = ?, step = ?, total = ?, exit_code = ?, owner = ?, host = ?, pid = ?, pinned = ?, seq = ? WHERE id = ?",
        (*values, database.next_seq(), run),
    )
    if not keep_status:
        database.execute("UPDATE run SET status = 'FAILED', reason = 'damaged' WHERE id = ?", (run,))
    return status


def _beat(
    database: Database, run: int, state: dict[str, Any], jid: str, kept: int | None, beat: int | None
) -> int | None:
    """When the newest attempt's process was last heard of; None when it never was. What older attempts said counts for nothing:
    a clock that was wrong then must not keep a run alive now. So the state names the writer whose beats the row keeps."""
    if beat is None:
        return kept
    if state.get("beat") != jid:
        state["beat"] = jid
        save_state(database, run, state)
    return beat if kept is None else max(kept, beat)


def _heard_at_last(row: tuple[Any, ...], end: dict[str, Any]) -> int:
    """When an attempt that has ended was last heard of: then, or when it was written down, where no time was said."""
    last = int(end["logged"] if end["end"] is None else end["end"])
    return max(int(row[4] or 0), last) if row[20] else last


def _drop_folded_summaries(database: Database, run: int, state: dict[str, Any]) -> None:
    """Summary records stand in only until the points they sum up are folded; the points know better from then on."""
    rows = database.execute("SELECT jid, position FROM journal WHERE run = ? AND kind = 'points'", (run,))
    folded = {str(jid): int(position) for jid, position in rows}
    waiting = {jid: kept for jid, kept in state["pending"].items() if folded.get(jid, 0) < int(kept["upto"])}
    if len(waiting) != len(state["pending"]):
        state["pending"] = waiting
        save_state(database, run, state)


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

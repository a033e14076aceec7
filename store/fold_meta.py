"""Meta records -> rows. Each statement gives the same end whatever the order, number or place of the records.

Fields that change (name, note, tags, status) belong to the largest stamp; params to the smallest; a person's decision beats
both. A stamp is ``time.jid.offset``, so that equal times still have one order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from mltrack.store.database import Database
from mltrack.store.experiments import ExperimentNames
from mltrack.store.journal_reader import JournalName
from mltrack.store.journal_state import REOPENED, RunState

# Summary fields as the client writes them: whole numbers and floats (which may be quoted NaN or infinities) by place.
_SUMMARY_FIELDS = 10
# Facts that other records or the fold itself write.
_OUR_FACTS = frozenset(("stamps", "started", "refused"))
# How many refusals of a run are kept by name.
REFUSED_KEPT = 100
_WHOLE_FIELDS = (0, 1, 2, 5, 7, 8, 9)
_SPECIAL = ("NaN", "Infinity", "-Infinity")


def ensure_run(database: Database, name: JournalName, experiment: str = "") -> int:
    """The row number of a journal's run, created with what line 1 says (and its start record of ``experiment``) when it is new."""
    rows = database.execute("SELECT id FROM run WHERE run_id = ?", (name.run_id,))
    return int(rows[0][0]) if rows else make_run(database, name, experiment, ExperimentNames(database))


def make_run(database: Database, name: JournalName, experiment: str, names: ExperimentNames) -> int:
    """The row number of a new run of ``experiment`` ("" for Default), with what line 1 of a journal says. Inside a transaction."""
    at = int(name.header.get("time", 0))
    number = names.number(experiment or "Default", at)
    rows = database.execute(
        "INSERT INTO run (run_id, experiment_id, name, start_ms, host, owner, lifecycle, seq) VALUES (?, ?, ?, ?, ?, ?, 'active', 0)"
        " RETURNING id",
        (name.run_id, number, name.run_id[:8], at, str(name.header.get("host", "")), name.owner),
    )
    return int(rows[0][0])


def experiment_name(lines: list[bytes]) -> str:
    """The experiment that a start record among a journal's first lines names; "" when there is none."""
    for line in lines[1:3]:
        try:
            record = orjson.loads(line)
            if record["op"] == "start":
                return str(record.get("experiment") or "")
        except (orjson.JSONDecodeError, KeyError, TypeError):
            continue  # counted as skipped when it is folded
    return ""


def fold_meta(
    database: Database, state: RunState, name: JournalName, lines: list[bytes], offsets: list[int]
) -> int:
    """Apply complete lines (without line 1). Returns how many were records; others are counted as skipped."""
    taken = 0
    for line, offset in zip(lines, offsets, strict=True):
        if offset == 0:
            continue
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError:
            state.skipped += 1
            continue
        taken += fold_record(database, state, name, record, offset)
    return taken


def fold_record(
    database: Database, state: RunState, name: JournalName, record: Any, offset: int, source: bool = False
) -> bool:
    """Apply one record; ``source``: also those that only a source may say. False, and counted, when it cannot be applied."""
    try:
        time_ms = _whole(record["t"])
        # An op of a later minor version stays in the journal: it is not ours to guess.
        apply = _APPLY.get(record["op"]) or (_OF_SOURCES.get(record["op"]) if source else None)
        if apply is not None:
            apply(
                _Context(database, state, name, time_ms, f"{time_ms:016d}.{name.jid}.{offset:012d}"), record
            )
            return True
    except (KeyError, TypeError, ValueError, AttributeError):
        pass  # counted like a line that does not parse
    state.skipped += 1
    return False


@dataclass(frozen=True)
class _Context:
    database: Database
    state: RunState
    name: JournalName
    time_ms: int
    stamp: str

    @property
    def run(self) -> int:
        return self.state.run


def _whole(value: Any) -> int:
    """A whole number that every engine's 64-bit column holds. Raises ValueError for anything else."""
    if type(value) is not int or not -(1 << 63) <= value < 1 << 63:
        raise ValueError("not a 64-bit whole number")
    return value


def _summary_fields(fields: Any) -> list[Any]:
    """The fields of one metric's summary. Raises ValueError when they are not what readers expect."""
    if not isinstance(fields, list) or len(fields) != _SUMMARY_FIELDS:
        raise ValueError("summary")
    for place, value in enumerate(fields):
        if value is None and place in (4, 5, 6, 7):
            continue
        if place in _WHOLE_FIELDS:
            _whole(value)
        elif type(value) not in (int, float) and value not in _SPECIAL:
            raise ValueError("summary")
    return fields


def _texts(values: Any) -> dict[str, str]:
    if not isinstance(values, dict):
        raise TypeError("not an object")
    return {str(key): value if isinstance(value, str) else str(value) for key, value in values.items()}


def _moment(at: _Context, record: dict[str, Any]) -> int:
    """When it happened: what the record says, else when it was written. A server's clients send times of their own."""
    return at.time_ms if record.get("at") is None else _whole(record["at"])


def _start(at: _Context, record: dict[str, Any]) -> None:
    state = at.state
    state.offer(
        f"begin {at.name.attempt}",
        at.stamp,
        {"start": _moment(at, record), "jid": at.name.jid, "header": at.name.header},
    )
    if record.get("name"):
        # A name given at a resume is a new name; a random one is only given at the first start.
        state.offer("name", at.stamp, str(record["name"]))
    first = state.values.get("first")
    if first is None or at.stamp < first[0]:
        state.values["first"] = [
            at.stamp,
            {
                "experiment": str(record.get("experiment") or "Default"),
                "start": _moment(at, record),
                "logged": at.time_ms,
            },
        ]
        state.changed = True
    said = {**record, "user": at.name.owner or record.get("user")}
    for field_name in ("user", "key"):
        if said.get(field_name) is not None:
            state.offer(field_name, at.stamp, str(said[field_name]))
    if record.get("parent") is not None:
        state.offer("parent", at.stamp, str(record["parent"]) or None)
    if record.get("total") is not None:
        state.offer("total", at.stamp, _whole(record["total"]))
    if isinstance(record.get("note"), str):
        state.offer("note", at.stamp, record["note"])
    keep = ("command", "cwd", "script", "python", "slurm", "console")
    newest = state.facts.get("started", "")
    if at.stamp > newest:
        for name in (
            keep
        ):  # all of it is the newest start's: what that did not say is not left over from an older one
            state.facts.pop(name, None)
        state.facts.update({name: record[name] for name in keep if name in record})
        state.facts["started"] = at.stamp
        state.changed = True


def _param(at: _Context, record: dict[str, Any]) -> None:
    rank = at.name.rank
    values = _texts(record["v"])
    known = at.state.params
    if known is None:
        rows = at.database.execute("SELECT key FROM param WHERE run = ?", (at.run,))
        known = at.state.params = {str(key) for (key,) in rows}
    new = {key: value for key, value in values.items() if key not in known}
    at.database.execute_many(
        "INSERT INTO param (run, key, value, rank, stamp) VALUES (?, ?, ?, ?, ?)",
        [(at.run, key, value, rank, at.stamp) for key, value in new.items()],
    )
    known.update(new)
    for key in values.keys() - new.keys():
        value = values[key]
        old, old_rank, old_stamp, other = at.database.execute(
            "SELECT value, rank, stamp, other FROM param WHERE run = ? AND key = ?", (at.run, key)
        )[0]
        # Ranks of one job may differ (a device, a host): the lowest rank speaks, and conflicts only with itself.
        if rank > old_rank:
            continue
        if rank < old_rank:
            value_now, stamp_now, conflict = value, at.stamp, None
        else:
            earlier = at.stamp < old_stamp
            value_now, second = (value, old) if earlier else (old, value)
            stamp_now = min(at.stamp, old_stamp)
            conflict = min(
                (text for text in (other, second) if text is not None and text != value_now), default=None
            )
        at.database.execute(
            "UPDATE param SET value = ?, rank = ?, stamp = ?, other = ? WHERE run = ? AND key = ?",
            (value_now, rank, stamp_now, conflict, at.run, key),
        )
    at.state.changed = True


_SET_TAG = (
    "INSERT INTO tag (run, key, value, stamp) VALUES (?, ?, ?, ?) ON CONFLICT (run, key)"
    " DO UPDATE SET value = excluded.value, stamp = excluded.stamp WHERE excluded.stamp > tag.stamp"
)


def _tags(at: _Context, record: dict[str, Any]) -> None:
    said = _texts(record["v"])
    if at.name.owner:
        # MLflow's clients read in it whose a run is; where that is known, nobody says it of himself.
        said.pop("mlflow.user", None)
    rows = [(at.run, key, value, at.stamp) for key, value in said.items()]
    at.database.execute_many(_SET_TAG, rows)
    at.state.changed = True


def _untag(at: _Context, record: dict[str, Any]) -> None:
    at.database.execute_many(_SET_TAG, [(at.run, str(key), None, at.stamp) for key in record["k"]])
    at.state.changed = True


def _note(at: _Context, record: dict[str, Any]) -> None:
    at.state.offer("note", at.stamp, str(record["v"]))


def _name(at: _Context, record: dict[str, Any]) -> None:
    at.state.offer("name", at.stamp, str(record["v"]))


def _parent(at: _Context, record: dict[str, Any]) -> None:
    at.state.offer("parent", at.stamp, str(record["v"]) or None)


def _input(at: _Context, record: dict[str, Any]) -> None:
    size = record.get("size")
    at.database.execute(
        "INSERT INTO run_input (run, name, digest, context, source, digest_kind, size, detail) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (run, name, digest, context) DO NOTHING",
        (
            at.run,
            str(record["name"]),
            str(record.get("digest", "")),
            str(record.get("context", "")),
            str(record.get("source", "")),
            str(record.get("digest_kind", "")),
            _whole(size) if size is not None else None,
            orjson.dumps(record["detail"]).decode() if isinstance(record.get("detail"), dict) else "",
        ),
    )


def _model_link(at: _Context, record: dict[str, Any]) -> None:
    way = str(record["way"])
    if way not in ("input", "output"):
        raise ValueError("way")
    at.database.execute(
        "INSERT INTO model_link (run, model_id, way, step) VALUES (?, ?, ?, ?) ON CONFLICT (run, model_id, way)"
        " DO UPDATE SET step = excluded.step WHERE excluded.step > model_link.step",
        (at.run, str(record["model"]), way, _whole(record.get("step", 0))),
    )


def _model_metric(at: _Context, record: dict[str, Any]) -> None:
    rows: list[tuple[Any, ...]] = []
    for model, key, step, time_ms, value, name, digest in record["v"]:
        if type(value) not in (int, float) and value not in _SPECIAL:
            raise ValueError("value")
        text = value if isinstance(value, str) else repr(float(value))
        rows.append(
            (at.run, str(model), str(key), str(name), str(digest), _whole(step), _whole(time_ms), text)
        )
    at.database.execute_many(
        "INSERT INTO model_metric (run, model_id, key, dataset_name, dataset_digest, step, time_ms, value)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        rows,
    )


def _artifact(at: _Context, record: dict[str, Any]) -> None:
    at.database.execute(
        "INSERT INTO artifact (run, path, size, sha256, how, stamp) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (run, path) DO UPDATE SET"
        " size = excluded.size, sha256 = excluded.sha256, how = excluded.how, stamp = excluded.stamp WHERE excluded.stamp > artifact.stamp",
        (
            at.run,
            str(record["path"]),
            _whole(record["size"]),
            str(record["sha256"]),
            str(record.get("how", "")),
            at.stamp,
        ),
    )


def _artifact_copy(at: _Context, record: dict[str, Any]) -> None:
    """The bytes of an artifact were put into an object store and compared; an empty place: they were removed there."""
    at.database.execute(
        "INSERT INTO artifact_copy (run, path, sha256, place, stamp) VALUES (?, ?, ?, ?, ?) ON CONFLICT (run, path, sha256)"
        " DO UPDATE SET place = excluded.place, stamp = excluded.stamp WHERE excluded.stamp > artifact_copy.stamp",
        (at.run, str(record["path"]), str(record["sha256"]), str(record["place"]), at.stamp),
    )


def _progress(at: _Context, record: dict[str, Any]) -> None:
    at.state.offer("step", at.stamp, _whole(record["step"]))
    if record.get("total") is not None:
        at.state.offer("total", at.stamp, _whole(record["total"]))


def _facts(at: _Context, record: dict[str, Any]) -> None:
    if not isinstance(record["v"], dict):
        raise TypeError("facts")
    if not _OUR_FACTS.isdisjoint(record["v"]):
        raise ValueError("facts")
    for key, value in record["v"].items():
        if at.stamp > at.state.facts.get("stamps", {}).get(key, ""):
            at.state.facts[key] = value
            at.state.facts.setdefault("stamps", {})[key] = at.stamp
            at.state.changed = True


def _summary(at: _Context, record: dict[str, Any]) -> None:
    values = {str(key): _summary_fields(fields) for key, fields in record["v"].items()}
    upto = _whole(record["upto"])
    pending = at.state.values.setdefault("pending", {})
    mine = pending.setdefault(at.name.jid, {"upto": 0, "rank": at.name.rank, "v": {}})
    mine["upto"] = max(mine["upto"], upto)
    for key, fields in values.items():
        if key not in mine["v"] or fields[8] >= mine["v"][key][8]:
            mine["v"][key] = fields
    at.state.changed = True


def _refused(at: _Context, record: dict[str, Any]) -> None:
    kept = at.state.facts.setdefault("refused", {})
    kept[at.stamp] = [str(record.get("what", "")), str(record.get("why", ""))]
    if len(kept) > REFUSED_KEPT:
        del kept[max(kept)]  # the first ones are kept, in whatever order they arrive
    at.state.changed = True


def _end(at: _Context, record: dict[str, Any]) -> None:
    status = str(record["status"])
    if status not in ("FINISHED", "FAILED", "KILLED", *REOPENED):
        raise ValueError("status")
    kept = {
        name: record[name]
        for name in ("exit", "signal", "reason", "traceback", "elapsed", "until")
        if name in record
    }
    for name in ("exit", "until"):
        if kept.get(name) is not None:
            _whole(kept[name])
    # A client of the server may end a run and say no time: then nobody knows it.
    ended = None if "at" in record and record["at"] is None else _moment(at, record)
    at.state.offer(f"end {at.name.attempt}", at.stamp, {"end": ended, "status": status, **kept})


def _close(at: _Context, record: dict[str, Any]) -> None:
    at.state.closed[at.name.jid] = _whole(record.get("points", 0))


_APPLY: dict[str, Callable[[_Context, dict[str, Any]], None]] = {
    "start": _start,
    "param": _param,
    "tags": _tags,
    "untag": _untag,
    "note": _note,
    "name": _name,
    "parent": _parent,
    "input": _input,
    "model_link": _model_link,
    "model_metric": _model_metric,
    "artifact": _artifact,
    "artifact_copy": _artifact_copy,
    "progress": _progress,
    "facts": _facts,
    "summary": _summary,
    "refused": _refused,
    "end": _end,
    "close": _close,
}


def _status(at: _Context, record: dict[str, Any]) -> None:
    status, end = str(record["v"]), record.get("end")
    if status not in ("RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED", "LOST"):
        raise ValueError("status")
    said = {
        "status": status,
        "end": _whole(end) if end is not None else None,
        "reason": str(record.get("reason", "")),
    }
    at.state.offer("status", at.stamp, said)


def _lost(at: _Context, record: dict[str, Any]) -> None:
    if record["v"] is None:
        at.state.offer(f"lost {at.name.attempt}", at.stamp, None)
        return
    status, reason, end = record["v"]
    if status not in ("LOST", "KILLED"):
        raise ValueError("status")
    said = {"status": status, "reason": str(reason), "end": _whole(end)}
    at.state.offer(f"lost {at.name.attempt}", at.stamp, said)


def _experiment(at: _Context, record: dict[str, Any]) -> None:
    at.state.offer("experiment", at.stamp, str(record["v"]))


def _lifecycle(at: _Context, record: dict[str, Any]) -> None:
    if record["v"] not in ("active", "trash"):
        raise ValueError("lifecycle")
    at.state.offer("lifecycle", at.stamp, record["v"])


def _artifacts(at: _Context, record: dict[str, Any]) -> None:
    at.state.offer("artifacts", at.stamp, str(record["v"]))


# What another tool says of a run that it owns: it may say otherwise tomorrow, so none of this is final as in a journal.
_OF_SOURCES: dict[str, Callable[[_Context, dict[str, Any]], None]] = {
    "status": _status,
    "lost": _lost,
    "experiment": _experiment,
    "lifecycle": _lifecycle,
    "artifacts": _artifacts,
}

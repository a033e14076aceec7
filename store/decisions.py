"""What people decide: applied in one transaction, written to ``decisions.jsonl`` before it commits, and undoable.

A decision is a list of small operations. Applying one returns its inverse, so that undo is a decision like any other. The
file makes decisions outlive the database: records the database does not know are applied again when the store is opened.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson

from mltrack.store import experiment_operations, registry_operations
from mltrack.store.acting import actor
from mltrack.store.client import host
from mltrack.store.client.journal import open_file, random_hex, share_mode
from mltrack.store.database import Database
from mltrack.store.decision_file import FILE, POSITION, WAITING, has_unread
from mltrack.store.errors import BadInput, Conflict, ExperimentNotFound, RunNotFound, StoreUnavailable
from mltrack.store.experiment_operations import named_experiment
from mltrack.store.experiments import experiment_for
from mltrack.store.records import Decision
from mltrack.store.run_state import settle_run
from mltrack.store.source_operations import set_source

Operation = dict[str, Any]
FIELDS = ("name", "note", "experiment", "lifecycle", "pinned")


def decide(
    database: Database,
    root: Path,
    operations: Sequence[Operation],
    sentence: str,
    undoes: str | None = None,
    kind: str = "do",
) -> Decision:
    """Apply operations as one decision. When this returns it survives a power cut; when it raises nothing has changed."""
    now = time.time_ns() // 1_000_000
    who = actor(database)
    record: dict[str, Any] = {
        "id": random_hex(32),
        "time": now,
        "kind": kind,
        "actor": who.name,
        "channel": who.channel,
        "identity": who.identity,
        "uid": os.getuid(),
        "host": str(host.identity().get("host", "")),
        "sentence": sentence,
        "ops": list(operations),
    }
    if undoes is not None:
        record["undoes"] = undoes
    written: tuple[int, int] | None = None
    try:
        with database.transaction():
            replay(database, root)
            newest = database.execute("SELECT coalesce(max(time_ms), 0) FROM decision")[0][0]
            record["time"] = max(
                now, int(newest) + 1
            )  # decisions have one order, also when a clock was set back
            record["inverse"] = _apply_all(database, record)
            _remember(database, record)
            if database.kind == "sqlite":
                written = _append(root, record)
                database.set_setting(POSITION, str(written[1]))
    except BaseException:
        if (
            written is not None
        ):  # the commit failed (a full disk): what is refused must not be done by a later replay
            _take_back(root, *written)
        raise
    return Decision(str(record["id"]), sentence)


def replay(database: Database, root: Path, position: int | None = None) -> int:
    """Apply decisions that are in the file and not in the database. Returns how many. Inside a transaction.

    What a decision says about a run whose journals are not folded yet waits, and is tried again with every replay.
    """
    at = int(database.setting(POSITION, "0")) if position is None else position
    _retry_waiting(database)
    if not has_unread(root, at):
        return 0
    with (root / FILE).open("rb") as file:
        file.seek(at)
        data = file.read()
    whole = data[: data.rfind(b"\n") + 1]
    done = 0
    for line in whole.splitlines():
        try:
            record = orjson.loads(line)
            known = database.execute("SELECT 1 FROM decision WHERE id = ?", (str(record["id"]),))
        except (orjson.JSONDecodeError, KeyError, TypeError):
            continue  # a torn line of a writer that died: it was never confirmed to anybody
        if not known and _is_whole(record):
            _apply_known(database, record)
            done += 1
    database.set_setting(POSITION, str(at + len(whole)))
    return done


def _is_whole(record: dict[str, Any]) -> bool:
    """Whether the line is a decision as we write them: a damaged one must not keep the store from opening."""
    return (
        all(isinstance(record.get(name), str) for name in ("id", "actor", "sentence"))
        and type(record.get("time")) is int
        and isinstance(record.get("ops"), list)
        and all(isinstance(operation, dict) and "op" in operation for operation in record["ops"])
    )


def _apply_known(database: Database, record: dict[str, Any]) -> None:
    """Apply a decision that was confirmed before; operations on runs nobody knows yet wait."""
    waiting: list[Operation] = []
    record["inverse"] = _apply_all(database, record, waiting)
    _remember(database, record)
    if waiting:
        kept = orjson.loads(database.setting(WAITING, "[]"))
        kept.append({**{name: record[name] for name in ("id", "time", "actor")}, "ops": waiting})
        database.set_setting(WAITING, orjson.dumps(kept).decode())


def _retry_waiting(database: Database) -> None:
    text = database.setting(WAITING, "[]")
    if text == "[]":
        return
    kept: list[dict[str, Any]] = []
    for record in orjson.loads(text):
        still: list[Operation] = []
        inverse = _apply_all(database, record, still)
        if inverse:
            whole = orjson.loads(
                database.execute("SELECT record FROM decision WHERE id = ?", (record["id"],))[0][0]
            )
            whole["inverse"] += inverse
            database.execute(
                "UPDATE decision SET record = ? WHERE id = ?", (orjson.dumps(whole).decode(), record["id"])
            )
        if still:
            kept.append({**record, "ops": still})
    left = orjson.dumps(kept).decode()
    if left != text:
        database.set_setting(WAITING, left)


def apply_again(database: Database, record: dict[str, Any]) -> None:
    """Apply a decision found outside the file, in a transaction of its own."""
    with database.transaction():
        _apply_known(database, record)


def undo(database: Database, root: Path, redo: bool = False) -> Decision:
    """Take back the last decision of this user that still holds; with ``redo``, the last undo that nothing followed."""
    rows = database.execute(
        "SELECT id, sentence, record FROM decision WHERE actor = ? AND undone_by IS NULL ORDER BY time_ms DESC",
        (actor(database).name,),
    )
    for key, sentence, text in rows:
        record = orjson.loads(text)
        kind = record.get("kind", "do")
        if redo and kind != "undo":
            if kind == "do":
                break  # something new was decided since: redoing would overwrite it
            continue
        if record.get("channel") == "rest" or (not redo and kind == "undo"):
            continue  # what a program asked the server for is not a slip of this person's hand
        if any(operation["op"] == "purged" for operation in record["inverse"]):
            raise Conflict(f"'{sentence}' cannot be undone: its files are gone.")
        said = str(sentence).removeprefix("Undid: ") if redo else f"Undid: {sentence}"
        return decide(
            database, root, list(reversed(record["inverse"])), said, str(key), "redo" if redo else "undo"
        )
    raise BadInput(f"There is nothing to {'redo' if redo else 'undo'}.")


def _apply_all(
    database: Database, record: dict[str, Any], missing: list[Operation] | None = None
) -> list[Operation]:
    """Apply operations in order; their inverses. Those on unknown runs go to ``missing``, or raise when it is None."""
    inverse: list[Operation] = []
    for operation in record["ops"]:
        apply = APPLY.get(str(operation.get("op")))
        if apply is None:
            raise BadInput(
                f"The decision '{operation.get('op')}' is not known to this version of mltrack. Update it."
            )
        if missing is not None and apply is _rename_experiment:
            apply = _rename_experiment_again
        try:
            if operation["op"] in registry_operations.OPERATIONS:
                registry_operations.refuse_foreign(database, operation)
            inverse.append(apply(database, operation, record))
        except (RunNotFound, ExperimentNotFound, Conflict):
            if missing is None:
                raise
            if operation["op"] == "purge":
                inverse.append(_bury(database, operation, record))
            else:
                missing.append(operation)
    if record.get("undoes"):
        database.execute("UPDATE decision SET undone_by = ? WHERE id = ?", (record["id"], record["undoes"]))
    return inverse


def _remember(database: Database, record: dict[str, Any]) -> None:
    database.execute(
        "INSERT INTO decision (id, time_ms, actor, sentence, record) VALUES (?, ?, ?, ?, ?)",
        (record["id"], record["time"], record["actor"], record["sentence"], orjson.dumps(record).decode()),
    )


def _append(root: Path, record: dict[str, Any]) -> tuple[int, int]:
    """Append one line and flush it to the disk. Returns the file's size before and after."""
    line = orjson.dumps(record) + b"\n"
    try:
        fd = open_file(root / FILE, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, share_mode(root))
        try:
            size = os.fstat(fd).st_size
            if size and os.pread(fd, 1, size - 1) != b"\n":
                line = b"\n" + line  # a writer died in the middle of its line
            try:
                if os.write(fd, line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(fd)
            except OSError:
                os.ftruncate(
                    fd, size
                )  # a line that lacks only its newline would count as soon as another follows
                raise
            return size, os.fstat(fd).st_size
        finally:
            os.close(fd)
    except OSError as error:
        raise StoreUnavailable(
            f"The decision could not be written to {root / FILE} ({error.strerror}); nothing was changed."
        ) from error


def _take_back(root: Path, before: int, after: int) -> None:
    """Remove the line between these sizes, unless somebody wrote behind it."""
    try:
        fd = os.open(root / FILE, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return  # as good as taken back
    try:
        if os.fstat(fd).st_size == after:
            os.ftruncate(fd, before)
    except OSError:
        return
    finally:
        os.close(fd)


# -- operations


def _run(database: Database, operation: Operation) -> int:
    rows = database.execute("SELECT id FROM run WHERE run_id = ?", (operation["run"],))
    if not rows:
        raise RunNotFound(f"There is no run {operation['run']} in this store.")
    return int(rows[0][0])


def _tag(database: Database, operation: Operation, record: dict[str, Any]) -> Operation:
    """Decide a tag (value None: deleted), or with ``clear`` leave it to the journals again."""
    run, key = _run(database, operation), str(operation["key"])
    rows = database.execute("SELECT edited, edit FROM tag WHERE run = ? AND key = ?", (run, key))
    before: Operation = {"op": "tag", "run": operation["run"], "key": key}
    if rows and rows[0][0]:
        before["value"] = rows[0][1]
    else:
        before["clear"] = True
    edited, value = (0, None) if operation.get("clear") else (1, operation.get("value"))
    database.execute(
        "INSERT INTO tag (run, key, stamp, edited, edit) VALUES (?, ?, '', ?, ?) ON CONFLICT (run, key)"
        " DO UPDATE SET edited = excluded.edited, edit = excluded.edit",
        (run, key, edited, value),
    )
    database.execute("DELETE FROM tag WHERE run = ? AND key = ? AND stamp = '' AND edited = 0", (run, key))
    settle_run(database, run, touch=True)
    return before


def _field(database: Database, operation: Operation, record: dict[str, Any]) -> Operation:
    """Decide name, note, experiment (by name), lifecycle or pinned of a run; value None leaves it to the journals."""
    run, name, value = _run(database, operation), str(operation["field"]), operation.get("value")
    if name not in FIELDS:
        raise BadInput(f"A run has no field '{name}' to decide about.")
    rows = database.execute("SELECT value FROM edit WHERE run = ? AND field = ?", (run, name))
    old: str | None = str(rows[0][0]) if rows else None
    if name == "experiment":
        if old is not None:
            old = str(database.execute("SELECT name FROM experiment WHERE id = ?", (int(old),))[0][0])
        if value is not None:
            value = str(experiment_for(database, str(value), int(record["time"])))
    if value is None:
        database.execute("DELETE FROM edit WHERE run = ? AND field = ?", (run, name))
    else:
        database.execute(
            "INSERT INTO edit (run, field, value) VALUES (?, ?, ?) ON CONFLICT (run, field) DO UPDATE SET value = excluded.value",
            (run, name, str(value)),
        )
    if name == "lifecycle":
        database.execute(
            "UPDATE run SET deleted_ms = ? WHERE id = ?", (record["time"] if value == "trash" else None, run)
        )
    settle_run(database, run, touch=True)
    return {"op": "field", "run": operation["run"], "field": name, "value": old}


def _rename_experiment(database: Database, operation: Operation, record: dict[str, Any]) -> Operation:
    """Give an experiment another name; journals of runs started before now follow it."""
    key, name, to = named_experiment(database, operation), str(operation["name"]), str(operation["to"])
    if database.execute(
        "SELECT 1 FROM experiment WHERE name = ? AND lifecycle = 'active' AND id <> ?", (to, key)
    ):
        raise Conflict(f"There is an experiment '{to}' already. Move the runs there, or choose another name.")
    database.execute("UPDATE experiment SET name = ?, updated_ms = ? WHERE id = ?", (to, record["time"], key))
    database.execute(
        "INSERT INTO experiment_name (name, until_ms, experiment_id) VALUES (?, ?, ?) ON CONFLICT (name, until_ms) DO NOTHING",
        (name, record["time"], key),
    )
    database.next_seq()
    database.execute(
        "UPDATE run SET seq = (SELECT CAST(value AS BIGINT) FROM setting WHERE key = 'seq') WHERE experiment_id = ?",
        (key,),
    )
    return {"op": "rename_experiment", "name": to, "to": name}


def _rename_experiment_again(database: Database, operation: Operation, record: dict[str, Any]) -> Operation:
    """A rename that is replayed while the database is built again: the experiment may not be known yet, or its runs and
    those of the new name may be in already, each by the name its journal says."""
    name, to, at = str(operation["name"]), str(operation["to"]), int(record["time"])
    old, new = (
        database.execute("SELECT id FROM experiment WHERE name = ? AND lifecycle = 'active'", (each,))
        for each in (name, to)
    )
    if old and not new:
        database.execute("UPDATE experiment SET name = ?, updated_ms = ? WHERE id = ?", (to, at, old[0][0]))
        new = old
    key = int(new[0][0]) if new else experiment_for(database, to, at)
    database.execute(
        "INSERT INTO experiment_name (name, until_ms, experiment_id) VALUES (?, ?, ?) ON CONFLICT (name, until_ms) DO NOTHING",
        (name, at, key),
    )
    for (run,) in database.execute("SELECT id FROM run WHERE experiment_id = ?", old[0]) if old else []:
        settle_run(database, int(run), touch=True)
    return {"op": "rename_experiment", "name": to, "to": name}


def _bury(database: Database, operation: Operation, record: dict[str, Any]) -> Operation:
    database.execute(
        "INSERT INTO tombstone (run_id, time_ms) VALUES (?, ?) ON CONFLICT (run_id) DO NOTHING",
        (operation["run"], record["time"]),
    )
    return {"op": "purged", "run": operation["run"]}


RUN_TABLES = (
    "param tag run_input model_link model_metric artifact artifact_copy journal attempt block edit".split()
)


REMOVALS = "artifact_removals"
"""Setting: addresses in object stores below which everything is to be removed, because its run was purged."""


def _purge(database: Database, operation: Operation, record: dict[str, Any]) -> Operation:
    """Forget a run for good: rows now, files and objects after the commit. Its journals are never folded again."""
    run = _run(database, operation)
    places = database.execute(
        "SELECT DISTINCT place FROM artifact_copy WHERE run = ? AND place <> ''", (run,)
    )
    if places:
        waiting = orjson.loads(database.setting(REMOVALS, "[]"))
        waiting += [f"{place}/{operation['run']}" for (place,) in places]
        database.set_setting(REMOVALS, orjson.dumps(waiting).decode())
    for table in RUN_TABLES:
        database.execute(f"DELETE FROM {table} WHERE run = ?", (run,))
    database.execute("DELETE FROM run WHERE id = ?", (run,))
    database.next_seq()
    return _bury(database, operation, record)


APPLY: dict[str, Callable[[Database, Operation, dict[str, Any]], Operation]] = {
    "tag": _tag,
    "field": _field,
    "rename_experiment": _rename_experiment,
    "purge": _purge,
    "source": set_source,
    **experiment_operations.OPERATIONS,
    **registry_operations.OPERATIONS,
}

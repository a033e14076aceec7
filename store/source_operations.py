"""Which sources are followed is a decision like any other: written down, undoable, applied again after a rebuild."""

from __future__ import annotations

from typing import Any

from mltrack.store.database import Database
from mltrack.store.fold_catalogue import forget_models
from mltrack.store.run_state import settle_run

Operation = dict[str, Any]
CHANGED = "sources_changed"
"""Setting that counts these decisions: what a process remembers of its sources holds until it moves."""


def set_source(database: Database, operation: Operation, record: dict[str, Any]) -> Operation:
    """Follow the source at ``path`` (``followed`` true), only keep what was read (false), or hide it and its runs (null)."""
    path, followed = str(operation["path"]), operation.get("followed")
    rows = database.execute("SELECT followed, hidden FROM source WHERE path = ?", (path,))
    before = None if not rows or rows[0][1] else bool(rows[0][0])
    hidden = int(followed is None)
    database.execute(
        "INSERT INTO source (path, kind, followed, hidden, added_ms) VALUES (?, ?, ?, ?, ?) ON CONFLICT (path)"
        " DO UPDATE SET followed = excluded.followed, hidden = excluded.hidden",
        (path, str(operation.get("kind", "")), int(bool(followed)), hidden, int(record["time"])),
    )
    # Runs that another source owned are looked at again: that one may be gone now.
    database.execute("DELETE FROM source_run WHERE run IS NULL")
    database.set_setting(CHANGED, str(int(database.setting(CHANGED, "0")) + 1))
    if (before is None) != (followed is None):
        _show(database, path, not hidden)
    return {"op": "source", "path": path, "kind": operation.get("kind", ""), "followed": before}


def _show(database: Database, path: str, shown: bool) -> None:
    """Show the runs of a source, or not; what was decided about them stays."""
    seq = database.next_seq()
    database.execute(
        "UPDATE source SET state = '{}' WHERE path = ?", (path,)
    )  # its models are taken in again
    if not shown:
        forget_models(database, path)
        database.execute("UPDATE run SET lifecycle = 'removed', seq = ? WHERE source = ?", (seq, path))
        return
    database.execute(
        "UPDATE run SET seq = ?, lifecycle = coalesce("
        "(SELECT value FROM edit WHERE edit.run = run.id AND edit.field = 'lifecycle'), 'active') WHERE source = ?",
        (seq, path),
    )
    deleted = database.execute(
        "SELECT id FROM run WHERE source = ? AND state LIKE ?", (path, '%"lifecycle"%"trash"%')
    )
    for (run,) in deleted:
        settle_run(database, int(run), touch=True)

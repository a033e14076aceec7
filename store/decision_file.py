"""Whether ``decisions.jsonl`` has what the database has not: asked at every opening, where mostly there is nothing to load code for."""

from __future__ import annotations

import os
from pathlib import Path

from mltrack.store.database import Database

FILE = "decisions.jsonl"
POSITION = "decisions_position"
"""Setting: how much of the file the database has."""
WAITING = "decisions_waiting"
"""Setting: what was decided about runs whose journals are not folded yet."""


def catch_up(database: Database, root: Path) -> None:
    """Apply what is in the file and not in the database."""
    if has_waiting(database) or has_unread(root, int(database.setting(POSITION, "0"))):
        from mltrack.store import decisions

        with database.transaction():
            decisions.replay(database, root)


def has_waiting(database: Database) -> bool:
    """Whether decisions wait for runs that are not folded yet."""
    return database.setting(WAITING, "[]") != "[]"


def has_unread(root: Path, position: int) -> bool:
    """Whether the file goes on behind a position."""
    try:
        return os.stat(root / FILE).st_size > position
    except FileNotFoundError:
        return False

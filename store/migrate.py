"""Bringing a database to this version's schema: in a child process, under a lock, after a backup, in one transaction.

A child, because alembic and SQLAlchemy cost half a second that only an upgrade should pay. When anything fails the database
is as it was, the backup is there too, and the store still opens read-only.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mltrack.store.database import SCHEMA_VERSION, Database, file_lock
from mltrack.store.errors import StoreUnavailable
from mltrack.store.upkeep import backup

SCRIPTS = Path(__file__).parent / "migrations"


def migrate(path: Path, root: Path, scripts: Path = SCRIPTS, target: int = SCHEMA_VERSION) -> None:
    """Upgrade the SQLite database at ``path`` to schema ``target`` by a child process. Raises StoreUnavailable."""
    with file_lock(root, "migrate"):
        command = [
            sys.executable,
            "-m",
            "mltrack.store.migrate",
            str(path),
            str(root),
            str(scripts),
            str(target),
        ]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise StoreUnavailable(
            f"The database {path} could not be upgraded to schema {target} and is unchanged ({reason}). "
            "Open it with --readonly, or with the version of mltrack that wrote it."
        )


def upgrade(path: Path, root: Path, scripts: Path, target: int) -> None:
    """The child's work."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=60)
    version = int(connection.execute("SELECT value FROM setting WHERE key = 'schema'").fetchone()[0])
    if version >= target:
        return  # another process was faster
    database = Database(connection, "sqlite", str(path), readonly=False)
    backup(database, root, root / "backups" / f"before-schema-{target}-from-{version}.db")
    connection.close()

    from alembic import command
    from alembic.config import Config
    from sqlalchemy import create_engine, event, text

    engine = create_engine(f"sqlite:///{path}")

    def take_over(dbapi_connection: Any, record: object) -> None:
        # Python's own transaction handling commits before schema changes; without it they are part of the transaction.
        dbapi_connection.isolation_level = None

    def begin(opened: Any) -> None:
        opened.exec_driver_sql("BEGIN IMMEDIATE")

    event.listen(engine, "connect", take_over)
    event.listen(engine, "begin", begin)
    config = Config()
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    with engine.begin() as opened:
        config.attributes["connection"] = opened
        command.stamp(config, f"{version:04d}", purge=True)
        command.upgrade(config, f"{target:04d}")
        opened.execute(
            text("UPDATE setting SET value = :target WHERE key = 'schema'"), {"target": str(target)}
        )
    engine.dispose()


def main(arguments: Sequence[str]) -> int:
    """Child process entry: PATH ROOT SCRIPTS TARGET."""
    path, root, scripts, target = arguments
    upgrade(Path(path), Path(root), Path(scripts), int(target))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Bringing a database to this version's schema: in a child process, under a lock, in one transaction.

SQLite is backed up before; PostgreSQL has backups of its own.

A child, because alembic and SQLAlchemy cost half a second that only an upgrade should pay. When anything fails the database
is as it was, the backup is there too, and the store still opens read-only.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mltrack.store.client.secrets import redact_url
from mltrack.store.database import SCHEMA_VERSION, Database, file_lock
from mltrack.store.errors import StoreUnavailable
from mltrack.store.upkeep import backup

SCRIPTS = Path(__file__).parent / "migrations"


URL = "MLTRACK_MIGRATE_URL"
"""Environment variable by which the child is given a PostgreSQL address: it may hold a password, and arguments can be seen."""
_LOCK = 7203912  # the lock under which a PostgreSQL store is made


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
    _explain(done, str(path), target)


def migrate_postgresql(url: str, scripts: Path = SCRIPTS, target: int = SCHEMA_VERSION) -> None:
    """Upgrade the PostgreSQL store at ``url`` by a child process. Raises StoreUnavailable."""
    command = [sys.executable, "-m", "mltrack.store.migrate", str(scripts), str(target)]
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, URL: url},
    )
    _explain(done, redact_url(url), target)


def _explain(done: subprocess.CompletedProcess[str], where: str, target: int) -> None:
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise StoreUnavailable(
            f"The database {where} could not be upgraded to schema {target} and is unchanged ({reason}). "
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

    from sqlalchemy import create_engine, event

    engine = create_engine(f"sqlite:///{path}")

    def take_over(dbapi_connection: Any, record: object) -> None:
        # Python's own transaction handling commits before schema changes; without it they are part of the transaction.
        dbapi_connection.isolation_level = None

    def begin(opened: Any) -> None:
        opened.exec_driver_sql("BEGIN IMMEDIATE")

    event.listen(engine, "connect", take_over)
    event.listen(engine, "begin", begin)
    with engine.begin() as opened:
        _run(opened, scripts, version, target)
    engine.dispose()


def upgrade_postgresql(url: str, scripts: Path, target: int) -> None:
    """The child's work."""
    from sqlalchemy import create_engine, text

    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1))
    with engine.begin() as opened:
        opened.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        version = int(opened.execute(text("SELECT value FROM setting WHERE key = 'schema'")).scalar_one())
        if version < target:  # else another process was faster
            _run(opened, scripts, version, target)
    engine.dispose()


def _run(opened: Any, scripts: Path, version: int, target: int) -> None:
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import text

    config = Config()
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    config.attributes["connection"] = opened
    command.stamp(config, f"{version:04d}", purge=True)
    command.upgrade(config, f"{target:04d}")
    opened.execute(text("UPDATE setting SET value = :target WHERE key = 'schema'"), {"target": str(target)})


def main(arguments: Sequence[str]) -> int:
    """Child process entry: PATH ROOT SCRIPTS TARGET, or SCRIPTS TARGET with the address in the environment."""
    if len(arguments) == 2:
        upgrade_postgresql(os.environ[URL], Path(arguments[0]), int(arguments[1]))
        return 0
    path, root, scripts, target = arguments
    upgrade(Path(path), Path(root), Path(scripts), int(target))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Opening a store's database and running statements on it: SQLite with the standard library, PostgreSQL with psycopg.

Statements are written once, with ``?`` marks, in the SQL both engines share. A transaction is the unit of every change;
on SQLite it takes the write lock at its start, so that what it read is still true when it writes.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from mltrack.store.client.journal import make_folder, open_file, random_hex, share_mode
from mltrack.store.client.secrets import redact_url
from mltrack.store.errors import BadInput, ReadOnly, StoreDamaged, StoreNewer, StoreUnavailable
from mltrack.store.filesystem import has_locks, node_local, probe

SCHEMA_VERSION = 7
# Other writers hold the lock for at most one fold commit (50 ms) or a backup step; this is far beyond both.
BUSY_SECONDS = 30.0
# PostgreSQL tells whoever listens here that the store was changed.
CHANNEL = "mltrack_changed"
CONNECT_SECONDS = 10
# SQLite takes no more than 999 values in one statement where it is old.
_VALUES_ASKED = 500
Row = tuple[Any, ...]


class Database:
    """One connection to a store's database. Not for use by several threads at once."""

    def __init__(
        self, connection: Any, kind: str, where: str, readonly: bool, notes: tuple[str, ...] = ()
    ) -> None:
        self.connection = connection
        self.kind = kind
        self.where = where
        self.readonly = readonly
        self.notes = notes
        self._depth = 0
        self._connect: Callable[[], Any] | None = None
        self._changed = False
        self._told = False
        self._seq: int | None = None
        self._piped = False
        self._errors: tuple[type[Exception], ...] = (sqlite3.Error,)
        self._refused: tuple[type[Exception], ...] = ()
        if kind == "postgresql":
            import psycopg

            self._refused = (psycopg.DataError, psycopg.errors.ProgramLimitExceeded)
            self._errors = (psycopg.OperationalError, psycopg.InterfaceError, *self._refused)

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """Run one statement; all its rows (none for a statement that returns none)."""
        try:
            if self.kind == "sqlite":
                return list(self.connection.execute(sql, parameters))
            self._connect_again()
            try:
                cursor = self.connection.execute(sql.replace("?", "%s"), _escaped(parameters))
            except self._errors:
                # That a connection has broken is known when it is used. What only asks is asked again.
                if not self._may_repeat(sql):
                    raise
                self._connect_again()
                cursor = self.connection.execute(sql.replace("?", "%s"), _escaped(parameters))
            # In a pipeline only what has rows is waited for; an error in others is raised by the next of these, or the end.
            has_rows = _has_rows(sql) if self._piped else cursor.description
            return [_exact(row) for row in cursor.fetchall()] if has_rows else []
        except self._errors as error:
            raise self._explained(error) from error

    def lists(self, names: Sequence[str], source: str, parameters: Sequence[Any] = ()) -> list[list[Any]]:
        """Columns of numbers and texts as lists, one for each of ``names``, in any order of rows. As JSON, which SQLite and
        orjson pass on in a third of the time."""
        if self.kind == "sqlite":
            aggregates = ", ".join(f"json_group_array({name})" for name in names)
            try:
                texts = self.connection.execute(f"SELECT {aggregates} FROM {source}", parameters).fetchone()
                return [orjson.loads(text) for text in texts]
            except (sqlite3.Error, orjson.JSONDecodeError):
                pass  # more than SQLite can hold in one text, or damage, which reading row by row names
        rows = self.execute(f"SELECT {', '.join(names)} FROM {source}", parameters)
        return [[row[place] for row in rows] for place in range(len(names))]

    def execute_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run one statement for each row of parameters."""
        try:
            if self.kind == "sqlite":
                self.connection.executemany(sql, rows)
                return
            self._connect_again()
            with self.connection.cursor() as cursor:
                cursor.executemany(sql.replace("?", "%s"), [_escaped(row) for row in rows])
        except self._errors as error:
            raise self._explained(error) from error

    def select_in(self, sql: str, values: Iterable[Any]) -> list[Row]:
        """All rows of a SELECT that ends with ``IN``, for any number of values."""
        wanted = list(values)
        found: list[Row] = []
        for first in range(0, len(wanted), _VALUES_ASKED):
            part = wanted[first : first + _VALUES_ASKED]
            found += self.execute(f"{sql} ({', '.join('?' * len(part))})", part)
        return found

    def _may_repeat(self, sql: str) -> bool:
        return not self._depth and self.connection.closed and sql.startswith(("SELECT", "BEGIN"))

    def _connect_again(self) -> None:
        """A connection that broke is made anew, but not in the middle of a transaction, whose first half is gone."""
        if self._depth or self._connect is None or not self.connection.closed:
            return
        self.connection = self._connect()
        if self._told:
            self.listen()

    def listen(self) -> bool:
        """Be told by the database when somebody changes the store; False for one that does not tell (SQLite).

        What it tells makes ``connection.fileno()`` readable; ``heard`` says whether it was a change.
        """
        if self.kind != "postgresql":
            return False
        self.connection.add_notify_handler(self._hear)
        self._told = True
        self.execute(f"LISTEN {CHANNEL}")
        return True

    def _hear(self, told: Any) -> None:
        self._changed = True

    def heard(self) -> bool:
        """Whether the store was changed since the last time this was asked. Raises StoreUnavailable."""
        self.execute("SELECT 1")  # reads what has come
        changed, self._changed = self._changed, False
        return changed

    def _explained(self, error: Exception) -> Exception:
        """The error of ours for one of the engine's."""
        if isinstance(error, sqlite3.Error):
            return explain(error, self.where)
        reason = str(error).strip().partition("\n")[0]
        if isinstance(error, self._refused):
            return BadInput(f"PostgreSQL cannot hold a value of this size or kind ({reason}).")
        return StoreUnavailable(
            f"The PostgreSQL store {self.where} is away ({reason}). What is shown is from before; nothing that is logged is lost."
        )

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing. Nested use joins the outer transaction."""
        if self.readonly:
            raise ReadOnly(f"The store {self.where} is open read-only.")
        if self._depth:
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
            return
        self.execute("BEGIN IMMEDIATE" if self.kind == "sqlite" else "BEGIN")
        self._depth = 1
        self._seq = None
        try:
            if self.kind == "postgresql":
                # The same promise as BEGIN IMMEDIATE: what a transaction read is still true when it writes.
                self.execute("SELECT pg_advisory_xact_lock(7203911)")
                with self._pipeline():
                    yield
                    if self._seq is not None:
                        self.execute(f"NOTIFY {CHANNEL}")  # sent when the transaction is committed
            else:
                yield
        except BaseException:
            self._depth = 0
            self._rollback()
            raise
        try:
            self.execute("COMMIT")  # still inside: on a new connection it would say that all is well
        finally:
            self._depth = 0

    @contextmanager
    def _pipeline(self) -> Iterator[None]:
        """Statements that return nothing are not waited for: the way to the server and back costs more than most of them."""
        try:
            with self.connection.pipeline():
                self._piped = True
                yield
        except self._errors as error:
            raise self._explained(error) from error
        finally:
            self._piped = False

    def _rollback(self) -> None:
        if self.kind == "postgresql" and self.connection.closed:
            return
        try:
            self.connection.execute("ROLLBACK")
        except sqlite3.Error:
            return  # SQLite rolled back by itself (disk full); the first error is the one to report

    def setting(self, key: str, default: str = "") -> str:
        """A fact about the store."""
        rows = self.execute("SELECT value FROM setting WHERE key = ?", (key,))
        return str(rows[0][0]) if rows else default

    def set_setting(self, key: str, value: str) -> None:
        """Remember a fact about the store."""
        self.execute(
            "INSERT INTO setting (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            (key, value),
        )

    def next_seq(self) -> int:
        """The value of the change counter for all that this transaction changes. Commits order changes as readers see them."""
        if self._seq is None:
            rows = self.execute(
                "UPDATE setting SET value = CAST(CAST(value AS BIGINT) + 1 AS TEXT) WHERE key = 'seq' RETURNING value"
            )
            self._seq = int(rows[0][0])
        return self._seq

    def close(self) -> None:
        """Give the connection back."""
        self.connection.close()


def _has_rows(sql: str) -> bool:
    return sql.startswith("SELECT") or " RETURNING " in sql


def _escaped(parameters: Sequence[Any]) -> Row:
    """Parameters for PostgreSQL, whose texts hold every character but NUL: that and our escape become two others."""
    return tuple(
        value.replace("\x01", "\x01\x01").replace("\0", "\x01\x02")
        if type(value) is str and ("\0" in value or "\x01" in value)
        else value
        for value in parameters
    )


def _exact(row: Row) -> Row:
    """A row from PostgreSQL with its texts as they were given."""
    if not any(type(value) is str and "\x01" in value for value in row):
        return row
    return tuple(
        re.sub("\x01(.)", lambda found: "\0" if found[1] == "\x02" else "\x01", value, flags=re.DOTALL)
        if type(value) is str
        else value
        for value in row
    )


def explain(error: sqlite3.Error, where: str) -> Exception:
    """The error of ours that says what to do about one of SQLite's; itself when it is none that a user can help."""
    text = str(error)
    if isinstance(error, sqlite3.DatabaseError) and ("malformed" in text or "not a database" in text):
        return StoreDamaged(
            f"The database {where} is damaged ({text}). 'mltrack doctor' rebuilds it from journals, decisions and backups."
        )
    if "locked" in text or "busy" in text:
        return StoreUnavailable(f"The database {where} is locked by another process. Try again in a moment.")
    if "readonly" in text:
        return ReadOnly(
            f"The database {where} cannot be written by you. Ask its owner, or use a store of your own (--store)."
        )
    if "disk I/O" in text:
        return StoreUnavailable(
            f"The database {where} could not be read or written ({text}): its disk is full, over a quota, or failing. "
            "Free some space or see the system's log; nothing that was logged is lost."
        )
    if "full" in text:
        return StoreUnavailable(
            f"The database {where} cannot grow ({text}). Free some space; nothing that was logged is lost."
        )
    if "unable to open" in text:
        return StoreUnavailable(
            f"The database {where} cannot be opened ({text}). Is its disk full, or not yours?"
        )
    return error


def open_sqlite(path: Path, root: Path, readonly: bool = False) -> Database:
    """Open the SQLite store at ``path``, creating it when it does not exist, race-free for any number of processes."""
    if not path.exists():
        if readonly:
            raise StoreUnavailable(
                f"There is no store at {path.parent}. Log a run first, or name another store (--store)."
            )
        _create_sqlite(path, root)
    filesystem = probe(path.parent)
    notes: tuple[str, ...] = (
        () if filesystem.wal else (f"no WAL: {filesystem.why}; a rollback journal is used",)
    )
    writable = not readonly and os.access(path, os.W_OK)
    try:
        connection = _connect(path, writable)
        version = int(connection.execute("SELECT value FROM setting WHERE key = 'schema'").fetchone()[0])
        if writable and filesystem.wal:
            _set_wal(connection)
    except (sqlite3.Error, TypeError, ValueError) as error:
        if isinstance(error, sqlite3.OperationalError) and "no such table" not in str(error):
            raise explain(error, str(path)) from error
        raise StoreDamaged(
            f"The database {path} cannot be read ({error}). 'mltrack doctor' rebuilds it from journals, decisions and backups."
        ) from error
    if version > SCHEMA_VERSION:
        if not readonly:
            connection.close()
            connection = _connect(path, False)
        notes += (f"written by a newer mltrack (schema {version}): open read-only; update mltrack to write",)
        writable = False
        if version >= 2 * SCHEMA_VERSION + 100:
            raise StoreNewer(
                f"The store {path} has schema {version}, far newer than {SCHEMA_VERSION}. Update mltrack."
            )
    return Database(connection, "sqlite", str(path), not writable, notes)


def _connect(path: Path, writable: bool) -> sqlite3.Connection:
    uri = path.absolute().as_uri() + ("" if writable else "?mode=ro")
    connection = sqlite3.connect(
        uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA cache_size = -32768")
    connection.execute("PRAGMA temp_store = MEMORY")
    return connection


def _set_wal(connection: sqlite3.Connection) -> None:
    """Switch to WAL; SQLite does not wait for locks here, so this does."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            if connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
                return
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            waits = "locked" in str(error) or "busy" in str(error)
            if not waits or time.monotonic() > deadline:
                return  # still correct in rollback mode; another process holds it in use
            time.sleep(0.01)


def lock_folder(root: Path) -> Path:
    """Where the locks of a store lie: in it, or on this machine where its filesystem has none."""
    return root / "locks" if has_locks(root) else node_local(root, "locks")


@contextmanager
def file_lock(root: Path, name: str, wait: bool = True) -> Iterator[bool]:
    """Hold the store-wide lock ``name``; yields whether it was taken (always, when waiting)."""
    folder = lock_folder(root)
    make_folder(folder, root)
    fd = open_file(folder / name, os.O_RDWR | os.O_CREAT, share_mode(root))
    try:
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError:
            if wait:
                raise
            yield False
            return
        yield True
    finally:
        os.close(fd)


def _create_sqlite(path: Path, root: Path) -> None:
    """Build the database under another name and move it into place: nobody ever sees half a schema."""
    try:
        make_folder(path.parent, root)
        with file_lock(root, "create"):
            if path.exists():
                return
            temporary = path.parent / f".{random_hex(12)}.db"
            os.close(open_file(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, share_mode(root)))
            connection = sqlite3.connect(temporary, isolation_level=None)
            try:
                if probe(path.parent).wal:
                    _set_wal(connection)
                connection.executescript("BEGIN EXCLUSIVE;" + schema_sql())
                for key, value in first_settings():
                    connection.execute("INSERT INTO setting (key, value) VALUES (?, ?)", (key, value))
                connection.execute("COMMIT")
            finally:
                connection.close()
            os.rename(temporary, path)
    except OSError as error:
        raise StoreUnavailable(
            f"A store cannot be created at {path.parent} ({error.strerror}). Name a folder you can write: --store DIR or MLTRACK_STORE."
        ) from error
    except sqlite3.Error as error:
        raise StoreUnavailable(f"A store cannot be created at {path.parent} ({error}).") from error


def schema_sql() -> str:
    """The generated schema of an SQLite store."""
    return Path(__file__).with_name("schema.sql").read_text(encoding="utf-8")


def first_settings() -> list[tuple[str, str]]:
    """What a new store knows about itself."""
    return [
        ("schema", str(SCHEMA_VERSION)),
        ("store_id", random_hex(32)),
        ("seq", "0"),
        ("created_ms", str(time.time_ns() // 1_000_000)),
    ]


def open_postgresql(url: str, readonly: bool = False) -> Database:
    """Open (and on first use create) a store in a PostgreSQL database."""
    try:
        import psycopg
    except ImportError:
        raise StoreUnavailable(
            "A PostgreSQL store needs psycopg: pip install 'mltrack-tui[postgres]'."
        ) from None
    # What a pipeline of a lost connection has to say is an error of ours already; without a handler it went to the terminal.
    logging.getLogger("psycopg").addHandler(logging.NullHandler())
    plain = url.replace("postgresql+psycopg://", "postgresql://", 1)

    def connect() -> Any:
        return psycopg.connect(
            plain, autocommit=True, connect_timeout=CONNECT_SECONDS, application_name="mltrack"
        )

    try:
        connection = connect()
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(7203912)")
            made = connection.execute("SELECT to_regclass('setting')").fetchone()
            if made is None or made[0] is None:
                if readonly:
                    raise StoreUnavailable(f"There is no mltrack store in {redact_url(url)} yet.")
                _create_postgresql(connection)
        row = connection.execute("SELECT value FROM setting WHERE key = 'schema'").fetchone()
    except psycopg.Error as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise StoreUnavailable(
            f"The PostgreSQL store {redact_url(url)} cannot be used ({reason})."
        ) from error
    newer = row is not None and int(row[0]) > SCHEMA_VERSION
    database = Database(connection, "postgresql", redact_url(url), readonly or newer)
    database._connect = connect
    return database


def _create_postgresql(connection: Any) -> None:
    from sqlalchemy.dialects import postgresql
    from sqlalchemy.schema import CreateIndex, CreateTable
    from sqlmodel import SQLModel

    from mltrack.store import tables

    assert tables.SCHEMA_VERSION == SCHEMA_VERSION
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    for table in SQLModel.metadata.sorted_tables:
        connection.execute(str(CreateTable(table).compile(dialect=dialect)))
        for index in tables.indexes_of(table, "postgresql"):
            connection.execute(str(CreateIndex(index).compile(dialect=dialect)))
    for key, value in first_settings():
        connection.execute("INSERT INTO setting (key, value) VALUES (%s, %s)", (key, value))

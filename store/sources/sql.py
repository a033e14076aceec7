"""Reading MLflow's tables without disturbing who writes them: SQLite read-only, PostgreSQL in read-only transactions."""

from __future__ import annotations

import errno
import os
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

from mltrack.store.series import Floats, Ints

# How long a statement waits for a writer that has locked the file.
BUSY_SECONDS = 2.0
_SLICE = 500
RawPoints: TypeAlias = tuple[list[str], Ints, Ints, Floats]
"""Keys, times, steps and values of points, in the order they were read."""


class Tables(ABC):
    """A foreign database. Every method raises OSError when it cannot be read now."""

    def __init__(self, where: str) -> None:
        self.where = where
        self._columns: dict[str, tuple[str, ...]] = {}

    @abstractmethod
    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of one statement with ``?`` marks."""

    @abstractmethod
    def close(self) -> None:
        """Give the connection back."""

    @abstractmethod
    def _column_names(self, table: str) -> tuple[str, ...]: ...

    @abstractmethod
    def mark(self) -> object:
        """Changes when anything in the database does; None when that cannot be told."""

    @abstractmethod
    def pages(self, table: str, columns: Sequence[str], size: int) -> Iterator[list[dict[str, Any]]]:
        """All rows of a table, in parts that are read quickly."""

    @abstractmethod
    def last_rows(self, tables: Sequence[str]) -> dict[str, int]:
        """The number of the newest row of each table; empty where rows have none."""

    @abstractmethod
    def runs_behind(self, table: str, number: int) -> set[str]:
        """The runs of rows that are newer than a number."""

    @abstractmethod
    def live_marks(self, runs: Sequence[str]) -> dict[str, str]:
        """For each of these runs something that changes with its points, where rows have no numbers."""

    @abstractmethod
    def points(self, run: str, reached: Any, limit: int) -> Iterator[tuple[RawPoints, Any]]:
        """Points of a run behind ``reached`` (None: all), at most ``limit`` at once, each with how far that is."""

    def moved(self) -> bool:
        """Whether another file lies there now."""
        return False

    def columns(self, table: str) -> tuple[str, ...]:
        """The columns that a table has; none when there is no such table."""
        if table not in self._columns:
            self._columns[table] = self._column_names(table)
        return self._columns[table]

    def rows(
        self, table: str, columns: Sequence[str], condition: str = "", parameters: Sequence[Any] = ()
    ) -> list[dict[str, Any]]:
        """Rows as dicts; columns that this version of MLflow does not have are None."""
        have = [name for name in columns if name in self.columns(table)]
        if not have:
            return []
        # Keys of MLflow's tables are words of SQL in PostgreSQL.
        chosen = ", ".join(f'"{name}"' for name in have)
        missing = dict.fromkeys(name for name in columns if name not in have)
        found = self.query(f"SELECT {chosen} FROM {table} {condition}", parameters)
        return [{**missing, **dict(zip(have, row, strict=True))} for row in found]

    def rows_of(self, table: str, columns: Sequence[str], runs: Sequence[str]) -> Iterator[dict[str, Any]]:
        """The rows of these runs."""
        for start in range(0, len(runs), _SLICE):
            part = list(runs[start : start + _SLICE])
            marks = ", ".join("?" * len(part))
            yield from self.rows(table, columns, f"WHERE run_uuid IN ({marks})", part)

    def inputs(self, run: str) -> Iterator[dict[str, str]]:
        """Name, digest, context and source of each dataset a run used."""
        if not self.columns("inputs") or not self.columns("datasets"):
            return
        found = self.query(
            "SELECT i.input_uuid, d.name, d.digest, d.dataset_source FROM inputs i JOIN datasets d ON d.dataset_uuid = i.source_id"
            " WHERE i.destination_id = ? AND i.source_type = 'DATASET' ORDER BY d.name, i.input_uuid",
            (run,),
        )
        for number, name, digest, source in found:
            tags = self.query("SELECT name, value FROM input_tags WHERE input_uuid = ?", (number,))
            context = str(dict(tags).get("mlflow.data.context", ""))
            yield {"name": str(name), "digest": str(digest), "context": context, "source": str(source or "")}


class SqliteTables(Tables):
    """A file, read-only. Where it is in WAL mode and nobody has it open, opening it as usual would create files beside it:
    then it is read as a file that does not change."""

    def __init__(self, where: str) -> None:
        super().__init__(where)
        status = os.stat(where)
        self._file = (status.st_dev, status.st_ino)
        with open(where, "rb") as file:
            head = file.read(20)
        if not head.startswith(b"SQLite format 3\0"):
            raise OSError(errno.EINVAL, "is no SQLite database", where)
        wal = head[18:19] == b"\x02" and not os.path.exists(f"{where}-wal")
        quoted = where.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
        uri = f"file:{quoted}?mode=ro{'&immutable=1' if wal else ''}"
        try:
            self._connection = sqlite3.connect(
                uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._connection.text_factory = lambda data: data.decode("utf-8", "replace")
        except sqlite3.Error as error:
            raise OSError(errno.EIO, str(error), where) from error

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise OSError(errno.EIO, str(error), self.where) from error

    def close(self) -> None:
        self._connection.close()

    def moved(self) -> bool:
        status = os.stat(self.where)
        return (status.st_dev, status.st_ino) != self._file

    def _column_names(self, table: str) -> tuple[str, ...]:
        return tuple(str(row[1]) for row in self.query(f"PRAGMA table_info({table})"))

    def mark(self) -> object:
        status = os.stat(self.where)
        version = self.query("PRAGMA data_version")[0][0]
        return (status.st_size, status.st_mtime_ns, version)

    def pages(self, table: str, columns: Sequence[str], size: int) -> Iterator[list[dict[str, Any]]]:
        last = -1
        while True:
            limit = self.query(
                f"SELECT max(rowid) FROM (SELECT rowid FROM {table} WHERE rowid > ? ORDER BY rowid LIMIT ?)",
                (last, size),
            )[0][0]
            if limit is None:
                return
            yield self.rows(table, columns, "WHERE rowid > ? AND rowid <= ?", (last, limit))
            last = int(limit)

    def last_rows(self, tables: Sequence[str]) -> dict[str, int]:
        return {name: int(self.query(f"SELECT max(rowid) FROM {name}")[0][0] or 0) for name in tables}

    def runs_behind(self, table: str, number: int) -> set[str]:
        found = self.query(f"SELECT DISTINCT run_uuid FROM {table} WHERE rowid > ?", (number,))
        return {str(row[0]) for row in found}

    def live_marks(self, runs: Sequence[str]) -> dict[str, str]:
        return {}

    def points(self, run: str, reached: Any, limit: int) -> Iterator[tuple[RawPoints, Any]]:
        last = reached if type(reached) is int else -1
        step = "step" if "step" in self.columns("metrics") else "0"
        nan = "is_nan" if "is_nan" in self.columns("metrics") else "0"
        while True:
            found = self.query(
                f"SELECT rowid, key, timestamp, {step}, value, {nan} FROM metrics WHERE run_uuid = ? AND rowid > ? ORDER BY rowid LIMIT ?",
                (run, last, limit),
            )
            if not found:
                return
            last = int(found[-1][0])
            yield _columns([row[1:] for row in found]), last
            if len(found) < limit:
                return


class PostgresTables(Tables):
    """A database behind a URL, in read-only mode."""

    def __init__(self, where: str) -> None:
        super().__init__(where)
        try:
            import psycopg
        except ImportError:
            raise OSError(errno.ENOENT, "needs psycopg: pip install 'mltrack-tui[postgres]'", where) from None
        self._error = psycopg.Error
        try:
            self._connection = psycopg.connect(
                where.replace("postgresql+psycopg2://", "postgresql://").replace(
                    "postgresql+psycopg://", "postgresql://"
                ),
                autocommit=True,
                connect_timeout=5,
                options="-c default_transaction_read_only=on -c statement_timeout=30000",
            )
        except psycopg.Error as error:
            raise OSError(errno.EIO, _first_line(error), where) from error

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(
                sql.replace("%", "%%").replace("?", "%s").encode(), tuple(parameters)
            ).fetchall()
        except self._error as error:
            raise OSError(errno.EIO, _first_line(error), self.where) from error

    def close(self) -> None:
        self._connection.close()

    def moved(self) -> bool:
        return self._connection.closed

    def _column_names(self, table: str) -> tuple[str, ...]:
        found = self.query(
            "SELECT column_name FROM information_schema.columns WHERE table_name = ? AND table_schema = ANY (current_schemas(false))",
            (table,),
        )
        return tuple(str(row[0]) for row in found)

    def mark(self) -> object:
        found = self.query(
            "SELECT coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), -1) FROM pg_stat_user_tables WHERE relname IN"
            " ('runs', 'metrics', 'params', 'tags', 'experiments', 'inputs')"
        )
        return None if int(found[0][0]) < 0 else int(found[0][0])

    def pages(self, table: str, columns: Sequence[str], size: int) -> Iterator[list[dict[str, Any]]]:
        yield self.rows(table, columns)  # readers lock nothing out here

    def last_rows(self, tables: Sequence[str]) -> dict[str, int]:
        return {}

    def runs_behind(self, table: str, number: int) -> set[str]:
        return set()

    def live_marks(self, runs: Sequence[str]) -> dict[str, str]:
        return {
            run: str(self.query("SELECT count(*) FROM metrics WHERE run_uuid = ?", (run,))[0][0])
            for run in runs
        }

    def points(self, run: str, reached: Any, limit: int) -> Iterator[tuple[RawPoints, Any]]:
        total = int(self.query("SELECT count(*) FROM metrics WHERE run_uuid = ?", (run,))[0][0])
        time, key, step, count = (
            reached if isinstance(reached, list) and len(reached) == 4 else (-(1 << 63), "", 0, 0)
        )
        behind = self.query(
            "SELECT count(*) FROM metrics WHERE run_uuid = ? AND (timestamp, key, step) > (?, ?, ?)",
            (run, time, key, step),
        )[0][0]
        if count + int(behind) != total:  # something came with an earlier time: all of it again
            time, key, step, count = -(1 << 63), "", 0, 0
        while count < total:
            found = self.query(
                "SELECT key, timestamp, step, value, is_nan FROM metrics WHERE run_uuid = ? AND (timestamp, key, step) > (?, ?, ?)"
                " ORDER BY timestamp, key, step LIMIT ?",
                (run, time, key, step, limit),
            )
            if not found:
                return
            # Points that differ only in their value must not be torn apart by the limit.
            last = found[-1][1], found[-1][0], found[-1][2]
            if len(found) == limit:
                found = [row for row in found if (row[1], row[0], row[2]) != last] + self.query(
                    "SELECT key, timestamp, step, value, is_nan FROM metrics WHERE run_uuid = ? AND (timestamp, key, step) = (?, ?, ?)",
                    (run, *last),
                )
            time, key, step = last
            count += len(found)
            yield _columns(found), [time, key, step, count]


def open_tables(where: str) -> Tables:
    """The database at a path or behind a postgresql:// URL. Raises OSError."""
    if where.startswith(("postgresql://", "postgresql+psycopg2://", "postgresql+psycopg://", "postgres://")):
        return PostgresTables(where)
    if "://" in where:
        raise OSError(errno.EINVAL, "is no database that can be followed", where)
    if not os.path.isfile(where):
        raise OSError(errno.ENOENT, "is no file", where)
    return SqliteTables(where)


def _columns(rows: Iterable[Sequence[Any]]) -> RawPoints:
    keys, times, steps, values, nans = zip(*rows, strict=True)
    value = np.array([float("nan") if each is None else each for each in values], np.float64)
    value[np.array(nans, np.bool_)] = np.nan
    return (
        list(map(str, keys)),
        np.array(times, np.int64),
        np.array([each or 0 for each in steps], np.int64),
        value,
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__

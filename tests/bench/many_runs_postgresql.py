"""Very many runs in a PostgreSQL store, by hand: rows multiplied in the database, then what ls, the app and a run's page ask.

    python tests/bench/many_runs_postgresql.py make postgresql://... 10000000
    python tests/bench/many_runs_postgresql.py measure postgresql://...

The database must be empty; ten million runs take 40 GB and half an hour. Each has a summary of 20 metrics, 4 params and 2 tags.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from big_store import make_store

from mltrack.store import Store, column_segments, open_store
from mltrack.tui.worker_calls.runs import RunViews

BASE = 10_000
_FILTERED = "eval/metric_03"


def make(url: str, runs: int) -> None:
    """A store of BASE runs, through the store's own encoders, and copies of their rows."""
    make_store(url, BASE, points=2)
    with open_store(url) as store:
        database = store.database
        first, last = (int(value) for value in database.execute("SELECT min(id), max(id) FROM run")[0])
        assert last - first + 1 == BASE
        execute = database.connection.execute
        columns = [
            str(row[0])
            for row in database.execute(
                "SELECT column_name FROM information_schema.columns WHERE table_name = 'run' ORDER BY ordinal_position"
            )
        ]
        other = {
            "id": f"id + n * {BASE}",
            "run_id": "md5(run_id || n)",
            "start_ms": "start_ms + n * 1000",
            "end_ms": "end_ms + n * 1000",
            "name": "name || '-' || n",
        }
        chosen = ", ".join(other.get(name, name) for name in columns)
        # Indexes that are made at the end are made in order.
        indexes = execute(
            "SELECT indexname, indexdef FROM pg_indexes WHERE tablename IN ('run', 'param', 'tag') AND indexname LIKE '%_index'"
        ).fetchall()
        for name, _ in indexes:
            execute(f"DROP INDEX {name}")
        execute("DELETE FROM param WHERE key NOT IN ('lr', 'batch_size', 'optimizer', 'seed')")
        for start in range(1, runs // BASE, 100):
            began = time.monotonic()
            turns = f"generate_series({start}, {min(start + 99, runs // BASE - 1)}) AS n"
            execute(f"INSERT INTO run SELECT {chosen} FROM run, {turns} WHERE id <= {last}")
            for table in ("param", "tag"):
                names = "key, value, stamp"
                execute(
                    f"INSERT INTO {table} (run, {names}) SELECT run + n * {BASE}, {names} FROM {table}, {turns} WHERE run <= {last}"
                )
            print(f"{start + 99} x {BASE:,} runs, {time.monotonic() - began:.0f} s", flush=True)
        for _, definition in indexes:
            execute(str(definition))
        with suppress(Exception):
            execute("SELECT setval(pg_get_serial_sequence('run', 'id'), (SELECT max(id) FROM run))")
        execute("VACUUM ANALYZE")
        print(database.execute("SELECT pg_size_pretty(pg_database_size(current_database()))")[0][0])


def timed(name: str, what: Callable[[], object]) -> None:
    """Print what something costs this process and how long it takes."""
    began, cpu = time.monotonic(), time.process_time()
    found = what()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{name}: {time.process_time() - cpu:.2f} s CPU, {time.monotonic() - began:.2f} s, peak {memory:,.0f} MB  {found}",
        flush=True,
    )


def measure(url: str) -> None:
    """What people wait for, one after the other."""
    with open_store(url) as store:
        timed("stored columns, once", lambda: column_segments.prepare(store.database))
    for _ in range(2):
        with open_store(url) as store:
            _searches(store)
    with open_store(url) as store:
        views = RunViews()
        timed("the app's first rows", lambda: len(views.view(store, first=50)["rows"]))
        timed("again", lambda: len(views.view(store, first=50)["rows"]))


def _searches(store: Store) -> None:
    def found(text: str, *sort: str) -> str:
        return f"{store.search(text, sort=sort, limit=50).total:,} found"

    def filtered() -> str:
        text = f"metrics.`{_FILTERED}` < 0.01 and params.lr < 0.001"
        return found(text, "metrics.`eval/metric_04`")

    timed("ls, the first of a process", lambda: found(""))
    timed("again", lambda: found(""))
    timed("a filter by a metric and a param, sorted by another metric", filtered)
    timed("again", filtered)
    (run_id,) = store.search("", limit=1).run_ids
    timed("a run's page", lambda: (store.run(run_id).name, store.details(run_id) is not None))
    store.set_tags([run_id], {"seen": str(time.time())})
    timed("ls after a change", lambda: found(""))


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(sys.argv[2], int(sys.argv[3]))
    else:
        measure(sys.argv[2])

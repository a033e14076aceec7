"""What tests of the store share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mltrack.store import open_store
from mltrack.store.database import Database, open_postgresql
from mltrack.store.records import Run
from mltrack.store.store import Store


@pytest.fixture
def postgres(postgres_url: str) -> Iterator[Callable[[], Database]]:
    """A store in PostgreSQL that each call empties: properties try many, and making a database takes long."""
    database = open_postgresql(postgres_url)

    def emptied() -> Database:
        tables = database.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        names = ", ".join(str(table) for (table,) in tables if table != "setting")
        database.execute(f"TRUNCATE {names} RESTART IDENTITY CASCADE")
        database.execute("DELETE FROM setting WHERE key NOT IN ('schema', 'store_id', 'created_ms', 'seq')")
        database.set_setting("seq", "0")
        return database

    yield emptied
    database.close()


@pytest.fixture
def store(store_root: Path) -> Iterator[Store]:
    """An empty store."""
    with open_store() as opened:
        yield opened


@pytest.fixture
def follow(store: Store) -> Callable[[Path], dict[str, Run]]:
    """Takes in all that a source has now; the store's runs by name."""

    def read(path: Path) -> dict[str, Run]:
        if str(path) not in {source.path for source in store.sources()}:
            store.add_source(str(path))
        store.read_source(str(path))
        return {run.name: run for run in store.runs(store.search("", limit=1000).run_ids)}

    return read

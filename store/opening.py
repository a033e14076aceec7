"""Opening the store that is meant: a folder's, a database's, a server's, or one of somebody else that is followed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from mltrack.store.client.location import LocationError, StoreChoice, choose_store
from mltrack.store.client.secrets import redact_url
from mltrack.store.database import SCHEMA_VERSION, Database, open_postgresql, open_sqlite
from mltrack.store.decision_file import catch_up
from mltrack.store.errors import BadInput
from mltrack.store.filesystem import cache_folder, digest_of, has_locks, node_local
from mltrack.store.records import Location
from mltrack.store.store import Store

DATABASE_FILE = "mltrack.db"
DATABASE_FOLDER = "MLTRACK_DATABASE_FOLDER"
"""Environment variable: keep the rebuildable database in this node-local folder, journals and decisions in the store."""


def open_store(
    where: str | None = None, *, readonly: bool = False, say: Callable[[str], object] | None = None
) -> Store:
    """Open the store ``where`` (a folder or postgresql:// URL; default: the documented order), creating it on first use.

    ``say`` is told, in a sentence and before it begins, of work that may take minutes.
    """
    try:
        choice = choose_store(where)
    except LocationError as error:
        raise BadInput(str(error)) from None
    if choice.url.startswith(("http://", "https://")):
        return _open_server(choice)
    if not choice.is_remote and choice.root.is_dir() and not os.access(choice.root, os.W_OK | os.X_OK):
        return _follow(choice)
    database = _open_database(choice, readonly, say or (lambda sentence: None))
    notes = database.notes
    if not choice.is_remote and not has_locks(choice.root):
        notes += (
            f"{choice.root} has no working locks: its database is kept on this machine, in {database.where}; "
            "journals and decisions stay with the store",
        )
    location = Location(choice.root, redact_url(database.where), database.kind, choice.chosen_by, notes)
    store = Store(database, choice.root, location)
    store.address = choice.url
    if not database.readonly and database.kind == "sqlite":
        catch_up(database, choice.root)
    return store


def _follow(choice: StoreChoice) -> Store:
    """A store we may read but not write: its journals and decisions, folded into a database of our own."""
    folder = cache_folder() / "followed" / digest_of(str(choice.root))
    database = open_sqlite(folder / DATABASE_FILE, folder)
    note = f"{choice.root} is not yours to write: it is followed, and shown from {folder}; nothing can be changed here"
    location = Location(choice.root, database.where, database.kind, choice.chosen_by, (*database.notes, note))
    catch_up(database, choice.root)
    return Store(database, choice.root, location, followed=folder)


def _open_server(choice: StoreChoice) -> Store:
    """An MLflow server: followed into a database of our own."""
    from mltrack.store.remote import RemoteStore

    address = choice.url.rstrip("/")
    folder = cache_folder() / "servers" / digest_of(address)
    database = open_sqlite(folder / DATABASE_FILE, folder)
    shown = redact_url(address)
    note = (
        f"{shown} is an MLflow server: what it has is shown from {folder}, what you change is changed there"
    )
    location = Location(folder, shown, database.kind, choice.chosen_by, (*database.notes, note))
    return RemoteStore(database, folder, location, address)


def database_path(choice: StoreChoice) -> Path:
    """Where the database of a store in a folder lies: in it, or node-locally.

    That is where MLTRACK_DATABASE_FOLDER says so, and where the store's filesystem has no locks, without which two processes
    would write into it at once.
    """
    local = os.environ.get(DATABASE_FOLDER)
    if not local:
        lockless = not has_locks(choice.root)
        return (node_local(choice.root, "databases") if lockless else choice.root) / DATABASE_FILE
    return Path(local) / f"{digest_of(str(choice.root))}.db"


def _open_database(choice: StoreChoice, readonly: bool, say: Callable[[str], object]) -> Database:
    if choice.is_remote:
        database = open_postgresql(choice.url, readonly)
        if readonly or int(database.setting("schema")) >= SCHEMA_VERSION:
            return database
        from mltrack.store.migrate import migrate_postgresql

        database.close()
        say("The store is brought to the format of this version, once.")
        migrate_postgresql(choice.url)
        return open_postgresql(choice.url, readonly)
    path = database_path(choice)
    database = open_sqlite(path, choice.root, readonly)
    if database.readonly or int(database.setting("schema")) >= SCHEMA_VERSION:
        return database
    from mltrack.store.migrate import migrate

    database.close()
    size = f"{path.stat().st_size / 1e6:,.0f} MB"
    say(
        f"The store is brought to the format of this version, once; its database ({size}) is copied to backups first."
    )
    migrate(path, choice.root)
    return open_sqlite(path, choice.root, readonly)

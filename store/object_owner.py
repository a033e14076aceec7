"""Which store an address in an object store belongs to, so that a copy of a store cannot remove what the first one needs.

The first who sends there leaves a marker. A copied folder, a restored backup or a synced machine knows the same runs, but is another
store: it may read and send, and removes nothing. Whether it has taken the first one's place only a person can know.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import orjson

from mltrack.store.client import host
from mltrack.store.client.journal import make_folder, open_file, random_hex, share_mode
from mltrack.store.database import Database
from mltrack.store.errors import NotFound, StoreUnavailable
from mltrack.store.object_store import ObjectStore

MARKER = "mltrack-owner.json"
FILE = "artifacts.id"
"""In a store's folder: an id of its own. The file's inode belongs to it, which no copy has; every machine that shares the folder
sees the same one."""
_SETTING = "artifact_store_id"
_MOST_BYTES = 4096


def identity(database: Database, root: Path) -> str:
    """The id of this very store, made when it has none. Raises StoreUnavailable when it cannot be kept."""
    if database.kind != "sqlite":
        with database.transaction():
            found = database.setting(_SETTING, "") or random_hex(32)
            database.set_setting(_SETTING, found)
        # A dump that is restored beside the first one lies in another database.
        (oid,) = database.execute("SELECT oid FROM pg_database WHERE datname = current_database()")[0]
        (told,) = database.execute("SELECT has_function_privilege('pg_control_system()', 'execute')")[0]
        rows = database.execute("SELECT system_identifier FROM pg_control_system()") if told else [("",)]
        return f"{found}-{rows[0][0]}-{oid}"
    path = root / FILE
    try:
        if not path.exists():
            make_folder(root, root)
            part = root / f".{random_hex(12)}.part"
            try:
                with os.fdopen(
                    open_file(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, share_mode(root)), "w"
                ) as file:
                    file.write(random_hex(32))
                os.link(part, path)
            except FileExistsError:
                pass  # another one was faster
            finally:
                part.unlink(missing_ok=True)
        return f"{path.read_text('ascii')[:64]}-{path.stat().st_ino}"
    except (OSError, UnicodeDecodeError) as error:
        raise StoreUnavailable(f"{path} cannot be written or read ({error}).") from error


def stranger(objects: ObjectStore, ours: str, root: Path, dry: bool = False) -> str:
    """A sentence when an address belongs to another store, "" when it is ours: whoever comes first leaves the marker, but not when
    ``dry``. Raises StoreUnavailable."""
    found = _read(objects)
    if found is None and not dry:
        said = {"store": ours, "folder": str(root), "host": host.identity().get("host")}
        with tempfile.TemporaryFile() as file:
            file.write(orjson.dumps(said))
            file.seek(0)
            objects.put(file, MARKER)
        found = _read(objects)
    if found is None or found.get("store") == ours:
        return ""
    return (
        f"{objects.shown} belongs to another store ({str(found.get('folder'))[:200]} on {str(found.get('host'))[:200]}):"
        " nothing is removed there from here."
        f" If this store has taken that one's place, remove {MARKER} there."
    )


def _read(objects: ObjectStore) -> dict[str, object] | None:
    try:
        said = orjson.loads(objects.head(MARKER, _MOST_BYTES)[0])
    except NotFound:
        return None
    except orjson.JSONDecodeError:
        return {}
    return said if isinstance(said, dict) else {}

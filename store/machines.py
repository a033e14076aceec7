"""Stores of other machines that are followed: where their mirrors lie, which cannot be reached, and where a run's files are."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from mltrack.store.filesystem import cache_folder, digest_of
from mltrack.store.ssh_address import SCHEME, remote_of

if TYPE_CHECKING:
    from mltrack.store.database import Database
    from mltrack.store.far_files import FarFiles
    from mltrack.store.records import Run

STATE = "mirror.json"
"""In a mirror: what it says of itself (store/mirror.py)."""


def mirror_folder(address: str) -> Path:
    """Where the mirror of an address lies."""
    return cache_folder() / "mirrors" / digest_of(address)


def mirror_state(address: str) -> dict[str, Any]:
    """What a mirror says of itself; {} before it has said anything."""
    try:
        state = orjson.loads((mirror_folder(address) / STATE).read_bytes())
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def trouble_of(address: str) -> str:
    """Why nothing comes from there, as a sentence; "" when nothing is known to be wrong."""
    problem = str(mirror_state(address).get("problem") or "")
    return f"{problem}; what was read before is shown" if problem else ""


def place_over_there(address: str, run_id: str) -> str:
    """A run's folder as `scp` and `rsync` name it, HOST:PATH; "" for a run that is on no other machine."""
    if not address.startswith(SCHEME):
        return ""
    remote = remote_of(address)
    assert remote is not None
    root = str(mirror_state(address).get("root") or remote.path)
    return f"{remote.host}:{root}/runs/{run_id[:2]}/{run_id}"


def files_over_there(run: Run) -> FarFiles | None:
    """Who fetches the files of a run from the machine that it is on; None for a run that is on no other machine."""
    if not run.source.startswith(SCHEME):
        return None
    from mltrack.store.far_files import far_files

    return far_files(run.source)


def _followed(database: Database) -> list[str]:
    rows = database.execute(
        "SELECT path FROM source WHERE kind = 'ssh' AND followed = 1 AND hidden = 0 ORDER BY added_ms, path"
    )
    return [str(path) for (path,) in rows]


def absent_machines(database: Database) -> dict[str, str]:
    """Why nothing comes from those that cannot be reached: a sentence by address."""
    return {address: sentence for address in _followed(database) if (sentence := trouble_of(address))}


def await_machines(database: Database, seconds: float) -> list[str]:
    """Wait until what is there now has come, or it is known why not. Addresses of which more is to come after that."""
    if database.readonly or not (addresses := _followed(database)):
        return []
    from mltrack.store.sources.ssh_store import SshReader

    until = time.monotonic() + seconds
    readers = [SshReader(address) for address in addresses]
    for reader in readers:
        reader.ask()  # all at once
    return [reader.where for reader in readers if not reader.await_first(until - time.monotonic())]

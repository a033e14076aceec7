"""Taking in runs whose journals lie elsewhere: a spool, a copied store, a run folder that came by rsync."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from mltrack.store.client.journal import make_folder, random_hex, run_folder, share_mode
from mltrack.store.client.location import choose_store
from mltrack.store.client.shipping import START_SECONDS, start_uploader
from mltrack.store.copies import destination
from mltrack.store.database import file_lock
from mltrack.store.errors import BadInput, StoreUnavailable
from mltrack.store.journal_reader import file_kind
from mltrack.store.opening import open_store
from mltrack.store.records import FoldReport
from mltrack.store.store import Store

SHIP_SECONDS = 0.5
RECONNECT_SECONDS = 5.0
# A run alone costs a transaction; more of them than this at once would only keep others waiting for the fold's lock.
FOLDERS_AT_ONCE = 200
# A shipper that has had nothing to send for this long ends; the next run starts another.
SHIP_IDLE_SECONDS = 60.0
# A training that wakes up to log is let in at once. More than this, and a box without a free processor would hardly send.
NICE = 5


def journal_folders(path: Path) -> Iterator[Path]:
    """Every folder at or below ``path`` that holds journals, links not followed."""
    if not path.is_dir():
        raise BadInput(f"{path} is not a folder. Name a run folder, a spool, or a store.")
    for base, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if name not in (".git", "artifacts", "blobs"))
        if any(file_kind(name.removesuffix(".zst")) for name in names):
            yield Path(base)


def sync(store: Store, path: Path) -> FoldReport:
    """Fold every run at or below ``path`` and keep a copy of its files in the store. Doing it again takes only what is new."""
    records = points = skipped = pending = 0
    damaged: list[str] = []
    folders = journal_folders(path)
    while some := list(islice(folders, FOLDERS_AT_ONCE)):
        for folder in some:
            own = run_folder(store.root, folder.name)
            if (
                len(folder.name) == 32
                and store.database.kind == "sqlite"
                and own.resolve() != folder.resolve()
            ):
                adopt(folder, own, store.root)
        report = store.fold_folder(*some)
        records += report.records
        points += report.points
        skipped += report.skipped
        pending += report.pending_bytes
        damaged += report.damaged
    return FoldReport(records, points, skipped, pending, tuple(damaged))


def adopt(folder: Path, own: Path, root: Path) -> None:
    """Bring the files of a run folder into the store's own: what is missing there, and journals that have grown."""
    for base, _, names in os.walk(folder):
        target = own / Path(base).relative_to(folder)
        for name in names:
            source, destination = Path(base) / name, target / name
            if name.startswith(".") or not source.is_file() or source.is_symlink():
                continue
            grown = (
                file_kind(name) is not None
                and destination.exists()
                and source.stat().st_size > destination.stat().st_size
            )
            if destination.exists() and not grown:
                continue
            make_folder(target, root)
            part = target / f".{random_hex(12)}.part"
            try:
                shutil.copyfile(source, part)
                os.chmod(part, share_mode(root))
                os.replace(part, destination)
            finally:
                part.unlink(missing_ok=True)
    bodies = folder.parent.parent.parent / "blobs"
    if bodies.is_dir() and (bodies.parent / "runs").is_dir():
        for body in bodies.glob("*/*"):
            destination = root / "blobs" / body.parent.name / body.name
            if not destination.exists():
                make_folder(destination.parent, root)
                part = destination.with_name(f".{random_hex(12)}.part")
                try:
                    shutil.copyfile(body, part)
                    os.chmod(part, share_mode(root))
                    os.replace(part, destination)
                finally:
                    part.unlink(missing_ok=True)


def ship(where: str) -> None:
    """Send the spool of a remote store until nothing is open in it any more: the detached companion of a training, which gives way
    to it."""
    with suppress(OSError):
        os.nice(NICE)
    choice = choose_store(where)
    if choice.url.startswith(("http://", "https://")):
        from mltrack.store.ship_http import ship_to_server

        ship_to_server(choice.url, choice.root)
        return
    root = choice.root
    while True:
        with file_lock(root, "ship", wait=False) as mine:
            if not mine:
                return  # another shipper of this spool is at work, and looks once more after it has let go
            idle_since = time.monotonic()
            while time.monotonic() - idle_since < SHIP_IDLE_SECONDS:
                try:
                    with open_store(where) as store:
                        idle_since = _send_until_idle(store, idle_since)
                except StoreUnavailable:
                    # Away for now: the journals wait, and so does this process, as long as somebody still writes.
                    if any((root / "open").glob("*.*")):
                        idle_since = time.monotonic()
                    time.sleep(RECONNECT_SECONDS)
        # A run that began between the last look and letting go of the lock started no companion of its own.
        if not any((root / "open").glob("*.*")):
            return


def _send_until_idle(store: Store, idle_since: float) -> float:
    started = -START_SECONDS
    while time.monotonic() - idle_since < SHIP_IDLE_SECONDS:
        report = store.refresh(5.0)
        # Artifacts have a companion of their own: a large one must not keep points waiting.
        if report.records and time.monotonic() - started >= START_SECONDS:
            if destination(store.database, store.root).addresses():
                start_uploader(store.address, lambda sentence: None)
                started = time.monotonic()
        if report.records or report.points or any((store.root / "open").glob("*.*")):
            idle_since = time.monotonic()
        time.sleep(SHIP_SECONDS)
    return idle_since


if __name__ == "__main__":
    ship(sys.argv[1] if len(sys.argv) > 1 else os.environ["MLTRACK_STORE"])

"""Artifacts whose bytes lie in an object store: which those are, what they hold, and bringing them here for who needs files.

What is listed comes from the database, so that a listing never waits for a network.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import orjson

from mltrack.store.client import host
from mltrack.store.client.artifacts import artifact_path
from mltrack.store.client.destination import (
    FILE,
    Destination,
    DestinationError,
    object_name,
    parse,
    read,
    to_text,
)
from mltrack.store.client.journal import Journal, make_folder, open_file, random_hex, run_folder, share_mode
from mltrack.store.client.values import Refused
from mltrack.store.database import Database
from mltrack.store.errors import BadInput, MltrackError, StoreDamaged, StoreUnavailable
from mltrack.store.filesystem import cache_folder
from mltrack.store.model_files import Files, proxied_path, run_of
from mltrack.store.object_owner import identity, stranger
from mltrack.store.object_store import open_objects
from mltrack.store.questions import Questions

if TYPE_CHECKING:
    from mltrack.store.store import Store

ROLE = "upload"
"""Role of the journals that say where artifacts lie: their attempt is none of the run's."""
ATTEMPT = "0000000000000-upload"
HEAD_BYTES = 4 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
# What was brought here and not asked for in this time goes with the next clean-up.
KEPT_DAYS = 30


@dataclass(frozen=True, slots=True)
class Copy:
    """An artifact in an object store: what was logged, and below which address it lies."""

    run_id: str
    path: str
    size: int
    sha256: str
    place: str

    @property
    def name(self) -> str:
        """Its object, below the address."""
        return object_name(self.run_id, self.path, self.sha256)

    @property
    def address(self) -> str:
        """Where it lies, for people."""
        return f"{self.place}/{self.name}"


@dataclass(frozen=True, slots=True)
class CopyHead:
    """The beginning of an object. ``waiting``: it has not come yet; ``problem``: why it does not."""

    data: bytes = b""
    waiting: bool = False
    problem: str = ""


def destination(database: Database, root: Path) -> Destination:
    """Where a store's artifacts go. Raises BadInput when what it says cannot be used."""
    try:
        if database.kind == "sqlite":
            return read(root)
        return parse(database.setting(FILE), "What the store says of artifacts")
    except DestinationError as error:
        raise BadInput(str(error)) from None


def set_destination(database: Database, root: Path, chosen: Destination) -> None:
    """Say where a store's artifacts go from now on; those that are here already follow. What lies at earlier addresses is found."""
    former = destination(database, root).trusted() | set(chosen.former)
    text = to_text(replace(chosen, former=tuple(sorted(former - set(chosen.addresses())))))
    if database.kind != "sqlite":
        with database.transaction():
            database.set_setting(FILE, text)
        return
    make_folder(root, root)
    part = root / f".{random_hex(12)}.part"
    try:
        fd = open_file(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, share_mode(root))
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(part, root / FILE)
    except OSError as error:
        raise StoreUnavailable(f"{root / FILE} cannot be written ({error.strerror}).") from error
    finally:
        part.unlink(missing_ok=True)


def is_plain(path: str, sha256: str) -> bool:
    """Whether a recorded path names something below the artifacts of its run, and nothing else, and the digest is one: a journal
    can say anything."""
    plain = bool(path) and "\0" not in path and not {"", ".", ".."} & set(path.split("/"))
    return plain and _SHA256.match(sha256) is not None


def copies(database: Database, root: Path, run_id: str, below: str = "") -> list[Copy]:
    """The artifacts of a run that have a proven copy at an address of this store, in order of their paths."""
    rows = database.execute(
        "SELECT a.path, a.size, a.sha256, c.place FROM artifact a JOIN run r ON r.id = a.run JOIN artifact_copy c"
        " ON c.run = a.run AND c.path = a.path AND c.sha256 = a.sha256 WHERE r.run_id = ? AND c.place <> '' ORDER BY a.path",
        (run_id,),
    )
    found = [
        Copy(run_id, str(path), int(size), str(sha256), str(place)) for path, size, sha256, place in rows
    ]
    trusted = destination(database, root).trusted() if found else set()
    return [
        copy
        for copy in found
        if copy.place in trusted
        and is_plain(copy.path, copy.sha256)
        and (not below or copy.path.startswith(f"{below}/"))
    ]


def away(database: Database, root: Path, run_id: str, below: str = "") -> list[Copy]:
    """Those of them whose files are not here."""
    folder = run_folder(root, run_id) / "artifacts"
    return [copy for copy in copies(database, root, run_id, below) if not os.path.lexists(folder / copy.path)]


def place_of_source(source: str) -> tuple[str, str] | None:
    """(run, path below its artifacts) of a source that names artifacts of a run."""
    run_id = run_of(source)
    if run_id is None:
        return None
    path = proxied_path(source)
    try:
        return run_id, str(artifact_path(unquote(path) if source.startswith("mlf") else path))
    except Refused:
        return None


def manifest(database: Database, root: Path, source: str) -> Files | None:
    """The files of a source of which some lie only in an object store, as they were logged; None when all are here."""
    found = place_of_source(source)
    if found is None or not away(database, root, *found):
        return None
    run_id, below = found
    rows = database.execute(
        "SELECT a.path, a.size, a.sha256 FROM artifact a JOIN run r ON r.id = a.run WHERE r.run_id = ? ORDER BY a.path",
        (run_id,),
    )
    listed = [(str(path), int(size), str(sha256)) for path, size, sha256 in rows]
    return [
        [path[len(below) + 1 :], size, sha256]
        for path, size, sha256 in listed
        if path.startswith(f"{below}/") and is_plain(path, sha256)
    ]


def bring(database: Database, root: Path, source: str) -> Path | None:
    """A folder on this machine with all files of a source of which some lie only in an object store: what is here is linked or
    copied, the rest fetched and compared. None when all are here anyway.

    Raises StoreUnavailable when the object store cannot be reached, StoreDamaged when it hands out other bytes.
    """
    found = place_of_source(source)
    missing = [] if found is None else away(database, root, *found)
    files = manifest(database, root, source) if missing else None
    if found is None or files is None:
        return None
    run_id, below = found
    folder = run_folder(root, run_id) / "artifacts" / below
    far = {copy.path[len(below) + 1 :]: copy for copy in missing}
    target = cache_folder() / "artifacts" / hashlib.sha256(orjson.dumps(files)).hexdigest()[:32]
    for name, size, digest in files:
        path = target / str(name)
        if path.exists() and path.stat().st_size == size:
            continue
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = path.with_name(f".{random_hex(12)}.part")
        try:
            if str(name) in far:
                fetch(far[str(name)], part)
            else:
                _take(folder / str(name), part, str(digest))
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    os.utime(target)
    return target


def fetch(copy: Copy, path: Path) -> None:
    """Write an object to a new file, compared with what was logged. Raises StoreUnavailable, NotFound or StoreDamaged."""
    digest = hashlib.sha256()
    with path.open("xb") as file:
        for block in open_objects(copy.place).stream(copy.name):
            digest.update(block)
            file.write(block)
    if digest.hexdigest() != copy.sha256:
        path.unlink()
        raise StoreDamaged(f"{copy.address} is not what was logged: its bytes have another sha256.")


def remove_copies(store: Store, found: list[Copy]) -> None:
    """Remove objects, and note in their runs' journals that they are gone. Those at an address of another store stay there. Raises
    StoreUnavailable."""
    ours_is = identity(store.database, store.root)
    for ours in by_run(found):
        remove_objects(ours, ours_is, store.root)
        note_removed(store, ours[0].run_id, [(copy.path, copy.sha256) for copy in ours])


def by_run(found: list[Copy]) -> list[list[Copy]]:
    """Copies of one run each."""
    runs: dict[str, list[Copy]] = {}
    for copy in found:
        runs.setdefault(copy.run_id, []).append(copy)
    return list(runs.values())


def remove_objects(found: list[Copy], ours_is: str, root: Path) -> None:
    """Remove objects but for those at an address of another store than ``ours_is``. It waits for a network, and wants no database:
    any thread may do it. Raises StoreUnavailable."""
    for place in sorted({copy.place for copy in found}):
        objects = open_objects(place)
        if not stranger(objects, ours_is, root):
            objects.remove([copy.name for copy in found if copy.place == place])


def note_removed(store: Store, run_id: str, files: list[tuple[str, str]]) -> None:
    """Note in a run's journal that these files (path, sha256) have no copy any more."""
    journal = Journal(store.root, run_id, ATTEMPT, role=ROLE, identity=host.identity())
    for path, sha256 in files:
        journal.meta("artifact_copy", path=path, sha256=sha256, place="")
    journal.meta("close", points=0)
    journal.close()
    store.fold_folder(run_folder(store.root, run_id))


def forget_brought(dry: bool) -> tuple[int, int]:
    """Remove what was brought here long ago: (how many models or folders, bytes)."""
    count = size = 0
    old = time.time() - KEPT_DAYS * 86400
    for folder in sorted((cache_folder() / "artifacts").glob("*")):
        with suppress(OSError):
            if folder.stat().st_mtime < old:
                count += 1
                size += sum(path.lstat().st_size for path in folder.rglob("*"))
                if not dry:
                    shutil.rmtree(folder, ignore_errors=True)
    return count, size


class CopyHeads:
    """The beginnings of objects, fetched by threads: nobody waits for an object store longer than they want."""

    def __init__(self) -> None:
        self._questions = Questions("object-heads")

    def head(self, copy: Copy, seconds: float) -> CopyHead:
        """The first HEAD_BYTES of an object, as far as they come within ``seconds``."""

        def read() -> bytes:
            try:
                return open_objects(copy.place).head(copy.name, HEAD_BYTES)[0]
            except MltrackError as error:
                raise ValueError(error.message) from error

        asked = self._questions.ask((copy.address, copy.sha256), read, seconds)
        if not asked.done.is_set():
            return CopyHead(waiting=True)
        return CopyHead(problem=asked.problem) if asked.problem else CopyHead(asked.answer)


def _take(source: Path, part: Path, digest: str) -> None:
    shutil.copyfile(source, part, follow_symlinks=False)
    with part.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != digest:
            raise StoreDamaged(f"{source} is not what was logged: its bytes have another sha256.")


def stream(copy: Copy) -> Iterator[bytes]:
    """An object's bytes, the first of them fetched at once, so that what is wrong is known before anything is answered."""
    pieces = open_objects(copy.place).stream(copy.name)
    first = next(pieces, b"")

    def rest() -> Iterator[bytes]:
        yield first
        yield from pieces

    return rest()

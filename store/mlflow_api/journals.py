"""/api/mltrack/1/: journals and files of runs that were logged elsewhere, taken from the spool of our own client.

Bytes are appended at the offset they have in the sender's file and compared where they are here already: sending a piece again,
from whatever place, changes nothing. What they say is folded as if a process of this machine had written it.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import re
import stat
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import orjson

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from mltrack.store.client.journal import make_folder, run_folder, share_mode
from mltrack.store.copies import Copy, copies
from mltrack.store.journal_reader import file_kind
from mltrack.store.mlflow_api.api import Answer, Api
from mltrack.store.mlflow_api.artifacts import Place, split
from mltrack.store.mlflow_api.validate import check_run_id
from mltrack.store.mlflow_api.wire import ApiError, Fields, invalid, missing
from mltrack.store.sharing import SENDER

PREFIX = "/api/mltrack/1/"
_FILE = re.compile(r"[A-Za-z0-9_][\w.-]{0,150}\Z", re.ASCII)
_MARKER = re.compile(r"([0-9a-f]{16})\.([0-9a-f]{32})\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_HEADER_BYTES = 65536


def append(api: Api, path: str, offset: str, digest: str, body: bytes, sender: str = "") -> Answer:
    """Append ``body`` at ``offset`` of `<run>/<file>`; the size of the file then. ``sender``: who sends it, when that is known.

    Raises ApiError RESOURCE_CONFLICT when bytes before it are not here yet, or when others are.
    """
    run_id, target = _growing(api, path)
    if not offset.isascii() or not offset.isdecimal() or len(offset) > 18:
        raise invalid("The offset must be a whole number.")
    start = int(offset)
    if not hmac.compare_digest(hashlib.sha256(body).hexdigest(), digest):
        raise invalid("The bytes are not those that their sha256 names; send them again.")
    if api.database.execute("SELECT 1 FROM tombstone WHERE run_id = ?", (run_id,)):
        raise missing(f"The run {run_id} was deleted here for good.")
    kind = file_kind(target.name)
    if kind is not None and start == 0:
        _check_header(body, run_id, kind)
        if sender:
            _note_sender(api.store.root, target.parent, kind[1], sender)
    try:
        size, fresh = _write(api.store.root, target, start, body, f"{kind[1]}.{run_id}" if kind else "")
    except OSError as error:
        raise ApiError(
            "TEMPORARILY_UNAVAILABLE", f"The journal cannot be written ({error.strerror})."
        ) from error
    if fresh and kind is not None:
        api.writers.received(run_id)
    return {"size": size}


def _growing(api: Api, path: str) -> tuple[str, Path]:
    run_id, _, name = path.partition("/")
    check_run_id(run_id)
    if not _FILE.match(name) or name.endswith(".zst") or name.startswith(SENDER):
        raise invalid("Invalid path")
    return run_id, run_folder(api.store.root, run_id) / name


def _note_sender(root: Path, folder: Path, jid: str, sender: str) -> None:
    """Whose journal it is, whatever name it says: the first who sends it."""
    make_folder(folder, root)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(folder / f"{SENDER}{jid}", flags, share_mode(root) & 0o640)
    except FileExistsError:
        return
    except OSError as error:
        raise ApiError(
            "TEMPORARILY_UNAVAILABLE", f"The journal cannot be written ({error.strerror})."
        ) from error
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(sender)


def _check_header(body: bytes, run_id: str, kind: tuple[str, str]) -> None:
    """A journal says in its first line what it is, and that must be what it is sent as."""
    line, newline, _ = body[:_HEADER_BYTES].partition(b"\n")
    try:
        head = orjson.loads(line)
        right = newline and head["run"] == run_id and (head["kind"], head["jid"]) == kind
    except (orjson.JSONDecodeError, KeyError, TypeError):
        right = False
    if not right:
        raise invalid("The first line is not the header of this journal.")


def _write(root: Path, target: Path, start: int, body: bytes, marker: str) -> tuple[int, bool]:
    """The size of the file now, and whether anything was new."""
    make_folder(target.parent, root)
    mode = share_mode(root)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(target, flags, mode)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise invalid("Invalid path")
        fcntl.flock(fd, fcntl.LOCK_EX)
        size = os.fstat(fd).st_size
        if start > size:
            raise ApiError("RESOURCE_CONFLICT", f"There are {size} bytes here; send what follows them.")
        known = min(size - start, len(body))
        if known > 0 and os.pread(fd, known, start) != body[:known]:
            raise ApiError("RESOURCE_CONFLICT", "Other bytes stand here: this is not the same file.")
        rest = memoryview(body)[known:]
        if not rest:
            return size, False
        if marker:
            # The marker first, as with every writer: a follower may see a marker without files, never the reverse.
            make_folder(root / "open", root)
            os.close(os.open(root / "open" / marker, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, mode))
        while rest:
            rest = rest[os.pwrite(fd, rest, size) :]
            size = os.fstat(fd).st_size
        return size, True
    finally:
        os.close(fd)


def beat(api: Api, fields: Fields) -> Answer:
    """The writers of these journals live."""
    for marker in fields.texts("markers"):
        if _MARKER.match(marker):
            with suppress(OSError):
                os.utime(api.store.root / "open" / marker, follow_symlinks=False)
    return {}


def place_of(api: Api, path: str, digest: str) -> Place:
    """Where a whole file goes: `runs/<run>/artifacts/...` or `blobs/<sha256>`."""
    kind, _, rest = path.partition("/")
    if not _SHA256.match(digest):
        raise invalid("A file comes with its sha256.")
    if kind == "blobs" and rest == digest:
        return Place(api.store.root / "blobs", (digest[:2], digest))
    run_id, _, rest = rest.partition("/")
    names = split(rest)
    if kind != "runs" or len(names) < 2 or names[0] != "artifacts":
        raise invalid("Invalid path")
    return Place(run_folder(api.store.root, check_run_id(run_id)) / "artifacts", names[1:])


def stored(api: Api, path: str) -> Path:
    """The file that a question about `runs/<run>/...` or `blobs/<sha256>` is about."""
    kind, _, rest = path.partition("/")
    if kind == "blobs" and _SHA256.match(rest):
        return api.store.root / "blobs" / rest[:2] / rest
    run_id, _, name = rest.partition("/")
    if kind == "runs" and name.startswith("artifacts/"):
        return run_folder(api.store.root, check_run_id(run_id)).joinpath(*split(name))
    if kind != "runs":
        raise invalid("Invalid path")
    return _growing(api, rest)[1]


def copied(api: Api, path: str) -> Copy | None:
    """The recorded copy in an object store of `runs/<run>/artifacts/...`."""
    kind, _, rest = path.partition("/")
    run_id, _, name = rest.partition("/artifacts/")
    if kind != "runs" or not name:
        return None
    return next((copy for copy in copies(api.database, api.store.root, run_id) if copy.path == name), None)


def state(path: Path, copy: Copy | None = None) -> Answer:
    """How much of a file is here, for good, and the sha256 of that: also of a journal that was sealed, and of an artifact that lies
    only in an object store by now. Reads all of it: not for the server's own thread."""
    nothing: Answer = {"size": 0, "sha256": hashlib.sha256().hexdigest(), "exists": False}
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        if copy is not None:
            return {"size": copy.size, "sha256": copy.sha256, "exists": True}
        return _sealed(path) or nothing
    except OSError:
        return nothing
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return nothing
        size, digest = _measured(file)
        # Whoever is told may let go of its own.
        os.fsync(fd)
    with suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return {"size": size, "sha256": digest, "exists": True}


def _sealed(path: Path) -> Answer | None:
    if file_kind(path.name) is None:
        return None
    try:
        fd = os.open(f"{path}.zst", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as packed:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return None
            with zstd.open(packed) as file:
                size, digest = _measured(file)
    except (OSError, EOFError, zstd.ZstdError):
        return None
    return {"size": size, "sha256": digest, "exists": True}


def _measured(file: BinaryIO | zstd.ZstdFile) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    while piece := file.read(1 << 20):
        digest.update(piece)
        size += len(piece)
    return size, digest.hexdigest()


ROUTES: Sequence[tuple[str, str]] = (
    ("PUT", "append/"),
    ("PUT", "file/"),
    ("GET", "state/"),
    ("POST", "beat"),
)

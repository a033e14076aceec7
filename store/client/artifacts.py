"""Putting files into a run: visible only when whole, never a later version of the same file by accident."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mltrack.store.client.journal import make_folder, open_file, random_hex, share_mode
from mltrack.store.client.values import Refused

COPY_BYTES = 1 << 20
# linux/fs.h: share the blocks of a file until one side is written (btrfs, xfs, overlay on them).
FICLONE = 0x40049409


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One artifact as recorded in the journal: path below ``artifacts/``, bytes, digest, and how it came there."""

    path: str
    size: int
    sha256: str
    how: str


def artifact_path(path: str) -> PurePosixPath:
    """A relative path without '..', empty parts or control of where it lands. Raises Refused."""
    try:
        os.fsencode(path)
    except (TypeError, UnicodeEncodeError):
        raise Refused(f"the artifact path {path!r} can be no file's name") from None
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or not pure.parts or "\0" in path:
        raise Refused(f"the artifact path {path!r} must be relative, without '..'")
    return pure


def store_file(source: Path, root: Path, folder: Path, target: str) -> StoredFile:
    """Put the regular file ``source`` at ``folder/target``. Raises Refused for anything but a readable regular file."""
    relative = artifact_path(target)
    try:
        fd = os.open(source, os.O_RDONLY | os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0))
    except OSError as error:
        raise Refused(f"the file {str(source)!r} cannot be read ({error.strerror})") from None
    except ValueError:  # a NUL character, or half of a surrogate pair
        raise Refused(f"the file {str(source)!r} cannot be read (no file has such a name)") from None
    with os.fdopen(fd, "rb") as reader:
        facts = os.fstat(reader.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise Refused(f"{str(source)!r} is not a regular file")
        destination = folder / relative
        make_folder(destination.parent, root)
        temporary = destination.parent / f".{random_hex(12)}.part"
        try:
            # A read-only file will not be rewritten in place, so another name for it is as good as a copy. Anything
            # else may be (a checkpoint saved again under one name): sharing its inode would change the artifact.
            # In a store shared with a group its others must be able to read it, too.
            mode = share_mode(root)
            readable = mode == 0o600 or facts.st_mode & stat.S_IROTH
            if not facts.st_mode & 0o222 and readable and _link(source, temporary):
                how, size, digest = "hardlink", facts.st_size, _digest(reader)
            else:
                how, size, digest = _copy(reader, temporary, mode)
            os.rename(temporary, destination)
        except OSError as error:
            _remove(temporary)
            raise Refused(f"the file {str(source)!r} could not be copied ({error.strerror})") from None
    _sync_folder(destination.parent)
    return StoredFile(str(relative), size, digest, how)


def store_bytes(content: bytes, root: Path, folder: Path, target: str) -> StoredFile:
    """Put ``content`` at ``folder/target``."""
    relative = artifact_path(target)
    destination = folder / relative
    try:
        make_folder(destination.parent, root)
        _write_whole(destination, content, share_mode(root))
    except OSError as error:
        raise Refused(f"the artifact {target!r} could not be written ({error.strerror})") from None
    return StoredFile(str(relative), len(content), hashlib.sha256(content).hexdigest(), "text")


def store_blob(content: bytes, root: Path) -> str:
    """Keep ``content`` once under its sha256 in ``blobs/``; returns the digest. Raises OSError."""
    digest = hashlib.sha256(content).hexdigest()
    path = root / "blobs" / digest[:2] / digest
    try:
        os.utime(path)  # whoever tidies sees that it is named anew
    except FileNotFoundError:
        make_folder(path.parent, root)
        _write_whole(path, content, share_mode(root))
    except PermissionError:
        pass  # it is there, and somebody else's
    return digest


def regular_files(folder: Path) -> list[tuple[Path, str]]:
    """All regular files below ``folder`` as (path, relative posix path), sorted; links and special files left out."""
    found: list[tuple[Path, str]] = []
    for base, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(base) / name
            if stat.S_ISREG(os.lstat(path).st_mode):
                found.append((path, path.relative_to(folder).as_posix()))
    return found


def _write_whole(destination: Path, content: bytes, mode: int) -> None:
    temporary = destination.parent / f".{random_hex(12)}.part"
    try:
        fd = open_file(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(fd, "wb") as writer:
            writer.write(content)
            writer.flush()
            os.fsync(writer.fileno())
        os.rename(temporary, destination)
    except OSError:
        _remove(temporary)
        raise
    _sync_folder(destination.parent)


def _copy(reader: object, temporary: Path, mode: int) -> tuple[str, int, str]:
    fd = open_file(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(fd, "wb") as writer:
        source_fd = reader.fileno()  # type: ignore[attr-defined]
        if _clone(source_fd, writer.fileno()):
            with open(
                temporary, "rb"
            ) as clone:  # what was cloned is what is hashed, whatever happens to the source
                digest = _digest(clone)
            size = os.fstat(writer.fileno()).st_size
            how = "reflink"
        else:
            hasher = hashlib.sha256()
            size = 0
            while block := os.read(source_fd, COPY_BYTES):
                hasher.update(block)
                writer.write(block)
                size += len(block)
            writer.flush()
            digest = hasher.hexdigest()
            how = "copy"
        os.fsync(writer.fileno())
    return how, size, digest


def _digest(reader: object) -> str:
    return hashlib.file_digest(reader, "sha256").hexdigest()  # type: ignore[arg-type]


def _clone(source_fd: int, target_fd: int) -> bool:
    try:
        import fcntl

        fcntl.ioctl(target_fd, FICLONE, source_fd)
    except (ImportError, OSError):
        return False
    return True


def _link(source: Path, target: Path) -> bool:
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        return False
    return True


def _remove(path: Path) -> None:
    try:
        os.unlink(path)
    except OSError:
        return  # it was never made, or the folder is read-only: readers ignore .part files either way


def _sync_folder(folder: Path) -> None:
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return
    try:
        os.fsync(fd)
    except OSError:
        return  # some network filesystems refuse to sync a folder; the rename itself has happened
    finally:
        os.close(fd)

"""What the filesystem below a store can be trusted with: WAL needs shared memory that only a local one gives, a database locks."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import re
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from mltrack.store.client.journal import random_hex

# Filesystems of this kernel's own disks and memory. Anything else may be shared between hosts, where a WAL index in
# shared memory silently corrupts the database.
LOCAL = frozenset(
    "ext2 ext3 ext4 xfs btrfs f2fs tmpfs ramfs zfs bcachefs jfs reiserfs overlay apfs hfs ufs".split()
)

_OCTAL = re.compile(r"\\([0-7]{3})")  # how the kernel writes spaces and the like in a path


@dataclass(frozen=True, slots=True)
class Filesystem:
    """Kind (as the kernel names it, "" when unknown), whether WAL is proven to work, why not, and whether locks do."""

    kind: str
    wal: bool
    why: str
    locks: bool = True


def probe(folder: Path) -> Filesystem:
    """Look at the mount below ``folder``, try a shared mapping and locks there. Never raises."""
    kind = _mount_kind(folder)
    if not has_locks(folder):
        return Filesystem(
            kind, False, f"{folder} is on {kind or 'a filesystem'} without working locks", False
        )
    if kind not in LOCAL:
        return Filesystem(
            kind, False, f"{folder} is on {kind or 'an unknown filesystem'}, which several hosts may share"
        )
    if not _shares_memory(folder):
        return Filesystem(kind, False, f"{folder} does not support shared memory maps")
    return Filesystem(kind, True, "")


def cache_folder() -> Path:
    """Where this user's rebuildable files go."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return Path(base if os.path.isabs(base) else os.path.expanduser("~/.cache")) / "mltrack"


def node_local(root: Path, kind: str) -> Path:
    """Where files of this kind lie on this machine for a store on a filesystem that cannot hold them."""
    return cache_folder() / kind / digest_of(str(root))


def digest_of(place: str) -> str:
    """Sixteen hex digits that stand for a path or an address in the name of a file."""
    import hashlib  # of the places that need it: it loads OpenSSL, which takes 3 ms

    return hashlib.sha256(place.encode("utf-8", "surrogateescape")).hexdigest()[:16]


@lru_cache(64)
def has_locks(folder: Path) -> bool:
    """Whether one process sees the locks of another in ``folder`` (or, until it is made, in what it will be made in).

    False where locking is refused (some FUSE and network filesystems) and where it is granted to everybody (``nolock``).
    """
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    path = folder / f".probe-{random_hex(12)}"
    try:
        one = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError:
        return True  # a folder we cannot write is only read: nothing is locked there
    try:
        # A lock of the open file, not of the process, is another owner's for whoever grants locks: no process is needed.
        two = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.lockf(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return _is_refused(two)
        finally:
            os.close(two)
    except OSError:
        return False
    finally:
        os.close(one)
        os.unlink(path)


def _is_refused(fd: int) -> bool:
    command = getattr(fcntl, "F_OFD_SETLK", None)
    if command is None:  # macOS: its own filesystems have locks
        return True
    try:
        fcntl.fcntl(fd, command, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except OSError as error:
        return error.errno in (errno.EAGAIN, errno.EACCES, errno.EINVAL)  # the last: a kernel before 3.15
    return False


def _mount_kind(folder: Path) -> str:
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            lines = file.readlines()
    except OSError:
        return "apfs" if os.uname().sysname == "Darwin" else ""
    path = os.path.realpath(folder)
    best, kind = "", ""
    for line in lines:
        left, _, right = line.partition(" - ")
        mount = _OCTAL.sub(lambda match: chr(int(match[1], 8)), left.split()[4])
        inside = path == mount or path.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):
            best, kind = mount, right.split()[0]
    return kind


def _shares_memory(folder: Path) -> bool:
    path = folder / f".probe-{random_hex(12)}"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError:
        return True  # a folder we cannot write is only read, and readers follow whatever mode the file has
    try:
        # Written, not only made longer: touching a page that a full disk cannot give ends the process with SIGBUS.
        if os.write(fd, bytes(mmap.PAGESIZE)) != mmap.PAGESIZE:
            return True
        with (
            mmap.mmap(fd, mmap.PAGESIZE, mmap.MAP_SHARED) as one,
            mmap.mmap(fd, mmap.PAGESIZE, mmap.MAP_SHARED) as two,
        ):
            one[:4] = b"seen"
            return two[:4] == b"seen" and os.pread(fd, 4, 0) == b"seen"
    except OSError as error:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)  # a full disk says nothing about shared memory
    except ValueError:
        return False
    finally:
        os.close(fd)
        os.unlink(path)

"""What the filesystem below a store can be trusted with: WAL needs shared memory that only a local one gives."""

from __future__ import annotations

import errno
import mmap
import os
import re
from dataclasses import dataclass
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
    """Kind (as the kernel names it, "" when unknown) and whether WAL is proven to work."""

    kind: str
    wal: bool
    why: str


def probe(folder: Path) -> Filesystem:
    """Look at the mount below ``folder`` and try a shared mapping there. Never raises."""
    kind = _mount_kind(folder)
    if kind not in LOCAL:
        return Filesystem(
            kind, False, f"{folder} is on {kind or 'an unknown filesystem'}, which several hosts may share"
        )
    if not _shares_memory(folder):
        return Filesystem(kind, False, f"{folder} does not support shared memory maps")
    return Filesystem(kind, True, "")


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

"""The GPUs of this machine for launching: who uses which, and leases so that two launches do not choose the same."""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mltrack.projects.errors import ProjectError
from mltrack.store.client import nvml
from mltrack.store.client.location import LocationError, site_store, user_data_folder

FREE_BYTES = 500 << 20
# How often the queue looks for a free one.
WAIT_SECONDS = 1.0
LEASES = "leases"
"""Where the leases of a machine lie in the store that its site file names."""
_SITE_LEASES = Path("/var/lib/mltrack/leases")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU. ``free``: no process on it, under 500 MB used, and no launch holds it."""

    index: int
    uuid: str
    name: str
    memory_bytes: int
    used_bytes: int
    processes: int
    leased: bool

    @property
    def free(self) -> bool:
        """Whether a launch may take it."""
        return self.processes == 0 and self.used_bytes < FREE_BYTES and not self.leased


def list_gpus() -> tuple[list[Gpu], str]:
    """(the GPUs this process may use, "") or ([], why there is none). Inside an allocation only its own."""
    library = nvml.open_library()
    if isinstance(library, str):
        return [], library
    try:
        found: list[Gpu] = []
        for index in nvml.visible_indices(library, os.environ):
            facts = library.describe(index)
            uuid = str(facts.get("uuid", ""))
            used = int(library.sample(index).get("memory_bytes", 0.0))
            processes = len(library.pids(index) or ())
            found.append(
                Gpu(
                    index,
                    uuid,
                    str(facts.get("name", "")),
                    int(str(facts.get("memory_bytes") or 0)),
                    used,
                    processes,
                    _leased(uuid),
                )
            )
        return found, "" if found else "no GPU is visible here"
    finally:
        library.close()


def choose_gpus(wanted: str, gpus: Sequence[Gpu]) -> list[str]:
    """UUIDs for ``none``, ``free``, a number of free ones, or UUIDs and indices. Raises ProjectError when there are too few."""
    if wanted in ("", "none", "0"):
        return []
    free = [gpu for gpu in gpus if gpu.free]
    if wanted == "free" or (wanted.isdigit() and len(wanted) < 4):
        count = 1 if wanted == "free" else int(wanted)
        if len(free) < count:
            raise ProjectError(
                f"{count} free GPU{'s are' if count > 1 else ' is'} wanted, {len(free)} of {len(gpus)} "
                f"{'are' if len(free) != 1 else 'is'} free. --queue waits for one; --gpu none does without."
            )
        return [gpu.uuid for gpu in free[:count]]
    chosen: list[str] = []
    for part in re.split(r"[,+]", wanted):
        match = [gpu.uuid for gpu in gpus if part and (gpu.uuid == part or part == f"gpu{gpu.index}")]
        if not match:
            raise ProjectError(
                f"There is no GPU '{part}' here. It has: {', '.join(f'gpu{g.index}' for g in gpus) or 'none'}."
            )
        chosen += match
    return chosen


def lease_folder() -> tuple[Path, bool]:
    """(folder of leases, whether it holds for everybody on this machine or only among this user's own launches)."""
    # The machine's, not that of the store of the moment: two stores on one machine share its GPUs.
    try:
        site = site_store()
    except LocationError:
        site = ""  # whoever opens a store is told
    for folder in (Path(site) / LEASES if site.startswith("/") else _SITE_LEASES, _SITE_LEASES):
        if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK):
            return folder, True
    return user_data_folder() / "leases", False


class Lease:
    """GPUs held by this process; the kernel frees them when it dies."""

    def __init__(self) -> None:
        self._fds: list[int] = []

    def take(self, uuids: Sequence[str]) -> bool:
        """All of them, or none: False."""
        folder, shared = lease_folder()
        folder.mkdir(mode=0o1777 if shared else 0o700, parents=True, exist_ok=True)
        taken: list[int] = []
        for uuid in uuids:
            fd = _lease_file(folder / _file_name(uuid))
            taken.append(fd)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                for held in taken:
                    os.close(held)
                return False
        self._fds += taken
        return True

    def close(self) -> None:
        """Free them."""
        while self._fds:
            os.close(self._fds.pop())


def take_gpus(wanted: str, lease: Lease, wait: bool, stopped: Callable[[], bool]) -> list[str] | None:
    """Choose and hold GPUs; with ``wait`` until there are enough. None when stopped meanwhile. Raises ProjectError."""
    while True:
        gpus, why = list_gpus()
        if not gpus:
            raise ProjectError(f"The job wants a GPU ({wanted}), and {why}.")
        try:
            uuids = choose_gpus(wanted, gpus)
            if lease.take(uuids):
                return uuids
            problem = ProjectError(f"The GPUs {wanted} were taken by another launch just now.")
        except ProjectError as error:
            problem = error
        if not wait:
            raise problem
        if stopped():
            return None
        time.sleep(WAIT_SECONDS)


def _lease_file(path: Path) -> int:
    """The open file of a lease. Only its lock counts, which needs no right to write: somebody else may have made it, and in
    a folder that everybody may write to the kernel lets nobody create what is there already."""
    flags = os.O_CLOEXEC | os.O_NOFOLLOW
    while True:
        try:
            return os.open(path, os.O_RDONLY | flags)
        except FileNotFoundError:
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | flags, 0o444)
            except FileExistsError:
                continue
            os.fchmod(fd, 0o444)  # a strict umask must not hide it from the others
            return fd


def _leased(uuid: str) -> bool:
    try:
        fd = os.open(lease_folder()[0] / _file_name(uuid), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _file_name(uuid: str) -> str:
    return re.sub(r"[^A-Za-z0-9-]", "_", uuid) + ".lease"

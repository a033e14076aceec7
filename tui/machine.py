"""This machine now: GPUs and who holds them, CPU, memory, and what the store's folders take on disk."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from mltrack.store.client.nvml import Nvml, open_library
from mltrack.store.records import Run
from mltrack.store.store import Store

# A picture of the disk is good for a minute; looking again costs a walk over every run's folder.
_FRESH_SECONDS = 60.0
# The walk gives way after so many folders, so that questions of the screen are answered meanwhile.
_GIVE_WAY_FOLDERS, _GIVE_WAY_SECONDS = 32, 0.002
_JOURNALS = (".jsonl", ".jsonl.zst")
_MOST_RUNS = 1000
_MOST_PARENTS = 16


@dataclass(frozen=True)
class Holder:
    """A process that computes on a GPU, and the run it belongs to, where that can be told."""

    pid: int
    user: str
    command: str
    run_id: str = ""
    run_name: str = ""


@dataclass(frozen=True)
class Gpu:
    """One GPU; None is a figure it does not have. ``holders`` None: the driver does not say."""

    index: int
    name: str
    load_percent: float | None
    memory_bytes: float | None
    memory_total: float | None
    temperature_c: float | None
    power_watts: float | None
    holders: tuple[Holder, ...] | None


@dataclass(frozen=True)
class Machine:
    """Figures of one moment. ``no_gpu`` says why there is none."""

    host: str
    gpus: tuple[Gpu, ...]
    no_gpu: str
    cpus: int
    cpu_percent: tuple[float, ...]
    load: tuple[float, float, float]
    memory_used: int
    memory_total: int
    swap_used: int
    swap_total: int


def read_machine(store: Store | None, library: object = None) -> Machine:
    """Look at the machine. ``library`` stands in for NVML's: a file name, or an object with its functions."""
    gpus, no_gpu = read_gpus(store, library)
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    percent = tuple(float(value) for value in psutil.cpu_percent(percpu=True))
    return Machine(
        os.uname().nodename,
        gpus,
        no_gpu,
        psutil.cpu_count() or len(percent),
        percent,
        os.getloadavg(),
        int(memory.total - memory.available),
        int(memory.total),
        int(swap.used),
        int(swap.total),
    )


def read_gpus(store: Store | None, library: object = None) -> tuple[tuple[Gpu, ...], str]:
    """The GPUs, or why there are none: no driver, or a driver that sees no GPU."""
    nvml = open_library(library)
    if isinstance(nvml, str):
        return (), nvml
    try:
        owners = _running_by_pid(store) if store is not None else {}
        return tuple(_gpu(nvml, index, owners) for index in range(nvml.count)), ""
    finally:
        nvml.close()


def _gpu(nvml: Nvml, index: int, owners: Mapping[int, Run]) -> Gpu:
    facts, figures = nvml.describe(index), nvml.sample(index)
    pids = nvml.pids(index)
    total = facts.get("memory_bytes")
    return Gpu(
        index,
        str(facts.get("name", f"GPU {index}")),
        figures.get("util"),
        figures.get("memory_bytes"),
        float(total) if isinstance(total, int | float) else None,
        figures.get("temperature_c"),
        figures.get("power_watts"),
        None if pids is None else tuple(_holder(pid, owners) for pid in sorted(pids)),
    )


def _holder(pid: int, owners: Mapping[int, Run]) -> Holder:
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            user, command = process.username(), " ".join(process.cmdline()) or process.name()
        # The run is logged by the process itself or by one that started it (a launcher, a loader of data).
        lineage = [pid, *(parent.pid for parent in process.parents()[:_MOST_PARENTS])]
    except psutil.AccessDenied:
        return Holder(pid, "unknown", "another user's process")
    except psutil.Error:
        return Holder(pid, "unknown", "gone, or in a container with numbers of its own")
    run = next((owners[number] for number in lineage if number in owners), None)
    return Holder(pid, user, command, run.run_id if run else "", run.name if run else "")


def _running_by_pid(store: Store) -> dict[int, Run]:
    """Runs of this machine that are running, by their process."""
    page = store.search("status = running", limit=_MOST_RUNS)
    host = os.uname().nodename
    return {run.pid: run for run in store.runs(page.run_ids) if run.pid is not None and run.host == host}


@dataclass
class Disk:
    """What a store takes. ``experiments`` are (name, runs, bytes of files, bytes of journals), largest first."""

    root: str
    free: int | None = None
    total: int | None = None
    database: int = 0
    blobs: int = 0
    experiments: list[tuple[str, int, int, int]] = field(default_factory=list)
    journals: int = 0
    files: int = 0
    trash: int = 0
    trash_runs: int = 0
    looked: int = 0
    of: int = 0
    done: bool = False
    trouble: str = ""


class DiskScan:
    """Walks the folders of a store in a thread of its own; the picture so far is there at any time."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._disk = Disk(str(root))
        self._thread: threading.Thread | None = None
        self._ended = 0.0

    def look(self, homes: Mapping[str, tuple[str, str]], wait: bool = False) -> Disk:
        """The picture so far. ``homes`` are (experiment, lifecycle) by run id; a stale picture is begun anew."""
        with self._lock:
            alive = self._thread is not None and self._thread.is_alive()
            if not alive and (not self._ended or time.monotonic() - self._ended > _FRESH_SECONDS):
                self._thread = threading.Thread(
                    target=self._walk, args=(dict(homes), not wait), name="disk", daemon=True
                )
                self._thread.start()
            thread = self._thread
        if wait and thread is not None:
            thread.join()
        return self._disk

    def _walk(self, homes: Mapping[str, tuple[str, str]], give_way: bool) -> None:
        disk = Disk(str(self._root), of=len(homes))
        first = not self._ended
        if first:
            self._disk = disk  # nothing older to show meanwhile
        try:
            space = os.statvfs(self._root)
            disk.free, disk.total = space.f_bavail * space.f_frsize, space.f_blocks * space.f_frsize
            for entry in os.scandir(self._root):
                if entry.is_file(follow_symlinks=False):
                    disk.database += entry.stat(follow_symlinks=False).st_size
            disk.blobs = _folder_bytes(self._root / "blobs")
            sums: dict[str, list[int]] = {}
            for number, (run_id, (experiment, lifecycle)) in enumerate(homes.items()):
                files, journals = run_bytes(self._root / "runs" / run_id[:2] / run_id)
                disk.files += files
                disk.journals += journals
                if lifecycle == "trash":
                    disk.trash += files + journals
                    disk.trash_runs += 1
                else:
                    total = sums.setdefault(experiment, [0, 0, 0])
                    total[0] += 1
                    total[1] += files
                    total[2] += journals
                disk.looked = number + 1
                if give_way and number % _GIVE_WAY_FOLDERS == 0:
                    disk.experiments = _largest(sums)
                    time.sleep(_GIVE_WAY_SECONDS)
            disk.experiments = _largest(sums)
        except OSError as error:
            disk.trouble = f"{error.filename or self._root}: {error.strerror}"
        disk.done = True
        self._ended = time.monotonic()
        self._disk = disk


def _largest(sums: Mapping[str, Sequence[int]]) -> list[tuple[str, int, int, int]]:
    found = [(name, total[0], total[1], total[2]) for name, total in sums.items()]
    return sorted(found, key=lambda entry: (-(entry[2] + entry[3]), entry[0]))


def run_bytes(folder: Path) -> tuple[int, int]:
    """(bytes of artifacts and log, bytes of journals) of a run's folder; what is gone meanwhile counts nothing."""
    files = journals = 0
    for path, size in _sizes(folder):
        if path.endswith(_JOURNALS):
            journals += size
        else:
            files += size
    return files, journals


def _folder_bytes(folder: Path) -> int:
    return sum(size for _, size in _sizes(folder))


def _sizes(folder: Path) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    waiting = [str(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                        continue
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode):
                        found.append((entry.name, status.st_size))
        except OSError:
            continue  # removed, or not ours to read: what can be seen is counted
    return found


def homes_of(store: Store) -> dict[str, tuple[str, str]]:
    """(experiment, lifecycle) of every run."""
    columns = store.columns
    columns.refresh()
    texts = [columns.text("attribute", key) for key in ("experiment", "lifecycle")]
    values: list[Any] = [
        [text.values[code] if code >= 0 else "" for code in text.codes.tolist()] for text in texts
    ]
    return {
        run_id: (experiment, lifecycle)
        for run_id, experiment, lifecycle in zip(columns.run_ids, values[0], values[1], strict=True)
    }

"""What the machine did while the run went on: one small sample every few seconds, from a thread of its own.

Everything is read from /proc and NVML; on systems without /proc only what Python itself can tell is sampled. A figure
that cannot be had is missing, never zero, and the reason is said once.
"""

from __future__ import annotations

import os
import threading
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from mltrack.store.client.nvml import Nvml

# Runs of minutes need detail; a run of days does not need 17,000 samples a day of each figure.
FAST_SECONDS = 5.0
FAST_UNTIL_SECONDS = 600.0
SLOW_SECONDS = 30.0
# A last sample is taken at the end unless the previous one is this fresh.
LAST_SAMPLE_SECONDS = 1.0
STOP_SECONDS = 2.0

_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


class Sampler:
    """Calls ``emit`` with {key: value} from a daemon thread between start() and stop(); never raises.

    Keys: system/cpu_percent (this process and its children, 100 = one core), system/memory_bytes (their resident
    memory), system/box_cpu_percent (0..100 of the machine), system/box_memory_bytes, system/box_memory_percent,
    system/disk_free_bytes, system/disk_percent (of the working folder's disk), system/net_in_bytes_per_s,
    system/net_out_bytes_per_s, and per used GPU system/gpuN/{util,memory_bytes,memory_percent,temperature_c,power_watts}.
    """

    def __init__(
        self,
        emit: Callable[[dict[str, float]], object],
        warn: Callable[[str], object],
        *,
        fast_seconds: float = FAST_SECONDS,
        slow_seconds: float = SLOW_SECONDS,
        fast_until_seconds: float = FAST_UNTIL_SECONDS,
        nvml_library: object = None,
        family: int = 0,
    ) -> None:
        self._emit = emit
        self._warn = warn
        self._fast_seconds = fast_seconds
        self._slow_seconds = slow_seconds
        self._fast_until_seconds = fast_until_seconds
        self._gpus = _Gpus(nvml_library)
        self._rates = _Rates()
        self._said: set[str] = set()
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        self._family = (
            family or self._pid
        )  # whose descendants' GPUs are ours: the launcher's, of several ranks
        try:
            self._folder = os.getcwd()
        except OSError:
            self._folder = "/"

    def start(self) -> None:
        """Begin; the first sample comes after one interval, because rates need two readings."""
        self._thread = threading.Thread(target=self._run, name="mltrack-sampler", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            self._thread = None
            self._say(f"no system metrics: {error}")

    def stop(self) -> None:
        """End with a last sample; waits at most two seconds (a driver or disk may hang)."""
        # The thread does not exist in a forked child, and the locks may be as the fork found them.
        if self._thread is None or os.getpid() != self._pid:
            return
        self._end.set()
        self._thread.join(STOP_SECONDS)
        self._thread = None

    def _run(self) -> None:
        try:
            self._loop()
        except Exception as error:  # noqa: BLE001  # a worker's top level: sampling may end, the training must not
            self._say(f"system metrics stopped: {type(error).__name__}: {error}")

    def _loop(self) -> None:
        began = last = monotonic()
        self._rates.read(began)
        while True:
            slow = last - began >= self._fast_until_seconds
            ending = self._end.wait(self._slow_seconds if slow else self._fast_seconds)
            now = monotonic()
            if not ending or now - last >= LAST_SAMPLE_SECONDS:
                self._emit(self._sample(now))
                last = now
            if ending:
                self._gpus.close()
                return

    def _sample(self, now: float) -> dict[str, float]:
        values, pids = self._rates.read(now)
        values.update(_memory_of_box())
        values.update(_disk(self._folder))
        if self._family != self._pid:
            pids |= set(_process_tree(self._family))
        values.update(self._gpus.sample(pids))
        for reason in (self._rates.problem, self._gpus.problem):
            if reason:
                self._say(reason)
        return {f"system/{key}": value for key, value in values.items()}

    def _say(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            self._warn(message)


class _Rates:
    """CPU, memory and network: the differences between two readings."""

    def __init__(self) -> None:
        self.problem = ""
        self._time = 0.0
        self._counters: dict[str, float] = {}

    def read(self, now: float) -> tuple[dict[str, float], set[int]]:
        """(values, pids of this process and its descendants). The first call has no rates yet."""
        values: dict[str, float] = {}
        tree = _process_tree(os.getpid())
        if tree:
            ticks = sum(fields[0] for fields in tree.values())
            values["memory_bytes"] = float(sum(fields[1] for fields in tree.values()))
            counters = {"cpu": ticks / _TICKS}
        else:
            self.problem = "only the CPU time of this process can be measured here: /proc cannot be read"
            spent = os.times()
            counters = {"cpu": spent.user + spent.system + spent.children_user + spent.children_system}
        counters.update(_box_cpu())
        counters.update(_network())
        change = {name: value - self._counters.get(name, value) for name, value in counters.items()}
        seconds = now - self._time
        if self._counters and seconds > 0:
            # A child that leaves the tree takes its time with it, and one that ends while /proc is read is counted
            # twice or not at all: no figure is better than an impossible one. A tick of rounding is allowed.
            if 0 <= change["cpu"] <= (seconds + 2 / _TICKS) * (os.cpu_count() or 1):
                values["cpu_percent"] = 100.0 * change["cpu"] / seconds
            if change.get("box_total", 0) > 0:
                values["box_cpu_percent"] = 100.0 * change["box_busy"] / change["box_total"]
            for name in ("net_in", "net_out"):
                if change.get(name, -1) >= 0:
                    values[f"{name}_bytes_per_s"] = change[name] / seconds
        self._time, self._counters = now, counters
        return values, set(tree) or {os.getpid()}


class _Gpus:
    """The GPUs this process uses, asked anew each time: a training takes its GPU some time after its start."""

    def __init__(self, library: object) -> None:
        self.problem = ""
        self._library = library
        self._nvml: Nvml | None = None
        self._tried = False

    def sample(self, pids: set[int]) -> dict[str, float]:
        from mltrack.store.client import nvml

        if not self._tried:
            self._tried = True
            opened = nvml.open_library(self._library)
            if isinstance(opened, nvml.Nvml):
                self._nvml = opened
            elif nvml.expected(os.environ) or self._library is not None:
                self.problem = f"no GPU metrics: {opened}"
        if self._nvml is None:
            return {}
        used = nvml.used_indices(self._nvml, os.environ, pids)
        values: dict[str, float] = {}
        for index in used:
            figures = self._nvml.sample(index)
            if not figures:
                self.problem = f"no metrics of GPU {index}: its driver does not answer"
            values.update({f"gpu{index}/{key}": value for key, value in figures.items()})
        return values

    def close(self) -> None:
        if self._nvml is not None:
            self._nvml.close()
            self._nvml = None


def _process_tree(root: int) -> dict[int, tuple[int, int]]:
    """{pid: (CPU ticks with those of reaped children, resident bytes)} of ``root`` and all below it; {} without /proc.

    Summed over the tree the ticks only grow: those of a child that ends move to its parent's "children" counters.
    """
    parents: dict[int, int] = {}
    figures: dict[int, tuple[int, int]] = {}
    try:
        names = os.listdir("/proc")
    except OSError:
        return {}
    for name in names:
        if name.isdigit():
            fields = _read(f"/proc/{name}/stat").rpartition(b")")[2].split()
            if len(fields) > 21:
                parents[int(name)] = int(fields[1])
                figures[int(name)] = (sum(map(int, fields[11:15])), int(fields[21]) * _PAGE)
    if root not in figures:
        return {}
    below: dict[int, list[int]] = {}
    for pid, parent in parents.items():
        below.setdefault(parent, []).append(pid)
    tree: dict[int, tuple[int, int]] = {}
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        if pid not in tree:
            tree[pid] = figures[pid]
            waiting += below.get(pid, [])
    return tree


def _box_cpu() -> dict[str, float]:
    first = _read("/proc/stat").partition(b"\n")[0].split()
    if len(first) < 9 or first[0] != b"cpu":
        return {}
    # user nice system idle iowait irq softirq steal; guest time is part of user.
    ticks = [int(field) for field in first[1:9]]
    return {"box_total": float(sum(ticks)), "box_busy": float(sum(ticks) - ticks[3] - ticks[4])}


def _memory_of_box() -> dict[str, float]:
    found: dict[bytes, int] = {}
    for line in _read("/proc/meminfo").split(b"\n"):
        name, _, rest = line.partition(b":")
        if name in (b"MemTotal", b"MemAvailable"):
            found[name] = int(rest.split()[0]) * 1024
    if len(found) < 2 or not found[b"MemTotal"]:
        return {}
    used = found[b"MemTotal"] - found[b"MemAvailable"]
    return {"box_memory_bytes": float(used), "box_memory_percent": 100.0 * used / found[b"MemTotal"]}


def _network() -> dict[str, float]:
    received = sent = 0
    lines = _read("/proc/net/dev").split(b"\n")[2:]
    for line in lines:
        name, _, rest = line.partition(b":")
        fields = rest.split()
        if len(fields) >= 9 and name.strip() != b"lo":
            received += int(fields[0])
            sent += int(fields[8])
    return {"net_in": float(received), "net_out": float(sent)} if lines else {}


def _disk(folder: str) -> dict[str, float]:
    try:
        facts = os.statvfs(folder)
    except OSError:
        return {}
    if not facts.f_blocks:
        return {}
    used = facts.f_blocks - facts.f_bfree
    usable = used + facts.f_bavail
    return {
        "disk_free_bytes": float(facts.f_bavail * facts.f_frsize),
        "disk_percent": 100.0 * used / usable if usable else 100.0,
    }


def _read(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        parts = [os.read(fd, 65536)]
        while len(parts[-1]) == 65536:
            parts.append(os.read(fd, 65536))
        return b"".join(parts)
    except OSError:
        return b""
    finally:
        os.close(fd)

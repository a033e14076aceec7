"""What the system screen asks: the machine now, and the disk as far as it was looked at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mltrack.store.store import Store
from mltrack.tui.draw.sparkline import BLOCKS
from mltrack.tui.machine import DiskScan, Gpu, homes_of, read_gpus, read_machine
from mltrack.tui.system_page import system_lines

_scan: DiskScan | None = None


def system(store: Store, width: int) -> dict[str, Any]:
    """{"lines", "host", "looking"}: the page, and whether the disk is still being looked at."""
    global _scan
    if _scan is None:
        _scan = DiskScan(store.root)
    machine = read_machine(store)
    disk = _scan.look(homes_of(store))
    return {"lines": system_lines(machine, disk, width), "host": machine.host, "looking": not disk.done}


def gpu_bar(store: Store) -> str:
    """The GPUs in the header of the table: a bar each, and how many nobody computes on; empty where there is none."""
    return bar_of(read_gpus(None)[0])


def bar_of(gpus: Sequence[Gpu]) -> str:
    """gpu ▇▇▁▇ 2 free"""
    if not gpus:
        return ""
    loads = [gpu.load_percent for gpu in gpus]
    bars = "".join("·" if load is None else BLOCKS[min(7, max(0, int(load * 8 / 100)))] for load in loads)
    # Who computes is not always said; a GPU without load is then as good as free.
    free = sum(not gpu.load_percent if gpu.holders is None else not gpu.holders for gpu in gpus)
    return f"gpu {bars} {free} free"


CALLS = (system, gpu_bar)

"""The GPUs of this machine in the header of the table of runs."""

from __future__ import annotations

from mltrack.tui.machine import Gpu, Holder
from mltrack.tui.worker_calls.system import bar_of


def gpu(load: float | None, holders: tuple[Holder, ...] | None) -> Gpu:
    return Gpu(0, "H100", load, None, None, None, None, holders)


def test_a_bar_each_and_how_many_are_free() -> None:
    busy = (Holder(7, "alice", "python train.py"),)
    # One that is held but idles is not free; where the driver does not say who computes, load tells.
    gpus = [gpu(97, busy), gpu(0, ()), gpu(3, busy), gpu(50, None), gpu(None, None)]
    assert bar_of(gpus) == "gpu █▁▁▅· 2 free"


def test_no_gpu_no_bar() -> None:
    assert bar_of([]) == ""

"""The sampler: real figures from /proc, GPUs from a small stand-in for NVIDIA's library, silence that is explained."""

from __future__ import annotations

import ctypes
import math
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mltrack.store.client import host, nvml, sampler
from mltrack.store.client.sampler import Sampler

needs_proc = pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs Linux's /proc")
needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler: apt-get install gcc")

# Three GPUs; which processes compute on which, and what fails, comes from the environment.
FAKE_LIBRARY = r"""
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
typedef struct { unsigned pid; unsigned long long used; unsigned gi, ci; } process_t;
typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned gpu, memory; } utilization_t;
static int devices[3] = {0, 1, 2};
static int number(const char *name) { const char *text = getenv(name); return text ? atoi(text) : 0; }
int nvmlInit_v2(void) { return number("FAKE_INIT"); }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { return code == 9 ? "Driver Not Loaded" : "Unknown Error"; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = getenv("FAKE_COUNT") ? number("FAKE_COUNT") : 3; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    if (index > 2) return 6;
    *device = &devices[index];
    return 0;
}
int nvmlDeviceGetName(void *device, char *text, unsigned size) { snprintf(text, size, "Fake 9000"); return 0; }
int nvmlDeviceGetUUID(void *device, char *text, unsigned size) {
    snprintf(text, size, "GPU-%d%d%d", *(int *)device, *(int *)device, *(int *)device);
    return 0;
}
int nvmlSystemGetDriverVersion(char *text, unsigned size) { snprintf(text, size, "999.1"); return 0; }
int nvmlDeviceGetMemoryInfo(void *device, memory_t *memory) {
    memory->total = 1000; memory->used = 100 * (*(int *)device + 1); memory->free = 0;
    return 0;
}
int nvmlDeviceGetUtilizationRates(void *device, utilization_t *rates) {
    if (*(int *)device == 2) return 3; /* not supported, as on a MIG slice */
    rates->gpu = 50 + *(int *)device; rates->memory = 1;
    return 0;
}
int nvmlDeviceGetTemperature(void *device, int kind, unsigned *degrees) { *degrees = 60; return kind ? 2 : 0; }
int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatts) { *milliwatts = 250500; return 0; }
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, process_t *table) {
    char name[32];
    if (getenv("FAKE_NO_PIDS")) return 3;
    snprintf(name, sizeof name, "FAKE_PID%d", *(int *)device);
    if (!getenv(name)) { *count = 0; return 0; }
    if (*count < 200) { *count = 200; return 7; } /* a shared GPU: the first table is too small */
    memset(table, 0, 200 * sizeof *table);
    table[199].pid = number(name);
    *count = 200;
    return 0;
}
"""


@pytest.fixture(scope="session")
def fake_library(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("nvml")
    (folder / "fake.c").write_text(FAKE_LIBRARY)
    target = folder / "libnvidia-ml.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(target), str(folder / "fake.c")], check=True)
    return str(target)


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(nvml, "_on_host", lambda: True)


def until(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


@needs_proc
def test_real_samples_have_sane_figures() -> None:
    samples: list[dict[str, float]] = []
    said: list[str] = []
    running = Sampler(samples.append, said.append, fast_seconds=0.2)
    running.start()
    assert until(lambda: len(samples) >= 3)
    running.stop()
    sample = samples[1]
    for key in "memory_bytes box_memory_bytes box_memory_percent disk_free_bytes disk_percent".split():
        assert sample[f"system/{key}"] > 0, key
    assert 0 <= sample["system/box_cpu_percent"] <= 100
    assert sample["system/net_in_bytes_per_s"] >= 0
    assert all(math.isfinite(value) for taken in samples for value in taken.values())
    assert not any("gpu" in key for key in sample) or os.path.exists("/dev/nvidia0")
    count = len(samples)
    time.sleep(0.5)
    assert len(samples) == count, "stopped means stopped"


@needs_proc
def test_children_count_as_part_of_the_process() -> None:
    child = subprocess.Popen([sys.executable, "-c", "x = bytearray(200_000_000)\nwhile True: pass"])
    try:
        assert until(lambda: sampler._process_tree(os.getpid()).get(child.pid, (0, 0))[1] > 200_000_000)
        rates = sampler._Rates()
        rates.read(time.monotonic())
        time.sleep(0.5)
        values, pids = rates.read(time.monotonic())
        assert values["memory_bytes"] > 200_000_000
        assert child.pid in pids and os.getpid() in pids and 1 not in pids - {os.getpid()}
        assert values.get("cpu_percent", 1) > 0
    finally:
        child.kill()
        child.wait()


def test_a_short_run_gets_its_sample_when_it_stops() -> None:
    samples: list[dict[str, float]] = []
    running = Sampler(samples.append, lambda message: None)
    running.start()
    time.sleep(sampler.LAST_SAMPLE_SECONDS + 0.2)
    running.stop()
    assert len(samples) == 1
    running.stop()
    assert len(samples) == 1


def test_the_interval_grows() -> None:
    samples: list[dict[str, float]] = []
    running = Sampler(
        samples.append, lambda message: None, fast_seconds=0.05, slow_seconds=60, fast_until_seconds=0.4
    )
    running.start()
    assert until(lambda: len(samples) >= 2)
    time.sleep(1.5)
    count = len(samples)
    time.sleep(0.7)
    assert len(samples) == count
    started = time.monotonic()
    running.stop()
    assert time.monotonic() - started < 10


def test_a_failing_receiver_ends_sampling_with_one_word_and_no_exception() -> None:
    said: list[str] = []

    def full(values: dict[str, float]) -> None:
        raise OSError(28, "No space left on device")

    running = Sampler(full, said.append, fast_seconds=0.02)
    running.start()
    assert until(lambda: bool(said))
    time.sleep(0.2)
    running.stop()
    assert len(said) == 1 and "No space left" in said[0]


def test_stop_in_a_forked_child_returns_at_once() -> None:
    running = Sampler(lambda values: None, lambda message: None, fast_seconds=0.01)
    running.start()
    pid = os.fork()
    if pid == 0:
        running.stop()
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    running.stop()
    assert not any(thread.name == "mltrack-sampler" for thread in threading.enumerate())


@needs_compiler
def test_only_the_gpus_this_process_uses(fake_library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = sampler._Gpus(fake_library)
    me = {os.getpid()}
    assert gpus.sample(me) == {} and gpus.problem == "", "no GPU is used yet"
    _set(monkeypatch, "FAKE_PID1", str(os.getpid()))
    _set(monkeypatch, "FAKE_PID0", "1")
    assert gpus.sample(me) == {
        "gpu1/util": 51.0,
        "gpu1/memory_bytes": 200.0,
        "gpu1/memory_percent": 20.0,
        "gpu1/temperature_c": 60.0,
        "gpu1/power_watts": 250.5,
    }
    _set(monkeypatch, "FAKE_PID2", str(os.getpid()))
    both = gpus.sample(me)
    assert "gpu2/util" not in both and both["gpu2/memory_bytes"] == 300.0, (
        "a missing figure is missing, not zero"
    )
    gpus.close()


@needs_compiler
@needs_proc
def test_the_gpus_of_all_ranks_of_this_machine(fake_library: str) -> None:
    """torchrun: each rank is a process of its own with a GPU of its own, and the first one samples for all."""
    first = """
import sys
from mltrack.store.client import host
from mltrack.store.client.sampler import Sampler
found = Sampler(print, print, nvml_library=sys.argv[1], family=host.family())._sample(1.0)
print(sorted({key.split("/")[1] for key in found if "gpu" in key}))
"""
    launcher = """
import os, subprocess, sys
common = {**os.environ, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "FAKE_PID2": str(os.getppid())}
other = subprocess.Popen(["sleep", "60"], env={**common, "RANK": "1", "LOCAL_RANK": "1"})
common["FAKE_PID1"] = str(other.pid)
command = ["sh", "-c", 'FAKE_PID0=$$ exec "$@"', "sh", sys.executable, "-c", *sys.argv[1:]]
try:
    sys.exit(subprocess.run(command, env={**common, "RANK": "0", "LOCAL_RANK": "0"}).returncode)
finally:
    other.kill()
"""
    environment = {name: value for name, value in os.environ.items() if "RANK" not in name}
    done = subprocess.run(
        [sys.executable, "-c", launcher, first, fake_library],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("['gpu0', 'gpu1']\n", "")


@needs_compiler
@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("1", {"gpu1"}),
        ("2,0", {"gpu0", "gpu2"}),
        ("GPU-11", {"gpu1"}),
        ("0,7,1", {"gpu0"}),
        ("", set()),
        ("-1", set()),
    ],
)
def test_cuda_visible_devices_where_the_driver_lists_nobody(
    fake_library: str, monkeypatch: pytest.MonkeyPatch, visible: str, expected: set[str]
) -> None:
    _set(monkeypatch, "FAKE_NO_PIDS", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert {key.partition("/")[0] for key in sampler._Gpus(fake_library).sample({os.getpid()})} == expected


@needs_compiler
def test_a_container_sees_its_own_gpus(fake_library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "_on_host", lambda: False)
    keys = {key.partition("/")[0] for key in sampler._Gpus(fake_library).sample({os.getpid()})}
    assert keys == {"gpu0", "gpu1", "gpu2"}


@needs_compiler
def test_a_driver_that_does_not_start_is_said_once(
    fake_library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _set(monkeypatch, "FAKE_INIT", "9")
    samples: list[dict[str, float]] = []
    said: list[str] = []
    running = Sampler(samples.append, said.append, fast_seconds=0.02, nvml_library=fake_library)
    running.start()
    assert until(lambda: len(samples) > 3)
    running.stop()
    assert said == ["no GPU metrics: NVML does not start: Driver Not Loaded (error 9)"]


@needs_compiler
def test_a_driver_without_gpus(fake_library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _set(monkeypatch, "FAKE_COUNT", "0")
    assert nvml.open_library(fake_library) == "NVML sees no GPU"


def test_without_the_library_a_box_without_gpu_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "LIBRARY", "libnvidia-ml-that-is-not-there.so")
    monkeypatch.setattr(nvml, "expected", lambda environ: False)
    gpus = sampler._Gpus(None)
    assert gpus.sample({1}) == {} and gpus.problem == ""
    assert host.gpus() == []


def test_without_the_library_a_user_who_expects_a_gpu_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "LIBRARY", "libnvidia-ml-that-is-not-there.so")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    gpus = sampler._Gpus(None)
    assert gpus.sample({1}) == {}
    assert gpus.problem == "no GPU metrics: libnvidia-ml-that-is-not-there.so is not installed"


@needs_compiler
def test_the_gpus_of_the_facts(fake_library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "LIBRARY", fake_library)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    assert host.gpus() == [
        {"index": 2, "uuid": "GPU-222", "name": "Fake 9000", "memory_bytes": 1000, "driver": "999.1"}
    ]


def test_an_old_library_without_a_function() -> None:
    class Old:
        def nvmlInit_v2(self) -> int:
            return 0

        def nvmlDeviceGetCount_v2(self, count: object) -> int:
            ctypes.cast(count, ctypes.POINTER(ctypes.c_uint))[0] = 1  # type: ignore[call-overload]
            return 0

    opened = nvml.open_library(Old())
    assert isinstance(opened, nvml.Nvml) and opened.count == 1
    assert opened.sample(0) == {} and opened.pids(0) is None and opened.describe(0) == {"index": 0}


@needs_compiler
def test_the_structures_are_those_of_nvidias_own_binding() -> None:
    pynvml = pytest.importorskip("pynvml")
    for ours, theirs in (
        (nvml._Memory, pynvml.c_nvmlMemory_t),
        (nvml._Utilization, pynvml.c_nvmlUtilization_t),
        (nvml._Process, pynvml.c_nvmlProcessInfo_v3_t),
    ):
        assert [field[1] for field in ours._fields_] == [field[1] for field in theirs._fields_]


def _set(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    # os.environ calls putenv, so that the compiled stand-in sees it.
    monkeypatch.setenv(name, value)


def test_without_proc_only_cpu_time_is_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sampler, "_read", lambda path: b"")
    samples: list[dict[str, float]] = []
    said: list[str] = []
    running = Sampler(samples.append, said.append, fast_seconds=0.05)
    running.start()
    assert until(lambda: len(samples) > 2)
    running.stop()
    assert set(samples[-1]) <= {"system/cpu_percent", "system/disk_free_bytes", "system/disk_percent"}
    assert said == ["only the CPU time of this process can be measured here: /proc cannot be read"]

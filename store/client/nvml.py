"""NVIDIA's management library through ctypes: the few calls the sampler and ``host.gpus`` need.

No package: the driver brings ``libnvidia-ml.so.1``. A figure a device does not have (MIG slices have no utilisation) is
None; nothing here raises for a device's sake.
"""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

LIBRARY = "libnvidia-ml.so.1"
_SUCCESS = 0
_INSUFFICIENT_SIZE = 7
_NO_VALUE = 0xFFFFFFFFFFFFFFFF
# PROC_PID_INIT_INO: the PID namespace of the host. NVML reports the host's pids.
_HOST_PID_NAMESPACE = 0xEFFFFFFC


class _Memory(ctypes.Structure):
    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


class _Utilization(ctypes.Structure):
    _fields_ = [("gpu", ctypes.c_uint), ("memory", ctypes.c_uint)]


class _ProcessV1(ctypes.Structure):
    _fields_ = [("pid", ctypes.c_uint), ("used", ctypes.c_ulonglong)]


class _Process(ctypes.Structure):
    _fields_ = [
        ("pid", ctypes.c_uint),
        ("used", ctypes.c_ulonglong),
        ("gpu_instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    ]


class Nvml:
    """An initialised library. Not shared over a fork: the child opens its own."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self.count = 0

    def start(self) -> str:
        """Initialise; returns what went wrong, or ""."""
        code = self._call("nvmlInit_v2")
        if code != _SUCCESS:
            return f"NVML does not start: {self._error(code)}"
        count = ctypes.c_uint()
        code = self._call("nvmlDeviceGetCount_v2", ctypes.byref(count))
        if code != _SUCCESS:
            return f"NVML cannot count the GPUs: {self._error(code)}"
        self.count = count.value
        return ""

    def close(self) -> None:
        """Release the library's state."""
        self._call("nvmlShutdown")

    def describe(self, index: int) -> dict[str, object]:
        """index, uuid, name, memory_bytes, driver (what is known)."""
        facts: dict[str, object] = {"index": index}
        device = self._device(index)
        if device is None:
            return facts
        for key, function in (("uuid", "nvmlDeviceGetUUID"), ("name", "nvmlDeviceGetName")):
            text = self._text(function, device)
            if text:
                facts[key] = text
        memory = _Memory()
        if self._call("nvmlDeviceGetMemoryInfo", device, ctypes.byref(memory)) == _SUCCESS:
            facts["memory_bytes"] = int(memory.total)
        driver = self._text("nvmlSystemGetDriverVersion")
        if driver:
            facts["driver"] = driver
        return facts

    def sample(self, index: int) -> dict[str, float]:
        """util (%), memory_bytes, memory_percent, temperature_c, power_watts: what this device can tell."""
        device = self._device(index)
        if device is None:
            return {}
        values: dict[str, float] = {}
        utilization = _Utilization()
        if self._call("nvmlDeviceGetUtilizationRates", device, ctypes.byref(utilization)) == _SUCCESS:
            values["util"] = float(utilization.gpu)
        memory = _Memory()
        if self._call("nvmlDeviceGetMemoryInfo", device, ctypes.byref(memory)) == _SUCCESS:
            values["memory_bytes"] = float(memory.used)
            if memory.total:
                values["memory_percent"] = 100.0 * memory.used / memory.total
        number = ctypes.c_uint()
        if self._call("nvmlDeviceGetTemperature", device, 0, ctypes.byref(number)) == _SUCCESS:
            values["temperature_c"] = float(number.value)
        if self._call("nvmlDeviceGetPowerUsage", device, ctypes.byref(number)) == _SUCCESS:
            values["power_watts"] = number.value / 1000.0
        return values

    def pids(self, index: int) -> set[int] | None:
        """The processes that compute on the device, by the host's numbers; None when the driver does not say."""
        device = self._device(index)
        if device is None:
            return None
        for suffix, kind in (("_v3", _Process), ("_v2", _Process), ("", _ProcessV1)):
            name = f"nvmlDeviceGetComputeRunningProcesses{suffix}"
            room = 64
            while self._has(name) and room <= 65536:
                count = ctypes.c_uint(room)
                table = (kind * room)()
                code = self._call(name, device, ctypes.byref(count), table)
                if code == _SUCCESS:
                    return {int(table[row].pid) for row in range(min(count.value, room))}
                if code != _INSUFFICIENT_SIZE:
                    break
                room = max(count.value + 16, room * 2)
        return None

    def _device(self, index: int) -> ctypes.c_void_p | None:
        device = ctypes.c_void_p()
        code = self._call("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(device))
        return device if code == _SUCCESS else None

    def _text(self, function: str, *arguments: Any) -> str:
        buffer = ctypes.create_string_buffer(96)
        if self._call(function, *arguments, buffer, ctypes.c_uint(96)) != _SUCCESS:
            return ""
        return buffer.value.decode("utf-8", "replace")

    def _has(self, name: str) -> bool:
        return getattr(self._library, name, None) is not None

    def _call(self, name: str, *arguments: Any) -> int:
        try:
            return int(getattr(self._library, name)(*arguments))
        except AttributeError:
            return 13  # NVML_ERROR_FUNCTION_NOT_FOUND: an older driver

    def _error(self, code: int) -> str:
        try:
            function = self._library.nvmlErrorString
            function.restype = ctypes.c_char_p
            return f"{function(code).decode('utf-8', 'replace')} (error {code})"
        except AttributeError:
            return f"error {code}"


def open_library(library: Any = None) -> Nvml | str:
    """The started library, or the reason why there is none. ``library``: file name, or an object with its functions."""
    library = LIBRARY if library is None else library
    if isinstance(library, str):
        name = library
        try:
            library = ctypes.CDLL(name)
        except OSError:
            return f"{name} is not installed"
    nvml = Nvml(library)
    problem = nvml.start()
    if problem:
        return problem
    return nvml if nvml.count else "NVML sees no GPU"


def visible_indices(nvml: Nvml, environ: Mapping[str, str]) -> list[int]:
    """The devices CUDA_VISIBLE_DEVICES allows: numbers or GPU-uuids; as CUDA reads it, the first bad one ends the list.

    Numbers are taken as NVML's; CUDA orders a box of mixed models by speed unless CUDA_DEVICE_ORDER=PCI_BUS_ID.
    """
    setting = environ.get("CUDA_VISIBLE_DEVICES")
    if setting is None:
        return list(range(nvml.count))
    chosen: list[int] = []
    uuids: list[str] = []
    for item in (part.strip() for part in setting.split(",")):
        if item.isascii() and item.isdigit() and int(item) < nvml.count:
            index = int(item)
        elif item.startswith("GPU-"):
            uuids = uuids or [str(nvml.describe(position).get("uuid", "")) for position in range(nvml.count)]
            matching = [position for position, uuid in enumerate(uuids) if uuid.startswith(item)]
            if len(matching) != 1:
                break
            index = matching[0]
        else:
            break
        if index not in chosen:
            chosen.append(index)
    return chosen


def used_indices(nvml: Nvml, environ: Mapping[str, str], pids: set[int]) -> list[int]:
    """The devices on which one of ``pids`` computes.

    In a container NVML's numbers are not ours, and some drivers list nobody: then those that CUDA_VISIBLE_DEVICES
    allows, which inside a container are at most the ones it was given.
    """
    listed = {index: nvml.pids(index) for index in range(nvml.count)}
    used = [index for index, users in listed.items() if users and not users.isdisjoint(pids)]
    if used:
        return used
    if environ.get("CUDA_VISIBLE_DEVICES") is not None or not _on_host() or None in listed.values():
        return visible_indices(nvml, environ)
    return []


def expected(environ: Mapping[str, str]) -> bool:
    """Whether this machine or the user says that there is an NVIDIA GPU, so that silence would be a lie."""
    if environ.get("CUDA_VISIBLE_DEVICES", "").strip() not in ("", "-1", "NoDevFiles"):
        return True
    return any(os.path.exists(path) for path in ("/dev/nvidiactl", "/dev/nvidia0", "/proc/driver/nvidia"))


def _on_host() -> bool:
    try:
        return os.stat("/proc/self/ns/pid").st_ino == _HOST_PID_NAMESPACE
    except OSError:
        return False

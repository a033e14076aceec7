"""The machine as lines of text with styles: what the system screen and `mltrack system` show."""

from __future__ import annotations

from collections.abc import Sequence

from mltrack.tui.clean import cell_width, clean, clip, pad
from mltrack.tui.draw.numbers import format_bytes, format_number
from mltrack.tui.draw.sparkline import draw_bar
from mltrack.tui.machine import Disk, Gpu, Machine

Line = list[list[str]]
_BAR = 12
# From here on a GPU is worth a look; most throttle at about 90.
_HOT_C, _FULL = 83.0, 0.9


def system_lines(machine: Machine, disk: Disk, width: int) -> list[Line]:
    """Everything in at most ``width`` cells a line."""
    lines: list[Line] = [[["GPU", "header"]]]
    if machine.gpus:
        free = sum(gpu.holders == () for gpu in machine.gpus)
        lines[0].append([f"   {len(machine.gpus)} in {machine.host}, {free} held by nobody", "dim"])
        for gpu in machine.gpus:
            lines += _gpu_lines(gpu, width)
    else:
        lines.append([["  none: ", ""], [_why_no_gpu(machine.no_gpu), "dim"]])
    lines += [[], *_cpu_lines(machine, width), [], *_disk_lines(disk, width)]
    return lines


def _why_no_gpu(reason: str) -> str:
    """Two shapes: no driver on the machine, or a driver that finds nothing (or does not start)."""
    if "not installed" in reason:
        return f"this machine has no NVIDIA driver ({reason})"
    return f"the NVIDIA driver is here, but {reason[:1].lower() + reason[1:] if reason[:4] != 'NVML' else reason}"


def _gpu_lines(gpu: Gpu, width: int) -> list[Line]:
    load = None if gpu.load_percent is None else gpu.load_percent / 100
    memory = (
        gpu.memory_bytes / gpu.memory_total if gpu.memory_bytes is not None and gpu.memory_total else None
    )
    hot = gpu.temperature_c is not None and gpu.temperature_c >= _HOT_C
    line: Line = [
        [f"  {gpu.index}  ", "key"],
        [pad(clip(clean(gpu.name), 26), 26) + "  ", "bold"],
        [_bar(load), "green" if load else "dim"],
        [f" {_percent(load):>4} load  ", ""],
        [_bar(memory), "yellow" if memory is not None and memory >= _FULL else "cyan"],
        [f" {format_bytes(gpu.memory_bytes)} of {format_bytes(gpu.memory_total)}", ""],
        [f"  {format_number(gpu.temperature_c, 3)} °C{' hot' if hot else ''}", "error" if hot else "dim"],
    ]
    if gpu.power_watts is not None:
        line.append([f"  {format_number(gpu.power_watts, 3)} W", "dim"])
    lines = [line]
    if gpu.holders is None:
        lines.append([["       the driver does not say who holds it", "dim"]])
    elif not gpu.holders:
        lines.append([["       held by nobody", "green"]])
    for holder in gpu.holders or ():
        head = f"       {clean(holder.user)}  pid {holder.pid}  "
        run = f"run {clean(holder.run_name)}  " if holder.run_id else "no run of this store  "
        room = max(8, width - cell_width(head) - cell_width(run) - 1)
        lines.append(
            [
                [head, ""],
                [run, "best" if holder.run_id else "dim"],
                [clip(clean(holder.command, None), room), "dim"],
            ]
        )
    return lines


def _cpu_lines(machine: Machine, width: int) -> list[Line]:
    mean = sum(machine.cpu_percent) / len(machine.cpu_percent) / 100 if machine.cpu_percent else None
    each = "".join("▁▂▃▄▅▆▇█"[min(7, max(0, int(value / 12.5)))] for value in machine.cpu_percent)
    cpu: Line = [
        ["CPU", "header"],
        ["     " + _bar(mean), "green"],
        [f" {_percent(mean):>4} of {machine.cpus}", ""],
        [f"   load {' '.join(format_number(value, 3) for value in machine.load)}", "dim"],
    ]
    if len(each) + 50 < width:
        cpu.append([f"   {each}", "cyan"])
    used = machine.memory_used / machine.memory_total if machine.memory_total else None
    memory: Line = [
        ["MEMORY", "header"],
        ["  " + _bar(used), "yellow" if used is not None and used >= _FULL else "green"],
        [f" {_percent(used):>4}", ""],
        [f"   {format_bytes(machine.memory_used)} of {format_bytes(machine.memory_total)}", "dim"],
    ]
    if machine.swap_total:
        memory.append(
            [f"   swap {format_bytes(machine.swap_used)} of {format_bytes(machine.swap_total)}", "dim"]
        )
    return [cpu, memory]


def _disk_lines(disk: Disk, width: int) -> list[Line]:
    share = 1 - disk.free / disk.total if disk.free is not None and disk.total else None
    head: Line = [
        ["DISK", "header"],
        ["    " + _bar(share), "yellow" if share is not None and share >= _FULL else "green"],
        [f" {_percent(share):>4}", ""],
        [f"   {format_bytes(disk.free)} free of {format_bytes(disk.total)}", "dim"],
    ]
    if not disk.done:
        head.append([f"   looking: {disk.looked:,} of {disk.of:,} runs", "key"])
    lines = [head]
    if disk.trouble:
        lines.append([["  " + clean(disk.trouble, None), "error"]])
    whole = [
        ("files and logs of runs", disk.files),
        ("journals of runs", disk.journals),
        ("database", disk.database),
        ("patches and package lists", disk.blobs),
        (f"of these in the trash ({disk.trash_runs:,} runs)", disk.trash),
    ]
    lines += [[[f"  {format_bytes(size):>8}  ", ""], [name, "dim"]] for name, size in whole]
    if disk.experiments:
        lines.append([["  BY EXPERIMENT", "header"], ["   files   journals", "dim"]])
        widest = max(size + journals for _, _, size, journals in disk.experiments) or 1
        name_width = max(12, min(36, width - 58))
        for name, runs, size, journals in disk.experiments:
            lines.append(
                [
                    [f"  {format_bytes(size + journals):>8}  ", ""],
                    [_bar((size + journals) / widest) + "  ", "cyan"],
                    [pad(clip(clean(name), name_width), name_width), "bold"],
                    [
                        f"  {runs:,} run{'' if runs == 1 else 's'}  {format_bytes(size)} + {format_bytes(journals)}",
                        "dim",
                    ],
                ]
            )
    lines.append([["  mltrack gc --dry-run shows what can go", "dim"]])
    return lines


def _bar(share: float | None) -> str:
    return "·" * _BAR if share is None else draw_bar(share, _BAR)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def plain(lines: Sequence[Line]) -> list[str]:
    """Without styles."""
    return ["".join(text for text, _ in line).rstrip() for line in lines]

"""Stores of any size: many runs, all alike, each with a journal of its own."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

from mltrack.store.client.journal import encode_number, random_hex
from mltrack.store.demo.sweep import OWNERS
from mltrack.store.demo.writer import digest, machine

_STEP_MS = 1000
_RUN_MS = 10 * 60_000
_REPORT_EVERY = 1000
_OPTIMIZERS = ("adamw", "lion", "sgd", "muon")
_STATUSES = ("FINISHED",) * 17 + ("FAILED", "FAILED", "KILLED")


def write_bulk(
    root: Path,
    runs: int,
    *,
    points: int,
    metrics: int,
    seed: int,
    on_progress: Callable[[int], None] = lambda done: None,
    now_ms: int | None = None,
    summaries_only: bool = False,
    params: int = 5,
    experiments: int = 20,
) -> None:
    """`runs` ended runs with `metrics` metrics of `points` points each and 5 or more `params`, in turn in `experiments`.

    `summaries_only`: as after a copy that left the points out; tables and filters go by the summaries.

    Writes the same bytes as the client would, in two writes per run: at this size the calls are what costs.
    """
    now = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    chance = random.Random(seed)
    keys = [f"val/metric_{index:04d}" for index in range(metrics)]
    keys[:2] = ["val/acc", "train/loss"][: min(2, metrics)]
    prefixes = [f",{json.dumps(key)}," for key in keys]
    # Of a real configuration most is the same everywhere.
    more = [(f"model.layer_{number:03d}", number % 10 == 0) for number in range(params - 5)]
    hosts = [machine(f"node{index:02d}", 4000 + index) for index in range(16)]
    made: set[Path] = set()
    for folder in (root, root / "open", root / "runs"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for index in range(runs):
        _write_run(
            *(root, index, runs, points, keys, prefixes, hosts, chance, seed, now, made),
            *(summaries_only, more, experiments),
        )
        if (index + 1) % _REPORT_EVERY == 0:
            on_progress(index + 1)


def _write_run(
    root: Path,
    index: int,
    runs: int,
    points: int,
    keys: list[str],
    prefixes: list[str],
    hosts: list[dict[str, object]],
    chance: random.Random,
    seed: int,
    now: int,
    made: set[Path],
    summaries_only: bool,
    more: list[tuple[str, bool]],
    experiments: int,
) -> None:
    run_id = digest(seed, "bulk", index)[:32]
    start = now - (runs - index) * 60_000 - _RUN_MS
    status = _STATUSES[chance.randrange(len(_STATUSES))]
    lr, quality = 10 ** chance.uniform(-5, -2), chance.random()
    head = {
        "jid": random_hex(16),
        "run": run_id,
        "attempt": f"{start:013d}-{run_id[:6]}",
        "rank": 0,
        "role": "main",
        **hosts[index % len(hosts)],
        "time": start,
    }
    make = _ends if summaries_only else _points
    body, last = make(points, prefixes, chance, quality, start)
    points_text = json.dumps({"mltrack": 1, "kind": "points", **head}, separators=(",", ":")) + "\n" + body
    summary = {
        key: [
            0,
            points - 1,
            start + (points - 1) * _STEP_MS,
            value,
            low,
            low_step,
            high,
            high_step,
            points,
            0,
        ]
        for key, (value, low, low_step, high, high_step) in zip(keys, last, strict=True)
    }
    params = {
        "lr": f"{lr:.3g}",
        "batch_size": str(2 ** chance.randrange(4, 11)),
        "opt.name": _OPTIMIZERS[chance.randrange(4)],
        "seed": str(index),
        "layers": str(chance.randrange(2, 49)),
        **{key: str(index % 7) if differs else "64" for key, differs in more},
    }
    end = start + max(points, 1) * _STEP_MS
    failure = {} if status == "FINISHED" else {"reason": "exit code 1" if status == "FAILED" else "SIGTERM"}
    records: list[dict[str, object]] = [
        {
            **{
                "t": start,
                "op": "start",
                "name": f"run-{index:06d}",
                "experiment": f"bulk/exp-{index % experiments:02d}",
            },
            **{
                "user": OWNERS[index % len(OWNERS)],
                "resumed": False,
                "command": ["python", "train.py"],
                "total": points,
            },
        },
        {"t": start, "op": "param", "v": params},
        {"t": end, "op": "summary", "upto": len(points_text), "v": summary},
        {
            "t": end,
            "op": "end",
            "status": status,
            "exit": 0 if status == "FINISHED" else 1,
            "elapsed": end - start,
            **failure,
        },
        {"t": end, "op": "close", "points": len(points_text)},
    ]
    meta = [{"mltrack": 1, "kind": "meta", **head}, *records]
    folder = root / "runs" / run_id[:2] / run_id
    if folder.parent not in made:
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        made.add(folder.parent)
    folder.mkdir(mode=0o700)
    _create(root / "open" / f"{head['jid']}.{run_id}", "")
    _create(
        folder / f"meta.{head['jid']}.jsonl",
        "".join(json.dumps(record, separators=(",", ":")) + "\n" for record in meta),
    )
    if not summaries_only:
        _create(folder / f"points.{head['jid']}.jsonl", points_text)


def _points(
    points: int, prefixes: list[str], chance: random.Random, quality: float, start: int
) -> tuple[str, list[tuple[float, float, int, float, int]]]:
    """The lines of the points file, and per metric (last, min, its step, max, its step)."""
    count = len(prefixes)
    goals = [0.5 + 0.45 * quality + chance.gauss(0, 0.01) for _ in range(count)]
    last = [0.0] * count
    low, low_step = [float("inf")] * count, [0] * count
    high, high_step = [float("-inf")] * count, [0] * count
    lines: list[str] = []
    for step in range(points):
        parts = [f"[{step},{start + step * _STEP_MS}"]
        progress = (step + 1) / points
        for place in range(count):
            value = goals[place] * progress**0.3 if place != 1 else (1.2 - goals[place]) / progress**0.5
            value *= 1 + 0.01 * (chance.random() - 0.5)
            parts.append(prefixes[place] + encode_number(value))
            last[place] = value
            if value < low[place]:
                low[place], low_step[place] = value, step
            if value > high[place]:
                high[place], high_step[place] = value, step
        lines.append("".join(parts) + "]\n")
    return "".join(lines), list(zip(last, low, low_step, high, high_step, strict=True))


def _ends(
    points: int, prefixes: list[str], chance: random.Random, quality: float, start: int
) -> tuple[str, list[tuple[float, float, int, float, int]]]:
    """What points like those of `_points` would leave in the summaries, without making them."""
    last: list[tuple[float, float, int, float, int]] = []
    first = (1 / points) ** 0.3
    for place in range(len(prefixes)):
        end = (0.5 + 0.45 * quality) * (1 + 0.05 * (chance.random() - 0.5))
        if place != 1:
            last.append((end, end * first, 0, end, points - 1))
        else:
            last.append((1.2 - end, 1.2 - end, points - 1, (1.2 - end) / first, 0))
    return "", last


def _create(path: Path, text: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        if text:
            os.write(handle, text.encode("ascii"))
    finally:
        os.close(handle)

"""Curves that look like training: seeded, noisy, and with what goes wrong in life."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mltrack.store.demo.writer import Floats, Series, Whole

Random = np.random.Generator

TRAIN_EVERY = 20
VALIDATE_EVERY = 200


def random_for(seed: int, name: str) -> Random:
    """The random numbers of one run, the same for the same seed whatever else is made."""
    return np.random.default_rng([seed, *name.encode("utf-8", "surrogateescape")])


def train(random: Random, stop: int, *, lr: float, floor: float, pace: float, total: int) -> Series:
    """train/loss, lr with warm-up and cosine, grad_norm and speed, every 20 steps until `stop`."""
    steps = np.arange(0, stop, TRAIN_EVERY, dtype=np.int64)
    fall = np.exp(-steps / (pace * 1500.0))
    wander = np.cumsum(random.normal(0, 0.0006, len(steps)))
    loss = (
        floor + (4.2 - floor) * fall + wander * fall + random.normal(0, 0.012, len(steps)) * (0.4 + 2 * fall)
    )
    schedule = (
        lr * np.minimum(1.0, (steps + 1) / 500.0) * 0.5 * (1 + np.cos(np.pi * np.minimum(1.0, steps / total)))
    )
    norm = 0.8 + 6 * fall + random.gamma(2.0, 0.15, len(steps))
    speed = 1180 + random.normal(0, 14, len(steps))
    return _series(
        ("train/loss", "lr", "grad_norm", "images_per_second"),
        steps,
        np.maximum(loss, 0.01),
        schedule,
        norm,
        speed,
    )


def validate(random: Random, stop: int, *, best: float, peak: int, pace: float) -> Series:
    """val/acc that rises to `best` near step `peak` and sags a little after it, val/loss to match, every 200 steps."""
    steps = np.arange(0, stop, VALIDATE_EVERY, dtype=np.int64)
    rise = 1 - np.exp(-steps / (pace * 900.0))
    sag = 0.004 * np.maximum(0.0, (steps - peak) / max(1, peak)) ** 0.7
    noise = random.normal(0, 0.0015, len(steps)) * (1.5 - rise)
    accuracy = np.clip(0.1 + (best - 0.1) * rise - sag + noise, 0.01, best)
    if peak < stop and len(steps):
        accuracy[min(len(steps) - 1, peak // VALIDATE_EVERY)] = best
    loss = 0.18 + 2.2 * (1 - accuracy) + random.normal(0, 0.006, len(steps))
    return _series(("val/acc", "val/loss"), steps, accuracy, loss)


def hardware(random: Random, stop: int, gpu: int = 0) -> Series:
    """What the sampler would have seen. The numbers are made up, and the GPU says so by its name."""
    steps = np.arange(0, stop, 100, dtype=np.int64)
    util = np.clip(96 + random.normal(0, 2.5, len(steps)), 0, 100)
    memory = 71e9 + random.normal(0, 4e7, len(steps)).round()
    cpu = np.clip(180 + random.normal(0, 20, len(steps)), 0, None)
    keys = (f"system/gpu{gpu}/util", f"system/gpu{gpu}/memory_bytes", "system/cpu_percent")
    return _series(keys, steps, util, memory, cpu)


def with_spike(series: Series, key: str, at_step: int, factor: float, length: int = 6) -> Series:
    """The same with one spike that decays over `length` records."""
    values = series.values.copy()
    column = list(series.keys).index(key)
    start = int(np.searchsorted(series.steps, at_step))
    for offset in range(min(length, len(values) - start)):
        values[start + offset, column] *= 1 + (factor - 1) * 0.45**offset
    return Series(series.keys, series.steps, values)


def with_nan(series: Series, keys: tuple[str, ...], from_step: int, to_step: int) -> Series:
    """The same with NaN for some metrics over a range of steps."""
    values = series.values.copy()
    rows = (series.steps >= from_step) & (series.steps < to_step)
    for key in keys:
        values[rows, list(series.keys).index(key)] = np.nan
    return Series(series.keys, series.steps, values)


def _series(keys: tuple[str, ...], steps: Whole, *columns: Floats) -> Series:
    values: npt.NDArray[np.float64] = (
        np.column_stack(columns).astype(np.float64) if len(steps) else np.empty((0, len(keys)))
    )
    return Series(keys, steps, values)

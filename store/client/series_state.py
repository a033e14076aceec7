"""What the client remembers of each metric it logs: enough for a summary record, cheap enough for every log call."""

from __future__ import annotations

from math import inf


class SeriesState:
    """Running summary of one metric of one journal. ``prefix`` is the key's ready-made text in a points line."""

    __slots__ = (
        "count",
        "first_step",
        "key",
        "last",
        "last_step",
        "last_time",
        "max",
        "max_step",
        "min",
        "min_step",
        "nan",
        "next_step",
        "prefix",
        "reported",
    )

    def __init__(self, key: str, prefix: str, next_step: int = 0) -> None:
        self.key = key
        self.prefix = prefix
        self.count = 0
        self.reported = 0
        self.nan = 0
        self.first_step = 1 << 63
        self.last_step = -(1 << 63)
        self.last_time = -(1 << 63)
        self.last = 0.0
        self.min = inf
        self.min_step = 0
        self.max = -inf
        self.max_step = 0
        self.next_step = next_step

    def add(self, step: int, time_ms: int, value: float) -> None:
        """Count one point. The rule of points decides what is last: the largest (step, time, value)."""
        self.count += 1
        if step < self.first_step:
            self.first_step = step
        if step > self.last_step or (
            step == self.last_step and (time_ms, _order(value)) >= (self.last_time, _order(self.last))
        ):
            self.last_step = step
            self.last_time = time_ms
            self.last = value
        if step >= self.next_step:
            self.next_step = step + 1
        if value != value:
            self.nan += 1
            return
        if value < self.min or (value == self.min and step < self.min_step) or self.count - self.nan == 1:
            self.min = value
            self.min_step = step
        if value > self.max or (value == self.max and step < self.max_step) or self.count - self.nan == 1:
            self.max = value
            self.max_step = step

    def summary(self) -> list[object]:
        """The fields of a summary record; floats may be NaN or infinite, the writer quotes them."""
        empty = self.count == self.nan
        return [
            self.first_step,
            self.last_step,
            self.last_time,
            self.last,
            None if empty else self.min,
            None if empty else self.min_step,
            None if empty else self.max,
            None if empty else self.max_step,
            self.count,
            self.nan,
        ]


def _order(value: float) -> tuple[int, float]:
    """Sort key of a value at equal step and time: NaN below every number, so that it never hides one."""
    return (0, 0.0) if value != value else (1, value)

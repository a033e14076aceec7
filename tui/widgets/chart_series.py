"""A metric as a chart shows it: what the run's page says of it, its points in the window, and its figures as text."""

from __future__ import annotations

import base64
import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mltrack.tui.draw.braille import Curve
from mltrack.tui.draw.numbers import format_bytes, format_column, format_number, format_step
from mltrack.tui.draw.scales import Floats

_GLOB = frozenset("*?")
_REGEX = re.compile(r"[\^$()+\\{}]|\.\*|\.\?|\[")


@dataclass(eq=False)
class LineData:
    """One line of a chart: the points of one rank in the window, smoothed ones, and those that a later start replaced."""

    rank: int
    x: Floats
    y: Floats
    smooth: tuple[Floats, Floats] | None = None
    old: tuple[Floats, Floats] | None = None


@dataclass(eq=False)
class Series:
    """A metric of the run and, once they came, its lines."""

    key: str
    place: int
    """Its place among all metrics: what gives it its colour."""
    arrow: str = ""
    """Which way is good."""
    best: float | None = None
    best_step: int | None = None
    last: float | None = None
    count: int = 0
    nan: int = 0
    steps: tuple[float, float] = (0.0, 1.0)
    lines: list[LineData] = field(default_factory=list)
    ranks: int = 1
    ends: tuple[float, float] | None = None
    """Least and largest x of the whole series on the present axis."""
    came: bool = False
    version: int = 0

    def describe(self, line: Sequence[Any]) -> None:
        """Take what the run's page says: [key, best, step, last, count, NaN, first step, last step, arrow]."""
        _, best, step, last, count, nan, first_step, last_step, arrow = line
        self.arrow = str(arrow)
        self.best = None if best is None else float(best)
        self.best_step = None if step is None else int(step)
        self.last = None if last is None else float(last)
        self.count, self.nan = int(count), int(nan)
        self.steps = (float(first_step), float(last_step))

    def take(self, entry: Mapping[str, Any]) -> None:
        """Take the points that the worker sent."""
        self.lines = [
            LineData(
                int(line["rank"]),
                unpack(line["x"]),
                unpack(line["y"]),
                _pair(line.get("smooth")),
                _pair(line.get("old")),
            )
            for line in entry["lines"]
        ]
        self.ranks = int(entry["ranks"])
        self.ends = None if entry["ends"] is None else (float(entry["ends"][0]), float(entry["ends"][1]))
        self.came = True
        self.version += 1

    def curves(self) -> tuple[list[Curve], list[int]]:
        """What is drawn, and of which line each curve is; a smooth line makes its raw values faint."""
        curves: list[Curve] = []
        owners: list[int] = []
        for place, line in enumerate(self.lines):
            name = f"{self.key} {line.rank}"
            if line.old is not None:
                curves.append(Curve(name, *line.old, faint=True))
                owners.append(place)
            curves.append(Curve(name, line.x, line.y, faint=line.smooth is not None))
            owners.append(place)
            if line.smooth is not None:
                curves.append(Curve(name, *line.smooth))
                owners.append(place)
        return curves, owners

    def has_points(self) -> bool:
        """Whether anything is to be drawn."""
        return any(len(line.x) or line.old is not None for line in self.lines)

    def value_at(self, x: float) -> float | None:
        """The value at the point nearest to x; the extreme where several share its column."""
        if not self.lines or not len(self.lines[0].x):
            return None
        line = self.lines[0]
        place = int(np.searchsorted(line.x, x))
        near = min(
            (index for index in (place - 1, place) if 0 <= index < len(line.x)),
            key=lambda index: abs(float(line.x[index]) - x),
        )
        return float(line.y[near])

    def figures(self) -> tuple[str, str]:
        """("min .183 @38,100", "last .214")."""
        if self.key.endswith("_bytes") or self.key.endswith("/bytes"):
            best, last = format_bytes(self.best), format_bytes(self.last)
        else:
            best, last = format_column([self.best, self.last], 4, 6)
        word = "min" if self.arrow == "↓" else "best" if self.arrow else "max"
        first = "only NaN" if self.best is None else f"{word} {best} @{format_step(self.best_step)}"
        return first, f"last {last}"

    def shown_value(self, value: float | None) -> str:
        """A value of this metric on its own."""
        if value is not None and np.isfinite(value) and self.key.endswith("_bytes"):
            return format_bytes(value)
        return format_number(value)


def unpack(text: str) -> Floats:
    """Floats as the worker packs them."""
    return np.frombuffer(base64.b64decode(text), "<f8").astype(np.float64, copy=False)


def _pair(packed: Sequence[str] | None) -> tuple[Floats, Floats] | None:
    return None if packed is None else (unpack(packed[0]), unpack(packed[1]))


def key_matcher(pattern: str) -> Callable[[str], bool]:
    """Which metrics a filter means: parts of names, `val*|train/loss`, or a regular expression. Raises re.error."""
    pattern = pattern.strip()
    if _REGEX.search(pattern):
        found = re.compile(pattern, re.IGNORECASE)
        return lambda key: found.search(key) is not None
    parts = [part.strip().lower() for part in pattern.split("|") if part.strip()]

    def matches(key: str) -> bool:
        low = key.lower()
        return not parts or any(
            fnmatch.fnmatchcase(low, part) if _GLOB.intersection(part) else part in low for part in parts
        )

    return matches

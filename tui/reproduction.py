"""How near a second run came to the first, point by point. Pure: series in, words out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mltrack.tui.draw.numbers import format_change, format_number, format_step

Series = Sequence[tuple[int, float]]
"""(step, value) in order."""


@dataclass(frozen=True)
class MetricDifference:
    """One metric of two runs. ``points``: of the first and of the second; ``first_step`` is where they part."""

    key: str
    points: tuple[int, int]
    differing: int
    first_step: int | None
    last: tuple[float, float] | None
    largest: float
    """Largest distance of two values of one step; NaN when one of them is no number."""

    @property
    def equal(self) -> bool:
        """The same steps with the same bits."""
        return not self.differing and self.points[0] == self.points[1]


def differences(one: Mapping[str, Series], other: Mapping[str, Series]) -> list[MetricDifference]:
    """A difference for each metric of either run; those that differ first. system/* is the machine's, and left out."""
    keys = sorted(key for key in {*one, *other} if not key.startswith("system/"))
    found = [_difference(key, one.get(key, ()), other.get(key, ())) for key in keys]
    return sorted(found, key=lambda metric: (metric.equal, metric.key))


def _difference(key: str, one: Series, other: Series) -> MetricDifference:
    mine, theirs = dict(one), dict(other)
    apart = [step for step in sorted({*mine, *theirs}) if not _same(mine.get(step), theirs.get(step))]
    distances = [abs(mine[step] - theirs[step]) for step in apart if step in mine and step in theirs]
    largest = math.nan if any(math.isnan(value) for value in distances) else max(distances, default=0.0)
    last = (one[-1][1], other[-1][1]) if one and other else None
    return MetricDifference(
        key, (len(one), len(other)), len(apart), apart[0] if apart else None, last, largest
    )


def _same(left: float | None, right: float | None) -> bool:
    if left is None or right is None:
        return left is right
    return left == right or (math.isnan(left) and math.isnan(right))


def report_lines(found: Sequence[MetricDifference], names: tuple[str, str]) -> list[tuple[str, str]]:
    """(line, style) of the report."""
    equal = sum(metric.equal for metric in found)
    if not found:
        return [("Neither run logged a metric.", "yellow")]
    if equal == len(found):
        points = sum(metric.points[0] for metric in found)
        return [(f"All {len(found):,} metrics are equal to the last bit ({points:,} points).", "green")]
    lines = [(f"{equal:,} of {len(found):,} metrics are equal to the last bit.", "yellow")]
    for metric in found:
        if metric.equal:
            continue
        if metric.last is None:
            lines.append(
                (f"  {metric.key}: only {names[0] if metric.points[0] else names[1]} has it", "yellow")
            )
            continue
        first, second = metric.last
        change = format_change(second, first) if math.isfinite(first) and math.isfinite(second) else ""
        steps = format_step(metric.first_step) if metric.first_step is not None else "-"
        lines.append(
            (
                f"  {metric.key}: {metric.differing:,} of {max(metric.points):,} points differ, from step {steps}; "
                f"last {format_number(first)} then {format_number(second)}{f' ({change})' if change else ''}, "
                f"at most {format_number(metric.largest)} apart",
                "",
            )
        )
    return lines

"""A curve in one row of eighth blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence

BLOCKS = "▁▂▃▄▅▆▇█"
GAP = "·"
ASCII_BLOCKS = "_.-~=+*#"


def draw_sparkline(
    values: Sequence[float | None],
    width: int,
    *,
    low: float | None = None,
    high: float | None = None,
    whole: int | None = None,
) -> str:
    """`width` cells; each shows the mean of the finite values that fall into it, `·` where there is none.

    low and high fix the scale, so that rows can be compared; `whole` is how many values a full row would hold, so that a
    run which ended early stops early.
    """
    if width <= 0:
        return ""
    count = max(len(values), whole or 0)
    if count == 0:
        return GAP * width
    cells: list[float | None] = []
    for cell in range(width):
        start = cell * count // width
        stop = max(start + 1, (cell + 1) * count // width)
        inside = [value for value in values[start:stop] if value is not None and math.isfinite(value)]
        # Divided first: the sum of a few values near the largest float is infinite.
        cells.append(sum(value / len(inside) for value in inside) if inside else None)
    shown = [value for value in cells if value is not None]
    if not shown:
        return GAP * width
    bottom = min(shown) if low is None else low
    top = max(shown) if high is None else high
    # Halved first: the span of two huge values of opposite sign is beyond a float.
    span = top / 2 - bottom / 2
    return "".join(GAP if value is None else _block(value, bottom, span) for value in cells)


def draw_bar(fraction: float, width: int) -> str:
    """A progress bar, ▇▇▇▇▁▁▁; full only when it is full, empty only when nothing is done."""
    if math.isnan(fraction):
        fraction = 0.0
    fraction = min(1.0, max(0.0, fraction))
    filled = int(fraction * width)
    if 0 < fraction and filled == 0 and width > 1:
        filled = 1
    return "▇" * filled + "▁" * (width - filled)


def _block(value: float, bottom: float, half_span: float) -> str:
    if half_span <= 0:
        return BLOCKS[3]
    place = (value / 2 - bottom / 2) / half_span
    return BLOCKS[min(7, max(0, int(place * 8)))]

"""A long series as a picture of some width needs it: few points, but no spike and no gap lost."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
# How many powers of ten a block of the smoothing spans: far from what a float can hold.
_POWERS = 60.0
_LONG_STRETCH = 500


def bucket(
    x: Floats, y: Floats, columns: int, low: float | None = None, high: float | None = None
) -> tuple[Floats, Floats]:
    """At most ``columns`` pairs of lowest and highest value, each where it was, and a NaN where a column has none.

    ``x`` ascends; one point beyond each of ``low`` and ``high`` is kept, so that lines to them cross the picture. Between
    ``low`` and ``high`` the columns lie fixed: points that are added later change only the columns they fall into.
    """
    start = 0 if low is None else max(0, int(np.searchsorted(x, low, "left")) - 1)
    stop = len(x) if high is None else int(np.searchsorted(x, high, "right")) + 1
    x, y = x[start:stop], y[start:stop]
    columns = max(1, columns)
    if len(x) <= 3 * columns:
        return x, y
    first_x = float(x[0]) if low is None else low
    width = ((float(x[-1]) if high is None else high) - first_x) / columns
    edges = first_x + width * np.arange(columns) if width > 0 else np.empty(0)
    # The points beyond the edges have columns of their own.
    ends = [] if high is None else [int(np.searchsorted(x, high, "right"))]
    cuts = np.unique(np.concatenate(([0], np.searchsorted(x, edges, "left"), ends, [len(x)]))).astype(np.intp)
    kept = extremes(y, cuts[:-1])
    return x[kept], y[kept]


def extremes(y: Floats, starts: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Which of the values are the lowest, the highest or the first not finite of their stretch, in order of place.

    ``starts`` are where the stretches begin: ascending, the first is 0.
    """
    finite = np.isfinite(y)
    if bool(finite.all()):
        found = [_most(y, starts, False), _most(y, starts, True)]
    else:
        odd = np.flatnonzero(~finite)
        _, once = np.unique(np.searchsorted(starts, odd, "right"), return_index=True)
        found = [
            _most(np.where(finite, y, np.inf), starts, False),
            _most(np.where(finite, y, -np.inf), starts, True),
            odd[once],
        ]
    return np.unique(np.concatenate(found))


def _most(y: Floats, starts: npt.NDArray[np.intp], highest: bool) -> npt.NDArray[np.intp]:
    """The place of the first lowest, or highest, value of each stretch."""
    ends = np.append(starts[1:], len(y))
    if len(y) > _LONG_STRETCH * len(starts):
        places = zip(starts.tolist(), ends.tolist(), strict=True)
        argmost = np.argmax if highest else np.argmin
        return np.array([begin + int(argmost(y[begin:end])) for begin, end in places], np.intp)
    # Without Python code per stretch, at the price of a few passes over all values.
    most = (np.maximum if highest else np.minimum).reduceat(y, starts)
    at = np.flatnonzero(y == np.repeat(most, ends - starts))
    stretch = np.searchsorted(starts, at, "right")
    return at[np.concatenate(([True], stretch[1:] != stretch[:-1]))]


def smooth(y: Floats, weight: float) -> Floats:
    """Exponential mean without the bias of its start (0 <= weight < 1); it goes on behind NaN and infinities as if they
    had not been, and stays undefined where they are."""
    if weight <= 0:
        return y
    out = np.full(len(y), np.nan)
    finite = np.isfinite(y)
    values = y[finite]
    means = _means(values, weight)
    # What the start at zero takes away; soon it is less than a float can hold.
    biased = min(len(values), int(-17.0 / np.log10(weight)) + 1)
    means[:biased] /= 1.0 - weight ** np.arange(1.0, biased + 1.0)
    out[finite] = means
    return out


def _means(values: Floats, weight: float) -> Floats:
    """mean[n] = weight * mean[n - 1] + (1 - weight) * values[n], from 0; a block at a time without Python code per value."""
    length = max(1, min(4096, int(-_POWERS / np.log10(weight))))
    powers = weight ** np.arange(1.0, length + 1.0)
    means = np.empty(len(values))
    mean = 0.0
    # Divided, so that the sum of a block of the largest floats is finite.
    scale = max(1.0, float(np.abs(values).max(initial=0.0)) * 1e-100)
    for start in range(0, len(values), length):
        block = values[start : start + length] / scale
        fall = powers[: len(block)]
        inside = np.cumsum(block * ((1.0 - weight) / fall)) * fall + mean * fall
        means[start : start + length] = inside
        mean = float(inside[-1])
    return means * scale

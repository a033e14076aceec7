"""A long series as a picture of some width needs it: few points, but no spike and no gap lost."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def bucket(
    x: Floats, y: Floats, columns: int, low: float | None = None, high: float | None = None
) -> tuple[Floats, Floats]:
    """At most ``columns`` pairs of lowest and highest value, each where it was, and a NaN where a column has none.

    ``x`` ascends; one point beyond each of ``low`` and ``high`` is kept, so that lines to them cross the picture.
    """
    start = 0 if low is None else max(0, int(np.searchsorted(x, low, "left")) - 1)
    stop = len(x) if high is None else int(np.searchsorted(x, high, "right")) + 1
    x, y = x[start:stop], y[start:stop]
    columns = max(1, columns)
    if len(x) <= 3 * columns:
        return x, y
    width = (x[-1] - x[0]) / columns
    place = np.zeros(len(x), np.int64) if width <= 0 else ((x - x[0]) / width).astype(np.int64)
    np.minimum(place, columns - 1, out=place)
    first = np.flatnonzero(np.concatenate(([True], place[1:] != place[:-1])))
    finite = np.isfinite(y)
    lowest = _places_of(np.where(finite, y, np.inf), first, np.minimum)
    highest = _places_of(np.where(finite, y, -np.inf), first, np.maximum)
    chosen = [lowest, highest]
    if not finite.all():
        odd = np.flatnonzero(~finite)
        _, once = np.unique(place[odd], return_index=True)
        chosen.append(odd[once])
    kept = np.unique(np.concatenate(chosen))
    return x[kept], y[kept]


def smooth(y: Floats, weight: float) -> Floats:
    """Exponential mean without the bias of its start (0 <= weight < 1); it goes on behind NaN and infinities as if they
    had not been, and stays undefined where they are."""
    if weight <= 0:
        return y
    out = np.full(len(y), np.nan)
    mean, norm = 0.0, 0.0
    finite = np.isfinite(y)
    smoothed: list[float] = []
    for value in y[finite].tolist():
        mean = weight * mean + (1 - weight) * value
        norm = weight * norm + (1 - weight)
        smoothed.append(mean / norm)
    out[finite] = smoothed
    return out


def _places_of(y: Floats, first: npt.NDArray[np.intp], extreme: np.ufunc) -> npt.NDArray[np.intp]:
    """The index of each bucket's extreme."""
    values = extreme.reduceat(y, first)
    lengths = np.diff(np.append(first, len(y)))
    hits = np.flatnonzero(y == np.repeat(values, lengths))
    bucket_of = np.searchsorted(first, hits, "right") - 1
    _, once = np.unique(bucket_of, return_index=True)
    return hits[once]

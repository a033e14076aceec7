"""What happened in a series: stretches of NaN and infinities, spikes and drops. Places in the series, never times."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# A point is a spike when it is this many times the usual noise of its surroundings away from their middle...
_NOISES = 12.0
# ... and at least this share of what the whole series does.
_SHARE = 0.2
_BLOCKS = 256
_SMALLEST_BLOCK = 8
_MOST_SPIKES = 20


@dataclass(frozen=True, slots=True)
class CurveEvent:
    """``kind`` is nan, inf, spike or drop. ``first`` and ``last`` are indices of points, ``peak`` of the most extreme one.

    ``factor`` is the peak over the level around it where that makes sense, else None; ``count`` the points it spans.
    """

    kind: str
    first: int
    last: int
    peak: int
    count: int
    factor: float | None = None


def find_events(values: Floats) -> list[CurveEvent]:
    """The events of a series in order of place."""
    found = _stretches(np.isnan(values), "nan") + _stretches(np.isinf(values), "inf") + _spikes(values)
    return sorted(found, key=lambda event: event.first)


def _stretches(marked: npt.NDArray[np.bool_], kind: str) -> list[CurveEvent]:
    places = np.flatnonzero(marked)
    if not len(places):
        return []
    breaks = np.flatnonzero(np.diff(places) > 1)
    firsts = places[np.concatenate(([0], breaks + 1))]
    lasts = places[np.append(breaks, len(places) - 1)]
    return [
        CurveEvent(kind, first, last, first, last - first + 1)
        for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True)
    ]


def _spikes(values: Floats) -> list[CurveEvent]:
    """Points far from the median of the points around them, neighbours as one event, the largest few."""
    places = np.flatnonzero(np.isfinite(values))
    if len(places) < 4 * _SMALLEST_BLOCK:
        return []
    y = values[places]
    # Divided, so that differences of the largest floats are finite.
    scale = float(np.abs(y).max())
    if scale == 0:
        return []
    y = y / scale
    length = max(_SMALLEST_BLOCK, -(-len(y) // _BLOCKS))
    whole = len(y) // length
    blocks = y[: whole * length].reshape(whole, length)
    medians = np.median(blocks, axis=1)
    middles = (np.arange(whole) + 0.5) * length - 0.5
    # A curve that falls steeply is no spike: between the blocks' middles its level is a line.
    level = np.interp(np.arange(len(y)), middles, medians)
    away = y - level
    noise = np.median(np.abs(away[: whole * length].reshape(whole, length)), axis=1)
    # The noise around a block is that of the quieter side twice over, or a lone loud block would hide its own spike.
    padded = np.pad(noise, 2, mode="edge")
    around = np.median(np.lib.stride_tricks.sliding_window_view(padded, 5), axis=1)
    usual = np.interp(np.arange(len(y)), middles, around)
    span = float(np.quantile(medians, 0.98) - np.quantile(medians, 0.02))
    limit = np.maximum(_NOISES * usual, _SHARE * span)
    beyond = np.flatnonzero((np.abs(away) > limit) & (np.abs(away) > 1e-12))
    if not len(beyond):
        return []
    gap = max(2, length // 4)
    breaks = np.flatnonzero(np.diff(beyond) > gap)
    starts = np.concatenate(([0], breaks + 1))
    ends = np.append(breaks, len(beyond) - 1)
    events: list[tuple[float, CurveEvent]] = []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        members = beyond[start : end + 1]
        peak = int(members[np.argmax(np.abs(away[members]))])
        # More than a block is no spike any more, it is where the curve went.
        before, after = int(members[0]) - 1, int(members[-1]) + 1
        if after - before > length + 1 or before < middles[0]:
            continue
        # A bend of a schedule is far from a median too, but not from its neighbours.
        beside = y[[before, after]] if after < len(y) else y[[before]]
        if float(np.abs(y[peak] - beside).min()) < 0.5 * limit[peak]:
            continue
        factor = float(y[peak] / level[peak]) if level[peak] > 0 and y[peak] > level[peak] else None
        kind = "spike" if away[peak] > 0 else "drop"
        event = CurveEvent(
            kind, int(places[members[0]]), int(places[members[-1]]), int(places[peak]), len(members), factor
        )
        events.append((float(np.abs(away[peak]) / max(float(limit[peak]), 1e-300)), event))
    events.sort(key=lambda pair: -pair[0])
    return [event for _, event in events[:_MOST_SPIKES]]

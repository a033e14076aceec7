"""Which part of the x axis is shown, and where the cursor is. Plain arithmetic: no widget, no data."""

from __future__ import annotations

import math
from collections.abc import Callable

_LEAST_SHARE = 1e-9
# A live axis ends a little behind the last point, so that a new one does not move all others.
_HEADROOM = 0.03


class ChartWindow:
    """The window of all charts of a run. ``ends`` are the least and largest x there is."""

    def __init__(self) -> None:
        self.ends: tuple[float, float] | None = None
        self.zoomed: tuple[float, float] | None = None
        """What is shown; None is all of it."""
        self.cursor: float | None = None
        self.live = False
        self._reach: float | None = None

    def forget(self) -> None:
        """Other data, or another axis: nothing is known."""
        self.ends = self.zoomed = self.cursor = self._reach = None

    def set_ends(self, low: float, high: float, live: bool) -> None:
        """There is data from ``low`` to ``high``; a zoomed window whose right edge was the end goes on with it."""
        if not (math.isfinite(low) and math.isfinite(high)) or low > high:
            return
        before = self.ends
        self.ends = (low, high)
        self.live = live
        if not live:
            self._reach = None
        elif self._reach is None or not high <= self._reach <= high + (high - low):
            self._reach = high + _HEADROOM * (high - low)
        if live and before is not None and self.zoomed is not None and self.zoomed[1] >= before[1]:
            shift = high - before[1]
            if shift > 0 and high > self.zoomed[1]:
                self.zoomed = (self.zoomed[0] + shift, self.zoomed[1] + shift)

    @property
    def range(self) -> tuple[float, float]:
        """What is shown, from where to where; wider than nothing."""
        if self.zoomed is not None:
            return self.zoomed
        low, high = self.ends or (0.0, 1.0)
        if self._reach is not None:
            high = self._reach
        return (low, high) if high > low else (low, low + max(1.0, abs(low) * 1e-6))

    def column(self, x: float, columns: int) -> int | None:
        """In which of so many columns x lies; None outside of the window."""
        low, high = self.range
        if not low <= x <= high:
            return None
        # As the curves' dots lie: two to a column.
        return round((x - low) / (high - low) * (2 * columns - 1)) // 2

    def move(self, columns: int, inside: int) -> None:
        """The cursor by so many of ``inside`` columns; it appears at the end. The window pans along."""
        low, high = self.range
        if self.cursor is None:
            self.move_to(min(high, (self.ends or (low, high))[1]))
        else:
            self.move_to(self.cursor + columns * (high - low) / max(1, inside - 1))

    def move_to(self, x: float) -> None:
        """The cursor to x; the window pans along."""
        first, last = self.ends or self.range
        x = min(max(x, first), last)
        self.cursor = x
        if self.zoomed is None:
            return
        low, high = self.zoomed
        if not low <= x <= high:
            span = high - low
            # A step beyond the edge pans by that step; a leap puts what it leapt to in the middle.
            near = min(abs(x - low), abs(x - high)) <= span / 2
            start = (x if x < low else x - span) if near else x - span / 2
            start = min(max(first, start), max(first, last - span))
            self.zoomed = (start, start + span)

    def zoom(self, factor: float) -> None:
        """Show ``factor`` times what is shown, around the cursor, else around the middle."""
        first, last = self.ends or self.range
        low, high = self.range
        whole = last - first
        span = (high - low) * factor
        if span >= whole:
            self.zoomed = None
            return
        span = max(span, whole * _LEAST_SHARE, abs(last) * 1e-13)
        middle = self.cursor if self.cursor is not None and low <= self.cursor <= high else (low + high) / 2
        start = middle - (middle - low) / (high - low) * span
        start = min(max(first, start), last - span)
        self.zoomed = (start, start + span)

    def map(self, place: Callable[[float], float | None]) -> None:
        """The same part on another axis; ``place`` says where a point of this one lies there."""
        zoomed, cursor = self.zoomed, self.cursor
        self.forget()
        if cursor is not None:
            self.cursor = place(cursor)
        if zoomed is not None:
            low, high = place(zoomed[0]), place(zoomed[1])
            self.zoomed = (low, high) if low is not None and high is not None and low < high else None

"""Series that a screen looks at, kept in the worker: panning and zooming read no database."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence

from mltrack.store.curve import Floats, bucket
from mltrack.store.records import Points
from mltrack.store.series import PointColumns
from mltrack.store.store import Store
from mltrack.store.zoom import Zoom

# 25 bytes each: at most 300 MB, and only when somebody looks at ten series of a million points.
_MOST_POINTS = 12_000_000
# Reading long series again and again while a run goes on takes at most this share of the worker's time.
_SHARE = 0.2
# 75 kB each for a series of 100,000 points.
_MOST_OUTLINES = 1000

OutlinedCurve = tuple[Floats, Floats, tuple[float, float]]


class SeriesMemory:
    """The last series asked for, as long as their run has not changed; a little longer where reading them takes long."""

    def __init__(self, most_points: int = _MOST_POINTS) -> None:
        self._most_points = most_points
        self._kept: OrderedDict[tuple[str, str], tuple[int, list[Points]]] = OrderedDict()
        self._points = 0
        self._rest_until = 0.0

    def series(self, store: Store, run_id: str, keys: Sequence[str]) -> dict[str, list[Points]]:
        """The series of these metrics by rank, superseded points included; keys without points are left out."""
        sequence = store.sequence(run_id)
        absent = [key for key in keys if (run_id, key) not in self._kept]
        changed = [key for key in keys if self._kept.get((run_id, key), (sequence,))[0] != sequence]
        began = time.monotonic()
        missing = absent + (changed if began >= self._rest_until else [])
        if missing:
            read = store.many_series(run_id, missing)
            if changed:
                spent = time.monotonic() - began
                self._rest_until = began + spent / _SHARE
            for key in missing:
                self._keep(run_id, key, sequence, read.get(key, []))
        found: dict[str, list[Points]] = {}
        for key in keys:
            kept = self._kept.get((run_id, key))
            if kept is not None and kept[1]:
                self._kept.move_to_end((run_id, key))
                found[key] = kept[1]
        self._shrink(len(keys))
        return found

    def has(self, store: Store, run_id: str, key: str) -> bool:
        """Whether the points of a metric are here as they are now."""
        kept = self._kept.get((run_id, key))
        return kept is not None and kept[0] == store.sequence(run_id)

    def _keep(self, run_id: str, key: str, sequence: int, series: list[Points]) -> None:
        old = self._kept.pop((run_id, key), None)
        if old is not None:
            self._points -= _count(old[1])
        self._kept[run_id, key] = (sequence, series)
        self._points += _count(series)

    def _shrink(self, at_least: int) -> None:
        while self._points > self._most_points and len(self._kept) > at_least:
            _, (_, series) = self._kept.popitem(last=False)
            self._points -= _count(series)


class OutlineMemory:
    """The last outlines asked for, as long as their run has not changed."""

    def __init__(self, most: int = _MOST_OUTLINES) -> None:
        self._most = most
        self._kept: OrderedDict[tuple[str, str], tuple[int, Zoom | None]] = OrderedDict()
        self._loose: tuple[str, int, PointColumns] | None = None
        self._ranks: tuple[str, int, bool] | None = None

    def outline(self, store: Store, run_id: str, key: str) -> Zoom | None:
        """The outline of a series; None where all points have to be read. Raises RunNotFound."""
        sequence = store.sequence(run_id)
        kept = self._kept.get((run_id, key))
        if kept is None or kept[0] != sequence:
            # Asked for one key after the other, or one run after the other: a run has few points that lie loose.
            if self._loose is None or self._loose[:2] != (run_id, sequence):
                self._loose = run_id, sequence, store.loose_points(run_id)
            kept = self._kept[run_id, key] = sequence, store.outline(run_id, key, self._loose[2])
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)
        self._kept.move_to_end((run_id, key))
        return kept[1]

    def of_one_rank(self, store: Store, run_id: str) -> bool:
        """Whether rank 0 is all that the run has."""
        sequence = store.sequence(run_id)
        if self._ranks is None or self._ranks[:2] != (run_id, sequence):
            self._ranks = run_id, sequence, store.details(run_id).ranks == (0,)
        return self._ranks[2]

    def curve(
        self, store: Store, run_id: str, key: str, columns: int, low: float | None, high: float | None
    ) -> OutlinedCurve | None:
        """As `bucket` of all points with their first and last step; None where there is no outline, or a picture of so few
        points that they are better read. Raises RunNotFound."""
        outline = self.outline(store, run_id, key)
        if outline is None:
            return None
        curve = outline.curve(columns, low, high)
        if curve is None and low is not None and high is not None:
            near = outline.filled(*store.outlined_points(run_id, key, low, high))
            curve = bucket(*near, columns, low, high)
        return None if curve is None else (*curve, (float(outline.steps[0]), float(outline.steps[-1])))


def _count(series: Sequence[Points]) -> int:
    return sum(len(points.values) for points in series)


outlines = OutlineMemory()
memory = SeriesMemory()
"""Those of this process: a worker serves one store to one screen."""

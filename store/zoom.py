"""A long series in outline: lowest and highest of every 64 points, kept beside its chunks, so that a picture of a hundred
thousand points reads three thousand.

Whatever an outline cannot say exactly (several attempts, steps logged twice, points out of order, chunks that an older
mltrack wrote) has none, and is read point by point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mltrack.store.curve import extremes
from mltrack.store.series import Floats, Ints, PointColumns, decode_block, encode_block

GROUP = 64
# A column of a picture begins where a group does: of so many groups to a column nobody sees the difference.
_GROUPS_PER_COLUMN = 3


def encode_zoom(points: PointColumns) -> bytes | None:
    """The outline of a chunk, whose points are in order; None when a step comes twice.

    A block like others, with the number of the group where others have the key. Of each group it has the lowest, the highest
    and the first that is not finite; of the chunk also the first and the last, so that curves begin and end where they do.
    """
    if (points.step[1:] <= points.step[:-1]).any():
        return None
    count = len(points)
    rows = extremes(points.value, np.arange(0, count, GROUP))
    rows = np.unique(np.concatenate(([0], rows, [count - 1])))
    kept = points.take(rows)
    return encode_block(
        PointColumns(rows // GROUP, kept.rank, kept.attempt, kept.step, kept.time, kept.value), small=True
    )


@dataclass(frozen=True, slots=True, eq=False)
class Zoom:
    """Points of a series, steps ascending, in groups: no point that was left out lies below or above those of its group."""

    steps: Ints
    times_ms: Ints
    values: Floats
    starts: npt.NDArray[np.intp]
    """Where the groups begin."""

    def curve(self, columns: int, low: float | None, high: float | None) -> tuple[Floats, Floats] | None:
        """As `curve.bucket` of all points, in columns of whole groups; None when there are too few groups for so many columns."""
        steps, starts = self.steps, self.starts
        begins = steps[starts]
        # With a group beyond each edge, so that lines to it cross the picture.
        first = 0 if low is None else max(0, int(np.searchsorted(begins, low, "right")) - 2)
        stop = len(starts) if high is None else int(np.searchsorted(begins, high, "right")) + 1
        stop = min(stop, len(starts))
        if stop - first < _GROUPS_PER_COLUMN * columns:
            return None
        begin, end = int(starts[first]), int(starts[stop]) if stop < len(starts) else len(steps)
        begins = begins[first:stop]
        left = float(begins[0]) if low is None else low
        width = ((float(steps[-1]) if high is None else high) - left) / columns
        cuts = np.searchsorted(begins, left + width * np.arange(columns), "left")
        edges = [0, *([] if high is None else [int(np.searchsorted(begins, high, "right"))])]
        cuts = np.unique(np.concatenate((edges, cuts))).astype(np.intp)
        cuts = starts[first:stop][cuts[cuts < len(begins)]] - begin
        values = self.values[begin:end]
        rows = extremes(values, cuts)
        # What a curve begins and ends with is a point of its own.
        rows = np.unique(np.concatenate(([0], rows, [len(values) - 1])))
        return steps[begin:end][rows].astype(np.float64), values[rows]

    def filled(self, steps: Ints, values: Floats) -> tuple[Floats, Floats]:
        """The curve with all of these points of the series in their places: exact there, and with neighbours on both sides."""
        joined, at = np.unique(np.concatenate((self.steps, steps)), return_index=True)
        return joined.astype(np.float64), np.concatenate((self.values, values))[at]


@dataclass(frozen=True, slots=True)
class Chunk:
    """What is known of a chunk beside its points and its outline."""

    first_step: int
    last_step: int
    count: int
    low: float | None
    high: float | None

    def has(self, outline: PointColumns) -> bool:
        """Whether an outline may be of this chunk: it ends where that does, and reaches as far."""
        if not len(outline) or int(outline.key[-1]) != (self.count - 1) // GROUP:
            return False
        if (int(outline.step[0]), int(outline.step[-1])) != (self.first_step, self.last_step):
            return False
        # Of a group's infinities only the first value that is not finite has to be here.
        values = outline.value[np.isfinite(outline.value)]
        for bound, found in ((self.low, np.min), (self.high, np.max)):
            if bound is not None and np.isfinite(bound) and not (len(values) and found(values) == bound):
                return False
        return True


def decode_zoom(parts: Sequence[bytes], tail: PointColumns, chunks: Sequence[Chunk] = ()) -> Zoom | None:
    """The outlines of a series' chunks and the points behind them as one; None when they are damaged, empty, not in order or
    not of these ``chunks``."""
    try:
        blocks = [decode_block(part) for part in parts]
    except ValueError:
        return None
    if not all(chunk.has(block) for chunk, block in zip(chunks, blocks, strict=False)):
        return None
    # Groups count from 0 in each chunk; a point behind them is a group of its own.
    groups = [block.key for block in blocks] + [np.arange(len(tail), dtype=np.int64)]
    blocks.append(tail)
    steps = np.concatenate([block.step for block in blocks])
    if not len(steps) or (steps[1:] <= steps[:-1]).any():
        return None
    group = np.concatenate(groups)
    return Zoom(
        steps,
        np.concatenate([block.time for block in blocks]),
        np.concatenate([block.value for block in blocks]),
        # A chunk has more than one group, so that the next one's first is another.
        np.flatnonzero(np.concatenate(([True], group[1:] != group[:-1]))),
    )

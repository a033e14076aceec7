"""Curves as dots: two by four to a cell of braille, a spike of one point among a million still drawn.

Cost follows the number of points once (a few milliseconds per million), then only the size of the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mltrack.tui.draw.scales import Floats, Scale

# Bit of each dot within its cell, by row and column, as Unicode numbers them.
_DOT_BITS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]], dtype=np.uint8)


@dataclass(frozen=True)
class Curve:
    """One line: x and y of equal length; y may hold NaN and infinities, x is finite. A faint one lies under the others."""

    name: str
    x: Floats
    y: Floats
    faint: bool = False


def thin(curves: Sequence[Curve], low: float, high: float, columns: int) -> list[Curve]:
    """The same picture of at most ``columns`` dots across from four points a column: its first, lowest, highest and last.

    Curves that are short, hold anything not finite, or go back in x stay as they are.
    """
    thinned: list[Curve] = []
    ascending: dict[int, bool] = {}  # series of one run often share their x
    for curve in curves:
        x, y = curve.x, curve.y
        if len(x) <= 8 * columns or not low < high:
            thinned.append(curve)
            continue
        if id(x) not in ascending:
            ascending[id(x)] = bool((x[:-1] <= x[1:]).all())
        # One pass that meets every value: anything not finite shows in the sum.
        with np.errstate(over="ignore", invalid="ignore"):
            whole = ascending[id(x)] and bool(np.isfinite(np.add.reduce(y)))
        if not whole:
            thinned.append(curve)
            continue
        # One point beyond each edge is kept: the line to it crosses the picture.
        start = max(0, int(np.searchsorted(x, low, "left")) - 1)
        stop = min(len(x), int(np.searchsorted(x, high, "right")) + 1)
        edges = low + (np.arange(columns + 1) - 0.5) / (columns - 1) * (high - low)
        firsts = np.unique(np.concatenate(([start], np.searchsorted(x, edges, "left"))))
        firsts = firsts[(firsts >= start) & (firsts < stop)]
        lasts = np.append(firsts[1:], stop) - 1
        inside = y[start:stop]
        lowest = np.minimum.reduceat(inside, firsts - start)
        highest = np.maximum.reduceat(inside, firsts - start)
        places = np.stack((x[firsts], x[firsts], x[lasts], x[lasts]), axis=1).ravel()
        values = np.stack((y[firsts], lowest, highest, y[lasts]), axis=1).ravel()
        thinned.append(Curve(curve.name, places, values, curve.faint))
    return thinned


def rasterize(
    curves: Sequence[Curve], width: int, height: int, x_scale: Scale, y_scale: Scale
) -> tuple[NDArray[np.uint8], NDArray[np.int16]]:
    """(dots[height, width] of braille bits, owner[height, width]): the curve with most dots in the cell, -1 for none.

    Faint curves show only in cells that no other goes through: a smooth line over its raw values stays thin.
    """
    dots = np.zeros((height, width), dtype=np.uint8)
    owner = np.full((height, width), -1, dtype=np.int16)
    most = np.zeros((height, width), dtype=np.uint8)
    under = np.zeros((height, width), dtype=np.uint8)
    for index, curve in enumerate(curves):
        pixels = _trace(curve, width * 2, height * 4, x_scale, y_scale)
        blocks = pixels.reshape(height, 4, width, 2)
        bits = np.einsum("hrwc,rc->hw", blocks, _DOT_BITS, dtype=np.uint8)
        counts = blocks.sum(axis=(1, 3), dtype=np.uint8)
        if curve.faint:
            under |= bits
            owner[(counts > 0) & (most == 0)] = index
            continue
        dots |= bits
        wins = counts > most
        owner[wins] = index
        most[wins] = counts[wins]
    return np.where(most > 0, dots, under), owner


def _trace(curve: Curve, columns: int, rows: int, x_scale: Scale, y_scale: Scale) -> NDArray[np.bool_]:
    """The curve as pixels[rows, columns], the top row first."""
    canvas = np.zeros((rows, columns), dtype=np.bool_)
    x, y = curve.x, curve.y
    if len(x) > 1 and bool((x[1:] < x[:-1]).any()):
        order = np.argsort(x, kind="stable")
        x, y = x[order], y[order]
    if len(x) and (x[0] < x_scale.low or x[-1] > x_scale.high):
        # One point beyond each edge is kept: the line to it crosses the picture.
        start = max(0, int(np.searchsorted(x, x_scale.low, "left")) - 1)
        stop = int(np.searchsorted(x, x_scale.high, "right")) + 1
        x, y = x[start:stop], y[start:stop]
    place = y_scale.place(y)
    whole = np.isfinite(place)
    stretch = np.zeros(0, dtype=np.int64)
    if not whole.all():
        # A line is drawn only within a stretch without a gap.
        stretch = np.cumsum(~whole)[whole]
        x, place = x[whole], place[whole]
    if not len(x):
        return canvas
    across = np.clip(x_scale.place(x), -1e6, 1e6) * (columns - 1)
    up = np.clip(place, -1.0, 2.0) * (rows - 1)

    column = np.rint(across).astype(np.int64)
    changes = column[1:] != column[:-1]
    if len(stretch):
        changes |= stretch[1:] != stretch[:-1]
    first = np.concatenate(([0], np.flatnonzero(changes) + 1))
    last = np.concatenate((first[1:] - 1, [len(column) - 1]))
    at = column[first]
    lows, highs = np.minimum.reduceat(up, first), np.maximum.reduceat(up, first)

    # From the last point of one column to the first of the next, each column in between gets its part of the line.
    joined = np.ones(max(0, len(first) - 1), dtype=np.bool_)
    if len(stretch):
        joined = stretch[last[:-1]] == stretch[first[1:]]
    from_x, to_x = at[:-1][joined], at[1:][joined]
    from_y, to_y = up[last[:-1]][joined], up[first[1:]][joined]
    seen = (to_x >= 0) & (from_x < columns) & (to_x > from_x)
    from_x, to_x, from_y, to_y = from_x[seen], to_x[seen], from_y[seen], to_y[seen]
    begin = np.maximum(from_x, 0)
    lengths = np.maximum(np.minimum(to_x, columns - 1) - begin + 1, 0)
    which = np.repeat(np.arange(len(lengths)), lengths)
    offset = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    line_columns = begin[which] + offset
    slope = (to_y - from_y) / (to_x - from_x)
    before = np.maximum(line_columns - 0.5, from_x[which]) - from_x[which]
    after = np.minimum(line_columns + 0.5, to_x[which]) - from_x[which]
    enter = from_y[which] + slope[which] * before
    leave = from_y[which] + slope[which] * after

    # A flat piece takes one dot per column, a steep one the dots from its lower end up to before its upper end: the next
    # column goes on there, and the line stays thin.
    line_lows, line_highs = np.minimum(enter, leave), np.maximum(enter, leave)
    flat = np.rint((enter + leave) / 2)
    steep = np.abs(slope[which]) > 1
    line_lows = np.where(steep, np.ceil(line_lows), flat)
    line_highs = np.where(steep, np.maximum(np.ceil(line_highs) - 1, line_lows), flat)

    all_columns = np.concatenate((at, line_columns))
    bottom = np.concatenate((np.rint(lows), line_lows)).astype(np.int64)
    top = np.concatenate((np.rint(highs), line_highs)).astype(np.int64)
    inside = (all_columns >= 0) & (all_columns < columns) & (top >= 0) & (bottom < rows)
    all_columns, bottom, top = (
        all_columns[inside],
        bottom[inside].clip(0, rows - 1),
        top[inside].clip(0, rows - 1),
    )
    # A difference along each column, summed up, fills every vertical stroke at once.
    strokes = np.zeros((rows + 1, columns), dtype=np.int32)
    np.add.at(strokes, (bottom, all_columns), 1)
    np.add.at(strokes, (top + 1, all_columns), -1)
    canvas[:] = np.cumsum(strokes, axis=0)[rows - 1 :: -1] > 0
    return canvas

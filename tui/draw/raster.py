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

# So many pixels, of all curves together, are in memory at once, eight bytes each.
_PIXELS_AT_ONCE = 1 << 20


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
    shape = (height, width)
    dots, under = np.zeros(shape, dtype=np.uint8), np.zeros(shape, dtype=np.uint8)
    owner, owner_under = np.full(shape, -1, dtype=np.int16), np.full(shape, -1, dtype=np.int16)
    most = np.zeros(shape, dtype=np.uint8)
    for faint in (True, False):
        places = [place for place, curve in enumerate(curves) if curve.faint == faint and len(curve.x)]
        at_once = max(1, _PIXELS_AT_ONCE // (8 * width * height))
        for start in range(0, len(places), at_once):
            some = np.array(places[start : start + at_once], dtype=np.int16)
            pixels = _trace([curves[place] for place in some], width * 2, height * 4, x_scale, y_scale)
            blocks = pixels.reshape(len(some), height, 4, width, 2)
            bits = np.einsum("khrwc,rc->khw", blocks, _DOT_BITS, dtype=np.uint8)
            if faint:
                under |= np.bitwise_or.reduce(bits)
                last = len(some) - 1 - np.argmax(bits[::-1] > 0, axis=0)
                owner_under = np.where(bits.any(axis=0), some[last], owner_under)
                continue
            dots |= np.bitwise_or.reduce(bits)
            counts = blocks.sum(axis=(2, 4), dtype=np.uint8)
            wins = counts.max(axis=0) > most
            owner[wins] = some[counts.argmax(axis=0)][wins]
            most = np.maximum(most, counts.max(axis=0))
    return np.where(most > 0, dots, under), np.where(most > 0, owner, owner_under)


def _trace(
    curves: Sequence[Curve], columns: int, rows: int, x_scale: Scale, y_scale: Scale
) -> NDArray[np.bool_]:
    """The curves, none of them empty, as pixels[curve, rows, columns], the top row first.

    All in one go: what a short curve costs is the calls and not the points.
    """
    x = np.concatenate([curve.x for curve in curves])
    y = np.concatenate([curve.y for curve in curves])
    of = np.repeat(np.arange(len(curves)), [len(curve.x) for curve in curves])
    same = of[1:] == of[:-1]
    if bool(((x[1:] < x[:-1]) & same).any()):
        order = np.lexsort((x, of))
        x, y = x[order], y[order]
    left, right = x < x_scale.low, x > x_scale.high
    outside = left | right
    if outside.any():
        # One point beyond each edge is kept: the line to it crosses the picture.
        kept = ~outside
        kept[:-1] |= left[:-1] & ~(left[1:] & same)
        kept[1:] |= right[1:] & ~(right[:-1] & same)
        kept[-1] |= left[-1]
        kept[0] |= right[0]
        x, y, of = x[kept], y[kept], of[kept]
    place = y_scale.place(y)
    whole = np.isfinite(place)
    # A line is drawn only within a stretch of one curve without a gap.
    stretch = of
    if not whole.all():
        stretch = (of + np.cumsum(~whole))[whole]
        x, place, of = x[whole], place[whole], of[whole]
    if not len(x):
        return np.zeros((len(curves), rows, columns), dtype=np.bool_)
    across = np.clip(x_scale.place(x), -1e6, 1e6) * (columns - 1)
    up = np.clip(place, -1.0, 2.0) * (rows - 1)

    column = np.rint(across).astype(np.int64)
    changes = (column[1:] != column[:-1]) | (stretch[1:] != stretch[:-1])
    first = np.concatenate(([0], np.flatnonzero(changes) + 1))
    last = np.concatenate((first[1:] - 1, [len(column) - 1]))
    at = column[first]
    lows, highs = np.minimum.reduceat(up, first), np.maximum.reduceat(up, first)

    # From the last point of one column to the first of the next, each column in between gets its part of the line.
    from_x, to_x = at[:-1], at[1:]
    joined = stretch[last[:-1]] == stretch[first[1:]]
    seen = np.flatnonzero(joined & (to_x >= 0) & (from_x < columns) & (to_x > from_x))
    from_x, to_x = from_x[seen], to_x[seen]
    from_y, to_y = up[last[seen]], up[first[seen + 1]]
    begin = np.maximum(from_x, 0)
    lengths = np.maximum(np.minimum(to_x, columns - 1) - begin + 1, 0)
    which = np.repeat(np.arange(len(lengths)), lengths)
    offset = np.arange(len(which)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    line_columns = begin[which] + offset
    slope = (to_y - from_y) / (to_x - from_x)
    starts, slopes = from_x[which], slope[which]
    before = np.maximum(line_columns - 0.5, starts) - starts
    after = np.minimum(line_columns + 0.5, to_x[which]) - starts
    enter = from_y[which] + slopes * before
    leave = from_y[which] + slopes * after

    # A flat piece takes one dot per column, a steep one the dots from its lower end up to before its upper end: the next
    # column goes on there, and the line stays thin.
    line_lows, line_highs = np.minimum(enter, leave), np.maximum(enter, leave)
    flat = np.rint((enter + leave) / 2)
    steep = np.abs(slopes) > 1
    line_lows = np.where(steep, np.ceil(line_lows), flat)
    line_highs = np.where(steep, np.maximum(np.ceil(line_highs) - 1, line_lows), flat)

    all_of = np.concatenate((of[first], of[last[seen]][which]))
    all_columns = np.concatenate((at, line_columns))
    bottom = np.concatenate((np.rint(lows), line_lows)).astype(np.int64)
    top = np.concatenate((np.rint(highs), line_highs)).astype(np.int64)
    inside = (all_columns >= 0) & (all_columns < columns) & (top >= 0) & (bottom < rows)
    bottom, top = bottom[inside].clip(0, rows - 1), top[inside].clip(0, rows - 1)
    base = all_of[inside] * ((rows + 1) * columns) + all_columns[inside]
    # A difference along each column, summed up, fills every vertical stroke at once.
    size = len(curves) * (rows + 1) * columns
    strokes = np.bincount(base + bottom * columns, minlength=size)
    strokes -= np.bincount(base + (top + 1) * columns, minlength=size)
    filled = strokes.reshape(len(curves), rows + 1, columns).cumsum(axis=1) > 0
    return filled[:, rows - 1 :: -1]

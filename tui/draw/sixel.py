"""Pictures for terminals that draw sixels, a row of cells at a time: a row that is painted again brings its piece along. Pure."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mltrack.tui.draw.png import Pixels

# A terminal has at least so many colours; of a photograph the most frequent are taken.
_COLOURS = 192
_EXACT = 256
_BAND = 6
_LEAST_RUN = 4

Indices = npt.NDArray[np.int64]


def rows_of(pixels: Pixels, cell_height: int) -> list[str]:
    """A picture (uint8 [height, width, 3]) as one sequence for each row of cells, without what moves the cursor there."""
    palette, picked = _palette(pixels)
    return [
        _sixel(picked[top : top + cell_height], palette) for top in range(0, picked.shape[0], cell_height)
    ]


def _palette(pixels: Pixels) -> tuple[npt.NDArray[np.int64], Indices]:
    """(colours [n, 3], the place of each pixel's colour among them)."""
    whole = pixels.astype(np.int64)
    packed = (whole[..., 0] << 16) | (whole[..., 1] << 8) | whole[..., 2]
    exact, places = np.unique(packed, return_inverse=True)
    if len(exact) <= _EXACT:
        colours = np.stack((exact >> 16, (exact >> 8) & 255, exact & 255), axis=1)
        return colours, places.reshape(packed.shape)
    # Bins of 8 x 8 x 8 colours: the fullest stand for themselves, each other one for the nearest of those.
    bins = ((whole[..., 0] >> 3) << 10) | ((whole[..., 1] >> 3) << 5) | (whole[..., 2] >> 3)
    counts = np.bincount(bins.ravel(), minlength=1 << 15)
    used = np.flatnonzero(counts)
    means = (
        np.stack(
            [
                np.bincount(bins.ravel(), weights=whole[..., part].ravel(), minlength=1 << 15)[used]
                for part in range(3)
            ],
            axis=1,
        )
        / counts[used, None]
    )
    kept = np.argsort(-counts[used], kind="stable")[:_COLOURS]
    colours = np.rint(means[kept]).astype(np.int64)
    # |a - b|^2 without the square of a, which is the same for all b.
    nearest = np.argmin((colours**2).sum(axis=1)[None, :] - 2 * means @ colours.T, axis=1)
    place_of = np.zeros(1 << 15, np.int64)
    place_of[used] = nearest
    return colours, place_of[bins]


def _sixel(picked: Indices, palette: npt.NDArray[np.int64]) -> str:
    """One device control string: the colours that are used, then bands of six rows, each a colour at a time."""
    height, width = picked.shape
    used = np.unique(picked)
    parts = [f'\x1bP0;1;0q"1;1;{width};{height}']
    for place in used.tolist():
        red, green, blue = (round(part * 100 / 255) for part in palette[place].tolist())
        parts.append(f"#{place};2;{red};{green};{blue}")
    for top in range(0, height, _BAND):
        band = picked[top : top + _BAND]
        weights = (1 << np.arange(len(band)))[:, None]
        lines = [
            f"#{place}" + _runs(((band == place) * weights).sum(axis=0)) for place in np.unique(band).tolist()
        ]
        parts.append("$".join(lines) + "-")
    return "".join(parts).removesuffix("-") + "\x1b\\"


def _runs(bits: npt.NDArray[np.int64]) -> str:
    """The dots of a colour in a band, equal neighbours as a count."""
    starts = np.concatenate(([0], np.flatnonzero(bits[1:] != bits[:-1]) + 1))
    lengths = np.diff(np.append(starts, len(bits)))
    pairs = list(zip(lengths.tolist(), bits[starts].tolist(), strict=True))
    if pairs and not pairs[-1][1]:
        pairs.pop()  # nothing needs to be said of what lies behind the last dot
    return "".join(
        f"!{length}{chr(63 + value)}" if length >= _LEAST_RUN else chr(63 + value) * length
        for length, value in pairs
    )

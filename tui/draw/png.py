"""PNG files to pixels without an image library: what training code logs is seen in any installation. Pure.

Of eight bits a channel, not interlaced, and not larger than a few megapixels; everything else is None, and for others to read.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
_MAGIC = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_MOST_BYTES = 16 << 20
# Every row is a step of Python's.
_MOST_PIXELS = 16_384
# Two of the filters go byte by byte, in Python.
MOST_SLOW_BYTES = 1 << 20
_ROW_COSTS = 32


def resized(pixels: Pixels, wide: int, high: int) -> Pixels:
    """The picture in another size, each pixel the nearest of what there is: small pictures keep their sharp edges."""
    height, width = pixels.shape[:2]
    if (width, height) == (wide, high):
        return pixels
    return pixels[np.ix_(np.arange(high) * height // high, np.arange(wide) * width // wide)]


@dataclass
class Budget:
    """What may still be done in Python, byte by byte, for pictures that are shown together; a row costs as much as a few bytes."""

    left: int = MOST_SLOW_BYTES

    def spend(self, cost: int) -> bool:
        """Whether there was so much left; then it is gone."""
        if cost > self.left:
            return False
        self.left -= cost
        return True


def decode_png(data: bytes, budget: Budget | None = None) -> Pixels | None:
    """Red, green and blue by row and column; transparency is left out. None also for what the ``budget`` does not allow."""
    if not data.startswith(_MAGIC) or data[12:16] != b"IHDR" or len(data) < 33:
        return None
    width, height, depth, kind, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    channels = _CHANNELS.get(kind)
    if channels is None or depth != 8 or interlaced or not width or not height:
        return None
    if max(width, height) > _MOST_PIXELS:
        return None
    size = height * (width * channels + 1)
    if size > _MOST_BYTES:
        return None
    parts: dict[bytes, list[bytes]] = {b"PLTE": [], b"IDAT": []}
    for name, body in _chunks(data):
        if name in parts:
            parts[name].append(body)
    try:
        raw = zlib.decompressobj().decompress(b"".join(parts[b"IDAT"]), size)
    except zlib.error:
        return None
    if len(raw) != size:
        return None
    rows = _unfiltered(np.frombuffer(raw, np.uint8).reshape(height, -1), channels, budget or Budget())
    if rows is None:
        return None
    pixels = rows.reshape(height, width, channels)
    if kind == 3:
        palette = np.frombuffer(b"".join(parts[b"PLTE"]), np.uint8)
        if not len(palette) or len(palette) % 3 or int(pixels.max()) >= len(palette) // 3:
            return None
        return palette.reshape(-1, 3)[pixels[..., 0]]
    return np.repeat(pixels[..., :1], 3, axis=2) if channels < 3 else pixels[..., :3]


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(_MAGIC)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        yield data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        at += 12 + length


def _unfiltered(raw: Pixels, channels: int, budget: Budget) -> Pixels | None:
    """The rows without what made them compress well; None for a filter that does not exist, or too many that take long."""
    kinds = raw[:, 0]
    width = raw.shape[1] - 1
    if kinds.max() > 4 or not budget.spend(int((kinds > 2).sum()) * width + len(kinds) * _ROW_COSTS):
        return None
    rows = raw[:, 1:].copy()
    above = np.zeros(width, np.uint8)
    for kind, row in zip(kinds.tolist(), rows, strict=True):
        if kind == 1:
            row[:] = np.cumsum(row.reshape(-1, channels), axis=0, dtype=np.uint8).reshape(-1)
        elif kind == 2:
            row += above
        elif kind > 2:
            row[:] = _slow(kind, row.tolist(), above.tolist(), channels)
        above = row
    return rows


def _slow(kind: int, row: list[int], above: list[int], channels: int) -> list[int]:
    """The average of left and above, or whichever of left, above and above left is nearest to their sum (Paeth)."""
    for place, value in enumerate(row):
        left = row[place - channels] if place >= channels else 0
        up = above[place]
        if kind == 3:
            guess = (left + up) // 2
        else:
            corner = above[place - channels] if place >= channels else 0
            to_left, to_up, to_corner = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
            guess = (
                left if to_left <= to_up and to_left <= to_corner else up if to_up <= to_corner else corner
            )
        row[place] = (value + guess) & 255
    return row

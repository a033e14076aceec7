"""Pictures as pixels on their way from the store's process to a terminal that draws them. Standard library only."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp")
# What the screen's process takes: more than it ever asks for, and far from what would hurt it.
_MOST_PIXELS = 4 << 20
_MOST_CELLS = 1000
_LONGEST_SIDE = 16_384


@dataclass(frozen=True)
class Canvas:
    """What a terminal that draws pixels can take: how large its cells are, and how many pixels a page of pictures may have."""

    cell: tuple[int, int]
    most: int


def canvas_of(asked: Sequence[int] | None) -> Canvas | None:
    """A canvas as a screen asks for it: width and height of a cell, and how many pixels."""
    if asked is None:
        return None
    width, height, most = (max(1, int(number)) for number in asked)
    return Canvas((min(width, 200), min(height, 200)), min(most, _MOST_PIXELS))


@dataclass(frozen=True)
class Raster:
    """A picture that lies over so many cells, where it is ``wide`` x ``high`` pixels large."""

    columns: int
    rows: int
    wide: int
    high: int
    across: int
    down: int
    """The pixels that there are: no more than in the file."""
    pixels: bytes
    """Red, green and blue of each, row by row."""

    def packed(self) -> list[Any]:
        """As JSON has it."""
        text = base64.b64encode(zlib.compress(self.pixels, 1)).decode()
        return [self.columns, self.rows, self.wide, self.high, self.across, self.down, text]


@dataclass(frozen=True)
class Placed:
    """A picture, from a line and a column of a page on."""

    line: int
    column: int
    raster: Raster


def placed(answer: Iterable[Sequence[Any]], left: int, above: int = 0) -> list[Placed]:
    """The pictures of an answer, so many cells further right and lines further down; what is none is left out."""
    found = [(line, column, unpacked(packed)) for line, column, *packed in answer]
    return [
        Placed(int(line) + above, int(column) + left, raster)
        for line, column, raster in found
        if raster is not None
    ]


def is_picture(path: str) -> bool:
    """Whether a file's name says that it is a picture."""
    return path.lower().endswith(PICTURE_ENDINGS)


def unpacked(packed: Sequence[Any]) -> Raster | None:
    """A picture as it came from the store's process, which may be another machine's; None when it is none."""
    *numbers, text = packed
    if len(numbers) != 6 or any(type(number) is not int or number < 1 for number in numbers):
        return None
    columns, rows, wide, high, across, down = numbers
    if max(columns, rows) > _MOST_CELLS or max(wide, high) > _LONGEST_SIDE:
        return None
    if max(across * down, wide * high) > _MOST_PIXELS:
        return None
    size = across * down * 3
    try:
        pixels = zlib.decompressobj().decompress(base64.b64decode(str(text), validate=True), size + 1)
    except (binascii.Error, zlib.error, ValueError):
        return None
    return Raster(columns, rows, wide, high, across, down, pixels) if len(pixels) == size else None

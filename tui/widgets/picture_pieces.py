"""Pictures as a terminal is sent them, cut into what lies on each line of a page. Pure."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mltrack.tui.draw import kitty, sixel
from mltrack.tui.draw.png import Pixels, resized

if TYPE_CHECKING:
    from mltrack.tui.raster import Placed, Raster


@dataclass(frozen=True)
class Piece:
    """What of a picture lies on one line: cells of text in the colour that is its ``number``, or (0) sixels over blanks."""

    column: int
    columns: int
    number: int
    text: str


@dataclass(frozen=True)
class Made:
    """Pictures ready for the terminal."""

    pieces: dict[int, list[Piece]]
    """By line."""
    sent: str = ""
    """What the terminal has to be sent before."""
    numbers: tuple[int, ...] = ()
    """What it has to forget afterwards."""


def made_for(
    kind: str, cell_height: int, pictures: Sequence[Placed], many_colours: bool, taken: Sequence[int]
) -> Made:
    """Pictures for a terminal of this kind, whose cells are so high; ``taken`` are the numbers that it has pictures under."""
    if kind != "kitty":
        return _as_sixels(pictures, cell_height)
    return _for_kitty(pictures, _numbers(len(pictures), many_colours, taken))


def _for_kitty(pictures: Sequence[Placed], numbers: Sequence[int]) -> Made:
    pieces: dict[int, list[Piece]] = {}
    sent: list[str] = []
    for picture, number in zip(pictures, numbers, strict=False):
        raster = picture.raster
        rows = min(raster.rows, kitty.MOST_ROWS)
        sent.append(kitty.transmission(_grown(raster), number, raster.columns, rows))
        for row in range(rows):
            piece = Piece(picture.column, raster.columns, number, kitty.cells(row, raster.columns))
            pieces.setdefault(picture.line + row, []).append(piece)
    return Made(pieces, "".join(sent), tuple(numbers))


def _as_sixels(pictures: Sequence[Placed], cell_height: int) -> Made:
    pieces: dict[int, list[Piece]] = {}
    for picture in pictures:
        rows = sixel.rows_of(_grown(picture.raster), cell_height)
        for row, text in enumerate(rows[: picture.raster.rows]):
            piece = Piece(picture.column, picture.raster.columns, 0, text)
            pieces.setdefault(picture.line + row, []).append(piece)
    return Made(pieces)


def _grown(raster: Raster) -> Pixels:
    """The picture as large as it is shown: terminals would blur what is small."""
    pixels = np.frombuffer(raster.pixels, np.uint8).reshape(raster.down, raster.across, 3)
    return resized(pixels, raster.wide, raster.high)


def _numbers(count: int, many_colours: bool, taken: Sequence[int]) -> list[int]:
    """Numbers for pictures that no other program in this terminal is likely to have."""
    low, high = (1 << 16, 1 << 24) if many_colours else (16, 256)
    free = [number for number in random.sample(range(low, high), count + len(taken)) if number not in taken]
    return free[:count]

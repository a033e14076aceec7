"""Pictures for terminals that speak kitty's graphics protocol: sent once, then laid out as text. Pure.

The picture goes to the terminal under a number. Where it is seen are cells of one private character, whose colour is that number
and whose combining marks are the row and column of the picture; so whatever moves, covers or removes text does so with
pictures. https://sw.kovidgoyal.net/kitty/graphics-protocol/#unicode-placeholders
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterator

import numpy as np

from mltrack.tui.draw.png import Pixels

CELL = "\U0010eeee"
# Kitty's list of marks in its order: the n-th says row (or column) n. Of 297 as many as a screen may have rows.
_MARKS = (
    "\u0305\u030d\u030e\u0310\u0312\u033d\u033e\u033f\u0346\u034a\u034b\u034c\u0350\u0351\u0352\u0357\u035b\u0363\u0364\u0365"
    "\u0366\u0367\u0368\u0369\u036a\u036b\u036c\u036d\u036e\u036f\u0483\u0484\u0485\u0486\u0487\u0592\u0593\u0594\u0595\u0597"
    "\u0598\u0599\u059c\u059d\u059e\u059f\u05a0\u05a1\u05a8\u05a9\u05ab\u05ac\u05af\u05c4\u0610\u0611\u0612\u0613\u0614\u0615"
    "\u0616\u0617\u0657\u0658\u0659\u065a\u065b\u065d\u065e\u06d6\u06d7\u06d8\u06d9\u06da\u06db\u06dc\u06df\u06e0\u06e1\u06e2"
    "\u06e4\u06e7\u06e8\u06eb\u06ec\u0730\u0732\u0733\u0735\u0736\u073a\u073d\u073f\u0740\u0741\u0743\u0745\u0747\u0749\u074a"
)
MOST_ROWS = len(_MARKS)
# Bytes of one piece of a picture in an escape sequence.
_CHUNK = 4096


def transmission(pixels: Pixels, number: int, columns: int, rows: int) -> str:
    """The sequences that give a terminal a picture (uint8 [height, width, 3]) under a number, to be laid out over so many cells.

    The terminal answers nothing.
    """
    text = base64.b64encode(_png(pixels)).decode()
    pieces = [text[start : start + _CHUNK] for start in range(0, len(text), _CHUNK)]
    made: list[str] = []
    for place, piece in enumerate(pieces):
        first = f"a=T,U=1,f=100,t=d,q=2,i={number},c={columns},r={rows}," if place == 0 else ""
        made.append(f"\x1b_G{first}m={int(place < len(pieces) - 1)};{piece}\x1b\\")
    return "".join(made)


def removal(number: int) -> str:
    """The sequence that makes a terminal forget a picture."""
    return f"\x1b_Ga=d,d=I,q=2,i={number}\x1b\\"


def cells(row: int, columns: int) -> str:
    """The text that shows a row of a picture. Each cell but the first goes on where the one left of it is."""
    return CELL + _MARKS[row] + _MARKS[0] + CELL * (columns - 1)


def _png(pixels: Pixels) -> bytes:
    """Each row as differences from the pixel at its left, which is small for drawings and photographs."""
    height, width = pixels.shape[:2]
    rows = np.empty((height, 1 + width * 3), np.uint8)
    rows[:, 0] = 1
    rows[:, 1:4] = pixels[:, 0]
    rows[:, 4:] = (pixels[:, 1:] - pixels[:, :-1]).reshape(height, -1)
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows.tobytes(), 6 if rows.size < 1 << 20 else 1)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunks(parts))


def _chunks(parts: tuple[tuple[bytes, bytes], ...]) -> Iterator[bytes]:
    for name, body in parts:
        yield struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

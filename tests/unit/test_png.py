"""PNG files are read without an image library: every filter and kind of pixel, and nothing else pretends to be read."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltrack.tui.draw.png import Budget, decode_png

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def paeth(left: int, up: int, corner: int) -> int:
    guess = left + up - corner
    return min((abs(guess - left), 0, left), (abs(guess - up), 1, up), (abs(guess - corner), 2, corner))[2]


def write_png(
    rows: list[list[int]], width: int, kind: int, filters: list[int], palette: bytes = b""
) -> bytes:
    """As any encoder may, with a filter for each row."""
    step = CHANNELS[kind]
    raw = bytearray()
    above = [0] * len(rows[0])
    for row, filter in zip(rows, filters, strict=True):
        raw.append(filter)
        for place, value in enumerate(row):
            left = row[place - step] if place >= step else 0
            corner = above[place - step] if place >= step else 0
            up = above[place]
            guess = (0, left, up, (left + up) // 2, paeth(left, up, corner))[filter]
            raw.append((value - guess) & 255)
        above = row
    header = struct.pack(">IIBBBBB", width, len(rows), 8, kind, 0, 0, 0)
    data = zlib.compress(bytes(raw))
    parts = [chunk(b"IHDR", header), chunk(b"tEXt", b"a\0b")]
    parts += [chunk(b"PLTE", palette)] if palette else []
    parts += [chunk(b"IDAT", data[:5]), chunk(b"IDAT", data[5:]), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@st.composite
def pictures(draw: st.DrawFn) -> tuple[list[list[int]], int, int, list[int]]:
    kind = draw(st.sampled_from([0, 2, 4, 6]))
    width, height = draw(st.integers(1, 7)), draw(st.integers(1, 6))
    row = st.lists(st.integers(0, 255), min_size=width * CHANNELS[kind], max_size=width * CHANNELS[kind])
    rows = draw(st.lists(row, min_size=height, max_size=height))
    filters = draw(st.lists(st.integers(0, 4), min_size=height, max_size=height))
    return rows, width, kind, filters


@given(pictures())
def test_every_filter_gives_the_pixels_back(picture: tuple[list[list[int]], int, int, list[int]]) -> None:
    rows, width, kind, filters = picture
    found = decode_png(write_png(rows, width, kind, filters))
    assert found is not None and found.shape == (len(rows), width, 3)
    pixels = np.array(rows, np.uint8).reshape(len(rows), width, CHANNELS[kind])
    expected = pixels[..., :3] if CHANNELS[kind] > 2 else np.repeat(pixels[..., :1], 3, axis=2)
    assert (found == expected).all()


def test_a_palette_names_the_colours() -> None:
    found = decode_png(write_png([[1, 0]], 2, 3, [0], b"\x01\x02\x03\x0a\x0b\x0c"))
    assert found is not None and found.tolist() == [[[10, 11, 12], [1, 2, 3]]]
    assert decode_png(write_png([[2, 0]], 2, 3, [0], b"\x01\x02\x03\x0a\x0b\x0c")) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:20],
        lambda data: data[:45],
        lambda data: data[:16] + b"\xff\xff\xff\xff" + data[20:],  # four billion pixels wide
        lambda data: data[:24] + b"\x10" + data[25:],  # sixteen bits
        lambda data: data[:28] + b"\x01" + data[29:],  # interlaced
        lambda data: data.replace(b"IDAT", b"IDOT"),
        lambda data: b"GIF89a" + data,
    ],
)
def test_what_is_no_such_picture_is_none(damage: object) -> None:
    good = write_png([[1, 2, 3]], 1, 2, [0])
    assert decode_png(good) is not None
    assert decode_png(damage(good)) is None  # type: ignore[operator]


def test_a_picture_that_would_take_long_is_refused() -> None:
    header = struct.pack(">IIBBBBB", 1, 8_388_600, 8, 0, 0, 0, 0)
    tall = zlib.compress(bytes(2 * 8_388_600))
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", tall) + chunk(b"IEND", b"")
    assert decode_png(b"\x89PNG\r\n\x1a\n" + parts) is None


def test_pictures_that_are_shown_together_share_what_may_be_done_slowly() -> None:
    slow = write_png([[7] * 300] * 4, 100, 2, [4] * 4)
    budget = Budget(4 * 300 * 2)
    assert [decode_png(slow, budget) is not None for _ in range(3)] == [True, False, False]
    assert decode_png(slow) is not None


def test_a_picture_in_a_hundred_thousand_pieces_is_put_together_once() -> None:
    rows = bytes(1 + 3) * 2
    data = zlib.compress(rows)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 2, 8, 2, 0, 0, 0))
    pieces = b"".join(chunk(b"IDAT", data[place : place + 1]) for place in range(len(data)))
    found = decode_png(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") * 100_000 + pieces)
    assert found is not None and found.shape == (2, 1, 3)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_picture_or_none(data: bytes) -> None:
    header = struct.pack(">IIBBBBB", 3, 2, 8, 2, 0, 0, 0)
    decode_png(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data)
    decode_png(data)

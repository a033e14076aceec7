"""Pictures for terminals that draw pixels: what is sent is read back, and what the terminal says of itself is believed no further
than it goes."""

from __future__ import annotations

import base64
import re
import zlib

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mltrack.tui import config, entry
from mltrack.tui.clean import clean
from mltrack.tui.draw import kitty, sixel
from mltrack.tui.draw.png import Pixels, decode_png, resized
from mltrack.tui.graphics import Graphics, take_replies
from mltrack.tui.raster import Raster, canvas_of, unpacked

_SIXEL = re.compile(r'\x1bP0;1;0q"1;1;(\d+);(\d+)([#0-9;!$\-?-~]*)\x1b\\')


def read_sixels(text: str) -> npt.NDArray[np.int64]:
    """A picture of sixels as [height, width, 3] of 0..100, -1 where nothing was drawn."""
    found = _SIXEL.fullmatch(text)
    assert found is not None, text[:80]
    width, height = int(found[1]), int(found[2])
    drawn = np.full((height + 6, width, 3), -1, np.int64)
    colours: dict[int, tuple[int, ...]] = {}
    at = top = colour = 0
    for token in re.finditer(r"#(\d+);2;(\d+);(\d+);(\d+)|#(\d+)|!(\d+)([?-~])|([?-~])|([$-])", found[3]):
        if token[1]:
            colours[int(token[1])] = (int(token[2]), int(token[3]), int(token[4]))
        elif token[5]:
            colour = int(token[5])
        elif token[9]:
            at, top = 0, top + (6 if token[9] == "-" else 0)
        else:
            count, bits = int(token[6] or 1), ord(token[7] or token[8]) - 63
            for row in range(6):
                if bits >> row & 1:
                    drawn[top + row, at : at + count] = colours[colour]
            at += count
    assert (drawn[height:] == -1).all()
    return drawn[:height]


def picture(width: int, height: int, colours: int, seed: int = 1) -> Pixels:
    random = np.random.default_rng(seed)
    palette = random.integers(0, 256, (colours, 3), np.uint8)
    return palette[random.integers(0, colours, (height, width))]


@given(st.integers(1, 40), st.integers(1, 50), st.integers(1, 256), st.integers(4, 30))
@settings(max_examples=60, deadline=None)
def test_sixels_are_the_picture_row_by_row(width: int, height: int, colours: int, cell: int) -> None:
    pixels = picture(width, height, colours)
    rows = sixel.rows_of(pixels, cell)
    assert len(rows) == -(-height // cell)
    drawn = np.concatenate([read_sixels(row) for row in rows])
    # The terminal is told of colours in hundredths.
    assert np.array_equal(drawn, np.rint(pixels.astype(float) * 100 / 255).astype(np.int64))


def test_photographs_are_drawn_in_the_colours_they_have_most_of() -> None:
    rows, columns = np.mgrid[0:60, 0:80]
    pixels = np.stack((rows * 4, columns * 3, (rows + columns) * 1.5), axis=2).clip(0, 255).astype(np.uint8)
    drawn = np.concatenate([read_sixels(row) for row in sixel.rows_of(pixels, 20)])
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) <= 192
    assert np.abs(drawn - pixels.astype(float) * 100 / 255).mean() < 5


def test_kittys_pictures_are_whole_and_in_pieces() -> None:
    pixels = picture(90, 70, 5000)
    sent = kitty.transmission(pixels, 77, 9, 4)
    parts = re.findall(r"\x1b_G([^;]*);([A-Za-z0-9+/=]*)\x1b\\", sent)
    assert "".join(f"\x1b_G{head};{body}\x1b\\" for head, body in parts) == sent
    assert parts[0][0] == "a=T,U=1,f=100,t=d,q=2,i=77,c=9,r=4,m=1"
    assert [head for head, _ in parts[1:]] == ["m=1"] * (len(parts) - 2) + ["m=0"]
    assert all(len(body) <= 4096 and len(body) % 4 == 0 for _, body in parts)
    decoded = decode_png(base64.b64decode("".join(body for _, body in parts)))
    assert decoded is not None and np.array_equal(decoded, pixels)
    assert kitty.cells(3, 5).count(kitty.CELL) == 5
    assert len({kitty.cells(row, 1) for row in range(kitty.MOST_ROWS)}) == kitty.MOST_ROWS


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 60), st.integers(1, 60))
def test_growing_keeps_edges_sharp(width: int, height: int, wide: int, high: int) -> None:
    pixels = picture(width, height, 9)
    grown = resized(pixels, wide, high)
    assert grown.shape == (high, wide, 3)
    assert np.array_equal(grown[0, 0], pixels[0, 0])
    if wide >= width and high >= height:
        assert len(np.unique(grown.reshape(-1, 3), axis=0)) == len(np.unique(pixels.reshape(-1, 3), axis=0))


def test_a_picture_from_the_stores_process_is_what_it_says_or_none() -> None:
    whole = Raster(2, 1, 20, 20, 2, 3, bytes(range(18))).packed()
    assert unpacked(whole) == Raster(2, 1, 20, 20, 2, 3, bytes(range(18)))
    bomb = base64.b64encode(zlib.compress(bytes(50_000_000))).decode()
    for place, value in (
        (0, 0), (1, 2000), (2, -1), (2, 1 << 20), (4, 3), (5, 1 << 40), (0, 2.5), (0, True),
        (6, "\x1b[31m"), (6, "AAAA"), (6, bomb), (6, None),
    ):  # fmt: skip
        assert unpacked([*whole[:place], value, *whole[place + 1 :]]) is None, (place, value)
    assert unpacked(whole[:-2]) is None
    canvas = canvas_of([10_000, 0, 1 << 60])
    assert canvas is not None and canvas.cell == (200, 1) and canvas.most <= 1 << 22
    assert canvas_of(None) is None


def test_a_name_cannot_hold_a_piece_of_a_picture() -> None:
    assert kitty.CELL not in clean(f"a{kitty.cells(0, 2)}b") and "U+10EEEE" in clean(kitty.CELL)


# -- what the terminal says


REPLIES = ("\x1b[6;20;10t", "\x1bP>|kitty(0.36.4)\x1b\\", "\x1b_Gi=31;OK\x1b\\", "\x1b[?62;4;22c")


@given(
    st.lists(st.sampled_from([*REPLIES, "h", "\x1b[A", "\x1b[1;5C", "é", "\x1b[200~x\x1b[201~"]), max_size=8),
    st.data(),
)
def test_answers_are_told_from_keys_however_they_come_in(pieces: list[str], data: st.DataObject) -> None:
    text = "".join(pieces)
    # A lone escape is a key: an answer that is cut right behind it is the price, and no terminal sends it so.
    cuts = [
        cut
        for cut in sorted(data.draw(st.sets(st.integers(1, len(text) + 1))))
        if text[cut - 1 : cut] != "\x1b"
    ]
    found: list[str] = []
    keys = begun = ""
    for start, end in zip([0, *cuts], [*cuts, len(text) + 1], strict=True):
        replies, rest, begun = take_replies(begun + text[start:end])
        found += replies
        keys += rest
    assert found == [piece for piece in pieces if piece in REPLIES]
    assert keys == "".join(piece for piece in pieces if piece not in REPLIES) and not begun


def asked(
    environ: dict[str, str], *replies: str, wanted: str = "auto", colours: bool = True
) -> tuple[str, list[str]]:
    """(how pictures are drawn, what was sent) when the terminal answers so."""
    graphics = Graphics(wanted, environ, colours)
    sent = [graphics.questions(), graphics.questions()]
    sent += [graphics.heard(reply) for reply in replies]
    return graphics.kind, [each for each in sent if each]


XTERM = {"TERM": "xterm-256color"}


@pytest.mark.parametrize(
    ("environ", "replies", "kind"),
    [
        (XTERM, ["\x1b[?64;1;2;4;6c"], "sixel"),
        (XTERM, ["\x1b[?64;1;2;6c"], "blocks"),
        (XTERM, ["\x1b[?4c"], "blocks"),
        (XTERM, ["\x1bP>|kitty(0.36.4)\x1b\\", "\x1b[?62;c", "\x1b_Gi=31;OK\x1b\\"], "kitty"),
        (XTERM, ["\x1bP>|ghostty 1.2.0\x1b\\", "\x1b[?62;22c", "\x1b_Gi=31;OK\x1b\\"], "kitty"),
        (XTERM, ["\x1bP>|kitty(0.36.4)\x1b\\", "\x1b[?62;c", "\x1b_Gi=31;ENOTSUPPORTED:x\x1b\\"], "blocks"),
        # It knows the protocol, but not pictures that lie where text says so.
        (XTERM, ["\x1bP>|WezTerm 20240203\x1b\\", "\x1b_Gi=31;OK\x1b\\", "\x1b[?65;4;6c"], "sixel"),
        ({"TERM": "xterm-kitty"}, ["\x1b_Gi=31;OK\x1b\\", "\x1b[6;20;10t", "\x1b[?62;c"], "kitty"),
        ({"TERM": "xterm-kitty"}, [], "blocks"),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/x,1,0"}, ["\x1bP>|tmux 3.4\x1b\\", "\x1b[?1;2;4c"], "sixel"),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/x,1,0"}, ["\x1b_Gi=31;OK\x1b\\", "\x1b[?1;2c"], "blocks"),
        (XTERM, ["\x1b]52;c;AAAA\x1b\\", "h", "\x1b[6;0;0t", "\x1b[6;9999;9999t"], "blocks"),
    ],
)  # fmt: skip
def test_what_a_terminal_draws_is_what_it_says(
    environ: dict[str, str], replies: list[str], kind: str
) -> None:
    assert asked(environ, *replies)[0] == kind


def test_it_is_asked_once_and_kitty_only_where_it_may_be_one() -> None:
    _, sent = asked(XTERM, "\x1b[?62;c")
    assert sent == ["\x1b[16t\x1b[>0q\x1b[c"]
    _, sent = asked(XTERM, "\x1bP>|kitty(0.36.4)\x1b\\", "\x1b[?62;c", "\x1b_Gi=31;OK\x1b\\")
    assert len(sent) == 2 and "a=q" in sent[1]
    _, sent = asked({"TERM": "xterm-ghostty"}, "\x1bP>|ghostty 1.2\x1b\\")
    assert len(sent) == 1 and "a=q" in sent[0]


@pytest.mark.parametrize("term", ["", "dumb", "linux", "vt220", "screen-256color", "ansi"])
def test_terminals_that_might_print_a_question_are_not_asked(term: str) -> None:
    assert asked({"TERM": term}) == ("blocks", [])
    assert asked({"TERM": "xterm-256color", "TERM_PROGRAM": "Apple_Terminal"}) == ("blocks", [])


def test_one_may_force_it_or_forbid_it() -> None:
    assert asked(XTERM, "\x1b[?64;4c", wanted="blocks") == ("blocks", [])
    assert asked({"TERM": "linux"}, wanted="sixel") == ("sixel", [])
    assert asked(XTERM, "\x1b[?64;4c", wanted="kitty")[0] == "kitty"
    assert asked(XTERM, "\x1b[?64;4c", colours=False) == ("blocks", [])
    assert asked(XTERM, wanted="kitty", colours=False)[0] == "blocks"
    assert entry._PICTURES == config.PICTURE_KINDS


def test_less_is_sent_through_ssh() -> None:
    near, far = (
        Graphics("sixel", {**XTERM, **more}, True).canvas for more in ({}, {"SSH_TTY": "/dev/pts/1"})
    )
    assert near is not None and far is not None and far.most * 4 == near.most


def test_tmux_passes_on_what_is_wrapped() -> None:
    graphics = Graphics("auto", {"TERM": "tmux-256color", "TMUX": "x"}, True)
    sent = kitty.transmission(picture(90, 70, 5000), 77, 9, 4)
    assert graphics.wrapped(sent) == sent
    graphics.kind = "kitty"
    inner = re.findall(r"\x1bPtmux;((?:\x1b\x1b|[^\x1b])*)\x1b\\", graphics.wrapped(sent))
    assert "".join(inner).replace("\x1b\x1b", "\x1b") == sent

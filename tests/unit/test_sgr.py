"""Logs: their colours become styles, painted-over lines keep the last state, nothing else of a terminal gets through."""

from __future__ import annotations

from unicodedata import category

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltrack.tui.sgr import plain, spans_of_line
from mltrack.tui.widgets.look import strip_of, style_of


@pytest.mark.parametrize(
    ("line", "spans"),
    [
        (b"plain\n", [("plain", "")]),
        (b"a \x1b[33mWARN\x1b[0m b", [("a ", ""), ("WARN", "yellow"), (" b", "")]),
        (b"\x1b[1;31merr\x1b[22mor\x1b[39m.", [("err", "red bold"), ("or", "red"), (".", "")]),
        (b"\x1b[38;5;208mx\x1b[m", [("x", "fg:#ff8700")]),
        (b"\x1b[38;2;10;10;10mdark\x1b[0m", [("dark", "dim")]),
        (b"\x1b[48;5;1;92mx", [("x", "green")]),
        (b" 10%|#   |\r 50%|##  |\r100%|####|\n", [("100%|####|", "")]),
        (b"\x1b[31m10%\r\x1b[32m20%\x1b[0m", [("20%", "green")]),
        (b"a\tb\r\n", [("a       b", "")]),
        (b"\x1b[2K\x1b[?25lbar\x1b[K", [("bar", "")]),
        (b"", [("", "")]),
    ],
)
def test_what_a_terminal_would_show(line: bytes, spans: list[tuple[str, str]]) -> None:
    assert spans_of_line(line) == spans


@given(st.binary(max_size=200) | st.text("\x1b[]0123;m\r\x07P\\ab", max_size=60).map(str.encode))
def test_any_bytes_become_harmless_cells(line: bytes) -> None:
    spans = spans_of_line(line)
    assert "\r" not in plain(spans)
    for _, style in spans:
        style_of(style)
    strip = strip_of(spans, 80)
    assert strip.cell_length == 80
    # Private use is not "printable" for Python, but a glyph of one cell for a terminal.
    assert all(
        character.isprintable() or category(character) == "Co" for part in strip for character in part.text
    )

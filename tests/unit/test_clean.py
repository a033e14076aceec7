"""What a terminal is given is one harmless line, whatever the data holds."""

from __future__ import annotations

import tracemalloc
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltrack.tui.clean import CELL_LIMIT, cell_width, clean, clip, pad, wrap

ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=()), max_size=400)
HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}


@pytest.mark.parametrize(
    ("given_text", "shown"),
    [
        ("val/acc", "val/acc"),
        ("\x1b]52;c;cm0gLXJm\x07", "␛]52;c;cm0gLXJm␇"),
        ("\x9b2J", "\\x9b2J"),
        ("del\x7f", "del␡"),
        ("nul\x00", "nul␀"),
        ("evil\u202etxt.exe", "evil⟨U+202E⟩txt.exe"),
        ("a\u2066b\u2069", "a⟨U+2066⟩b⟨U+2069⟩"),
        ("zero\u200bwidth\ufeff", "zero⟨U+200B⟩width⟨U+FEFF⟩"),
        ("two\nlines\r\nand\rmore", "two⏎lines⏎and⏎more"),
        ("a\tb", "a→b"),
        ("line\u2028sep\x85nel", "line⏎sep⏎nel"),
        ("\udcff\ud800", "\\xff⟨U+D800⟩"),
        ("tag\U000e0041", "tag⟨U+E0041⟩"),
        ("selector\ufe0f", "selector⟨U+FE0F⟩"),
        ("❤\ufe0f", "❤"),
        ("👍🏽", "👍"),
        ("größe-日本語", "größe-日本語"),
        ("e\u0301", "e\u0301"),
        ("\u0301x", "◌\u0301x"),
        ("z" + "\u0301" * 40, "z" + "\u0301" * 4 + "⟨+36⟩"),
        ("filler\u3164", "filler⟨U+3164⟩"),
        ("[/] markup [red]", "[/] markup [red]"),
    ],
)
def test_hostile_text_is_made_visible(given_text: str, shown: str) -> None:
    assert clean(given_text) == shown


@given(ANY_TEXT)
def test_nothing_hidden_passes(text: str) -> None:
    for character in clean(text, None):
        assert unicodedata.category(character) not in HIDDEN


@given(ANY_TEXT, st.integers(min_value=0, max_value=40))
def test_the_limit_is_kept(text: str, limit: int) -> None:
    assert cell_width(clean(text, limit)) <= limit


@given(ANY_TEXT)
def test_cleaning_twice_changes_nothing(text: str) -> None:
    once = clean(text)
    assert clean(once) == once


@given(ANY_TEXT, st.integers(min_value=0, max_value=40), st.sampled_from(["head", "tail"]))
def test_clip_is_within_and_never_starts_with_a_mark(text: str, cells: int, keep: str) -> None:
    shown = clean(text, None)
    cut = clip(shown, cells, keep="tail" if keep == "tail" else "head")
    assert cell_width(cut) <= cells
    if cut != shown:
        whole = cut.removeprefix("…") if keep == "tail" else cut.removesuffix("…")
        assert whole == "" or cell_width(whole[0]) > 0
        assert shown.endswith(whole) if keep == "tail" else shown.startswith(whole)


@given(ANY_TEXT, st.integers(min_value=1, max_value=60), st.sampled_from(["left", "right", "center"]))
def test_pad_fills_exactly(text: str, cells: int, align: str) -> None:
    assert cell_width(pad(clean(text), cells, align)) == cells  # type: ignore[arg-type]


def test_a_cut_cell_says_so() -> None:
    assert clean("x" * 500) == "x" * (CELL_LIMIT - 1) + "…"
    assert clean("日本語", 4) == "日…"
    assert clip("outputs/run-41/loss", 8, keep="tail") == "…41/loss"


def test_a_megabyte_costs_what_a_line_costs() -> None:
    bomb = "\u0301\u202e日" * 350_000
    tracemalloc.start()
    shown = clean(bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < len(bomb) / 2, "it looks at no more of it than there is room for"
    assert cell_width(shown) <= CELL_LIMIT


def test_widths_are_those_the_screen_is_laid_out_with() -> None:
    from rich.cells import cell_len

    wrong = []
    # Of the planes without characters of their own a sample.
    for code in (
        *range(0x40000),
        *range(0x40000, 0xE0000, 97),
        *range(0xE0000, 0xE1000),
        *range(0xE1000, 0x110000, 97),
    ):
        if 0x1F3FB <= code <= 0x1F3FF:
            continue  # alone a swatch of two cells; after an emoji it is left out
        shown = clean("a" + chr(code), None)
        if cell_len(shown) != cell_width(shown):
            wrong.append(f"U+{code:04X}")
    # Characters that a newer Unicode assigned are shown by number, so tables of any age agree.
    assert wrong == []


@given(st.text(max_size=200), st.integers(8, 60))
def test_wrapped_lines_fit_and_lose_nothing_but_the_end(text: str, cells: int) -> None:
    lines = wrap(text, cells, 400)
    assert lines and all(cell_width(line) <= cells for line in lines)
    assert "".join(lines).replace(" ", "") == clean(text, None).replace(" ", "")
    assert len(wrap(text, cells, 3)) <= 3

"""Text tables of the command, the goal of a set of runs, and the ASCII twins of our signs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mltrack.tui.clean import cell_width
from mltrack.tui.cli.table import Cell, Column, draw_table
from mltrack.tui.cli.terminal import Terminal
from mltrack.tui.draw.glyphs import ASCII_TWINS, keeps_width, to_ascii
from mltrack.tui.goal import direction_arrow, guess_goal, guess_loss

PLAIN = Terminal(80, 24, is_tty=False, colour=False, ascii=False)


def plain(width: int, *, ascii_only: bool = False) -> Terminal:
    return Terminal(width, 24, is_tty=False, colour=False, ascii=ascii_only)


def test_numbers_stand_to_the_right_and_are_never_cut() -> None:
    columns = [
        Column("RUN", ["a", "a-very-long-name-of-a-run"], weight=0),
        Column("loss", ["1.25", "10.5"], "right", 0),
        Column("extra", ["something", "else"], weight=9),
    ]
    assert draw_table(columns, PLAIN) == [
        "RUN                        loss  extra",
        "a                          1.25  something",
        "a-very-long-name-of-a-run  10.5  else",
    ]
    narrow = draw_table(columns, plain(24))
    assert narrow == ["RUN                 loss", "a                   1.25", "a-very-long-name-…  10.5"]


def test_colour_touches_words_only() -> None:
    colourful = Terminal(40, 24, is_tty=True, colour=True, ascii=False)
    lines = draw_table([Column("A", [Cell("x", "red")], "right"), Column("B", ["y"])], colourful)
    assert lines[1] == "\x1b[31mx\x1b[0m  y"


@given(
    st.lists(st.lists(st.text(max_size=50), min_size=3, max_size=3), min_size=1, max_size=8),
    st.integers(40, 200),
    st.booleans(),
)
def test_any_text_fits_any_width(cells: list[list[str]], width: int, ascii_only: bool) -> None:
    columns = [Column(f"c{place}", column, weight=place) for place, column in enumerate(cells)]
    for line in draw_table(columns, plain(width, ascii_only=ascii_only)):
        assert cell_width(line) <= width
        assert line.isascii() or not ascii_only


def test_glyphs_keep_their_width_in_ascii() -> None:
    assert all(keeps_width(glyph) and twin.isascii() for glyph, twin in ASCII_TWINS.items())
    assert to_ascii("● 41% ⣿ ␀ é") == "* 41% * ^ \\xe9"


def test_the_goal_is_what_most_runs_validate() -> None:
    assert guess_goal({"train/loss": 40, "val/acc": 40, "val/loss": 40, "lr": 41}) == "val/acc"
    assert guess_goal({"loss": 3, "system/cpu_percent": 3}) == "loss"
    assert guess_goal({"lr": 3}) is None
    assert guess_goal({"train/loss": 100, "val/acc": 1}) == "train/loss"
    assert guess_loss(["val/loss", "train/loss", "val/acc"], "val/acc") == "train/loss"
    assert [direction_arrow(key) for key in ("val/acc", "train/loss", "lr")] == ["↑", "↓", ""]

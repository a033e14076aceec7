"""Progress bars leave their last state; ordinary lines come out at once; the split of writes does not matter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltrack.store.client.console_screen import LINE_CHARACTERS, Screen


def shown(*writes: str) -> list[str]:
    screen = Screen()
    lines = [line for text in writes for line in screen.feed(text)]
    return lines + screen.finish()


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("one\ntwo\n", ["one", "two"]),
        ("one\ntwo", ["one", "two"]),
        ("", []),
        ("\n\n", ["", ""]),
        ("a\r\nb\r\r\n", ["a", "b"]),
        ("\r 10%\r 50%\r100%\ndone\n", ["100%", "done"]),
        (" 10%\r 50%\r", [" 50%"]),
        ("\x1b[31mred\x1b[0m\n", ["\x1b[31mred\x1b[0m"]),
        ("a\x1b]0;title\x07b\n", ["ab"]),
        ("working...\r\x1b[Kdone\n", ["done"]),
        ("working...\x1b[2K\rdone\n", ["done"]),
        ("x\x1b7y\x1b[?25lz\n", ["xyz"]),
    ],
)
def test_lines_and_bars(text: str, lines: list[str]) -> None:
    assert shown(text) == lines
    assert shown(*text) == lines, "one character at a time"


def test_nested_bars_leave_one_line_each() -> None:
    writes = ["\router 0%"]
    for outer in range(1, 4):
        for inner in range(0, 101, 20):
            writes.append(f"\n\rinner {inner}%\x1b[A")
        writes.append(f"\router {outer}/3")
    writes.append("\n\n")
    lines = [line for line in shown(*writes) if line]
    assert lines[-2:] == ["outer 3/3", "inner 100%"]
    assert len(lines) <= 3, "at most the first repaint, before the program was known to climb"


def test_a_block_that_is_repainted_as_a_whole() -> None:
    def block(step: int) -> str:
        return "".join(f"\x1b[2Krow {row} step {step}\n" for row in range(3))

    writes = [block(0), *("\x1b[3A" + block(step) for step in range(1, 50)), "end\n"]
    lines = shown(*writes)
    assert lines[-4:] == ["row 0 step 49", "row 1 step 49", "row 2 step 49", "end"]
    assert len(lines) <= 7


def test_plain_lines_are_final_at_once() -> None:
    screen = Screen()
    assert screen.feed("a\nb") == ["a"]
    assert screen.open_line == "b"
    assert screen.feed("c\n") == ["bc"]


def test_a_line_without_end_comes_out_in_pieces() -> None:
    screen = Screen()
    lines = [line for _ in range(40) for line in screen.feed("x" * 10_000)]
    assert lines and all(len(line) <= LINE_CHARACTERS for line in lines)
    assert sum(map(len, lines + screen.finish())) == 400_000
    assert sum(map(len, shown("\x1b[m" + "y" * 300_000))) == 300_003


def test_huge_climbs_are_harmless() -> None:
    assert shown("a\n\x1b[99999999999999999Ab\x1b[0Ac\x1b[9999Bd\n")[-1] == "d"


@given(st.lists(st.text(alphabet="ab\n\r\x1b[AK2mB;]\x07 é", max_size=30), max_size=8))
def test_any_output_in_any_split_gives_the_same_lines(writes: list[str]) -> None:
    lines = shown(*writes)
    assert lines == shown("".join(writes))
    assert all("\n" not in line and "\r" not in line for line in lines)

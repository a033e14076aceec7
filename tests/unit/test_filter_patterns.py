"""LIKE and regular expressions: the right answers, and always within bounded time."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from mltrack.store.column_types import Text
from mltrack.store.filter_regex import PatternRefused, Regex
from mltrack.store.filter_text import like


@given(
    st.lists(st.text("ab%_\nA", max_size=6), min_size=1, unique=True),
    st.text("ab%_\nA", max_size=6),
    st.booleans(),
)
@example(["aba"], "ab%ba", False)
@example(["", "a"], "%%", False)
@example(["", "%"], "", False)
def test_like_is_sqls(values: list[str], pattern: str, ignore_case: bool) -> None:
    source = "".join({"%": ".*", "_": "."}.get(character, re.escape(character)) for character in pattern)
    expected = re.compile(source, re.DOTALL | (re.IGNORECASE if ignore_case else 0))
    column = Text(np.arange(len(values), dtype=np.int32), tuple(values))
    assert like(column, pattern, ignore_case) == [expected.fullmatch(value) is not None for value in values]


def regexes() -> st.SearchStrategy[str]:
    ones = st.sampled_from(
        list("abA1. \n-") + [r"\d", r"\w", r"\s", r"\W", "[ab]", "[^a]", r"\.", r"\x61", "{", "}", "]"]
    )
    places = st.sampled_from(["^", "$", r"\b", r"\A", r"\Z"])
    counts = st.sampled_from(
        ["", "", "*", "+", "?", "{2}", "{1,2}", "{,2}", "{1,}", "*?", "+?", "{0}", "{,}"]
    )
    repeated = st.builds(lambda one, count: one + count, ones, counts)

    def larger(smaller: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        groups = st.builds(
            lambda opening, inner, count: f"{opening}{inner}){count}",
            st.sampled_from(["(", "(?:"]),
            smaller,
            counts,
        )
        return st.one_of(
            groups,
            st.lists(smaller, min_size=2, max_size=3).map("".join),
            st.lists(smaller, min_size=2, max_size=3).map("|".join),
        )

    return st.recursive(st.one_of(repeated, places), larger, max_leaves=6)


@given(regexes(), st.lists(st.text("abA1. \n-{}]_é", max_size=8), max_size=4), st.booleans())
@example("^a$", ["a\n", "a\n\n", "\na"], False)
@example(r"a\Z", ["a\n", "a"], False)
@example(r"(a|b*)*c", ["aac", ""], False)
def test_the_automaton_agrees_with_re(pattern: str, values: list[str], ignore_case: bool) -> None:
    pattern = "(?i)" * ignore_case + pattern
    try:
        expected = [re.search(pattern, value) is not None for value in values]
    except re.error:
        assume(False)
    regex = Regex(pattern)
    assert [regex._automaton.search(value) for value in values] == expected
    assert regex.search(values) == expected


@pytest.mark.parametrize(
    "pattern",
    [
        "(a*)*b",
        "(a|a)*b",
        "(a|aa)+$",
        "a*a*a*a*b",
        "(.*)(.*)(.*)(.*)x",
        "(a?){30}a{30}",
        "(x+x+)+y",
        ".*.*=.*",
    ],
)
@pytest.mark.parametrize("length", [40, 20_000])
def test_no_pattern_hangs(pattern: str, length: int) -> None:
    begin = time.perf_counter()
    Regex(pattern).search(["a" * length, "x" * length, "a" * length + "!"])
    # Milliseconds when it works; with plain `re` longer than anybody would wait.
    assert time.perf_counter() - begin < 20


def test_a_pattern_that_would_take_seconds_says_so() -> None:
    with pytest.raises(PatternRefused, match="too long"):
        Regex(".*.*x").search(["ab" * 200_000] * 100)


def test_like_does_not_hang() -> None:
    begin = time.perf_counter()
    column = Text(np.zeros(1, dtype=np.int32), ("a" * 100_000,))
    assert like(column, "%a" * 100 + "%_b") == [False]
    assert time.perf_counter() - begin < 20

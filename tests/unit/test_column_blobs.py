"""Columns of segments come out as they went in, whatever is in them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltrack.store.column_blobs import decode_integers, decode_texts, encode_integers, encode_texts

_PLACES = st.lists(st.integers(0, 63), unique=True).map(sorted)
_TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
_WHOLE = st.integers(-(1 << 63), (1 << 63) - 1)


@given(
    st.lists(
        _PLACES.flatmap(
            lambda at: st.tuples(st.just(at), st.lists(_TEXT, min_size=len(at), max_size=len(at)))
        )
    )
)
def test_texts(segments: list[tuple[list[int], list[str]]]) -> None:
    blobs = [(100 * number, encode_texts(64, *segment)) for number, segment in enumerate(segments)]
    found = decode_texts(64, blobs)
    assert [(run, found.values[code]) for run, code in zip(found.runs, found.codes, strict=True)] == [
        (100 * number + place, text)
        for number, segment in enumerate(segments)
        for place, text in zip(*segment, strict=True)
    ]


@given(
    st.lists(
        _PLACES.flatmap(
            lambda at: st.tuples(st.just(at), st.lists(_WHOLE, min_size=len(at), max_size=len(at)))
        )
    )
)
def test_whole_numbers(segments: list[tuple[list[int], list[int]]]) -> None:
    blobs = [(100 * number, encode_integers(64, *segment)) for number, segment in enumerate(segments)]
    runs, values = decode_integers(64, blobs)
    assert list(zip(runs.tolist(), values.tolist(), strict=True)) == [
        (100 * number + place, value)
        for number, segment in enumerate(segments)
        for place, value in zip(*segment, strict=True)
    ]


@pytest.mark.parametrize("size", [4, 1024])
def test_a_column_of_a_few_values_takes_next_to_nothing(size: int) -> None:
    places = list(range(size))
    assert len(encode_texts(size, places, ["active"] * size)) < 60
    assert decode_texts(size, [(1, encode_texts(size, places, ["active"] * size))]).runs.dtype == np.int64

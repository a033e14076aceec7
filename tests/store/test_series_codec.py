"""Blocks of points: exact for every whole number and float, and no damaged byte does more than a ValueError."""

from __future__ import annotations

import math
import random
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mltrack.store.series import Ints, PointColumns, decode_block, distinct, encode_block, value_order

whole = st.one_of(
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.integers(-3, 3),
    st.sampled_from([-(1 << 63), (1 << 63) - 1, 127, 128, -129, 32767, 32768, 1 << 31]),
)


@st.composite
def blocks(draw: st.DrawFn) -> PointColumns:
    count = draw(st.integers(0, 40))
    ints: list[Ints] = [draw(arrays(np.int64, count, elements=whole)) for _ in range(5)]
    value = draw(arrays(np.float64, count, elements=st.floats(allow_nan=True, allow_subnormal=True)))
    return PointColumns(ints[0], ints[1], ints[2], ints[3], ints[4], value)


def same(one: PointColumns, two: PointColumns) -> bool:
    ints = all(
        np.array_equal(getattr(one, name), getattr(two, name))
        for name in ("key", "rank", "attempt", "step", "time")
    )
    return ints and one.value.tobytes() == two.value.tobytes()


@given(blocks(), st.booleans())
def test_what_goes_in_comes_out(points: PointColumns, small: bool) -> None:
    assert same(decode_block(encode_block(points, small)), points)


def test_long_blocks_come_out_too() -> None:
    rng = np.random.default_rng(1)
    for make in (
        lambda n: np.arange(n),
        lambda n: rng.integers(-(1 << 63), (1 << 63) - 1, n),
        lambda n: np.zeros(n, np.int64),
        lambda n: np.cumsum(rng.integers(0, 40000, n)),
    ):
        column = make(20_000).astype(np.int64)
        for value in (
            rng.standard_normal(20_000),
            np.full(20_000, math.nan),
            np.round(rng.random(20_000), 2),
        ):
            points = PointColumns(column, column, column, column, column, value)
            for small in (False, True):
                assert same(decode_block(encode_block(points, small)), points)


@settings(max_examples=300)
@given(blocks(), st.booleans(), st.data())
def test_damaged_bytes_are_a_value_error(points: PointColumns, small: bool, data: st.DataObject) -> None:
    body = bytearray(encode_block(points, small))
    for _ in range(data.draw(st.integers(1, 4))):
        how = data.draw(st.sampled_from(["flip", "cut", "insert", "zero"]))
        place = data.draw(st.integers(0, max(0, len(body) - 1)))
        if how == "flip" and body:
            body[place] ^= data.draw(st.integers(1, 255))
        elif how == "cut":
            del body[place:]
        elif how == "insert":
            body[place:place] = data.draw(st.binary(max_size=9))
        else:
            body[place : place + 8] = bytes(len(body[place : place + 8]))
    try:
        decode_block(bytes(body))
    except ValueError:
        pass


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_error_or_a_block(body: bytes) -> None:
    try:
        decode_block(body)
    except ValueError:
        pass


def test_a_damaged_count_takes_no_memory() -> None:
    """Ten bytes that claim four billion points, and a few that would inflate to gigabytes, are refused by their size."""
    ints = zlib.compress(struct.pack("<qB", 0, 0) * 5)
    for how, body in ((0, b""), (1, zlib.compress(bytes(1 << 26))), (0, bytes(80))):
        with pytest.raises(ValueError, match="damaged"):
            decode_block(struct.pack("<BBII", 1, how, (1 << 32) - 1, len(ints)) + ints + body)


@given(st.lists(st.floats(allow_nan=True), max_size=30))
def test_values_have_one_order(values: list[float]) -> None:
    keys = value_order(np.array(values, np.float64)).tolist()
    for one, key_one in zip(values, keys, strict=True):
        for two, key_two in zip(values, keys, strict=True):
            if math.isnan(one) or math.isnan(two):
                assert (key_one < key_two) == (math.isnan(one) and not math.isnan(two))
            else:
                smaller = one < two or (one == two and math.copysign(1, one) < math.copysign(1, two))
                assert (key_one < key_two) == smaller


@given(blocks(), st.randoms(use_true_random=False))
def test_distinct_points_do_not_depend_on_their_order(points: PointColumns, chance: random.Random) -> None:
    rng = np.random.default_rng(chance.randrange(1 << 30))
    rows = rng.permutation(np.concatenate([np.arange(len(points))] * 2)).astype(np.intp)
    one, two = distinct(points), distinct(points.take(rows))
    assert same(one, two) or (np.isnan(one.value).any() and len(one) == len(two))

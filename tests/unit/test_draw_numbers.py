"""Numbers and times for eyes: short, aligned, and different where the values are."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltrack.tui.draw import numbers, times

FINITE = st.floats(allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.9312, ".9312"),
        (-0.15, "-.15"),
        (1.031, "1.031"),
        (256.0, "256"),
        (41220.0, "41,220"),
        (3e-4, "3e-4"),
        (2.7e-4, "2.7e-4"),
        (1.25e9, "1.25e9"),
        (0.0, "0"),
        (-0.0, "0"),
        (math.nan, "NaN"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (5e-324, "4.941e-324"),
        (1.7976931348623157e308, "1.798e308"),
        (None, "-"),
    ],
)
def test_one_number(value: float | None, shown: str) -> None:
    assert numbers.format_number(value) == shown


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([0.9312, 0.9298, 0.9291], [".931", ".930", ".929"]),
        ([0.9312, 0.9313], [".9312", ".9313"]),
        ([0.214, 1.031, 0.25], [".214", "1.031", ".250"]),
        ([0.214, math.nan, None], [".214", "NaN", "-"]),
        ([256.0, 512.0], ["256", "512"]),
        ([3e-4, 1e-3, 2.7e-4], ["3e-4", "1e-3", "2.7e-4"]),
        ([0.0, 0.5], ["0", ".500"]),
        ([1e-12, 5.0], ["1e-12", "5"]),
        ([None, None], ["-", "-"]),
        ([], []),
    ],
)
def test_a_column_tells_its_values_apart(values: list[float | None], shown: list[str]) -> None:
    assert numbers.format_column(values) == shown


@given(
    st.lists(
        st.integers(-(10**6), 10**6).map(lambda whole: whole / 1000), min_size=2, max_size=30, unique=True
    )
)
def test_different_values_look_different(values: list[float]) -> None:
    assert len(set(numbers.format_column(list(values)))) == len(values)


@given(FINITE)
def test_any_float_has_a_short_text(value: float) -> None:
    assert 0 < len(numbers.format_number(value)) <= 12
    assert len(numbers.format_column([value])[0]) <= 14
    assert numbers.format_si(value)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(950, "950"), (1000, "1k"), (41220, "41.2k"), (999_999, "1M"), (1_500_000, "1.5M"), (-2000, "-2k")],
)
def test_counts_have_letters(value: float, shown: str) -> None:
    assert numbers.format_si(value) == shown


@pytest.mark.parametrize(
    ("size", "shown"),
    [(0, "0 B"), (812, "812 B"), (999, "999 B"), (1000, "1 kB"), (4100, "4.1 kB"), (1.2e9, "1.2 GB")],
)
def test_sizes(size: float, shown: str) -> None:
    assert numbers.format_bytes(size) == shown


def test_changes() -> None:
    assert numbers.format_change(0.9298, 0.9312) == "-.15%"
    assert numbers.format_change(1.031, 0.207) == "+398%"
    assert numbers.format_change(0.214, 0.207) == "+3.4%"
    assert numbers.format_change(1.0, 1.0) == "same"
    assert numbers.format_change(1.0 + 1e-9, 1.0) == "+<.01%"
    assert numbers.format_change(math.nan, 1.0) == ""


def test_parameters_stay_as_written_unless_only_noise_goes() -> None:
    assert numbers.format_parameter("3e-4") == "3e-4"
    assert numbers.format_parameter("adamw") == "adamw"
    assert numbers.format_parameter("0.00030000000000000003") == "3e-4"
    assert numbers.format_parameter("123456789012") == "123456789012"
    assert numbers.parse_number("1_000") is None
    assert numbers.parse_number("nan") is None


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.34, "340ms"),
        (4.25, "4.2s"),
        (45, "45s"),
        (372, "6m12s"),
        (11_220, "3h07m"),
        (1_051_200, "12d04h"),
        (None, "-"),
        (math.inf, "never"),
    ],
)
def test_durations(seconds: float | None, shown: str) -> None:
    assert times.format_duration(seconds) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-5, "now"),
        (0, "now"),
        (45, "45s"),
        (360, "6m"),
        (10_800, "3h"),
        (40 * 3600, "40h"),
        (9 * 86400, "9d"),
        (800 * 86400, "2y"),
    ],
)
def test_ages(seconds: float, shown: str) -> None:
    assert times.format_age(seconds) == shown


def test_moments_survive_a_broken_clock() -> None:
    assert times.format_moment(10**18) == f"{10**18} ms"
    assert times.format_timestamp(0) == "1970-01-01T00:00:00.000Z"
    assert times.format_timestamp(-1) == "1969-12-31T23:59:59.999Z"

"""Groups of runs: every run is in exactly one, and their figures are those of the standard library."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltrack.store.column_types import Number, Text
from mltrack.tui.cli.grouping import group_filter
from mltrack.tui.groups import Group, make_groups, sort_groups, spread, spread_texts

VALUES = st.floats(allow_nan=True, allow_infinity=True, width=32) | st.none()


def number(values: list[float | None]) -> Number:
    return Number(
        np.array([0.0 if value is None else value for value in values], np.float64),
        np.array([value is not None for value in values], np.bool_),
    )


def text(values: list[str | None]) -> Text:
    distinct = sorted({value for value in values if value is not None})
    codes = [-1 if value is None else distinct.index(value) for value in values]
    return Text(np.array(codes, np.int32), tuple(distinct))


@given(st.lists(VALUES, max_size=12))
def test_a_spread_is_that_of_the_finite_values(values: list[float | None]) -> None:
    column = number(values)
    found = spread(column.values, column.present)
    finite = [value for value in values if value is not None and math.isfinite(value)]
    if not finite:
        assert found is None
        return
    assert found is not None
    assert (found.n, found.low, found.high, found.without) == (
        len(finite),
        min(finite),
        max(finite),
        len(values) - len(finite),
    )
    size = max(map(abs, finite))
    assert found.mean == pytest.approx(statistics.fmean(finite), rel=1e-9, abs=size * 1e-12)
    if len(finite) == 1:
        assert found.std is None
    else:
        assert found.std == pytest.approx(statistics.stdev(finite), rel=1e-6, abs=size * 1e-7)


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b", None]), st.sampled_from(["1", "2", None]), VALUES), max_size=20
    )
)
def test_every_run_is_in_exactly_one_group_of_its_values(
    rows: list[tuple[str | None, str | None, float | None]],
) -> None:
    one, two = text([row[0] for row in rows]), text([row[1] for row in rows])
    groups = make_groups(np.arange(len(rows)), [one, two], {"loss": number([row[2] for row in rows])})
    members = [place for group in groups for place in group.places.tolist()]
    assert sorted(members) == list(range(len(rows)))
    assert len({group.values for group in groups}) == len(groups)
    for group in groups:
        assert {rows[place][:2] for place in group.places.tolist()} == {group.values}
    ordered = sort_groups(groups, "loss", "min")
    means = [found.mean for group in ordered if (found := group.spreads["loss"]) is not None]
    assert means == sorted(means)
    assert all(group.spreads["loss"] is None for group in ordered[len(means) :])


def test_all_spellings_of_a_number_are_one_group() -> None:
    groups = make_groups(np.arange(4), [text(["1e-3", "0.001", ".002", "1e-3"])], {})
    assert [group.count for group in groups] == [3, 1]


def test_texts_have_as_many_digits_as_tell_them_apart() -> None:
    columns = [number([0.9281, 0.9303]), number([0.9240]), number([])]
    texts = spread_texts([spread(column.values, column.present) for column in columns])
    assert texts == [(".9292 ±.0016", ".9281 .. .9303"), (".9240", ""), ("", "")]


def test_the_filter_of_a_group_holds_whatever_its_values_are() -> None:
    assert group_filter(["lr", "opt"], ["1e-3", None]) == "lr = 1e-3 and opt is null"
    assert group_filter(["opt name"], ["it's; or 1 = 1"]) == "`opt name` = 'it''s; or 1 = 1'"
    assert Group(("a",), np.arange(2), {}).count == 2

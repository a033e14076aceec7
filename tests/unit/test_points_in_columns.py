"""The quick ways through the rule of points give what the plain ways give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltrack.store import summary
from mltrack.store.errors import StoreDamaged
from mltrack.store.fold_points import parse_points
from mltrack.store.series import PointColumns, distinct, value_order

_POINT = st.tuples(
    st.integers(0, 2),
    st.integers(0, 1),
    st.integers(0, 1),
    st.integers(-2, 5),
    st.integers(0, 3),
    st.sampled_from([0.0, -0.0, 1.5, -2.0, float("nan"), float("inf"), float("-inf")]),
)


def _columns(points: list[tuple[int, int, int, int, int, float]]) -> PointColumns:
    key, rank, attempt, step, time = (
        np.array([point[place] for point in points], np.int64) for place in range(5)
    )
    return PointColumns(key, rank, attempt, step, time, np.array([point[5] for point in points], np.float64))


def _identity(points: PointColumns) -> list[tuple[int, ...]]:
    columns = (points.key, points.rank, points.attempt, points.step, points.time, value_order(points.value))
    return list(zip(*(column.tolist() for column in columns), strict=True))


@given(st.lists(_POINT, max_size=30), st.booleans(), st.sampled_from([0, 1 << 20]))
def test_distinct_sorts_and_drops_repeats(
    points: list[tuple[int, int, int, int, int, float]], one_journal: bool, far_key: int
) -> None:
    if one_journal:
        points = [(key + far_key, 1, 1, *rest) for key, _, _, *rest in points]  # type: ignore[misc]
        points.sort(key=lambda point: point[3:5])
    given_points = _columns(points)
    assert _identity(distinct(given_points)) == sorted(set(_identity(given_points)))


@given(st.lists(_POINT, min_size=1, max_size=30))
def test_rows_of_points_are_the_merged_rows_of_each_point(
    points: list[tuple[int, int, int, int, int, float]],
) -> None:
    columns = distinct(_columns(points))
    single = [summary.rows_of_points(columns.take(slice(place, place + 1))) for place in range(len(columns))]
    merged = summary.merge(np.concatenate(single))
    assert summary.rows_of_points(columns).tobytes() == merged.tobytes()


def test_one_unusual_record_is_looked_at_alone() -> None:
    usual = [b'[1,2,"a",0.5]', b'[2,2,"a",0.5,"b",1.5]']
    for line, wanted in (
        (b'[3,2,"a",1]', [3, 2, "a", 1.0]),
        (b'[3,2,"a","-Infinity"]', [3, 2, "a", float("-inf")]),
        (b'[3,2,"a",9007199254740993]', None),
        (b"[3,2]", None),
        (b'[3,2,"a"]', None),
        (b'{"t":1}', None),
        (b"7", None),
        (b'["3",2,"a",0.5]', None),
        (b"[3,2,4,0.5]", None),
        (b'[9223372036854775808,2,"a",0.5]', None),
        (b'[3,2,"a",nonsense]', None),
        (b'[3,2,"a",0.5],[4,2,"a",0.5]', None),
    ):
        records, skipped = parse_points([*usual, line])
        assert (records[2:], skipped) == (([wanted], 0) if wanted is not None else ([], 1)), line


@given(st.lists(_POINT, max_size=30))
def test_a_packed_summary_reads_back(points: list[tuple[int, int, int, int, int, float]]) -> None:
    rows = summary.rows_of_points(distinct(_columns(points)))
    assert summary.unpack(summary.pack(rows)).tobytes() == rows.tobytes()


def test_a_damaged_summary_is_an_error() -> None:
    with pytest.raises(StoreDamaged, match="damaged"):
        summary.unpack(b"not a summary")

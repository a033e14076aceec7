"""Fewer points, the same picture."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mltrack.store.curve import bucket, smooth

VALUES = st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), max_size=300)


@given(VALUES, st.integers(1, 40))
def test_extremes_and_gaps_survive_and_points_are_few(values: list[float], columns: int) -> None:
    y = np.array(values, np.float64)
    x = np.arange(len(y), dtype=np.float64)
    kept_x, kept = bucket(x, y, columns)
    assert len(kept) <= max(3 * columns, 0)
    assert list(kept_x) == sorted(set(kept_x))
    finite = y[np.isfinite(y)]
    if len(finite):
        assert np.nanmin(kept[np.isfinite(kept)]) == finite.min()
        assert np.nanmax(kept[np.isfinite(kept)]) == finite.max()
    assert (~np.isfinite(kept)).any() == (~np.isfinite(y)).any()


def test_a_window_keeps_one_point_beyond_each_edge() -> None:
    x = np.arange(100, dtype=np.float64)
    kept_x, _ = bucket(x, x, 50, 40, 60)
    assert (kept_x[0], kept_x[-1]) == (39, 61)


def test_smoothing_has_no_bias_at_its_start_and_keeps_gaps() -> None:
    y = np.array([5.0, 5.0, np.nan, 5.0, 9.0])
    smoothed = smooth(y, 0.9)
    assert np.allclose(smoothed[[0, 1, 3]], 5.0, rtol=1e-12)
    assert np.isnan(smoothed[2])
    assert 5.0 < smoothed[4] < 9.0
    assert smooth(y, 0.0) is y


def test_many_steps_at_one_place() -> None:
    x = np.zeros(1000)
    assert len(bucket(x, np.arange(1000.0), 10)[0]) == 2

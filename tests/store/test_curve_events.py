"""Events of a series: what a person would point at, and not more."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mltrack.store.curve_events import find_events


def training(points: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    random = np.random.default_rng(3)
    steps = np.arange(points)
    return 0.2 + 4 * np.exp(-steps / (points / 20)) + random.normal(0, 0.01, points)


def test_a_spike_is_found_with_its_height() -> None:
    y = training(5000)
    y[3300:3303] = [3.0, 1.4, 0.6]
    (event,) = find_events(y)
    assert (event.kind, event.peak, event.first) == ("spike", 3300, 3300)
    assert event.factor is not None and 13 < event.factor < 17


def test_a_drop_and_stretches_of_nan() -> None:
    y = training(2000)
    y[700:712] = np.nan
    y[900] = np.inf
    y[1500] = -5.0
    assert [(event.kind, event.first, event.last, event.count) for event in find_events(y)] == [
        ("nan", 700, 711, 12),
        ("inf", 900, 900, 1),
        ("drop", 1500, 1500, 1),
    ]


def test_ordinary_curves_have_no_events() -> None:
    steps = np.arange(3000)
    warm_up = 3e-4 * np.minimum(1, (steps + 1) / 500) * 0.5 * (1 + np.cos(np.pi * steps / 3000))
    staircase = 0.1 ** (steps // 1000)
    for y in (training(3000), training(40), warm_up, staircase.astype(float), np.zeros(100), np.ones(5)):
        assert find_events(y) == []


@given(arrays(np.float64, st.integers(0, 200)))
def test_any_series_has_its_events_in_order_and_inside(
    y: np.ndarray[tuple[int], np.dtype[np.float64]],
) -> None:
    events = find_events(y)
    assert [event.first for event in events] == sorted(event.first for event in events)
    assert all(0 <= event.first <= event.peak <= event.last < len(y) for event in events)

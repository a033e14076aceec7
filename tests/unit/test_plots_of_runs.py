"""Plots of many runs: every point lands where its values say, whatever the values are; importance finds what was put there."""

from __future__ import annotations

import importlib.util
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mltrack.tui.clean import cell_width
from mltrack.tui.draw.statistics import Column, Line, draw_bars, draw_histogram, draw_parallel, draw_scatter
from mltrack.tui.importance import importances, ranks

FLOATS = st.floats(allow_nan=True, allow_infinity=True)
COLUMNS = st.integers(1, 30).flatmap(
    lambda n: st.tuples(st.lists(FLOATS, min_size=n, max_size=n), st.lists(FLOATS, min_size=n, max_size=n))
)


def text(lines: list[Line]) -> list[str]:
    return ["".join(span[0] for span in line) for line in lines]


def column(values: list[float], name: str = "a") -> Column:
    return Column(name, np.array(values, np.float64))


@settings(max_examples=40)
@given(COLUMNS)
def test_any_values_are_drawn_within_the_width(values: tuple[list[float], list[float]]) -> None:
    x, y = column(values[0]), column(values[1], "b\x1b[2J")
    pictures = [
        draw_scatter(x, y, 60, 12, 0),
        draw_histogram(x, 60, 12),
        draw_parallel([x, y], 60, 12, y, True),
    ]
    for lines in map(text, pictures):
        assert all(cell_width(line) <= 66 for line in lines)
        assert not any("\x1b" in line for line in lines)


def test_points_of_a_scatter_stand_where_their_values_are() -> None:
    lines = text(draw_scatter(column([1e-4, 1e-2, 1.0]), column([0.0, 0.5, 1.0]), 41, 13, 2))
    last = next(place for place, line in enumerate(lines) if "└" in line)
    body = [line[line.index("┤" if "┤" in line else "│") + 1 :].rstrip("│") for line in lines[1:last]]
    assert body[0].rstrip()[-1] == "★" and len(body[0].rstrip()) == len(body[0])  # the best: top right
    assert body[-1][0] == "•"  # bottom left
    middle = [line.index("•") for line in body[3:7] if "•" in line]
    assert middle and abs(middle[0] - len(body[0]) // 2) <= 1  # the logarithm of 1e-2 is in the middle


def test_a_histogram_counts_every_run() -> None:
    values = [1.0, 1.0, 2.0, 9.0, math.nan]
    lines = text(draw_histogram(column(values), 60, 12))
    assert sum(int(line.rsplit(" ", 1)[1]) for line in lines) == 4
    words = Column("opt", np.array([0.0, 1.0, 1.0]), ("adam", "lion"))
    assert [line.split()[0] + line.split()[-1] for line in text(draw_histogram(words, 60, 12))] == [
        "adam1",
        "lion2",
    ]


def test_parallel_coordinates_show_the_best_third_in_green_over_the_worst_in_red() -> None:
    goal = column([0.1, 0.2, 0.3, 0.7, 0.8, 0.9], "acc")
    lines = draw_parallel([column([6.0, 5.0, 4.0, 3.0, 2.0, 1.0], "lr"), goal], 40, 14, goal, less=False)
    first = [line[0] for line in lines[2:-1]]
    styles = [style for _, style in first if style in ("green", "red")]
    assert styles[-1] == "green" and styles[0] == "red"  # small lr did well


def test_bars_are_as_long_as_their_share() -> None:
    lines = text(draw_bars([("a", 1.0, "x"), ("bb", 0.5, "y"), ("c", 0.0, "z")], 40))
    assert [line.count("█") for line in lines] == [33, 16, 0]


def test_importance_finds_the_param_that_matters_and_its_sign() -> None:
    chance = np.random.default_rng(3)
    lr = chance.uniform(1e-5, 1e-1, 80)
    names = chance.choice(["adam", "lion"], 80)
    goal = -np.log(lr) + chance.normal(0, 0.2, 80) + (names == "lion")
    params = {
        "lr": [float(value) for value in lr],
        "opt": [str(name) for name in names],
        "noise": [float(value) for value in chance.normal(size=80)],
        "same": [1.0] * 80,
        "id": [f"run-{place}" for place in range(80)],
    }
    found = importances(params, [*goal.tolist()[:-1], None])
    assert [one.key for one in found] == ["lr", "opt", "noise"]
    assert found[0].correlation is not None and found[0].correlation < -0.6 and found[0].runs == 79
    assert found[1].correlation is None and 0.02 < found[1].share < found[0].share
    assert found[2].share < 0.1
    if importlib.util.find_spec("sklearn") is None:
        assert all(one.forest is None for one in found)
    else:
        assert found[0].forest is not None and found[0].forest > 0.5
    assert importances(params, [1.0] * 3 + [None] * 77) == []


@given(st.lists(st.integers(0, 5), max_size=20))
def test_equal_values_share_a_rank(values: list[int]) -> None:
    found = ranks(np.array(values, np.float64))
    assert found.sum() == pytest.approx(len(values) * (len(values) - 1) / 2)
    for place, value in enumerate(values):
        below = sum(other < value for other in values)
        same = values.count(value)
        assert found[place] == below + (same - 1) / 2

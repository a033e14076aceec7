"""Curves in one row and in braille: spikes survive, gaps stay gaps, nothing breaks the picture."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltrack.tui.clean import cell_width
from mltrack.tui.draw.braille import Curve, Plot, View, curve_letter, curve_letters, draw_plot
from mltrack.tui.draw.raster import rasterize, thin
from mltrack.tui.draw.scales import choose_scale, choose_ticks, label_ticks
from mltrack.tui.draw.sparkline import draw_bar, draw_sparkline


def curve(y: list[float], x: list[float] | None = None, name: str = "run") -> Curve:
    steps = np.arange(len(y), dtype=np.float64) if x is None else np.array(x, dtype=np.float64)
    return Curve(name, steps, np.array(y, dtype=np.float64))


def picture(plot: Plot) -> str:
    return "\n".join(plot.lines)


def test_sparkline_rises_and_keeps_gaps() -> None:
    assert draw_sparkline([1, 2, 3, 4, 5, 6, 7, 8], 8) == "▁▂▃▄▅▆▇█"
    assert draw_sparkline([1.0, float("nan"), 3.0], 3) == "▁·█"
    assert draw_sparkline([], 4) == "····"
    assert draw_sparkline([5.0, 5.0], 2) == "▄▄"


def test_a_run_that_ended_early_stops_early() -> None:
    assert draw_sparkline([1, 2, 3, 4], 8, whole=8) == "▁▃▆█····"


def test_huge_values_of_both_signs_still_have_a_height() -> None:
    assert draw_sparkline([-1.7e308, 1.7e308, 1.7e308], 3) == "▁██"


def test_bar_is_full_only_when_done() -> None:
    assert draw_bar(0.41, 10) == "▇▇▇▇▁▁▁▁▁▁"
    assert draw_bar(0.001, 10) == "▇▁▁▁▁▁▁▁▁▁"
    assert draw_bar(0.999, 10) == "▇▇▇▇▇▇▇▇▇▁"
    assert draw_bar(1.0, 4) == "▇▇▇▇"
    assert draw_bar(float("nan"), 4) == "▁▁▁▁"


def test_a_straight_line_is_a_diagonal() -> None:
    assert picture(draw_plot([curve([0, 1, 2, 3, 4])], 24, 8)) == (
        "4 ┤                 ⢀⡠⠔⠊\n"
        "  │              ⣀⠤⠒⠁\n"
        "2 ┤          ⣀⠤⠒⠉\n"
        "  │       ⡠⠔⠊⠁\n"
        "  │   ⢀⠤⠒⠉\n"
        "0 ┤⡠⠔⠊⠁\n"
        "  └┴───────────────────┴\n"
        "   0                   4"
    )


def test_one_spike_among_a_million_points_is_drawn() -> None:
    y = np.zeros(1_000_000)
    y[633_600] = 1.0
    plot = draw_plot([Curve("spike", np.arange(1e6), y)], 80, 12)
    top = plot.lines[0]
    assert any("\u2800" < character <= "\u28ff" for character in top)


def test_nan_is_a_gap_with_a_mark() -> None:
    y = [1.0] * 40 + [float("nan")] * 20 + [1.0] * 40
    plot = draw_plot([curve(y)], 60, 8)
    drawn = next(line for line in plot.lines if "⠉" in line or "⠤" in line or "⠒" in line or "⣀" in line)
    assert "  " in drawn.split("│")[-1].split("┤")[-1].strip()
    assert "×" in picture(plot)


def test_each_curve_ends_in_its_letter() -> None:
    plot = draw_plot([curve([1, 2, 3], name="a"), curve([3, 2], name="b")], 60, 10)
    assert "a" in picture(plot) and "b" in picture(plot)
    owners = {span.curve for row in plot.rows for span in row}
    assert owners == {-1, 0, 1}


def test_no_two_of_a_hundred_curves_have_one_letter() -> None:
    letters = [curve_letter(index) for index in range(100)]
    assert letters[:2] == ["a", "b"] and letters[25:28] == ["z", "aa", "ab"] and len(set(letters)) == 100
    assert curve_letters(27)[0] == "a " and curve_letters(26)[0] == "a"
    nothing = curve([])
    few = [nothing] * 26 + [curve([1, 2, 3]), curve([3, 2, 1])]
    plot = draw_plot(few, 60, 10)
    assert "aa" in picture(plot) and "ab" in picture(plot)
    ends = [span for row in plot.rows for span in row if "aa" in span.text or "ab" in span.text]
    assert {span.curve for span in ends} == {26, 27}
    assert picture(draw_plot(few, 60, 10, View(ascii=True))).isascii()


def test_log_axis_says_what_it_cannot_show() -> None:
    plot = draw_plot([curve([1000.0, 10.0, 0.0, -1.0, 0.1])], 60, 12, View(y_scale="log"))
    assert plot.notes == ("2 values of zero or less have no place on a log axis",)
    assert "1000" in picture(plot).replace(",", "")


def test_ascii_has_no_other_characters() -> None:
    plot = draw_plot([curve([1, 5, 2]), curve([2, 2, 9])], 60, 10, View(ascii=True))
    assert picture(plot).isascii()


def test_outliers_can_be_left_outside() -> None:
    y = [float(value % 10) for value in range(1000)]
    y[500] = 1e9
    assert "1e9" not in picture(draw_plot([curve(y)], 60, 10, View(ignore_outliers=True)))


@given(
    st.lists(st.lists(st.floats(), max_size=60), max_size=4),
    st.integers(0, 90),
    st.integers(0, 30),
    st.sampled_from(["linear", "log", "symlog"]),
)
def test_any_data_makes_a_picture_of_the_asked_size(
    values: list[list[float]], width: int, height: int, scale: str
) -> None:
    plot = draw_plot([curve(y) for y in values], width, height, View(y_scale=scale))  # type: ignore[arg-type]
    assert len(plot.rows) == max(4, height)
    widths = {sum(cell_width(span.text) for span in row) for row in plot.rows}
    assert len(widths) == 1
    assert widths.pop() <= max(24, width)


@given(
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(2, 12),
)
def test_ticks_are_inside_few_and_different(one: float, other: float, most: int) -> None:
    scale = choose_scale(min(one, other), max(one, other))
    ticks = choose_ticks(scale, most)
    assert 2 <= len(ticks) <= max(most, 2)
    room = (scale.high / 2 - scale.low / 2) * 1e-6
    assert all(scale.low - room <= tick <= scale.high + room for tick in ticks)
    assert ticks == sorted(ticks)


@pytest.mark.parametrize(
    ("ticks", "labels"),
    [([0.0, 50000.0, 100000.0], ["0", "50k", "100k"]), ([1e6, 1.5e6, 2e6], ["1M", "1.5M", "2M"])],
)
def test_step_labels(ticks: list[float], labels: list[str]) -> None:
    assert label_ticks(ticks, counts=True) == labels


@given(st.integers(600, 5000), st.integers(0, 1000), st.floats(0.0, 0.8), st.floats(0.05, 1.0))
def test_thinned_curves_draw_the_same_picture(points: int, seed: int, begin: float, share: float) -> None:
    random = np.random.default_rng(seed)
    y = np.cumsum(random.normal(0, 1, points))
    y[points // 3] = 50.0
    whole = [Curve("a", np.arange(float(points)), y)]
    low, high = begin * points, begin * points + share * points
    across, up = choose_scale(low, high), choose_scale(float(y.min()), float(y.max()))
    one, _ = rasterize(whole, 30, 12, across, up)
    other, _ = rasterize(thin(whole, low, high, 60), 30, 12, across, up)
    # A point on the border of two columns of dots may fall to the other side.
    assert int((one != other).sum()) <= 12
    assert ((one != 0).any(axis=1) == (other != 0).any(axis=1)).sum() >= 11

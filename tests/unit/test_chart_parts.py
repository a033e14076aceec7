"""The parts of the charts that need no screen: the window, the filter, what changed in a line, ticks of time."""

from __future__ import annotations

import itertools
import re
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.segment import Segment
from textual._compositor import ChopsUpdate
from textual.strip import Strip

from mltrack.tui.clean import cell_width, clip
from mltrack.tui.draw.time_ticks import date_ticks, duration_ticks
from mltrack.tui.small_frames import SmallUpdate
from mltrack.tui.widgets.chart_lines import overlay, under_cursor
from mltrack.tui.widgets.chart_page import CellStrip
from mltrack.tui.widgets.chart_series import key_matcher
from mltrack.tui.widgets.chart_window import ChartWindow
from mltrack.tui.widgets.lines import changed_cells
from mltrack.tui.widgets.look import strip_of


def test_a_live_axis_moves_in_leaps() -> None:
    window = ChartWindow()
    window.set_ends(0, 1000, live=True)
    shown = set()
    for last in range(1000, 1100, 5):
        window.set_ends(0, last, live=True)
        assert window.range[1] >= last
        shown.add(window.range)
    assert len(shown) <= 5


@given(
    st.lists(st.sampled_from(["in", "out", "left", "right", "leap", "start", "end", "grow"]), max_size=40),
    st.floats(-1e9, 1e9),
    st.floats(1e-3, 1e12),
)
def test_the_cursor_never_leaves_the_window_nor_the_window_the_data(
    moves: list[str], low: float, span: float
) -> None:
    window = ChartWindow()
    high = low + span
    window.set_ends(low, high, live=False)
    for move in moves:
        if move == "in":
            window.zoom(0.5)
        elif move == "out":
            window.zoom(2.0)
        elif move in ("left", "right", "leap"):
            window.move({"left": -1, "right": 1, "leap": -10}[move], 70)
        elif move == "grow":
            high += span / 7
            window.set_ends(low, high, live=True)
        else:
            window.move_to(low if move == "start" else high)
        first, last = window.range
        slack = (abs(first) + abs(last) + span) * 1e-9
        assert first < last
        assert first >= low - slack and (last <= high + slack or window.zoomed is None)
        if window.cursor is not None and move not in ("in", "out", "grow"):
            assert first - slack <= window.cursor <= last + slack


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("", "anything", ""),
        ("loss", "train/LOSS", "acc"),
        ("val*|train/loss", "val/acc", "xval"),
        ("val*|train/loss", "train/loss", "train/acc"),
        ("layers/0?/q", "layers/03/q", "layers/13/q"),
        ("^val/(acc|loss)$", "val/loss", "val/loss2"),
        ("[ab]/x", "b/x", "c/x"),
    ],
)
def test_filters_of_charts(pattern: str, yes: str, no: str) -> None:
    matches = key_matcher(pattern)
    assert matches(yes) and (not no or not matches(no))


STYLED = st.lists(st.tuples(st.text("ab⣀│", max_size=5), st.sampled_from(["", "dim"])), max_size=5)


@given(STYLED, STYLED)
def test_what_changed_covers_every_difference(
    before: list[tuple[str, str]], now: list[tuple[str, str]]
) -> None:
    def cells(line: list[tuple[str, str]]) -> list[tuple[str, str]]:
        return [(character, style) for text, style in line for character in text]

    parts = changed_cells(tuple(before), tuple(now))
    assert parts is not None
    pairs = list(itertools.zip_longest(cells(before), cells(now)))
    assert all(
        old == new
        for place, (old, new) in enumerate(pairs)
        if not any(begin <= place < end for begin, end in parts)
    )


def test_wide_characters_repaint_the_line() -> None:
    assert changed_cells((("日本", ""),), (("日x", ""),)) is None


@given(st.floats(0, 4e12), st.floats(1, 1e12), st.integers(2, 12))
def test_dates_are_inside_few_and_in_order(low: float, span: float, most: int) -> None:
    ticks = date_ticks(low, low + span, most)
    assert len(ticks) <= most
    assert all(low - 1e-3 <= at <= low + span + 1e-3 for at, _ in ticks)
    assert [at for at, _ in ticks] == sorted({at for at, _ in ticks})


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9), st.integers(2, 12))
def test_durations_are_inside_and_few(low: float, span: float, most: int) -> None:
    ticks = duration_ticks(low, low + span, most)
    assert len(ticks) <= most + 1
    assert [at for at, _ in ticks] == sorted(at for at, _ in ticks)


def test_dates_read_like_dates() -> None:
    at = datetime(2026, 11, 23, 22, 0).timestamp() * 1000
    hour = 3_600_000
    assert [label for _, label in date_ticks(at, at + 4 * hour, 6)] == [
        "22:00",
        "23:00",
        "24 Nov",
        "01:00",
        "02:00",
    ]
    assert [label for _, label in date_ticks(at, at + 96 * hour, 6)] == [
        "24 Nov",
        "25 Nov",
        "26 Nov",
        "27 Nov",
    ]


def test_durations_read_like_durations() -> None:
    assert [label for _, label in duration_ticks(0, 7200, 5)] == ["0", "30m", "1h", "1h30m", "2h"]
    assert [label for _, label in duration_ticks(0, 0.4, 5)][:2] == ["0s", ".1s"]
    assert [label for _, label in duration_ticks(0, 5 * 86400, 6)] == ["0", "1d", "2d", "3d", "4d", "5d"]


@given(STYLED, st.data())
def test_the_cursor_laid_over_cells_is_what_it_is_laid_over_the_line(
    line: list[tuple[str, str]], data: st.DataObject
) -> None:
    """A page paints the cursor into strips that are made already; what a file or a copy gets is made from the lines."""
    width = 24
    spans = tuple((text, style) for text, style in line if text)
    columns = sorted(data.draw(st.sets(st.integers(0, width - 1), max_size=3)))
    edges = list(itertools.accumulate(len(text) for text, _ in spans))
    base = CellStrip(strip_of(spans, width))
    laid = base.laid(
        [(column, next(iter(strip_of([under_cursor(spans, edges, column)], 1)))) for column in columns]
    )
    whole = spans
    for column in columns:
        whole = overlay(whole, column)
    assert cells_of(laid) == cells_of(strip_of(whole, width))
    begin = data.draw(st.integers(0, width))
    end = data.draw(st.integers(0, width + 2))
    assert cells_of(laid.crop(begin, end)) == cells_of(laid)[begin:end]
    assert cells_of(base) == cells_of(strip_of(spans, width))


def cells_of(strip: Strip) -> list[tuple[str, str]]:
    """Characters with their styles; a blank may have the colour of its neighbour."""
    return [
        (character, "" if character == " " else str(segment.style))
        for segment in strip
        for character in segment.text
    ]


@given(st.data())
def test_small_frames_paint_what_changed_and_nothing_else(data: st.DataObject) -> None:
    letters = st.text("ab日x", min_size=6, max_size=12)
    left, right = (clip(data.draw(letters), 10) for _ in range(2))
    widths = cell_width(left), cell_width(right)
    edge = widths[0]
    whole = edge + widths[1]
    begin = data.draw(st.integers(0, whole - 1))
    end = data.draw(st.integers(begin + 1, whole))
    strips = {0: Strip([Segment(left)], edge), edge: Strip([Segment(right)], widths[1])}
    update = SmallUpdate.of(ChopsUpdate([strips], [(0, begin, end)], [[edge, whole]]))
    sent = update.render_segments(Console(color_system=None, width=80))
    painted: dict[int, str] = {}
    for column, text in re.findall(r"\x1b\[1;(\d+)H([^\x1b]*)", sent):
        at = int(column) - 1
        for character in text:
            painted[at] = character
            at += cell_width(character)
    assert all(begin <= at < end for at in painted)
    at = 0
    for character in left + right:
        # Of a wide character that is cut in half a blank is painted, as Textual does everywhere.
        if begin <= at and at + cell_width(character) <= end:
            assert painted[at] == character
        at += cell_width(character)

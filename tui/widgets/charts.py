"""Curves of one run with one cursor through all of them. Draws lines; where the points come from is not its business."""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from textual.binding import BindingType
from textual.message import Message

from mltrack.tui.draw.braille import Curve, View, draw_plot
from mltrack.tui.draw.numbers import format_number, format_step
from mltrack.tui.draw.scales import ScaleName
from mltrack.tui.widgets.bindings import bindings_of
from mltrack.tui.widgets.lines import Lines
from mltrack.tui.widgets.look import Line, Span

_SMALLEST_HEIGHT, _SMALLEST_WIDTH = 9, 76
_SCALES: tuple[ScaleName, ...] = ("linear", "log", "symlog")
_WEIGHTS = (0.0, 0.6, 0.9, 0.97)
_LEAST_SPAN = 4.0
_VALUES_SHOWN = 8


@dataclass
class Series:
    """A metric of the run and, once they came, its points in the window."""

    key: str
    arrow: str
    best: str
    last: str
    nan: int
    ends: tuple[float, float]
    x: Sequence[float] = ()
    y: Sequence[float] = ()
    smooth: tuple[Sequence[float], Sequence[float]] | None = None
    came: bool = False


@dataclass
class _Frame:
    """Where a chart lies on the screen, for the cursor."""

    top: int
    left: int
    height: int
    gutter: int
    inside: int
    series: Series = field(repr=False)


class Charts(Lines, can_focus=True):
    """As many charts as fit, or one on the whole screen."""

    BINDINGS: ClassVar[list[BindingType]] = bindings_of("chart")
    DEFAULT_CSS = "Charts { height: 1fr; }"

    class Wanted(Message):
        """Points are needed: of which metrics, in which window, for how many columns."""

        def __init__(
            self, keys: list[str], columns: int, low: float | None, high: float | None, weight: float
        ) -> None:
            self.keys = keys
            self.columns = columns
            self.low = low
            self.high = high
            self.weight = weight
            super().__init__()

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, Charts.Wanted)

    class Chosen(Message):
        """Another chart has the keys."""

        def __init__(self, key: str) -> None:
            self.key = key
            super().__init__()

    def __init__(self, *, id: str | None = None, ascii_only: bool = False) -> None:
        super().__init__(id=id)
        self.series: list[Series] = []
        self.chosen = 0
        self.full = False
        self.cursor: float | None = None
        self.window: tuple[float, float] | None = None
        self.scale = 0
        self.weight = 0
        self.outliers_ignored = False
        self._ascii = ascii_only
        self._frames: list[_Frame] = []

    # -- data in

    def show_metrics(self, metrics: Sequence[Mapping[str, Any]]) -> None:
        """The metrics of the run in the order to draw them; points that are here stay until newer ones come."""
        known = {series.key: series for series in self.series}
        chosen = self.series[self.chosen].key if self.series else None
        self.series = []
        for metric in metrics:
            series = known.get(str(metric["key"])) or Series(str(metric["key"]), "", "", "", 0, (0.0, 1.0))
            series.arrow, series.best, series.last = (
                str(metric["arrow"]),
                str(metric["best"]),
                str(metric["last"]),
            )
            series.nan = int(metric["nan"])
            series.ends = (float(metric["ends"][0]), float(metric["ends"][1]))
            self.series.append(series)
        self.chosen = next((place for place, series in enumerate(self.series) if series.key == chosen), 0)
        self.redraw()
        self.want()

    def show_points(self, points: Mapping[str, Any]) -> None:
        """Points by metric, as the worker answers."""
        for series in self.series:
            entry = points.get(series.key)
            if entry is None:
                continue
            series.x, series.y = entry["x"], [float(value) for value in entry["y"]]
            smoothed = entry.get("smooth")
            series.smooth = (smoothed[0], [float(value) for value in smoothed[1]]) if smoothed else None
            series.came = True
        self.redraw()

    def want(self) -> None:
        """Ask for the points of the charts on the screen."""
        shown = [series.key for series, *_ in self._grid()]
        if shown:
            low, high = self.window or (None, None)
            self.post_message(self.Wanted(shown, 2 * self.size.width, low, high, _WEIGHTS[self.weight]))

    def forget(self) -> None:
        """Another run: no points are here, the window shows all of it."""
        self.series, self.window, self.cursor, self.chosen = [], None, None, 0

    # -- actions

    def action_cursor_left(self) -> None:
        self._move_cursor(-1)

    def action_cursor_right(self) -> None:
        self._move_cursor(1)

    def action_leap_left(self) -> None:
        self._move_cursor(-10)

    def action_leap_right(self) -> None:
        self._move_cursor(10)

    def action_cursor_start(self) -> None:
        self._move_to(self._ends()[0])

    def action_cursor_end(self) -> None:
        self._move_to(self._ends()[1])

    def action_next_chart(self) -> None:
        self._choose(1)

    def action_previous_chart(self) -> None:
        self._choose(-1)

    def action_full(self) -> None:
        self.full = not self.full
        self.redraw()
        self.want()

    def action_zoom_in(self) -> None:
        self._zoom(0.5)

    def action_zoom_out(self) -> None:
        self._zoom(2.0)

    def action_zoom_all(self) -> None:
        self.window = None
        self.redraw()
        self.want()

    def action_y_scale(self) -> None:
        self.scale = (self.scale + 1) % len(_SCALES)
        self.redraw()

    def action_smoothing(self) -> None:
        self.weight = (self.weight + 1) % len(_WEIGHTS)
        for series in self.series:
            series.smooth = None
        self.redraw()
        self.want()

    def action_outliers(self) -> None:
        self.outliers_ignored = not self.outliers_ignored
        self.redraw()

    def back(self) -> bool:
        """One step out of what the chart shows; False when there is none left."""
        if self.cursor is not None:
            self.cursor = None
        elif self.full:
            self.full = False
            self.want()
        else:
            return False
        self.redraw()
        return True

    def on_resize(self) -> None:
        super().on_resize()
        self.redraw()
        self.want()

    # -- cursor and window

    def _ends(self) -> tuple[float, float]:
        """All steps that the run has."""
        ends = [series.ends for series in self.series if not series.key.startswith("system/")] or [
            series.ends for series in self.series
        ]
        low = min((end[0] for end in ends), default=0.0)
        high = max((end[1] for end in ends), default=1.0)
        return low, max(high, low + 1)

    def _range(self) -> tuple[float, float]:
        return self.window or self._ends()

    def _move_cursor(self, columns: int) -> None:
        low, high = self._range()
        inside = self._frames[0].inside if self._frames else 60
        step = (high - low) / max(1, inside - 1)
        self._move_to(
            (high if self.cursor is None else self.cursor)
            + (columns * step if self.cursor is not None else 0)
        )

    def _move_to(self, x: float) -> None:
        first, last = self._ends()
        x = min(max(x, first), last)
        self.cursor = x
        if self.window is not None:
            low, high = self.window
            shift = x - low if x < low else x - high if x > high else 0.0
            if shift:
                self.window = (low + shift, high + shift)
                self.want()
        self.redraw()

    def _zoom(self, factor: float) -> None:
        first, last = self._ends()
        low, high = self._range()
        span = (high - low) * factor
        if span >= last - first:
            self.window = None
        else:
            span = max(span, min(_LEAST_SPAN, last - first))
            middle = self.cursor if self.cursor is not None else (low + high) / 2
            share = (middle - low) / (high - low) if high > low else 0.5
            start = min(max(first, middle - share * span), last - span)
            self.window = (start, start + span)
        self.redraw()
        self.want()

    def _choose(self, by: int) -> None:
        if not self.series:
            return
        before = [series.key for series, *_ in self._grid()]
        self.chosen = max(0, min(len(self.series) - 1, self.chosen + by))
        self.redraw()
        self.post_message(self.Chosen(self.series[self.chosen].key))
        if [series.key for series, *_ in self._grid()] != before:
            self.want()

    # -- drawing

    def _grid(self) -> list[tuple[Series, int, int, int, int]]:
        """(series, top, left, width, height) of the charts on the screen; the last line is the cursor's."""
        width, height = self.size.width, self.size.height - 1
        if not self.series or height < 5 or width < 20:
            return []
        if self.full:
            return [(self.series[self.chosen], 0, 0, width, height)]
        across = max(1, min(len(self.series), width // _SMALLEST_WIDTH))
        down = max(1, min(-(-len(self.series) // across), height // _SMALLEST_HEIGHT))
        first = self.chosen // (across * down) * across * down
        grid = []
        for place, series in enumerate(self.series[first : first + across * down]):
            row, column = divmod(place, across)
            top, bottom = row * height // down, (row + 1) * height // down
            left, right = column * width // across, (column + 1) * width // across
            grid.append((series, top, left, right - left - (1 if column < across - 1 else 0), bottom - top))
        return grid

    def redraw(self) -> None:
        """Draw everything anew; what is the same is not painted."""
        height = self.size.height
        if height <= 0:
            return
        if not self.series:
            self.show([(("No metrics recorded.", "dim"),)])
            return
        rows: list[list[tuple[int, Line]]] = [[] for _ in range(height)]
        self._frames = []
        for place, (series, top, left, chart_width, chart_height) in enumerate(self._grid()):
            lines = self._chart(series, top, left, chart_width, chart_height, place)
            for offset, line in enumerate(lines[:chart_height]):
                rows[top + offset].append((left, line))
        drawn = [_beside(row) for row in rows]
        drawn[height - 1] = self._cursor_line()
        self.show(drawn)

    def _chart(self, series: Series, top: int, left: int, width: int, height: int, place: int) -> list[Line]:
        chosen = self.series[self.chosen] is series
        notes: list[str] = [_SCALES[self.scale]] if self.scale else []
        if self.weight:
            notes.append(f"smooth {format_number(_WEIGHTS[self.weight])}")
        if self.outliers_ignored:
            notes.append("no outliers")
        if series.nan:
            notes.append(f"{series.nan:,} NaN")
        title: list[Span] = [
            ("▌" if chosen else " ", "key"),
            (f"{series.key}{series.arrow}", "bold" if chosen else ""),
        ]
        right = "  ".join([*notes, series.best, series.last])
        room = width - 1 - len(series.key) - len(series.arrow) - len(right) - 2
        title.append((" " * max(2, room) + right, "dim"))
        if not series.came:
            return [tuple(title), (("  loading", "dim"),)]
        if not len(series.x):
            return [tuple(title), (("  no points in this window", "dim"),)]
        low, high = self._range()
        curves = [_curve(series.key, series.x, series.y)]
        if series.smooth is not None:
            # First, so that it has the cells that both go through.
            curves.insert(0, _curve("smooth", *series.smooth))
        view = View(
            x_low=low,
            x_high=high,
            y_scale=_SCALES[self.scale],
            ignore_outliers=self.outliers_ignored,
            ascii=self._ascii,
            letters=False,
        )
        plot = draw_plot(curves, width, max(4, height - 1), view)
        gutter = len(plot.rows[0][0].text)
        colour = f"curve:{self.series.index(series)}"
        styles = {-1: "faint", 0: colour, 1: "faint"}
        frame = _Frame(top + 1, left, len(plot.rows) - 2, gutter, width - gutter, series)
        self._frames.append(frame)
        lines: list[Line] = []
        column = self._cursor_column(frame)
        for index, row in enumerate(plot.rows):
            # The frame's labels are for reading, its lines only for orientation.
            spans = tuple((span.text, styles[span.curve]) for span in row)
            if index < frame.height and column is not None:
                spans = _overlay(spans, gutter + column)
            elif index == len(plot.rows) - 1:
                spans = tuple((text, "dim") for text, _ in spans)
            if index < frame.height and spans:
                spans = ((spans[0][0][:-1], "dim"), (spans[0][0][-1:], "faint"), *spans[1:])
            lines.append(spans)
        return [tuple(title), *lines]

    def _cursor_column(self, frame: _Frame) -> int | None:
        low, high = self._range()
        if self.cursor is None or not low <= self.cursor <= high:
            return None
        return round((self.cursor - low) / (high - low) * (frame.inside - 1))

    def _cursor_line(self) -> Line:
        low, high = self._range()
        place = f" {self.chosen + 1}/{len(self.series)}  "
        if self.cursor is None:
            return ((place, "dim"), (f"steps {format_step(low)} to {format_step(high)}", "dim"))
        spans: list[Span] = [(place, "dim"), (f"step {format_step(round(self.cursor))}", "bold")]
        shown = [frame.series for frame in self._frames]
        chosen = self.series[self.chosen]
        shown.sort(key=lambda series: series is not chosen)
        for series in shown[:_VALUES_SHOWN]:
            spans.append((f"   {series.key} ", "dim"))
            spans.append((self._value_at(series, self.cursor), f"curve:{self.series.index(series)}"))
        return tuple(spans)

    def _value_at(self, series: Series, x: float) -> str:
        """The value at the point nearest to the cursor; the extreme where several share its column."""
        if not len(series.x):
            return "-"
        place = bisect.bisect_left(series.x, x)
        near = min(
            (index for index in (place - 1, place) if 0 <= index < len(series.x)),
            key=lambda index: abs(series.x[index] - x),
        )
        return format_number(series.y[near])


def _curve(name: str, x: Sequence[float], y: Sequence[float]) -> Curve:
    return Curve(name, np.asarray(x, np.float64), np.asarray(y, np.float64))


def _beside(parts: Sequence[tuple[int, Line]]) -> Line:
    """Lines of charts that stand beside each other, each from its column on."""
    spans: list[Span] = []
    at = 0
    for left, line in parts:
        if left > at:
            spans.append((" " * (left - at), ""))
            at = left
        spans += line
        at += sum(len(text) for text, _ in line)
    return tuple(spans)


def _overlay(spans: Line, column: int) -> Line:
    """The cursor through a row: a bar where nothing is, a lit cell on a curve."""
    out: list[Span] = []
    at = 0
    for text, style in spans:
        if at <= column < at + len(text):
            inside = column - at
            character = text[inside]
            out.append((text[:inside], style))
            out.append(("│", "dim") if character == " " else (character, f"{style} here"))
            out.append((text[inside + 1 :], style))
        else:
            out.append((text, style))
        at += len(text)
    if at <= column:
        out += [(" " * (column - at), ""), ("│", "dim")]
    return tuple(span for span in out if span[0])

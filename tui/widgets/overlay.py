"""Metrics of several runs, one or a page of them, with one cursor through all curves and a letter for each run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

from textual.binding import BindingType
from textual.message import Message

from mltrack.tui.draw.braille import Frame, View, choose_frame
from mltrack.tui.draw.numbers import format_number
from mltrack.tui.draw.scales import ScaleName
from mltrack.tui.widgets.bindings import bindings_of
from mltrack.tui.widgets.chart_lines import Bar, Picture, Place
from mltrack.tui.widgets.chart_page import ChartPage
from mltrack.tui.widgets.chart_painter import arrange
from mltrack.tui.widgets.chart_pane import format_x
from mltrack.tui.widgets.look import Line, shown
from mltrack.tui.widgets.overlay_chart import Overlaid, draw_overlaid, event_after, title_line

_SCALES: tuple[ScaleName, ...] = ("linear", "log", "symlog")
# As a run's charts have them, and how x is written.
_X_KINDS: dict[str, Literal["count", "date", "duration"]] = {
    "step": "count",
    "relative": "duration",
    "time": "date",
}
_X_AXES = tuple(_X_KINDS)
_X_NOTES = {"relative": "x duration", "time": "x time"}
_WEIGHTS = (0.0, 0.6, 0.9, 0.97)
_LEAST_SPAN = 4.0
_LEAST_HEIGHT, _LEAST_WIDTH = 5, 20
# A key is answered by the chart it was pressed on; the others of a page are drawn within this, or right after.
_DRAW_SECONDS = 0.006
# After what a key has painted; and between two pieces of a page, when keys and questions are let through.
_SOON_SECONDS, _NEXT_SECONDS = 0.03, 0.002
_CHARTS_A_QUESTION = 5


class OverlayChart(ChartPage, can_focus=True):
    """The curves of a metric of all compared runs, or of a page of metrics; `metrics` are those one can go through."""

    BINDINGS: ClassVar[list[BindingType]] = bindings_of("overlay")
    DEFAULT_CSS = "OverlayChart { height: 1fr; }"

    class Wanted(Message):
        """Points are needed: of which metrics, in which window, for how many columns, by which x."""

        def __init__(
            self, keys: list[str], columns: int, low: float | None, high: float | None, weight: float, x: str
        ) -> None:
            self.keys = keys
            self.x = x
            self.columns = columns
            self.low = low
            self.high = high
            self.weight = weight
            super().__init__()

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, OverlayChart.Wanted)

    class EventsWanted(Message):
        """What happened in the curves of a metric is asked for."""

        def __init__(self, key: str, x: str) -> None:
            self.key = key
            self.x = x
            super().__init__()

    class Full(Message):
        """The chart wants the whole screen, or gives it back."""

    def __init__(self, *, id: str | None = None, ascii_only: bool = False) -> None:
        super().__init__(id=id)
        self.metrics: Sequence[str] = ()
        self._labels: Mapping[str, str] = {}
        self.key = ""
        self.full = False
        self.page = False
        """Whether as many metrics as fit are shown."""
        self.cursor: float | None = None
        self.window: tuple[float, float] | None = None
        self.x = "step"
        self.scale = 0
        self.weight = 0
        self.outliers_ignored = False
        self._charts: dict[str, Overlaid] = {}
        self._drawn: dict[str, tuple[object, Picture]] = {}
        self._titles: dict[str, tuple[object, Line]] = {}
        self._waiting = False
        self._generation = 0
        # What happened, in order of x, and of which metric, axis and state of the runs; and where to go when it has come.
        self._events: tuple[object, list[tuple[float, str]]] = None, []
        self._going, self._event = 1, ""
        self._asked: tuple[list[str], object] | None = None
        self._page_places: list[Place] = []
        # Charts below each other begin in one column, so that the cursor is one line through all of them.
        self._gutters: dict[int, int] = {}
        self._ascii = ascii_only
        self._inside = 60

    @property
    def series(self) -> Sequence[object]:
        """The curves of the chosen metric, a place for each run."""
        return self._chart(self.key).curves

    # -- data in

    def offer(self, labels: Mapping[str, str], key: str | None) -> None:
        """Metrics to choose from and how they are called, of runs that have changed; ``key`` is drawn first."""
        self.metrics, self._labels = list(labels), labels
        metrics = self.metrics
        self._generation += 1
        if self.key not in metrics:
            self.choose(key if key in metrics and key is not None else metrics[0] if metrics else "")
        else:
            self.want()

    def choose(self, key: str, soon: bool = False) -> None:
        """Draw another metric; ``soon``: when what was pressed is on the screen, which a hundred curves must not keep waiting."""
        if key != self.key:
            self.key, self._event = key, ""
            if not self.page:
                self.window = None
        if soon:
            self._draw_soon(_SOON_SECONDS)
        else:
            self.redraw()
        self.want()

    def show_points(self, series: Mapping[str, Sequence[Mapping[str, Any] | None]]) -> None:
        """Points of all runs by metric, as the worker answers."""
        for key, curves in series.items():
            chart = self._chart(key)
            chart.take(curves)
            if self._asked is not None and key in self._asked[0]:
                chart.of = self._asked[1]
        self._asked = None
        if self.key in series:
            self.redraw()
        else:
            self._draw_soon()
        self.want()

    def want(self) -> None:
        """Ask for the points of the chosen metric, then for those of the other charts, some at a time.

        One question is open at a time, so that nothing is read that a key has made unwanted."""
        missing: list[str] = []
        asked: tuple[int, float | None, float | None, float, str] | None = None
        for key, place in self._places():
            wanted = self._wanted(place)
            if (
                self._asked is not None
                and key in self._asked[0]
                and self._asked[1] == (wanted, self._generation)
            ):
                return
            if self._chart(key).of != (wanted, self._generation) and asked in (None, wanted):
                asked = wanted
                missing.append(key)
                if key == self.key or len(missing) == _CHARTS_A_QUESTION:
                    break
        if asked is not None:
            self._asked = (missing, (asked, self._generation))
            self.post_message(self.Wanted(missing, *asked))

    def gave_up(self) -> None:
        """The points that were asked for do not come: they are not asked for again until something changes."""
        if self._asked is not None:
            for key in self._asked[0]:
                self._chart(key).of = self._asked[1]
            self._asked = None

    def _wanted(self, place: Place) -> tuple[int, float | None, float | None, float, str]:
        """What a chart at this place asks for: columns, window, smoothing, x."""
        low, high = self.window or (None, None)
        return 2 * place.width, low, high, _WEIGHTS[self.weight], self.x

    def figure(self, run_ids: Sequence[str]) -> dict[str, Any] | None:
        """This chart as the worker is asked to write it."""
        if not self.key:
            return None
        low, high = (self.window if self.x == "step" else None) or (None, None)
        return {
            "run_ids": list(run_ids),
            "key": self.key,
            "y_scale": _SCALES[self.scale],
            "low": low,
            "high": high,
        }

    # -- actions

    def action_overlay_left(self) -> None:
        self._move_cursor(-1)

    def action_overlay_right(self) -> None:
        self._move_cursor(1)

    def action_overlay_leap_left(self) -> None:
        self._move_cursor(-10)

    def action_overlay_leap_right(self) -> None:
        self._move_cursor(10)

    def action_overlay_start(self) -> None:
        self._move_to(self._ends()[0])

    def action_overlay_end(self) -> None:
        self._move_to(self._ends()[1])

    def action_overlay_next(self) -> None:
        self._step(1)

    def action_overlay_previous(self) -> None:
        self._step(-1)

    def action_overlay_next_page(self) -> None:
        self._step(max(1, len(self._places())))

    def action_overlay_previous_page(self) -> None:
        self._step(-max(1, len(self._places())))

    def action_overlay_full(self) -> None:
        """From a page to its chosen chart; else the whole screen, and back."""
        self._fill(self.page or not self.full, False)

    def action_overlay_page(self) -> None:
        self._fill(not self.page, not self.page)

    def action_overlay_x(self) -> None:
        self.x = _X_AXES[(_X_AXES.index(self.x) + 1) % len(_X_AXES)]
        # No place of one axis means anything on another.
        self.window = self.cursor = None
        self._event = ""
        for kept in (self._charts, self._drawn, self._titles):
            kept.clear()
        self.redraw()
        self.want()

    def action_overlay_next_event(self) -> None:
        self._to_event(1)

    def action_overlay_previous_event(self) -> None:
        self._to_event(-1)

    def _to_event(self, by: int) -> None:
        """The next event after the cursor, or the one before it, round at the end; asked for when it is not known yet."""
        of, events = self._events
        if of != (self.key, self.x, self._generation):
            self._going = by
            self.post_message(self.EventsWanted(self.key, self.x))
            return
        if (event := event_after(events, self.cursor, by)) is not None:
            self._move_to(*event)

    def show_events(self, answer: Mapping[str, Any]) -> None:
        """What happened has come: the cursor goes where it was to go."""
        if (answer["key"], answer["x"]) != (self.key, self.x):
            return
        found = [(float(at), str(text)) for at, text in answer["events"]]
        self._events = (self.key, self.x, self._generation), found
        self._to_event(self._going)

    def action_overlay_zoom_in(self) -> None:
        self._zoom(0.5)

    def action_overlay_zoom_out(self) -> None:
        self._zoom(2.0)

    def action_overlay_zoom_all(self) -> None:
        self.window = None
        self.redraw()
        self.want()

    def action_overlay_scale(self) -> None:
        self.scale = (self.scale + 1) % len(_SCALES)
        self.redraw()

    def action_overlay_smooth(self) -> None:
        self.weight = (self.weight + 1) % len(_WEIGHTS)
        self.redraw()
        self.want()

    def action_overlay_outliers(self) -> None:
        self.outliers_ignored = not self.outliers_ignored
        self.redraw()

    def back(self) -> bool:
        """One step out of what the chart shows; False when there is none left."""
        if self.cursor is not None:
            self.cursor = None
            self.redraw()
        elif self.full:
            self._fill(False, False)
        else:
            return False
        return True

    def on_resize(self) -> None:
        super().on_resize()
        self.redraw()
        self.want()

    def _fill(self, full: bool, page: bool) -> None:
        changed, self.full, self.page = full != self.full, full, page
        if changed:
            self.post_message(self.Full())
        self.redraw()
        self.want()

    # -- cursor and window

    def _step(self, by: int) -> None:
        if self.key in self.metrics:
            place = max(0, min(len(self.metrics) - 1, self.metrics.index(self.key) + by))
            if self.metrics[place] != self.key:
                self.choose(self.metrics[place])

    def _ends(self) -> tuple[float, float]:
        keys = [key for key, _ in self._places()] or [self.key]
        ends = [curve.ends for key in keys for curve in self._chart(key).curves if curve is not None]
        low = min((end[0] for end in ends), default=0.0)
        high = max((end[1] for end in ends), default=1.0)
        return low, max(high, low + 1)

    def _range(self) -> tuple[float, float]:
        return self.window or self._ends()

    def _move_cursor(self, columns: int) -> None:
        low, high = self._range()
        step = (high - low) / max(1, self._inside - 1)
        self._move_to(high if self.cursor is None else self.cursor + columns * step)

    def _move_to(self, x: float, event: str = "") -> None:
        first, last = self._ends()
        self._event = event
        self.cursor = x = min(max(x, first), last)
        if self.window is not None:
            low, high = self.window
            shift = x - low if x < low else x - high if x > high else 0.0
            if shift:
                self.window = (low + shift, high + shift)
        self.redraw()
        self.want()

    def _zoom(self, factor: float) -> None:
        first, last = self._ends()
        low, high = self._range()
        span = (high - low) * factor
        if span >= last - first:
            self.window = None
        else:
            span = max(span, min(_LEAST_SPAN, last - first))
            middle = self.cursor if self.cursor is not None else (low + high) / 2
            share = (middle - low) / (high - low)
            start = min(max(first, middle - share * span), last - span)
            self.window = (start, start + span)
        self.redraw()
        self.want()

    # -- drawing

    def _chart(self, key: str) -> Overlaid:
        """The metric's chart; those that were looked at stay as long as they may be on a page."""
        if key not in self._charts:
            if len(self._charts) > 200:
                self._charts.clear()
                self._titles.clear()
            self._charts[key] = Overlaid(key)
        return self._charts[key]

    def _places(self) -> list[tuple[str, Place]]:
        """The metrics that are shown and where, the chosen one first."""
        width, height = self.size.width, self.size.height
        if not self.key or height < _LEAST_HEIGHT or width < _LEAST_WIDTH:
            return []
        if not self.page or self.key not in self.metrics:
            return [(self.key, Place(0, 0, width, height, True))]
        places = arrange(self.metrics, self.metrics.index(self.key), width, height, False)
        return sorted(places, key=lambda entry: entry[0] != self.key)

    def redraw(self) -> None:
        """Draw what has changed; what is the same is not painted."""
        width, height = self.size.width, self.size.height
        if height <= 0:
            return
        if not self.key:
            self.show([((" The runs have no metrics.", "dim"),)])
            return
        places = self._places()
        if not places:
            self.show([self._title(self._chart(self.key), width)])
            return
        rows: list[list[tuple[int, Line]]] = [[] for _ in range(height)]
        bars: list[Bar] = []
        low, high = self._range()
        pictures = self._pictures(places, low, high)
        for key, place in sorted(places, key=lambda entry: (entry[1].top, entry[1].left)):
            picture = pictures[key]
            if self.cursor is not None and low <= self.cursor <= high and picture.inside:
                column = round((self.cursor - low) / (high - low) * (picture.inside - 1))
                bars.append(picture.bar(place, column))
            rows[place.top].append((place.left, self._title(self._chart(key), place.width)))
            for row, line in enumerate(picture.body[: place.height - 1], place.top + 1):
                rows[row].append((place.left, line))
        self.show_page(rows, bars)

    def _pictures(self, places: Sequence[tuple[str, Place]], low: float, high: float) -> dict[str, Picture]:
        """The picture of each metric; on a page some may be those of before, for a moment."""
        view = View(
            x_low=low,
            x_high=high,
            x_kind=_X_KINDS[self.x],
            y_scale=_SCALES[self.scale],
            ignore_outliers=self.outliers_ignored,
            ascii=self._ascii,
        )
        page = [place for _, place in sorted(places, key=lambda entry: (entry[1].top, entry[1].left))]
        if page != self._page_places:
            self._page_places, self._gutters = page, {}
        began = time.monotonic()
        drawn: dict[str, tuple[object, Picture]] = {}
        late = False
        for key, place in places:
            chart = self._chart(key)
            own = replace(view, x_labels=place.labels, gutter=self._gutters.get(place.left, 0))
            mark = (chart.version, own, place)
            old = self._drawn.get(key)
            # Of another window than its points: they are on their way, and it would be drawn twice.
            waits = key != self.key and chart.came and chart.of != (self._wanted(place), self._generation)
            if old is not None and (old[0] == mark or waits and len(old[1].body) == place.height - 1):
                drawn[key] = old
            elif drawn and time.monotonic() - began > _DRAW_SECONDS:
                late = True
                fits = old is not None and len(old[1].body) == place.height - 1
                drawn[key] = old if fits and old is not None else (None, _empty(place))
            else:
                frame: Frame | None = None
                if chart.has_points():
                    frame = choose_frame(chart.drawn(), place.width, place.height - 1, own)
                    if frame.gutter > own.gutter:
                        late |= own.gutter > 0
                        self._gutters[place.left] = frame.gutter
                        own = replace(own, gutter=frame.gutter)
                        mark = (chart.version, own, place)
                drawn[key] = (mark, draw_overlaid(chart, place, own, frame))
        self._drawn = drawn
        self._inside = drawn[self.key][1].inside or self._inside
        if late:
            self._draw_soon()
        return {key: picture for key, (_, picture) in drawn.items()}

    def _draw_soon(self, seconds: float = _NEXT_SECONDS) -> None:
        if not self._waiting:
            self._waiting = True
            self.set_timer(seconds, self._draw_rest)

    def _draw_rest(self) -> None:
        self._waiting = False
        self.redraw()

    def _title(self, chart: Overlaid, width: int) -> Line:
        chosen = chart.key == self.key
        notes: list[str] = [shown(self._event)] if self._event and chosen else []
        if self.x in _X_NOTES:
            notes.append(_X_NOTES[self.x])
        if self.scale:
            notes.append(_SCALES[self.scale])
        if self.weight:
            notes.append(f"smooth {format_number(_WEIGHTS[self.weight])}")
        if self.outliers_ignored:
            notes.append("no outliers")
        if len(self.metrics) > 1 and chosen and self.key in self.metrics:
            notes.append(f"{self.metrics.index(self.key) + 1}/{len(self.metrics)}")
        step = ""
        if self.cursor is not None and chosen:
            step = f"{'step ' if self.x == 'step' else ''}{format_x(self.cursor, self.x)}"
        label = self._labels.get(chart.key, chart.key)
        marks = (chart.version, label, chosen and self.has_focus, tuple(notes), self.cursor, step, width)
        kept = self._titles.get(chart.key)
        if kept is None or kept[0] != marks:
            line = title_line(chart, label, chosen and self.has_focus, notes, self.cursor, step, width)
            kept = self._titles[chart.key] = marks, line
        return kept[1]

    def watch_has_focus(self, focused: bool) -> None:
        super().watch_has_focus(focused)
        self.redraw()


def _empty(place: Place) -> Picture:
    """What stands for a chart until it is drawn."""
    return Picture((), tuple(() for _ in range(place.height - 1)), 0, 0, 0)

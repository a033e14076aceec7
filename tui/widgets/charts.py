"""Curves of one run with one cursor through all of them. Draws lines; where the points come from is not its business."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from textual.binding import BindingType
from textual.message import Message

from mltrack.tui.draw.scales import ScaleName
from mltrack.tui.widgets.bindings import bindings_of
from mltrack.tui.widgets.chart_lines import Bar, Picture, Place
from mltrack.tui.widgets.chart_page import ChartPage
from mltrack.tui.widgets.chart_painter import Looks, Painter, arrange
from mltrack.tui.widgets.chart_pane import Event, Pane
from mltrack.tui.widgets.chart_series import Series, key_matcher
from mltrack.tui.widgets.chart_window import ChartWindow
from mltrack.tui.widgets.lines import changed_bytes
from mltrack.tui.widgets.look import Line

_SCALES: tuple[ScaleName, ...] = ("linear", "log", "symlog")
_WEIGHTS = (0.0, 0.6, 0.9, 0.97)
X_AXES = ("step", "time", "relative")
# What one live frame may cost on the wire; the charts that are left come with the next one.
_LIVE_BYTES = 2500
_EXTRA_SERIES = 4


class Charts(ChartPage, can_focus=True):
    """As many charts as fit, or one on the whole screen, and below them what the cursor points at."""

    BINDINGS: ClassVar[list[BindingType]] = bindings_of("chart")
    DEFAULT_CSS = "Charts { height: 1fr; }"

    class Wanted(Message):
        """Points are needed: of which metrics, in which window, for how many columns, on which axis."""

        def __init__(
            self,
            keys: list[str],
            columns: int,
            low: float | None,
            high: float | None,
            weight: float,
            x: str,
            every_rank: bool,
        ) -> None:
            self.keys = keys
            self.columns = columns
            self.low = low
            self.high = high
            self.weight = weight
            self.x = x
            self.every_rank = every_rank
            super().__init__()

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, Charts.Wanted)

    class Chosen(Message):
        """Another chart has the keys, or another axis lies below them."""

        def __init__(self, key: str, x: str) -> None:
            self.key = key
            self.x = x
            super().__init__()

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, Charts.Chosen)

    class CursorMoved(Message):
        """The cursor points at these steps now; None: at the end."""

        def __init__(self, steps: tuple[float, float] | None) -> None:
            self.steps = steps
            super().__init__()

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, Charts.CursorMoved)

    class XAxisWanted(Message):
        """A person wants to name a metric as the x axis."""

    class FilterWanted(Message):
        """A person wants to say which charts to show."""

    def __init__(self, *, id: str | None = None, ascii_only: bool = False) -> None:
        super().__init__(id=id)
        self.series: list[Series] = []
        """The metrics that the filter lets through."""
        self.filter = ""
        self._matches = key_matcher("")
        self.window = ChartWindow()
        self.pane = Pane()
        self.chosen = 0
        self.full = False
        self.x = "step"
        self.scale = 0
        self.weight = 0
        self.outliers_ignored = False
        self.every_rank = False
        self.ranks = 1
        self._all: dict[str, Series] = {}
        self._painter = Painter(ascii_only)
        self._painted: dict[str, Picture] = {}
        self._waiting = False
        self._hurry = True
        self._times: tuple[float, float] = (0.0, 1.0)
        self._live = False

    # -- data in

    def show_run(self, page: Mapping[str, Any]) -> None:
        """The metrics of the run's page in the order to draw them; points that are here stay until newer ones come."""
        before = self._all
        self._all = {}
        for place, line in enumerate(page["metrics"]):
            key = str(line[0])
            series = before.get(key) or Series(key, place)
            series.place = place
            series.describe(line)
            self._all[key] = series
        self._live = bool(page["live"])
        self._times = (float(page["time"][0]), float(page["time"][1]))
        self.ranks = int(page["ranks"])
        self._let_through()
        self._find_ends()
        self.redraw(live=True)
        self.want(live=True)

    def show_points(self, answer: Mapping[str, Any]) -> None:
        """Points by metric, as the worker answers."""
        if answer.get("x", self.x) != self.x:
            return  # of the axis that was
        for key, entry in answer["lines"].items():
            if key in self._all:
                self._all[key].take(entry)
        clock = answer.get("clock")
        self.pane.clock = None if clock is None else (np.array(clock[0], float), np.array(clock[1], float))
        self.pane.start_ms = self._times[0]
        before = self.window.range
        self._find_ends()
        # What a key asked for is painted at once; what came by itself, in small frames.
        self.redraw(live=not self._hurry)
        self._hurry = False
        if self.window.range != before:
            self.want()  # there is more than was thought

    def show_events(self, answer: Mapping[str, Any]) -> None:
        """What happened in the run, as the worker answers."""
        if answer["x"] == self.x:
            self.pane.events = [
                Event(
                    str(event["kind"]),
                    min(float(event["low"]), float(event["high"])),
                    max(float(event["low"]), float(event["high"])),
                    float(event["at"]),
                    str(event["text"]),
                )
                for event in answer["events"]
            ]
            self.redraw()

    def show_log_line(self, line: Line, here: bool) -> None:
        """The line of the log nearest to the cursor, else its last one."""
        self.pane.log, self.pane.log_is_here = line, here
        self.redraw()

    def want(self, live: bool = False) -> None:
        """Ask for the points of the charts on the screen, and of a few more for the values at the cursor.

        ``live``: nobody pressed a key for them."""
        self._hurry |= not live
        places = self._grid()
        if not places:
            return
        keys = [series.key for series, _ in places]
        keys += [key for key in self._all if key not in keys and not key.startswith("system/")][
            :_EXTRA_SERIES
        ]
        low, high = self.window.range if self.window.ends is not None else (None, None)
        columns = 2 * max(place.width for _, place in places)
        self.post_message(
            self.Wanted(keys, columns, low, high, _WEIGHTS[self.weight], self.x, self.every_rank)
        )

    def forget(self) -> None:
        """Another run: no points are here, all of it is shown."""
        self.series, self._all = [], {}
        self.window.forget()
        self.chosen = 0
        self.pane = Pane()
        self._painter.forget()
        self._painted.clear()

    def set_filter(self, pattern: str) -> None:
        """Show only the metrics that this means. Raises re.error."""
        self._matches = key_matcher(pattern)
        self.filter = pattern
        self._let_through()
        self.redraw()
        self.want()
        self._tell_chosen()

    def set_x(self, x: str) -> None:
        """Another x axis; the window and the cursor stay where they were, where that means something."""
        before = self.x
        if x == before:
            return
        clock = self.pane.clock

        def place(value: float) -> float | None:
            return self.pane.translate(value, before, x)

        self.x = x
        if clock is not None and before in X_AXES and x in X_AXES:
            self.window.map(place)
        else:
            self.window.forget()
        self.pane.events = []
        for series in self._all.values():
            series.came, series.ends, series.lines = False, None, []
        self._find_ends()
        self.redraw()
        self.want()
        self._tell_chosen()

    @property
    def chosen_key(self) -> str | None:
        """The metric whose chart has the keys."""
        return self.series[self.chosen].key if self.series else None

    @property
    def y_scale(self) -> str:
        """linear, log or symlog."""
        return _SCALES[self.scale]

    @property
    def keys(self) -> list[str]:
        """All metrics of the run."""
        return list(self._all)

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
        self._move_to((self.window.ends or self.window.range)[0])

    def action_cursor_end(self) -> None:
        self._move_to((self.window.ends or self.window.range)[1])

    def action_next_event(self) -> None:
        self._to_event(1)

    def action_previous_event(self) -> None:
        self._to_event(-1)

    def action_next_chart(self) -> None:
        self._choose(1)

    def action_previous_chart(self) -> None:
        self._choose(-1)

    def action_next_page(self) -> None:
        self._choose(max(1, len(self._grid())))

    def action_previous_page(self) -> None:
        self._choose(-max(1, len(self._grid())))

    def action_full(self) -> None:
        self.full = not self.full
        self.redraw()
        self.want()

    def action_zoom_in(self) -> None:
        self._zoom(0.5)

    def action_zoom_out(self) -> None:
        self._zoom(2.0)

    def action_zoom_all(self) -> None:
        self.window.zoomed = None
        self.redraw()
        self.want()

    def action_x_axis(self) -> None:
        if self.x == X_AXES[-1]:
            self.post_message(self.XAxisWanted())
        else:
            self.set_x(X_AXES[(X_AXES.index(self.x) + 1) % len(X_AXES)] if self.x in X_AXES else X_AXES[0])

    def action_filter_charts(self) -> None:
        self.post_message(self.FilterWanted())

    def action_y_scale(self) -> None:
        self.scale = (self.scale + 1) % len(_SCALES)
        self.redraw()

    def action_smoothing(self) -> None:
        self.weight = (self.weight + 1) % len(_WEIGHTS)
        if not self.weight:
            for series in self._all.values():
                for line in series.lines:
                    line.smooth = None
                series.version += 1
        self.redraw()
        self.want()

    def action_outliers(self) -> None:
        self.outliers_ignored = not self.outliers_ignored
        self.redraw()

    def action_every_rank(self) -> None:
        self.every_rank = not self.every_rank
        self.want()

    def back(self) -> bool:
        """One step out of what the charts show; False when there is none left."""
        if self.window.cursor is not None:
            self.window.cursor = None
            self._tell_cursor()
        elif self.full:
            self.full = False
            self.want()
        elif self.filter:
            self.set_filter("")
        else:
            return False
        self.redraw()
        return True

    def on_resize(self) -> None:
        super().on_resize()
        self.redraw()
        self.want()

    # -- cursor and window

    def _find_ends(self) -> None:
        """What x there is: of the points that are here, and of what the run's page says of the others."""
        usual = [series for series in self._all.values() if not series.key.startswith("system/")]
        usual = usual or list(self._all.values())
        ends = [series.ends for series in usual if series.ends is not None]
        if self.x == "step":
            ends += [series.steps for series in usual]
        elif self.x == "time":
            ends.append(self._times)
        elif self.x == "relative":
            ends.append((0.0, max(0.0, (self._times[1] - self._times[0]) / 1000)))
        if ends:
            self.window.set_ends(min(end[0] for end in ends), max(end[1] for end in ends), self._live)

    def _inside(self) -> int:
        return max((picture.inside for picture in self._painted.values()), default=0) or 60

    def _move_cursor(self, columns: int) -> None:
        before = self.window.zoomed
        self.window.move(columns, self._inside())
        self._moved(before)

    def _move_to(self, x: float) -> None:
        before = self.window.zoomed
        self.window.move_to(x)
        self._moved(before)

    def _moved(self, before: tuple[float, float] | None) -> None:
        if self.window.zoomed != before:
            self.want()
        self.redraw()
        self._tell_cursor()

    def _to_event(self, by: int) -> None:
        event = self.pane.next_event(self.window.cursor, by)
        if event is not None:
            self._move_to(event.at)

    def _zoom(self, factor: float) -> None:
        self.window.zoom(factor)
        self.redraw()
        self.want()

    def _choose(self, by: int) -> None:
        if not self.series:
            return
        before = [series.key for series, _ in self._grid()]
        self.chosen = max(0, min(len(self.series) - 1, self.chosen + by))
        self.redraw()
        self._tell_chosen()
        if [series.key for series, _ in self._grid()] != before:
            self.want()

    def _tell_chosen(self) -> None:
        self.post_message(self.Chosen(self.chosen_key or "", self.x))

    def _tell_cursor(self) -> None:
        steps = None
        if self.window.cursor is not None:
            low, high = self.window.range
            half = (high - low) / max(1, self._inside() - 1) / 2
            edges = [self.pane.translate(self.window.cursor + side, self.x, "step") for side in (-half, half)]
            if edges[0] is not None and edges[1] is not None:
                steps = (edges[0], edges[1])
        self.post_message(self.CursorMoved(steps))

    def _let_through(self) -> None:
        chosen = self.chosen_key
        self.series = [series for key, series in self._all.items() if self._matches(key)]
        self.chosen = next((place for place, series in enumerate(self.series) if series.key == chosen), 0)

    # -- drawing

    def _pane_height(self) -> int:
        return 4 if self.size.height >= 18 else 2 if self.size.height >= 12 else 1

    def _grid(self) -> list[tuple[Series, Place]]:
        """The charts on the screen and where they lie; below them is room for the pane."""
        height = self.size.height - self._pane_height()
        return arrange(self.series, self.chosen, self.size.width, height, self.full)

    def redraw(self, live: bool = False) -> None:
        """Draw everything anew; what is the same is not painted. A live frame paints at most a few kB, the rest later."""
        height = self.size.height
        if height <= 0:
            return
        if not self._all:
            self.show([(), (("  No metrics recorded.", "dim"),)])
            return
        if not self.series:
            self.show([(), ((f"  No metric matches {self.filter}. esc shows all.", "dim"),)])
            return
        places = self._grid()
        looks = Looks(
            self.x, _SCALES[self.scale], _WEIGHTS[self.weight], self.outliers_ignored, self.every_rank
        )
        pictures = self._painter.draw(places, self.series[self.chosen], self.window, looks)
        painted: dict[str, Picture] = {}
        budget = _LIVE_BYTES if live and self._painted else None
        late = False
        for series, _ in sorted(places, key=lambda entry: entry[0] is not self.series[self.chosen]):
            picture, old = pictures[series.key], self._painted.get(series.key)
            if budget is not None and old is not None and len(old.body) == len(picture.body):
                cost = changed_bytes(old.lines, picture.lines)
                if cost > budget and budget < _LIVE_BYTES:
                    painted[series.key] = old
                    late = True
                    continue
                budget -= cost
            painted[series.key] = picture
        self._painted = painted
        self._show(places, painted, height)
        if late and not self._waiting:
            self._waiting = True
            self.set_timer(1.0, self._paint_rest)

    def _paint_rest(self) -> None:
        self._waiting = False
        self.redraw(live=True)

    def _show(
        self, places: Sequence[tuple[Series, Place]], painted: Mapping[str, Picture], height: int
    ) -> None:
        rows: list[list[tuple[int, Line]]] = [[] for _ in range(height)]
        bars: list[Bar] = []
        for series, place in places:
            picture = painted[series.key]
            column = (
                None
                if self.window.cursor is None or not picture.inside
                else self.window.column(self.window.cursor, picture.inside)
            )
            if column is not None:
                bars.append(picture.bar(place, column))
            for row, line in enumerate(picture.lines[: place.height], place.top):
                rows[row].append((place.left, line))
        pane = self.pane.lines(
            self._pane_height(),
            self.size.width,
            [series for series, _ in places],
            self.series,
            self.chosen,
            list(self._all.values()),
            self.window,
            self.x,
        )
        rows[height - len(pane) :] = [[(0, line)] for line in pane]
        self.show_page(rows, bars)

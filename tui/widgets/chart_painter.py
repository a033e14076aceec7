"""The charts of a page: where each lies, and its picture, drawn again only when it would differ. Knows no widget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from mltrack.tui.draw.braille import Frame, View, choose_frame
from mltrack.tui.draw.numbers import format_number
from mltrack.tui.draw.scales import ScaleName
from mltrack.tui.widgets.chart_lines import Picture, Place, draw_chart, title_line
from mltrack.tui.widgets.chart_pane import format_x
from mltrack.tui.widgets.chart_series import Series
from mltrack.tui.widgets.chart_window import ChartWindow

T = TypeVar("T")
_LEAST_HEIGHT = 8
_WIDE, _VERY_WIDE = 120, 180
_KINDS: dict[str, Literal["count", "number", "date", "duration"]] = {
    "step": "count",
    "time": "date",
    "relative": "duration",
}


@dataclass(frozen=True)
class Looks:
    """How all charts are looked at."""

    x: str
    y_scale: ScaleName
    weight: float
    outliers_ignored: bool
    every_rank: bool

    def notes(self, series: Series) -> list[str]:
        """What of it is not the usual way, for the title of a chart."""
        notes: list[str] = []
        if self.x != "step":
            notes.append(f"x {self.x}")
        if self.y_scale != "linear":
            notes.append(f"y {self.y_scale}")
        if self.weight:
            notes.append(f"smooth {format_number(self.weight)}")
        if self.outliers_ignored:
            notes.append("no outliers")
        if self.every_rank and series.ranks > 1:
            notes.append(f"{series.ranks} ranks")
        if series.nan:
            notes.append(f"{series.nan:,} NaN")
        return notes


def arrange(charts: Sequence[T], chosen: int, width: int, height: int, full: bool) -> list[tuple[T, Place]]:
    """The page of charts that the chosen one is on, and where each of them lies."""
    if not charts or height < 4 or width < 20:
        return []
    if full:
        return [(charts[chosen], Place(0, 0, width, height, True))]
    count = len(charts)
    across = 1 if width < _WIDE or count < 3 else 2 if width < _VERY_WIDE or count < 5 else 3
    down = max(1, min(-(-count // across), height // _LEAST_HEIGHT))
    first = chosen // (across * down) * across * down
    # The lowest charts have the labels of the axis, one line more.
    heights = [(height - 1) // down + (row < (height - 1) % down) for row in range(down)]
    heights[-1] += 1
    shown = charts[first : first + across * down]
    grid: list[tuple[T, Place]] = []
    for place, series in enumerate(shown):
        row, column = divmod(place, across)
        left, right = column * (width + 1) // across, (column + 1) * (width + 1) // across
        lowest = row == down - 1 or place + across >= len(shown)
        grid.append((series, Place(sum(heights[:row]), left, right - left - 1, heights[row], lowest)))
    return grid


class Painter:
    """Draws the charts of a page and remembers their pictures."""

    def __init__(self, ascii_only: bool) -> None:
        self._ascii = ascii_only
        self._kept: dict[str, tuple[tuple[object, ...], Picture]] = {}
        self._page: tuple[object, ...] = ()

    def forget(self) -> None:
        """Other data."""
        self._kept.clear()
        self._page = ()

    def draw(
        self, places: Sequence[tuple[Series, Place]], chosen: Series, window: ChartWindow, looks: Looks
    ) -> dict[str, Picture]:
        """The picture of each chart by its metric."""
        # Most keys move the cursor, which is laid over the pictures.
        of = tuple(
            (series.key, series.version, series.came, series.figures(), place) for series, place in places
        )
        page = (of, chosen.key, window.range, looks)
        if page == self._page:
            return {key: picture for key, (_, picture) in self._kept.items()}
        self._page = page
        low, high = window.range
        view = View(
            x_low=low,
            x_high=high,
            y_scale=looks.y_scale,
            ignore_outliers=looks.outliers_ignored,
            ascii=self._ascii,
            x_kind=_KINDS.get(looks.x, "number"),
            grid=True,
        )
        drawn = {series.key: series.curves() for series, _ in places}
        frames: dict[str, Frame] = {}
        # Charts below each other begin in one column, so that the cursor is one line through all of them.
        gutters: dict[int, int] = {}
        for series, place in places:
            if series.has_points():
                own = replace(view, x_labels=place.labels)
                frame = choose_frame(drawn[series.key][0], place.width, place.height - 1, own)
                frames[series.key] = frame
                gutters[place.left] = max(gutters.get(place.left, 0), frame.gutter)
        kept: dict[str, tuple[tuple[object, ...], Picture]] = {}
        for series, place in places:
            own = replace(view, x_labels=place.labels, gutter=gutters.get(place.left, 0))
            found = frames.get(series.key)
            notes = [*(found.notes if found is not None else ()), *looks.notes(series)]
            title = title_line(series, series is chosen, notes, place.width)
            mark = (series.version, own, place, title)
            old = self._kept.get(series.key)
            if old is not None and old[0] == mark:
                kept[series.key] = old
                continue
            why = f"no points from {format_x(low, looks.x)} to {format_x(high, looks.x)}"
            why = "" if found is not None else why if series.came else "loading"
            curves, owners = drawn[series.key]
            kept[series.key] = (mark, draw_chart(series, place, own, found, title, curves, owners, why))
        self._kept = kept
        return {key: picture for key, (_, picture) in kept.items()}

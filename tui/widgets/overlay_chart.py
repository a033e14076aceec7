"""One metric of several runs as a picture: curves with letters, its title with their values. Knows no widget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mltrack.tui.clean import cell_width, clip
from mltrack.tui.draw.braille import GRID, Curve, Frame, View, curve_letter, draw_plot
from mltrack.tui.draw.numbers import format_bytes, format_number
from mltrack.tui.draw.scales import Floats
from mltrack.tui.widgets.chart_lines import Picture, Place
from mltrack.tui.widgets.chart_series import unpack
from mltrack.tui.widgets.look import Line, Span, shown

_LEGEND = 10
_LEAST_NAME = 12


@dataclass(frozen=True, eq=False)
class RunCurve:
    """The curve of one run; ``ends`` are its first and last step."""

    x: Floats
    y: Floats
    ends: tuple[float, float]


@dataclass(eq=False)
class Overlaid:
    """A metric and the curves of all runs, None for a run that has not logged it."""

    key: str
    curves: list[RunCurve | None] = field(default_factory=list)
    came: bool = False
    of: object = None
    """The window and columns that the curves are of."""
    version: int = 0

    def take(self, series: Sequence[Mapping[str, Any] | None]) -> None:
        """Take the points that the worker sent."""
        self.curves = [
            None
            if entry is None
            else RunCurve(
                unpack(entry["x"]), unpack(entry["y"]), (float(entry["ends"][0]), float(entry["ends"][1]))
            )
            for entry in series
        ]
        self.came = True
        self.version += 1

    def drawn(self) -> list[Curve]:
        """A run without the metric keeps its place, so that letters and colours stay with their runs."""
        nothing = np.empty(0)
        return [
            Curve("", nothing, nothing) if curve is None else Curve("", curve.x, curve.y)
            for curve in self.curves
        ]

    def has_points(self) -> bool:
        """Whether anything is to be drawn."""
        return any(curve is not None and len(curve.x) for curve in self.curves)

    def value_at(self, place: int, x: float) -> str:
        """The value of a run at the point nearest to x; - where it has none there."""
        curve = self.curves[place]
        if curve is None or not len(curve.x) or x > curve.ends[1] or x < curve.ends[0]:
            return "-"
        at = int(np.searchsorted(curve.x, x))
        near = min(
            (index for index in (at - 1, at) if 0 <= index < len(curve.x)),
            key=lambda index: abs(float(curve.x[index]) - x),
        )
        value = float(curve.y[near])
        bytes_here = self.key.endswith(("_bytes", "/bytes")) and np.isfinite(value)
        return format_bytes(value) if bytes_here else format_number(value)

    def legend(self, cursor: float | None, room: int) -> list[Span]:
        """A letter for each run, with its value at the cursor; as many as there is room for."""
        spans: list[Span] = []
        count = len(self.curves)
        for place in range(count):
            gone = self.curves[place] is None
            value = "" if cursor is None else f" {self.value_at(place, cursor)}"
            text = f"  {curve_letter(place)}{' -' if gone else value}"
            left = f" +{count - place}"
            if place >= _LEGEND or len(text) + (len(left) if place < count - 1 else 0) > room:
                spans.append((left, "dim"))
                break
            room -= len(text)
            spans.append((text, "dim" if gone else f"curve:{place}"))
        return spans


def event_after(events: Sequence[tuple[float, str]], here: float | None, by: int) -> tuple[float, str] | None:
    """Where something happened next after ``here``, or before it, round at the end; with all that happened at that place."""
    ahead = list(events if by > 0 else reversed(events))
    if here is not None:
        tiny = 1e-9 * max(1.0, abs(here))
        ahead = [event for event in ahead if (event[0] - here) * by > tiny] or ahead
    if not ahead:
        return None
    return ahead[0][0], ", ".join(text for place, text in events if place == ahead[0][0])


def title_line(
    chart: Overlaid,
    label: str,
    chosen: bool,
    notes: Sequence[str],
    cursor: float | None,
    step: str,
    width: int,
) -> Line:
    """Name and view at the left; step and values at the right, as many as fit."""
    name = clip(shown(label), max(1, width - 2), keep="tail")
    spans: list[Span] = [("▌" if chosen else " ", "key"), (name, "bold")]
    used = 1 + cell_width(name)
    for note in notes:
        if used + len(note) + 2 <= width // 2:
            spans.append(("  " + note, "dim"))
            used += len(note) + 2
    right: list[Span] = []
    if step and used + len(step) + 4 <= width:
        right.append((step, "bold"))
    right += chart.legend(cursor, width - used - 3 - sum(len(text) for text, _ in right))
    taken = sum(cell_width(text) for text, _ in right)
    return (*spans, (" " * max(1, width - used - taken - 1), ""), *right)


def draw_overlaid(chart: Overlaid, place: Place, view: View, frame: Frame | None) -> Picture:
    """The picture below the title; a sentence that says why there is none."""
    height = max(1, place.height - 1)
    if frame is None:
        why = "no points in this window" if chart.came else "loading"
        blank: list[Line] = [() for _ in range(height)]
        blank[min(height - 1, height // 2)] = ((" " + why, "dim"),)
        return Picture((), tuple(blank), 0, 0, 0)
    plot = draw_plot(chart.drawn(), place.width, max(4, height), view, frame)
    inside_height = len(plot.rows) - (2 if view.x_labels else 1)
    styles = {-1: "faint", GRID: "grid"}
    body: list[Line] = []
    for row, spans in enumerate(plot.rows):
        line: Line = tuple((span.text, styles.get(span.curve) or f"curve:{span.curve}") for span in spans)
        if row < inside_height:
            line = ((line[0][0][:-1], "dim"), (line[0][0][-1:], "faint"), *line[1:])
        elif row > inside_height:
            line = tuple((text, "dim") for text, _ in line)
        body.append(line)
    return Picture((), tuple(body[:height]), plot.gutter, plot.inside, min(inside_height, height))

"""What the charts' cursor points at: step and time, values, events of the run, the line of the log that belongs there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mltrack.tui.clean import cell_width, clip
from mltrack.tui.draw.numbers import format_number, format_step
from mltrack.tui.draw.scales import Floats
from mltrack.tui.draw.times import format_duration, format_moment
from mltrack.tui.widgets.chart_series import Series
from mltrack.tui.widgets.chart_window import ChartWindow
from mltrack.tui.widgets.look import Line, Span, shown

_NAMES = {"nan": "NaN", "inf": "inf"}
_STYLES = {
    "best": "green",
    "nan": "red",
    "inf": "red",
    "spike": "yellow",
    "drop": "yellow",
    "resumed": "cyan",
}


@dataclass(frozen=True)
class Event:
    """Something that happened, on the present x axis."""

    kind: str
    low: float
    high: float
    at: float
    text: str

    def sentence(self, x: str, near_ms: float, brief: bool = False) -> str:
        """NaN 16,500-16,680 (12); in brief without the figures."""
        begin = self.at if self.low == self.high or self.kind in ("spike", "drop") else self.low
        place = format_x(begin, x, near_ms)
        until = (
            f"-{format_x(self.high, x, near_ms)}"
            if self.high > self.low and self.kind in ("nan", "inf")
            else ""
        )
        text = "" if brief else self.text
        return " ".join(part for part in (_NAMES.get(self.kind, self.kind), place + until, text) if part)


@dataclass
class Pane:
    """State of the lines below the charts. ``clock`` are steps and the ms at which they were reached."""

    clock: tuple[Floats, Floats] | None = None
    start_ms: float = 0.0
    events: list[Event] = field(default_factory=list)
    log: Line = ()
    log_is_here: bool = False

    def translate(self, x: float, before: str, after: str) -> float | None:
        """Where a point of one axis lies on another; None where nobody knows."""
        if before == after:
            return x
        if before == "time":
            ms = x
        elif before == "relative":
            ms = self.start_ms + x * 1000
        elif before == "step" and self.clock is not None:
            ms = float(np.interp(x, self.clock[0], self.clock[1]))
        else:
            return None
        if after == "time":
            return ms
        if after == "relative":
            return (ms - self.start_ms) / 1000
        if after == "step" and self.clock is not None:
            return float(np.interp(ms, self.clock[1], self.clock[0]))
        return None

    def next_event(self, cursor: float | None, by: int) -> Event | None:
        """The next event after the cursor, or the one before it; round at the end."""
        if not self.events:
            return None
        if cursor is None:
            return self.events[0 if by > 0 else -1]
        tiny = 1e-9 * max(1.0, abs(cursor))
        if by > 0:
            return next((event for event in self.events if event.at > cursor + tiny), self.events[0])
        return next((event for event in reversed(self.events) if event.at < cursor - tiny), self.events[-1])

    def lines(
        self,
        height: int,
        width: int,
        visible: Sequence[Series],
        charts: Sequence[Series],
        chosen: int,
        every: Sequence[Series],
        window: ChartWindow,
        x: str,
    ) -> list[Line]:
        """As many lines as there is room for: position, values, events, log; never more than ``height``."""
        first = next((place for place, series in enumerate(charts) if visible and series is visible[0]), 0)
        place = f"{first + 1}-{first + len(visible)}" if len(visible) > 1 else f"{chosen + 1}"
        of = f"{len(charts)} of {len(every)}" if len(charts) != len(every) else f"{len(charts)}"
        head = self._head(window, x)
        lines: list[Line] = [_ruled([(f"chart {place} of {of}", "dim"), *head], width)]
        if height >= 2:
            lines.append(self._values(visible, charts[chosen], every, window, width))
        if height >= 3:
            lines.append(self._events(window, x, width))
        if height >= 4:
            lines.append(self._log(width))
        return lines[:height]

    def _head(self, window: ChartWindow, x: str) -> list[Span]:
        low, high = window.range
        if window.cursor is None:
            end = min(high, window.ends[1]) if window.ends else high
            return [(f"{shown(x)} {format_x(low, x)} to {format_x(end, x, self.start_ms)}", "dim")]
        spans: list[Span] = []
        at = window.cursor
        if x not in ("step", "time", "relative"):
            spans.append((f"{shown(x)} {format_number(at)}", "bold"))
        step = self.translate(at, x, "step")
        if step is not None:
            spans.append((f"step {format_step(round(step))}", "bold"))
        ms = self.translate(at, x, "time")
        if ms is not None:
            spans.append((f"{format_duration((ms - self.start_ms) / 1000)} into the run", ""))
            spans.append((format_moment(round(ms), round(self.start_ms)), ""))
        return spans

    def _values(
        self,
        visible: Sequence[Series],
        chosen: Series,
        every: Sequence[Series],
        window: ChartWindow,
        width: int,
    ) -> Line:
        order = sorted(visible, key=lambda series: series is not chosen)
        seen = {series.key for series in visible}
        order += [
            series for series in every if series.key not in seen and series.lines and series.has_points()
        ]
        spans: list[Span] = []
        room = width
        for series in order:
            value = series.last if window.cursor is None else series.value_at(window.cursor)
            name, text = clip(shown(series.key), 32, keep="tail"), series.shown_value(value)
            near = ""
            if window.cursor is not None and series is chosen:
                near = self._event_at(window)
            cells = cell_width(name) + len(text) + 2 + (len(near) + 2 if near else 0)
            if cells + 1 > room and spans:
                break
            room -= cells + 2
            spans += [
                (f" {name} ", "dim"),
                (text, f"curve:{series.place} bold" if series is chosen else f"curve:{series.place}"),
            ]
            if near:
                spans.append((f"  {near}", "yellow"))
            spans.append(("  ", ""))
        return tuple(spans)

    def _event_at(self, window: ChartWindow) -> str:
        """What happened where the cursor is, when it is an event."""
        low, high = window.range
        if window.cursor is None:
            return ""
        near = (high - low) * 0.004
        for event in self.events:
            if event.low - near <= window.cursor <= event.high + near and event.kind != "best":
                return " ".join(part for part in (_NAMES.get(event.kind, event.kind), event.text) if part)
        return ""

    def _events(self, window: ChartWindow, x: str, width: int) -> Line:
        if not self.events:
            return ((" events ", "dim"), ("none: no best, spike, NaN or later start yet", "dim"))
        spans: list[Span] = [(" events ", "dim"), ("n N", "key"), ("  ", "")]
        current = None
        if window.cursor is not None:
            near = (window.range[1] - window.range[0]) * 0.004
            close = [event for event in self.events if abs(event.at - window.cursor) <= near]
            current = min(close, key=lambda event: abs(event.at - (window.cursor or 0.0)), default=None)
        room = width - 14
        texts = [event.sentence(x, self.start_ms) for event in self.events]
        if sum(cell_width(text) + 3 for text in texts) > room + 3:
            texts = [event.sentence(x, self.start_ms, brief=True) for event in self.events]
        # As many as fit, from the one before the cursor on.
        start = 0
        if window.cursor is not None and sum(len(text) + 3 for text in texts) > room:
            behind = [place for place, event in enumerate(self.events) if event.at <= window.cursor]
            start = max(0, (behind[-1] if behind else 0) - 1)
        for place in range(start, len(texts)):
            text = texts[place]
            if cell_width(text) + 3 > room:
                spans.append((f"+{len(texts) - place}", "dim"))
                break
            room -= cell_width(text) + 3
            event = self.events[place]
            style = _STYLES.get(event.kind, "")
            spans.append((text, f"{style} bold link" if event is current else style))
            spans.append(("   ", ""))
        return tuple(spans)

    def _log(self, width: int) -> Line:
        if not self.log:
            return ()
        hint = "L log" if not self.log_is_here else "at this step, L log"
        room = width - len(hint) - 2
        spans: list[Span] = []
        for text, style in self.log:
            piece = clip(shown(text), max(0, room))
            room -= cell_width(piece)
            spans.append((piece, style))
            if room <= 0:
                break
        return (*spans, (" " * (room + 1), ""), (hint, "dim"))


def format_x(value: float, x: str, near_ms: float | None = None) -> str:
    """A place on an axis as text; a moment of the same day as ``near_ms`` without its date."""
    if x == "step":
        return format_step(round(value))
    if x == "time":
        return format_moment(round(value), None if near_ms is None else round(near_ms))
    if x == "relative":
        return "0" if value == 0 else format_duration(value)
    return format_number(value)


def _ruled(spans: Sequence[Span], width: int) -> Line:
    """── step 33,610   2h37m into the run ─────────── a line that separates."""
    out: list[Span] = [("── ", "faint")]
    used = 3
    for text, style in spans:
        if used + cell_width(text) + 3 > width:
            break
        out += [(text, style), ("   ", "")]
        used += cell_width(text) + 3
    return (*out[:-1], (" " + "─" * max(0, width - used + 2), "faint"))

"""The one table of keys: bindings, footer, `?` help and README come from it. Pure data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Focus = Literal["everywhere", "runs", "run", "chart", "log", "text", "dialog"]
FOCUS_TITLES: dict[Focus, str] = {
    "everywhere": "Everywhere",
    "runs": "Table of runs",
    "run": "A run",
    "chart": "Charts",
    "log": "Log",
    "text": "Pages of text",
    "dialog": "Questions",
}
# How a key is written on a screen, where that is not its name.
_SPELLINGS = {
    "question_mark": "?",
    "slash": "/",
    "exclamation_mark": "!",
    "plus": "+",
    "equals_sign": "=",
    "minus": "-",
    "dollar_sign": "$",
    "escape": "esc",
    "pageup": "pgup",
    "pagedown": "pgdn",
}


@dataclass(frozen=True)
class Key:
    """One thing that keys do in one focus. ``twin`` is the command line that does the same, where there is one.

    ``short`` is its label in the footer; without one it is only in the help.
    """

    id: str
    keys: tuple[str, ...]
    focus: Focus
    label: str
    short: str = ""
    twin: str = ""

    @property
    def shown(self) -> str:
        """The keys as a person reads them."""
        return " ".join(_SPELLINGS.get(key, key) for key in self.keys)


def _key(id: str, keys: str, focus: Focus, label: str, short: str = "", twin: str = "") -> Key:
    return Key(id, tuple(keys.split()), focus, label, short, twin)


KEYS: tuple[Key, ...] = (
    _key("help", "question_mark f1", "everywhere", "what the keys do here", "help", "mltrack --help"),
    _key(
        "back", "escape q", "everywhere", "back: the field, the filter, the screen; at the root: quit", "back"
    ),
    _key("quit_now", "Q ctrl+q", "everywhere", "quit at once"),
    _key("redraw", "ctrl+l", "everywhere", "draw and load again"),
    _key("undo", "u", "everywhere", "take back the last change", "", "mltrack undo"),
    _key("redo", "U", "everywhere", "make the change that was taken back", "", "mltrack redo"),
    _key("open", "enter", "runs", "open the run under the cursor", "open", "mltrack show RUN"),
    _key(
        "filter",
        "slash",
        "runs",
        "filter: lr < 1e-3 and (opt = adamw or opt = lion)",
        "filter",
        "mltrack ls FILTER",
    ),
    _key("mark", "space", "runs", "mark the run, move down", "mark"),
    _key("mark_all", "A", "runs", "mark all shown; again: none"),
    _key(
        "sort",
        "s",
        "runs",
        "sort by this column, best first; again: turn round",
        "sort",
        "mltrack ls --sort KEY",
    ),
    _key("sort_second", "S", "runs", "this column decides where the first one is equal"),
    _key("aggregate", "m", "runs", "metrics show best, last, min or max", "best/last"),
    _key("tag", "T", "runs", "tag the marked runs, or this one", "tag", "mltrack tag RUN KEY=VALUE"),
    _key("rename", "R", "runs", "rename this run", "", "mltrack rename RUN NAME"),
    _key(
        "trash",
        "D",
        "runs",
        "put the marked runs, or this one, into the trash (asks)",
        "trash",
        "mltrack delete RUN",
    ),
    _key("logs", "L", "runs", "open the run at its log", "log", "mltrack logs RUN"),
    _key("down", "j down", "runs", "next run"),
    _key("up", "k up", "runs", "run before"),
    _key("left", "h left", "runs", "column to the left"),
    _key("right", "l right", "runs", "column to the right"),
    _key("top", "g home", "runs", "first run"),
    _key("bottom", "G end", "runs", "last run"),
    _key("page_down", "pagedown ctrl+d", "runs", "a page down"),
    _key("page_up", "pageup ctrl+u", "runs", "a page up"),
    _key("first_column", "0", "runs", "first column"),
    _key("last_column", "dollar_sign", "runs", "last column"),
    _key("next_tab", "tab", "run", "next tab", "tab"),
    _key("previous_tab", "shift+tab", "run", "previous tab"),
    _key("next_run", "J", "run", "next run of the table, same tab", "next run"),
    _key("previous_run", "K", "run", "run before, same tab"),
    _key("cursor_left", "h left", "chart", "cursor a column to the left", "cursor"),
    _key("cursor_right", "l right", "chart", "cursor a column to the right"),
    _key("leap_left", "ctrl+u pageup", "chart", "cursor ten columns to the left"),
    _key("leap_right", "ctrl+d pagedown", "chart", "cursor ten columns to the right"),
    _key("cursor_start", "g home", "chart", "cursor to the first step"),
    _key("cursor_end", "G end", "chart", "cursor to the last step"),
    _key("next_chart", "j down", "chart", "next chart", "chart"),
    _key("previous_chart", "k up", "chart", "chart before"),
    _key("full", "enter", "chart", "this chart on the whole screen, and back", "full"),
    _key("zoom_in", "plus equals_sign", "chart", "zoom in at the cursor", "zoom"),
    _key("zoom_out", "minus", "chart", "zoom out"),
    _key("zoom_all", "0", "chart", "all steps", "all"),
    _key("y_scale", "y", "chart", "values linear, log or symlog", "y scale", "mltrack plot KEY RUN -y log"),
    _key("smoothing", "s", "chart", "smooth more, then not at all; the raw curve stays faint", "smooth"),
    _key("outliers", "i", "chart", "let the extreme hundredths leave the picture"),
    _key("follow", "F", "log", "follow what is added", "follow", "mltrack logs -f RUN"),
    _key("log_down", "j down", "log", "a line down", "move"),
    _key("log_up", "k up", "log", "a line up"),
    _key("log_page_down", "space pagedown ctrl+d", "log", "a page down"),
    _key("log_page_up", "b pageup ctrl+u", "log", "a page up"),
    _key("log_top", "g home", "log", "the first line that is kept"),
    _key("log_bottom", "G end", "log", "the last line"),
    _key("text_down", "j down", "text", "a line down", "move"),
    _key("text_up", "k up", "text", "a line up"),
    _key("text_page_down", "space pagedown ctrl+d", "text", "a page down"),
    _key("text_page_up", "b pageup ctrl+u", "text", "a page up"),
    _key("text_top", "g home", "text", "the start"),
    _key("text_bottom", "G end", "text", "the end"),
    _key("yes", "y", "dialog", "yes", "yes"),
    _key("no", "n enter", "dialog", "no", "no"),
)


def keys_of(*focuses: Focus) -> Iterator[Key]:
    """The keys of these focuses, in the order of the table."""
    return (key for key in KEYS if key.focus in focuses)


def footer(*focuses: Focus) -> list[tuple[str, str]]:
    """(key, short label) for the line at the bottom, the most special first."""
    found = [(key.shown.split()[0], key.short) for focus in focuses for key in keys_of(focus) if key.short]
    return found

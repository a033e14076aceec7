"""The one table of keys: bindings, footer, `?` help and README come from it. Pure data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from mltrack.tui.keys_desk import DESK_KEYS
from mltrack.tui.keys_launch import LAUNCH_KEYS
from mltrack.tui.keys_models import MODEL_KEYS

Focus = Literal[
    "everywhere",
    "runs",
    "experiments",
    "filter",
    "menu",
    "chooser",
    "run",
    "chart",
    "log",
    "files",
    "text",
    "compare",
    "compare_rows",
    "overlay",
    "models",
    "projects",
    "launch",
    "jobs",
    "groups",
    "plot",
    "pictures",
    "actions",
    "dialog",
]
FOCUS_TITLES: dict[Focus, str] = {
    "everywhere": "Everywhere",
    "runs": "Table of runs",
    "experiments": "Experiments",
    "filter": "Filter line",
    "menu": "Menus: of a column, of views",
    "chooser": "Columns to choose from",
    "run": "A run",
    "chart": "Charts",
    "log": "Log",
    "files": "Files of a run",
    "text": "Pages of text",
    "compare": "Runs side by side",
    "compare_rows": "Rows of the comparison",
    "overlay": "Curves over each other",
    "models": "Models",
    "projects": "Projects",
    "launch": "Launching a project",
    "jobs": "Jobs",
    "groups": "Groups of runs",
    "plot": "Plots of many runs",
    "pictures": "Pictures side by side",
    "actions": "Help and palette",
    "dialog": "Questions",
}
# How a key is written on a screen, where that is not its name.
_SPELLINGS = {
    "question_mark": "?",
    "slash": "/",
    "exclamation_mark": "!",
    "colon": ":",
    "plus": "+",
    "equals_sign": "=",
    "minus": "-",
    "dollar_sign": "$",
    "asterisk": "*",
    "full_stop": ".",
    "less_than_sign": "<",
    "greater_than_sign": ">",
    "escape": "esc",
    "pageup": "pgup",
    "pagedown": "pgdn",
}
# Every key that has a name, by how people write it.
NAMED_KEYS = {
    **{shown: name for name, shown in _SPELLINGS.items()},
    **{name: name for name in "space enter tab backspace delete home end up down left right".split()},
    **{"`": "grave_accent", "@": "at", "#": "number_sign", "%": "percent_sign", "^": "circumflex_accent"},
    **{
        "&": "ampersand",
        "*": "asterisk",
        "(": "left_parenthesis",
        ")": "right_parenthesis",
        "_": "underscore",
    },
    **{"[": "left_square_bracket", "]": "right_square_bracket", "{": "left_curly_bracket"},
    **{"}": "right_curly_bracket", ";": "semicolon", "'": "apostrophe", '"': "quotation_mark"},
    **{"\\": "backslash", "|": "vertical_line", ",": "comma", "~": "tilde"},
}
# Focuses whose keys act at the same time; dialogs hide everything else.
TOGETHER: tuple[tuple[Focus, ...], ...] = (
    ("everywhere", "runs"),
    ("everywhere", "experiments"),
    ("filter",),
    ("menu",),
    ("chooser",),
    ("everywhere", "run", "chart"),
    ("everywhere", "run", "log"),
    ("everywhere", "run", "files"),
    ("everywhere", "run", "text"),
    ("everywhere", "compare", "compare_rows"),
    ("everywhere", "compare", "overlay"),
    ("everywhere", "models"),
    ("everywhere", "projects"),
    ("everywhere", "launch"),
    ("everywhere", "jobs"),
    ("everywhere", "groups"),
    ("everywhere", "plot", "text"),
    ("everywhere", "pictures", "text"),
    ("everywhere", "actions"),
    ("dialog",),
)


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

    @property
    def action(self) -> str:
        """What Textual runs: the action of that name, or for a screen the one action that goes there."""
        if self.id.startswith("screen_"):
            return f"go('{self.id.removeprefix('screen_')}')"
        return self.id

    @property
    def binding(self) -> str:
        """The id of its binding."""
        return f"{self.focus}.{self.id}"


def _key(id: str, keys: str, focus: Focus, label: str, short: str = "", twin: str = "") -> Key:
    return Key(id, tuple(keys.split()), focus, label, short, twin)


KEYS: tuple[Key, ...] = (
    _key("help", "question_mark f1", "everywhere", "what the keys do here", "help", "mltrack --help"),
    _key(
        "back", "escape q", "everywhere", "back: the field, the filter, the screen; at the root: quit", "back"
    ),
    _key("quit_now", "Q ctrl+q", "everywhere", "quit at once"),
    _key(
        "palette", "colon ctrl+p", "everywhere", "do something by its name, or a command like :w FILE", "do"
    ),
    _key("screen_runs", "1", "everywhere", "the table of runs", "", "mltrack ls"),
    _key("screen_models", "2", "everywhere", "models: versions, stages, history", "", "mltrack models list"),
    _key("screen_projects", "3", "everywhere", "projects to launch", "", "mltrack run PROJECT"),
    _key("screen_jobs", "4", "everywhere", "jobs: queued, building, running", "", "mltrack jobs"),
    _key("screen_system", "5", "everywhere", "GPUs, CPU, memory, disk", "", "mltrack system"),
    _key(
        "copy_table",
        "Y",
        "everywhere",
        "copy what is shown as Markdown",
        "",
        "mltrack ls --csv",
    ),
    _key("write", "w", "everywhere", "write what is shown to a file: csv json md html svg txt", "write"),
    _key("outside", "o", "everywhere", "open the folder, file or web address of this, or say where it is"),
    _key("shell", "exclamation_mark", "everywhere", "a shell in the run's folder; exit comes back"),
    _key("suspend", "ctrl+z", "everywhere", "suspend the app; fg comes back"),
    _key("redraw", "ctrl+l", "everywhere", "draw and load again"),
    _key(
        "offer",
        "O",
        "everywhere",
        "look for data of other tools below this folder",
        "",
        "mltrack source find",
    ),
    _key("undo", "u", "everywhere", "take back the last change", "", "mltrack undo"),
    _key("redo", "U", "everywhere", "make the change that was taken back", "", "mltrack redo"),
    _key(
        "open",
        "enter",
        "runs",
        "open the run under the cursor; of a closed family the children",
        "open",
        "mltrack show RUN",
    ),
    _key(
        "filter",
        "slash",
        "runs",
        "filter: lr < 1e-3 and (opt = adamw or opt = lion)",
        "filter",
        "mltrack ls FILTER",
    ),
    _key("copy_cell", "y", "runs", "copy the cell under the cursor; on the name: the id"),
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
    _key("range", "v", "runs", "begin a range of runs; again: mark it, esc: leave it"),
    _key("tree", "t", "runs", "children under their parents, or all side by side", "tree"),
    _key("experiments", "tab shift+tab", "runs", "experiments: choose one, a folder, or all", "experiments"),
    _key("hide_pane", "x", "runs", "keep the experiments beside the table, or not"),
    _key(
        "filter_cell",
        "f",
        "runs",
        "only runs with this cell's value; of a metric: at least as good",
        "only this",
        "mltrack ls FILTER",
    ),
    _key("filter_out", "F", "runs", "only runs without it; of a metric: worse", "", "mltrack ls FILTER"),
    _key("next_problem", "n", "runs", "next run that failed, fell silent or is damaged"),
    _key("previous_problem", "N", "runs", "such a run before"),
    _key("goal", "asterisk", "runs", "make this the goal metric of the experiment; again: guess it"),
    _key("column_menu", "full_stop", "runs", "this column: value, direction, width, place, hide", "column"),
    _key("choose_columns", "C", "runs", "choose columns", "columns", "mltrack ls --columns A,B"),
    _key("pin", "p", "runs", "keep the marked runs, or this one, on top for you alone; again: not"),
    _key("pin_for_all", "P", "runs", "keep them on top for everybody; again: not", "", "mltrack pin RUN"),
    _key("note", "e", "runs", "write the note of this run in $EDITOR", "", "mltrack note RUN --edit"),
    _key("stop", "X", "runs", "stop the process of this run (asks)", "", "mltrack stop RUN"),
    _key("run_again", "r", "runs", "run it again: the form to launch it, filled in", "", "mltrack run RUN"),
    _key("rename", "R", "runs", "rename this run", "", "mltrack rename RUN NAME"),
    _key(
        "trash", "D", "runs", "marked runs, or this one, to the trash (asks)", "trash", "mltrack delete RUN"
    ),
    _key(
        "register",
        "M",
        "runs",
        "register the model of this run",
        "",
        "mltrack models register runs:/RUN/PATH --name NAME",
    ),
    _key("logs", "L", "runs", "open the run at its log", "log", "mltrack logs RUN"),
    _key("compare", "c", "runs", "put the marked runs side by side", "compare", "mltrack compare RUN..."),
    _key("down", "j down", "runs", "next run"),
    _key("up", "k up", "runs", "run before"),
    _key("left", "h left", "runs", "column to the left; at the first: close the family, go to the parent"),
    _key("right", "l right", "runs", "column to the right"),
    _key("top", "g home", "runs", "first run"),
    _key("bottom", "G end", "runs", "last run"),
    _key("page_down", "pagedown ctrl+d", "runs", "a page down"),
    _key("page_up", "pageup ctrl+u", "runs", "a page up"),
    _key("first_column", "0", "runs", "first column"),
    _key("last_column", "dollar_sign", "runs", "last column"),
    _key("choose", "enter", "experiments", "only the runs of this one", "only these", "mltrack ls -x NAME"),
    _key("pane_down", "j down", "experiments", "next", "move"),
    _key("pane_up", "k up", "experiments", "the one before"),
    _key("unfold", "l right", "experiments", "open the folder"),
    _key("fold", "h left", "experiments", "close the folder, go to the one it is in", "fold"),
    _key("pane_top", "g home", "experiments", "all experiments"),
    _key("pane_bottom", "G end", "experiments", "the last one"),
    _key("pane_page_down", "pagedown ctrl+d", "experiments", "a page down"),
    _key("pane_page_up", "pageup ctrl+u", "experiments", "a page up"),
    _key("complete", "tab", "filter", "complete the key or value; again: the next that fits"),
    _key("complete_back", "shift+tab", "filter", "the one before"),
    _key("menu_down", "j down", "menu", "next"),
    _key("menu_up", "k up", "menu", "the one before"),
    _key("menu_do", "enter", "menu", "do this; its letter does too"),
    _key("menu_close", "escape q full_stop", "menu", "close the menu"),
    _key("choice_down", "down ctrl+n", "chooser", "next key"),
    _key("choice_up", "up ctrl+p", "chooser", "key before"),
    _key("choice_page_down", "pagedown", "chooser", "a page down"),
    _key("choice_page_up", "pageup", "chooser", "a page up"),
    _key("choices_done", "escape", "chooser", "back to the table"),
    _key("next_tab", "tab", "run", "next tab", "tab"),
    _key("previous_tab", "shift+tab", "run", "previous tab"),
    _key("next_run", "J", "run", "next run of the table, same tab", "next run"),
    _key("previous_run", "K", "run", "run before, same tab"),
    _key("log_here", "L", "run", "the log, where the charts' cursor is", "", "mltrack logs RUN"),
    _key("cursor_left", "h left", "chart", "cursor a column to the left", "cursor"),
    _key("cursor_right", "l right", "chart", "cursor a column to the right"),
    _key("leap_left", "ctrl+u pageup", "chart", "cursor ten columns to the left"),
    _key("leap_right", "ctrl+d pagedown", "chart", "cursor ten columns to the right"),
    _key("cursor_start", "g home", "chart", "cursor to the first step"),
    _key("cursor_end", "G end", "chart", "cursor to the last step"),
    _key("next_event", "n", "chart", "next event: best, spike, NaN, later start", "event"),
    _key("previous_event", "N", "chart", "event before"),
    _key("next_chart", "j down", "chart", "next chart", "chart"),
    _key("previous_chart", "k up", "chart", "chart before"),
    _key("next_page", "space", "chart", "next page of charts"),
    _key("previous_page", "b", "chart", "page of charts before"),
    _key("filter_charts", "slash", "chart", "only some: val*|train/loss, or a regex", "filter"),
    _key("full", "enter", "chart", "this chart on the whole screen, and back", "full"),
    _key("zoom_in", "plus equals_sign", "chart", "zoom in at the cursor", "zoom"),
    _key("zoom_out", "minus", "chart", "zoom out"),
    _key("zoom_all", "0", "chart", "all steps", "all"),
    _key("x_axis", "x", "chart", "x: step, time, duration, metric", "x axis", "mltrack plot KEY RUN -x time"),
    _key("y_scale", "y", "chart", "y: linear, log or symlog", "y scale", "mltrack plot KEY RUN -y log"),
    _key("smoothing", "s", "chart", "smooth more, then not at all; raw stays faint", "smooth"),
    _key("outliers", "i", "chart", "let the extreme hundredths leave the picture"),
    _key("every_rank", "a", "chart", "a line for each rank, or only rank 0"),
    _key("open_file", "enter", "files", "show the file; open or close the folder", "open"),
    _key("file_down", "j down", "files", "next file", "move"),
    _key("file_up", "k up", "files", "file before"),
    _key("close_folder", "h left", "files", "close the folder, then go to the one above"),
    _key("open_folder", "l right", "files", "open the folder"),
    _key("file_page_down", "space pagedown ctrl+d", "files", "a page down"),
    _key("file_page_up", "b pageup ctrl+u", "files", "a page up"),
    _key("file_top", "g home", "files", "first file"),
    _key("file_bottom", "G end", "files", "last file"),
    _key("follow", "F", "log", "follow what is added", "follow", "mltrack logs -f RUN"),
    _key("log_search", "slash", "log", "search; capitals count only when there are some", "search"),
    _key("next_match", "n", "log", "next match, else next problem", "next"),
    _key("previous_match", "N", "log", "match before, else problem before"),
    _key("traceback", "t", "log", "the last traceback; again: the one before", "traceback"),
    _key("log_left", "h left", "log", "to the left in long lines"),
    _key("log_right", "l right", "log", "to the right in long lines"),
    _key("log_down", "j down", "log", "a line down", "move"),
    _key("log_up", "k up", "log", "a line up"),
    _key("log_page_down", "space pagedown ctrl+d", "log", "a page down"),
    _key("log_page_up", "b pageup ctrl+u", "log", "a page up"),
    _key("copy_log", "y", "log", "copy the lines that are here"),
    _key("log_top", "g home", "log", "the first line"),
    _key("log_bottom", "G end", "log", "the last line"),
    _key("text_down", "j down", "text", "a line down", "move"),
    _key("text_up", "k up", "text", "a line up"),
    _key("text_page_down", "space pagedown ctrl+d", "text", "a page down"),
    _key("text_page_up", "b pageup ctrl+u", "text", "a page up"),
    _key("copy_text", "y", "text", "copy the page"),
    _key("text_search", "slash", "text", "search; params: show only these", "search"),
    _key("text_next", "n", "text", "next match"),
    _key("text_previous", "N", "text", "match before"),
    _key("text_top", "g home", "text", "the start"),
    _key("text_bottom", "G end", "text", "the end"),
    _key("compare_half", "tab", "compare", "from the rows to the chart, and back", "chart"),
    _key(
        "compare_differs",
        "d",
        "compare",
        "only what differs, or what is equal too",
        "equal too",
        "mltrack compare RUN... --diff",
    ),
    _key(
        "compare_aggregate",
        "m",
        "compare",
        "metrics show best, last, min or max",
        "best/last",
        "mltrack compare RUN... -m last",
    ),
    _key("compare_narrow", "slash", "compare", "only rows with this in their name", "more"),
    _key(
        "row_open",
        "enter",
        "compare_rows",
        "the diff behind the row; on the goal: why one is better",
        "diff",
        "mltrack compare RUN... --why",
    ),
    _key("row_down", "j down", "compare_rows", "next row", "rows"),
    _key("row_up", "k up", "compare_rows", "row before"),
    _key("copy_value", "y", "compare_rows", "copy the value under the cursor"),
    _key("run_left", "h left", "compare_rows", "run to the left"),
    _key("run_right", "l right", "compare_rows", "run to the right"),
    _key("row_first", "g home", "compare_rows", "first row"),
    _key("row_last", "G end", "compare_rows", "last row"),
    _key("row_page_down", "pagedown ctrl+d", "compare_rows", "a page down"),
    _key("row_page_up", "pageup ctrl+u", "compare_rows", "a page up"),
    _key("run_first", "0", "compare_rows", "first run"),
    _key("run_last", "dollar_sign", "compare_rows", "last run"),
    _key("next_difference", "n", "compare_rows", "next row that differs"),
    _key("previous_difference", "N", "compare_rows", "row before that differs"),
    _key("overlay_left", "h left", "overlay", "cursor a column to the left", "cursor"),
    _key("overlay_right", "l right", "overlay", "cursor a column to the right"),
    _key("overlay_leap_left", "ctrl+u pageup", "overlay", "cursor ten columns to the left"),
    _key("overlay_leap_right", "ctrl+d pagedown", "overlay", "cursor ten columns to the right"),
    _key("overlay_start", "g home", "overlay", "cursor to the first step"),
    _key("overlay_end", "G end", "overlay", "cursor to the last step"),
    _key("overlay_next", "j down", "overlay", "next metric", "metric"),
    _key("overlay_previous", "k up", "overlay", "metric before"),
    _key("overlay_full", "enter", "overlay", "the chart on the whole screen, and back", "full"),
    _key("overlay_page", "a", "overlay", "a page of metrics, all runs in each, and back", "page"),
    _key("overlay_next_page", "space greater_than_sign", "overlay", "next page of metrics"),
    _key("overlay_previous_page", "less_than_sign", "overlay", "page of metrics before"),
    _key("overlay_zoom_in", "plus equals_sign", "overlay", "zoom in at the cursor", "zoom"),
    _key("overlay_zoom_out", "minus", "overlay", "zoom out"),
    _key("overlay_zoom_all", "0", "overlay", "all steps", "all"),
    _key(
        "overlay_scale",
        "y",
        "overlay",
        "values linear, log or symlog",
        "y scale",
        "mltrack plot KEY RUN... -y log",
    ),
    _key("overlay_smooth", "s", "overlay", "smooth more, then not at all", "smooth"),
    _key("overlay_outliers", "i", "overlay", "let the extreme hundredths leave the picture"),
    *(_key(*row) for row in DESK_KEYS),
    *(_key(*row) for row in MODEL_KEYS),
    *(_key(*row) for row in LAUNCH_KEYS),
    _key("item_run", "enter", "actions", "do it", "do it"),
    _key("item_filter", "slash", "actions", "only actions with these words", "filter"),
    _key("item_down", "j down", "actions", "next action", "move"),
    _key("item_up", "k up", "actions", "action before"),
    _key("item_first", "g home", "actions", "first action"),
    _key("item_last", "G end", "actions", "last action"),
    _key("item_page_down", "pagedown ctrl+d", "actions", "a page down"),
    _key("item_page_up", "pageup ctrl+u", "actions", "a page up"),
    _key("item_complete", "tab", "actions", "complete what is typed"),
    _key("yes", "y", "dialog", "yes", "yes"),
    _key("no", "n enter", "dialog", "no", "no"),
)


_remapped: dict[str, tuple[str, ...]] = {}


def remap(keys: Mapping[str, tuple[str, ...]]) -> None:
    """Other keys for these actions, from now on, wherever keys are shown."""
    _remapped.clear()
    _remapped.update(keys)


def keys_of(*focuses: Focus) -> Iterator[Key]:
    """The keys of these focuses, in the order of the table, as they are now."""
    return (
        replace(key, keys=_remapped[key.id]) if key.id in _remapped else key
        for key in KEYS
        if key.focus in focuses
    )


def key_table() -> str:
    """All keys as Markdown, for the docs."""
    lines: list[str] = []
    for focus, title in FOCUS_TITLES.items():
        lines += [f"### {title}", "", "| keys | do | at the prompt | name |", "|---|---|---|---|"]
        for key in keys_of(focus):
            twin = f"`{key.twin}`" if key.twin else ""
            lines.append(
                f"| {_code(key.shown)} | {key.label.replace('|', chr(92) + '|')} | {twin} | `{key.id}` |"
            )
        lines.append("")
    return "\n".join(lines)


_PREFACE = """The one table that the app itself works by: `?` shows the part that acts where you are, `:` finds an action by its
name, and `~/.config/mltrack/config.toml` may give any action other keys:

```toml
theme = "light"        # dark, light, contrast, 16 or plain; NO_COLOR means plain
ascii = false
mouse = true
pictures = "auto"      # or kitty, sixel, blocks: how pictures are drawn, whatever the terminal says
[keys]
sort = "f6"            # the name of an action and its keys
mark_all = "A ctrl+a"
```

What is wrong in that file is said in a sentence when the app starts, and does not count.
"""


def _code(keys: str) -> str:
    return " ".join(f"`{key}`" for key in keys.split())


def footer(*focuses: Focus) -> list[tuple[Focus, str, str, str]]:
    """(focus, name, key, short label) for the line at the bottom, the most special first."""
    return [
        (focus, key.id, key.shown.split()[0], key.short)
        for focus in focuses
        for key in keys_of(focus)
        if key.short
    ]


if __name__ == "__main__":
    import sys

    sys.stdout.write(f"# Keys\n\n{_PREFACE}\n{key_table()}")

"""The keys of the desk: rows of the one table in keys.py, which checks and shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mltrack.tui.keys import Focus

# name, keys, focus, label, short label for the footer, the command line that does the same
DESK_KEYS: tuple[tuple[str, str, Focus, str, str, str], ...] = (
    ("note_here", "e", "run", "write the note of this run in $EDITOR", "", "mltrack note RUN --edit"),
    ("tag_here", "T", "run", "tag this run", "", "mltrack tag RUN KEY=VALUE"),
    ("rename_here", "R", "run", "rename this run", "", "mltrack rename RUN NAME"),
    ("trash_here", "D", "run", "this run to the trash (asks)", "", "mltrack delete RUN"),
    (
        "register_here",
        "M",
        "run",
        "register the model of this run",
        "",
        "mltrack models register runs:/RUN/PATH --name NAME",
    ),
    ("pin_here", "p", "run", "keep it on top of the table for you alone; again: not", "", ""),
    (
        "pin_for_all_here",
        "P",
        "run",
        "keep it on top for everybody; again: not",
        "",
        "mltrack pin RUN",
    ),
    ("stop_here", "X", "run", "stop the process of this run (asks)", "", "mltrack stop RUN"),
    (
        "run_again_here",
        "r",
        "run",
        "run it again: the form to launch it, filled in",
        "",
        "mltrack run RUN",
    ),
    (
        "group",
        "b",
        "runs",
        "groups of runs by params: mean ± std, min..max, n",
        "",
        "mltrack ls --group-by A,B",
    ),
    (
        "plot",
        "i",
        "runs",
        "plots of these runs: scatter, parallel, importance, histogram",
        "",
        "mltrack plot --kind scatter A,B",
    ),
    ("next_plot", "tab", "plot", "next kind of plot", "next plot", ""),
    ("previous_plot", "shift+tab", "plot", "kind of plot before", "", ""),
    (
        "compare_bands",
        "b",
        "compare",
        "mean and band of runs that differ only in their seed",
        "",
        "mltrack plot --kind bands KEY RUN...",
    ),
    ("compare_plot", "p", "compare", "plots of these runs", "", "mltrack plot --kind scatter A,B RUN..."),
    (
        "compare_pictures",
        "v",
        "compare",
        "pictures of these runs side by side, step by step",
        "",
        "mltrack compare RUN... --images KEY",
    ),
    (
        "overlay_x",
        "x",
        "overlay",
        "x: step, duration since each run's start, time",
        "x axis",
        "mltrack plot KEY RUN... -x time",
    ),
    ("overlay_next_event", "n", "overlay", "next event: best, spike, NaN, later start", "event", ""),
    ("overlay_previous_event", "N", "overlay", "event before", "", ""),
    ("next_step", "l right", "pictures", "next step", "step", ""),
    ("previous_step", "h left", "pictures", "step before", "", ""),
    ("first_step", "0", "pictures", "first step", "", ""),
    ("last_step", "dollar_sign", "pictures", "last step", "", ""),
    ("next_series", "tab", "pictures", "next series of pictures", "series", ""),
    ("previous_series", "shift+tab", "pictures", "series before", "", ""),
    ("open_group", "enter", "groups", "the runs of this group", "its runs", "mltrack ls FILTER"),
    ("group_aggregate", "m", "groups", "best, last, min or max of each run", "best/last", ""),
    ("next_group", "j down", "groups", "next group", "", ""),
    ("previous_group", "k up", "groups", "group before", "", ""),
    ("first_group", "g home", "groups", "first group", "", ""),
    ("last_group", "G end", "groups", "last group", "", ""),
)

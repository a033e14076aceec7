"""Pictures of many runs: what `mltrack plot --kind` and the app's `:plot` draw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from mltrack.store.column_types import NUMBER_ATTRIBUTES, Aggregate, Text
from mltrack.store.errors import BadInput
from mltrack.tui.bands import is_seed, make_band, seed_groups
from mltrack.tui.cli.grouping import text_column
from mltrack.tui.draw.braille import View, curve_letter, draw_plot
from mltrack.tui.draw.raster import Curve
from mltrack.tui.draw.statistics import (
    Column,
    Line,
    draw_bars,
    draw_histogram,
    draw_parallel,
    draw_scatter,
)
from mltrack.tui.goal import about, direction_of, guess_goal
from mltrack.tui.importance import Importance, importances

if TYPE_CHECKING:
    import numpy.typing as npt

    from mltrack.store.far_files import FarFiles, Told
    from mltrack.store.records import Run
    from mltrack.store.store import Store

KINDS = ("scatter", "parallel", "importance", "hist", "bands", "confusion")
_MOST_RUNS = 5000
_MOST_LINES = 300
_MOST_PARAMS = 60
_SAMPLE = 200
_AXES = 6
_MATRIX_BYTES = 4 << 20
# For another machine: its list of files, and one of them.
_FAR_SECONDS = 2.0
_MOST_BANDED, _MOST_GROUPS = 100, 6
_LETTERS_SHOWN = 6


def plot_lines(
    store: Store,
    kind: str,
    names: Sequence[str],
    run_ids: Sequence[str],
    filter: str,
    experiment: str | None,
    size: tuple[int, int],
    ascii_only: bool = False,
) -> tuple[str, list[Line]]:
    """(title, lines) of a picture of these runs, or of those that match. Raises BadInput with what is missing."""
    width, height = max(30, size[0]), max(8, size[1])
    if kind == "confusion":
        return _confusion(store, run_ids, names, width)
    places = _places(store, run_ids, filter, experiment)
    ids = [store.columns.run_ids[int(place)] for place in places[:_SAMPLE]]
    with about(run.experiment for run in store.runs(ids, (), (), folders=False)):
        goal = guess_goal(store.count_metrics(ids))
        return _picture(store, kind, names, places, goal, (width, height), ascii_only, bool(run_ids))


def _picture(
    store: Store,
    kind: str,
    names: Sequence[str],
    places: npt.NDArray[np.int64],
    goal: str | None,
    size: tuple[int, int],
    ascii_only: bool,
    compared: bool,
) -> tuple[str, list[Line]]:
    width, height = size
    of = f"{len(places):,} runs"
    if kind == "scatter":
        usual = [] if names else _usual(store, places, goal)
        chosen = list(names) or [*usual[:1], *usual[1:][-1:]]
        if len(chosen) != 2:
            raise BadInput("A scatter needs two columns, for example lr,val/acc.")
        x, y = (column_of(store, places, name) for name in chosen)
        best = _best(y, chosen[1]) if store.columns.has("metric", chosen[1]) else None
        of = _of(x.known & y.known)
        return f"{chosen[1]} by {chosen[0]}   {of}", draw_scatter(x, y, width, height - 1, best, ascii_only)
    if kind == "hist":
        key = names[0] if names else goal
        if key is None:
            raise BadInput("Say of which column, for example val/acc.")
        column = column_of(store, places, key)
        return f"{key}   {_of(column.known)}", draw_histogram(column, width, height)
    if kind == "parallel":
        chosen = list(names) or _usual(store, places, goal)
        columns = [column_of(store, places[:_MOST_LINES], name) for name in chosen]
        last = columns[-1] if columns and store.columns.has("metric", chosen[-1]) else None
        less = direction_of(chosen[-1]) == "min" if chosen else False
        coloured = f"   green: best third by {chosen[-1]}, red: worst" if last is not None else ""
        return f"{', '.join(chosen)}   {of}{coloured}", draw_parallel(columns, width, height, last, less)
    if kind == "bands":
        chosen_key = names[0] if names else goal
        if chosen_key is None:
            raise BadInput("Say of which metric, for example val/acc.")
        return _bands(store, places, chosen_key, width, height, ascii_only, compared)
    if kind == "importance":
        return _importance(store, places, names[0] if names else goal, of, width)
    raise BadInput(f"There is no plot '{kind}'; there are {', '.join(KINDS)}.")


def _of(known: npt.NDArray[np.bool_]) -> str:
    """How many runs are in a picture, and of how many."""
    count = int(known.sum())
    return f"{count:,} runs" if count == len(known) else f"{count:,} of {len(known):,} runs"


def column_of(store: Store, places: npt.NDArray[np.int64], name: str) -> Column:
    """A param, metric (its best value), attribute or tag of the runs at these places. Raises BadInput for none of these."""
    columns = store.columns
    if columns.has("metric", name) and not columns.has("param", name):
        number = columns.number("metric", name, cast(Aggregate, direction_of(name)))
        return Column(name, np.where(number.present[places], number.values[places], np.nan))
    if name in NUMBER_ATTRIBUTES:
        number = columns.number("attribute", name)
        return Column(name, np.where(number.present[places], number.values[places], np.nan))
    return _text_column(text_column(store, name), places, name)


def _text_column(text: Text, places: npt.NDArray[np.int64], name: str) -> Column:
    """Numbers where all that are there spell one, else words in the order of the alphabet."""
    codes = text.codes[places]
    used = np.unique(codes[codes >= 0])
    if len(used) and bool(text.numbers.present[used].all()):
        table = np.append(text.numbers.values, np.nan)
        return Column(name, table[codes])
    words = sorted(text.values[code] for code in used.tolist())
    place_of = {word: float(place) for place, word in enumerate(words)}
    table = np.array([*(place_of.get(value, np.nan) for value in text.values), np.nan])
    return Column(name, table[codes], tuple(words))


def _places(
    store: Store, run_ids: Sequence[str], filter: str, experiment: str | None
) -> npt.NDArray[np.int64]:
    if run_ids:
        store.columns.refresh()
        wanted = set(run_ids)
        place_of = {run_id: place for place, run_id in enumerate(store.columns.run_ids) if run_id in wanted}
        # In the order they were named: it gives each run its letter.
        return np.array([place_of[run_id] for run_id in run_ids if run_id in place_of], np.int64)
    places, _ = store.search_places(filter, experiment=experiment)
    if not len(places):
        raise BadInput("No run matches.")
    return np.sort(places[:_MOST_RUNS])


def _usual(store: Store, places: npt.NDArray[np.int64], goal: str | None) -> list[str]:
    """The params with most to say, and the goal last."""
    found = _importances(store, places, goal) if goal is not None else []
    # Every run has its own seed: what goes along with it is chance.
    telling = [one.key for one in found if not is_seed(one.key)]
    if not telling:  # too few runs to weigh what differs: all of it
        columns = store.columns
        texts = ((key, columns.text("param", key)) for key in columns.keys("param")[:_MOST_PARAMS])
        telling = [key for key, text in texts if not is_seed(key) and len(np.unique(text.codes[places])) > 1]
    return [*telling[: _AXES - 1], *([goal] if goal is not None else [])]


def _importances(store: Store, places: npt.NDArray[np.int64], goal: str) -> list[Importance]:
    columns = store.columns
    params: dict[str, list[str | float | None]] = {}
    for key in columns.keys("param")[:_MOST_PARAMS]:
        column = _text_column(columns.text("param", key), places, key)
        values: list[str | float | None] = []
        for value in column.values.tolist():
            missing = value != value
            values.append(None if missing else column.words[int(value)] if column.words else value)
        params[key] = values
    goal_column = column_of(store, places, goal)
    return importances(
        params, [value if np.isfinite(value) else None for value in goal_column.values.tolist()]
    )


def _importance(
    store: Store, places: npt.NDArray[np.int64], goal: str | None, of: str, width: int
) -> tuple[str, list[Line]]:
    if goal is None:
        raise BadInput("No metric is the goal; name one, for example val/acc.")
    found = _importances(store, places, goal)
    if not found:
        raise BadInput(f"Too few runs with {goal} differ in a param.")
    less = direction_of(goal) == "min"
    rows, styles = [], []
    for one in found:
        sign = "" if one.correlation is None else f"  rank correlation {one.correlation:+.2f}"
        forest = "" if one.forest is None else f"  forest {one.forest:.0%}"
        rows.append((one.key, one.share, f"{one.share:.0%}{sign}{forest}"))
        good = one.correlation is not None and (one.correlation < 0) == less
        styles.append("curve:0" if one.correlation is None else "green" if good else "red")
    lines = draw_bars(rows, width, styles)
    lines.append([])
    lines.append(
        [
            [
                "Share of the goal's ranks that goes along with a param; green: more of it is better, red: worse.",
                "dim",
            ]
        ]
    )
    if found[0].forest is None:
        lines.append([["With scikit-learn installed a forest's view stands beside it.", "dim"]])
    return f"What goes along with {goal}   {of}", lines


def _bands(
    store: Store,
    places: npt.NDArray[np.int64],
    key: str,
    width: int,
    height: int,
    ascii_only: bool,
    compared: bool,
) -> tuple[str, list[Line]]:
    """Mean and band per seed group of the runs that have the metric. Of runs that were named each has its letter, as side by
    side, and a group has that of its first run; else the groups are lettered, the largest first."""
    from mltrack.store.errors import NotFound

    found = store.runs([store.columns.run_ids[int(place)] for place in places[:_MOST_BANDED]], [key])
    runs, series, own = [], [], []
    for place, run in enumerate(found):
        try:
            points = store.points(run.run_id, key)
        except NotFound:
            continue
        runs.append(run)
        own.append(place)
        series.append((points.steps.astype(np.float64), points.values))
    if not runs:
        raise BadInput(f"None of these runs has the metric {key}.")
    groups = seed_groups([run.params for run in runs])
    groups.sort(key=lambda group: -len(group[1]))
    shown = groups[:_MOST_GROUPS]
    if len(shown) > 1:  # what all of them share sets none apart
        common = set.intersection(*(set(name.split(" ")) for name, _ in shown))
        shown = [
            (" ".join(word for word in name.split(" ") if word not in common), places)
            for name, places in shown
        ]
    bands = [make_band([series[place] for place in members], 2 * width) for _, members in shown]
    lettered = [own[members[0]] for _, members in shown] if compared else list(range(len(shown)))
    # A place without a curve keeps its letter and colour for the run that they are of.
    nothing = np.empty(0)
    count = max(lettered) + 1
    curves = [Curve("", nothing, nothing)] * count
    for letter, band in zip(lettered, bands, strict=True):
        curves[letter] = Curve("", band.x, band.mean)
    for band in bands:
        curves += [Curve("", band.x, edge, faint=True) for edge in (band.low, band.high)]
    legend = []
    for letter, (name, members), band in zip(lettered, shown, bands, strict=True):
        one = curve_letter(letter)
        if compared and len(members) > 1:
            one = " ".join(curve_letter(own[place]) for place in members[:_LETTERS_SHOWN])
            one += " ..." if len(members) > _LETTERS_SHOWN else ""
        legend.append(f"{one}  {band.n:>3} {'run ' if band.n == 1 else 'runs'}  {name}")
    view = View(ascii=ascii_only, letters=len(bands) > 1)
    plot = draw_plot(curves, width, max(6, height - len(legend) - 1), view)
    lines: list[Line] = []
    for row in plot.rows:
        line: Line = []
        for span in row:
            group = span.curve if span.curve < count else lettered[(span.curve - count) // 2]
            ghost = " ghost" if span.curve >= count else ""
            line.append([span.text, f"curve:{group}{ghost}" if span.curve >= 0 else "dim"])
        lines.append(line)
    for letter, text in zip(lettered, legend, strict=True):
        lines.append([[f" {text}", f"curve:{letter}"]])
    left = len(groups) - len(shown)
    more = f"   {left:,} smaller groups left out" if left else ""
    return f"{key}: mean ± std of runs that differ only in their seed{more}", lines


def _best(y: Column, name: str) -> int | None:
    if not y.known.any():
        return None
    worst = np.inf if direction_of(name) == "min" else -np.inf
    values = np.where(y.known, y.values, worst)
    return int(np.argmin(values) if direction_of(name) == "min" else np.argmax(values))


def _confusion(
    store: Store, run_ids: Sequence[str], names: Sequence[str], width: int
) -> tuple[str, list[Line]]:
    """The first confusion matrix among the files of each run, or the file that is named."""
    from mltrack.tui.file_preview import preview

    if not run_ids:
        raise BadInput("Say of which run the confusion matrix is.")
    lines: list[Line] = []
    for run in store.runs(run_ids):
        for name, read in _json_files(run):
            if names and name not in names:
                continue
            head, size = read()
            found = preview(name, head, size, width, 1000)
            if found.kind == "matrix":
                lines += [[[f"{run.name}  {name}", "bold"]], *found.lines, []]
                break
    if not lines:
        raise BadInput(
            'No file of these runs is a confusion matrix: {"classes": [...], "matrix": [[...], ...]} as JSON.'
        )
    return "Confusion matrix", lines


def _json_files(run: Run) -> list[tuple[str, Callable[[], tuple[bytes, int]]]]:
    """Their names, and what reads the beginning of each and its size. Raises BadInput where another machine cannot be asked."""
    from mltrack.store.client.artifacts import regular_files
    from mltrack.store.machines import files_over_there

    machine = files_over_there(run)
    if machine is not None:
        entries, _ = _answer(machine.listing(run.run_id, _FAR_SECONDS))
        return [
            (path, partial(_head_over_there, machine, run, path))
            for path, kind, _, _ in entries
            if kind == "file" and path.endswith(".json")
        ]
    if run.artifacts is None or not run.artifacts.is_dir():
        return []
    return [
        (name, partial(_head, path)) for path, name in regular_files(run.artifacts) if name.endswith(".json")
    ]


def _head(path: Path) -> tuple[bytes, int]:
    with path.open("rb") as file:
        return file.read(_MATRIX_BYTES), path.stat().st_size


def _head_over_there(machine: FarFiles, run: Run, path: str) -> tuple[bytes, int]:
    data, size = _answer(machine.head(run.run_id, path, _FAR_SECONDS))
    return data, size


def _answer(told: Told) -> Any:
    if told.answer is None:
        raise BadInput(f"{told.problem or 'The other machine has not answered yet'}.")
    return told.answer

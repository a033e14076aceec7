"""What the table of runs asks: ids in order, columns worth showing, cells, and the run under the cursor."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from mltrack.store.column_types import Aggregate
from mltrack.store.errors import NotFound
from mltrack.store.liveness import QUIET_SECONDS
from mltrack.store.records import Run
from mltrack.store.store import Store
from mltrack.tui.cli.run_look import now_ms, short_names
from mltrack.tui.draw.sparkline import draw_sparkline
from mltrack.tui.goal import remember
from mltrack.tui.worker_calls.run_cells import Scene, choose_formats, ids_at, keys_of, write_rows
from mltrack.tui.worker_calls.run_columns import EXTRA, Layout, choose_columns, goal_of, sort_key
from mltrack.tui.worker_calls.run_tree import RunTree
from mltrack.tui.worker_calls.who import who

# Columns are chosen by the newest runs that match, whatever the order: sorting must not change what is shown.
_SAMPLE = 100
# Of runs with so many metrics, so many of the newest tell as much.
_WIDE, _WIDE_SAMPLE = 300, 25
_FORMAT_SAMPLE = 40
_TREND_CELLS = 8
_CELLS_PER_COLUMN = 9
# How long trends may keep other questions waiting.
_TREND_SECONDS = 0.03
_MOST_TRENDS = 5000
_MOST_DAMAGED = 200
_PROBLEMS = ("FAILED", "KILLED", "LOST")

Places = npt.NDArray[np.int64]


class RunViews:
    """The table's calls. Remembers what the screen was sent, so that what stays the same is not sent again, and what
    cells are made from."""

    def __init__(self) -> None:
        self._scene = Scene()
        self._scope: tuple[object, ...] = ()
        self._ids: tuple[str, ...] | None = None
        self._order: Places = np.zeros(0, np.int64)
        self._beside: Places = np.zeros(0, np.int64)
        # A screen may still know the ids of a worker that died: numbers of this one are none of that one.
        self._token = time.time_ns()
        self._trends: dict[tuple[str, str, int], str] = {}

    def view(
        self,
        store: Store,
        filter: str = "",
        experiment: str | None = None,
        sort: Sequence[Sequence[Any]] = (),
        aggregate: str = "",
        flat: bool = False,
        toggled: Sequence[str] = (),
        pins: Sequence[str] = (),
        layouts: Mapping[str, Mapping[str, Any]] | None = None,
        known: int = 0,
        first: int = 0,
        also: Sequence[str] = (),
        around: str | None = None,
        keep: str | None = None,
        cells: Sequence[str] = (),
        width: int = 80,
    ) -> dict[str, Any]:
        """The rows of the table in order, the columns, and counts.

        ``sort`` is of (column id, turned round). ``toggled`` are parents that are not as they would be: closed, or open
        under a filter. ``known`` is the "token" of the ids that the screen has: "ids" is None when they are the same.
        ``pins`` are runs on top beside those that are pinned for everybody.
        "rows" are cells of the ``first`` rows, of those of ``also`` that are still there, and of ``first`` around one: the
        columns ``cells``, or those that may fit into ``width``. ``keep`` is a run that must not vanish in a closed family:
        where it would, its parents are opened, and "toggled" is what it then has to be.
        Damaged runs stay in sight under any filter, behind all others: what could be read of them may not be what it asks about.
        """
        remember(layouts or {})
        newest, unknown = store.search_places(filter, experiment=experiment)
        sample, keys = _sampled(store, ids_at(store, newest[:_SAMPLE]))
        scope = experiment
        if scope is None and len({run.experiment for run in sample}) == 1:
            scope = _only_experiment(store, newest)
        layout = Layout.of((layouts or {}).get(scope or "", {}))
        one = scope is not None and not scope.endswith("/")
        shown_columns = choose_columns(sample, keys, layout, aggregate, one)
        sort_keys = _sort_keys(sort, shown_columns, layout, aggregate)
        order = (
            newest if not sort_keys else store.search_places(filter, experiment=experiment, sort=sort_keys)[0]
        )
        pinned = list(dict.fromkeys((*pins, *store.pinned())))
        scene = Scene(columns=shown_columns, pins=frozenset(pins))
        filtered = bool(filter.strip())
        rows, scene.tree, scene.opened = _arranged(store, order, pinned, flat, filtered, toggled)
        hiding = _hiding(store, scene.tree, rows, keep)
        if hiding:
            toggled = sorted(set(toggled) - hiding if filtered else set(toggled) | hiding)
            rows, scene.tree, scene.opened = _arranged(store, order, pinned, flat, filtered, toggled)
        damaged, left_out = np.zeros(0, np.int64), 0
        if filtered:
            damaged = _damaged(store, experiment, order, rows)
            left_out = len(damaged)
            damaged = damaged[:_MOST_DAMAGED]
        rows = np.concatenate((rows, damaged))
        ids = tuple(ids_at(store, rows))
        scene.best = _best(store, order, shown_columns)
        scene.prefix = _prefix([run.name for run in sample])
        wanted = _wanted(ids, first, also, around)
        if scene.tree is not None:
            places = np.concatenate((order, np.array(sorted(scene.tree.groups), np.int64), damaged))
            scene.place_of = dict(zip(ids_at(store, places), map(int, places), strict=True))
        same = (filter, experiment, aggregate, str(layout))
        before = self._scene.formats if same == self._scope else {}
        drawn = [column for column in shown_columns if column["id"] in set(cells)]
        if not drawn:
            usual = [column for column in shown_columns if column["weight"] < EXTRA]
            more = [column for column in shown_columns if column["weight"] >= EXTRA]
            drawn = [*usual, *more[: max(0, width // _CELLS_PER_COLUMN - len(usual))]]
        typical = dict.fromkeys((*(run.run_id for run in sample[:_FORMAT_SAMPLE]), *wanted))
        values = store.runs(list(typical), keys_of(shown_columns)[0], keys_of(drawn)[1], folders=False)
        found = {run.run_id: run for run in values}
        drawn_runs = [found[run_id] for run_id in wanted if run_id in found]
        scene.formats = choose_formats(shown_columns, values, before)
        scene.trends = self._scene.trends if same == self._scope else {}
        self._scene, self._scope, self._order, self._beside = scene, same, order, damaged
        if ids != self._ids:
            self._ids = ids
            self._token += 1
        counts, total = _counts(store, experiment)
        beside = list(ids_at(store, damaged))
        return {
            "ids": None if known == self._token else ids,
            "token": self._token,
            "found": len(order),
            "unknown": unknown,
            "columns": shown_columns,
            "rows": write_rows(store, scene, drawn_runs, drawn),
            "all": total,
            "statuses": counts,
            "scope": scope,
            "goal": goal_of(keys, layout),
            "sort_keys": sort_keys,
            "toggled": toggled if hiding else None,
            "context": [*_context(store, scene.tree, rows), *beside],
            "beside": beside,
            "damaged": left_out,
            "experiments": store.count_experiments(),
            "who": who(store),
            "root": str(store.location.root),
        }

    def rows(self, store: Store, run_ids: Sequence[str], columns: Sequence[str]) -> dict[str, Any]:
        """Cells of these columns (by id) for runs of the last view."""
        wanted = set(columns)
        chosen = [column for column in self._scene.columns if column["id"] in wanted]
        return write_rows(store, self._scene, store.runs(run_ids, *keys_of(chosen), folders=False), chosen)

    def next_problem(self, store: Store, run_id: str | None, back: bool) -> dict[str, Any]:
        """The next run that failed, was killed, lost, fell silent or is damaged, closed families included; around the end
        to the beginning. {"run_id", "parents": those that must be open for it to be seen}, or run_id None."""
        tree, columns = self._scene.tree, store.columns
        rows = tree.visible(lambda place: True) if tree is not None else self._order
        rows = np.concatenate((rows, self._beside))
        status = columns.text("attribute", "status")
        bad = np.array([value in _PROBLEMS for value in status.values] + [False], np.bool_)[status.codes]
        bad |= columns.text("attribute", "damage").codes >= 0
        heard = columns.number("attribute", "heard")
        silent = heard.present & (now_ms() - heard.values > QUIET_SECONDS * 1000)
        bad |= status.equals("RUNNING") & silent
        found = np.flatnonzero(bad[rows])
        if not len(found):
            return {"run_id": None, "parents": []}
        here = [place for place, row in enumerate(rows.tolist()) if columns.run_ids[row] == run_id]
        start = here[0] if here else -1
        if back:
            before = found[found < start]
            place = int(before[-1] if len(before) else found[-1])
        else:
            behind = found[found > start]
            place = int(behind[0] if len(behind) else found[0])
        target = int(rows[place])
        parents = [columns.run_ids[above] for above in tree.path(target)] if tree is not None else []
        return {"run_id": columns.run_ids[target], "parents": parents}

    def trends(self, store: Store, run_ids: Sequence[str], key: str) -> dict[str, Any]:
        """Sparklines of a metric; runs that stopped early are short. "more": not all were ready in time."""
        deadline = time.monotonic() + _TREND_SECONDS
        runs = [run for run in store.runs(run_ids, (key,), (), folders=False) if key in run.metrics]
        steps = [run.metrics[key].last_step for run in runs if run.status == "FINISHED"]
        usual = sorted(steps)[len(steps) // 2] if steps else 0
        shown = self._scene.trends
        # Where all of them go on all the time nobody is ever ready: who has waited longest comes first, and one at least.
        turns = {run_id: turn for turn, run_id in enumerate(shown)}
        runs.sort(key=lambda run: turns.get(run.run_id, -1))
        found: dict[str, str] = {}
        drawn = more = False
        for run in runs:
            name = (run.run_id, key, run.metrics[key].count)
            text = self._trends.get(name)
            if text is None:
                if drawn and time.monotonic() > deadline:
                    more = True
                    continue
                if len(self._trends) > _MOST_TRENDS:
                    self._trends.clear()
                text = self._trends[name] = _trend(store, run, key, usual)
                drawn = True
            found[run.run_id] = text
            shown.pop(run.run_id, None)
            shown[run.run_id] = text
        return {"texts": found, "more": more}


_views = RunViews()
CALLS = (_views.view, _views.rows, _views.trends, _views.next_problem)


def _sampled(store: Store, newest: Sequence[str]) -> tuple[list[Run], dict[str, int]]:
    """The runs that columns are chosen by, with their params, and how many of them have each metric."""
    keys = store.count_metrics(newest[:_WIDE_SAMPLE])
    if sum(keys.values()) > _WIDE * _WIDE_SAMPLE:
        newest = newest[:_WIDE_SAMPLE]
    for key, count in store.count_metrics(newest[_WIDE_SAMPLE:]).items():
        keys[key] = keys.get(key, 0) + count
    return store.runs(newest, (), None, folders=False), keys


def _arranged(
    store: Store, order: Places, pinned: Sequence[str], flat: bool, filtered: bool, toggled: Sequence[str]
) -> tuple[Places, RunTree | None, Any]:
    """Rows of the table: under their parents, or flat; the pinned first."""
    columns = store.columns
    run_ids = columns.run_ids
    parents = columns.text("attribute", "parent_id")
    wanted = set(pinned)
    if not flat:
        wanted |= set(parents.values)
    if not wanted:
        return order, None, None
    place_of = {run_id: place for place, run_id in enumerate(run_ids) if run_id in wanted}
    pins = [place_of[run_id] for run_id in pinned if run_id in place_of]
    if flat or not parents.values:
        top = np.isin(order, np.array(pins, np.int64))
        return np.concatenate((order[top], order[~top])), None, None
    active = columns.text("attribute", "lifecycle").equals("active")
    table = np.array([place_of.get(run_id, -1) for run_id in parents.values] + [-1], np.int64)
    table[table >= 0] = np.where(active[table[table >= 0]], table[table >= 0], -1)
    tree = RunTree(order, table[parents.codes], pins)
    if not tree.groups:
        return tree.visible(lambda place: False), None, None
    turned = set(toggled)

    def opened(place: int) -> bool:
        return (run_ids[place] in turned) != filtered

    return tree.visible(opened), tree, opened


def _hiding(store: Store, tree: RunTree | None, rows: Places, run_id: str | None) -> set[str]:
    """The closed families that a matching run is in."""
    run_ids = store.columns.run_ids
    if tree is None or run_id is None or run_id not in run_ids:
        return set()
    place = run_ids.index(run_id)
    if place not in tree.order or place in rows:
        return set()
    return {run_ids[above] for above in tree.path(place)}


def _context(store: Store, tree: RunTree | None, rows: Places) -> list[str]:
    """Rows that are only there because their children match."""
    if tree is None:
        return []
    shown = np.array(sorted(tree.groups), np.int64)
    extra = np.setdiff1d(shown, tree.order, assume_unique=True)
    return ids_at(store, np.intersect1d(extra, rows))


def _damaged(store: Store, experiment: str | None, order: Places, rows: Places) -> Places:
    """Damaged runs that the filter leaves out, the newest first: neither among those that match, which may be in a closed
    family, nor in the table for their children's sake."""
    columns = store.columns
    mask = _in_scope(store, experiment) & (columns.text("attribute", "damage").codes >= 0)
    mask[order] = mask[rows] = False
    found = np.flatnonzero(mask)
    started = columns.number("attribute", "start_time").values[found]
    return found[np.argsort(-started, kind="stable")]


def _wanted(ids: Sequence[str], first: int, also: Sequence[str], around: str | None) -> list[str]:
    shown = dict.fromkeys(ids[:first])
    if also:
        still = set(ids)
        shown.update(dict.fromkeys(run_id for run_id in also if run_id in still))
    if around is not None and around in ids:
        place = ids.index(around)
        shown.update(dict.fromkeys(ids[max(0, place - first) : place + first]))
    return list(shown)


def _only_experiment(store: Store, places: Places) -> str | None:
    column = store.columns.text("attribute", "experiment")
    codes = column.codes[places]
    return column.values[codes[0]] if len(codes) and codes[0] >= 0 and (codes == codes[0]).all() else None


def _sort_keys(
    sort: Sequence[Sequence[Any]], columns: Sequence[Mapping[str, Any]], layout: Layout, aggregate: str
) -> list[str]:
    by_id = {str(column["id"]): column["sort"] for column in columns}
    keys: list[str] = []
    for id, turned in sort:
        _, _, key = str(id).partition(":")
        usual = by_id.get(str(id)) or sort_key(str(id), aggregate or "last", layout.direction(key))
        if usual is not None:
            keys.append(usual if not turned else usual[1:] if usual.startswith("-") else f"-{usual}")
    return keys


def _best(store: Store, order: Places, columns: Sequence[Mapping[str, Any]]) -> str | None:
    """The run with the best goal value as it is shown; NaN is never best."""
    goal = next((column for column in columns if column["role"] == "goal"), None)
    if goal is None or not len(order):
        return None
    direction, aggregate = str(goal["direction"]), str(goal["aggregate"])
    read = cast(Aggregate, direction if aggregate == "best" else aggregate)
    numbers = store.columns.number("metric", str(goal["key"]), read)
    values = numbers.values[order]
    good = numbers.present[order] & ~np.isnan(values)
    if not good.any():
        return None
    ranked = np.where(good, values if direction == "min" else -values, np.inf)
    return store.columns.run_ids[int(order[int(np.argmin(ranked))])]


def _counts(store: Store, experiment: str | None) -> tuple[dict[str, int], int]:
    """Active runs by status, and how many in all."""
    status = store.columns.text("attribute", "status")
    mask = _in_scope(store, experiment)
    codes = status.codes[mask]
    counts = np.bincount(codes[codes >= 0], minlength=len(status.values)).tolist()
    return {word: n for word, n in zip(status.values, counts, strict=True) if n}, int(mask.sum())


def _in_scope(store: Store, experiment: str | None) -> npt.NDArray[np.bool_]:
    """Active runs of an experiment, or of all."""
    columns = store.columns
    mask = columns.text("attribute", "lifecycle").equals("active")
    if experiment is not None:
        names = columns.text("attribute", "experiment")
        mask &= names.begins_with(experiment) if experiment.endswith("/") else names.equals(experiment)
    return mask


def _trend(store: Store, run: Run, key: str, usual: int) -> str:
    """A curve over the steps that runs usually have."""
    try:
        values = store.points(run.run_id, key).values
    except NotFound:
        return ""  # only its summary is here so far
    last = run.metrics[key].last_step
    whole = len(values) * usual // last if 0 < last < usual else None
    # The first steps of a curve are so far off that nothing could be seen of the rest.
    finite = values[np.isfinite(values)]
    start, end = np.quantile(finite, (0.1, 0.9)) if len(finite) > _TREND_CELLS else (None, None)
    low, high = (
        (None, None) if start is None or start == end else (start, None) if start < end else (None, start)
    )
    return draw_sparkline(values.tolist(), _TREND_CELLS, low=low, high=high, whole=whole)


def _prefix(names: Sequence[str]) -> str:
    """What names begin with and the table leaves out."""
    if len(names) < 3:
        return ""
    short = short_names(names)[0]
    return names[0][: len(names[0]) - len(short) + 1] if short.startswith("…") and short != names[0] else ""

"""Cells of the table of runs: single runs, and parents that stand for their children."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from mltrack.store.column_types import Aggregate
from mltrack.store.records import Run, Summary
from mltrack.store.store import Store
from mltrack.tui.cli.columns import Choice, aggregate_of, chosen_column, marked_name
from mltrack.tui.cli.run_look import age_of, now_ms
from mltrack.tui.cli.table import Cell
from mltrack.tui.draw.glyphs import STATUS_LOOKS, count_glyphs
from mltrack.tui.draw.numbers import NumberFormat, choose_format, format_parameter, format_step
from mltrack.tui.draw.times import format_age
from mltrack.tui.worker_calls.run_tree import Places, RunTree

Column = Mapping[str, Any]
# Of larger families neither the params nor whether they differ only in seeds is worked out.
_FAMILY_PARAMS = 2000
_SEED = "seed"


@dataclass
class Scene:
    """What the last view shows: what cells are made from."""

    columns: Sequence[Column] = ()
    best: str | None = None
    prefix: str = ""
    tree: RunTree | None = None
    opened: Callable[[int], bool] = field(default=lambda place: False)
    place_of: Mapping[str, int] = field(default_factory=dict)
    formats: dict[str, NumberFormat] = field(default_factory=dict)
    trends: dict[str, str] = field(default_factory=dict)
    pins: frozenset[str] = frozenset()


def keys_of(columns: Sequence[Column]) -> tuple[set[str], set[str]]:
    """The metrics and the params that cells of these columns are made from."""
    metrics = {str(column["key"]) for column in columns if column["kind"] in ("metric", "step", "trend")}
    return metrics, {str(column["key"]) for column in columns if column["kind"] == "param"}


def write_rows(store: Store, scene: Scene, runs: Sequence[Run], columns: Sequence[Column]) -> dict[str, Any]:
    """For each run (read with ``keys_of`` the columns) its cells by column id, each [text, style, text, style ...], and what
    the screen must know about it: name, user, status, depth, parents, "fold" (open, closed or "")."""
    now = now_ms()
    families = _families(store, scene, runs, columns)
    cells: dict[str, dict[str, list[str]]] = {run.run_id: {} for run in runs}
    for column in columns:
        for run, cell in zip(runs, _cells(scene, column, runs, now), strict=True):
            cells[run.run_id][column["id"]] = [cell.text, cell.style or ""]
    for family in families.values():
        cells[family.run.run_id].update(_family_cells(scene, family, columns, now))
    found: dict[str, Any] = {}
    for run in runs:
        place = scene.place_of.get(run.run_id, -1)
        above = scene.tree.path(place) if scene.tree is not None and place >= 0 else []
        depth = len(above)
        fold = "" if run.run_id not in families else "open" if scene.opened(place) else "closed"
        if depth or fold:
            name = cells[run.run_id].get("attribute:run")
            if name is not None:
                sign = {"open": "▾ ", "closed": "▸ "}.get(fold, "")
                name[0] = "  " * depth + sign + name[0]
        found[run.run_id] = {
            "cells": cells[run.run_id],
            "name": run.name,
            "user": run.user,
            "status": run.status,
            "pinned": "all" if run.pinned else "mine" if run.run_id in scene.pins else "",
            "depth": depth,
            "parents": ids_at(store, above),
            "fold": fold,
        }
    return found


def ids_at(store: Store, places: Places | Sequence[int]) -> list[str]:
    """The ids of the runs at these places of the columns."""
    return list(map(store.columns.run_ids.__getitem__, np.asarray(places, np.int64).tolist()))


def value_of(summary: Summary | None, column: Column) -> float | None:
    """The number that a column of a metric shows for a run."""
    if summary is None:
        return None
    aggregate = str(column["aggregate"])
    return aggregate_of(summary, str(column["direction"]) if aggregate == "best" else aggregate)


def choose_formats(
    columns: Sequence[Column], sample: Sequence[Run], known: Mapping[str, NumberFormat]
) -> dict[str, NumberFormat]:
    """How each metric is written: chosen by the sample, and never with fewer decimals than before, so that live values do
    not make a column swing."""
    formats: dict[str, NumberFormat] = {}
    for column in columns:
        if column["kind"] != "metric":
            continue
        digits = (4, 6) if column["role"] == "goal" else (3, 4)
        values = [value_of(run.metrics.get(str(column["key"])), column) for run in sample]
        chosen, before = choose_format(values, *digits), known.get(str(column["id"]))
        if before is not None and chosen.decimals is not None and before.decimals is not None:
            chosen = NumberFormat(max(chosen.decimals, before.decimals), chosen.digits)
        formats[str(column["id"])] = chosen
    return formats


def _cells(scene: Scene, column: Column, runs: Sequence[Run], now: int) -> Sequence[Cell]:
    kind, key = str(column["kind"]), str(column["key"])
    if kind == "attribute" and key == "run":
        cut = len(scene.prefix)
        names = [
            "…" + run.name[cut:] if cut and run.name.startswith(scene.prefix) else run.name for run in runs
        ]
        pinned = [_pin(scene, run) for run in runs]
        return [
            Cell(pin + marked_name(run, name), "bold")
            for pin, run, name in zip(pinned, runs, names, strict=True)
        ]
    if kind == "attribute" and key == "age":
        return [Cell(age_of(run, now)) for run in runs]
    if kind == "metric":
        values = [value_of(run.metrics.get(key), column) for run in runs]
        form = scene.formats.get(str(column["id"])) or choose_format(values, 3, 4)
        texts = form.texts(values)
        if column["role"] != "goal":
            return [Cell(text) for text in texts]
        return [
            Cell("★" + text, "best") if run.run_id == scene.best else Cell(text)
            for run, text in zip(runs, texts, strict=True)
        ]
    if kind == "step":
        return [Cell(_step_of(run.metrics.get(key), column)) for run in runs]
    if kind == "trend":
        return [Cell(scene.trends.get(run.run_id, "") if key in run.metrics else "") for run in runs]
    choice = Choice(cast(Any, kind), key)
    return [cell if isinstance(cell, Cell) else Cell(cell) for cell in chosen_column(choice, runs, now).cells]


def _step_of(summary: Summary | None, column: Column) -> str:
    if summary is None:
        return ""
    aggregate = str(column["direction"] if column["aggregate"] == "best" else column["aggregate"])
    steps = {"min": summary.min_step, "max": summary.max_step}
    return format_step(steps.get(aggregate, summary.last_step))


# -- families: a parent's row stands for its children


@dataclass
class _Family:
    run: Run
    members: Places
    ids: list[str]
    shared: dict[str, str]
    seeds: bool
    counts: Mapping[str, int]
    newest_ms: float | None
    values: dict[str, Any] = field(default_factory=dict)
    """Of each metric's column, the members' values that are numbers."""
    best: dict[str, str] = field(default_factory=dict)
    """Of each metric's column, the member that has the best."""
    best_runs: dict[str, Run] = field(default_factory=dict)


def _families(
    store: Store, scene: Scene, runs: Sequence[Run], columns: Sequence[Column]
) -> dict[str, _Family]:
    if scene.tree is None:
        return {}
    found: dict[str, _Family] = {}
    for run in runs:
        place = scene.place_of.get(run.run_id, -1)
        if place not in scene.tree.groups:
            continue
        members = scene.tree.members(place)
        ids = ids_at(store, members)
        shared, varied = store.shared_params(ids) if 0 < len(ids) <= _FAMILY_PARAMS else ({}, {""})
        seeds = len(ids) > 1 and bool(varied) and all(_SEED in key.lower() for key in varied)
        counts, newest = _counts(store, members), _newest(store, members)
        family = found[run.run_id] = _Family(run, members, ids, shared, seeds, counts, newest)
        for column in columns:
            if column["kind"] not in ("metric", "step"):
                continue
            aggregate, direction = str(column["aggregate"]), str(column["direction"])
            read = cast(Aggregate, direction if aggregate == "best" else aggregate)
            numbers = store.columns.number("metric", str(column["key"]), read)
            values = numbers.values[members]
            good = numbers.present[members] & ~np.isnan(values)
            family.values[str(column["id"])] = values[good]
            if good.any():
                ranked = np.where(good, values if direction == "min" else -values, np.inf)
                family.best[str(column["id"])] = ids[int(np.argmin(ranked))]
    winners = sorted({id for family in found.values() for id in family.best.values()})
    steps = {str(column["key"]) for column in columns if column["kind"] == "step"}
    if winners and steps:
        best_runs = {run.run_id: run for run in store.runs(winners, steps, (), folders=False)}
        for family in found.values():
            family.best_runs = best_runs
    return found


def _family_cells(scene: Scene, family: _Family, columns: Sequence[Column], now: int) -> dict[str, list[str]]:
    cells: dict[str, list[str]] = {}
    for column in columns:
        id, kind, key = str(column["id"]), str(column["kind"]), str(column["key"])
        if id == "attribute:run":
            cells[id] = [_pin(scene, family.run) + family.run.name, "bold", f"  {len(family.ids):,}", "dim"]
        elif id == "attribute:status":
            cells[id] = _counts_cell(family.counts)
        elif id == "attribute:age" and family.newest_ms is not None:
            cells[id] = [format_age((now - family.newest_ms) / 1000), ""]
        elif kind == "metric" and len(family.values[id]):
            cells[id] = [_family_number(scene, family, column), ""]
            if column["role"] == "goal" and family.best.get(id) == scene.best and not family.seeds:
                cells[id] = ["★" + cells[id][0], "best"]
        elif kind == "step" and id in family.best:
            run = family.best_runs.get(family.best[id])
            cells[id] = [_step_of(run.metrics.get(key) if run else None, column), ""]
        elif kind == "trend":
            cells[id] = [_family_word(scene, family, columns), "dim"]
        elif kind == "param" and key in family.shared:
            cells[id] = [format_parameter(family.shared[key]), ""]
    return cells


def _pin(scene: Scene, run: Run) -> str:
    return "⚑ " if run.pinned or run.run_id in scene.pins else ""


def _counts(store: Store, members: Places) -> dict[str, int]:
    status = store.columns.text("attribute", "status")
    codes = status.codes[members]
    counts = np.bincount(codes[codes >= 0], minlength=len(status.values)).tolist()
    return {word: count for word, count in zip(status.values, counts, strict=True) if count}


def _newest(store: Store, members: Places) -> float | None:
    """When something last happened to any of them, in ms."""
    newest: float | None = None
    for key in ("heard", "end_time", "start_time"):
        times = store.columns.number("attribute", key)
        known = times.values[members][times.present[members]]
        if len(known) and (newest is None or float(known.max()) > newest):
            newest = float(known.max())
    return newest


def _family_number(scene: Scene, family: _Family, column: Column) -> str:
    """Of seeds the mean, of other families the best."""
    id = str(column["id"])
    values = family.values[id]
    form = scene.formats.get(id) or choose_format(values.tolist(), 3, 4)
    if family.seeds:
        return form.text(float(np.mean(values)))
    return form.text(float(values.min() if column["direction"] == "min" else values.max()))


def _family_word(scene: Scene, family: _Family, columns: Sequence[Column]) -> str:
    """±.0011 for seeds, else what the numbers are."""
    if not family.seeds:
        return "best of"
    goal = next((str(column["id"]) for column in columns if column["role"] == "goal"), None)
    values = family.values.get(goal, ()) if goal is not None else ()
    if len(values) < 2:
        return "mean"
    return "±" + spread(values)


def spread(values: Any) -> str:
    """The standard deviation of a sample, with two significant digits."""
    deviation = float(np.std(values, ddof=1))
    if not math.isfinite(deviation) or deviation == 0:
        return "0" if deviation == 0 else "?"
    return choose_format([deviation], 2, 2).text(deviation)


def _counts_cell(counts: Mapping[str, int]) -> list[str]:
    """5● 33✓ 3✗ as spans of a cell; a single kind with its word."""
    shown = [(look, counts[status]) for status, look in STATUS_LOOKS.items() if counts.get(status)]
    if len(shown) == 1:
        look, count = shown[0]
        return [f"{count:,} {look.glyph} {look.word}", look.colour]
    spans: list[str] = []
    for place, (look, count) in enumerate(count_glyphs(counts)):
        spans += [f"{' ' if place else ''}{count:,}{look.glyph}", look.colour]
    return spans or ["", ""]

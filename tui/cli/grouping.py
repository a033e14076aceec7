"""`mltrack ls --group-by lr,bs`: runs that share params as one row, with mean, spread, least and greatest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from mltrack.store.column_types import TEXT_ATTRIBUTES, Aggregate, Text
from mltrack.store.direction import guess_direction
from mltrack.store.errors import BadInput
from mltrack.tui.cli.output import json_number, write_csv, write_json, write_lines
from mltrack.tui.cli.table import Cell, Column, draw_table
from mltrack.tui.draw.numbers import format_parameter
from mltrack.tui.goal import guess_goal, guess_loss
from mltrack.tui.groups import Group, Spread, make_groups, sort_groups, spread_texts

if TYPE_CHECKING:
    from mltrack.store.store import Store
    from mltrack.tui.cli.terminal import Terminal

_SAMPLE = 200
_MOST_METRICS = 4


@dataclass(frozen=True)
class Grouped:
    """Groups by ``by``, the best mean of the first of ``metrics`` first. ``directions`` of those metrics."""

    by: Sequence[str]
    metrics: Sequence[str]
    directions: Mapping[str, str]
    groups: Sequence[Group]


def group_runs(
    store: Store,
    by: Sequence[str],
    filter: str = "",
    experiment: str | None = None,
    metrics: Sequence[str] = (),
    aggregate: str = "best",
    directions: Mapping[str, str] | None = None,
    goal: str | None = None,
) -> Grouped:
    """The groups of the runs that match. Without ``metrics`` the goal and a loss. Raises BadInput for an unknown key."""
    places, _ = store.search_places(filter, experiment=experiment)
    columns = store.columns
    texts = [text_column(store, key) for key in by]
    if not metrics:
        sample = [columns.run_ids[int(place)] for place in places[:_SAMPLE]]
        known = store.count_metrics(sample)
        goal = goal or guess_goal(known)
        loss = guess_loss(known, goal)
        metrics = [key for key in (goal, loss) if key is not None]
    unknown = [key for key in metrics if not columns.has("metric", key)]
    if unknown:
        raise BadInput(f"No run has the metric '{unknown[0]}'.")
    known_directions = {key: (directions or {}).get(key) or guess_direction(key) for key in metrics}
    numbers = {
        key: columns.number(
            "metric", key, cast(Aggregate, known_directions[key] if aggregate == "best" else aggregate)
        )
        for key in metrics[:_MOST_METRICS]
    }
    groups = make_groups(places, texts, numbers)
    if metrics:
        groups = sort_groups(groups, metrics[0], known_directions[metrics[0]])
    return Grouped(by, list(numbers), known_directions, groups)


def text_column(store: Store, key: str) -> Text:
    """The texts of a param, attribute or tag of this name (or ``params.`` and so on before it). Raises BadInput."""
    kind, dot, rest = key.partition(".")
    kinds = {"params": "param", "tags": "tag", "attributes": "attribute"}
    if dot and kind in kinds:
        return store.columns.text(cast(Any, kinds[kind]), rest)
    if store.columns.has("param", key):
        return store.columns.text("param", key)
    if key in TEXT_ATTRIBUTES:
        return store.columns.text("attribute", key)
    if store.columns.has("tag", key):
        return store.columns.text("tag", key)
    raise BadInput(f"No run has a param or tag '{key}' to group by.")


def keys_of(text: str) -> list[str]:
    """The keys in `lr,bs` or `lr bs`. Raises BadInput when there is none."""
    keys = [key.strip() for key in text.replace(",", " ").split() if key.strip()]
    if not keys:
        raise BadInput("Say which params to group by, for example lr,batch_size.")
    return list(dict.fromkeys(keys))


def group_filter(by: Sequence[str], values: Sequence[str | None]) -> str:
    """The filter that finds the runs of a group."""
    terms = []
    for key, value in zip(by, values, strict=True):
        name = key if key.replace("_", "a").replace(".", "a").isalnum() else f"`{key}`"
        if value is None:
            terms.append(f"{name} is null")
        else:
            # A number without quotes means every spelling of it.
            plain = value.replace(".", "1").replace("-", "1").replace("+", "1").isalnum() and value.isascii()
            terms.append(
                f"{name} = {value}" if plain else f"{name} = '{value.replace(chr(39), chr(39) * 2)}'"
            )
    return " and ".join(terms)


def write_groups(grouped: Grouped, terminal: Terminal, as_json: bool, as_csv: bool, raw: bool) -> None:
    """Print them."""
    if as_json:
        write_json([_json(grouped, group) for group in grouped.groups])
        return
    if as_csv:
        heading = [*grouped.by, "runs"]
        for key in grouped.metrics:
            heading += [f"{key} {what}" for what in ("n", "mean", "std", "min", "max")]
        rows = ([*group.values, group.count, *_csv_cells(grouped, group)] for group in grouped.groups)
        write_csv(heading, rows, raw=raw)
        return
    columns = [
        Column(key, [_value(group.values[place]) for group in grouped.groups], weight=0)
        for place, key in enumerate(grouped.by)
    ]
    columns.append(Column("N", [f"{group.count:,}" for group in grouped.groups], "right", 0))
    for key in grouped.metrics:
        arrow = "↓" if grouped.directions[key] == "min" else "↑"
        texts = spread_texts([group.spreads[key] for group in grouped.groups])
        best = (
            next((place for place, (text, _) in enumerate(texts) if text), None)
            if key == grouped.metrics[0]
            else None
        )
        means = [Cell(text, "best" if place == best else None) for place, (text, _) in enumerate(texts)]
        columns.append(Column(f"{key}{arrow}", means, weight=0))
        columns.append(Column("min .. max", [Cell(text, "dim") for _, text in texts], weight=1))
    write_lines(draw_table(columns, terminal))


def _json(grouped: Grouped, group: Group) -> dict[str, Any]:
    return {
        "by": dict(zip(grouped.by, group.values, strict=True)),
        "runs": group.count,
        "metrics": {key: _spread_json(one) for key, one in group.spreads.items()},
    }


def _spread_json(one: Spread | None) -> dict[str, Any] | None:
    if one is None:
        return None
    return {
        "n": one.n,
        "mean": json_number(one.mean),
        "std": json_number(one.std),
        "min": one.low,
        "max": one.high,
        "without": one.without,
    }


def _csv_cells(grouped: Grouped, group: Group) -> list[float | int | None]:
    cells: list[float | int | None] = []
    for key in grouped.metrics:
        one = group.spreads[key]
        cells += [one.n, one.mean, one.std, one.low, one.high] if one else [0, None, None, None, None]
    return cells


def _value(value: str | None) -> Cell:
    return Cell("absent", "dim") if value is None else Cell(format_parameter(value))

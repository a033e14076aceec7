"""What the screen of groups asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mltrack.store.store import Store
from mltrack.tui.cli.grouping import group_filter, group_runs, keys_of
from mltrack.tui.draw.numbers import format_parameter
from mltrack.tui.groups import spread_texts
from mltrack.tui.worker_calls.run_columns import Layout

_MOST_GROUPS = 2000


def groups(
    store: Store,
    by: str,
    filter: str = "",
    experiment: str | None = None,
    aggregate: str = "best",
    layout: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """{"by", "headings", "rows": cells per group, "filters" that find its runs, "total", "goal"}."""
    decided = Layout.of(layout or {})
    made = group_runs(
        store, keys_of(by), filter, experiment, (), aggregate or "best", decided.directions, decided.goal
    )
    shown = made.groups[:_MOST_GROUPS]
    headings = [*made.by, "N"]
    columns: list[Sequence[str]] = [
        ["absent" if (value := group.values[place]) is None else format_parameter(value) for group in shown]
        for place in range(len(made.by))
    ]
    columns.append([f"{group.count:,}" for group in shown])
    for key in made.metrics:
        headings += [f"{key}{'↓' if made.directions[key] == 'min' else '↑'}", "min .. max"]
        texts = spread_texts([group.spreads[key] for group in shown])
        columns += [[mean for mean, _ in texts], [ends for _, ends in texts]]
    return {
        "by": list(made.by),
        "headings": headings,
        "rows": [list(row) for row in zip(*columns, strict=True)] if shown else [],
        "filters": [group_filter(made.by, group.values) for group in shown],
        "total": len(made.groups),
        "runs": sum(group.count for group in made.groups),
        "goal": made.metrics[0] if made.metrics else None,
    }


CALLS = (groups,)

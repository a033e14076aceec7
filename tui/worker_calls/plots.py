"""What the screen of plots asks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mltrack.store.store import Store
from mltrack.tui.cli.plots import plot_lines


def plot_page(
    store: Store,
    kind: str,
    names: Sequence[str],
    run_ids: Sequence[str],
    filter: str,
    experiment: str | None,
    width: int,
    height: int,
    ascii_only: bool,
) -> dict[str, Any]:
    """{"title", "lines" of [text, style]} of a picture of the marked runs, or of all that match. Raises BadInput."""
    title, lines = plot_lines(store, kind, names, run_ids, filter, experiment, (width, height), ascii_only)
    return {"title": title, "lines": lines}


CALLS = (plot_page,)

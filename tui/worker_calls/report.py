"""What screens have written by the worker: reports and figures."""

from __future__ import annotations

from collections.abc import Sequence

from mltrack.store.store import Store
from mltrack.tui.cli.report import absolute, figure_file, make_report, write_new
from mltrack.tui.draw.scales import ScaleName


def write_report(store: Store, run_ids: Sequence[str], name: str) -> dict[str, str]:
    """Write a page about these runs; {"sentence"}. Raises BadInput."""
    path = absolute(name)
    page = make_report(store, store.runs(run_ids))
    write_new(path, page.encode("utf-8", "backslashreplace"))
    return {"sentence": f"Wrote a report of {len(run_ids):,} run{'' if len(run_ids) == 1 else 's'} to {path}"}


def write_figure(
    store: Store,
    run_ids: Sequence[str],
    key: str,
    name: str,
    y_scale: ScaleName = "linear",
    low: float | None = None,
    high: float | None = None,
) -> dict[str, str]:
    """Write a chart at paper size as svg or pdf; {"sentence"}. Raises BadInput."""
    path = absolute(name)
    figure_file(store, store.runs(run_ids), key, path, y_scale, low, high)
    return {"sentence": f"Wrote {key} to {path}"}


CALLS = (write_report, write_figure)

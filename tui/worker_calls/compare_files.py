"""What `:diff` asks in a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mltrack.store.errors import BadInput
from mltrack.store.store import Store
from mltrack.tui.cli.compare_files import NotYet, file_lines
from mltrack.tui.kept_files import ASKED_SECONDS


def compare_files(store: Store, run_ids: Sequence[str], name: str = "") -> dict[str, Any]:
    """{"title", "lines"}: the diff of a file of two runs, or which of their files differ; "again" while another machine has not sent
    its part. Raises BadInput."""
    runs = store.runs(run_ids)
    if len(runs) != 2:
        raise BadInput("A run is not in the store any more.")
    title = f"{name or 'Files'}: {runs[0].name} and {runs[1].name}"
    try:
        return {"title": title, "lines": file_lines(runs[0], runs[1], name, ASKED_SECONDS)}
    except NotYet:
        lines = [[["The other machine is being asked for it ...", "dim"]]]
        return {"title": title, "lines": lines, "again": True}


CALLS = (compare_files,)

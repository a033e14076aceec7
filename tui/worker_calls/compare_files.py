"""What `:diff` asks in a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mltrack.store.errors import BadInput
from mltrack.store.store import Store
from mltrack.tui.cli.compare_files import file_lines


def compare_files(store: Store, run_ids: Sequence[str], name: str = "") -> dict[str, Any]:
    """{"title", "lines"}: the diff of a file of two runs, or which of their files differ. Raises BadInput."""
    runs = store.runs(run_ids)
    if len(runs) != 2:
        raise BadInput("A run is not in the store any more.")
    return {
        "title": f"{name or 'Files'}: {runs[0].name} and {runs[1].name}",
        "lines": file_lines(runs[0], runs[1], name),
    }


CALLS = (compare_files,)

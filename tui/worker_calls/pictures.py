"""Pictures of compared runs, step by step, as their screen turns the pages."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from mltrack.store.records import Run
from mltrack.store.store import Store
from mltrack.tui.picture_series import Steps, pictures_of, step_of
from mltrack.tui.raster import canvas_of

# Turning pages does not list the folders again; what a live run adds is seen after this long.
_LISTED_SECONDS = 3.0
_listed: tuple[tuple[str, ...], float, list[Run], dict[str, list[Steps]]] | None = None


def compare_pictures(
    store: Store,
    run_ids: Sequence[str],
    name: str,
    step: int | None,
    width: int,
    height: int,
    canvas: Sequence[int] | None = None,
) -> dict[str, Any]:
    """{"name", "names" of all series, "step", "steps" that there are, "lines", "pictures"}. Raises BadInput.

    ``canvas`` (width and height of a cell in pixels, and how many pixels there may be): the terminal draws pixels. "pictures"
    are then [line, column, *packed raster] each, and lie over blank lines.
    """
    global _listed
    asked = tuple(run_ids)
    if _listed is None or _listed[0] != asked or time.monotonic() - _listed[1] > _LISTED_SECONDS:
        runs = store.runs(run_ids, (), ())
        _listed = asked, time.monotonic(), runs, pictures_of(runs)
    shown = step_of(_listed[2], _listed[3], name, step, width, height, canvas_of(canvas))
    return {
        "name": shown.name,
        "names": shown.names,
        "step": shown.step,
        "steps": shown.steps,
        "lines": shown.lines,
        "pictures": [[line, column, *picture.packed()] for line, column, picture in shown.placed],
    }


CALLS = (compare_pictures,)

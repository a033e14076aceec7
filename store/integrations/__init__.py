"""What training frameworks call while they train: one small file each, which imports its framework when it is asked for.

``mltrack.lightning``, ``mltrack.transformers``, ``mltrack.keras``, ``mltrack.lightgbm``, ``mltrack.xgboost`` and
``mltrack.sklearn`` are these modules. Each logs to the run that is active, or starts one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from types import SimpleNamespace
from typing import Any

from mltrack.store.client.log import active_run, end_run, start_run
from mltrack.store.client.run import ActiveRun

# A value of a nested configuration deeper than this is logged as text.
_DEPTH = 6


def run_for_framework(experiment: str | None = None, name: str | None = None) -> tuple[ActiveRun, bool]:
    """The active run, or a new one; and whether it was started here, so that whoever started it ends it."""
    run = active_run()
    if run is not None and not run.ended:
        return run, False
    return start_run(run_name=name, experiment=experiment), True


def end_for_framework(run: ActiveRun, status: str) -> None:
    """End a run that was started here."""
    if active_run() is run:
        end_run(status)
    else:
        run.finish(status)


def flat(values: Any, prefix: str = "", depth: int = 0) -> dict[str, object]:
    """Nested settings as params: ``optimizer.lr``. Namespaces and dataclasses count as dictionaries, long lists as text."""
    if is_dataclass(values) and not isinstance(values, type):
        values = asdict(values)
    elif isinstance(values, SimpleNamespace) or type(values).__name__ == "Namespace":
        values = vars(values)
    if not isinstance(values, Mapping):
        return {prefix or "value": values}
    found: dict[str, object] = {}
    for key, value in values.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(value, Mapping) and value and depth < _DEPTH:
            found.update(flat(value, name, depth + 1))
        else:
            found[name] = value
    return found

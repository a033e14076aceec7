"""mltrack: experiment tracking that lives in the terminal.

    import mltrack
    mltrack.set_experiment("vision/cifar")
    with mltrack.start_run(total_steps=1000):
        mltrack.log_params({"lr": 3e-4})
        mltrack.log_metric("loss", 0.5, step=1)

Importing this loads the standard library only; reading functions (get_run, search_runs) load the store when called.
"""

from __future__ import annotations

from mltrack.store.client.log import (
    UsageError,
    active_run,
    delete_tag,
    end_run,
    log_artifact,
    log_artifacts,
    log_dict,
    log_figure,
    log_image,
    log_input,
    log_metric,
    log_metrics,
    log_param,
    log_params,
    log_table,
    log_text,
    progress,
    set_experiment,
    set_note,
    set_store,
    set_tag,
    set_tags,
    start_run,
)
from mltrack.store.client.run import ActiveRun

# Not typing's: importing a training script must cost little, and type checkers know the name.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from mltrack.store.flavors.logging import load_model, log_model
    from mltrack.store.flavors.schema import infer_signature
    from mltrack.store.records import Run

__version__ = "0.1.0"

__all__ = [
    "ActiveRun",
    "UsageError",
    "active_run",
    "delete_tag",
    "end_run",
    "get_run",
    "infer_signature",
    "load_model",
    "log_artifact",
    "log_artifacts",
    "log_dict",
    "log_figure",
    "log_image",
    "log_input",
    "log_metric",
    "log_metrics",
    "log_model",
    "log_param",
    "log_params",
    "log_table",
    "log_text",
    "progress",
    "search_runs",
    "set_experiment",
    "set_note",
    "set_store",
    "set_tag",
    "set_tags",
    "start_run",
]


_MODELS = {
    "infer_signature": "mltrack.store.flavors.schema",
    "load_model": "mltrack.store.flavors.logging",
    "log_model": "mltrack.store.flavors.logging",
}


_INTEGRATIONS = frozenset(("keras", "lightgbm", "lightning", "sklearn", "transformers", "xgboost"))


def __getattr__(name: str) -> Any:
    if name in _INTEGRATIONS:
        import importlib

        return importlib.import_module(f"mltrack.store.integrations.{name}")
    # Models are saved and loaded by code that a training script without models need not read.
    if name in _MODELS:
        import importlib

        return getattr(importlib.import_module(_MODELS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _open() -> Any:
    from mltrack.store.client.log import chosen_store

    try:
        from mltrack.store.opening import open_store
    except ImportError as error:
        raise UsageError(
            f"Reading runs needs the packages the store is made of ({error.name} is missing): pip install mltrack-tui."
        ) from None
    return open_store(chosen_store().url)


def get_run(run_id: str) -> Run:
    """The run with this id (or unique prefix, or name), up to date with what was logged until now."""
    with _open() as store:
        store.refresh(None)
        run: Run = store.run(run_id)
        return run


def search_runs(
    filter_string: str = "",
    *,
    experiment: str | None = None,
    order_by: Sequence[str] = (),
    max_results: int | None = None,
) -> list[Run]:
    """The runs that match a filter (docs/search.md), in order."""
    with _open() as store:
        store.refresh(None)
        page = store.search(filter_string, experiment=experiment, sort=tuple(order_by), limit=max_results)
        found: list[Run] = store.runs(page.run_ids)
        return found

"""LightGBM: ``lightgbm.train(..., callbacks=[mltrack.lightgbm.log_evaluation()])``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mltrack.store.integrations import flat, run_for_framework


def log_evaluation(period: int = 1) -> Callable[[Any], None]:
    """A callback that logs params, progress and every ``period``-th evaluation to the active run, or to a new one."""
    run, _ = run_for_framework()
    began = False

    def callback(environment: Any) -> None:
        nonlocal began
        if not began:
            began = True
            run.log_params(flat(environment.params))
        step = environment.iteration - environment.begin_iteration
        total = environment.end_iteration - environment.begin_iteration
        run.progress(step + 1, total)
        if step % period == 0 or step + 1 == total:
            found = environment.evaluation_result_list or ()
            run.log_metrics({f"{entry[0]}/{entry[1]}": float(entry[2]) for entry in found}, step=step)

    # LightGBM orders callbacks by this: behind those that change params, before early stopping leaves.
    vars(callback)["order"] = 20
    return callback

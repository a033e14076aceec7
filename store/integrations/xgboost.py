"""XGBoost: ``xgboost.train(..., callbacks=[mltrack.xgboost.MltrackCallback()])``."""

from __future__ import annotations

import importlib
from typing import Any

from mltrack.store.client.run import ActiveRun
from mltrack.store.integrations import end_for_framework, flat, run_for_framework

_TrainingCallback: Any = importlib.import_module("xgboost.callback").TrainingCallback


class MltrackCallback(_TrainingCallback):  # type: ignore[misc]  # XGBoost has no types for us
    """Logs params and every evaluation to the active run, or to one of its own that ends with the training."""

    def __init__(self, params: dict[str, Any] | None = None) -> None:
        super().__init__()
        self._params = params
        self._run: ActiveRun | None = None
        self._own = False

    def before_training(self, model: Any) -> Any:
        """The run, and the params when they were given: XGBoost does not show them to callbacks."""
        self._run, self._own = run_for_framework()
        if self._params:
            self._run.log_params(flat(self._params))
        return model

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        """The newest value of each metric of each data set."""
        assert self._run is not None
        values = {
            f"{data}/{metric}": float(history[-1][0] if isinstance(history[-1], tuple) else history[-1])
            for data, metrics in evals_log.items()
            for metric, history in metrics.items()
        }
        self._run.log_metrics(values, step=epoch)
        self._run.progress(epoch + 1)
        return False

    def after_training(self, model: Any) -> Any:
        """The end."""
        if self._run is not None and self._own:
            end_for_framework(self._run, "FINISHED")
        return model

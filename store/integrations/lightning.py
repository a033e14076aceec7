"""PyTorch Lightning: ``Trainer(logger=mltrack.lightning.MltrackLogger())``. Progress, metrics, hyper-parameters, checkpoints."""

from __future__ import annotations

import importlib
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mltrack.store.client.run import ActiveRun
from mltrack.store.integrations import end_for_framework, flat, run_for_framework


def _base(module: str, name: str) -> Any:
    """A class of Lightning, by its new name or the old one."""
    try:
        found = importlib.import_module(f"lightning.pytorch.{module}")
    except ImportError:
        found = importlib.import_module(f"pytorch_lightning.{module}")
    return getattr(found, name)


_Logger: Any = _base("loggers.logger", "Logger")
_rank_zero_only: Any = _base("utilities", "rank_zero_only")


class MltrackLogger(_Logger):  # type: ignore[misc]  # Lightning has no types for us
    """Logs to the active run, or to one of its own that ends with the training.

    ``checkpoints``: keep the best and the last checkpoint with the run when the training ends.
    """

    def __init__(
        self, experiment: str | None = None, run_name: str | None = None, checkpoints: bool = True
    ) -> None:
        super().__init__()
        self._experiment_name = experiment
        self._run_name = run_name
        self._checkpoints = checkpoints
        self._run: ActiveRun | None = None
        self._own = False
        self._total: int | None = None
        self._callback: Any = None

    @property
    def run(self) -> ActiveRun:
        """The run, started when it is first needed: not in processes that only prepare."""
        if self._run is None:
            self._run, self._own = run_for_framework(self._experiment_name, self._run_name)
        return self._run

    @property
    def name(self) -> str:
        """The experiment."""
        return self.run.experiment

    @property
    def version(self) -> str:
        """The run id."""
        return self.run.run_id

    @property
    def save_dir(self) -> str | None:
        """Where Lightning puts its checkpoints: beside the working folder's own, as without a logger."""
        return None

    def log_hyperparams(self, params: Mapping[str, Any] | Namespace, *args: Any, **options: Any) -> None:
        """Hyper-parameters as params."""
        if _is_first():
            self.run.log_params(flat(params))

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Metrics of one step, and the progress that it is."""
        if not _is_first():
            return
        values = {key: float(value) for key, value in metrics.items() if key != "epoch"}
        if values:
            self.run.log_metrics(values, step=step)
        if step is not None:
            self.run.progress(int(step), self._total)

    def log_graph(self, model: Any, input_array: Any = None) -> None:
        """How many steps there will be, from the trainer that this is called by; graphs are not drawn."""
        trainer = getattr(model, "trainer", None)
        total = getattr(trainer, "estimated_stepping_batches", None)
        if isinstance(total, (int, float)) and 0 < total < 1 << 62:
            self._total = int(total)

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """Which checkpoints there are is asked at the end: until then, better ones come."""
        self._callback = checkpoint_callback

    def finalize(self, status: str) -> None:
        """The end of a fit or a test."""
        if self._run is None or not _is_first():
            return
        if self._checkpoints and self._callback is not None:
            from mltrack.store.client.log import log_artifact

            kept = (self._callback.best_model_path, getattr(self._callback, "last_model_path", ""))
            for path in dict.fromkeys(str(path) for path in kept if path):
                if Path(path).is_file():
                    log_artifact(path, "checkpoints")
            self._callback = None
        if self._own:
            end_for_framework(self._run, "FINISHED" if status in ("success", "finished") else "FAILED")
            self._run, self._own = None, False


def _is_first() -> bool:
    """Whether this process is rank 0 of the training."""
    return getattr(_rank_zero_only, "rank", 0) == 0

"""Keras: ``model.fit(..., callbacks=[mltrack.keras.MltrackCallback()])``."""

from __future__ import annotations

import importlib
from typing import Any

from mltrack.store.client.run import ActiveRun
from mltrack.store.integrations import end_for_framework, flat, run_for_framework

_Callback: Any = importlib.import_module("keras").callbacks.Callback


class MltrackCallback(_Callback):  # type: ignore[misc]  # Keras has no types for us
    """Logs epochs and progress to the active run, or to one of its own that ends with the training.

    ``every_batch``: log batches too, under ``batch/``.
    """

    def __init__(self, every_batch: bool = False) -> None:
        super().__init__()
        self._every_batch = every_batch
        self._run: ActiveRun | None = None
        self._own = False
        self._batches = 0

    def on_train_begin(self, logs: Any = None) -> None:
        """The run and its params."""
        self._run, self._own = run_for_framework()
        settings = flat(
            {"fit": {key: value for key, value in (self.params or {}).items() if key != "verbose"}}
        )
        optimizer = getattr(self.model, "optimizer", None)
        if optimizer is not None:
            settings.update(flat(optimizer.get_config(), "optimizer"))
        self._run.log_params(settings)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """One batch."""
        assert self._run is not None
        self._batches += 1
        steps, epochs = (self.params or {}).get("steps"), (self.params or {}).get("epochs")
        self._run.progress(self._batches, steps * epochs if steps and epochs else None)
        if self._every_batch and logs:
            self._run.log_metrics(
                {f"batch/{key}": float(value) for key, value in logs.items()}, step=self._batches
            )

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """One epoch: ``val_loss`` becomes ``val/loss``, ``loss`` ``train/loss``."""
        assert self._run is not None
        values = {
            f"val/{key.removeprefix('val_')}" if key.startswith("val_") else f"train/{key}": float(value)
            for key, value in (logs or {}).items()
        }
        self._run.log_metrics(values, step=epoch)

    def on_train_end(self, logs: Any = None) -> None:
        """The end."""
        if self._run is not None and self._own:
            end_for_framework(self._run, "FINISHED")

"""Hugging Face Transformers: ``Trainer(callbacks=[mltrack.transformers.MltrackCallback()])``. Progress, metrics, arguments."""

from __future__ import annotations

import importlib
from typing import Any

from mltrack.store.client.run import ActiveRun
from mltrack.store.integrations import end_for_framework, flat, run_for_framework

_TrainerCallback: Any = importlib.import_module("transformers").TrainerCallback


class MltrackCallback(_TrainerCallback):  # type: ignore[misc]  # Transformers has no types for us
    """Logs to the active run, or to one of its own that ends with the training."""

    def __init__(self, experiment: str | None = None) -> None:
        self._experiment = experiment
        self._run: ActiveRun | None = None
        self._own = False

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **options: Any) -> None:
        """The run, its params and how far it will go."""
        if not state.is_world_process_zero:
            return
        self._run, self._own = run_for_framework(self._experiment, getattr(args, "run_name", None))
        settings = flat(args.to_sanitized_dict())
        settings.update(flat(model.config.to_dict(), "model") if hasattr(model, "config") else {})
        self._run.log_params({key: value for key, value in settings.items() if value is not None})
        self._run.progress(0, int(state.max_steps) if state.max_steps > 0 else None)

    def on_step_end(self, args: Any, state: Any, control: Any, **options: Any) -> None:
        """How far it is."""
        if self._run is not None:
            self._run.progress(int(state.global_step), int(state.max_steps) if state.max_steps > 0 else None)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **options: Any) -> None:
        """Metrics as the trainer logs them: ``loss`` and ``eval_loss`` become ``train/loss`` and ``eval/loss``."""
        if self._run is None or not logs:
            return
        values = {
            _renamed(key): float(value) for key, value in logs.items() if isinstance(value, (int, float))
        }
        self._run.log_metrics(values, step=int(state.global_step))

    def on_train_end(self, args: Any, state: Any, control: Any, **options: Any) -> None:
        """The end. A training that raised never comes here: then the process's own end says so."""
        if self._run is not None and self._own:
            end_for_framework(self._run, "FINISHED")
        self._run, self._own = None, False


def _renamed(key: str) -> str:
    for prefix in ("eval", "test"):
        if key.startswith(f"{prefix}_"):
            return f"{prefix}/{key.removeprefix(prefix + '_')}"
    return key if key.startswith("train_") else f"train/{key}"

"""scikit-learn: after ``mltrack.sklearn.autolog()`` every ``fit`` of an estimator logs its params, time and training score."""

from __future__ import annotations

import functools
import importlib
import threading
import time
from typing import Any

from mltrack.store.integrations import end_for_framework, flat, run_for_framework

# Only the fit that a person called is logged, not those of the parts of a pipeline or of a search's candidates.
_inside = threading.local()
_patched: dict[type, Any] = {}
_POST_SCORE_ROWS = 100_000


def autolog(disable: bool = False) -> None:
    """Log every ``fit`` from now on to the active run, or each to a run of its own; with ``disable`` no longer."""
    if disable:
        for kind, original in _patched.items():
            kind.fit = original  # type: ignore[attr-defined]  # put back what was there
        _patched.clear()
        return
    importlib.import_module("sklearn.utils")
    found = importlib.import_module("sklearn.utils.discovery").all_estimators()
    for base in {base for _, kind in found for base in kind.__mro__}:
        fit = base.__dict__.get("fit")
        if callable(fit) and base not in _patched and base.__module__.startswith("sklearn."):
            _patched[base] = fit
            base.fit = _logged(fit)


def _logged(fit: Any) -> Any:
    @functools.wraps(fit)
    def logged_fit(self: Any, *arguments: Any, **options: Any) -> Any:
        if getattr(_inside, "depth", 0):
            return fit(self, *arguments, **options)
        run, own = run_for_framework(name=type(self).__name__)
        settings = {
            key: value for key, value in flat(self.get_params(deep=True)).items() if not hasattr(value, "fit")
        }
        run.log_params({"estimator": type(self).__name__, **settings})
        began = time.perf_counter()
        _inside.depth = 1
        try:
            result = fit(self, *arguments, **options)
            run.log_metrics({"fit_seconds": time.perf_counter() - began})
            _score(run, self, arguments, options)
        except BaseException:
            if own:
                end_for_framework(run, "FAILED")
            raise
        finally:
            _inside.depth = 0
        if own:
            end_for_framework(run, "FINISHED")
        return result

    return logged_fit


def _score(run: Any, estimator: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
    """The training score, and what a search found; what an estimator does not have is left out."""
    features = arguments[0] if arguments else options.get("X")
    labels = arguments[1] if len(arguments) > 1 else options.get("y")
    found: dict[str, float] = {}
    best = getattr(estimator, "best_score_", None)
    if isinstance(best, (int, float)):
        found["best_cv_score"] = float(best)
        run.log_params({f"best.{key}": value for key, value in estimator.best_params_.items()})
    if labels is not None and hasattr(estimator, "score") and len(labels) <= _POST_SCORE_ROWS:
        try:
            found["training_score"] = float(estimator.score(features, labels))
        except (TypeError, ValueError, AttributeError) as error:
            run.refuse("training_score", f"the estimator cannot be scored: {error}")
    if found:
        run.log_metrics(found)

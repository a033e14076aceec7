"""Which metric a set of runs is about, and which of its values are good, when nobody has said so."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from mltrack.store.direction import guess_direction

_HELD_OUT = re.compile(
    r"(?:^|[/_.\-])(?:val|valid|validation|eval|test|dev|heldout)(?:$|[/_.\-])", re.IGNORECASE
)
_SCORES = re.compile(
    r"(?:^|[/_.\-])(?:acc|accuracy|auc|f1|map|iou|miou|bleu|rouge|reward|return|score|r2|psnr|ssim|top1|recall|precision)"
    r"(?:$|[/_.\-\d@])",
    re.IGNORECASE,
)
_BACKGROUND = re.compile(
    r"^(?:system|sys|time|perf)/|(?:^|/)(?:epoch|step|lr|learning_rate|grad_norm|iteration|loss_scale)$"
    r"|per_?sec|_per_s$|/s$|throughput|^layers?/|weight_norm|update_ratio",
    re.IGNORECASE,
)


def is_background(key: str) -> bool:
    """Metrics that nobody optimises: system/*, learning rates, counters, speeds, insides of layers."""
    return _BACKGROUND.search(key) is not None


def direction_arrow(key: str) -> str:
    """Which way is good, as an arrow; nothing for metrics that are neither."""
    return "" if is_background(key) else "↓" if guess_direction(key) == "min" else "↑"


def guess_goal(runs_with_key: Mapping[str, int]) -> str | None:
    """The key of the goal metric: a held-out score before a held-out loss before training; most runs, then by name."""
    candidates = [key for key in runs_with_key if not is_background(key)]
    if not candidates:
        return None
    most = max(runs_with_key[key] for key in candidates)
    # A metric that hardly any run has says nothing about the set.
    usual = [key for key in candidates if runs_with_key[key] * 4 >= most]
    return min(usual, key=lambda key: (-_rank(key), -runs_with_key[key], len(key), key))


def guess_loss(keys: Iterable[str], goal: str | None) -> str | None:
    """One loss to show beside the goal: training's own if there is one."""
    losses = [key for key in keys if key != goal and not is_background(key) and guess_direction(key) == "min"]
    return min(losses, key=lambda key: (_HELD_OUT.search(key) is not None, len(key), key), default=None)


def _rank(key: str) -> int:
    return (
        4 * (_HELD_OUT.search(key) is not None)
        + 2 * (_SCORES.search(key) is not None)
        + (guess_direction(key) == "min")
    )

"""Whether more or less of a metric is better, guessed from its name."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal, TypeAlias

Direction: TypeAlias = Literal["max", "min"]
DirectionOf: TypeAlias = Callable[[str], Direction]

_LESS_IS_BETTER = frozenset(
    (
        "loss losses error errors err mistakes ppl perplexity mae mse rmse rmsle mape smape mase medae nll bce hinge "
        "wer cer ter per eer fid kid lpips kl divergence entropy xent crossentropy logloss regret cost penalty "
        "brier ece mce bpb bpc bpd fpr fnr far frr residual distance distortion energy overfit "
        "time times seconds sec secs ms duration latency runtime memory bytes params flops"
    ).split()
)
_LESS_IS_BETTER_ENDINGS = ("loss", "error", "perplexity", "entropy", "mse", "mae")
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def guess_direction(key: str) -> Direction:
    """The direction of a metric by the words of its name: `val/loss`, `trainLoss` and `top1_err` go down, others up."""
    words = [word.lower() for word in _WORDS.findall(key)]
    if any(word in _LESS_IS_BETTER or word.endswith(_LESS_IS_BETTER_ENDINGS) for word in words):
        return "min"
    return "max"

"""Whether more or less of a metric is better, guessed from its name."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Literal, TypeAlias

Direction: TypeAlias = Literal["max", "min"]
DirectionOf: TypeAlias = Callable[[str], Direction]

_LESS_IS_BETTER = frozenset(
    (
        "loss losses error errors err mistakes ppl perplexity mae mse rmse rmsle mape smape mase medae nll bce hinge "
        "wer cer ter eer fid kid lpips kl divergence entropy xent crossentropy logloss regret cost penalty "
        "brier ece mce bpb bpc bpd fpr fnr far frr residual distance distortion energy overfit "
        "time times seconds sec secs ms duration latency runtime memory bytes params flops"
    ).split()
)
_LESS_IS_BETTER_ENDINGS = ("loss", "error", "perplexity", "entropy", "mse", "mae")
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


# What is counted by time or whatever else: more of it per second is better, though seconds alone are not.
_COUNTED = frozenset(
    (
        "tokens token words samples sample images image imgs img examples frames frame steps step its it iters iterations "
        "batches epochs episodes games requests queries items rows records pixels bytes flops mb gb"
    ).split()
)
_RATES = frozenset("throughput bandwidth fps ips tps qps rps mfu hfu".split())
_UNITS = frozenset("s sec secs second seconds min minute minutes h hour hours day days ms us".split())


@lru_cache(1 << 16)
def guess_direction(key: str) -> Direction:
    """The direction of a metric by the words of its name: `val/loss`, `trainLoss` and `top1_err` go down, others up;
    so does `images_per_second`, which is no time but a rate."""
    words = [word.lower() for word in _WORDS.findall(key)]
    if _is_rate(words):
        return "max"
    if words[-1:] == ["per"]:  # the phoneme error rate; elsewhere the word is just "per"
        return "min"
    if any(word in _LESS_IS_BETTER or word.endswith(_LESS_IS_BETTER_ENDINGS) for word in words):
        return "min"
    return "max"


def _is_rate(words: list[str]) -> bool:
    if not _RATES.isdisjoint(words):
        return True
    if len(words) < 2 or words[-1] not in _UNITS:
        return False
    if words[-2] != "per":
        return words[-2] in _COUNTED
    counted = words[:-2]
    return bool(counted) and (counted[-1] in _COUNTED or _LESS_IS_BETTER.isdisjoint(counted))

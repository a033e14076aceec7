"""Which metric a set of runs is about, and which of its values are good: decided in the table, else guessed from names.

What was decided is kept per experiment with the view of the table. `remember` or `recall` says what is known, `about` which runs the
questions inside of it are about.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from mltrack.store.direction import Direction, guess_direction

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


@dataclass(frozen=True)
class Decided:
    """What a person decided about the metrics of some runs."""

    goal: str | None = None
    directions: Mapping[str, str] = field(default_factory=dict)


_layouts: Mapping[str, Mapping[str, Any]] = {}
_NOTHING = Decided()
_decided: ContextVar[Decided] = ContextVar("decided", default=_NOTHING)


def remember(layouts: Mapping[str, Mapping[str, Any]]) -> None:
    """What the table keeps of each experiment, by its name: of a folder with its slash, of all of them by ''."""
    global _layouts
    _layouts = layouts


def recall(where: str | None) -> None:
    """The same from what the app last kept of a store, for a command."""
    from mltrack.store.client.location import choose_store
    from mltrack.tui.saved_view import load_view, view_file

    remember(load_view(view_file(choose_store(where).url)).layouts)


def decided(experiments: Iterable[str]) -> Decided:
    """What holds for runs of these experiments: of one its own; of several that of the view that shows them together, and what
    was decided about the direction of a metric in any of them."""
    names = sorted(set(experiments))
    if len(names) == 1:
        own = _layouts.get(names[0], {})
        return Decided(own.get("goal"), own.get("directions") or {})
    folders = [
        scope
        for scope in _layouts
        if (not scope or scope.endswith("/")) and all(name.startswith(scope) for name in names)
    ]
    nearest = _layouts.get(max(folders, key=len), {}) if folders else {}
    directions: dict[str, str] = {}
    for name in names:
        directions |= _layouts.get(name, {}).get("directions") or {}
    return Decided(nearest.get("goal"), {**directions, **(nearest.get("directions") or {})})


def current() -> Decided:
    """What holds now."""
    return _decided.get()


@contextmanager
def about(experiments: Iterable[str]) -> Iterator[None]:
    """Goals and directions are those of runs of these experiments."""
    token = _decided.set(decided(experiments))
    try:
        yield
    finally:
        _decided.reset(token)


def direction_of(key: str) -> Direction:
    """Whether more or less of a metric is better: decided, else by its name."""
    chosen = _decided.get().directions.get(key)
    return "min" if chosen == "min" else "max" if chosen == "max" else guess_direction(key)


@lru_cache(1 << 16)
def is_background(key: str) -> bool:
    """Metrics that nobody optimises: system/*, learning rates, counters, speeds, insides of layers."""
    return _BACKGROUND.search(key) is not None


def direction_arrow(key: str) -> str:
    """Which way is good, as an arrow; nothing for metrics that are neither."""
    known = key in _decided.get().directions
    return "" if is_background(key) and not known else "↓" if direction_of(key) == "min" else "↑"


def guess_goal(runs_with_key: Mapping[str, int]) -> str | None:
    """The key of the goal metric: the one that was chosen, else a held-out score before a held-out loss before training; most runs,
    then by name."""
    chosen = _decided.get().goal
    if chosen in runs_with_key:
        return chosen
    candidates = [key for key in runs_with_key if not is_background(key)]
    if not candidates:
        return None
    most = max(runs_with_key[key] for key in candidates)
    # A metric that hardly any run has says nothing about the set.
    usual = [key for key in candidates if runs_with_key[key] * 4 >= most]
    return min(usual, key=lambda key: (-_rank(key), -runs_with_key[key], len(key), key))


def guess_loss(keys: Iterable[str], goal: str | None) -> str | None:
    """One loss to show beside the goal: training's own if there is one."""
    losses = [key for key in keys if key != goal and not is_background(key) and direction_of(key) == "min"]
    return min(losses, key=lambda key: (_HELD_OUT.search(key) is not None, len(key), key), default=None)


def _rank(key: str) -> int:
    return _rank_of_name(key) + (direction_of(key) == "min")


@lru_cache(1 << 16)
def _rank_of_name(key: str) -> int:
    return 4 * (_HELD_OUT.search(key) is not None) + 2 * (_SCORES.search(key) is not None)

"""Who may promote a model, and what is looked at before: kept with the model as JSON, all of it off until somebody asks."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import orjson

from mltrack.store.errors import BadInput

CHECKS = ("files", "signature", "example", "metric", "code", "pickle")
LEVELS = ("off", "warn", "block")


@dataclass(frozen=True, slots=True)
class Policy:
    """Rules of one model.

    ``protected`` are the targets (stages, or aliases with their @) that ``promoters`` and ``approvals`` are about; empty
    ``promoters`` or ``approvers`` mean everybody. With ``approvals`` 1 somebody else than the asker has to say yes.
    Each check is off, warn or block. ``goal`` is the metric that must not get worse by more than ``margin``.
    """

    protected: tuple[str, ...] = ("Production",)
    promoters: tuple[str, ...] = ()
    approvals: int = 0
    approvers: tuple[str, ...] = ()
    goal: str = ""
    margin: float = 0.0
    files: str = "warn"
    signature: str = "warn"
    example: str = "warn"
    metric: str = "warn"
    code: str = "warn"
    pickle: str = "warn"

    def level(self, check: str) -> str:
        """off, warn or block."""
        return str(getattr(self, check))

    @property
    def blocking(self) -> tuple[str, ...]:
        """The checks that can keep a promotion from happening."""
        return tuple(check for check in CHECKS if self.level(check) == "block")

    def sentence(self) -> str:
        """What a person should know of it; empty when it asks for nothing."""
        parts: list[str] = []
        if self.approvals:
            by = f" by {', '.join(self.approvers)}" if self.approvers else ", not by the asker"
            parts.append(f"1 approval{by}")
        if self.promoters:
            parts.append(f"promoted by {', '.join(self.promoters)}")
        if self.blocking:
            parts.append(f"must pass: {', '.join(self.blocking)}")
        if parts and self.protected != ("Production",):
            parts.append(f"for {', '.join(self.protected)}")
        return "; ".join(parts)


def parse_policy(text: str) -> Policy:
    """The policy as it is stored. What a newer version wrote and this one does not know is left out."""
    try:
        stored = orjson.loads(text or "{}")
    except orjson.JSONDecodeError:
        stored = {}
    known = {field.name for field in fields(Policy)}
    found: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in stored.items()
        if key in known
    }
    return Policy(**found)


def policy_text(policy: Policy) -> str:
    """As it is stored: only what differs from the usual."""
    usual = asdict(Policy())
    changed = {key: value for key, value in asdict(policy).items() if value != usual[key]}
    return orjson.dumps(changed, option=orjson.OPT_SORT_KEYS).decode()


def change_policy(policy: Policy, key: str, value: str) -> Policy:
    """The policy with one rule changed as a person types it (``approvals=1``, ``promoters=ann,bob``). Raises BadInput."""
    known = {field.name: getattr(Policy(), field.name) for field in fields(Policy)}
    if key not in known:
        raise BadInput(f"A policy has no '{key}'; it has: {', '.join(known)}.")
    new: Any
    if isinstance(known[key], tuple):
        new = tuple(part.strip() for part in value.split(",") if part.strip())
    elif key in CHECKS:
        if value not in LEVELS:
            raise BadInput(f"{key} is one of {', '.join(LEVELS)}, not '{value}'.")
        new = value
    elif key == "approvals":
        if value not in ("0", "1"):
            raise BadInput("approvals is 0 or 1.")
        new = int(value)
    elif key == "margin":
        try:
            new = float(value)
        except ValueError:
            new = math.nan
        if not math.isfinite(new) or new < 0:
            raise BadInput(f"margin is a number from 0 on, not '{value}'.")
    else:
        new = value
    changed: dict[str, Any] = {key: new}
    return replace(policy, **changed)

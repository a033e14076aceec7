"""Who one is on a store, and what one may do there: the kernel's user and everything on a store of files, what its server says on
a server of ours."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any

STORE = "store"
ROLES = ("viewer", "editor", "manager")
"""What one may do, each more than the one before: look; log and change; delete for good, promote and rename away."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A name, and on a server that knows its users (``guarded``) the roles as (role, what it is on)."""

    name: str
    guarded: bool = False
    grants: tuple[tuple[str, str], ...] = ()

    @property
    def most(self) -> str:
        """The most that one may do anywhere on it; "" for nothing. Only for guarded ones."""
        found = [ROLES.index(role) for role, _ in self.grants if role in ROLES]
        return ROLES[max(found)] if found else ""

    @property
    def shown(self) -> str:
        """The name with its role: ``alice (editor)``, ``bob (viewer of experiment:vision/)``."""
        if not self.guarded:
            return self.name
        if not self.grants:
            return f"{self.name} (no role)"
        on = next((where for role, where in self.grants if role == self.most and where == "store"), "")
        places = [where for role, where in self.grants if role == self.most]
        more = "" if on else f" of {places[0]}" if len(places) == 1 else f" of {len(places)} places"
        return f"{self.name} ({self.most}{more})"

    def refusal(self, role: str, kind: str, name: str = "") -> str:
        """Why nothing that needs ``role`` on a thing of this ``kind`` (``experiment``, ``model``) can be done by this user, with
        the role that would do; "" where some of it may be. ``name``: of the thing, where it is known."""
        if not self.guarded:
            return ""
        there = [(has, on) for has, on in self.grants if on == STORE or on.startswith(f"{kind}:")]
        most = Identity(self.name, True, tuple(there)).most
        if most and ROLES.index(most) >= ROLES.index(role):
            return ""
        places = [on for has, on in there if has == most]
        if STORE in places or not self.grants:
            is_now, fits = f"are {most or 'nobody with a role'} here", STORE
        else:
            fits = places[0] if len(places) == 1 else f"{kind}:{name or 'NAME'}"
            where = places[0] if len(places) == 1 else f"{len(places)} {kind}s here"
            is_now = f"are {most} of {where}" if most else f"have no role on {kind}s here"
        return (
            f"{self.name}, you {is_now}; this needs {role}. Whoever runs the server gives roles:"
            f" mltrack auth role grant {self.name} {role} --on {shlex.quote(fits)}"
        )


def told_by(answer: dict[str, Any], local: Identity) -> Identity:
    """What a server of ours answers to the question who asks; ``local`` where it has no users and only claims to know."""
    if answer.get("identity") == "claimed":
        return local
    roles = answer.get("roles")
    grants = (
        tuple((str(one["role"]), str(one["on"])) for one in roles if isinstance(one, dict)) if roles else ()
    )
    return Identity(str(answer["user"]), True, grants)

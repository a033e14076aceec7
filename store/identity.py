"""Who one is on a store, and what one may do there: the kernel's user and everything on a store of files, what its server says on
a server of ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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

    def refusal(self, role: str) -> str:
        """Why nothing that needs ``role`` can be done by this user, wherever on the store; "" where some of it may be."""
        if not self.guarded or (self.most and ROLES.index(self.most) >= ROLES.index(role)):
            return ""
        return (
            f"{self.name}, you are {self.most or 'nobody with a role'} here; this needs {role}. Whoever runs the server gives roles:"
            f" mltrack auth role grant {self.name} {role} --on store"
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

"""Who may do what through a server: users, their roles and their tokens, in one private file beside the store.

The file is no table: everybody who shares a store may write its database, and nobody but the server's own user this file.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import orjson

from mltrack.store.client import host
from mltrack.store.client.journal import random_hex
from mltrack.store.database import file_lock
from mltrack.store.errors import BadInput, NotFound, StoreUnavailable
from mltrack.store.identity import ROLES, STORE
from mltrack.store.records import Actor

FILE = "server.access.json"
AUDIT = "server.audit.jsonl"
MANAGER = ROLES[2]
_USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_Result = TypeVar("_Result")
_TOKEN = re.compile(r"mlt_([0-9a-f]{8})_([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class Scope:
    """What a role is for: the ``store``, an ``experiment`` (or a folder of them, ending in a slash), a ``model``."""

    kind: str
    name: str = ""

    def covers(self, other: Scope) -> bool:
        """Whether who has a role here has it there too."""
        if self.kind == STORE:
            return True
        if self.kind != other.kind:
            return False
        if self.kind == "experiment" and self.name.endswith("/"):
            return other.name.startswith(self.name) or other.name == self.name[:-1]
        return self.name == other.name

    def __str__(self) -> str:
        return self.kind if self.kind == STORE else f"{self.kind}:{self.name}"


@dataclass(frozen=True, slots=True)
class Grant:
    """A role somewhere."""

    role: str
    on: Scope


@dataclass(frozen=True, slots=True)
class User:
    """Somebody by name. By the kernel's word it is the Unix user of this name."""

    name: str
    grants: tuple[Grant, ...] = ()

    def role_on(self, scope: Scope) -> str:
        """The most that this user may do there; "" for nothing."""
        found = [ROLES.index(grant.role) for grant in self.grants if grant.on.covers(scope)]
        return ROLES[max(found)] if found else ""


@dataclass(frozen=True, slots=True)
class Token:
    """A secret of a user, of which only the hash is kept. Times are milliseconds since 1970, 0 for never."""

    id: str
    user: str
    label: str
    hash: str
    created_ms: int
    expires_ms: int = 0
    revoked_ms: int = 0

    def state(self, now_ms: int) -> str:
        """`valid`, `revoked` or `expired`."""
        if self.revoked_ms:
            return "revoked"
        return "expired" if self.expires_ms and now_ms >= self.expires_ms else "valid"


@dataclass(frozen=True, slots=True)
class Access:
    """All users and tokens. ``kept``: there are or were users, so that who is none of them is nobody; else nobody's role is
    asked for."""

    users: dict[str, User] = field(default_factory=dict)
    tokens: dict[str, Token] = field(default_factory=dict)
    kept: bool = False

    def user_of(self, shown: str) -> User | None:
        """The user whose valid token this is; the comparison takes as long for a wrong one."""
        found = _TOKEN.fullmatch(shown)
        token = self.tokens.get(found[1]) if found else None
        right = hmac.compare_digest(_digest(shown), token.hash if token else _digest(""))
        if token is None or not right or token.state(_now()) != "valid":
            return None
        return self.users.get(token.user)


def scope_of(text: str) -> Scope:
    """``store``, ``experiment:NAME``, ``experiment:FOLDER/`` or ``model:NAME``. Raises BadInput."""
    kind, _, name = text.partition(":")
    if (kind == STORE and not name) or (kind in ("experiment", "model") and name):
        return Scope(kind, name)
    raise BadInput(
        f"'{text}' is nothing to have a role on: use store, experiment:NAME, experiment:FOLDER/ or model:NAME."
    )


def read(root: Path) -> Access:
    """The users of the store at ``root``. Raises StoreUnavailable for a file that somebody else could have written."""
    path = root / FILE
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return Access()
    except OSError as error:
        raise StoreUnavailable(
            f"The users of this store cannot be read ({path}: {error.strerror})."
        ) from None
    with os.fdopen(fd, "rb") as file:
        facts = os.fstat(fd)
        if facts.st_uid not in (0, os.geteuid(), os.stat(root).st_uid) or facts.st_mode & (
            stat.S_IWGRP | stat.S_IWOTH
        ):
            raise StoreUnavailable(
                f"{path} could have been written by somebody else, so nobody is let in by it. It must belong to the server's"
                " user, with mode 600."
            )
        try:
            return _from_json(orjson.loads(file.read()))
        except (ValueError, KeyError, TypeError) as error:
            raise StoreUnavailable(
                f"{path} is damaged ({type(error).__name__}: {error}); nobody is let in by it. Restore it, or remove it and"
                " make the users again."
            ) from None


class Reader:
    """The users as the file has them now, read again when it changes. That it goes opens no door that it closed: who wants
    that starts the server anew."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._mark: tuple[int, int, int] | None = None
        self._access = Access()

    def now(self) -> Access:
        """All users and tokens. Raises StoreUnavailable."""
        try:
            facts = os.lstat(self._root / FILE)
            mark = (facts.st_ino, facts.st_mtime_ns, facts.st_size)
        except FileNotFoundError:
            mark = (0, 0, 0)
        if mark != self._mark:
            access = read(self._root)
            self._access = replace(access, kept=access.kept or self._access.kept)
            self._mark = mark
        return self._access


# -- what was done


def note(root: Path, actor: Actor, facts: Mapping[str, Any]) -> None:
    """Write down what somebody changed, or was refused. Raises StoreUnavailable: what cannot be written down is not done."""
    record = {"t": _now(), "actor": actor.name, "channel": actor.channel, "identity": actor.identity, **facts}
    line = orjson.dumps(record) + b"\n"
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        fd = os.open(root / AUDIT, flags, 0o600)
        try:
            if os.write(fd, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if os.geteuid() == 0:
                os.fchown(fd, os.stat(root).st_uid, -1)
        finally:
            os.close(fd)
    except OSError as error:
        raise StoreUnavailable(
            f"{root / AUDIT} cannot be written ({error.strerror}), so nothing was changed."
        ) from None


# -- changes


def add_user(root: Path, name: str, grants: Sequence[Grant]) -> User:
    """Make a user. Raises BadInput for a name that cannot be used or is taken."""
    if not _USER.fullmatch(name):
        raise BadInput(f"'{name}' is no name for a user: up to 64 letters, digits and . _ @ -.")

    def change(access: Access) -> tuple[Access, User]:
        if name in access.users:
            raise BadInput(f"There is a user {name} already. `mltrack auth role grant` gives more roles.")
        user = User(name, tuple(grants))
        return replace(access, users={**access.users, name: user}), user

    may = ", ".join(f"{each.role} on {each.on}" for each in grants)
    return _change(root, f"made the user {name} ({may or 'nothing'})", change)


def remove_user(root: Path, name: str) -> None:
    """Remove a user and all their tokens. Raises NotFound."""

    def change(access: Access) -> tuple[Access, None]:
        _known(access, name)
        users = {key: user for key, user in access.users.items() if key != name}
        tokens = {key: token for key, token in access.tokens.items() if token.user != name}
        return replace(access, users=users, tokens=tokens), None

    _change(root, f"removed the user {name}", change)


def grant(root: Path, name: str, role: str, on: Scope) -> User:
    """Give a user a role, in place of another one there. Raises NotFound."""
    return _regrant(
        root,
        name,
        f"made {name} {role} on {on}",
        lambda grants: [*(each for each in grants if each.on != on), Grant(role, on)],
    )


def ungrant(root: Path, name: str, on: Scope) -> User:
    """Take a user's role there away. Raises NotFound when they have none."""

    def change(grants: Iterable[Grant]) -> list[Grant]:
        before = list(grants)
        kept = [each for each in before if each.on != on]
        if len(kept) == len(before):
            raise NotFound(f"{name} has no role on {on} that could be taken away.")
        return kept

    return _regrant(root, name, f"took the role of {name} on {on}", change)


def _regrant(root: Path, name: str, action: str, regrant: Callable[[Iterable[Grant]], list[Grant]]) -> User:
    def change(access: Access) -> tuple[Access, User]:
        user = replace(_known(access, name), grants=tuple(regrant(access.users[name].grants)))
        return replace(access, users={**access.users, name: user}), user

    return _change(root, action, change)


def create_token(root: Path, name: str, label: str = "", days: float | None = None) -> tuple[Token, str]:
    """A new token and its secret, which is nowhere to be read again. Raises NotFound."""

    def change(access: Access) -> tuple[Access, tuple[Token, str]]:
        _known(access, name)
        key, now = random_hex(8), _now()
        secret = f"mlt_{key}_{secrets.token_urlsafe(32)}"
        expires = now + int(days * 86_400_000) if days is not None else 0
        token = Token(key, name, label, _digest(secret), now, expires)
        return replace(access, tokens={**access.tokens, key: token}), (token, secret)

    return _change(root, f"made a token of {name}", change)


def revoke_token(root: Path, key: str) -> Token:
    """A token counts no more. Raises NotFound."""

    def change(access: Access) -> tuple[Access, Token]:
        if key not in access.tokens:
            raise NotFound(f"There is no token {key}. `mltrack auth token list` lists them.")
        token = replace(access.tokens[key], revoked_ms=access.tokens[key].revoked_ms or _now())
        return replace(access, tokens={**access.tokens, key: token}), token

    return _change(root, f"revoked the token {key}", change)


def _known(access: Access, name: str) -> User:
    if name not in access.users:
        raise NotFound(f"There is no user {name}. `mltrack auth users` lists them.")
    return access.users[name]


def _change(root: Path, action: str, change: Callable[[Access], tuple[Access, _Result]]) -> _Result:
    with file_lock(root, "access"):
        access, result = change(read(root))
        note(root, Actor(host.user(), "cli", "kernel"), {"action": action})
        body = orjson.dumps(_to_json(access), option=orjson.OPT_INDENT_2)
        part = root / f".{FILE}.{random_hex(12)}.part"
        try:
            with os.fdopen(
                os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb"
            ) as file:
                file.write(body)
                if os.geteuid() == 0:
                    os.fchown(
                        file.fileno(), os.stat(root).st_uid, -1
                    )  # the server may run as the store's owner
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, root / FILE)
        except OSError as error:
            raise StoreUnavailable(f"{root / FILE} cannot be written ({error.strerror}).") from error
        finally:
            part.unlink(missing_ok=True)
    return result


def _to_json(access: Access) -> dict[str, Any]:
    return {
        "version": 1,
        "users": {
            user.name: [{"role": grant.role, "on": str(grant.on)} for grant in user.grants]
            for user in access.users.values()
        },
        "tokens": [asdict(token) for token in access.tokens.values()],
    }


def _from_json(values: Any) -> Access:
    if values["version"] != 1:
        raise ValueError("written by a newer mltrack")
    users = {
        str(name): User(str(name), tuple(_grant(each) for each in grants))
        for name, grants in values["users"].items()
    }
    tokens = [Token(**each) for each in values["tokens"]]
    return Access(users, {token.id: token for token in tokens}, kept=True)


def _grant(values: Any) -> Grant:
    if values["role"] not in ROLES:
        raise ValueError(f"there is no role {values['role']!r}")
    try:
        return Grant(values["role"], scope_of(values["on"]))
    except BadInput as error:
        raise ValueError(error.message) from None


def _digest(text: str) -> str:
    # The secret is 256 random bits: a slow hash would protect it no better.
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _now() -> int:
    return time.time_ns() // 1_000_000

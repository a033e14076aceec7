"""Who asks, and whether they may: it stands in front of every route, and what it does not know it refuses."""

from __future__ import annotations

import grp
import hmac
import os
import pwd
import time
from base64 import b64decode
from binascii import Error as Base64Error
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from starlette.requests import Request

from mltrack.store.access import MANAGER, Access, Grant, Reader, Scope, User, note
from mltrack.store.client import host
from mltrack.store.client.journal import share_mode
from mltrack.store.identity import ROLES, STORE
from mltrack.store.mlflow_api.api import Answer, Api
from mltrack.store.mlflow_api.permissions import NEEDS, Need, file_need
from mltrack.store.mlflow_api.wire import ApiError, Fields
from mltrack.store.records import Actor
from mltrack.store.sharing import user_name

LOOPBACK = ("127.0.0.1", "localhost", "::1")
PEER = "unix-user:"
"""How the server's protocol writes the kernel's word on who is at the other end of a Unix socket into a request."""
# A token cannot be guessed; who keeps trying only takes time from others.
FAILURES = 600
FAILURE_SECONDS = 60.0
_REMEMBERED = 10_000
# One line says who writes to a run; the points themselves are in its journal.
_LOGGING = frozenset(
    f"runs/{name}" for name in "log-metric log-parameter log-batch log-inputs outputs".split()
)


@dataclass(frozen=True, slots=True)
class Rules:
    """Who may ask. ``token``: everybody must show it, or one of a user's. ``hosts``: names the server may be called by, beside
    loopback. ``rate``: requests per second of one user, with as many at once as ten seconds allow; 0 for any number.
    ``file_bytes``: the largest file that is taken, 0 for any. ``for_one_job``: the store's users do not matter, only the
    token, where there is one."""

    token: str = ""
    hosts: frozenset[str] = frozenset()
    socket: bool = False
    rate: float = 0.0
    file_bytes: int = 0
    for_one_job: bool = False


@dataclass(frozen=True, slots=True)
class Asker:
    """Who sends a request, how that is known, and what they may do."""

    user: User
    identity: str

    @property
    def actor(self) -> Actor:
        """Who decides, for the store."""
        return Actor(self.user.name, "rest", self.identity)

    @property
    def known_name(self) -> str:
        """Their name where it is known for certain, else ""."""
        return self.user.name if self.identity != "claimed" else ""

    def told(self) -> Answer:
        """Who they are here, and their roles."""
        roles = [{"role": grant.role, "on": str(grant.on)} for grant in self.user.grants]
        return {"user": self.user.name, "identity": self.identity, "roles": roles}


class Guard:
    """Lets requests pass, or raises the error they are answered with."""

    def __init__(self, api: Api, rules: Rules) -> None:
        self._api = api
        self._rules = rules
        self._root = api.store.root
        self._reader = Reader(self._root)
        self._budgets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._failures: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._logging: OrderedDict[tuple[str, str], None] = OrderedDict()

    # -- who

    def identify(self, request: Request) -> Asker:
        """Who asks. Nothing else is read of a request before this. Raises ApiError."""
        self._check_site(request)
        access = self._reader.now()
        where = request.client.host if request.client is not None else ""
        asker = self._asker(request, access, where)
        if asker is None:
            if not _within(self._failures, where, FAILURES / FAILURE_SECONDS, FAILURES):
                raise ApiError(
                    "REQUEST_LIMIT_EXCEEDED", "Too many requests without a valid token; wait a minute."
                )
            raise ApiError(
                "UNAUTHENTICATED",
                "This server wants a token: set MLFLOW_TRACKING_TOKEN to one of yours. `mltrack auth token create` makes"
                " them, on the server's machine.",
            )
        rate = self._rules.rate
        if rate and not _within(self._budgets, asker.user.name, rate, rate * 10):
            raise ApiError(
                "REQUEST_LIMIT_EXCEEDED", f"You may send {rate:g} requests per second here; go slower."
            )
        return asker

    def _check_site(self, request: Request) -> None:
        name = _host_of(request.headers.get("host", ""))
        if not self._rules.socket and name not in LOOPBACK and name not in self._rules.hosts:
            raise ApiError("PERMISSION_DENIED", f"This server is not called '{name[:80]}'.")
        origin = request.headers.get("origin")
        if origin is not None:
            name = urlsplit(origin).hostname or ""
            if name not in LOOPBACK and name not in self._rules.hosts:
                raise ApiError("PERMISSION_DENIED", "Requests of other web sites are not answered.")

    def _asker(self, request: Request, access: Access, where: str) -> Asker | None:
        shown = _shown(request.headers.get("authorization", ""))
        if self._rules.for_one_job and not self._rules.token:
            return _owner()
        if shown:
            user = None if self._rules.for_one_job else access.user_of(shown)
            if user is not None:
                return Asker(user, "token")
            own = self._rules.token
            # The server's own token says that somebody may, but not who it is.
            return _owner() if own and hmac.compare_digest(shown.encode(), own.encode()) else None
        if where.startswith(PEER):
            return self._peer(int(where.removeprefix(PEER)), access)
        # Without users and without a token everybody who reaches a server on loopback may do everything.
        return None if self._rules.token or access.kept else _owner()

    def _peer(self, uid: int, access: Access) -> Asker | None:
        """Who is at the other end of the Unix socket, by the kernel."""
        name = user_name(uid)
        if uid in (0, os.geteuid()):
            return Asker(_all_rights(name), "kernel")
        if access.kept:
            user = access.users.get(name)
            return Asker(user, "kernel") if user is not None else None
        # Who may write the store's files may as well ask its server.
        return Asker(_all_rights(name), "kernel") if _in_group(uid, self._root) else None

    # -- whether

    def permit(self, asker: Asker, method: str, path: str, fields: Fields) -> Need:
        """Whether they may do that: raises ApiError when not. ``path`` as the table of routes has it."""
        need = NEEDS.get((method, path))
        if need is None:
            self._need(asker, MANAGER, Scope(STORE), f"{method} {path}")
            return Need(lambda api, fields: iter(()), method != "GET")
        scopes = list(need.named(self._api, fields))
        for role, scope in scopes:
            self._need(asker, role, scope, path)
        if need.changes:
            self._note_change(asker, method, path, [scope for _, scope in scopes], fields)
        return need

    def permit_file(self, asker: Asker, method: str, path: str) -> None:
        """Whether they may read or change a file."""
        role, scope = file_need(self._api, method, path)
        self._need(asker, role, scope, f"{method} {path}")
        if role != "viewer":
            self._note(asker, {"action": f"{method} file", "on": str(scope), "path": path[:1000]})

    def permit_journal(self, asker: Asker, method: str, call: str, path: str) -> None:
        """Whether they may send journals, or ask what is here of them. A journal says itself which experiment it belongs to,
        at any place in it, so only a role on the whole store is enough."""
        self._need(asker, "viewer" if method == "GET" else "editor", Scope(STORE), f"journals/{call}")
        if call in ("append", "file"):
            run_id = next((part for part in path.split("/") if len(part) == 32), path[:100])
            self._note_logging(asker, run_id, {"action": "journals", "run_id": run_id})

    def _need(self, asker: Asker, role: str, scope: Scope, what: str) -> None:
        has = asker.user.role_on(scope)
        if has and ROLES.index(has) >= ROLES.index(role):
            return
        self._note(asker, {"action": what[:300], "on": str(scope)[:300], "refused": True})
        is_now = f"are {has} of" if has else "have no role on"
        raise ApiError(
            "PERMISSION_DENIED",
            f"{asker.user.name}, you {is_now} {str(scope)[:200]}; this needs {role}. Whoever runs the server gives roles:"
            f" mltrack auth role grant {asker.user.name} {role} --on {str(scope)[:200]}",
        )

    def only_seen(self, asker: Asker, need: Need, answer: Answer) -> Answer:
        """An answer without what the asker may not see."""
        if need.listed is None:
            return answer
        field, called = need.listed
        kept = [entry for entry in answer.get(field, ()) if asker.user.role_on(called(entry))]
        return {
            **{name: value for name, value in answer.items() if name != field},
            **({field: kept} if kept else {}),
        }

    async def measured(self, request: Request) -> AsyncIterator[bytes]:
        """The body of an upload, refused when it is larger than allowed."""
        most, size = self._rules.file_bytes, 0
        declared = request.headers.get("content-length", "")
        if most and declared.isdigit() and int(declared) > most:
            raise ApiError("REQUEST_TOO_LARGE", f"A file may have {most:,} bytes here.")
        async for chunk in request.stream():
            size += len(chunk)
            if most and size > most:
                raise ApiError("REQUEST_TOO_LARGE", f"A file may have {most:,} bytes here.")
            yield chunk

    # -- what was done

    def _note_change(self, asker: Asker, method: str, path: str, scopes: list[Scope], fields: Fields) -> None:
        run_id = fields.text("run_id") or fields.text("run_uuid")
        named = {
            name: fields.text(name)[:300]
            for name in (
                "run_id",
                "experiment_id",
                "name",
                "new_name",
                "version",
                "stage",
                "alias",
                "key",
                "model_id",
            )
            if isinstance(fields.values.get(name), (str, list)) and fields.text(name)
        }
        on = sorted({str(scope)[:300] for scope in scopes})
        if path in _LOGGING:
            self._note_logging(asker, run_id, {"action": "runs/log", "on": on, "run_id": run_id})
        else:
            self._note(asker, {"action": path, "method": method, "on": on, **named})

    def _note_logging(self, asker: Asker, run_id: str, facts: Answer) -> None:
        """Once for each user and run."""
        key = (asker.user.name, run_id)
        if key not in self._logging:
            self._note(asker, facts)
            self._logging[key] = None
            while len(self._logging) > _REMEMBERED:
                self._logging.popitem(last=False)

    def _note(self, asker: Asker, facts: Answer) -> None:
        note(self._root, asker.actor, facts)


def _owner() -> Asker:
    return Asker(_all_rights(host.user()), "claimed")


def _all_rights(name: str) -> User:
    return User(name, (Grant(MANAGER, Scope(STORE)),))


def _in_group(uid: int, root: Path) -> bool:
    """Whether a Unix user is in the group that the store at ``root`` is shared with."""
    if share_mode(root) == 0o600:
        return False
    with suppress(KeyError, OSError):
        gid = os.stat(root).st_gid
        entry = pwd.getpwuid(uid)
        return (
            gid in os.getgrouplist(entry.pw_name, entry.pw_gid) or entry.pw_name in grp.getgrgid(gid).gr_mem
        )
    return False


def _within(kept: OrderedDict[str, tuple[float, float]], key: str, rate: float, most: float) -> bool:
    """Whether one more is within ``rate`` per second, ``most`` at once."""
    now = time.monotonic()
    left, at = kept.pop(key, (most, now))
    left = min(most, left + (now - at) * rate)
    kept[key] = (max(0.0, left - 1), now)
    while len(kept) > _REMEMBERED:
        kept.popitem(last=False)
    return left >= 1


def _host_of(header: str) -> str:
    """The name in a Host header, without its port."""
    if header.startswith("["):
        name, _, rest = header[1:].partition("]")
        return name.lower() if not rest or rest.startswith(":") else header.lower()
    return header.rpartition(":")[0].lower() if header.count(":") == 1 else header.lower()


def _shown(header: str) -> str:
    """The token that an Authorization header carries, as bearer or as the password of Basic. "" without a header, a text that
    is no token when it carries none."""
    if not header:
        return ""
    scheme, _, value = header.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip() or "-"
    if scheme.lower() != "basic":
        return "-"
    try:
        return b64decode(value.strip(), validate=True).decode("utf-8").partition(":")[2] or "-"
    except (Base64Error, UnicodeDecodeError, ValueError):
        return "-"

"""`mltrack auth`: who may use the store's server, and as what."""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mltrack.store.errors import BadInput
from mltrack.tui.cli.exit_codes import ExitCode
from mltrack.tui.cli.output import list_options, write_csv, write_json, write_lines, write_text
from mltrack.tui.cli.session import Session
from mltrack.tui.cli.table import Column, draw_table
from mltrack.tui.draw.times import format_timestamp

if TYPE_CHECKING:
    from mltrack.store.access import Scope

_ROLES = click.Choice(["viewer", "editor", "manager"])
_on = click.option(
    "--on",
    metavar="WHAT",
    default="store",
    show_default=True,
    help="store, experiment:NAME, experiment:FOLDER/ or model:NAME.",
)


@click.group("auth")
def auth_command() -> None:
    """Users of `mltrack server`, their roles and tokens.

    A viewer looks, an editor logs and changes, a manager also deletes for good, promotes and renames. As soon as there is one
    user, the server wants to know of everybody who they are. What one may do with the store's files on this machine is not
    its business: that is the file system's.
    """


@auth_command.group("users", invoke_without_command=True)
@list_options
@click.pass_context
def users_group(context: click.Context, as_json: bool, as_csv: bool, raw: bool) -> None:
    """List users, or add and remove them."""
    if context.invoked_subcommand is not None:
        return
    from mltrack.store.access import read

    access = read(_root(context.obj))
    now = _now()
    rows = [
        {
            "user": user.name,
            "roles": [f"{grant.role} on {grant.on}" for grant in user.grants],
            "tokens": sum(
                token.user == user.name and token.state(now) == "valid" for token in access.tokens.values()
            ),
        }
        for user in access.users.values()
    ]
    if as_json:
        write_json(rows)
    elif as_csv:
        write_csv(
            ["user", "roles", "tokens"],
            [[row["user"], "; ".join(_texts(row["roles"])), row["tokens"]] for row in rows],
            raw=raw,
        )
    elif not rows and access.kept:
        write_text(
            "No users any more: the server answers nobody. `mltrack auth users add NAME` makes one; without the file"
            " server.access.json it begins again with none, and is open.",
            context.obj.terminal,
        )
    elif not rows:
        write_text(
            "No users: whoever reaches the server may do everything. `mltrack auth users add NAME` makes one.",
            context.obj.terminal,
        )
    else:
        cells = [
            [str(row["user"]), "; ".join(_texts(row["roles"])) or "nothing", str(row["tokens"])]
            for row in rows
        ]
        _table(context.obj, ("USER", "MAY", "TOKENS"), cells)


@users_group.command("add")
@click.argument("name")
@click.option("--role", type=_ROLES, help="Their first role.")
@_on
@click.pass_obj
def add_command(session: Session, name: str, role: str | None, on: str) -> int:
    """Make a user. Over a Unix socket it is the Unix user of this name; everywhere else they show a token."""
    from mltrack.store.access import Grant, add_user, scope_of

    user = add_user(_root(session), name, () if role is None else (Grant(role, scope_of(on)),))
    may = f"{role} on {on}" if role else "nothing yet"
    write_text(f"Made the user {user.name}: {may}.", session.terminal)
    return ExitCode.OK


@users_group.command("remove")
@click.argument("name")
@click.pass_obj
def remove_command(session: Session, name: str) -> int:
    """Remove a user and all their tokens."""
    from mltrack.store.access import remove_user

    remove_user(_root(session), name)
    write_text(f"Removed the user {name}; their tokens count no more.", session.terminal)
    return ExitCode.OK


@auth_command.group("role")
def role_group() -> None:
    """Give roles and take them away."""


@role_group.command("grant")
@click.argument("name")
@click.argument("role", type=_ROLES)
@_on
@click.pass_obj
def grant_command(session: Session, name: str, role: str, on: str) -> int:
    """Give NAME a role, in place of the one they have there."""
    from mltrack.store.access import grant

    grant(_root(session), name, role, _scope(on))
    write_text(f"{name} is {role} on {on}.", session.terminal)
    return ExitCode.OK


@role_group.command("revoke")
@click.argument("name")
@_on
@click.pass_obj
def ungrant_command(session: Session, name: str, on: str) -> int:
    """Take the role of NAME there away."""
    from mltrack.store.access import ungrant

    ungrant(_root(session), name, _scope(on))
    write_text(f"{name} has no role on {on} any more.", session.terminal)
    return ExitCode.OK


@auth_command.group("token")
def token_group() -> None:
    """Create, list and revoke tokens."""


@token_group.command("create")
@click.argument("name")
@click.option("--label", default="", help="What it is for, like laptop or ci.")
@click.option("--days", type=click.FloatRange(min=0, min_open=True), help="Expires after so many days.")
@click.pass_obj
def create_command(session: Session, name: str, label: str, days: float | None) -> int:
    """Make a token for NAME and print it. Only its hash is kept: it is shown this once."""
    from mltrack.store.access import create_token

    _, secret = create_token(_root(session), name, label, days)
    # Alone on standard output, so that a script can take it; what it is for stands beside it.
    click.echo(f"Token of {name}; it is not shown again. Clients: export MLFLOW_TRACKING_TOKEN=...", err=True)
    click.echo(secret)
    return ExitCode.OK


@token_group.command("list")
@list_options
@click.pass_obj
def list_command(session: Session, as_json: bool, as_csv: bool, raw: bool) -> None:
    """List tokens, without their secrets."""
    from mltrack.store.access import read

    now = _now()
    rows = [
        {
            "id": token.id,
            "user": token.user,
            "label": token.label,
            "state": token.state(now),
            "created_ms": token.created_ms,
            "expires_ms": token.expires_ms or None,
        }
        for token in read(_root(session)).tokens.values()
    ]
    if as_json:
        write_json(rows)
    elif as_csv:
        write_csv(
            ["id", "user", "label", "state", "created_ms", "expires_ms"],
            [list(row.values()) for row in rows],
            raw=raw,
        )
    else:
        cells = [
            [
                str(row["id"]),
                str(row["user"]),
                str(row["label"]),
                str(row["state"]),
                _day(row["created_ms"]),
                _day(row["expires_ms"]),
            ]
            for row in rows
        ]
        _table(session, ("ID", "USER", "LABEL", "STATE", "CREATED", "EXPIRES"), cells)


@token_group.command("revoke")
@click.argument("token_id", metavar="ID")
@click.pass_obj
def revoke_command(session: Session, token_id: str) -> int:
    """A token counts no more, from the next request on."""
    from mltrack.store.access import revoke_token

    token = revoke_token(_root(session), token_id)
    write_text(f"Revoked the token {token.id} of {token.user}.", session.terminal)
    return ExitCode.OK


@auth_command.command("log")
@click.option("--last", "most", default=50, show_default=True, help="How many lines.")
@click.option("--user", help="Only what this user did.")
@click.pass_obj
def log_command(session: Session, most: int, user: str | None) -> int:
    """Print what was changed and refused through the server, one JSON object a line."""
    import orjson

    from mltrack.store.access import AUDIT
    from mltrack.tui.clean import clean

    lines: deque[str] = deque(maxlen=max(1, most))
    path = _root(session) / AUDIT
    if not path.exists():
        write_text("Nothing was changed through the server yet.", session.terminal)
        return ExitCode.OK
    with path.open("rb") as file:
        for line in file:
            try:
                record = orjson.loads(line)
            except orjson.JSONDecodeError:
                continue  # cut by a full disk: the change was refused
            if user is None or record.get("actor") == user:
                lines.append(line.decode("utf-8", "replace").rstrip("\n"))
    write_lines([clean(line, None) for line in lines])
    return ExitCode.OK


def _root(session: Session) -> Path:
    """The folder beside which users are kept: of PostgreSQL's stores the spool of whoever runs the server."""
    from mltrack.store.client.location import choose_store

    choice = choose_store(session.where)
    if choice.url.startswith(("http://", "https://")):
        raise BadInput("Users are made where the server runs: log in there, and name its store with --store.")
    if not choice.root.is_dir():
        raise BadInput(f"There is no store in {choice.url} yet. `mltrack init` makes one.")
    return choice.root


def _scope(text: str) -> Scope:
    from mltrack.store.access import scope_of

    return scope_of(text)


def _texts(values: object) -> list[str]:
    return [str(value) for value in values] if isinstance(values, list) else []


def _day(time_ms: object) -> str:
    return format_timestamp(time_ms) if isinstance(time_ms, int) else "-"


def _now() -> int:
    return time.time_ns() // 1_000_000


def _table(session: Session, headings: tuple[str, ...], rows: list[list[str]]) -> None:
    columns = [
        Column(heading, [row[place] for row in rows], weight=1, widest=80)
        for place, heading in enumerate(headings)
    ]
    write_lines(draw_table(columns, session.terminal))

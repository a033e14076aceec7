"""`mltrack models register promote rollback alias request approve reject delete policy describe tag`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from mltrack.store.errors import BadInput, NotFound
from mltrack.tui.cli.models_reference import expected_holder, split_reference, target_of
from mltrack.tui.cli.output import warn, write_json, write_text
from mltrack.tui.cli.session import Session
from mltrack.tui.cli.trash import ask_first

if TYPE_CHECKING:
    from mltrack.store.model_checks import Check
    from mltrack.store.records import Decision
    from mltrack.store.registry_reading import Request
    from mltrack.store.store import Store

_REASON = click.option("-m", "--reason", default="", metavar="TEXT", help="Why; it stays in the history.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_EXPECT = click.option(
    "--expect", metavar="VERSION|none", help="Only when this version holds it now; else say who was first."
)


@click.command("register")
@click.argument("source", metavar="PATH|MODEL_URI")
@click.option("--name", required=True, help="The model's name; it is made when there is none.")
@click.option("--about", "description", default="", help="Describe the version.")
@click.option("--tag", "tags", multiple=True, metavar="KEY=VALUE")
@_REASON
@_JSON
@click.pass_obj
def register_command(
    session: Session,
    source: str,
    name: str,
    description: str,
    tags: tuple[str, ...],
    reason: str,
    as_json: bool,
) -> None:
    """Register a model folder, runs:/ID/path or models:/NAME/3 as a new version."""
    pairs = {key: value for key, _, value in (tag.partition("=") for tag in tags)}
    with session.open() as store:
        version = store.registry.register_from(source, name, description, reason, pairs)
    _done(session, as_json, {"name": name, "version": version}, f"Registered {name} v{version}")


@click.command("promote")
@click.argument("version", metavar="NAME/VERSION")
@click.argument("target", metavar="STAGE|@ALIAS")
@click.option("--keep", is_flag=True, help="Leave the previous holder in the stage instead of archiving it.")
@click.option("--check/--no-check", default=True, help="Run the checks of the model's policy first [yes].")
@_EXPECT
@_REASON
@_JSON
@click.pass_obj
def promote_command(
    session: Session,
    version: str,
    target: str,
    keep: bool,
    check: bool,
    expect: str | None,
    reason: str,
    as_json: bool,
) -> None:
    """Move a version to a stage, or point an alias to it."""
    from mltrack.store.hooks import tell
    from mltrack.store.model_checks import require_passed

    wanted = target_of(target)
    with session.open() as store:
        found = split_reference(store, version)
        registry = store.registry
        before = registry.holder(found.name, wanted)
        checks = require_passed(store, found.name, found.version, wanted) if check else []
        # Nothing may have happened between looking and deciding.
        expected = before if expect is None else expected_holder(expect)
        if wanted.startswith("@"):
            alias = wanted[1:]
            decision = registry.set_alias(found.name, alias, found.version, reason, expected, checked=check)
        else:
            decision = registry.promote(
                found.name, found.version, wanted, reason, expected, not keep, checked=check
            )
    _warn_of(checks)
    _warn_of_trouble(decision)
    facts = {"name": found.name, "version": found.version, "target": wanted, "previous": before}
    for sentence in tell("promote", {**facts, "reason": reason}):
        warn(sentence)
    was = f", which v{before} held" if before not in (None, found.version) else ""
    _done(session, as_json, facts, f"{found.name} v{found.version} is {wanted} now{was}")


@click.command("rollback")
@click.argument("name")
@click.option(
    "--target", default="Production", metavar="STAGE|@ALIAS", help="What to roll back [Production]."
)
@click.option("--to", metavar="VERSION", help="To this version instead of the one before.")
@click.option("--no-verify", is_flag=True, help="Do not look at the files of the version first.")
@_REASON
@_JSON
@click.pass_obj
def rollback_command(
    session: Session, name: str, target: str, to: str | None, no_verify: bool, reason: str, as_json: bool
) -> None:
    """Give a stage or alias back to the version that held it before, after its files are verified."""
    from mltrack.store.hooks import tell

    wanted = target_of(target)
    with session.open() as store:
        before = store.registry.holder(name, wanted)
        chosen = _number(to) if to is not None else _guessed(store, name, wanted)
        decision = store.registry.rollback(name, wanted, chosen, reason, before, not no_verify)
        now = store.registry.holder(name, wanted) if chosen is None else chosen
    _warn_of_trouble(decision)
    facts = {"name": name, "version": now, "target": wanted, "previous": before}
    for sentence in tell("rollback", {**facts, "reason": reason}):
        warn(sentence)
    _done(session, as_json, facts, f"{name} is back at v{now} in {wanted}")


@click.command("alias")
@click.argument("name", metavar="NAME[/VERSION]")
@click.argument("alias")
@click.option("-d", "--delete", is_flag=True, help="Remove the alias.")
@_EXPECT
@_REASON
@_JSON
@click.pass_obj
def alias_command(
    session: Session, name: str, alias: str, delete: bool, expect: str | None, reason: str, as_json: bool
) -> None:
    """Point an alias to a version: `mltrack models alias churn/8 champion`. With --delete remove it: `alias churn champion -d`."""
    alias = alias.removeprefix("@")
    with session.open() as store:
        if delete:
            decision = store.registry.set_alias(name, alias, None, reason)
            facts: dict[str, Any] = {"name": name, "alias": alias, "version": None}
            said = f"{name}@{alias} is gone"
        else:
            found = split_reference(store, name)
            from mltrack.store.model_checks import require_passed

            require_passed(store, found.name, found.version, f"@{alias}")
            decision = store.registry.set_alias(
                found.name, alias, found.version, reason, expected_holder(expect), checked=True
            )
            facts = {"name": found.name, "alias": alias, "version": found.version}
            said = f"{found.name}@{alias} is v{found.version} now"
    _warn_of_trouble(decision)
    _done(session, as_json, facts, said)


@click.command("request")
@click.argument("version", metavar="NAME/VERSION")
@click.argument("target", metavar="STAGE|@ALIAS")
@_REASON
@_JSON
@click.pass_obj
def request_command(session: Session, version: str, target: str, reason: str, as_json: bool) -> None:
    """Ask somebody else for a promotion."""
    from mltrack.store.hooks import tell

    wanted = target_of(target)
    with session.open() as store:
        found = split_reference(store, version)
        decision = store.registry.request(found.name, found.version, wanted, reason)
    facts = {"id": decision.id, "name": found.name, "version": found.version, "target": wanted}
    for sentence in tell("request", {**facts, "reason": reason}):
        warn(sentence)
    _done(session, as_json, facts, decision.sentence)


@click.command("inbox")
@_JSON
@click.pass_obj
def inbox_command(session: Session, as_json: bool) -> None:
    """List requests that wait for an answer."""
    from mltrack.tui.cli.models import request_object, request_words

    with session.open() as store:
        requests = store.registry.requests()
    if as_json:
        write_json([request_object(request) for request in requests])
        return
    if not requests:
        write_text("Nobody waits for an answer.", session.terminal)
    for request in requests:
        write_text(f"{request.name} {request_words(request)}", session.terminal)


@click.command("approve")
@click.argument("version", metavar="NAME/VERSION")
@click.option("--target", metavar="STAGE|@ALIAS", help="Which request, where there are several.")
@_REASON
@_JSON
@click.pass_obj
def approve_command(session: Session, version: str, target: str | None, reason: str, as_json: bool) -> None:
    """Say yes to a request: that promotes."""
    from mltrack.store.hooks import tell
    from mltrack.store.model_checks import require_passed

    with session.open() as store:
        request = _open_request(store, version, target)
        checks = require_passed(store, request.name, request.version, request.target)
        decision = store.registry.answer(request.id, True, reason, checked=True)
    _warn_of(checks)
    facts = {"name": request.name, "version": request.version, "target": request.target}
    for sentence in tell("promote", {**facts, "reason": reason}):
        warn(sentence)
    _done(session, as_json, {**facts, "state": "approved"}, decision.sentence)


@click.command("reject")
@click.argument("version", metavar="NAME/VERSION")
@click.option("--target", metavar="STAGE|@ALIAS", help="Which request, where there are several.")
@_REASON
@_JSON
@click.pass_obj
def reject_command(session: Session, version: str, target: str | None, reason: str, as_json: bool) -> None:
    """Say no to a request."""
    with session.open() as store:
        request = _open_request(store, version, target)
        decision = store.registry.answer(request.id, False, reason)
    facts = {"name": request.name, "version": request.version, "target": request.target, "state": "rejected"}
    _done(session, as_json, facts, decision.sentence)


@click.command("delete")
@click.argument("name", metavar="NAME[/VERSION]")
@_REASON
@_JSON
@click.pass_obj
def delete_command(session: Session, name: str, reason: str, as_json: bool) -> None:
    """Delete a version, or a model with all its versions, that nothing points to. `mltrack undo` brings it back."""
    with session.open() as store:
        if "/" in name:
            found = split_reference(store, name)
            decision = store.registry.delete_version(found.name, found.version, reason)
            facts: dict[str, Any] = {"name": found.name, "version": found.version}
        else:
            decision = store.registry.delete_model(name)
            facts = {"name": name, "version": None}
    _done(session, as_json, facts, decision.sentence)


@click.command("policy")
@click.argument("name")
@click.argument("rules", nargs=-1, metavar="[RULE=VALUE]...")
@_REASON
@_JSON
@click.pass_obj
def policy_command(session: Session, name: str, rules: tuple[str, ...], reason: str, as_json: bool) -> None:
    """Show or change who may promote a model and what is checked: approvals=1 promoters=ann,bob signature=block goal=auc."""
    from dataclasses import asdict

    from mltrack.store.policy import change_policy

    with session.open() as store:
        policy = store.registry.model(name).policy
        for rule in rules:
            key, equals, value = rule.partition("=")
            if not equals:
                raise BadInput(f"'{rule}' is no rule; write RULE=VALUE.")
            policy = change_policy(policy, key, value)
        if rules:
            store.registry.set_policy(name, policy, reason)
    if as_json:
        write_json(asdict(policy))
        return
    for key, value in asdict(policy).items():
        write_text(f"{key:<10} {', '.join(value) if isinstance(value, tuple) else value}", session.terminal)


@click.command("describe")
@click.argument("name", metavar="NAME[/VERSION]")
@click.argument("text")
@click.pass_obj
def describe_command(session: Session, name: str, text: str) -> None:
    """Describe a model or a version."""
    with session.open() as store:
        if "/" in name:
            found = split_reference(store, name)
            decision = store.registry.describe(found.name, text, found.version)
        else:
            decision = store.registry.describe(name, text)
    write_text(decision.sentence, session.terminal)


@click.command("tag")
@click.argument("name", metavar="NAME[/VERSION]")
@click.argument("tag", metavar="KEY[=VALUE]")
@click.option("-d", "--delete", is_flag=True, help="Remove the tag.")
@click.pass_obj
def tag_command(session: Session, name: str, tag: str, delete: bool) -> None:
    """Tag a model or a version."""
    key, _, value = tag.partition("=")
    with session.open() as store:
        version = 0
        if "/" in name:
            found = split_reference(store, name)
            name, version = found.name, found.version
        decision = store.registry.set_tag(name, key, None if delete else value, version)
    write_text(decision.sentence, session.terminal)


def _open_request(store: Store, version: str, target: str | None) -> Request:
    found = split_reference(store, version)
    wanted = target_of(target) if target is not None else None
    open_ones = [
        request
        for request in store.registry.requests("open", found.name)
        if request.version == found.version and wanted in (None, request.target)
    ]
    if not open_ones:
        raise NotFound(
            f"Nobody asked for {found.name} v{found.version}. `mltrack models inbox` lists requests."
        )
    if len(open_ones) > 1:
        targets = ", ".join(request.target for request in open_ones)
        raise BadInput(f"{found.name} v{found.version} was asked for as {targets}: say which with --target.")
    return open_ones[0]


def _number(text: str) -> int:
    number = text.removeprefix("v")
    if not number.isdecimal():
        raise BadInput(f"'{text}' is no version.")
    return int(number)


def _guessed(store: Store, name: str, target: str) -> int | None:
    """Where nobody remembers who held it before: the version that it probably was, when whoever sits here agrees."""
    if store.registry.remembers:
        return None
    guess = store.registry.previous(name, target)
    if guess is None:
        return None  # refused in the registry's own words
    told = f"The server does not say who held {target} of {name} before; v{guess} was archived last."
    if not sys.stdin.isatty():
        raise BadInput(f"{told} Say which version it goes back to: --to {guess}")
    ask_first(f"{told} Go back to v{guess}?", yes=False)
    return guess


def _warn_of_trouble(decision: Decision) -> None:
    if decision.trouble:
        warn(decision.trouble)


def _warn_of(checks: list[Check]) -> None:
    for each in checks:
        if each.outcome == "warn":
            warn(f"{each.name}: {each.sentence}")


def _done(session: Session, as_json: bool, facts: dict[str, Any], sentence: str) -> None:
    if as_json:
        write_json(facts)
    else:
        write_text(sentence, session.terminal)


CHANGES = (
    register_command,
    promote_command,
    rollback_command,
    alias_command,
    request_command,
    inbox_command,
    approve_command,
    reject_command,
    delete_command,
    policy_command,
    describe_command,
    tag_command,
)

"""`mltrack models test` and `wait`: look at a version before it is promoted; go on when somebody has promoted."""

from __future__ import annotations

import time

import click

from mltrack.tui.cli.models_reference import split_reference, target_of
from mltrack.tui.cli.output import warn, write_json, write_lines, write_text
from mltrack.tui.cli.session import Session
from mltrack.tui.cli.table import Cell, Column, draw_table

_POLL_SECONDS = 0.5
LOOKS = {"pass": ("✓", "green"), "warn": ("!", "yellow"), "block": ("✗", "red"), "unknown": ("?", "dim")}


@click.command("test")
@click.argument("version", metavar="NAME/VERSION")
@click.option(
    "--target", default="Production", metavar="STAGE|@ALIAS", help="Compare with its holder [Production]."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def test_command(session: Session, version: str, target: str, as_json: bool) -> None:
    """Run all checks on a version: files, signature, example, metric, code, pickle. Exit code 1 when one would block."""
    from mltrack.store.model_checks import blocked, check

    with session.open() as store:
        found = split_reference(store, version)
        checks = check(store, found.name, found.version, target_of(target))
        stops = blocked(checks, store.registry.model(found.name).policy)
    if as_json:
        write_json([{"check": each.name, "outcome": each.outcome, "found": each.sentence} for each in checks])
    else:
        columns = [
            Column("", [Cell(*LOOKS[each.outcome]) for each in checks], weight=0),
            Column("", [each.name for each in checks], weight=0),
            Column("", [each.sentence for each in checks], weight=0, widest=200),
        ]
        write_lines(draw_table(columns, session.terminal, heading=False))
    if stops:
        raise click.exceptions.Exit(1)


@click.command("wait")
@click.argument("name")
@click.option("--stage", metavar="STAGE", help="Until a version holds this stage [Production].")
@click.option("--alias", metavar="ALIAS", help="Until a version holds this alias.")
@click.option("--version", "version", type=int, metavar="N", help="Until it is this version.")
@click.option("--change", is_flag=True, help="Until it is another one than now.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Give up after this long (exit code 1).",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def wait_command(
    session: Session,
    name: str,
    stage: str | None,
    alias: str | None,
    version: int | None,
    change: bool,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Wait until a version of a model holds a stage or alias."""
    target = f"@{alias.removeprefix('@')}" if alias is not None else target_of(stage or "Production")
    deadline = None if timeout is None else time.monotonic() + timeout
    with session.open() as store:
        first = store.registry.holder(name, target)
        while True:
            holder = store.registry.holder(name, target)
            reached = holder is not None and version in (None, holder) and not (change and holder == first)
            if reached:
                break
            if deadline is not None and time.monotonic() > deadline:
                warn(f"{target} of {name} is {f'v{holder}' if holder else 'nobody'} still")
                raise click.exceptions.Exit(1)
            time.sleep(_POLL_SECONDS)
    if as_json:
        write_json({"name": name, "version": holder, "target": target})
    else:
        write_text(f"{target} of {name} is v{holder}", session.terminal)


WAITS = (test_command, wait_command)

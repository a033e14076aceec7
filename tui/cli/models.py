"""`mltrack models`: what is registered, who holds which stage, what happened when."""

from __future__ import annotations

import datetime
import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from mltrack.store.errors import BadInput
from mltrack.tui.clean import clean
from mltrack.tui.cli.models_change import CHANGES
from mltrack.tui.cli.models_image import build_docker_command
from mltrack.tui.cli.models_reference import split_reference
from mltrack.tui.cli.models_wait import WAITS
from mltrack.tui.cli.output import list_options, write_csv, write_json, write_lines, write_text
from mltrack.tui.cli.run_look import now_ms
from mltrack.tui.cli.serve import serve_command
from mltrack.tui.cli.session import Session
from mltrack.tui.cli.table import Cell, Column, draw_table
from mltrack.tui.draw.numbers import format_bytes
from mltrack.tui.draw.times import format_age, format_moment

if TYPE_CHECKING:
    from mltrack.store.registry_reading import AuditRow, ModelVersion, Request, Serving, Standing
    from mltrack.store.store import Store


@click.group("models")
def models_command() -> None:
    """The registry of models: versions, stages, aliases, and who put what where.

    A version is written NAME/3, NAME/Production, NAME/latest or NAME@alias.
    """


@models_command.command("list")
@list_options
@click.pass_obj
def list_command(session: Session, as_json: bool, as_csv: bool, raw: bool) -> None:
    """List models: who is in production, what is served, what changed last."""
    with session.open(readonly=False) as store:
        standings = store.registry.standings()
    if as_json:
        write_json([standing_object(each) for each in standings])
        return
    if as_csv:
        objects = [standing_object(each) for each in standings]
        fields = ("name", "versions", "production", "staging")
        cells = ([_joined(found[name]) for name in fields] + [len(found["requests"])] for found in objects)
        write_csv([*fields, "requests"], cells, raw=raw)
        return
    now = now_ms()
    rows = [
        (
            each.name,
            held(each.production, now) or "none",
            " ".join(f"v{version.version}" for version in each.staging) or "-",
            served(each) or "-",
            f"{format_age((now - each.last.time_ms) / 1000)}  {change_words(each.last)}"
            if each.last
            else "-",
            f"{len(each.requests)}" if each.requests else "",
        )
        for each in standings
    ]
    heading = ["MODEL", "PRODUCTION", "STAGING", "SERVED NOW", "CHANGED", "ASKED"]
    if not rows:
        write_text("No model is registered. `mltrack models register` adds the first.", session.terminal)
        return
    weights = (0, 0, 2, 1, 3, 4)
    columns = [
        Column(name, [row[place] for row in rows], weight=weights[place])
        for place, name in enumerate(heading)
        if place != 5 or any(row[5] for row in rows)
    ]
    write_lines(draw_table(columns, session.terminal))


def _joined(value: object) -> object:
    return " ".join(map(str, value)) if isinstance(value, list) else value


@models_command.command("show")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def show_command(session: Session, name: str, as_json: bool) -> None:
    """Show a model and its versions, or one version: NAME, NAME/3, NAME@alias."""
    with session.open() as store:
        if "/" in name or "@" in name:
            version = store.registry.resolve(name)
            if as_json:
                write_json(version_object(version) | {"files": _files(store, version)})
            else:
                _print_version(session, store, version)
            return
        model = store.registry.model(name)
        versions = store.registry.versions(name)
        (standing,) = store.registry.standings(name)
    if as_json:
        write_json(
            {
                "name": name,
                "description": model.description,
                "tags": model.tags,
                "policy": model.policy.sentence(),
                "versions": [version_object(version) for version in versions],
                "requests": [request_object(request) for request in standing.requests],
                "served": [serving_object(each) for each in standing.serving],
            }
        )
        return
    say = session.terminal
    write_text(name, say, "bold")
    for label, text in (
        ("about", model.description),
        ("tags", "  ".join(f"{key}={value}" if value else key for key, value in model.tags.items())),
        ("policy", model.policy.sentence()),
        ("served", served(standing)),
    ):
        if text:
            write_text(f"{label:<8} {text}", say)
    for request in standing.requests:
        write_text(f"asked    {request_words(request)}", say, "yellow")
    write_text("", say)
    write_lines(draw_table(version_columns(versions, now_ms()), say))


@models_command.command("history")
@click.argument("name")
@click.option(
    "--at", metavar="DATE", help="What each version was at a moment: 2026-11-23 or 2026-11-23T10:02."
)
@list_options
@click.pass_obj
def history_command(
    session: Session, name: str, at: str | None, as_json: bool, as_csv: bool, raw: bool
) -> None:
    """Print what happened to a model, oldest first, or what it was at a date."""
    moment = parse_moment(at) if at is not None else None
    with session.open() as store:
        store.registry.model(name)
        if moment is not None:
            _print_past(session, store.registry.at(name, moment), as_json, as_csv, raw)
            return
        rows = store.registry.audit(name)
    _print_audit(session, rows, as_json, as_csv, raw)


@models_command.command("audit")
@click.option("--verify", is_flag=True, help="Check the chain of hashes; exit code 1 when it is broken.")
@click.option("--html", "as_html", is_flag=True, help="Print a page for people without a terminal.")
@click.option("--head", is_flag=True, help="Print the newest hash: kept elsewhere, it proves what was here.")
@list_options
@click.pass_obj
def audit_command(
    session: Session, verify: bool, as_html: bool, head: bool, as_json: bool, as_csv: bool, raw: bool
) -> None:
    """Print all changes of the registry, or check that none was altered."""
    with session.open() as store:
        rows = store.registry.audit()
        broken = store.registry.verify_audit() if verify or as_html or head else None
    if head:
        if broken is None:
            write_text(f"{len(rows)} {rows[-1].hash if rows else '-'}", session.terminal)
            return
        verify = True
    if verify:
        if as_json:
            write_json({"valid": broken is None, "rows": len(rows), "broken_at": broken})
        elif broken is None:
            write_text(f"The chain of {len(rows):,} changes holds.", session.terminal, "green")
        else:
            write_text(f"The chain is broken at change {broken:,} of {len(rows):,}.", session.terminal, "red")
        if broken is not None:
            raise click.exceptions.Exit(1)
    elif as_html:
        click.echo(_html(rows, broken))
    else:
        _print_audit(session, rows, as_json, as_csv, raw)


@models_command.command("diff")
@click.argument("one")
@click.argument("other")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def diff_command(session: Session, one: str, other: str, as_json: bool) -> None:
    """Say how two versions differ: signature, metrics, params, code, files."""
    from mltrack.tui.cli.models_diff import differences

    with session.open() as store:
        first, second = split_reference(store, one), split_reference(store, other)
        rows = differences(store, first, second)
    if as_json:
        write_json([{"section": row[0], "key": row[1], "values": row[2:]} for row in rows])
        return
    heading = ("", "", f"v{first.version}", f"v{second.version}")
    columns = [
        Column(heading[place], [row[place] for row in rows], weight=(0, 0, 1, 1)[place], widest=60)
        for place in range(4)
    ]
    write_lines(draw_table(columns, session.terminal))


for command in (*CHANGES, *WAITS, serve_command, build_docker_command):
    models_command.add_command(command)


# -- words and objects that other screens use too


def held(versions: Sequence[ModelVersion], now: int) -> str:
    """The holders of a stage: `v7  41d  bob`."""
    return "  ".join(
        f"v{each.version}  {format_age((now - each.staged_ms) / 1000)}  {each.staged_by}".rstrip()
        for each in versions
    )


def served(standing: Standing) -> str:
    """What is served now, and whether that is what is in production."""
    holders = {version.version for version in standing.production}
    parts: list[str] = []
    for each in standing.serving:
        if not each.follows:
            state = ""
        elif each.follows == "Production":
            state = " ✓" if each.version in holders else " ! behind"
        else:
            state = f" {each.follows}"
        part = f"v{each.version}{state}"
        if part not in parts:
            parts.append(part)
    return "  ".join(parts)


def change_words(row: AuditRow) -> str:
    """A change in a few words: `v8 -> Production`."""
    version = f"v{row.version} " if row.version else ""
    if row.action in ("stage", "asked", "approved", "rejected", "withdrawn"):
        return f"{'' if row.action == 'stage' else row.action + ' '}{version}-> {row.new_value}"
    if row.action == "rolled back":
        return f"rolled back to v{row.version} in {row.new_value}"
    if "alias " in row.action:
        before, alias = row.action.split("alias ", 1)
        return f"{before}@{alias} {f'v{row.old_value} ' if row.old_value else ''}-> {f'v{row.new_value}' if row.new_value else 'nothing'}"
    return f"{version}{row.action}"


def request_words(request: Request) -> str:
    """Who wants what, and why."""
    why = f"  “{request.reason}”" if request.reason else ""
    return (
        f"v{request.version} -> {request.target}  by {request.actor}  {format_moment(request.time_ms)}{why}"
    )


def version_columns(versions: Sequence[ModelVersion], now: int) -> list[Column]:
    """The table of a model's versions."""
    return [
        Column("VERSION", [f"v{each.version}" for each in versions], weight=0),
        Column(
            "STAGE",
            [Cell(each.stage, "green" if each.stage == "Production" else None) for each in versions],
            weight=0,
        ),
        Column("ALIASES", [" ".join(f"@{alias}" for alias in each.aliases) for each in versions], weight=1),
        Column("BY", [each.actor for each in versions], weight=2),
        Column(
            "AGE", [format_age((now - each.created_ms) / 1000) for each in versions], align="right", weight=2
        ),
        Column("SOURCE", [each.source for each in versions], weight=3, widest=60),
        Column("ABOUT", [each.description.partition("\n")[0] for each in versions], weight=4),
    ]


def version_object(version: ModelVersion) -> dict[str, Any]:
    """A version for JSON; times in ms since 1970."""
    return {
        "name": version.name,
        "version": version.version,
        "stage": version.stage,
        "aliases": list(version.aliases),
        "source": version.source,
        "run_id": version.run_id,
        "description": version.description,
        "tags": version.tags,
        "user": version.actor,
        "created": version.created_ms,
        "staged": version.staged_ms,
        "staged_by": version.staged_by,
    }


def request_object(request: Request) -> dict[str, Any]:
    """A request for JSON."""
    return {
        "id": request.id,
        "name": request.name,
        "version": request.version,
        "target": request.target,
        "user": request.actor,
        "reason": request.reason,
        "time": request.time_ms,
        "state": request.state,
    }


def serving_object(serving: Serving) -> dict[str, Any]:
    """A serving process for JSON."""
    return {"version": serving.version, "follows": serving.follows, "run_id": serving.run_id}


def standing_object(standing: Standing) -> dict[str, Any]:
    """A model at a glance for JSON."""
    return {
        "name": standing.name,
        "versions": standing.versions,
        "production": [version.version for version in standing.production],
        "staging": [version.version for version in standing.staging],
        "served": [serving_object(each) for each in standing.serving],
        "requests": [request_object(request) for request in standing.requests],
        "changed": standing.last.time_ms if standing.last else None,
    }


def audit_object(row: AuditRow) -> dict[str, Any]:
    """A change for JSON."""
    return {
        "time": row.time_ms,
        "user": row.actor,
        "name": row.name,
        "version": row.version,
        "action": row.action,
        "from": row.old_value,
        "to": row.new_value,
        "reason": row.reason,
        "channel": row.channel,
        "identity": row.identity,
        "hash": row.hash,
    }


def parse_moment(text: str) -> int:
    """Ms since 1970 of an ISO date or time; without a zone it is the local one. A date means its end."""
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise BadInput(f"'{text}' is no date; write 2026-11-23 or 2026-11-23T10:02.") from None
    if len(text) <= 10:
        moment += datetime.timedelta(days=1, milliseconds=-1)
    return int(moment.timestamp() * 1000)


def _print_past(
    session: Session,
    past: Mapping[int, tuple[str, tuple[str, ...]]],
    as_json: bool,
    as_csv: bool,
    raw: bool,
) -> None:
    found = sorted(past.items(), reverse=True)
    if as_json:
        write_json(
            [
                {"version": version, "stage": stage, "aliases": list(aliases)}
                for version, (stage, aliases) in found
            ]
        )
        return
    rows = [
        (f"v{version}", stage, " ".join(f"@{alias}" for alias in aliases))
        for version, (stage, aliases) in found
    ]
    heading = ("VERSION", "STAGE", "ALIASES")
    if as_csv:
        write_csv([name.lower() for name in heading], rows, raw=raw)
    elif not rows:
        write_text("It had no versions then.", session.terminal)
    else:
        columns = [Column(name, [row[place] for row in rows], weight=0) for place, name in enumerate(heading)]
        write_lines(draw_table(columns, session.terminal))


def _print_audit(session: Session, rows: Sequence[AuditRow], as_json: bool, as_csv: bool, raw: bool) -> None:
    if as_json:
        write_json([audit_object(row) for row in rows])
        return
    objects = [audit_object(row) for row in rows]
    if as_csv:
        heading = list(objects[0]) if objects else ["time"]
        write_csv(heading, [list(each.values()) for each in objects], raw=raw)
        return
    via = [f"{row.channel}{'' if row.identity == 'kernel' else f' ({row.identity})'}" for row in rows]
    columns = [
        Column("WHEN", [format_moment(row.time_ms) for row in rows], weight=0),
        Column("WHO", [row.actor for row in rows], weight=0),
        Column("MODEL", [row.name for row in rows], weight=1),
        Column("WHAT", [change_words(row) for row in rows], weight=0, widest=60),
        Column("WHY", [row.reason for row in rows], weight=2, widest=60),
        Column("VIA", via, weight=3),
    ]
    write_lines(draw_table(columns, session.terminal))


def _print_version(session: Session, store: Store, version: ModelVersion) -> None:
    from mltrack.store.errors import MltrackError
    from mltrack.store.mlmodel import pickles, read_mlmodel

    say = session.terminal
    write_text(f"{version.name} v{version.version}   {version.stage}", say, "bold")
    rows: list[tuple[str, str]] = [
        ("aliases", " ".join(f"@{alias}" for alias in version.aliases)),
        ("about", version.description),
        ("tags", "  ".join(f"{key}={value}" if value else key for key, value in version.tags.items())),
        ("by", f"{version.actor}  {format_moment(version.created_ms)}"),
        ("source", version.source),
        ("run", version.run_id),
    ]
    try:
        folder = store.registry.folder(version)
        model = read_mlmodel(folder)
        rows.append(("flavor", model.main_flavor))
        for part in ("inputs", "outputs", "params"):
            fields = getattr(model.signature, part) if model.signature else None
            if fields:
                rows.append((part, ", ".join(field.sentence() for field in fields)))
        rows.append(("example", model.example))
        found = pickles(folder)
        rows.append(("pickle", f"{', '.join(found)}: runs code when loaded" if found else ""))
    except MltrackError as error:
        rows.append(("trouble", error.message))
    files = store.registry.files(version.name, version.version) or []
    rows += [
        ("file" if not place else "", f"{path}  {format_bytes(int(size))}")
        for place, (path, size, _) in enumerate(files)
    ]
    for label, text in rows:
        if text:
            write_text(f"{label:<8} {text}", say)


def _files(store: Store, version: ModelVersion) -> list[dict[str, Any]] | None:
    files = store.registry.files(version.name, version.version)
    if files is None:
        return None
    return [{"path": path, "size": size, "sha256": digest} for path, size, digest in files]


def _html(rows: Sequence[AuditRow], broken: int | None) -> str:
    """A page of its own: no script, nothing loaded from elsewhere."""
    heading = ("When (UTC)", "Who", "Via", "Model", "What", "Why", "Hash")
    cells = [
        (
            datetime.datetime.fromtimestamp(row.time_ms / 1000, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S"),
            row.actor,
            f"{row.channel} {row.identity}",
            row.name,
            change_words(row),
            row.reason,
            row.hash[:16],
        )
        for row in rows
    ]

    def line(values: Sequence[str], tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{html.escape(clean(value, None))}</{tag}>' for value in values)}</tr>"

    state = (
        f"The chain of {len(rows):,} changes holds."
        if broken is None
        else f"The chain is broken at change {broken:,}."
    )
    body = "\n".join(line(each, "td") for each in cells)
    style = "body{font-family:sans-serif}td,th{text-align:left;padding:2px 10px;border-bottom:1px solid #ccc}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Registry of models: audit</title>'
        f"<style>{style}</style></head><body><h1>Registry of models: audit</h1><p>{state}</p>"
        f"<table>{line(heading, 'th')}\n{body}</table></body></html>"
    )

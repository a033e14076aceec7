"""`mltrack where` and `mltrack config`: which store, which settings, and why."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from mltrack.store.errors import BadInput, MltrackError
from mltrack.tui.cli.output import list_options, write_csv, write_json, write_lines, write_text
from mltrack.tui.cli.session import Session
from mltrack.tui.cli.table import Cell, Column, draw_table
from mltrack.tui.draw.numbers import format_bytes

if TYPE_CHECKING:
    from mltrack.store.store import Store

# Every environment variable that changes what the command or a logging script does.
SETTINGS: dict[str, tuple[str, str, str]] = {
    # name: (environment variable, default, meaning)
    "store": ("MLTRACK_STORE", "", "the store: a folder or a URL"),
    "experiment": ("MLTRACK_EXPERIMENT", "Default", "experiment of runs that name none"),
    "run_id": ("MLTRACK_RUN_ID", "", "the run to resume, set by launchers"),
    "spool": ("MLTRACK_SPOOL", "", "where journals wait when their store is away"),
    "database_folder": ("MLTRACK_DATABASE_FOLDER", "", "a folder of this machine for the store's database"),
    "console": ("MLTRACK_CONSOLE", "", "1: capture output on a terminal too; 0: never"),
    "facts": ("MLTRACK_FACTS", "1", "0: record no code, packages and GPUs"),
    "system_metrics": ("MLTRACK_SYSTEM_METRICS", "1", "0: no CPU, memory and GPU curves"),
    "site_file": ("MLTRACK_SITE_FILE", "/etc/mltrack/config.toml", "settings of everybody on this machine"),
    "pictures": ("MLTRACK_PICTURES", "", "how images are drawn: kitty, sixel or blocks"),
    "ssh_command": ("MLTRACK_SSH_COMMAND", "mltrack", "what is called on the other side of ssh://"),
    "slurm_seconds": ("MLTRACK_SLURM_SECONDS", "30", "how often the cluster is asked at most"),
    "ascii": ("MLTRACK_ASCII", "", "1: print ASCII only"),
    "colour": ("NO_COLOR", "", "set to anything: no colours"),
}


@click.command("where")
@list_options
@click.pass_obj
def where_command(session: Session, as_json: bool, as_csv: bool, raw: bool) -> None:
    """Say which store is used, and why."""
    from mltrack.store.client.location import choose_store

    choice = choose_store(session.where)
    rows: list[tuple[str, str]] = [("store", shown_url(choice.url)), ("chosen by", choice.chosen_by)]
    if choice.is_remote:
        rows.append(("spool", str(choice.root)))
    if not choice.is_remote and not choice.root.is_dir():
        rows.append(("state", "not there yet; the first run makes it"))
    else:
        try:
            with session.open(refresh=False) as store:
                location = store.location
                rows.append(("database", shown_url(location.database)))
                rows += [("note", note) for note in location.notes]
                rows.append(("runs", f"{store.search('', limit=1).total:,}"))
                rows += _artifacts(store)
        except MltrackError as error:
            rows.append(("trouble", error.message))
    if as_json:
        found: dict[str, object] = {name.replace(" ", "_"): value for name, value in rows if name != "note"}
        if "runs" in found:
            found["runs"] = int(str(found["runs"]).replace(",", ""))
        write_json(found | {"notes": [value for name, value in rows if name == "note"]})
    elif as_csv:
        write_csv(["what", "value"], rows, raw=raw)
    else:
        columns = [
            Column("", [Cell(name, "dim") for name, _ in rows], weight=0),
            Column("", [value for _, value in rows], weight=0, widest=200),
        ]
        write_lines(draw_table(columns, session.terminal, heading=False))


def _artifacts(store: Store) -> list[tuple[str, str]]:
    """Where files of runs go, and what is on its way."""
    from mltrack.store.client.destination import last_problem
    from mltrack.store.copies import destination
    from mltrack.store.upload import waiting

    chosen = destination(store.database, store.root)
    if not chosen.addresses():
        return []
    rows = [("artifacts", chosen.url or "stay here")]
    rows += [
        ("artifacts", f"{url or 'stay here'} (of {name})") for name, url in sorted(chosen.experiments.items())
    ]
    left = list(waiting(store.database, store.root, chosen))
    if left:
        size = format_bytes(sum(one.size for one in left))
        problem = last_problem(store.root)
        rows.append(("on their way", f"{len(left):,} files, {size}" + (f": {problem}" if problem else "")))
    return rows


@click.command("config")
@click.option("--why", "key", metavar="KEY", help="Say where the value of this setting comes from.")
@list_options
@click.pass_obj
def config_command(session: Session, key: str | None, as_json: bool, as_csv: bool, raw: bool) -> None:
    """Show settings and where they come from."""
    if key is not None:
        _explain(session, key)
        return
    rows = [(name, *_value(session, name), meaning) for name, (_, _, meaning) in SETTINGS.items()]
    if as_json:
        write_json(
            [
                {"key": name, "value": value, "from": origin, "meaning": meaning}
                for name, value, origin, meaning in rows
            ]
        )
    elif as_csv:
        write_csv(["key", "value", "from", "meaning"], rows, raw=raw)
    else:
        headings = ("SETTING", "VALUE", "FROM", "MEANING")
        # What a setting is for comes before where its value is from; `--why` has that whole.
        widest = (60, 60, 60, 60) if session.terminal.width >= 110 else (60, 20, 9, 60)
        columns = [
            Column(
                heading,
                [row[place].replace("the environment variable ", "") or "-" for row in rows],
                weight=(0, 3, 2, 1)[place],
                widest=widest[place],
            )
            for place, heading in enumerate(headings)
        ]
        write_lines(draw_table(columns, session.terminal))


def _explain(session: Session, key: str) -> None:
    from mltrack.store.client.location import choose_store, explain_choice

    if key not in SETTINGS:
        raise BadInput(f"There is no setting '{key}'; there are: {', '.join(SETTINGS)}.")
    if key != "store":
        variable, default, meaning = SETTINGS[key]
        value, origin = _value(session, key)
        write_text(f"{key} = {value or '(not set)'}   from {origin}   ({meaning})", session.terminal)
        write_text(
            f"Set {variable} in the environment to change it; the default is {default or 'empty'}.",
            session.terminal,
            "dim",
        )
        return
    chosen = choose_store(session.where)
    write_text(f"store = {shown_url(chosen.url)}   from {chosen.chosen_by}", session.terminal)
    candidates = explain_choice(session.where)
    marked = False
    marks: list[str] = []
    for _, value in candidates:
        marks.append(">" if value != "-" and not marked else "")
        marked = marked or value != "-"
    columns = [
        Column("", marks, weight=0),
        Column("", [Cell(name, "dim") for name, _ in candidates], weight=0),
        Column("", [shown_url(value) for _, value in candidates], weight=0, widest=200),
    ]
    write_text("The first of these that is set:", session.terminal)
    write_lines(draw_table(columns, session.terminal, heading=False))


def _value(session: Session, name: str) -> tuple[str, str]:
    if name == "store":
        from mltrack.store.client.location import choose_store

        choice = choose_store(session.where)
        return shown_url(choice.url), choice.chosen_by
    variable, default, _ = SETTINGS[name]
    value = os.environ.get(variable)
    return (value, variable) if value else (default, "default")


def shown_url(url: str) -> str:
    """A URL without user and password."""
    from mltrack.store.client.secrets import redact_url

    return redact_url(url) if "://" in url else url

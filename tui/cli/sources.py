"""`mltrack source`: data of other tools, followed where it lies."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from mltrack.tui.cli.output import list_options, warn, write_csv, write_json, write_lines, write_text
from mltrack.tui.cli.session import Session
from mltrack.tui.cli.table import Column, draw_table
from mltrack.tui.draw.numbers import format_bytes

if TYPE_CHECKING:
    from mltrack.store.records import FoldReport, SourceState
    from mltrack.store.store import Store

# A round of reading between two lines of progress.
_ROUND_SECONDS = 0.5
# Another machine that takes longer than this to hand over what it has is said to be at it.
_PATIENCE_SECONDS = 2.0
_DAMAGED_SHOWN = 20


@click.group("source")
def source_command() -> None:
    """Follow data of other tools where it lies: MLflow, TensorBoard and more. Nothing there is ever changed."""


@source_command.command("add")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.pass_obj
def add_command(session: Session, paths: tuple[str, ...]) -> None:
    """Follow what lies at PATH, or below it: a folder or database of a known tool, or a project's folder."""
    with session.open(refresh=False, create=True) as store:
        for path in paths:
            for place in sources_at(path):
                write_text(f"{store.add_source(place).sentence}.", session.terminal)
                report_reading(session, store, place)


@source_command.command("list")
@list_options
@click.pass_obj
def list_command(session: Session, as_json: bool, as_csv: bool, raw: bool) -> None:
    """List what is followed, with the number of runs and what is damaged."""
    with session.open() as store:
        found = store.sources()
    if as_json:
        write_json([_as_json(state) for state in found])
    elif as_csv:
        rows = [_as_json(state) for state in found]
        write_csv(list(rows[0]) if rows else ["path"], [list(row.values()) for row in rows], raw=raw)
    elif not found:
        write_text(
            "Nothing is followed. `mltrack source find` looks for data below this folder.", session.terminal
        )
    else:
        columns = [
            Column("PATH", [state.path for state in found], weight=0, widest=80, keep="tail"),
            Column("KIND", [state.title for state in found]),
            Column("RUNS", [f"{state.runs:,}" for state in found], align="right", weight=0),
            Column("STATE", [_state(state) for state in found], widest=60),
        ]
        write_lines(draw_table(columns, session.terminal))


@source_command.command("remove")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.pass_obj
def remove_command(session: Session, paths: tuple[str, ...]) -> None:
    """Follow PATH no longer and hide its runs. Nothing there is touched; `mltrack undo` brings them back."""
    with session.open(refresh=False) as store:
        for path in paths:
            write_text(f"{store.remove_source(path).sentence}.", session.terminal)


@source_command.command("find")
@click.argument("folder", default=".", type=click.Path(exists=True, file_okay=False))
@click.option("--new", is_flag=True, help="Only what is not followed yet.")
@list_options
@click.pass_obj
def find_command(session: Session, folder: str, new: bool, as_json: bool, as_csv: bool, raw: bool) -> None:
    """Look for data of known tools below FOLDER (four levels deep, two seconds long) and say what could be followed."""
    from mltrack.store.mlflow_api.background import addresses
    from mltrack.store.sources import reader_class
    from mltrack.store.sources.discovery import discover

    result = discover(folder)
    rows = list(result.found)
    if new and session.missing_store() is None:
        with session.open(refresh=False) as store:
            known = {state.path for state in store.sources()} | addresses(store.root)
            known.add(os.path.realpath(store.root))
        rows = [row for row in rows if row[0] not in known]
    if as_json:
        write_json(
            {
                "found": [
                    {"path": path, "kind": kind, "title": reader_class(kind).title} for path, kind in rows
                ],
                "folders": result.folders,
                "complete": result.complete,
                "refused": result.refused,
            }
        )
        return
    if as_csv:
        write_csv(["path", "kind"], rows, raw=raw)
        return
    if rows:
        columns = [
            Column("PATH", [path for path, _ in rows], weight=0, widest=100, keep="tail"),
            Column("KIND", [reader_class(kind).title for _, kind in rows]),
        ]
        write_lines(draw_table(columns, session.terminal))
    if result.refused:
        warn(result.refused)
    else:
        rest = "" if result.complete else "; there are more, which two seconds did not reach"
        write_text(f"{result.folders:,} folders read{rest}.", session.terminal)


def follow_paths(session: Session, paths: Sequence[str]) -> None:
    """Follow what lies at paths, unless that is so already."""
    with session.open(refresh=False, create=True) as store:
        known = {state.path for state in store.sources() if state.followed}
        for path in paths:
            for place in sources_at(path):
                if place not in known:
                    store.add_source(place)


def sources_at(path: str) -> list[str]:
    """The source at a path, or those that the search finds below it. Raises BadInput when there is none."""
    from mltrack.store.errors import BadInput
    from mltrack.store.sources import absolute, identify
    from mltrack.store.sources.discovery import discover

    try:
        return [identify(path)[0]]
    except BadInput:
        found = discover(absolute(path), environ={})
        if not found.found:
            raise
        return [place for place, _ in found.found]


def report_reading(session: Session, store: Store, path: str) -> None:
    """Read a source to its end, saying how it goes."""
    if path.startswith("ssh://"):
        from mltrack.store.sources.ssh_store import SshReader

        reader = SshReader(path)
        if not reader.await_first(_PATIENCE_SECONDS):
            write_text("Its journals are coming over ...", session.terminal, "dim")
            while not reader.await_first(_PATIENCE_SECONDS):
                pass
    records = points = 0
    reported: set[str] = set()
    while True:
        report = store.read_source(path, _ROUND_SECONDS)
        records, points = records + report.records, points + report.points
        _warn_damaged(report, reported)
        if report.folded_by_other:
            write_text(
                "Another process reads for this store right now; it takes everything in.", session.terminal
            )
            return
        if not report.waiting_runs:
            break
        if session.terminal.is_tty:
            write_text(f"{report.waiting_runs:,} runs to go", session.terminal, "dim")
    state = next(state for state in store.sources() if state.path == path)
    write_text(f"{state.runs:,} runs; {records:,} records, {points:,} points taken in.", session.terminal)


def _warn_damaged(report: FoldReport, reported: set[str]) -> None:
    for reason in report.damaged:
        if reason not in reported and len(reported) < _DAMAGED_SHOWN:
            warn(f"damaged: {reason}")
        reported.add(reason)


def _as_json(state: SourceState) -> dict[str, object]:
    return {
        "path": state.path,
        "kind": state.kind,
        "followed": state.followed,
        "runs": state.runs,
        "waiting": state.waiting,
        "damaged": state.damaged,
        "problem": state.problem or None,
    }


def _state(state: SourceState) -> str:
    parts: Sequence[str] = [
        state.problem,
        f"{state.damaged:,} damaged" if state.damaged else "",
        "" if state.followed else "read once",
    ]
    return ", ".join(part for part in parts if part) or "followed"


@click.command("import")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.pass_obj
def import_command(session: Session, paths: tuple[str, ...]) -> None:
    """Copy the runs of another tool into the store, files too. After that PATH may go; it is only read."""
    from mltrack.store.import_source import Imported, import_source

    shown = time.monotonic()

    def progress(so_far: Imported) -> None:
        nonlocal shown
        if session.terminal.is_tty and time.monotonic() - shown > _ROUND_SECONDS:
            shown = time.monotonic()
            write_text(f"{so_far.runs:,} runs so far", session.terminal, "dim")

    with session.open(refresh=False, create=True) as store:
        for path in paths:
            for place in sources_at(path):
                done = import_source(store, place, progress)
                size = format_bytes(done.bytes)
                known = f"; {done.known:,} were here already" if done.known else ""
                write_text(
                    f"{place}: {done.runs:,} runs, {done.points:,} points, {done.files:,} files ({size}) imported{known}.",
                    session.terminal,
                )
                for reason in done.left[:_DAMAGED_SHOWN]:
                    warn(reason)
                if len(done.left) > _DAMAGED_SHOWN:
                    warn(f"and {len(done.left) - _DAMAGED_SHOWN:,} more")

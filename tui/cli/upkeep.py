"""`mltrack fold sync backup doctor worker`: keeping a store current and sound."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mltrack.tui.cli.exit_codes import ExitCode
from mltrack.tui.cli.output import list_options, warn, write_csv, write_json, write_text
from mltrack.tui.cli.session import Session
from mltrack.tui.cli.terminal import pause
from mltrack.tui.draw.numbers import format_bytes

if TYPE_CHECKING:
    from mltrack.store.records import FoldReport

_WATCH_SECONDS = 1.0
_ROUND_SECONDS = 2.0
_DAMAGED_SHOWN = 20


@click.command("fold")
@click.option(
    "--all", "everything", is_flag=True, help="Look into every run folder, not only where a writer was noted."
)
@list_options
@click.pass_obj
def fold_command(session: Session, everything: bool, as_json: bool, as_csv: bool, raw: bool) -> int:
    """Take in everything that was logged."""
    from mltrack.store.audit_head import tell_head

    with session.open(refresh=False) as store:
        report = store.refresh(None, everything)
        troubles = tell_head(store)
    counts = {
        "records": report.records,
        "points": report.points,
        "skipped": report.skipped,
        "pending_bytes": report.pending_bytes,
        "waiting_runs": report.waiting_runs,
    }
    if as_json:
        write_json({**counts, "damaged": list(report.damaged), "folded_by_other": report.folded_by_other})
    elif as_csv:
        write_csv(list(counts), [list(counts.values())], raw=raw)
    else:
        _write_report(session, report)
    for trouble in troubles:
        warn(trouble)
    return ExitCode.OK


@click.command("sync")
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("--watch", is_flag=True, help="Go on taking in what comes, until Ctrl+C.")
@click.pass_obj
def sync_command(session: Session, paths: tuple[str, ...], watch: bool) -> None:
    """Take in what lies at PATH: journals (a spool, a run folder, another store) or data of another tool.

    Without PATH the spools of this user are taken. Doing it again takes only what is new. Data of other tools stays where it
    is and is not followed from now on; `mltrack source add` does that.
    """
    from mltrack.store.sync import journal_folders, sync
    from mltrack.tui.cli.sources import report_reading, sources_at

    places = list(paths) or [str(path) for path in _spools()]
    if not places:
        write_text("Nothing waits in a spool of yours.", session.terminal)
        return
    reads: list[Callable[[], FoldReport]] = []
    with session.open(refresh=False, create=True) as store:
        for place in places:
            write_text(f"{place}:", session.terminal)
            if Path(place).is_dir() and next(journal_folders(Path(place)), None) is not None:
                reads.append(partial(sync, store, Path(place)))
                _write_report(session, reads[-1]())
                continue
            for path in sources_at(place):
                if path not in {state.path for state in store.sources()}:
                    store.add_source(path, follow=False)
                reads.append(partial(store.read_source, path, _ROUND_SECONDS))
                report_reading(session, store, path)
        known: set[str] = set()
        while watch:
            sys.stdout.flush()
            pause(_WATCH_SECONDS)
            for read in reads:
                try:
                    report = read()
                except FileNotFoundError:
                    continue  # whoever copies to there has just replaced it
                if report.records or report.points:
                    _write_report(session, replace(report, damaged=tuple(set(report.damaged) - known)))
                    known.update(report.damaged)


@click.command("backup")
@click.argument("target", metavar="[FILE]", required=False, type=click.Path(path_type=Path))
@click.pass_obj
def backup_command(session: Session, target: Path | None) -> None:
    """Copy the store's database to FILE while it is in use, and check the copy. Default: into the store's backups/."""
    with session.open(refresh=False) as store:
        path = store.backup(target)
    write_text(f"Backed up to {path} ({format_bytes(path.stat().st_size)}), checked.", session.terminal)


@click.command("doctor")
@click.option("--check", is_flag=True, help="Only look, change nothing.")
@list_options
@click.pass_obj
def doctor_command(session: Session, check: bool, as_json: bool, as_csv: bool, raw: bool) -> int:
    """Check a store; when its database is damaged, build it again and say what came from where."""
    from mltrack.store.client.location import choose_store
    from mltrack.store.doctor import examine
    from mltrack.store.errors import BadInput
    from mltrack.store.opening import database_path

    choice = choose_store(session.where)
    if choice.is_remote:
        raise BadInput("The doctor is for stores in folders; a PostgreSQL server has its own tools.")
    missing = session.missing_store()
    if missing is not None:
        raise BadInput(f"There is no store in {missing.url}.")
    diagnosis = examine(choice.root, database_path(choice), repair=not check)
    if as_json:
        write_json({"healthy": diagnosis.healthy, "said": diagnosis.said})
    elif as_csv:
        write_csv(["said"], ([sentence] for sentence in diagnosis.said), raw=raw)
    else:
        for sentence in diagnosis.said:
            write_text(sentence, session.terminal)
    return ExitCode.OK if diagnosis.healthy or not check else ExitCode.FAILED


@click.command("worker")
@click.option("--readonly", is_flag=True, help="Answer queries, fold nothing.")
@click.option(
    "--screen-version", metavar="VERSION", help="The mltrack that asks; another one than this is refused."
)
@click.option(
    "--journals",
    metavar="PROTOCOL",
    type=int,
    help="Hand over journals instead, to whoever follows this store from another machine.",
)
@click.pass_obj
def worker_command(
    session: Session, readonly: bool, screen_version: str | None, journals: int | None
) -> None:
    """Serve the screen on standard input and output: fold and answer queries."""
    from mltrack import __version__
    from mltrack.store.errors import BadInput

    if journals is not None:
        from mltrack.store.mirror_far import hand_over

        hand_over(session.where, journals, sys.stdin.buffer, sys.stdout.buffer)
        return
    from mltrack.tui.worker_calls import serve

    if screen_version not in (None, __version__):
        raise BadInput(
            f"mltrack is {__version__} here and {screen_version} where the screen is; install one of them in both places."
        )
    serve(session.where, readonly)


def _write_report(session: Session, report: FoldReport) -> None:
    if report.folded_by_other:
        write_text("Another process folds this store right now; it takes everything in.", session.terminal)
        return
    write_text(f"{report.records:,} records, {report.points:,} points taken in.", session.terminal)
    if report.skipped:
        warn(f"{report.skipped:,} lines could not be read and were skipped")
    for reason in report.damaged[:_DAMAGED_SHOWN]:
        warn(reason)
    if len(report.damaged) > _DAMAGED_SHOWN:
        warn(f"and {len(report.damaged) - _DAMAGED_SHOWN} more that are damaged")
    if report.pending_bytes:
        warn(f"{format_bytes(report.pending_bytes)} are still to be read")


def _spools() -> list[Path]:
    """Folders where journals of this user wait: one per remote store, and one for stores that could not be written."""
    import os

    from mltrack.store.client.location import user_data_folder

    base = Path(os.environ.get("MLTRACK_SPOOL") or user_data_folder() / "spool")
    if not base.is_dir():
        return []
    if (base / "runs").is_dir():
        return [base]
    return sorted(path for path in base.iterdir() if (path / "runs").is_dir())

"""`mltrack fold sync backup doctor worker`: keeping a store current and sound."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mltrack.tui.cli.exit_codes import ExitCode
from mltrack.tui.cli.output import list_options, warn, write_csv, write_json, write_text
from mltrack.tui.cli.session import Session
from mltrack.tui.draw.numbers import format_bytes

if TYPE_CHECKING:
    from mltrack.store.records import FoldReport

_DAMAGED_SHOWN = 20


@click.command("fold")
@click.option(
    "--all", "everything", is_flag=True, help="Look into every run folder, not only where a writer was noted."
)
@list_options
@click.pass_obj
def fold_command(session: Session, everything: bool, as_json: bool, as_csv: bool, raw: bool) -> int:
    """Take in everything that was logged."""
    with session.open(refresh=False) as store:
        report = store.refresh(None, everything)
    counts = {
        "records": report.records,
        "points": report.points,
        "skipped": report.skipped,
        "pending_bytes": report.pending_bytes,
    }
    if as_json:
        write_json({**counts, "damaged": list(report.damaged), "folded_by_other": report.folded_by_other})
    elif as_csv:
        write_csv(list(counts), [list(counts.values())], raw=raw)
    else:
        _write_report(session, report)
    return ExitCode.OK


@click.command("sync")
@click.argument(
    "folder",
    metavar="[FOLDER]",
    required=False,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
)
@click.pass_obj
def sync_command(session: Session, folder: Path | None) -> None:
    """Bring journals from FOLDER into the store: a spool, a run folder, or another store.

    Without FOLDER the spools of this user are taken. Doing it again takes only what is new.
    """
    from mltrack.store.sync import sync

    folders = [folder] if folder is not None else _spools()
    if not folders:
        write_text("Nothing waits in a spool of yours.", session.terminal)
        return
    with session.open(refresh=False) as store:
        for path in folders:
            report = sync(store, path)
            write_text(f"{path}:", session.terminal)
            _write_report(session, report)


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

    choice = choose_store(session.where)
    if choice.is_remote:
        raise BadInput("The doctor is for stores in folders; a PostgreSQL server has its own tools.")
    missing = session.missing_store()
    if missing is not None:
        raise BadInput(f"There is no store in {missing.url}.")
    diagnosis = examine(choice.root, _database_path(choice.root), repair=not check)
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
@click.pass_obj
def worker_command(session: Session, readonly: bool) -> None:
    """Serve the screen on standard input and output: fold and answer queries."""
    from mltrack.store.worker import serve

    serve(session.where, readonly)


def _database_path(root: Path) -> Path:
    """Where the database of a store's folder is, without opening it."""
    import hashlib
    import os

    from mltrack.store.store import DATABASE_FILE, DATABASE_FOLDER

    local = os.environ.get(DATABASE_FOLDER)
    if not local:
        return root / DATABASE_FILE
    return Path(local) / f"{hashlib.sha256(os.fsencode(root)).hexdigest()[:16]}.db"


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

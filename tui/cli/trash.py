"""`mltrack delete restore purge gc undo redo`: what leaves sight, what comes back, and what is gone for good."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from mltrack.store.errors import BadInput
from mltrack.tui.clean import clean
from mltrack.tui.cli.exit_codes import ExitCode
from mltrack.tui.cli.output import warn, write_text
from mltrack.tui.cli.session import Session, resolve_runs
from mltrack.tui.draw.numbers import format_bytes

if TYPE_CHECKING:
    from mltrack.store.records import Run
    from mltrack.store.store import Store


@click.command("delete")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def delete_command(session: Session, runs: tuple[str, ...], yes: bool) -> None:
    """Put runs into the trash. They can be restored until they are purged."""
    with session.open() as store:
        found = resolve_runs(store, runs)
        ask_first(f"Delete {_describe(found)} to trash?", yes)
        decision = store.trash([run.run_id for run in found])
    write_text(decision.sentence, session.terminal)


def trashed(store: Store, references: Sequence[str]) -> list[Run]:
    """The runs that are meant. Raises BadInput for one that is not in the trash."""
    found = resolve_runs(store, references)
    for run in found:
        if run.lifecycle != "trash":
            raise BadInput(f"{clean(run.name)} is not in the trash.")
    return found


@click.command("restore")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.pass_obj
def restore_command(session: Session, runs: tuple[str, ...]) -> None:
    """Take runs out of the trash."""
    with session.open() as store:
        decision = store.restore([run.run_id for run in trashed(store, runs)])
    write_text(decision.sentence, session.terminal)


@click.command("purge")
@click.argument("runs", nargs=-1, metavar="RUN...")
@click.option("--all", "everything", is_flag=True, help="All runs in the trash.")
@click.option("--dry-run", is_flag=True, help="Only say what would go, and its bytes.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def purge_command(
    session: Session, runs: tuple[str, ...], everything: bool, dry_run: bool, yes: bool
) -> None:
    """Remove runs in the trash for good: their points, files and logs. This cannot be undone."""
    if bool(runs) == everything:
        raise BadInput("Say which runs, or --all for the whole trash.")
    with session.open() as store:
        found = (
            store.runs(store.search("", lifecycle="trash").run_ids)
            if everything
            else resolve_runs(store, runs)
        )
        if not found:
            write_text("The trash is empty.", session.terminal)
            return
        living = [run.name for run in found if run.lifecycle == "active"]
        if living:
            raise BadInput(
                f"{clean(living[0], 60)} is not in the trash; `mltrack delete` puts it there first."
            )
        sizes = [size_of(run, store) for run in found]
        size = sum(sizes)
        for run, weight in zip(found, sizes, strict=True):
            if dry_run or len(found) > 1:
                write_text(
                    f"{format_bytes(weight):>9}  {run.name}  {run.experiment} {run.run_id[:8]}",
                    session.terminal,
                )
        if dry_run:
            write_text(f"{format_bytes(size):>9}  would go; nothing was changed", session.terminal)
            return
        ask_first(f"Purge {_describe(found)} ({format_bytes(size)}) for good?", yes)
        decision = store.purge([run.run_id for run in found])
    write_text(decision.sentence, session.terminal)


@click.command("gc")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option(
    "--days", type=click.FloatRange(min=0), help="Purge what has been in the trash for longer [30]."
)
@click.option(
    "--journals",
    is_flag=True,
    help="Drop sealed journals too: the database can then not be rebuilt from them.",
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def gc_command(session: Session, dry_run: bool, days: float | None, journals: bool, yes: bool) -> int:
    """Free the space of what is deleted for good, of leftovers of dead processes, and seal ended journals."""
    from mltrack.store.upkeep import TRASH_DAYS

    if journals and not dry_run:
        ask_first("Drop sealed journals? After that only backups can replace a damaged database.", yes)
    with session.open() as store:
        freed = store.gc(dry=dry_run, journals=journals, trash_days=TRASH_DAYS if days is None else days)
        far = store.gc_objects(dry_run)
        freed.bytes_by_kind.update(far.bytes_by_kind)
        freed.count_by_kind.update(far.count_by_kind)
    kinds = sorted({*freed.bytes_by_kind, *freed.count_by_kind})
    if not kinds:
        write_text("There is nothing to free.", session.terminal)
    for kind in kinds:
        size = freed.bytes_by_kind.get(kind)
        shown = f"  {format_bytes(size)}" if size is not None else ""
        write_text(f"{freed.count_by_kind.get(kind, 0):>9,} {kind}{shown}", session.terminal)
    if dry_run and kinds:
        write_text("Nothing was changed.", session.terminal)
    for problem in far.problems:
        warn(problem)
    return ExitCode.FAILED if far.problems else ExitCode.OK


@click.command("undo")
@click.pass_obj
def undo_command(session: Session) -> None:
    """Take back the last change."""
    with session.open() as store:
        decision = store.undo()
    write_text(decision.sentence, session.terminal)


@click.command("redo")
@click.pass_obj
def redo_command(session: Session) -> None:
    """Make the change again that was taken back."""
    with session.open() as store:
        decision = store.redo()
    write_text(decision.sentence, session.terminal)


def ask_first(question: str, yes: bool) -> None:
    """Ask, with No as the answer of an empty line; without a terminal nothing is assumed."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise BadInput("Nobody is there to confirm this; add --yes to mean it.")
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise click.exceptions.Exit(1)


def _describe(runs: Sequence[Run]) -> str:
    owners = sorted({run.user for run in runs if run.user})
    of = f" of {clean(', '.join(owners), 60)}" if owners else ""
    if len(runs) == 1:
        return f"{clean(runs[0].name, 60)}{of}"
    return f"{len(runs)} runs{of}"


def size_of(run: Run, store: Store) -> int:
    """Bytes of a run's folder, and of what lies only in an object store."""
    total = sum(copy.size for copy in store.far([run.run_id]))
    if run.folder is None:
        return total
    for path in run.folder.rglob("*"):
        try:
            total += path.lstat().st_size
        except OSError:
            continue  # it went while we looked
    return total

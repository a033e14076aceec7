"""`mltrack keep` and `mltrack checkpoints`: sweeps down to their best, and checkpoints that nothing needs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mltrack.store.errors import BadInput, ReadOnly
from mltrack.tui.cli.columns import runs_with_key
from mltrack.tui.cli.output import list_options, write_csv, write_json, write_lines, write_text
from mltrack.tui.cli.session import Session, resolve_run
from mltrack.tui.cli.table import Cell, Column, draw_table
from mltrack.tui.cli.trash import ask_first, size_of
from mltrack.tui.draw.numbers import format_bytes, format_number
from mltrack.tui.goal import about, direction_of, guess_goal, recall
from mltrack.tui.tidying import Checkpoint, Trimmed, judge_checkpoints, keep_best

if TYPE_CHECKING:
    from mltrack.store.records import Run
    from mltrack.store.store import Store

_MOST = 100_000


@click.command("keep")
@click.argument("count", type=click.IntRange(min=0))
@click.argument("parent")
@click.option("--by", metavar="KEY", help="By this metric instead of the goal.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def keep_command(session: Session, count: int, parent: str, by: str | None, dry_run: bool, yes: bool) -> None:
    """Keep the COUNT best children of a run, for example of a sweep, and put the others into the trash (undoable).

    Runs that go on, are pinned or made a registered model stay as well.
    """
    recall(session.where)
    with session.open() as store:
        trimmed, goal = trim(store, resolve_run(store, parent).run_id, count, by)
        size = sum(size_of(run, store) for run in trimmed.others)
        for run in trimmed.kept:
            write_text(f"keeps {run.name}  {_value(run, goal)}", session.terminal, "green")
        for run, why in trimmed.spared:
            write_text(
                f"keeps {run.name}: it {why}"
                if why.startswith(("is", "goes"))
                else f"keeps {run.name}: {why}",
                session.terminal,
            )
        if not trimmed.others:
            write_text("Nothing else is there.", session.terminal)
            return
        what = f"{len(trimmed.others):,} other run{'' if len(trimmed.others) == 1 else 's'} ({format_bytes(size)})"
        if dry_run:
            write_text(f"Would put {what} into the trash; nothing was changed.", session.terminal)
            return
        ask_first(f"Put {what} into the trash?", yes)
        decision = store.trash([run.run_id for run in trimmed.others])
    write_text(decision.sentence, session.terminal)


def trim(store: Store, parent_id: str, count: int, by: str | None = None) -> tuple[Trimmed, str]:
    """(what stays and goes of a run's children, by which metric). Raises BadInput where there is nothing to go by."""
    quoted = parent_id.replace("'", "''")
    runs = store.runs(store.search(f"parent_id = '{quoted}'", limit=_MOST).run_ids)
    if not runs:
        raise BadInput("This run has no children; `mltrack keep N PARENT` is about the children of a run.")
    with about(run.experiment for run in runs):
        goal = by or guess_goal(runs_with_key(runs))
        if goal is None or not any(goal in run.metrics for run in runs):
            raise BadInput("None of the children has such a metric; say which by --by KEY.")
        return keep_best(runs, goal, count, direction_of(goal), models_of(store)), goal


def models_of(store: Store) -> set[str]:
    """Ids of the runs that registered models are made of."""
    from mltrack.store.upkeep import runs_of_models

    return set(runs_of_models(store.database))


@click.command("checkpoints")
@click.argument("filter_text", metavar="[FILTER]", default="")
@click.option("-x", "--experiment", metavar="NAME", help="Only runs of this experiment.")
@click.option("--orphans", is_flag=True, help="Only those that nothing needs.")
@click.option("--delete", is_flag=True, help="Remove those for good, after asking. This cannot be undone.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@list_options
@click.pass_obj
def checkpoints_command(
    session: Session,
    filter_text: str,
    experiment: str | None,
    orphans: bool,
    delete: bool,
    yes: bool,
    as_json: bool,
    as_csv: bool,
    raw: bool,
) -> None:
    """List the checkpoints of runs, with why each is needed, and remove those that nothing needs.

    Needed are the newest of each run, whatever is called best, and all of runs that go on, are pinned or made a registered
    model. Data of other tools is never touched.
    """
    with session.open() as store:
        found = find_checkpoints(store, filter_text, experiment)
        spare = [(run, one) for run, one in found if not one.needed]
        if delete:
            if store.database.readonly or store.followed is not None:
                raise ReadOnly(f"The store {store.location.root} is open read-only; nothing was changed.")
            total = format_bytes(sum(one.size for _, one in spare))
            if not spare:
                write_text("No checkpoint is spare.", session.terminal)
                return
            ask_first(f"Remove {len(spare):,} checkpoints ({total}) for good?", yes)
            freed = remove_checkpoints(store, spare)
            write_text(f"Removed {len(spare):,} checkpoints, {format_bytes(freed)}.", session.terminal)
            return
    shown = spare if orphans else found
    if as_json:
        write_json([_json(run, one) for run, one in shown])
    elif as_csv:
        rows = ([run.run_id, run.name, one.name, one.size, one.needed] for run, one in shown)
        write_csv(["run_id", "run_name", "file", "bytes", "needed"], rows, raw=raw)
    elif not shown:
        write_text("There are none.", session.terminal)
    else:
        columns = [
            Column("RUN", [run.name for run, _ in shown], weight=0, widest=28),
            Column("FILE", [one.name for _, one in shown], weight=0),
            Column("SIZE", [format_bytes(one.size) for _, one in shown], "right", 0),
            Column(
                "NEEDED",
                [Cell(one.needed or "by nothing", None if one.needed else "yellow") for _, one in shown],
                weight=0,
            ),
        ]
        write_lines(draw_table(columns, session.terminal))
        total = format_bytes(sum(one.size for _, one in spare))
        write_text(
            f"{len(spare):,} needed by nothing, {total}; --delete removes them", session.terminal, "dim"
        )


def find_checkpoints(
    store: Store, filter_text: str = "", experiment: str | None = None
) -> list[tuple[Run, Checkpoint]]:
    """All checkpoints of the store's own runs that match, the largest first."""
    models = models_of(store)
    found: list[tuple[Run, Checkpoint]] = []
    for run in store.runs(store.search(filter_text, experiment=experiment).run_ids):
        if run.source:
            continue
        # A file that lies only in an object store has no time of change here: 0, which is no file's.
        files = [(copy.path, copy.size, 0) for copy in store.far([run.run_id])]
        if run.folder is not None and (run.folder / "artifacts").is_dir():
            for path, name in _regular_files(run.folder / "artifacts"):
                facts = path.lstat()
                files.append((name, facts.st_size, facts.st_mtime_ns))
        found += [(run, one) for one in judge_checkpoints(run, files, models)]
    return sorted(found, key=lambda pair: (-pair[1].size, pair[0].name, pair[1].name))


def remove_checkpoints(store: Store, spare: list[tuple[Run, Checkpoint]]) -> int:
    """Remove these files unless they have changed since they were judged, and their copies in object stores; bytes that are free
    now."""
    from mltrack.store.client.journal import run_folder
    from mltrack.store.copies import copies, remove_copies

    names: dict[str, set[str]] = {}
    for run, one in spare:
        names.setdefault(run.run_id, set()).add(one.name)
    for run_id, ours in names.items():
        remove_copies(
            store, [copy for copy in copies(store.database, store.root, run_id) if copy.path in ours]
        )
    freed = 0
    for run, one in spare:
        path = run_folder(store.root, run.run_id) / "artifacts" / one.name
        if not one.changed_ns:
            freed += one.size
            continue
        try:
            facts = path.lstat()
            if (facts.st_size, facts.st_mtime_ns) == (one.size, one.changed_ns):
                os.unlink(path)
                freed += one.size
        except FileNotFoundError:
            continue
    return freed


def _regular_files(folder: Path) -> list[tuple[Path, str]]:
    from mltrack.store.client.artifacts import regular_files

    return regular_files(folder)


def _json(run: Run, one: Checkpoint) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "run_name": run.name,
        "file": one.name,
        "bytes": one.size,
        "needed": one.needed or None,
    }


def _value(run: Run, goal: str) -> str:
    summary = run.metrics.get(goal)
    if summary is None:
        return f"no {goal}"
    with about((run.experiment,)):
        best = summary.min if direction_of(goal) == "min" else summary.max
    return f"{goal} {format_number(best)}"

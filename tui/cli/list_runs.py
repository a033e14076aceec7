"""`mltrack ls`: the run table in text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from mltrack.tui.cli.exit_codes import ExitCode
from mltrack.tui.cli.output import (
    json_number,
    list_options,
    warn,
    write_csv,
    write_json,
    write_lines,
    write_text,
)
from mltrack.tui.cli.run_look import now_ms, run_json
from mltrack.tui.cli.session import Session
from mltrack.tui.cli.sources import follow_paths
from mltrack.tui.cli.table import Cell, Column
from mltrack.tui.cli.views import keep_view, with_view

if TYPE_CHECKING:
    from mltrack.store.records import Page, Run
    from mltrack.store.store import Store
    from mltrack.tui.cli.tree import Branch

_ROWS_ON_A_SCREEN = 50
DAMAGED = "damage is not null"
_NAMES = ("RUN", "NAME", "RUN_NAME")
_ROWS_WITH_TREND = 60
_WIDTH_WITH_TREND = 100
_FIRST_STEPS = """  import mltrack
  with mltrack.start_run():
      mltrack.log_metric("loss", 0.5, step=1)"""


@click.command("ls")
@click.argument("filter_text", metavar="[FILTER]", default="")
@click.option("-x", "--experiment", metavar="NAME", help="Only runs of this experiment.")
@click.option(
    "--sort", "-s", multiple=True, metavar="KEY", help="Sort by this; -KEY turns it round. Repeat for ties."
)
@click.option(
    "--limit",
    "-n",
    type=click.IntRange(min=0),
    help="At most so many rows; 0 is all (default on a terminal: 50).",
)
@click.option(
    "--columns",
    "-c",
    metavar="A,B,...",
    help="Columns: run, status, age, lr, val/acc, val/acc.max, tags.team ...",
)
@click.option("--after", metavar="CURSOR", help="Go on behind the last row of an earlier page.")
@click.option(
    "--tree", is_flag=True, help="Children under their parent, which shows their number and the best of them."
)
@click.option(
    "--group-by",
    "group_by",
    metavar="A,B",
    help="Runs that share these params as one row: mean ± std, min..max, n.",
)
@click.option("--view", metavar="NAME", help="A view saved in the app, or by --save-view.")
@click.option("--save-view", metavar="NAME", help="Save filter, experiment and sort under a name.")
@click.option("--trash", is_flag=True, help="Runs in the trash instead.")
@click.option("--follow", multiple=True, metavar="PATH", help="Follow data of another tool first.")
@click.option("--ids", is_flag=True, help="Print run ids only, one to a line.")
@list_options
@click.pass_obj
def ls_command(
    session: Session,
    filter_text: str,
    experiment: str | None,
    sort: tuple[str, ...],
    limit: int | None,
    columns: str | None,
    after: str | None,
    tree: bool,
    group_by: str | None,
    view: str | None,
    save_view: str | None,
    trash: bool,
    follow: tuple[str, ...],
    ids: bool,
    as_json: bool,
    as_csv: bool,
    raw: bool,
) -> int:
    """List runs.

    FILTER is for example: "lr < 1e-3 and (opt = adamw or opt = lion)", "status = running", "start > -2d and mine",
    "metrics.loss.min < 0.2".
    """
    machine = as_json or as_csv or ids
    if limit is None and session.terminal.is_tty and not machine:
        limit = _ROWS_ON_A_SCREEN
    if follow:
        follow_paths(session, follow)
    missing = session.missing_store()
    if missing is not None:
        if as_json or as_csv:
            write_json([]) if as_json else _write_csv([], columns, raw)
        elif not ids:
            _say_how_to_begin(session, missing.url, missing.chosen_by)
        return ExitCode.OK
    if view is not None:
        filter_text, experiment, sort = with_view(session, view, filter_text, experiment, sort)
    if save_view is not None:
        keep_view(session, save_view, filter_text, experiment, sort)
    with session.open() as store:
        if group_by is not None:
            from mltrack.tui.cli.grouping import group_runs, keys_of, write_groups

            chosen = [key.strip() for key in (columns or "").split(",") if key.strip()]
            grouped = group_runs(store, keys_of(group_by), filter_text, experiment, chosen)
            write_groups(grouped, session.terminal, as_json, as_csv, raw)
            return ExitCode.OK
        page = store.search(
            filter_text,
            experiment=experiment,
            sort=sort,
            limit=limit or None,
            after=after,
            lifecycle="trash" if trash else "active",
        )
        if page.unknown_keys:
            warn("no run has " + ", ".join(page.unknown_keys))
        if filter_text:
            _warn_of_damaged(store, filter_text, experiment, trash)
        if ids and not tree:
            write_lines(page.run_ids)
            return ExitCode.OK
        runs = store.runs(page.run_ids)
        if columns is not None and runs and not (ids or as_json):
            from mltrack.tui.cli.columns import missing_columns

            if names := missing_columns(columns, runs):
                warn("none of these runs has " + ", ".join(names))
        branches = _grow(store, runs) if tree else None
        if branches is not None:
            runs = [branch.run for branch in branches]
        if ids:
            write_lines([run.run_id for run in runs])
        elif as_json and branches is not None:
            write_json([_branch_json(branch) for branch in branches])
        elif as_json:
            write_json([run_json(run) for run in runs])
        elif as_csv:
            _write_csv(runs, columns, raw)
        elif not runs:
            return _say_why_empty(session, store, filter_text, experiment, trash)
        else:
            _write_table(session, store, runs, columns, page, sort, branches)
    return ExitCode.OK


def _write_table(
    session: Session,
    store: Store,
    runs: Sequence[Run],
    columns: str | None,
    page: Page,
    sort: Sequence[str],
    branches: Sequence[Branch] | None,
) -> None:
    from mltrack.tui.cli.columns import chosen_column, default_columns, parse_columns
    from mltrack.tui.cli.table import draw_table
    from mltrack.tui.cli.tree import with_best_of_children

    now = now_ms()
    shown = len(page.run_ids)
    if branches is not None:
        runs = [with_best_of_children(branch) for branch in branches]
    if columns is None:
        one = len({run.experiment for run in runs}) == 1

        def read_values(run_id: str, key: str) -> list[float]:
            values: list[float] = store.points(run_id, key).values.tolist()
            return values

        # Curves cost a read per row: for eyes only, where there is room.
        terminal = session.terminal
        trend = terminal.is_tty and terminal.width >= _WIDTH_WITH_TREND and len(runs) <= _ROWS_WITH_TREND
        drawn = default_columns(
            runs, now, one_experiment=one, sort=sort, read_values=read_values if trend else None
        )
    else:
        drawn = [chosen_column(choice, runs, now) for choice in parse_columns(columns, runs)]
    if branches is not None:
        drawn = [_as_tree(column, branches) if column.heading in _NAMES else column for column in drawn]
    write_lines(draw_table(drawn, session.terminal))
    if page.next is not None or shown < page.total:
        more = f"{shown:,} of {page.total:,} runs; --limit 0 shows all"
        write_text(more, session.terminal, "dim") if session.terminal.is_tty else warn(more)


def _grow(store: Store, runs: Sequence[Run]) -> list[Branch]:
    from mltrack.tui.cli.columns import runs_with_key
    from mltrack.tui.cli.tree import grow
    from mltrack.tui.goal import guess_goal

    return grow(store, runs, guess_goal(runs_with_key(runs)))


def _branch_json(branch: Branch) -> dict[str, object]:
    children = None if branch.children is None else branch.children.json()
    place = {"parent_id": branch.run.parent_id, "depth": branch.depth, "children": children}
    return run_json(branch.run) | place


def _as_tree(column: Column, branches: Sequence[Branch]) -> Column:
    """The column of names with the lines of the tree, and each parent's sum of its children."""
    cells = []
    for cell, branch in zip(column.cells, branches, strict=True):
        text, style = (cell, None) if isinstance(cell, str) else (cell.text, cell.style)
        count = f" ({branch.children.phrase()})" if branch.children else ""
        cells.append(Cell(branch.lines + text + count, style))
    return replace(column, cells=cells, widest=48)


def _write_csv(runs: Sequence[Run], columns: str | None, raw: bool) -> None:
    from mltrack.tui.cli.columns import parse_columns, value_of

    now = now_ms()
    if columns is not None:
        choices = parse_columns(columns, runs)
        names = [name.strip() for name in columns.split(",") if name.strip()]
        write_csv(names, ([value_of(choice, run, now) for choice in choices] for run in runs), raw=raw)
        return
    params = sorted({key for run in runs for key in run.params})
    metrics = sorted({key for run in runs for key in run.metrics})
    tags = sorted({key for run in runs for key in run.tags})
    heading = ["run_id", "run_name", "experiment", "status", "user", "start_time", "end_time"]
    heading += (
        [f"params.{key}" for key in params]
        + [f"metrics.{key}" for key in metrics]
        + [f"tags.{key}" for key in tags]
    )

    def row(run: Run) -> list[object]:
        cells: list[object] = [
            run.run_id,
            run.name,
            run.experiment,
            run.status,
            run.user,
            run.start_ms,
            run.end_ms,
        ]
        cells += [run.params.get(key) for key in params]
        cells += [json_number(run.metrics[key].last) if key in run.metrics else None for key in metrics]
        return cells + [run.tags.get(key) for key in tags]

    write_csv(heading, (row(run) for run in runs), raw=raw)


def _warn_of_damaged(store: Store, filter_text: str, experiment: str | None, trash: bool) -> None:
    """A filter answers by what could be read: of a damaged run that may not be all, so those it leaves out are named."""
    lifecycle = "trash" if trash else "active"

    def count(text: str) -> int:
        return store.search(text, experiment=experiment, limit=1, lifecycle=lifecycle).total

    damaged = count(DAMAGED)
    if damaged:
        left = damaged - count(f"({filter_text}) and {DAMAGED}")
        if left:
            runs = "1 damaged run is" if left == 1 else f"{left:,} damaged runs are"
            listed = f"mltrack ls {'--trash ' if trash else ''}'{DAMAGED}'"
            warn(f"{runs} not among them, whose files could be read only in part: {listed}")


def _say_why_empty(
    session: Session, store: Store, filter_text: str, experiment: str | None, trash: bool
) -> int:
    """An empty answer says what was looked at, and how to begin when there is nothing at all."""
    terminal = session.terminal
    if trash:
        write_text("The trash is empty.", terminal)
        return ExitCode.OK
    everything = store.search("", limit=1).total
    if everything:
        where = f" in experiment {experiment}" if experiment else ""
        what = f" match {filter_text}" if filter_text else ""
        write_text(f"No runs{where}{what}; the store has {everything:,}.", terminal)
        return ExitCode.OK
    _say_how_to_begin(session, str(store.location.root), store.location.chosen_by)
    for note in store.location.notes:
        write_text(f"  {note}", terminal, "dim")
    return ExitCode.OK


def _say_how_to_begin(session: Session, place: str, chosen_by: str) -> None:
    terminal = session.terminal
    write_text(f"Nothing logged yet in {place} (chosen by {chosen_by}).", terminal)
    write_text("Log something:", terminal)
    for line in _FIRST_STEPS.split("\n"):
        write_text("  " + line, terminal, "green")
    write_text(
        "Or fill a folder with a story to look at: mltrack demo DIR, then mltrack --store DIR ls", terminal
    )

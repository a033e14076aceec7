"""`mltrack ls`: the run table in text."""

from __future__ import annotations

from collections.abc import Sequence
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

if TYPE_CHECKING:
    from mltrack.store.records import Page, Run
    from mltrack.store.store import Store

_ROWS_ON_A_SCREEN = 50
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
@click.option("--trash", is_flag=True, help="Runs in the trash instead.")
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
    trash: bool,
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
    missing = session.missing_store()
    if missing is not None:
        if as_json or as_csv:
            write_json([]) if as_json else _write_csv([], columns, raw)
        elif not ids:
            _say_how_to_begin(session, missing.url, missing.chosen_by)
        return ExitCode.OK
    with session.open() as store:
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
        if ids:
            write_lines(page.run_ids)
            return ExitCode.OK
        runs = store.runs(page.run_ids)
        if as_json:
            write_json([run_json(run) for run in runs])
        elif as_csv:
            _write_csv(runs, columns, raw)
        elif not runs:
            return _say_why_empty(session, store, filter_text, experiment, trash)
        else:
            _write_table(session, store, runs, columns, page, sort)
    return ExitCode.OK


def _write_table(
    session: Session,
    store: Store,
    runs: Sequence[Run],
    columns: str | None,
    page: Page,
    sort: Sequence[str],
) -> None:
    from mltrack.tui.cli.columns import chosen_column, default_columns, parse_columns
    from mltrack.tui.cli.table import draw_table

    now = now_ms()
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
    write_lines(draw_table(drawn, session.terminal))
    if page.next is not None or len(runs) < page.total:
        more = f"{len(runs):,} of {page.total:,} runs; --limit 0 shows all"
        write_text(more, session.terminal, "dim") if session.terminal.is_tty else warn(more)


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

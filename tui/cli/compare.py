"""`mltrack compare RUN... [--diff]`: runs side by side, the best marked, equals folded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from mltrack.store.errors import BadInput, StoreUnavailable
from mltrack.tui.clean import clean
from mltrack.tui.cli.columns import runs_with_key
from mltrack.tui.cli.output import json_number, list_options, write_csv, write_json, write_lines, write_text
from mltrack.tui.cli.run_look import duration_seconds, now_ms, status_cell
from mltrack.tui.cli.session import Session, resolve_runs
from mltrack.tui.cli.table import Cell, Column, draw_table
from mltrack.tui.comparison import (
    SECTION_TITLES,
    Row,
    compare_rows,
    most_telling,
    param_effects,
)
from mltrack.tui.draw.numbers import format_change, format_column, format_parameter
from mltrack.tui.goal import about, direction_arrow, guess_goal, recall
from mltrack.tui.kept_files import KeptFiles, bring

if TYPE_CHECKING:
    from mltrack.store.records import Run
    from mltrack.store.store import Store
    from mltrack.tui.cli.terminal import Terminal

_METRICS_SHOWN = 20
_POPULATION = 500
ABSENT = "·"


@click.command("compare")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option("--diff", "-d", is_flag=True, help="Only what differs.")
@click.option(
    "--metric",
    "-m",
    "aggregate",
    type=click.Choice(["last", "best", "min", "max"]),
    default="best",
    show_default=True,
    help="Which value of a metric.",
)
@click.option("--all", "everything", is_flag=True, help="Every metric, also system/*.")
@click.option(
    "--file",
    "file",
    metavar="FILE",
    help="The diff of this file of two runs; '' lists which of their files differ.",
)
@click.option(
    "--why", is_flag=True, help="Why the best is better: what differs, ranked by how other runs do with it."
)
@click.option(
    "--code", is_flag=True, help="The commits between two runs, and the diff of what was not committed."
)
@click.option(
    "--images",
    metavar="KEY",
    help="Pictures of this series side by side; '' lists the series and their steps.",
)
@click.option("--step", type=int, metavar="N", help="With --images: of this step instead of the last.")
@list_options
@click.pass_obj
def compare_command(
    session: Session,
    runs: tuple[str, ...],
    diff: bool,
    aggregate: str,
    everything: bool,
    file: str | None,
    why: bool,
    code: bool,
    images: str | None,
    step: int | None,
    as_json: bool,
    as_csv: bool,
    raw: bool,
) -> None:
    """Put runs side by side: metrics, params, code, environment, data, machine."""
    recall(session.where)
    with session.open() as store:
        found = resolve_runs(store, runs)
        if images is not None:
            from mltrack.tui.cli.compare_images import write_images

            write_images(session.terminal, found, images, step, as_json)
            return
        if file is not None:
            from mltrack.tui.cli.compare_files import NotYet, file_lines

            if len(found) != 2:
                raise BadInput("--file is about two runs.")
            try:
                lines = file_lines(found[0], found[1], file)
            except NotYet:
                raise StoreUnavailable("The other machine has not answered in time; try again.") from None
            _write_spans(session.terminal, lines)
            return
        if why or code:
            _write_behind(session, store, found, aggregate, why, as_json)
            return
        with about(run.experiment for run in found):
            _side_by_side(session, store, found, diff, aggregate, everything, as_json, as_csv, raw)


def _write_spans(terminal: Terminal, lines: Sequence[Sequence[Sequence[str]]]) -> None:
    """Lines as a page of the app has them."""
    styles = {name: name for name in ("dim", "green", "red", "yellow", "cyan")} | {"bold": "header"}

    def written(line: Sequence[Sequence[str]]) -> str:
        return "".join(
            terminal.style(terminal.fold(clean(text, None)), styles.get(style)) for text, style in line
        )

    write_lines(written(line).rstrip() for line in lines)


def _write_behind(
    session: Session, store: Store, found: Sequence[Run], aggregate: str, why: bool, as_json: bool
) -> None:
    """What the app shows behind the goal metric or the commit of a comparison."""
    from mltrack.tui.worker_calls.compare import compare_detail

    if len(found) < 2 or (not why and len(found) != 2):
        raise BadInput("--why is about two runs or more." if why else "--code is about two runs.")
    with about(run.experiment for run in found):
        goal = guess_goal(runs_with_key(found))
    if why and goal is None:
        raise BadInput("These runs have no metric in common that could be the goal.")
    section, key = ("metrics", goal or "") if why else ("circumstances", "commit")
    ids = [run.run_id for run in found]
    bring(store, found)
    page = compare_detail(store, ids, aggregate=aggregate, section=section, key=key, place=1)
    if as_json:
        write_json(
            {"title": page["title"], "lines": ["".join(text for text, _ in line) for line in page["lines"]]}
        )
    else:
        write_text(page["title"], session.terminal, "header")
        _write_spans(session.terminal, page["lines"])


def _side_by_side(
    session: Session,
    store: Store,
    found: Sequence[Run],
    diff: bool,
    aggregate: str,
    everything: bool,
    as_json: bool,
    as_csv: bool,
    raw: bool,
) -> None:
    goal = guess_goal(runs_with_key(found))
    others, of = others_of(store, found)
    rows = compare_rows(
        found,
        aggregate,
        everything=everything or as_json or as_csv,
        read_blob=KeptFiles(store, found),
        effects=param_effects(found, [*found, *store.runs(others, (goal,), folders=False)], goal)
        if goal
        else {},
    )
    if as_json:
        shown = [row for row in rows if row.differs or not diff]
        write_json(
            {
                "runs": [{"run_id": run.run_id, "run_name": run.name} for run in found],
                "rows": [
                    {
                        "section": row.section,
                        "key": row.key,
                        "values": [_exact(value) for value in row.values],
                        "differs": row.differs,
                        "effect": row.effect,
                    }
                    for row in shown
                ],
            }
        )
    elif as_csv:
        heading = ["section", "key", *(run.name for run in found)]
        write_csv(
            heading,
            (
                [row.section, row.key, *(_exact(value) for value in row.values)]
                for row in rows
                if row.differs or not diff
            ),
            raw=raw,
        )
    else:
        ranked = f"ranked by effect on {goal} over {of}" if goal and any(row.effect for row in rows) else ""
        _write_page(found, rows, diff, session.terminal, goal, ranked)


def others_of(store: Store, runs: Sequence[Run]) -> tuple[list[str], str]:
    """The ids of other runs to learn from which param matters, and what all are in words: the siblings of a sweep, else all runs of
    the experiments, else the runs themselves. At most 500: nobody waits for a better guess."""
    parents = {run.parent_id for run in runs}
    if len(parents) == 1 and (parent := next(iter(parents))):
        page = store.search(f"parent_id = '{parent.replace(chr(39), chr(39) * 2)}'", limit=_POPULATION)
        ids, of = list(page.run_ids), "of one sweep"
    else:
        ids = [
            run_id
            for experiment in sorted({run.experiment for run in runs})
            for run_id in store.search(experiment=experiment, limit=_POPULATION).run_ids
        ]
        of = "of the experiment" if len({run.experiment for run in runs}) == 1 else "of these experiments"
    here = {run.run_id for run in runs}
    others = [run_id for run_id in ids if run_id not in here][: max(0, _POPULATION - len(runs))]
    return others, f"{len(runs) + len(others):,} runs {of}" if others else "these runs"


def _write_page(
    runs: Sequence[Run], rows: Sequence[Row], diff: bool, terminal: Terminal, goal: str | None, ranked: str
) -> None:
    from mltrack.tui.draw.braille import curve_letter
    from mltrack.tui.draw.times import format_duration

    now = now_ms()
    letters = [curve_letter(index) for index in range(len(runs))]
    # One column layout for all sections: the eye runs down a run.
    headings = [f"{letter} {run.name}" for letter, run in zip(letters, runs, strict=True)]
    blocks: list[tuple[str, list[list[Cell]]]] = []
    status = [status_cell(run, now) for run in runs]
    took = [Cell(format_duration(duration_seconds(run, now))) for run in runs]
    blocks.append(("", [[Cell("status", "dim"), *status], [Cell("duration", "dim"), *took]]))
    for section, title in SECTION_TITLES.items():
        of_section = [row for row in rows if row.section == section]
        if not of_section:
            continue
        shown = [row for row in of_section if row.differs or not diff]
        equal = len(of_section) - sum(row.differs for row in of_section)
        if section == "metrics" and len(shown) > _METRICS_SHOWN:
            title += f"  {_METRICS_SHOWN} of {len(shown)}"
            shown = most_telling(shown, goal)[:_METRICS_SHOWN]
        elif diff and equal:
            title += f"  {len(shown)} differ, {equal} equal folded"
        if section == "params" and ranked:
            title += f"  ({ranked})"
        lines = [_metric_cells(row) if section == "metrics" else _text_cells(row, letters) for row in shown]
        blocks.append((title, lines))
    table: list[list[Cell]] = []
    titles: dict[int, str] = {}
    for title, lines in blocks:
        titles[len(table)] = title
        table += lines
    columns = [Column("", [line[0] for line in table], weight=0, widest=28)]
    for index, heading in enumerate(headings):
        columns.append(Column(heading, [line[index + 1] for line in table], weight=0))
    drawn = draw_table(columns, terminal)
    write_lines([drawn[0]])
    for index, line in enumerate(drawn[1:]):
        if titles.get(index):
            write_text(titles[index], terminal, "header")
        write_lines([line])


def _metric_cells(row: Row) -> list[Cell]:
    arrow = direction_arrow(row.key)
    values = [value if isinstance(value, float) else None for value in row.values]
    texts = format_column(values, 4)
    best, reference = row.best, row.reference
    cells = [Cell(f"{row.key} {arrow}".rstrip())]
    for value, text in zip(values, texts, strict=True):
        if value is None:
            cells.append(Cell(ABSENT, "dim"))
        elif best is not None and value == best and row.differs:
            cells.append(Cell(f"{text} ★", "best"))
        elif reference is None or not row.differs or value == reference:
            cells.append(Cell(text))
        else:
            cells.append(Cell(f"{text}  {format_change(value, reference)}"))
    return cells


def _text_cells(row: Row, letters: Sequence[str]) -> list[Cell]:
    cells = [Cell(row.key)]
    for value in row.values:
        if value is None:
            cells.append(Cell(ABSENT, "dim"))
            continue
        # A tag without a value is a word that is set.
        text = format_parameter(str(value)) if row.section == "params" else str(value) or "✓"
        odd = row.differs and value != row.usual
        cells.append(Cell(text, "yellow" if odd else None if row.differs else "dim"))
    return cells


def _exact(value: str | float | None) -> str | float | None:
    return json_number(value) if isinstance(value, float) else value

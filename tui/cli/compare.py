"""`mltrack compare RUN... [--diff]`: runs side by side, the best marked, equals folded."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from mltrack.tui.cli.columns import aggregate_of
from mltrack.tui.cli.output import json_number, list_options, write_csv, write_json, write_lines, write_text
from mltrack.tui.cli.run_look import duration_seconds, now_ms, status_cell
from mltrack.tui.cli.session import Session, resolve_runs
from mltrack.tui.cli.table import Cell, Column, draw_table
from mltrack.tui.draw.numbers import format_change, format_column, format_parameter
from mltrack.tui.goal import direction_arrow, is_background

if TYPE_CHECKING:
    from mltrack.store.records import Run
    from mltrack.tui.cli.terminal import Terminal

_METRICS_SHOWN = 20
ABSENT = "·"


@dataclass(frozen=True)
class Row:
    """One line of the comparison: a value per run, None where a run has none."""

    section: str
    key: str
    values: tuple[str | float | None, ...]

    @property
    def differs(self) -> bool:
        """Whether the runs disagree; NaN equals NaN here."""
        return len({"NaN" if value != value else value for value in self.values}) > 1


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
@list_options
@click.pass_obj
def compare_command(
    session: Session,
    runs: tuple[str, ...],
    diff: bool,
    aggregate: str,
    everything: bool,
    as_json: bool,
    as_csv: bool,
    raw: bool,
) -> None:
    """Put runs side by side: metrics, params, code, environment, data, machine."""
    with session.open() as store:
        found = resolve_runs(store, runs)
    rows = compare_rows(found, aggregate, everything=everything or as_json or as_csv)
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
        _write_page(found, rows, diff, session.terminal)


def compare_rows(runs: Sequence[Run], aggregate: str, *, everything: bool = False) -> list[Row]:
    """All rows of the comparison, in the order they are shown."""
    rows: list[Row] = []
    keys = sorted(
        {key for run in runs for key in run.metrics if everything or not key.startswith("system/")},
        key=lambda key: (is_background(key), key),
    )
    for key in keys:
        values = tuple(
            aggregate_of(run.metrics[key], aggregate) if key in run.metrics else None for run in runs
        )
        rows.append(Row("metrics", key, values))
    for key in sorted({key for run in runs for key in run.params}):
        rows.append(Row("params", key, tuple(run.params.get(key) for run in runs)))
    for name, read in _CIRCUMSTANCES.items():
        texts = tuple(read(run) for run in runs)
        if any(texts):
            rows.append(Row("circumstances", name, texts))
    for key in sorted({key for run in runs for key in run.tags}):
        rows.append(Row("tags", key, tuple(run.tags.get(key) for run in runs)))
    return rows


def _fact(*path: str) -> Callable[[Run], str | None]:
    def read(run: Run) -> str | None:
        value: object = run.facts
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        return str(value) if value not in (None, "") else None

    return read


def _commit(run: Run) -> str | None:
    git = run.facts.get("git")
    if not isinstance(git, Mapping) or not git.get("commit"):
        return None
    patch = f" ± {str(git['patch'])[:6]}" if git.get("patch") else " ±" if git.get("dirty") else ""
    return str(git["commit"])[:10] + patch


def _packages(run: Run) -> str | None:
    packages = run.facts.get("packages")
    return str(packages)[:10] if packages else None


def _data(run: Run) -> str | None:
    return (
        ", ".join(f"{entry.get('name', '')} {str(entry.get('digest', ''))[:8]}" for entry in run.inputs)
        or None
    )


def _gpus(run: Run) -> str | None:
    gpus = run.facts.get("gpus")
    if not isinstance(gpus, Sequence) or isinstance(gpus, str) or not gpus:
        return None
    names = [str(gpu.get("name", "")) if isinstance(gpu, Mapping) else str(gpu) for gpu in gpus]
    return names[0] if len(names) == 1 else f"{len(names)} x {names[0]}"


_CIRCUMSTANCES: dict[str, Callable[[Run], str | None]] = {
    "commit": _commit,
    "packages": _packages,
    "python": _fact("python"),
    "data": _data,
    "host": lambda run: run.host or None,
    "gpu": _gpus,
    "script": _fact("script"),
    "user": lambda run: run.user or None,
}


def _write_page(runs: Sequence[Run], rows: Sequence[Row], diff: bool, terminal: Terminal) -> None:
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
    for section, title in (
        ("metrics", "METRICS"),
        ("params", "PARAMS"),
        ("circumstances", "CODE, ENVIRONMENT, DATA, MACHINE"),
        ("tags", "TAGS"),
    ):
        of_section = [row for row in rows if row.section == section]
        if not of_section:
            continue
        shown = [row for row in of_section if row.differs or not diff]
        equal = len(of_section) - sum(row.differs for row in of_section)
        if section == "metrics" and len(shown) > _METRICS_SHOWN:
            title += f"  {_METRICS_SHOWN} of {len(shown)}"
            shown = _most_telling(shown)[:_METRICS_SHOWN]
        elif diff and equal:
            title += f"  {len(shown)} differ, {equal} equal folded"
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
    numbers = [value for value in values if value is not None and math.isfinite(value)]
    best = (min(numbers) if arrow == "↓" else max(numbers)) if numbers and arrow else None
    cells = [Cell(f"{row.key} {arrow}".rstrip())]
    for value, text in zip(values, texts, strict=True):
        if value is None:
            cells.append(Cell(ABSENT, "dim"))
        elif best is not None and value == best and row.differs:
            cells.append(Cell(f"{text} ★", "best"))
        else:
            cells.append(
                Cell(f"{text}  {format_change(value, best)}" if best is not None and row.differs else text)
            )
    return cells


def _text_cells(row: Row, letters: Sequence[str]) -> list[Cell]:
    cells = [Cell(row.key)]
    for value in row.values:
        if value is None:
            cells.append(Cell(ABSENT, "dim"))
            continue
        text = format_parameter(str(value))
        usual = max(set(row.values), key=row.values.count)
        cells.append(
            Cell(text, "yellow" if row.differs and value != usual else None if row.differs else "dim")
        )
    return cells


def _most_telling(rows: Sequence[Row]) -> list[Row]:
    """Metrics that most runs have, held-out before training."""

    def rank(row: Row) -> tuple[bool, int, bool, str]:
        missing = sum(value is None for value in row.values)
        return is_background(row.key), missing, not row.key.startswith(("val", "test", "eval")), row.key

    return sorted(rows, key=rank)


def _exact(value: str | float | None) -> str | float | None:
    return json_number(value) if isinstance(value, float) else value

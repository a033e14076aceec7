"""`mltrack report RUN... -o report.html`: one static page about runs; and figures for papers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from mltrack.store.errors import BadInput
from mltrack.tui.cli.columns import runs_with_key
from mltrack.tui.cli.compare import others_of
from mltrack.tui.cli.output import write_text
from mltrack.tui.cli.run_look import duration_seconds, now_ms, status_cell
from mltrack.tui.cli.session import Session, resolve_runs
from mltrack.tui.comparison import SECTION_TITLES, Row, compare_rows, most_telling, param_effects
from mltrack.tui.draw.braille import curve_letter
from mltrack.tui.draw.figure import FigureCurve, draw_figure, to_pdf, to_svg
from mltrack.tui.draw.numbers import format_change, format_column, format_parameter
from mltrack.tui.draw.scales import ScaleName
from mltrack.tui.draw.times import format_duration, format_timestamp
from mltrack.tui.goal import about, direction_arrow, guess_goal, guess_loss, recall
from mltrack.tui.kept_files import KeptFiles, bring
from mltrack.tui.report import Cell, Report, Table, Texts, to_page

if TYPE_CHECKING:
    from mltrack.store.records import Run
    from mltrack.store.store import Store

MOST_RUNS = 100
_CHARTS = 12
_METRICS = 40
_COLUMNS = 300
_PAIRS = 5
_CHART_WIDTH, _CHART_HEIGHT = 360.0, 220.0


@click.command("report")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="A new file ending in .html.",
)
@click.option("--title", metavar="TEXT", help="Title of the page.")
@click.pass_obj
def report_command(session: Session, runs: tuple[str, ...], output: Path, title: str | None) -> None:
    """Write one page about runs that needs nothing but itself: table, curves, what differs, diffs, and why."""
    if output.suffix.lower() not in (".html", ".htm"):
        raise BadInput(
            f"{output} does not end in .html; `mltrack plot KEY RUN... -o FILE` writes svg and pdf."
        )
    recall(session.where)
    with session.open() as store:
        found = resolve_runs(store, runs)
        page = make_report(store, found, title)
    write_new(output, page.encode("utf-8", "backslashreplace"))
    write_text(f"Wrote a report of {_runs(len(found))} to {output}", session.terminal)


def write_new(path: Path, content: bytes) -> None:
    """Write a file that is not there yet. Raises BadInput."""
    try:
        with path.open("xb") as file:
            file.write(content)
    except FileExistsError:
        raise BadInput(f"{path} is there already; nothing was overwritten.") from None
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror}.") from None


def make_report(store: Store, runs: Sequence[Run], title: str | None = None) -> str:
    """The page about these runs, 1 to 100 of them."""
    if len(runs) > MOST_RUNS:
        raise BadInput(f"At most {MOST_RUNS} runs fit into a report; these are {len(runs):,}.")
    with about(run.experiment for run in runs):
        return _page(store, runs, title)


def _page(store: Store, runs: Sequence[Run], title: str | None) -> str:
    goal = guess_goal(runs_with_key(runs))
    others, of = others_of(store, runs)
    population = [*runs, *store.runs(others, () if goal is None else (goal,), folders=False)]
    effects = param_effects(runs, population, goal) if goal else {}
    rows = compare_rows(runs, "best", read_blob=KeptFiles(store, runs), effects=effects)
    metrics = most_telling([row for row in rows if row.section == "metrics"], goal)
    loss = guess_loss([row.key for row in metrics], goal)
    metrics.sort(key=lambda row: (row.key != goal, row.key != loss))
    experiments = list(dict.fromkeys(run.experiment for run in runs))
    names = (
        [f"{curve_letter(place)} {run.name}" for place, run in enumerate(runs)]
        if len(runs) > 1
        else ["value"]
    )
    tables = [_overview(runs), _metric_table(metrics[:_METRICS], names, runs)]
    for section in ("params", "circumstances", "tags"):
        of_section = [row for row in rows if row.section == section]
        tables += _tables(SECTION_TITLES[section].capitalize(), of_section, names)
    if len(metrics) > _METRICS:
        tables.append(
            _metric_table(metrics[_METRICS:], names, runs, f"{len(metrics) - _METRICS:,} more metrics")
        )
    return to_page(
        Report(
            title
            or (runs[0].name if len(runs) == 1 else f"{len(runs):,} runs of {', '.join(experiments[:3])}"),
            f"{', '.join(experiments[:5])}   {format_timestamp(now_ms())}",
            tables,
            [chart_svg(store, runs, row.key) for row in metrics[:_CHARTS]],
            _texts(store, runs, goal, of),
        )
    )


def chart_svg(store: Store, runs: Sequence[Run], key: str, y_scale: ScaleName = "linear") -> str:
    """One metric of all runs as an SVG element."""
    title = f"{key} {direction_arrow(key)}".rstrip()
    curves = figure_curves(store, runs, key)
    return to_svg(
        draw_figure(curves, title, _CHART_WIDTH, _CHART_HEIGHT, y_scale=y_scale, legend=False), title
    )


def figure_file(
    store: Store,
    runs: Sequence[Run],
    key: str,
    path: Path,
    y_scale: ScaleName = "linear",
    low: float | None = None,
    high: float | None = None,
) -> None:
    """A metric of these runs at paper size, as .svg or .pdf. Raises BadInput."""
    with about(run.experiment for run in runs):
        title = f"{key} {direction_arrow(key)}".rstrip()
    drawing = draw_figure(figure_curves(store, runs, key, low, high), title, y_scale=y_scale)
    ending = path.suffix.lower()
    if ending not in (".svg", ".pdf"):
        raise BadInput(f"{path} ends neither in .svg nor in .pdf.")
    write_new(path, to_pdf(drawing) if ending == ".pdf" else to_svg(drawing, key).encode())


def figure_curves(
    store: Store, runs: Sequence[Run], key: str, low: float | None = None, high: float | None = None
) -> list[FigureCurve]:
    """The curves, with at most a few hundred lowest and highest values each; runs without the metric have none."""
    from mltrack.store.curve import bucket
    from mltrack.store.errors import NotFound

    found = []
    for run in runs:
        try:
            points = store.points(run.run_id, key)
        except NotFound:
            found.append(FigureCurve(run.name, np.empty(0), np.empty(0)))
            continue
        x, y = bucket(points.steps.astype(np.float64), points.values, _COLUMNS, low, high)
        if low is not None or high is not None:
            inside = (x >= (x[0] if low is None else low)) & (x <= (x[-1] if high is None else high))
            x, y = x[inside], y[inside]
        found.append(FigureCurve(run.name, x, y))
    return found


def _overview(runs: Sequence[Run]) -> Table:
    now = now_ms()
    rows: list[list[Cell]] = []
    for place, run in enumerate(runs):
        status = status_cell(run, now)
        git = run.facts.get("git")
        commit = str(git.get("commit") or "")[:10] if isinstance(git, dict) else ""
        dirty = " with changes" if isinstance(git, dict) and git.get("dirty") else ""
        style = {"red": "error", "yellow": "yellow"}.get(status.style or "", "")
        rows.append(
            [
                (f"{curve_letter(place)} {run.name}" if len(runs) > 1 else run.name, ""),
                (status.text, style),
                (run.experiment, ""),
                (format_timestamp(run.start_ms), ""),
                (format_duration(duration_seconds(run, now)), ""),
                (run.user, ""),
                (run.host, ""),
                (commit + dirty, "yellow" if dirty else ""),
                (run.run_id, "dim"),
                (run.note, ""),
            ]
        )
    headings = ["run", "status", "experiment", "started", "took", "by", "on", "commit", "id", "note"]
    kept = [place for place in range(len(headings)) if place < 2 or any(row[place][0] for row in rows)]
    return Table(
        "Runs", [headings[place] for place in kept], [[row[place] for place in kept] for row in rows]
    )


def _metric_table(
    metrics: Sequence[Row], names: Sequence[str], runs: Sequence[Run], folded: str = ""
) -> Table:
    rows: list[list[Cell]] = []
    for row in metrics:
        values = [value if isinstance(value, float) else None for value in row.values]
        best = row.best if row.differs else None
        cells: list[Cell] = [(f"{row.key} {direction_arrow(row.key)}".rstrip(), "")]
        for value, text in zip(values, format_column(values, 5), strict=True):
            if value is None:
                cells.append(("not logged", "dim"))
            elif best is not None and value == best:
                cells.append((f"{text} ★", "best"))
            else:
                cells.append((f"{text}  {format_change(value, best)}" if best is not None else text, ""))
        rows.append(cells)
    note = "Best values; last ones where neither end is good." if rows and not folded else ""
    return Table(folded or "Metrics", ["", *names], rows, note, bool(folded))


def _tables(title: str, rows: Sequence[Row], names: Sequence[str]) -> list[Table]:
    """What differs, and what is equal behind a click; of one run everything."""
    if len(names) == 1:
        return [Table(title, ["", *names], [_cells(row) for row in rows])] if rows else []
    differing = [_cells(row) for row in rows if row.differs]
    equal = [[(row.key, ""), (_value(row.values[0]), "")] for row in rows if not row.differs]
    found = []
    if differing:
        note = "Ranked by effect." if any(row.effect for row in rows) else ""
        found.append(Table(f"{title} that differ", ["", *names], differing, note))
    if equal:
        found.append(Table(f"{title}: {len(equal):,} equal", ["", "all"], equal, folded=True))
    return found


def _cells(row: Row) -> list[Cell]:
    usual = row.usual
    return [
        (row.key, ""),
        *(
            (_value(value), "dim" if value is None else "yellow" if row.differs and value != usual else "")
            for value in row.values
        ),
    ]


def _value(value: str | float | None) -> str:
    return "absent" if value is None else format_parameter(str(value))


def _texts(store: Store, runs: Sequence[Run], goal: str | None, of: str) -> list[Texts]:
    """Why one is better, and the code and packages behind it: of the first run against a few others."""
    from mltrack.tui.worker_calls.compare import compare_detail

    bring(store, runs)
    if len(runs) == 1:
        from mltrack.tui.worker_calls.code import code

        return [Texts("Code and environment", code(store, runs[0].run_id, 100)["lines"])]
    ids = [run.run_id for run in runs]
    found: list[Texts] = []
    if goal is not None:
        lines = compare_detail(store, ids, "best", "metrics", goal, 1)["lines"]
        found.append(Texts(f"{goal}, and why one is better (by {of})", lines))
    for other in range(1, min(len(runs), _PAIRS)):
        letters = f"{curve_letter(0)} and {curve_letter(other)}"
        detail = compare_detail(store, ids, "best", "circumstances", "commit", other)
        if detail["lines"] and len(detail["lines"]) > 1:
            found.append(Texts(f"Code of {letters}", detail["lines"]))
    packages = compare_detail(store, ids, "best", "circumstances", "packages", 1)
    if len(packages["lines"]) > 1:
        found.append(Texts("Packages that differ", packages["lines"]))
    return found


def _runs(count: int) -> str:
    return f"{count:,} run{'' if count == 1 else 's'}"


def absolute(name: str) -> Path:
    """A file as a person wrote it."""
    return Path(os.path.abspath(os.path.expanduser(name)))

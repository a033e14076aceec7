"""`mltrack metrics` and `mltrack plot`: the points of a metric as numbers and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mltrack.store.errors import BadInput
from mltrack.tui.clean import clean, clip
from mltrack.tui.cli.output import json_number, list_options, write_csv, write_json, write_lines, write_text
from mltrack.tui.cli.session import Session, resolve_run, resolve_runs
from mltrack.tui.cli.table import Column, draw_table

if TYPE_CHECKING:
    from mltrack.store.records import Points, Run
    from mltrack.store.store import Store
    from mltrack.tui.cli.terminal import Terminal
    from mltrack.tui.draw.braille import Curve, Plot
    from mltrack.tui.draw.scales import ScaleName

_PLOT_LINES = 20
_LEGEND_LINES = 10
_CLOSE_KEYS = 5

# How long a history that lies on a server is waited for.
HISTORY_SECONDS = 20.0


@click.command("metrics")
@click.argument("run")
@click.argument("key", required=False)
@click.option("--rank", type=int, default=0, show_default=True, help="The series of this rank.")
@click.option("--superseded", is_flag=True, help="Also points that a later start of the run replaced.")
@list_options
@click.pass_obj
def metrics_command(
    session: Session,
    run: str,
    key: str | None,
    rank: int,
    superseded: bool,
    as_json: bool,
    as_csv: bool,
    raw: bool,
) -> None:
    """Print the points of a metric, exactly; without KEY list the metrics of the run.

    JSON: {"key": ..., "points": [[step, timestamp_ms, value], ...]}, NaN and infinities as texts.
    """
    with session.open() as store:
        store.patience = HISTORY_SECONDS
        found = resolve_run(store, run)
        if key is None:
            _list_metrics(found, session.terminal, as_json, as_csv, raw)
            return
        points = _points(store, found, key, rank, superseded)
    rows = zip(points.steps.tolist(), points.times_ms.tolist(), points.values.tolist(), strict=True)
    if as_json:
        write_json(
            {"key": key, "points": [[step, time_ms, json_number(value)] for step, time_ms, value in rows]}
        )
    elif as_csv:
        write_csv(["step", "timestamp_ms", "value"], rows, raw=raw)
    else:
        from mltrack.tui.draw.times import format_moment

        steps, times, values = points.steps.tolist(), points.times_ms.tolist(), points.values.tolist()
        write_lines(
            draw_table(
                [
                    Column("STEP", [f"{step}" for step in steps], "right", 0),
                    Column("TIME", [format_moment(time_ms) for time_ms in times], weight=0),
                    Column("VALUE", [str(json_number(value)) for value in values], "right", 0),
                ],
                session.terminal,
            )
        )


@click.command("plot")
@click.argument("key", default="")
@click.argument("runs", nargs=-1, metavar="RUN...")
@click.option(
    "--kind",
    type=click.Choice(["curve", "scatter", "parallel", "importance", "hist", "bands", "confusion"]),
    default="curve",
    show_default=True,
    help="Another picture, of many runs: KEY are then its columns, lr,val/acc.",
)
@click.option("--filter", "filter_text", default="", metavar="FILTER", help="With --kind: of these runs.")
@click.option("--experiment", metavar="NAME", help="With --kind: only runs of this experiment.")
@click.option(
    "-x",
    "x_axis",
    type=click.Choice(["step", "time"]),
    default="step",
    show_default=True,
    help="Steps, or seconds since the first point.",
)
@click.option(
    "-y",
    "y_scale",
    type=click.Choice(["linear", "log", "symlog"]),
    default="linear",
    show_default=True,
    help="Scale of the values.",
)
@click.option("--from", "low", type=float, metavar="X", help="Left edge.")
@click.option("--to", "high", type=float, metavar="X", help="Right edge.")
@click.option("--no-outliers", is_flag=True, help="Let the lowest and highest hundredth leave the picture.")
@click.option("--width", type=click.IntRange(20, 1000), help="Columns; default: the terminal's.")
@click.option(
    "--height", type=click.IntRange(4, 500), help=f"Lines; default: {_PLOT_LINES} or what the terminal has."
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write a figure at paper size instead: .svg or .pdf.",
)
@click.pass_obj
def plot_command(
    session: Session,
    key: str,
    runs: tuple[str, ...],
    kind: str,
    filter_text: str,
    experiment: str | None,
    x_axis: str,
    y_scale: ScaleName,
    low: float | None,
    high: float | None,
    no_outliers: bool,
    width: int | None,
    height: int | None,
    output: Path | None,
) -> None:
    """Draw a metric of one or more runs, for example: mltrack plot train/loss @last sage-owl-41 -y log"""
    from mltrack.tui.draw.braille import View, draw_plot

    terminal = session.terminal
    if kind != "curve":
        size = (width or terminal.width, height or max(8, min(2 * _PLOT_LINES, terminal.height - 3)))
        _plot_many(session, kind, key, runs, filter_text, experiment, size)
        return
    if not key or not runs:
        raise BadInput("Say which metric and which runs: mltrack plot train/loss @last.")
    with session.open() as store:
        store.patience = HISTORY_SECONDS
        found = resolve_runs(store, runs)
        if output is not None:
            from mltrack.tui.cli.report import figure_file

            figure_file(store, found, key, output, y_scale, low, high)
            write_text(f"Wrote {clean(key)} to {output}", terminal)
            return
        series = [_points(store, run, key, 0, False, strict=len(found) == 1) for run in found]
    curves = [_curve(run, points, x_axis) for run, points in zip(found, series, strict=True)]
    if not any(len(curve.x) for curve in curves):
        _raise_no_metric(found[0], key)
    view = View(low, high, y_scale=y_scale, ignore_outliers=no_outliers, ascii=terminal.ascii)
    lines = height or max(6, min(_PLOT_LINES, terminal.height - min(len(curves), _LEGEND_LINES) - 3))
    plot = draw_plot(curves, width or terminal.width, lines, view)
    what = "seconds" if x_axis == "time" else "step"
    write_text(f"{clean(key)}   by {what}   {y_scale}", terminal, "bold")
    write_lines(_coloured(plot, terminal))
    for note in plot.notes:
        write_text(note, terminal, "dim")
    _write_legend(found, curves, terminal)


def _write_legend(runs: Sequence[Run], curves: Sequence[Curve], terminal: Terminal) -> None:
    """One line per curve in the words of numbers: last, lowest and highest with their places."""
    import numpy as np

    from mltrack.tui.cli.table import Cell
    from mltrack.tui.draw.braille import curve_letter
    from mltrack.tui.draw.numbers import format_column, format_step

    shown = list(zip(runs, curves, strict=True))[:_LEGEND_LINES]
    finite = [np.isfinite(curve.y) for _, curve in shown]
    last = [float(curve.y[-1]) if len(curve.y) else None for _, curve in shown]
    lows = [
        int(np.argmin(np.where(ok, curve.y, np.inf))) if ok.any() else None
        for (_, curve), ok in zip(shown, finite, strict=True)
    ]
    highs = [
        int(np.argmax(np.where(ok, curve.y, -np.inf))) if ok.any() else None
        for (_, curve), ok in zip(shown, finite, strict=True)
    ]

    def at(places: Sequence[int | None]) -> tuple[list[str], list[str]]:
        values = [
            None if place is None else float(curve.y[place])
            for place, (_, curve) in zip(places, shown, strict=True)
        ]
        steps = [
            "" if place is None else "@" + format_step(float(curve.x[place]))
            for place, (_, curve) in zip(places, shown, strict=True)
        ]
        return format_column(values), steps

    low_values, low_steps = at(lows)
    high_values, high_steps = at(highs)
    letters = [curve_letter(index) if len(shown) > 1 else "" for index in range(len(shown))]
    columns = [
        Column(
            "",
            [
                Cell(f"{letter} {run.name}".strip(), f"curve:{index}")
                for index, (letter, (run, _)) in enumerate(zip(letters, shown, strict=True))
            ],
            weight=0,
        ),
        Column("LAST", format_column(last), "right", 0),
        Column("MIN", low_values, "right", 1),
        Column("", low_steps, "left", 2),
        Column("MAX", high_values, "right", 1),
        Column("", high_steps, "left", 2),
        Column("POINTS", [f"{len(curve.x):,}" for _, curve in shown], "right", 3),
    ]
    write_lines(draw_table(columns, terminal))
    if len(runs) > len(shown):
        write_text(f"and {len(runs) - len(shown)} more runs", terminal, "dim")


def _coloured(plot: Plot, terminal: Terminal) -> list[str]:
    lines = []
    for row in plot.rows:
        text = ""
        for span in row:
            bare = span.text.rstrip() if span is row[-1] else span.text
            text += terminal.style(terminal.fold(bare), f"curve:{span.curve}" if span.curve >= 0 else "dim")
        lines.append(text)
    return lines


def _curve(run: Run, points: Points, x_axis: str) -> Curve:
    import numpy as np

    from mltrack.tui.draw.braille import Curve

    if x_axis == "step":
        x = points.steps.astype(np.float64)
    else:
        first = int(points.times_ms.min()) if len(points.times_ms) else 0
        x = (points.times_ms - first) / 1000.0
    return Curve(run.name, x, points.values)


def _plot_many(
    session: Session,
    kind: str,
    columns: str,
    references: Sequence[str],
    filter_text: str,
    experiment: str | None,
    size: tuple[int, int],
) -> None:
    from mltrack.tui.cli.plots import plot_lines
    from mltrack.tui.goal import recall

    names = [name.strip() for name in columns.split(",") if name.strip()]
    recall(session.where)
    with session.open() as store:
        if kind == "confusion" and not references:
            references, names = names, []
        ids = [run.run_id for run in resolve_runs(store, references)]
        title, lines = plot_lines(
            store, kind, names, ids, filter_text, experiment, size, session.terminal.ascii
        )
    write_text(title, session.terminal, "bold")
    known = {
        "green": "green",
        "red": "red",
        "best": "best",
        "bold": "header",
        "dim": "dim",
        "curve:0": "cyan",
    }
    colours = ("cyan", "yellow", "green", "red")

    def colour(style: str) -> str | None:
        if style.startswith("curve:"):
            return "dim" if "ghost" in style else colours[int(style.partition(":")[2]) % len(colours)]
        return known.get(style)

    write_lines(
        "".join(session.terminal.style(session.terminal.fold(text), colour(style)) for text, style in line)
        for line in lines
    )


def _points(store: Store, run: Run, key: str, rank: int, superseded: bool, *, strict: bool = True) -> Points:
    points = store.points(run.run_id, key, rank=rank, superseded=superseded)
    if strict and not len(points.steps) and key not in run.metrics:
        _raise_no_metric(run, key)
    return points


def _raise_no_metric(run: Run, key: str) -> None:
    from difflib import get_close_matches

    from mltrack.store.errors import NotFound

    close = (
        get_close_matches(key, run.metrics, n=_CLOSE_KEYS, cutoff=0.5) or sorted(run.metrics)[:_CLOSE_KEYS]
    )
    has = f"; it has {', '.join(close)}" if close else "; nothing was logged to it"
    raise NotFound(f"Run {run.name} has no metric {clip(clean(key), 60)}{has}.")


def _list_metrics(run: Run, terminal: Terminal, as_json: bool, as_csv: bool, raw: bool) -> None:
    from mltrack.tui.draw.numbers import format_number, format_step

    rows = [run.metrics[key] for key in sorted(run.metrics)]
    if as_json:
        write_json(
            [
                {
                    "key": row.key,
                    "last": json_number(row.last),
                    "last_step": row.last_step,
                    "count": row.count,
                }
                for row in rows
            ]
        )
    elif as_csv:
        write_csv(
            ["key", "last", "last_step", "count"],
            ([row.key, json_number(row.last), row.last_step, row.count] for row in rows),
            raw=raw,
        )
    else:
        write_lines(
            draw_table(
                [
                    Column("METRIC", [row.key for row in rows], weight=0, widest=60),
                    Column("LAST", [format_number(row.last) for row in rows], "right", 0),
                    Column("@STEP", [format_step(row.last_step) for row in rows], "right", 0),
                    Column("POINTS", [f"{row.count:,}" for row in rows], "right", 0),
                ],
                terminal,
            )
        )

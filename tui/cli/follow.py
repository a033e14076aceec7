"""`mltrack watch` and `mltrack wait`: runs while they go on."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from mltrack.store.records import ENDED
from mltrack.tui.clean import clean, clip
from mltrack.tui.cli.exit_codes import ExitCode
from mltrack.tui.cli.output import warn, write_text
from mltrack.tui.cli.run_look import duration_seconds, is_slurms, now_ms, status_cell, status_sentence
from mltrack.tui.cli.session import Session, resolve_run, resolve_runs
from mltrack.tui.cli.terminal import pause

if TYPE_CHECKING:
    from mltrack.store.records import Run
    from mltrack.store.store import Store
    from mltrack.tui.cli.terminal import Terminal

_LOOK_SECONDS = 1.0
_METRICS_SHOWN = 12
_PLAIN_METRICS = 6


@click.command("wait")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option(
    "--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Give up after so long (exit code 1)."
)
@click.pass_obj
def wait_command(session: Session, runs: tuple[str, ...], timeout: float | None) -> int:
    """Wait until runs have ended. Exit code 0 when all finished well, 1 otherwise."""
    deadline = None if timeout is None else time.monotonic() + timeout
    with session.open() as store:
        waiting = resolve_runs(store, runs)
        well = True
        while waiting:
            still = []
            for run in waiting:
                if run.status in ENDED or run.damage is not None:
                    write_text(f"{run.name}  {status_sentence(run, now_ms())}", session.terminal)
                    sys.stdout.flush()
                    well = well and run.status == "FINISHED"
                else:
                    still.append(run)
            if not still:
                break
            if deadline is not None and time.monotonic() >= deadline:
                warn(f"{len(still)} of {len(runs)} runs have not ended after {timeout:g} s")
                return ExitCode.FAILED
            time.sleep(
                _LOOK_SECONDS
                if deadline is None
                else min(_LOOK_SECONDS, max(0.0, deadline - time.monotonic()))
            )
            _ask_slurm(store, still)
            store.refresh(_LOOK_SECONDS)
            waiting = list(store.runs([run.run_id for run in still]))
    return ExitCode.OK if well else ExitCode.FAILED


@click.command("watch")
@click.argument("run")
@click.option(
    "--plain", is_flag=True, help="Print a line when something changed, instead of drawing in place."
)
@click.option(
    "--every",
    type=click.FloatRange(min=0.2),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="At most one look in so long.",
)
@click.option(
    "--metric", "-m", "keys", multiple=True, metavar="KEY", help="Show these metrics. Repeat for more."
)
@click.pass_obj
def watch_command(session: Session, run: str, plain: bool, every: float, keys: tuple[str, ...]) -> int:
    """Watch a run live until it ends; ctrl+c leaves, the run goes on."""
    with session.open() as store:
        found = resolve_run(store, run)
        found = watch(store, found, session.terminal, every, keys, plain=plain)
    return ExitCode.OK if found.status in ("FINISHED", "RUNNING") else ExitCode.FAILED


def watch(
    store: Store,
    run: Run,
    terminal: Terminal,
    every: float = 1.0,
    keys: Sequence[str] = (),
    plain: bool = False,
    going_on: Callable[[], bool] = lambda: True,
) -> Run:
    """Follow a run until it ends or `going_on` says no; drawn in place on a terminal, as lines elsewhere."""
    follow = _watch_plain if plain or not terminal.is_tty else _watch_in_place
    return follow(store, run, terminal, every, keys, going_on)


def _watch_plain(
    store: Store,
    run: Run,
    terminal: Terminal,
    every: float,
    keys: Sequence[str],
    going_on: Callable[[], bool],
) -> Run:
    """One line per change, for logs and screen readers."""
    shown = ""
    while True:
        line = _plain_line(run, keys)
        if line != shown:
            stamp = time.strftime("%H:%M:%S")
            write_text(f"{stamp}  {line}", terminal)
            sys.stdout.flush()
            shown = line
        if run.status in ENDED or run.damage is not None or not going_on():
            return run
        run = _next(store, run, every)


def _watch_in_place(
    store: Store,
    run: Run,
    terminal: Terminal,
    every: float,
    keys: Sequence[str],
    going_on: Callable[[], bool],
) -> Run:
    """A small block redrawn where it stands; nothing is sent while nothing changes."""
    drawn: list[str] = []
    sys.stdout.write("\x1b[?25l")
    try:
        while True:
            lines = _block(store, run, terminal, keys)
            if lines != drawn:
                up = f"\x1b[{len(drawn)}A" if drawn else ""
                # Each line clears what was behind it; lines too many are cleared below.
                sys.stdout.write(up + "".join(f"\r{line}\x1b[K\n" for line in lines) + "\x1b[J")
                sys.stdout.flush()
                drawn = lines
            if run.status in ENDED or run.damage is not None or not going_on():
                return run
            run = _next(store, run, every)
    finally:
        sys.stdout.write("\x1b[?25h")
        sys.stdout.flush()


def _ask_slurm(store: Store, runs: Sequence[Run]) -> None:
    """Let ends be written down that only Slurm knows of."""
    ids = [run.run_id for run in runs if is_slurms(run)]
    if ids:
        from mltrack.projects.slurm_jobs import look_for

        look_for(store.root, ids)


def _next(store: Store, run: Run, every: float) -> Run:
    pause(every)
    _ask_slurm(store, [run])
    store.refresh(_LOOK_SECONDS)
    runs = store.runs([run.run_id])
    return runs[0] if runs else run


def _plain_line(run: Run, keys: Sequence[str]) -> str:
    from mltrack.tui.draw.numbers import format_number, format_step

    parts = [status_cell(run, now_ms()).text]
    step = _step(run)
    if step is not None:
        parts.append(f"step {format_step(step)}" + (f"/{format_step(run.total)}" if run.total else ""))
    for key in _chosen(run, keys)[:_PLAIN_METRICS]:
        parts.append(f"{key} {format_number(run.metrics[key].last)}")
    if run.status in ENDED and run.reason:
        parts.append(run.reason.split("\n")[0])
    return "  ".join(parts)


def _block(store: Store, run: Run, terminal: Terminal, keys: Sequence[str]) -> list[str]:
    from mltrack.tui.cli.table import Cell, Column, draw_table
    from mltrack.tui.draw.numbers import format_number, format_si, format_step
    from mltrack.tui.draw.sparkline import draw_bar, draw_sparkline
    from mltrack.tui.draw.times import format_duration

    def line(text: str, style: str | None = None) -> str:
        return terminal.style(clip(terminal.fold(clean(text, None)), terminal.width - 1), style)

    now = now_ms()
    lines = [line(f"{run.experiment} › {run.name}", "bold")]
    lines.append(line(status_sentence(run, now), status_cell(run, now).style))
    step, total = _step(run), run.total
    seconds = duration_seconds(run, now) or 0.0
    if step is not None and total:
        rate = step / seconds if seconds > 0 else 0.0
        left = format_duration((total - step) / rate) if rate > 0 and run.status == "RUNNING" else ""
        bar = draw_bar(step / total, 24)
        text = f"step {format_step(step)}/{format_si(total)} {bar} {100 * step // total}%  {format_number(rate, 3)} it/s"
        lines.append(line(text + (f"  ETA {left}" if left else "") + f"  ran {format_duration(seconds)}"))
    shown = _chosen(run, keys)[: max(3, min(_METRICS_SHOWN, terminal.height - 6))]
    trend = max(8, min(40, terminal.width - 60))
    rows = [run.metrics[key] for key in shown]
    table = draw_table(
        [
            Column("METRIC", list(shown), weight=0),
            Column("LAST", [Cell(format_number(row.last), "bold") for row in rows], "right", 0),
            Column("@STEP", [format_step(row.last_step) for row in rows], "right", 1),
            Column(
                "TREND",
                [draw_sparkline(_thinned(store, run, key, trend), trend) for key in shown],
                weight=2,
                widest=trend,
            ),
        ],
        terminal,
    )
    return lines + (table if rows else [line("nothing logged yet", "dim")])


def _thinned(store: Store, run: Run, key: str, width: int) -> list[float | None]:
    values = store.points(run.run_id, key).values
    stride = max(1, len(values) // (width * 8))
    return [float(value) for value in values[::stride]]


def _chosen(run: Run, keys: Sequence[str]) -> list[str]:
    """The metrics asked for, else the goal, then what changed last."""
    from mltrack.tui.goal import guess_goal, is_background

    if keys:
        return [key for key in keys if key in run.metrics]
    goal = guess_goal(dict.fromkeys(run.metrics, 1))
    rest = [key for key in run.metrics if key != goal and not key.startswith("system/")]
    rest.sort(key=lambda key: (is_background(key), key))
    return ([goal] if goal is not None else []) + rest


def _step(run: Run) -> int | None:
    if run.step is not None:
        return run.step
    return max(
        (row.last_step for key, row in run.metrics.items() if not key.startswith("system/")), default=None
    )

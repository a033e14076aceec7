"""`mltrack demo DIR`: a store with a story, or with as many runs as wanted."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mltrack.store.errors import BadInput
from mltrack.tui.cli.output import write_text
from mltrack.tui.cli.session import Session
from mltrack.tui.drawable import is_terminal

if TYPE_CHECKING:
    from mltrack.store.demo.story import Story

_BULK_POINTS, _BULK_METRICS, _BULK_PARAMS, _BULK_EXPERIMENTS = 10, 20, 5, 20


@click.command("demo")
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--runs",
    type=click.IntRange(1, 10_000_000),
    metavar="N",
    help="So many runs, all alike, instead of the story.",
)
@click.option(
    "--points",
    type=click.IntRange(1, 10_000_000),
    metavar="P",
    help=f"With --runs: points of each metric [{_BULK_POINTS}].",
)
@click.option(
    "--metrics",
    type=click.IntRange(1, 100_000),
    metavar="M",
    help=f"With --runs: metrics of each run [{_BULK_METRICS}].",
)
@click.option(
    "--params",
    type=click.IntRange(5, 10_000),
    metavar="N",
    help=f"With --runs: params of each run [{_BULK_PARAMS}].",
)
@click.option(
    "--experiments",
    type=click.IntRange(1, 10_000),
    metavar="N",
    help=f"With --runs: experiments they are in [{_BULK_EXPERIMENTS}].",
)
@click.option(
    "--seed", type=click.IntRange(0, 2**31), default=7, show_default=True, help="Same seed, same data."
)
@click.option("--live", is_flag=True, help="Go on logging to the runs in progress until ctrl+c.")
@click.option("--seconds", type=click.FloatRange(min=0), hidden=True, help="End --live by itself.")
@click.option(
    "--summaries-only",
    is_flag=True,
    help="With --runs: no points, only their summaries: enough for tables, filters and sorting.",
)
@click.pass_obj
def demo_command(
    session: Session,
    folder: Path,
    runs: int | None,
    points: int | None,
    metrics: int | None,
    params: int | None,
    experiments: int | None,
    seed: int,
    live: bool,
    seconds: float | None,
    summaries_only: bool,
) -> None:
    """Fill a store in DIR (new or empty) with a story to try things on.

    The story: a sweep of 41 runs in which one is worse, and not for the reason that meets the eye; seeds; a run that
    spikes and recovers; NaN, out of memory, silent, lost, damaged, resumed, eight ranks, 1,500 metrics, hostile names.
    """
    if runs is None and (points or metrics or params or experiments or summaries_only):
        raise click.UsageError(
            "--points, --metrics, --params, --experiments and --summaries-only need --runs"
        )
    if runs is not None and live:
        raise click.UsageError("--live belongs to the story, not to --runs")
    if (folder / "runs").exists() or (folder.exists() and any(folder.iterdir())):
        raise BadInput(f"{folder} is not empty; name a folder that is new or empty.")
    if live and seconds is None and is_terminal():
        from mltrack.tui.cli.open_app import open_app

        open_app(Session(None, session.terminal), ("--demo", str(folder)))
    began = time.monotonic()
    if runs is not None:
        from mltrack.store.demo.bulk import write_bulk

        count = runs
        write_bulk(
            folder,
            runs,
            points=points or _BULK_POINTS,
            summaries_only=summaries_only,
            metrics=metrics or _BULK_METRICS,
            params=params or _BULK_PARAMS,
            experiments=experiments or _BULK_EXPERIMENTS,
            seed=seed,
            on_progress=lambda done: _report(f"{done:,} of {runs:,} runs written"),
        )
        _fold(folder)
    else:
        from mltrack.store.client.host import identity
        from mltrack.store.demo.story import Story

        story = Story(folder, seed)
        count = story.write(dict(identity()) if live else None)
        if live:
            _show_live(session, folder, story, count, seconds)
            return
        _fold(folder)
    _report("")
    write_text(
        f"{count:,} runs in {folder} after {time.monotonic() - began:.1f} s. Look at them:", session.terminal
    )
    write_text(f"  mltrack --store {folder} ls", session.terminal, "green")


def _show_live(session: Session, folder: Path, story: Story, count: int, seconds: float | None) -> None:
    """Log on in the background and watch the leading run in front."""
    import threading

    from mltrack.store.demo.live import continue_runs
    from mltrack.store.opening import open_store
    from mltrack.tui.cli.follow import watch

    write_text(
        f"{count} runs in {folder}; {len(story.going_on)} go on until ctrl+c. In another terminal:",
        session.terminal,
    )
    write_text(f"  mltrack --store {folder} ls", session.terminal, "green")
    sys.stdout.flush()
    stop = threading.Event()
    logging = threading.Thread(target=continue_runs, args=(story,), kwargs={"seconds": seconds, "stop": stop})
    logging.start()
    try:
        with open_store(str(folder)) as store:
            store.refresh(None)
            leading = max(story.going_on, key=lambda going: going.trial.best).run.run_id
            watch(store, store.run(leading), session.terminal, going_on=logging.is_alive)
    except KeyboardInterrupt:
        write_text("", session.terminal)
    finally:
        stop.set()
        logging.join()


def _fold(folder: Path) -> None:
    from mltrack.store.opening import open_store

    _report("reading the journals into the database")
    with open_store(str(folder)) as store:
        store.refresh(None)


def _report(text: str) -> None:
    """One line on a terminal that the next report replaces; silence elsewhere."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{text}\x1b[K")
        sys.stderr.flush()

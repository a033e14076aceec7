"""`mltrack alerts`: what is wrong with runs now, and what happens to them from now on."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from mltrack.store.errors import BadInput
from mltrack.tui.alerts import (
    GOOD,
    KINDS,
    Condition,
    Samples,
    Spike,
    conditions,
    gpu_metrics,
    news,
    proven_spikes,
    watched_metrics,
)
from mltrack.tui.cli.output import warn, write_json, write_text
from mltrack.tui.cli.run_look import now_ms
from mltrack.tui.cli.session import Session
from mltrack.tui.goal import about, recall

if TYPE_CHECKING:
    from mltrack.store.records import Run
    from mltrack.store.store import Store

# Runs that are looked at; a store with more running at once is a cluster, whose scheduler has alerts of its own.
_MOST_RUNS = 500


class Watch:
    """Looks at the runs that go on, and at those that did at the look before. Nothing that was so at ``began_ms`` is news."""

    def __init__(self, store: Store, began_ms: int, experiment: str | None = None) -> None:
        self._store = store
        self._experiment = experiment
        self._began_ms = began_ms
        self._before: dict[str, frozenset[str]] = {}
        self._going: set[str] = set()

    def look(self) -> list[tuple[Run, Condition]]:
        """What is new since the look before."""
        asked = self._store.search
        running = asked("status = 'running'", experiment=self._experiment, limit=_MOST_RUNS).run_ids
        started = asked(f"start >= {self._began_ms}", experiment=self._experiment, limit=_MOST_RUNS).run_ids
        unknown = [run_id for run_id in started if run_id not in self._before]
        ids = list(dict.fromkeys([*running, *self._going, *unknown]))
        runs = {run.run_id: run for run in self._store.runs(ids, folders=False)}
        now = {run_id: standing(self._store, run) for run_id, run in runs.items()}
        found = news(self._before, now, self._began_ms, runs)
        self._before.update(
            (run_id, frozenset(one.identity for one in holding)) for run_id, holding in now.items()
        )
        self._going = set(running)
        return [(runs[condition.run_id], condition) for condition in found]


def standing(store: Store, run: Run) -> list[Condition]:
    """All conditions of a run, with its series looked through."""
    with about((run.experiment,)):
        return conditions(run, now_ms(), *_looked_through(store, run))


def _looked_through(store: Store, run: Run) -> tuple[list[Spike], dict[str, Samples]]:
    from mltrack.store.curve_events import find_events

    spikes: list[Spike] = []
    gpus: dict[str, Samples] = {}
    if run.status == "RUNNING":
        for key in watched_metrics(run):
            points = store.points(run.run_id, key)
            spikes += proven_spikes(
                key, points.steps.tolist(), points.values.tolist(), find_events(points.values)
            )
        for key in gpu_metrics(run):
            points = store.points(run.run_id, key)
            gpus[key] = list(zip(points.times_ms.tolist(), points.values.tolist(), strict=True))
    return spikes, gpus


def told(run: Run, condition: Condition) -> dict[str, str]:
    """An alert for programs: the hook's input and a line of `--json`."""
    return {
        "kind": condition.kind,
        "run_id": run.run_id,
        "run_name": run.name,
        "experiment": run.experiment,
        "about": condition.about,
        "sentence": f"{run.name} {condition.sentence}",
    }


@click.command("alerts")
@click.option("-x", "--experiment", metavar="NAME", help="Only runs of this experiment.")
@click.option("-f", "--follow", is_flag=True, help="Print what happens from now on, until interrupted.")
@click.option("--kinds", metavar="A,B", default="", help=f"Only these: {', '.join(KINDS)}.")
@click.option(
    "--every",
    type=click.FloatRange(min=0.2),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="With -f: how often to look.",
)
@click.option("--hooks", is_flag=True, help="With -f: run the command of [hooks] alert, too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: a list, with -f an object per line.")
@click.pass_obj
def alerts_command(
    session: Session,
    experiment: str | None,
    follow: bool,
    kinds: str,
    every: float,
    hooks: bool,
    as_json: bool,
) -> None:
    """Say what is wrong with the runs that go on, and which failed or were lost in the last 24 hours."""
    wanted = {kind.strip() for kind in kinds.split(",") if kind.strip()} or set(KINDS)
    unknown = sorted(wanted - set(KINDS))
    if unknown:
        raise BadInput(f"There is no kind '{unknown[0]}'; kinds are {', '.join(KINDS)}.")
    recall(session.where)
    with session.open() as store:
        if not follow:
            found = [
                (run, condition) for run, condition in _now(store, experiment) if condition.kind in wanted
            ]
            if as_json:
                write_json([told(run, condition) for run, condition in found])
            for run, condition in () if as_json else found:
                _write(session, run, condition)
            if not found and not as_json:
                write_text("Nothing is wrong.", session.terminal, "green")
            return
        watch = Watch(store, now_ms(), experiment)
        watch.look()
        while True:
            time.sleep(every)
            store.refresh(every)
            for run, condition in watch.look():
                if condition.kind not in wanted:
                    continue
                if as_json:
                    sys.stdout.write(json.dumps(told(run, condition)) + "\n")
                else:
                    _write(session, run, condition)
                if hooks:
                    for trouble in tell_hooks(told(run, condition), condition.identity):
                        warn(trouble)
            sys.stdout.flush()


def tell_hooks(facts: Mapping[str, str], identity: str) -> list[str]:
    """Run the user's command for an alert, once whoever of several programs saw it first."""
    from mltrack.store.hooks import tell_once

    return tell_once("alert", identity, facts)


def _now(store: Store, experiment: str | None) -> list[tuple[Run, Condition]]:
    running = store.search("status = 'running'", experiment=experiment, limit=_MOST_RUNS).run_ids
    ended = store.search(
        "end > -24h and status != 'finished'", experiment=experiment, limit=_MOST_RUNS
    ).run_ids
    runs = store.runs(list(dict.fromkeys([*running, *ended])), folders=False)
    found = [(run, condition) for run in runs for condition in standing(store, run)]
    return [(run, condition) for run, condition in found if condition.kind not in GOOD]


def _write(session: Session, run: Run, condition: Condition) -> None:
    style = (
        "green"
        if condition.kind in GOOD
        else "yellow"
        if condition.kind in ("plateau", "idle-gpu")
        else "red"
    )
    write_text(
        f"{run.name} {condition.sentence}   {run.experiment} {run.run_id[:8]}", session.terminal, style
    )

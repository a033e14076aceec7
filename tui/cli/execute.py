"""`mltrack exec -- COMMAND`: a command that knows nothing of us, as a run."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from mltrack.tui.cli.output import warn
from mltrack.tui.cli.session import Session

if TYPE_CHECKING:
    from mltrack.store.client.run import ActiveRun


@click.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("-x", "--experiment", metavar="NAME", help="Experiment of the run.")
@click.option("--name", metavar="NAME", help="Name of the run.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND...")
@click.pass_obj
def exec_command(session: Session, experiment: str | None, name: str | None, command: tuple[str, ...]) -> int:
    """Run a command as a run: its output, exit code, code and machine are recorded.

    What the command logs with mltrack goes to the same run. The exit code is the command's own.
    """
    return record_command(session.where, command, experiment=experiment, name=name)[0]


def record_command(
    where: str | None,
    command: Sequence[str],
    *,
    experiment: str | None = None,
    name: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> tuple[int, str]:
    """Run a command in this folder as a run of the store ``where``. (its exit code, id of the run)."""
    from mltrack.store.client import host, log
    from mltrack.store.client.run_command import run_command
    from mltrack.store.errors import BadInput

    # The output is kept by run_command, which sees also what C libraries and children print.
    os.environ["MLTRACK_CONSOLE"] = "0"
    log.set_store(where)
    try:
        run = log.start_run(run_name=name, experiment=experiment)
    except log.UsageError as error:
        raise BadInput(str(error)) from None
    if tags:
        run.set_tags(dict(tags))
    run.record("facts", v={"command": host.redact_command(list(command)), "script": ""})
    environ = {
        **os.environ,
        "MLTRACK_RUN_ID": run.run_id,
        "MLTRACK_EXPERIMENT": run.experiment,
        "MLTRACK_STORE": log.chosen_store().url,
    }
    result = run_command(command, console_path=run.folder / "console.log", env=environ, warn=warn)
    if _logged_itself(run):
        # The command's own start of the run is newer than ours; its exit code counts only in a start newer still.
        log.end_run()
        os.environ["MLTRACK_FACTS"] = os.environ["MLTRACK_SYSTEM_METRICS"] = "0"
        run = log.start_run(run_id=run.run_id, experiment=run.experiment, system_metrics=False)
        run.record("facts", v={"command": host.redact_command(list(command)), "script": ""})
    ended_by = signal.Signals(result.signal).name if result.signal is not None else None
    if result.exit_code == 0:
        run.finish("FINISHED", 0)
    else:
        reason = ended_by or (result.last_lines[-1] if result.last_lines else f"exit code {result.exit_code}")
        status = "KILLED" if ended_by else "FAILED"
        run.finish(status, result.exit_code, {"reason": reason[:200], "signal": ended_by})
    return result.exit_code, run.run_id


def _logged_itself(run: ActiveRun) -> bool:
    """Whether the command started the run again, as a script that imports mltrack does."""
    return len(list(run.folder.glob("meta.*.jsonl"))) > 1

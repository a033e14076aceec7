"""`mltrack checkout` and `mltrack rerun`: the code of a run as it was, and its command once more."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mltrack.store.errors import BadInput
from mltrack.tui.clean import clean
from mltrack.tui.cli.output import warn, write_text
from mltrack.tui.cli.session import Session, resolve_run
from mltrack.tui.kept_files import KeptFiles

if TYPE_CHECKING:
    from mltrack.projects.checkout import CheckedOut
    from mltrack.store.records import Run
    from mltrack.store.store import Store

RERUN_TAG = "mltrack.rerun_of"
# What stands where a secret was.
_REDACTED = "***"


@click.command("checkout")
@click.argument("run")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--repo", metavar="WHERE", default="", help="Take the commit from this folder or address.")
@click.option("--partial", is_flag=True, help="Make what is there when something was not recorded.")
@click.pass_obj
def checkout_command(session: Session, run: str, folder: Path, repo: str, partial: bool) -> None:
    """Make DIR the tree a run was started from: its commit, its uncommitted changes, its small untracked files."""
    with session.open() as store:
        found = resolve_run(store, run)
        made = _checkout(session, store, found, folder, repo, partial)
    write_text(_sentence(found, made), session.terminal)


@click.command("rerun", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": True})
@click.argument("run")
@click.option(
    "--in",
    "folder",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Where its code is put; else a cache.",
)
@click.option("--repo", metavar="WHERE", default="", help="Take the commit from this folder or address.")
@click.option("--partial", is_flag=True, help="Run with what is there when something was not recorded.")
@click.option("--name", metavar="NAME", help="Name of the new run.")
@click.option("--dry-run", is_flag=True, help="Say what would run, and where.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND...]")
@click.pass_obj
def rerun_command(
    session: Session,
    run: str,
    folder: Path | None,
    repo: str,
    partial: bool,
    name: str | None,
    dry_run: bool,
    command: tuple[str, ...],
) -> int:
    """Run the recorded command of a run again, in its own code, and say how the metrics differ.

    The same arguments mean the same seed, where the seed is one of them. COMMAND takes the place of the recorded one.
    """
    from mltrack.store.client.journal import random_hex
    from mltrack.store.client.location import choose_store
    from mltrack.store.filesystem import cache_folder
    from mltrack.tui.cli.execute import record_command

    with session.open() as store:
        found = resolve_run(store, run)
        words = list(command) or recorded_command(found)
        if dry_run:
            write_text(shlex.join(words), session.terminal)
            return 0
        target = folder or cache_folder() / "reruns" / f"{found.run_id[:12]}-{random_hex(3)}"
        made = _checkout(session, store, found, target, repo, partial)
    write_text(_sentence(found, made), session.terminal)
    words = moved(words, made)
    where = choose_store(session.where).url
    write_text(f"$ {shlex.join(words)}", session.terminal, "dim")
    sys.stdout.flush()
    os.chdir(made.workdir)
    code, new = record_command(
        where,
        words,
        experiment=found.experiment,
        name=name or f"{found.name}-again",
        tags={RERUN_TAG: found.run_id},
    )
    with Session(where, session.terminal).open() as store:
        again = resolve_run(store, new)
        if (
            again.name == found.name
        ):  # the script names its run itself; two of one name could not be told apart
            store.rename(new, name or f"{found.name}-again")
            again = resolve_run(store, new)
        verdict, *details = reproduction_lines(store, found, again)
    write_text(f"mltrack compare {found.run_id[:8]} {new[:8]}", session.terminal, "dim")
    # The verdict comes last: above it stands whatever the command printed.
    for line, style in (*details, verdict):
        write_text(line, session.terminal, style or None)
    return code


def recorded_command(run: Run) -> list[str]:
    """The argv of a run. Raises BadInput with the reason when it cannot be run again as it stands."""
    words = run.facts.get("command")
    if not isinstance(words, Sequence) or isinstance(words, str) or not words:
        raise BadInput(f"The command of {clean(run.name, 60)} was not recorded; give one behind --.")
    project = run.facts.get("project")
    if isinstance(project, Mapping) and project.get("backend") == "docker":
        raise BadInput(
            f"{clean(run.name, 60)} ran in a container; `mltrack run {run.run_id[:8]}` launches it again with its values."
        )
    if any(_REDACTED in str(word) for word in words):
        raise BadInput(
            f"A secret was left out when the command of {clean(run.name, 60)} was recorded; give it whole behind --: "
            f"{clean(shlex.join(str(word) for word in words), 300)}"
        )
    return [str(word) for word in words]


def moved(words: Sequence[str], made: CheckedOut) -> list[str]:
    """The command with paths into the recorded tree turned to the new one, and an interpreter that exists."""
    found = list(words)
    root = made.root.rstrip("/")
    for place, word in enumerate(found[1:], 1):
        if root and word.startswith(root + "/"):
            here = made.folder / os.path.relpath(word, root)
            if here.exists():
                found[place] = str(here)
    if shutil.which(found[0]) is None and os.path.basename(found[0]).startswith("python"):
        warn(f"{found[0]} is not on this machine; {sys.executable} takes its place")
        found[0] = sys.executable
    return found


def reproduction_lines(store: Store, one: Run, other: Run) -> list[tuple[str, str]]:
    """What the second run did differently, in (line, style)."""
    from mltrack.tui.comparison import compare_rows
    from mltrack.tui.reproduction import differences, report_lines

    names = (one.name, other.name)
    lines = report_lines(differences(_series(store, one), _series(store, other)), names)
    apart = ("packages", "python", "data", "gpu", "host")
    for row in compare_rows([one, other], "last", read_blob=KeptFiles(store, [one, other])):
        if row.differs and (row.section == "params" or (row.section == "circumstances" and row.key in apart)):
            first, second = (str(value) if value is not None else "absent" for value in row.values)
            lines.append((f"  {row.key}: {first} then {second}", "yellow"))
    return lines


def _series(store: Store, run: Run) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for key in run.metrics:
        if not key.startswith("system/"):
            points = store.points(run.run_id, key)
            # In order of time within a step: the last one counts.
            found[key] = list(dict(zip(points.steps.tolist(), points.values.tolist(), strict=True)).items())
    return found


def _checkout(session: Session, store: Store, run: Run, folder: Path, repo: str, partial: bool) -> CheckedOut:
    from mltrack.projects.checkout import checkout

    made = checkout(
        run,
        Path(os.path.abspath(os.path.expanduser(folder))),
        KeptFiles(store, [run]).whole,
        repository=repo,
        partial=partial,
    )
    for name in made.missing:
        warn(f"not as it was: {name}")
    return made


def _sentence(run: Run, made: CheckedOut) -> str:
    changed = f" and {made.changed:,} changed files" if made.changed else ""
    return f"{made.folder} is the code of {run.name}: {made.commit[:12]}{changed}, {made.files:,} files, from {made.taken_from}"

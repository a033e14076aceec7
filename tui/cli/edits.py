"""`mltrack tag note rename move pin`: changes of what people wrote about runs. Each can be undone."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from mltrack.store.errors import BadInput, Conflict
from mltrack.tui.cli.output import warn, write_text
from mltrack.tui.cli.session import Session, resolve_run, resolve_runs

_NOTE_LIMIT_BYTES = 1 << 20


@click.command("tag")
@click.argument("run")
@click.argument("tags", nargs=-1, required=True, metavar="KEY[=VALUE]...")
@click.option("-d", "--delete", is_flag=True, help="Remove the tags instead.")
@click.pass_obj
def tag_command(session: Session, run: str, tags: tuple[str, ...], delete: bool) -> None:
    """Set or remove tags of a run, for example: mltrack tag @last baseline team=vision"""
    with session.open() as store:
        found = resolve_run(store, run)
        if delete:
            decision = store.delete_tags([found.run_id], [tag.partition("=")[0] for tag in tags])
        else:
            pairs = {key: value for key, _, value in (tag.partition("=") for tag in tags)}
            if "" in pairs:
                raise BadInput("A tag needs a key before the '='.")
            decision = store.set_tags([found.run_id], pairs)
    write_text(decision.sentence, session.terminal)


@click.command("note")
@click.argument("run")
@click.argument("text", required=False)
@click.option("--edit", "-e", is_flag=True, help="Open the note in $EDITOR.")
@click.pass_obj
def note_command(session: Session, run: str, text: str | None, edit: bool) -> None:
    """Write the note of a run. Without TEXT print it; `-` reads it from standard input, `--edit` opens $EDITOR."""
    with session.open() as store:
        found = resolve_run(store, run)
    if text is None and not edit:
        for line in found.note.split("\n"):
            write_text(line, session.terminal)
        return
    if edit:
        text = edit_text(found.note)
        if text == found.note:
            write_text("The note was not changed.", session.terminal)
            return
    elif text == "-":
        text = sys.stdin.read(_NOTE_LIMIT_BYTES + 1)
    assert text is not None
    # Opened again: nobody else waits while a person types.
    with session.open() as store:
        try:
            decision = store.note(found.run_id, text, found.note)
        except Conflict as problem:
            kept = keep_text(text)
            warn("nothing of your text is lost")
            raise BadInput(f"{problem.message} Yours is kept in {kept}.") from None
    write_text(decision.sentence, session.terminal)


@click.command("rename")
@click.argument("run")
@click.argument("name")
@click.pass_obj
def rename_command(session: Session, run: str, name: str) -> None:
    """Give a run another name."""
    with session.open() as store:
        decision = store.rename(resolve_run(store, run).run_id, name)
    write_text(decision.sentence, session.terminal)


@click.command("move")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.argument("experiment")
@click.pass_obj
def move_command(session: Session, runs: tuple[str, ...], experiment: str) -> None:
    """Move runs to another experiment, which is made when it does not exist."""
    with session.open() as store:
        decision = store.move([run.run_id for run in resolve_runs(store, runs)], experiment)
    write_text(decision.sentence, session.terminal)


@click.command("pin")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option("--off", is_flag=True, help="Unpin.")
@click.pass_obj
def pin_command(session: Session, runs: tuple[str, ...], off: bool) -> None:
    """Pin runs to the top, or unpin them."""
    with session.open() as store:
        decision = store.pin([run.run_id for run in resolve_runs(store, runs)], not off)
    write_text(decision.sentence, session.terminal)


def edit_text(text: str) -> str:
    """The text after a person was in $EDITOR. Raises BadInput when there is no editor or it failed."""
    editor = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")
    with tempfile.TemporaryDirectory(prefix="mltrack-") as folder:
        path = Path(folder) / "note.md"
        path.write_text(text, "utf-8")
        try:
            code = subprocess.run([*editor, "--", str(path)], check=False).returncode
        except OSError as error:
            raise BadInput(
                f"The editor {editor[0]} cannot be started ({error.strerror}). Set EDITOR."
            ) from None
        if code != 0:
            raise BadInput(f"The editor {editor[0]} ended with exit code {code}; the note was not changed.")
        return path.read_text("utf-8", "replace").removesuffix("\n")


def keep_text(text: str) -> str:
    """Put a text that could not be stored into a file; returns its name."""
    handle, name = tempfile.mkstemp(prefix="mltrack-note-", suffix=".md")
    with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
    return name

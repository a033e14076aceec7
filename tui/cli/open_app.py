"""`mltrack ui`: the app, under the command's name."""

from __future__ import annotations

import os
import sys

import click

from mltrack.tui.cli.session import Session


@click.command(
    "ui", context_settings={"ignore_unknown_options": True, "help_option_names": []}, add_help_option=False
)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def ui_command(session: Session, options: tuple[str, ...]) -> None:
    """Open the app; it takes the options of `mltrack-tui`."""
    open_app(session, options)


def open_app(session: Session, options: tuple[str, ...] = ()) -> None:
    """Be the app from here on, on the store that the command was given. A fresh interpreter: the command's modules are
    none that the app wants."""
    words = ["--store", session.where] if session.where is not None else []
    words += ["--ascii"] if session.terminal.ascii and session.terminal.is_tty else []
    code = "import sys; sys.path[:1] = []; from mltrack.tui.entry import main; main()"
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-c", code, *words, *options])

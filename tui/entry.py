"""`mltrack-tui`: something on the screen first, then everything else.

Order matters here: the alternate screen is entered and the worker started before Textual is imported, so that both
load at the same time.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    import argparse

_ENTER = "\x1b[?1049h\x1b[?25l\x1b[2J\x1b[H"
_LEAVE = "\x1b[?1049l\x1b[?25h"


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Open the app; without a terminal print the table that `mltrack ls` prints."""
    options = _parse(list(sys.argv[1:] if argv is None else argv))
    if not _is_terminal():
        _print_table(options)
    from mltrack.store.client.location import LocationError, choose_store

    try:
        choice = choose_store(options.store)
    except LocationError as error:
        from mltrack.tui.cli.output import warn

        warn(str(error))
        sys.exit(5)
    sys.exit(_open(options, choice.url, None if choice.is_remote else choice.root))


def _parse(arguments: list[str]) -> argparse.Namespace:
    import argparse

    parser = argparse.ArgumentParser(
        prog="mltrack-tui",
        description="Experiments in the terminal: a live table of runs, and their curves. ? shows the keys.",
    )
    parser.add_argument(
        "--store", metavar="WHERE", help="a folder or URL instead of the store `mltrack where` names"
    )
    parser.add_argument(
        "--filter", metavar="TEXT", default="", help='for example "lr < 1e-3 and status = running"'
    )
    parser.add_argument("--ascii", action="store_true", help="draw with ASCII characters only")
    parser.add_argument("--no-mouse", action="store_true", help="leave the mouse to the terminal")
    parser.add_argument("--readonly", action="store_true", help="change nothing in the store")
    return parser.parse_args(arguments)


def _is_terminal() -> bool:
    """Whether there is one to draw on: keys come from stdin, Textual draws on stderr, people look at stdout."""
    return os.environ.get("TERM", "") not in ("", "dumb") and all(os.isatty(number) for number in (0, 1, 2))


def _print_table(options: argparse.Namespace) -> NoReturn:
    from mltrack.tui.cli.main import main as command

    words = ["--ascii"] if options.ascii else []
    if options.store:
        words += ["--store", options.store]
    command([*words, "ls", "--", options.filter])


def _open(options: argparse.Namespace, url: str, root: os.PathLike[str] | None) -> int:
    import gc
    import termios
    from pathlib import Path

    missing = root is not None and not os.path.isdir(root)
    before = termios.tcgetattr(0)
    try:
        _skeleton(before)
        worker = None
        if not missing:
            from mltrack.tui.worker_process import WorkerProcess

            worker = WorkerProcess(options.store, options.readonly)
            worker.ask_first("view", filter=options.filter, first=os.get_terminal_size(1).lines)
        # Nothing of what is loaded now will be garbage; the app turns the collector on again with its first rows.
        gc.disable()
        os.environ.setdefault("TEXTUAL_ANIMATIONS", "none")
        os.environ.setdefault("TEXTUAL_SMOOTH_SCROLL", "0")
        from mltrack.tui.app import MltrackApp
        from mltrack.tui.cli.terminal import detect_terminal

        app = MltrackApp(
            options.store,
            place=url,
            root=Path(root) if missing and root is not None else None,
            filter_text=options.filter,
            readonly=options.readonly,
            ascii_only=options.ascii or detect_terminal().ascii,
            worker=worker,
        )
        app.run(mouse=not options.no_mouse)
        return app.return_code or 0
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
        os.write(1, _LEAVE.encode())


def _skeleton(before: list[int | list[bytes | int]]) -> None:
    """The frame of the screen, and no echo of keys that are typed meanwhile: they wait for the app."""
    import termios

    quiet = list(before)
    local = quiet[3]
    assert isinstance(local, int)
    quiet[3] = local & ~(termios.ECHO | termios.ICANON)
    # Enter that is typed now must still be enter when the app reads it.
    flags = quiet[0]
    assert isinstance(flags, int)
    quiet[0] = flags & ~termios.ICRNL
    termios.tcsetattr(0, termios.TCSADRAIN, quiet)
    columns, _ = os.get_terminal_size(1)
    os.write(1, f"{_ENTER}\x1b[1;48;5;235m{' mltrack   opening'.ljust(columns)[:columns]}\x1b[0m".encode())


if __name__ == "__main__":
    main()

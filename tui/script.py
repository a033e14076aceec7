"""What the installed `mltrack` and `mltrack-tui` call: them, or a sentence where only logging was installed."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from typing import NoReturn


def command() -> NoReturn:
    """Run the command line and exit."""
    open_streams()
    _need("click")
    from mltrack.tui.cli.main import main

    main()


def app() -> NoReturn:
    """Open the app and exit."""
    open_streams()
    _need("textual")
    from mltrack.tui.entry import main

    main()


def open_streams() -> None:
    """Where a standard stream is closed (`>&-`, some daemons), nothing is read and nothing written. Otherwise the next file
    that is opened would get its number, and the database what is printed."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free: this one.
            os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)
            setattr(sys, name, open(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))


def _need(package: str) -> None:
    if find_spec(package) is None:
        sys.stderr.write(
            f"mltrack: {package} is not installed here: this environment can log (pip install --no-deps), and no more. "
            "`pip install mltrack-tui` brings the rest.\n"
        )
        sys.exit(1)

"""Whether there is a terminal to draw on. Standard library only: asked before anything is loaded."""

from __future__ import annotations

import os


def is_terminal() -> bool:
    """Keys come from standard input, Textual draws on standard error, people look at standard output."""
    return os.environ.get("TERM", "") not in ("", "dumb") and all(os.isatty(number) for number in (0, 1, 2))

"""Telling a training that something went wrong, without ever getting in its way."""

from __future__ import annotations

import sys

# Each distinct trouble is said once; more distinct ones than this are only counted.
WARNINGS = 20


class Trouble:
    """Says each trouble once on stderr, never raises, and counts what it did not say."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def __call__(self, message: str, about: str = "") -> None:
        """Warn once per ``about`` (default: the message itself)."""
        key = about or message
        if key in self._said or len(self._said) >= WARNINGS:
            return
        self._said.add(key)
        try:
            sys.stderr.write(f"mltrack: {ascii(message)[1:-1]}\n")
        except (OSError, ValueError, AttributeError):
            return  # stderr is closed, full or None: nobody is there to be told

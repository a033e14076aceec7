"""Exit codes of the `mltrack` command, one table; docs/commands.md shows it."""

from __future__ import annotations

from enum import IntEnum

from mltrack.store import errors


class ExitCode(IntEnum):
    """What a script can rely on."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    AMBIGUOUS = 4
    STORE = 5
    INTERRUPTED = 130


# The first class that fits counts: special before general.
_BY_ERROR: tuple[tuple[type[errors.MltrackError], ExitCode], ...] = (
    (errors.AmbiguousRun, ExitCode.AMBIGUOUS),
    (errors.NotFound, ExitCode.NOT_FOUND),
    (errors.FilterError, ExitCode.USAGE),
    (errors.BadInput, ExitCode.USAGE),
    (errors.StoreError, ExitCode.STORE),
)


def exit_code_for(error: errors.MltrackError) -> ExitCode:
    """The exit code of an error of our own tree."""
    for kind, code in _BY_ERROR:
        if isinstance(error, kind):
            return code
    return ExitCode.FAILED

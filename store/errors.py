"""The one error tree.

    MltrackError                  everything this program says about itself going wrong
    ├── StoreError                the store as a whole
    │   ├── StoreUnavailable      not there, not reachable, locked for too long
    │   ├── StoreDamaged          there, but cannot be read or trusted
    │   ├── StoreNewer            written by a newer version of mltrack
    │   └── ReadOnly              may be read here, not changed
    ├── NotFound                  a thing that was named does not exist
    │   ├── RunNotFound
    │   └── ExperimentNotFound
    ├── AmbiguousRun              a name or prefix means several runs; has .candidates
    ├── FilterError               a search text is wrong; has .text and .position
    ├── Conflict                  the thing changed meanwhile, or exists already
    ├── Forbidden                 a policy reserves this for others, or asks for an approval or check first
    └── BadInput                  a value that cannot be stored or used

Each error carries one sentence for the person at the keyboard: what happened, and what to do about it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

EXCERPT_WIDTH = 72
"""Terminal cells of a search text that are shown around the place of its error."""


class MltrackError(Exception):
    """Base of the tree. `message` is a sentence that says what happened and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class StoreError(MltrackError):
    """The store as a whole cannot do what was asked."""


class StoreUnavailable(StoreError):
    """The store is not there, not reachable, or was locked for too long."""


class StoreDamaged(StoreError):
    """The store is there, but its content cannot be read or trusted."""


class StoreNewer(StoreError):
    """The store was written by a newer version of mltrack than this one."""


class ReadOnly(StoreError):
    """The store may be read here, but not changed."""


class NotFound(MltrackError):
    """A thing that was named does not exist."""


class RunNotFound(NotFound):
    """No run has this id, prefix or name."""


class ExperimentNotFound(NotFound):
    """No experiment has this name."""


class AmbiguousRun(MltrackError):
    """A name or id prefix means several runs; `candidates` are their run ids."""

    def __init__(self, message: str, candidates: Sequence[str]) -> None:
        super().__init__(message)
        self.candidates = tuple(candidates)


class FilterError(MltrackError):
    """A filter or sort text is wrong. `position` is the index in `text` where it stops making sense."""

    def __init__(self, text: str, position: int, message: str) -> None:
        super().__init__(message)
        self.text = text
        self.position = max(0, min(position, len(text)))

    def __str__(self) -> str:
        return f"{self.message}\n{self.excerpt()}"

    def excerpt(self) -> str:
        """Two lines: the text around the place, cut to EXCERPT_WIDTH cells, and a caret under the place."""
        before, after = self.text[: self.position], self.text[self.position :]
        left, left_cells = _take([_cell(character) for character in reversed(before)], EXCERPT_WIDTH // 2)
        right, _ = _take([_cell(character) for character in after], EXCERPT_WIDTH - left_cells)
        start = "…" if len(left) < len(before) else ""
        end = "…" if len(right) < len(after) else ""
        shown = "".join(reversed(left)) + "".join(right)
        return f"  {start}{shown}{end}\n  {' ' * (len(start) + left_cells)}^"


class Conflict(MltrackError):
    """The thing was changed by somebody else meanwhile, or exists already."""


class Forbidden(MltrackError):
    """A policy of the registry does not let this happen now, or by this person."""


class BadInput(MltrackError):
    """A value that cannot be stored or used as it is."""


def _cell(character: str) -> tuple[str, int]:
    """The character as one may print it, and the terminal cells it takes."""
    if not character.isprintable():
        return ("�" if character not in "\t\n\r" else " "), 1
    if unicodedata.combining(character):
        return character, 0
    return character, 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _take(cells: Sequence[tuple[str, int]], width: int) -> tuple[list[str], int]:
    """As many leading characters as fit into `width` cells, and the cells they take."""
    taken: list[str] = []
    used = 0
    for character, size in cells[: 2 * width]:
        if used + size > width:
            break
        taken.append(character)
        used += size
    return taken, used

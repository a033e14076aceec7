"""Kept files of the store, read by their digests: the patches of runs and their lists of packages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mltrack.store.errors import StoreUnavailable
from mltrack.store.machines import files_over_there
from mltrack.store.records import Run
from mltrack.store.store import Store

COMMAND_SECONDS = 20.0
"""How long a command waits for another machine."""
ASKED_SECONDS = 0.3
"""And how long the worker: others wait for it, too. Who looks asks again."""
_SHOWN_BYTES = 4 << 20


class KeptFiles:
    """Those of the store, and of the other machines that ``runs`` are on, each waited for at most ``seconds``."""

    def __init__(self, store: Store, runs: Sequence[Run], seconds: float = COMMAND_SECONDS) -> None:
        self._blobs = store.root / "blobs"
        self._machines = {run.source: files for run in runs if (files := files_over_there(run)) is not None}
        self._seconds = seconds
        self.waiting = False
        """Whether something has not come yet."""
        self._problems: dict[str, str] = {}

    def __call__(self, digest: str) -> str | None:
        """The text that is shown; None when it is not there."""
        content = self._content(digest, _SHOWN_BYTES)
        return None if content is None else content[:_SHOWN_BYTES].decode("utf-8", "backslashreplace")

    def whole(self, digest: str) -> bytes | None:
        """All of it; None when nobody has it any more. Raises StoreUnavailable when a machine that may have it cannot say."""
        content = self._content(digest, -1)
        if content is None and digest in self._problems:
            raise StoreUnavailable(f"{self._problems[digest]}.")
        return content

    def absence(self, digest: str) -> str:
        """Why it was None, behind "the patch 12345678... "."""
        problem = self._problems.get(digest)
        return "is not in the store any more" if problem is None else f"is on another machine: {problem}"

    def _content(self, digest: str, limit: int) -> bytes | None:
        # The digest comes from data: only hex is a name.
        if len(digest) != 64 or not all(letter in "0123456789abcdef" for letter in digest):
            return None
        try:
            with (self._blobs / digest[:2] / digest).open("rb") as file:
                return file.read(limit)
        except OSError:
            pass  # it may be where its run is
        for files in self._machines.values():
            told = files.kept(digest, self._seconds)
            if isinstance(told.answer, bytes):
                return told.answer
            if told.waiting or told.problem:
                self.waiting |= told.waiting
                self._problems[digest] = told.problem or f"{files.host} has not answered yet"
        return None


def bring(store: Store, runs: Sequence[Run]) -> None:
    """Fetch what is kept of runs on other machines, before a command asks for it as the screen does."""
    read = KeptFiles(store, runs)
    for run in runs:
        if files_over_there(run) is None:
            continue
        git = run.facts.get("git")
        for digest in (git.get("patch") if isinstance(git, Mapping) else None, run.facts.get("packages")):
            if isinstance(digest, str):
                read(digest)

"""An mltrack store on another machine: a mirror of its journals is kept here by a process, and followed as the store it is.

The reader only reads the mirror (store/mirror.py), so that a slow or absent machine never holds up whoever folds. It starts the
process, and tells it now and then that somebody still reads; the process ends when nobody does, or when this one does.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import orjson

from mltrack.store.client.journal import make_folder
from mltrack.store.machines import mirror_folder, mirror_state, trouble_of
from mltrack.store.mirror import LOCK, LONGEST_RETRY, PROOFS
from mltrack.store.sources.base import Found
from mltrack.store.sources.mltrack_store import MltrackReader
from mltrack.store.ssh_address import SCHEME

# One process for each address, whatever becomes of the reader that started it: a connection is not made anew for a reader.
_keepers: dict[str, subprocess.Popen[bytes]] = {}
_started: dict[str, int] = {}
"""When they were started, in ms."""
_WAIT_SECONDS = 0.05


class SshReader(MltrackReader):
    """Follows the mirror of one store."""

    kind: ClassVar[str] = "ssh"
    title: ClassVar[str] = "mltrack store behind ssh"

    def __init__(self, path: Path | str) -> None:
        super().__init__(path)
        self.path = mirror_folder(self.where)
        self._began = time.time_ns() // 1_000_000
        self._read: int | None = None

    @classmethod
    def recognise(cls, path: Path | str) -> bool:
        return str(path).startswith(SCHEME)

    def ask(self) -> None:
        """See to it that the mirror is kept."""
        keeper = _keepers.get(self.where)
        try:
            if keeper is not None and keeper.stdin is not None:
                os.write(keeper.stdin.fileno(), b"\n")
                return
        except OSError:
            pass  # it has ended: nobody had asked for long, or it was killed
        if _is_held(self.path / LOCK):
            return  # another process keeps it, for us too
        make_folder(self.path, self.path)
        _started[self.where] = time.time_ns() // 1_000_000
        code = "import sys; sys.path[:1] = []; from mltrack.store.mirror import keep_mirror; "
        _keepers[self.where] = keeper = subprocess.Popen(
            [sys.executable, "-c", f"{code}keep_mirror({self.where!r}, {str(self.path)!r})"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # ctrl+c and a resize are the screen's
        )
        assert keeper.stdin is not None
        os.set_blocking(keeper.stdin.fileno(), False)

    def await_first(self, seconds: float) -> bool:
        """Wait until all that is there now has come, or it is known why not. Whether that is so."""
        self.ask()
        until = time.monotonic() + seconds
        while not self._is_settled():
            if time.monotonic() >= until:
                return False
            time.sleep(_WAIT_SECONDS)
            if self.where not in _keepers:
                self.ask()  # who kept it may have been about to end
        return True

    def _read_proofs(self) -> None:
        """Of processes over there. Before the journals: what was written with the last breath is read, too."""
        self._lost = {}
        with suppress(FileNotFoundError, ValueError):
            self._prove(orjson.loads((self.path / PROOFS).read_bytes()))

    def _prove_here(self, folder: Path) -> None:
        """That is for the other side to do."""

    def _is_settled(self) -> bool:
        state = mirror_state(self.where)
        if int(state.get("tried", 0)) >= self._began:
            return True
        # What failed a moment ago fails again, and need not be waited for.
        if state.get("problem") and int(state["tried"]) > self._began - 1000 * LONGEST_RETRY:
            return True
        # Who keeps this mirror looks at its own pace; only the first look takes long. What was looked at before ours began is old.
        if self.where in _started:
            return int(state.get("looked", 0)) >= _started[self.where]
        return bool(state.get("looked")) and _is_held(self.path / LOCK)

    def scan(self, known: Mapping[str, str]) -> Iterator[Found | None]:
        self.ask()
        state = mirror_state(self.where)
        changes = int(state.get("changes", 0))
        # The state is written behind what it tells of; while much comes for the first time, that is read as it comes.
        if (changes != self._read or not state.get("looked")) and (self.path / "runs").is_dir():
            yield from super().scan(known)
            self._read = changes
        if trouble := trouble_of(self.where):
            raise OSError(0, trouble, self.where)


def _is_held(path: Path) -> bool:
    try:
        with path.open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False

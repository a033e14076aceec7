"""Files of runs on another machine, fetched when somebody looks: the list of a run's files, the beginning of one, the end of what it
printed, the patch of its code. The other side is store/mirror_files.py.

A connection of its own, made at the first question and kept: a large file does not hold up what comes for the mirror. Threads ask, so
that nobody waits longer than they want.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mltrack.store.client.journal import make_folder, random_hex
from mltrack.store.errors import StoreUnavailable
from mltrack.store.filesystem import cache_folder, digest_of
from mltrack.store.machines import trouble_of
from mltrack.store.mirror_files import PIECE_BYTES
from mltrack.store.mirror_line import ENDS, Line, Lost, heard, hello, say
from mltrack.store.questions import Questions
from mltrack.store.records import Run
from mltrack.store.ssh_address import remote_of

LOG_BYTES = 1 << 20
"""How much of the end of a log is fetched; what is printed after that comes, too."""
# The end of a log is fetched again after this.
_LOG_SECONDS = 1.5


class NotThere(ValueError):
    """What the other machine says of what it has not."""


class Unreachable(NotThere):
    """Why the other machine cannot be asked."""


@dataclass(frozen=True, slots=True)
class Told:
    """What came: ``waiting``, nothing yet; ``problem``: why nothing does."""

    answer: Any = None
    waiting: bool = False
    problem: str = ""


class FarFiles:
    """The files of the store behind one address."""

    def __init__(self, address: str) -> None:
        remote = remote_of(address)
        assert remote is not None
        self.host = remote.host
        self._remote = remote
        self._address = address
        self._questions = Questions("far-files")
        self._lock = threading.Lock()
        self._line: Line | None = None
        self._logged: dict[str, float] = {}

    # -- what is asked, waiting at most ``seconds``

    def listing(self, run_id: str, seconds: float) -> Told:
        """(entries, how many more there are): [path, kind, bytes, detail] each, as ``run_files.walk`` has them."""
        return self._told(("list", run_id), lambda: self.entries(run_id), seconds)

    def head(self, run_id: str, path: str, seconds: float) -> Told:
        """(the beginning of a file, the size of all of it)."""

        def read() -> tuple[bytes, int]:
            told, data = self._ask_for("artifact", run_id, path, 0)
            return data, int(told["size"])

        return self._told(("head", run_id, path), read, seconds)

    def log(self, run: Run, seconds: float) -> Told:
        """(a file of this machine with the end of what a run printed, the bytes before it)."""
        folder = self._kept_folder(run.run_id)
        copy = _log_copy(folder)
        if copy is not None and time.monotonic() - self._logged.get(run.run_id, 0.0) < _LOG_SECONDS:
            return Told(_copy_of(copy))
        told = self._told(("log", run.run_id), lambda: self._fetch_log(run, folder), seconds, again=True)
        # Until more comes, or where nothing comes any more, what is here is shown.
        if (told.waiting or told.problem) and copy is not None and copy.exists():
            return Told(_copy_of(copy))
        return told

    def kept(self, digest: str, seconds: float) -> Told:
        """The bytes of a patch or a list of packages; None where that store has none."""
        path = self._kept_folder(digest) / "kept"
        if path.exists():
            return Told(path.read_bytes())
        return self._told(("kept", digest), lambda: self._keep(digest, path), seconds)

    def _told(self, key: tuple[str, ...], work: Any, seconds: float, again: bool = False) -> Told:
        asked = self._questions.ask(key, work, seconds, again)
        if not asked.done.is_set():
            # Who keeps the mirror knows of a machine that is away at once; here it would be found out after a while.
            away = trouble_of(self._address).partition(";")[0]
            return Told(problem=away) if away else Told(waiting=True)
        return Told(problem=asked.problem) if asked.problem else Told(asked.answer)

    # -- what is fetched, however long it takes. Each raises NotThere.

    def entries(self, run_id: str) -> tuple[list[list[Any]], int]:
        """As ``listing``."""
        told, _ = self._ask({"files": run_id})
        try:
            entries = [
                [str(path), str(kind), int(size), str(detail)] for path, kind, size, detail in told["entries"]
            ]
            return entries, int(told["more"])
        except (KeyError, TypeError, ValueError):
            raise NotThere(f"{self.host} does not answer as mltrack does") from None

    def pieces(self, of: str, run_id: str, name: str, begin: int = 0) -> Iterator[bytes]:
        """All bytes of a file."""
        at = 0  # where the run has a log of its own, that begins there
        while True:
            told, data = self._ask_for(of, run_id, name, at, begin)
            if not data:
                return
            yield data
            at = int(told["at"]) + len(data)
            if at >= int(told["size"]):
                return

    def fetch_kept(self, digest: str) -> bytes | None:
        """The bytes of a patch or a list of packages; None where that store has none."""
        try:
            content = b"".join(self.pieces("kept", "", digest))
        except Unreachable:
            raise
        except NotThere:
            return None
        if hashlib.sha256(content).hexdigest() != digest:
            raise NotThere(f"{self.host}: blobs/{digest[:8]}... is not what was kept there")
        return content

    def log_piece(self, run: Run, at: int, size: int) -> tuple[dict[str, Any], bytes]:
        """Bytes of what a run printed, from ``at`` on (below 0: from the end), with "at", "size" of the file, and where it "begin"s."""
        name, begin = _console(run)
        return self._ask_for("log", run.run_id, name, at, begin, size)

    def _ask_for(
        self, of: str, run_id: str, name: str, at: int, begin: int = 0, size: int = PIECE_BYTES
    ) -> tuple[dict[str, Any], bytes]:
        asked = {"of": of, "run": run_id, "name": name, "at": at, "size": size, "begin": begin}
        return self._ask({"read": asked})

    def _ask(self, question: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        with self._lock:
            fresh = self._line is None
            try:
                told, data = self._answer(question)
            except ENDS as error:
                problem = self._ended(error)
                if fresh or not isinstance(error, (Lost, BrokenPipeError)):
                    raise Unreachable(problem) from None
                try:  # the connection was an old one, and may have broken long ago
                    told, data = self._answer(question)
                except ENDS as again:
                    raise Unreachable(self._ended(again)) from None
        if (why := told.get("problem")) is not None:
            raise NotThere(f"{self.host}: {str(why)[:500]}")
        return told, data

    def _answer(self, question: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        if self._line is None:
            self._line = Line(self._remote)
            if not hello(self._line.source).get("files"):
                raise Lost("mltrack there is too old to hand over files; install the version that is here")
        say(self._line.sink, question)
        told = heard(self._line.source)
        size = int(told.get("bytes", 0))
        if not 0 <= size <= PIECE_BYTES:
            raise ValueError("a piece without end")
        data = self._line.source.read(size)
        if len(data) < size:
            raise Lost("")
        return told, data

    def _ended(self, error: BaseException) -> str:
        line, self._line = self._line, None
        return line.end(error) if line is not None else str(getattr(error, "strerror", error))

    # -- what is kept here

    def _kept_folder(self, what: str) -> Path:
        """It goes with the clean-up of what was brought here and is not asked for any more (store/copies.py)."""
        return cache_folder() / "artifacts" / digest_of(f"{self._address}\0{what}")

    def _keep(self, digest: str, path: Path) -> bytes | None:
        content = self.fetch_kept(digest)
        if content is None:
            return None
        make_folder(path.parent, path.parent)
        part = path.with_name(f".{random_hex(12)}.part")
        part.write_bytes(content)
        os.replace(part, path)
        return content

    def _fetch_log(self, run: Run, folder: Path) -> tuple[Path, int]:
        """Bring what was printed since the last time, or the end of all of it."""
        make_folder(folder, folder)
        os.utime(folder)
        with (folder / "lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # other processes of this user look, too
            copy = _log_copy(folder)
            if copy is not None:
                at = int(copy.suffixes[0][1:]) + copy.stat().st_size
                told, data = self.log_piece(run, at, LOG_BYTES)
                if int(told["size"]) >= at and int(told["size"]) - at <= LOG_BYTES:
                    with copy.open("ab") as file:
                        file.write(data)
                    self._logged[run.run_id] = time.monotonic()
                    return _copy_of(copy)
                copy.unlink()  # another file is there now, or so much more that nobody would page through it
            told, data = self.log_piece(run, -LOG_BYTES, LOG_BYTES)
            at, begin = int(told["at"]), int(told["begin"])
            if at > begin:  # not the rest of a line
                cut = data.find(b"\n") + 1
                at, data = at + cut, data[cut:]
            fresh = folder / f"console.{at}.{max(0, at - begin)}"
            fresh.write_bytes(data)
            self._logged[run.run_id] = time.monotonic()
            return _copy_of(fresh)


class _FarLog(io.RawIOBase):
    """What a run on another machine printed, as a file."""

    def __init__(self, files: FarFiles, run: Run) -> None:
        self._files = files
        self._run = run
        told, _ = self._piece(-1, 0)
        self.begin = self._at = int(told["begin"])

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, at: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_END:
            at += int(self._piece(-1, 0)[0]["size"])
        elif whence == os.SEEK_CUR:
            at += self._at
        self._at = at
        return at

    def readinto(self, buffer: Any) -> int:
        _, data = self._piece(self._at, len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _piece(self, at: int, size: int) -> tuple[dict[str, Any], bytes]:
        try:
            return self._files.log_piece(self._run, at, size)
        except NotThere as error:
            raise StoreUnavailable(f"{error}.") from None


def open_far_log(run: Run) -> tuple[io.BufferedReader, int]:
    """What a run on another machine printed, as a file whose pieces come when they are read, and where in it the run begins. Raises
    StoreUnavailable."""
    log = _FarLog(far_files(run.source), run)
    return io.BufferedReader(log, LOG_BYTES), log.begin


_machines: dict[str, FarFiles] = {}


def far_files(address: str) -> FarFiles:
    """The files behind an address: a connection for each, whoever asks."""
    if address not in _machines:
        _machines[address] = FarFiles(address)
    return _machines[address]


def _console(run: Run) -> tuple[str, int]:
    console = run.facts.get("console")
    if not isinstance(console, dict):
        return "", 0
    name, offset = console.get("file"), console.get("offset")
    return name if isinstance(name, str) else "", offset if isinstance(offset, int) else 0


def _log_copy(folder: Path) -> Path | None:
    return next(iter(sorted(folder.glob("console.*.*"))), None)


def _copy_of(copy: Path) -> tuple[Path, int]:
    return copy, int(copy.suffixes[1][1:])

"""The near side of a mirror: a process that keeps a copy of another machine's journals, over one connection of the system's ssh.

The copy is what a followed mltrack store is read from: ``runs/``, ``open/`` and ``decisions.jsonl``, in a folder of this user's
cache, with ``proofs.json``, what is proven over there of writers that ended without a word. ``mirror.json`` beside them says how it
went: {"looked": when all had come, "tried": when that was tried last, "changes": how often something came, "problem": why nothing
comes, "root": where the store lies over there}; times in ms of this machine's clock. The other side is store/mirror_far.py, and
nothing it says names a file outside of the copy.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NoReturn

from mltrack.store.machines import STATE
from mltrack.store.mirror_far import (
    DECISIONS,
    JOURNAL,
    LINE_BYTES,
    MARKER,
    RUN_ID,
    SHARD,
    digest,
    sizes_in,
)
from mltrack.store.mirror_line import ENDS, Line, Lost, heard, hello, say
from mltrack.store.ssh_address import Remote, remote_of

LOCK = "lock"
PROOFS = "proofs.json"
# Something runs there: its points are here within this. Nothing runs: looked at less and less often.
LIVE_SECONDS, IDLE_SECONDS = 2.0, 30.0
# A connection is tried again after 2, 4, 8 ... seconds.
LONGEST_RETRY = 60.0
# Nobody has asked for the copy in this time: its reader is gone, or the source is not followed any more.
UNWANTED_SECONDS = 60.0
# A clock that is off by less than this is right: times over there stay as they are.
_SKEW_NS = 5_000_000_000
_SILENT_NS = 90_000_000_000
# Who has not answered in this time may be away.
_ANSWER_SECONDS = 3.0
_PROOF_LENGTH = 200


class Mirror:
    """The copy in ``folder``, while this process is the one that writes it."""

    def __init__(self, remote: Remote, folder: Path, sleep: Callable[[float], object] = time.sleep) -> None:
        self._remote = remote
        self._sleep = sleep
        self._folder = folder
        self._runs = folder / "runs"
        self._open = folder / "open"
        self.state: dict[str, Any] = {
            "looked": 0,
            "tried": 0,
            "changes": 0,
            "problem": "",
            "root": "",
        }
        self._skew = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._waits_since: float | None = None

    def keep(self) -> None:
        """Look again and again, over as many connections as it takes."""
        self.prepare()
        failures = 0
        while True:
            before = self.state["looked"]
            problem = self._connected()
            failures = 1 if self.state["looked"] != before else failures + 1
            self._note(problem=problem, tried=_now_ms())
            self._sleep(min(LONGEST_RETRY, 2.0**failures))

    def prepare(self) -> None:
        """Make the copy's folders, and remember how it went before."""
        try:
            self.state.update(json.loads((self._folder / STATE).read_bytes()))
        except (OSError, ValueError):
            pass  # the first time
        self._runs.mkdir(exist_ok=True)
        self._open.mkdir(exist_ok=True)

    def _note(self, **values: Any) -> None:
        self.state.update(values)
        _replace(self._folder / STATE, self.state)

    def leave(self) -> None:
        """End the connection, in another thread than that which looks. That there was no answer is worth knowing for the next."""
        if self._waits_since is not None and time.monotonic() - self._waits_since > _ANSWER_SECONDS:
            waited = f"no answer within {time.monotonic() - self._waits_since:.0f} seconds"
            with suppress(OSError):
                self._note(problem=f"No connection to {self._remote.host} ({waited})", tried=_now_ms())
        if self.process is not None:
            self.process.kill()

    def _connected(self) -> str:
        """Look over one connection, for as long as it lasts. Returns why it ended."""
        try:
            line = Line(self._remote)
        except OSError as error:
            return str(error.strerror)
        self.process = line.process
        self._waits_since = time.monotonic()
        try:
            self.look_on(line.sink, line.source)
        except ENDS as error:
            return line.end(error)
        finally:
            self._waits_since = None

    def look_on(self, sink: IO[bytes], source: IO[bytes]) -> NoReturn:
        """Look over a connection until it ends. Raises Lost, and ValueError and its kin for what nobody of ours would say."""
        self._note(root=str(hello(source)["root"]))
        self._waits_since = None
        say(sink, {"shards": self._shards()})
        differ = [shard for shard in heard(source)["differ"] if SHARD.fullmatch(shard)]
        have = {run: sizes for shard in differ for run, sizes in self._shard(shard).items()}
        with suppress(FileNotFoundError):
            have[""] = {DECISIONS: (self._folder / DECISIONS).stat().st_size}
        say(sink, {"have": have})
        pause, first = LIVE_SECONDS, True
        while True:
            say(sink, {"look": 1})
            came, live = self._take(source)
            if came or first:  # before the first there may be what came when a connection ended
                first = False
                self._note(changes=self.state["changes"] + 1)
            self._note(looked=_now_ms(), tried=_now_ms(), problem="")
            pause = LIVE_SECONDS if live or came else min(IDLE_SECONDS, 2 * pause)
            self._sleep(pause)

    # -- what is here

    def _shard_names(self) -> list[str]:
        return sorted(name for name in os.listdir(self._runs) if SHARD.fullmatch(name))

    def _shards(self) -> dict[str, str]:
        return {shard: digest(self._shard(shard)) for shard in self._shard_names()}

    def _shard(self, shard: str) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = {}
        with suppress(FileNotFoundError):
            for name in os.listdir(self._runs / shard):
                run = name.removeprefix(".").removesuffix(".part")
                if RUN_ID.fullmatch(run):
                    found[run] = sizes_in(self._runs / shard / name)
                    if run != name:
                        found[run][""] = (
                            0  # no file: what has not come as a whole differs, whatever there is of it
                        )
        return found

    def _place(self, run: str) -> Path:
        """The folder of a run. Nobody reads it before it has come as a whole: until then it has a name that no run has."""
        if not RUN_ID.fullmatch(run):
            raise ValueError("not a run")
        place = self._runs / run[:2] / run
        return place if place.is_dir() else place.with_name(f".{run}.part")

    # -- what comes

    def _take(self, source: IO[bytes]) -> tuple[bool, bool]:
        """One answer: whether something came, and whether somebody writes there."""
        came = live = False
        markers: Collection[str] = ()
        while True:
            message = heard(source)
            if "file" in message:
                came = True
                self._take_piece(message, source)
            elif "run" in message:
                came = True
                self._take_run(str(message["run"]), int(message["mtime"]), [*message["names"]])
            elif "open" in message:
                skew = time.time_ns() - int(message["now"])
                self._skew = skew if abs(skew) > _SKEW_NS else 0
                beats = {name: int(beat) for name, beat in message["open"].items() if MARKER.fullmatch(name)}
                markers = beats.keys()
                # Markers of who has died stay until somebody over there looks.
                live = any(int(message["now"]) - beat < _SILENT_NS for beat in beats.values())
                came |= self._take_markers(beats)
            elif "gone" in message:
                came = True
                for run in message["gone"]:
                    shutil.rmtree(self._place(str(run)), ignore_errors=True)
            elif "lost" in message:
                came |= self._take_proofs(message["lost"])
            elif "done" in message:
                break
        # Behind the bytes: a run without a marker is read once more, and then at rest.
        for name in set(os.listdir(self._open)).difference(markers):
            came = True
            os.unlink(self._open / name)
        return came, live

    def _take_markers(self, beats: dict[str, int]) -> bool:
        came = False
        for name, beat in beats.items():
            path, at = self._open / name, beat + self._skew
            try:
                if abs(path.stat().st_mtime_ns - at) < 1_000_000_000:
                    continue
            except FileNotFoundError:
                path.touch()
            os.utime(path, ns=(at, at))
            came = True
        return came

    def _take_proofs(self, said: dict[str, list[Any]]) -> bool:
        """Whether they are others than before."""
        proofs = {
            marker: [str(status), str(proof)[:_PROOF_LENGTH], int(at)]
            for marker, (status, proof, at) in said.items()
            if MARKER.fullmatch(marker)
        }
        try:
            if json.loads((self._folder / PROOFS).read_bytes()) == proofs:
                return False
        except (OSError, ValueError):
            pass  # the first
        _replace(self._folder / PROOFS, proofs)
        return True

    def _take_piece(self, message: dict[str, Any], source: IO[bytes]) -> None:
        run, _, name = str(message["file"]).partition("/")
        at, size = int(message["at"]), int(message["size"])
        if not 0 <= size <= 2 * LINE_BYTES or at < 0:
            raise ValueError("a piece without end")
        data = source.read(size)
        if len(data) < size:
            raise Lost("")
        if run == "" and name == DECISIONS:
            _write(self._folder / name, at, data)
            return
        if not JOURNAL.fullmatch(name):
            raise ValueError("not a journal")
        place = self._place(run)
        place.mkdir(parents=True, exist_ok=True)
        if name.endswith(".zst"):
            part = place / f".{name}.part"
            _write(part, at, data)
            if message["whole"]:
                os.replace(part, place / name)
            return
        _write(place / name, at, data)
        if place.name == run:
            _changed(place, 0)

    def _take_run(self, run: str, changed: int, names: list[str]) -> None:
        place = self._place(run)
        place.mkdir(parents=True, exist_ok=True)
        for name in sizes_in(place).keys() - set(names):
            os.unlink(place / name)
        changed += self._skew
        for name in names:  # it tells when the run was heard of
            with suppress(FileNotFoundError):
                os.utime(place / name, ns=(changed, changed))
        if place.name != run:
            place = place.rename(place.with_name(run))
            os.utime(place, ns=(changed, changed))
        else:
            _changed(place, changed)


def _changed(folder: Path, at: int) -> None:
    """Make a folder's time another one, and ``at`` if that is later: a reader looks again into what it has read to its end."""
    at = max(at, folder.stat().st_mtime_ns + 1)
    os.utime(folder, ns=(at, at))


def _write(path: Path, at: int, data: bytes) -> None:
    """Put bytes at a place of a file, which ends with them."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(fd).st_size < at:
            raise Lost("the copy was changed meanwhile")
        rest = memoryview(data)
        while rest:
            written = os.pwrite(fd, rest, at)
            at, rest = at + written, rest[written:]
        os.ftruncate(fd, at)
    finally:
        os.close(fd)


def _replace(path: Path, value: dict[str, Any]) -> None:
    part = path.with_name(f".{path.name}")
    part.write_text(json.dumps(value))
    os.replace(part, path)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def keep_mirror(address: str, folder: str) -> None:
    """Keep the copy of an address until nobody wants it any more: who does sends a byte now and then to standard input."""
    remote = remote_of(address)
    assert remote is not None
    place = Path(folder)
    mirror = Mirror(remote, place)

    def listen() -> None:
        import select

        while select.select([0], [], [], UNWANTED_SECONDS)[0] and os.read(0, 4096):
            pass
        mirror.leave()
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    with (place / LOCK).open("ab") as lock:
        # Another process of this user may be at it. When that ends, it is our turn.
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            mirror.keep()
        except OSError as error:  # the cache cannot be written: nothing can be said there either
            sys.exit(str(error))

"""Sending a spool to a server of ours: journals by their offsets, files whole, heartbeats.

Everything can be sent again at any time; what the server has already is compared and not stored twice. A run is done when its
writers have closed their journals, or are proven gone, and all its files are there. The server then says once more how long each
of them is there and what its sha256 is; what it has said so of goes from the spool after a week (spool_tidy.py).
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import orjson

from mltrack.store.client.journal import run_folder
from mltrack.store.database import file_lock
from mltrack.store.journal_reader import JournalProblem, file_kind, read_header
from mltrack.store.liveness import Here
from mltrack.store.sources.mlflow_http import MlflowClient, ServerRefused
from mltrack.store.spool_tidy import (
    DONE,
    bodies_named,
    digest_of,
    files_below,
    note_done,
    tidy,
    tidy_bodies,
)

PIECE_BYTES = 4 << 20
LOOK_SECONDS = 0.5
BEAT_SECONDS = 10.0
RECONNECT_SECONDS = 5.0
# A shipper that has had nothing to send for this long ends; the next run starts another.
IDLE_SECONDS = 60.0
_MEANT_FOR_NOBODY = (
    "The server at {} takes no journals: name a server of mltrack, or log with MLflow's client."
)


@dataclass
class _Sent:
    """What is known to be at the server: bytes of journals by path, and whole files."""

    sizes: dict[Path, int] = field(default_factory=dict)
    files: dict[Path, tuple[int, int]] = field(default_factory=dict)
    beats: dict[str, int] = field(default_factory=dict)
    beaten: float = float("-inf")


class Shipper:
    """Sends the spool at ``root`` to the server at ``address``."""

    def __init__(self, address: str, root: Path, say: Callable[[str], None] = lambda message: None) -> None:
        self._client = MlflowClient(address)
        self._root = root
        self._say = say
        self._sent = _Sent()
        self.refused: dict[str, str] = {}
        """Runs that the server does not take, and why."""

    def waiting(self) -> list[Path]:
        """Folders of runs that are not done."""
        found: list[Path] = []
        opened = {name.partition(".")[2] for name in _names(self._root / "open")}
        for shard in _names(self._root / "runs"):
            for run_id in _names(self._root / "runs" / shard):
                if run_id in self.refused:
                    continue
                if run_id in opened or not (self._root / DONE / run_id).exists():
                    found.append(self._root / "runs" / shard / run_id)
        return found

    def send(self) -> int:
        """Send what is new in all runs. Returns the number of bytes. Raises OSError when the server cannot be asked."""
        total = 0
        markers: list[str] = []
        for folder in self.waiting():
            try:
                total += self._run(folder, markers)
            except ServerRefused as error:
                if error.status >= 500 or error.status in (401, 403, 429):
                    raise
                self._forget(folder)
                if error.status == 409 and folder.name not in self.refused:
                    self.refused[folder.name] = ""  # asked once more below what is there, then left alone
                    total += self._again(folder, markers)
                else:
                    self._refuse(folder.name, error)
        if markers and time.monotonic() - self._sent.beaten > BEAT_SECONDS:
            self._client.ours("POST", "beat", orjson.dumps({"markers": markers}))
            self._sent.beaten = time.monotonic()
        return total

    def _again(self, folder: Path, markers: list[str]) -> int:
        """A second try from what the server says it has: it may have been put back to an earlier state."""
        try:
            sent = self._run(folder, markers)
        except ServerRefused as error:
            if error.status != 409:
                raise
            self._refuse(folder.name, error)
            return 0
        del self.refused[folder.name]
        return sent

    def _refuse(self, run_id: str, error: ServerRefused) -> None:
        if error.code == "ENDPOINT_NOT_FOUND" or (error.status == 404 and not error.code):
            raise ServerRefused(error.code, _MEANT_FOR_NOBODY.format(self._client.shown), 501) from None
        self.refused[run_id] = str(error.strerror)
        self._say(f"The server does not take the run {run_id}: {error.strerror}")

    def forget(self) -> None:
        """Ask again what the server has: it was away, and may be another one now."""
        self._sent = _Sent()

    def _forget(self, folder: Path) -> None:
        for path in [path for path in self._sent.sizes if path.parent == folder]:
            del self._sent.sizes[path]

    def _run(self, folder: Path, markers: list[str]) -> int:
        """Points before meta, up to the sizes that meta and points had before: the server never hears of an end whose points
        are not there."""
        ended = self._ended(folder, markers)
        growing = sorted(
            (path for path in folder.iterdir() if _is_plain(path) and path.suffix != ".zst"),
            key=lambda path: (path.name.startswith("meta."), path.name),
        )
        sizes = {path: path.stat().st_size for path in reversed(growing)}
        total = 0
        for path in growing:
            try:
                total += self._append(path, sizes[path])
            except ServerRefused as error:
                if error.status != 409 or file_kind(path.name) is not None:
                    raise
                # Not a journal, and written anew here: the run does not wait for it.
                self._sent.sizes[path] = sizes[path]
        for path, relative in _whole_files(self._root, folder):
            total += self._file(path, relative)
        if ended:
            note_done(self._root, folder, self._confirmed(folder))
            for name in _names(self._root / "open"):
                if name.endswith(f".{folder.name}"):
                    (self._root / "open" / name).unlink(missing_ok=True)
        return total

    def _confirmed(self, folder: Path) -> list[list[str | int]]:
        """Every file of the run as the server says it has it: name, size, sha256. Empty when one of them is not there as it is here."""
        found: list[list[str | int]] = []
        for path in files_below(folder):
            name, size = path.relative_to(folder).as_posix(), path.stat().st_size
            digest = digest_of(path, size)
            state = self._client.ours("GET", f"state/{quote(f'runs/{folder.name}/{name}')}")
            if (state.get("size"), state.get("sha256")) != (size, digest) or not state.get("exists"):
                return []
            found.append([name, size, digest])
        return found

    def tidy(self) -> int:
        """Remove runs that the server has confirmed a week ago and still has, byte by byte, and what only they named. Returns how
        many runs. Raises OSError."""

        def known(run_id: str) -> bool:
            try:
                self._client.get("runs/get", run_id=run_id)
                # Put back to an earlier state it knows the run and has less of it: then what is here is all there is.
                folder = run_folder(self._root, run_id)
                for name in bodies_named(folder):
                    body = self._root / "blobs" / name[:2] / name
                    if body.exists():
                        self._file(body, f"blobs/{name}")
                return bool(self._confirmed(folder))
            except ServerRefused as error:
                if error.status >= 500 or error.status in (401, 403, 429):
                    raise
                return False

        removed = tidy(self._root, known)
        tidy_bodies(self._root)
        return removed

    def _ended(self, folder: Path, markers: list[str]) -> bool:
        """Whether nobody writes here any more; markers of those who do are noted. Asked before anything is sent, so that what
        is sent then is all there is."""
        here, ended = Here(self._root), True
        for name in _names(self._root / "open"):
            jid, _, run_id = name.partition(".")
            if run_id != folder.name:
                continue
            path = folder / f"meta.{jid}.jsonl"
            if not path.exists():
                path = folder / f"points.{jid}.jsonl"
            try:
                beat = (self._root / "open" / name).stat().st_mtime_ns
                head = read_header(path) if path.exists() else None
            except (FileNotFoundError, JournalProblem):
                continue
            if _closed(folder / f"meta.{jid}.jsonl"):
                continue
            if head is None or not here.judge(head.header, beat // 1_000_000).lost:
                ended = False
                markers.append(name)
        return ended

    def _append(self, path: Path, size: int) -> int:
        relative = f"{path.parent.name}/{path.name}"
        at = self._sent.sizes.get(path)
        if at is None:
            at = self._agreed(path, f"runs/{relative}")
        sent = 0
        with path.open("rb") as file:
            file.seek(at)
            while at < size:
                piece = file.read(min(PIECE_BYTES, size - at))
                if not piece:
                    break
                digest = hashlib.sha256(piece).hexdigest()
                self._client.ours("PUT", f"append/{quote(relative)}?offset={at}", piece, digest)
                at += len(piece)
                sent += len(piece)
                self._sent.sizes[path] = at
        self._sent.sizes[path] = at
        return sent

    def _agreed(self, path: Path, relative: str) -> int:
        """How many bytes of a file are at the server, the same as here; 0 lets it say what is wrong."""
        state = self._client.ours("GET", f"state/{quote(relative)}")
        size = int(state.get("size", 0))
        return size if size and digest_of(path, size) == state.get("sha256") else 0

    def _file(self, path: Path, relative: str) -> int:
        about = path.stat()
        mark = (about.st_size, about.st_mtime_ns)
        if self._sent.files.get(path) == mark:
            return 0
        digest = digest_of(path, about.st_size)
        state = self._client.ours("GET", f"state/{quote(relative)}")
        sent = 0
        if digest and not (state.get("exists") and state.get("sha256") == digest):
            with path.open("rb") as file:
                self._client.ours("PUT", f"file/{quote(relative)}", file, digest, about.st_size)
            sent = about.st_size
        self._sent.files[path] = mark
        return sent


def ship_to_server(address: str, root: Path) -> None:
    """Send the spool until nothing is open in it any more: the detached companion of a training."""
    while True:
        with file_lock(root, "ship", wait=False) as mine:
            if not mine or not _send_until_idle(address, root):
                return  # another shipper of this spool is at work, and looks once more after it has let go
        # A run that began between the last look and letting go of the lock started no companion of its own.
        if not _names(root / "open"):
            return


def _send_until_idle(address: str, root: Path) -> bool:
    """False when there never was a server of ours."""
    shipper = Shipper(address, root)
    with suppress(OSError):
        shipper.tidy()
    idle_since = time.monotonic()
    while time.monotonic() - idle_since < IDLE_SECONDS:
        try:
            sent = shipper.send()
        except OSError as error:
            if isinstance(error, ServerRefused) and error.status == 501:
                return False  # the end of the run names the spool
            shipper.forget()
            # Away for now: the journals wait, and so does this process, as long as somebody still writes.
            if _names(root / "open"):
                idle_since = time.monotonic()
            time.sleep(RECONNECT_SECONDS)
            continue
        if sent or _names(root / "open"):
            idle_since = time.monotonic()
        time.sleep(LOOK_SECONDS)
    return True


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and not path.name.startswith(".")


def _closed(meta: Path) -> bool:
    """Whether a journal's last record says that nothing follows."""
    try:
        with meta.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 512))
            last = file.read().rstrip(b"\n").rpartition(b"\n")[2]
    except OSError:
        return False
    return b'"op":"close"' in last


def _whole_files(root: Path, folder: Path) -> Iterator[tuple[Path, str]]:
    """Artifacts of a run, and bodies that records of any run name, with their places at the server."""
    for base, _, names in os.walk(folder / "artifacts"):
        for name in sorted(names):
            path = Path(base) / name
            if _is_plain(path):
                yield path, f"runs/{folder.name}/{path.relative_to(folder).as_posix()}"
    for shard in _names(root / "blobs"):
        for name in _names(root / "blobs" / shard):
            path = root / "blobs" / shard / name
            if _is_plain(path) and len(name) == 64:
                yield path, f"blobs/{name}"

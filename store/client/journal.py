"""The journal of one process for one run: two append-only files and a marker.

A log call is one ``write(2)`` to a file only this process appends to; when it has returned, killing the process cannot
lose it. Nothing here talks to a database. The format is docs/journal.md; folding it is the store's work.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections import deque
from pathlib import Path
from time import time_ns

TYPE_CHECKING = False  # not typing's: the import must cost little
if TYPE_CHECKING:
    from collections.abc import Callable

FORMAT = 1
# A process that cannot write keeps its records in memory up to this much, far beyond what a training logs in a day.
BACKLOG_BYTES = 512 * 1024 * 1024
# These pass: the disk is full now, or the network filesystem is away. Everything else is tried elsewhere at once.
WAITS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EAGAIN, errno.ESTALE, errno.ETIMEDOUT})
_encode = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode


def random_hex(digits: int) -> str:
    """``digits`` random lower-case hex digits from the operating system."""
    return os.urandom((digits + 1) // 2).hex()[:digits]


def now_ms() -> int:
    """Wall-clock time in milliseconds since 1970."""
    return time_ns() // 1_000_000


def run_folder(root: Path, run_id: str) -> Path:
    """The folder of a run below a store's root."""
    return root / "runs" / run_id[:2] / run_id


def share_mode(root: Path) -> int:
    """Permission bits for new files below ``root``: private unless the store's folder is shared with its group."""
    try:
        return 0o660 if os.stat(root).st_mode & stat.S_IWGRP else 0o600
    except OSError:
        return 0o600


def open_file(path: Path | str, flags: int, mode: int) -> int:
    """``os.open`` of a store's own file; what it creates has just these permission bits. Raises OSError.

    In a store shared with a group the umask must not take the others' right to read and to fold.
    """
    fd = os.open(path, flags | getattr(os, "O_CLOEXEC", 0), mode)
    if mode & stat.S_IRGRP:
        facts = os.fstat(fd)
        if stat.S_IMODE(facts.st_mode) != mode and facts.st_uid == os.geteuid():
            try:
                os.fchmod(fd, mode)
            except OSError:
                pass  # a filesystem without permissions (FAT, some network shares) has none to give either
    return fd


def make_folder(path: Path, root: Path) -> None:
    """Create ``path`` and missing parents: 0700, or 2770 in a store shared with a group."""
    missing: list[Path] = []
    folder = path
    while not folder.is_dir():
        missing.append(folder)
        if folder == folder.parent:
            break
        folder = folder.parent
    shared = bool(missing) and share_mode(root) == 0o660
    for folder in reversed(missing):
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:
            continue
        if shared:
            os.chmod(folder, 0o2770)


def new_attempt(folder: Path, at_ms: int) -> str:
    """A name for this start of the run that sorts after every earlier start, also when the clock was set back."""
    newest = 0
    try:
        names = [entry.name for entry in os.scandir(folder) if entry.name.startswith("meta.")]
    except OSError:
        names = []
    for name in [*names, "counted.json"]:  # the last one is left where journals are sealed
        try:
            with open(folder / name, "rb") as file:
                header = json.loads(file.readline() if name == "counted.json" else file.readline(65536))
            newest = max(newest, int(header["attempt"].split("-")[0]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # a damaged neighbour says nothing about our order
    return f"{max(at_ms, newest + 1):013d}-{random_hex(6)}"


class AppendFile:
    """One append-only file that never loses an acknowledged record while the process lives.

    What the disk refuses waits in memory, in order, and is tried again with every later record and heartbeat. ``prepare``
    creates what the file needs (folder, marker) and is called until it succeeds; the file is created exclusively.
    """

    def __init__(
        self, path: Path, mode: int, prepare: Callable[[], None], on_trouble: Callable[[str], None]
    ) -> None:
        self.path = path
        self.size = 0
        self.fd = -1
        self.backlog: deque[bytes] = deque()
        self._mode = mode
        self._prepare = prepare
        self._on_trouble = on_trouble
        self._backlog_bytes = 0
        self._sent = 0  # bytes of the first waiting line that are already in the file

    def open(self) -> None:
        """Create the file. Raises OSError when that is not possible now."""
        self._prepare()
        self.fd = open_file(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, self._mode)

    def append(self, line: bytes) -> None:
        """Write one complete line (ending in a newline)."""
        if not self.backlog and self.fd >= 0:
            try:
                written = os.write(self.fd, line)
            except OSError as error:
                self.wait(line, 0, error)
                return
            self.size += written
            if written != len(line):
                self.wait(line, written, None)
            return
        if self._backlog_bytes + len(line) > BACKLOG_BYTES:
            self._on_trouble(
                f"{self.path} cannot be written and {BACKLOG_BYTES >> 20} MB wait in memory: newer records are dropped"
            )
            return
        self.backlog.append(line)
        self._backlog_bytes += len(line)
        self.retry()

    def wait(self, line: bytes, sent: int, error: OSError | None) -> None:
        """Keep a line that the disk took only ``sent`` bytes of."""
        self.backlog.append(line)
        self._backlog_bytes += len(line)
        self._sent = sent
        if error is not None:
            self._say(error)
        else:
            self.retry()  # a disk that takes only part of a record tells why when it is given the rest

    def _say(self, error: OSError) -> None:
        # One sentence for all files of a run: the disk is the news, not the file.
        self._on_trouble(
            f"cannot write to {self.path.parent} ({os.strerror(error.errno or errno.EIO)}); "
            "records are kept in memory and written as soon as it works again"
        )

    def retry(self) -> bool:
        """Try to write what waits. Returns True when nothing waits any more."""
        try:
            if self.fd < 0:
                if not self.backlog:
                    return True
                self.open()
            while self.backlog:
                line = self.backlog[0]
                written = os.write(self.fd, line[self._sent :])
                self.size += written
                self._sent += written
                if self._sent < len(line):
                    continue
                self.backlog.popleft()
                self._backlog_bytes -= len(line)
                self._sent = 0
        except OSError as error:
            self._say(error)
            return False
        return True

    def close(self) -> None:
        """Close the file. What still waits is lost with it: callers spool ``backlog`` first."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            try:
                os.close(fd)
            except OSError as error:  # network filesystems tell here what they could not store earlier
                self._on_trouble(
                    f"the end of {self.path} may be missing ({os.strerror(error.errno or errno.EIO)})"
                )


class Journal:
    """The meta and points files of one process for one run, opened with the first record.

    ``identity`` is the process identity of line 1 (host, machine, boot, pidns, pid, pstart).
    """

    def __init__(
        self,
        root: Path,
        run_id: str,
        attempt: str,
        rank: int = 0,
        role: str = "main",
        identity: dict[str, object] | None = None,
        on_trouble: Callable[[str], None] = lambda message: None,
        time_ms: int | None = None,
    ) -> None:
        self.root = root
        self.run_id = run_id
        self.attempt = attempt
        self.rank = rank
        self.role = role
        self.jid = random_hex(16)
        self.folder = run_folder(root, run_id)
        self.marker = root / "open" / f"{self.jid}.{run_id}"
        self.identity = identity if identity is not None else {}
        self.meta_file: AppendFile | None = None
        self.points_file: AppendFile | None = None
        self._on_trouble = on_trouble
        self._time_ms = time_ms
        self._marked = False

    def _header(self, kind: str) -> bytes:
        head: dict[str, object] = {
            "mltrack": FORMAT,
            "kind": kind,
            "jid": self.jid,
            "run": self.run_id,
            "attempt": self.attempt,
            "rank": self.rank,
            "role": self.role,
        }
        head.update(self.identity)
        head["time"] = self._time_ms if self._time_ms is not None else now_ms()
        return (_encode(head) + "\n").encode("ascii")

    def _prepare(self) -> None:
        make_folder(self.folder, self.root)
        if not self._marked:
            # The marker comes first: a follower may see a marker without files, never files without a marker.
            make_folder(self.marker.parent, self.root)
            self._mark()
            self._marked = True

    def _mark(self) -> None:
        os.close(open_file(self.marker, os.O_WRONLY | os.O_CREAT, share_mode(self.root)))

    def _file(self, kind: str) -> AppendFile:
        path = self.folder / f"{kind}.{self.jid}.jsonl"
        file = AppendFile(path, share_mode(self.root), self._prepare, self._on_trouble)
        try:
            file.open()
        except OSError as error:
            if error.errno not in WAITS:
                raise
        file.append(self._header(kind))
        return file

    def open(self) -> None:
        """Create the folder, the marker and the meta file. Raises OSError when the store cannot be written at all."""
        if self.meta_file is None:
            self.meta_file = self._file("meta")

    def meta(self, op: str, time_ms: int | None = None, **fields: object) -> None:
        """Append one meta record. Raises OSError only when the file cannot be created at all."""
        self.open()
        assert self.meta_file is not None
        record: object = {"t": time_ms if time_ms is not None else now_ms(), "op": op, **fields}
        text = _encode(record)
        if (
            "\\ud" in text
        ):  # astral characters, or a lone surrogate (a file name that is not UTF-8) that no reader can decode
            text = _encode(_visible(record))
        self.meta_file.append((text + "\n").encode("ascii"))

    def points(self) -> AppendFile:
        """The points file, created on first use."""
        if self.points_file is None:
            self.points_file = self._file("points")
        return self.points_file

    def beat(self) -> None:
        """Touch the marker: "this process lives". Restores a marker that somebody removed."""
        if not self._marked:
            return
        try:
            os.utime(self.marker)
        except FileNotFoundError:
            try:
                self._mark()
            except OSError:
                return  # the folder is gone or read-only: appends report that
        except OSError:
            return

    def spool(self, root: Path) -> Path | None:
        """Copy what still waits in memory into a new journal below ``root``; its folder, or None when nothing waits."""
        waiting = [
            (kind, file)
            for kind, file in (("meta", self.meta_file), ("points", self.points_file))
            if file and file.backlog
        ]
        if not waiting:
            return None
        other = Journal(
            root,
            self.run_id,
            self.attempt,
            self.rank,
            self.role,
            self.identity,
            self._on_trouble,
            self._time_ms,
        )
        for kind, file in waiting:
            lines = [line for line in file.backlog if not line.startswith(b'{"mltrack"')]
            target = other._file(kind)
            for line in lines:
                target.append(line)
        if not other.retry():
            return None
        other.close()
        return other.folder

    def retry(self) -> bool:
        """Write what waits in memory. True when both files are complete."""
        files = [file for file in (self.meta_file, self.points_file) if file is not None]
        return all([file.retry() for file in files])  # a list: every file gets its try

    def close(self) -> None:
        """Close the files. The marker stays: it goes when the journal is folded to its end."""
        for file in (self.meta_file, self.points_file):
            if file is not None:
                file.close()

    def forget(self) -> None:
        """In a forked child: drop the parent's files without writing to them."""
        self.close()
        self.meta_file = self.points_file = None


def _visible(value: object) -> object:
    """The same value with lone surrogates as visible escapes."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict):
        return {_visible(key): _visible(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_visible(inner) for inner in value]
    return value


def encode_number(value: float) -> str:
    """A float as the journal writes it: the shortest text that reads back to the same bits; NaN and infinities quoted."""
    if value - value == 0.0:
        return repr(value)
    if value != value:
        return '"NaN"'
    return '"Infinity"' if value > 0 else '"-Infinity"'


def points_line(step: int, time_ms: int, values: dict[str, float]) -> bytes:
    """One points record, for writers that are not in a hurry. The client has its own faster path."""
    parts = [f"{step},{time_ms}"]
    for key, value in values.items():
        parts.append(f"{_encode(key)},{encode_number(value)}")
    return ("[" + ",".join(parts) + "]\n").encode("ascii")

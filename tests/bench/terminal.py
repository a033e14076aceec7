"""A program in a real pty: what it sends, when, and what it costs. Keys go in as bytes; a frame is what comes within 5 ms."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import statistics
import struct
import sys
import termios
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

_CONTROL = re.compile(rb"\x1b\[[0-9;:<=>?$ ]*[A-Za-z@`]")
# All that a key brings has come when nothing comes for this long; the lines about a run wait for the cursor to rest.
_QUIET_SECONDS = 0.25
_FRAME_SECONDS = 0.005
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass
class Pressed:
    """What one key brought: bytes with all that followed, seconds to the end of its first frame, and what of them the
    program's main thread computed and what it waited for a processor, which is the machine's time and not the program's."""

    size: int
    seconds: float
    cpu: float = 0.0
    waited: float = 0.0


@dataclass
class Held:
    """A key held down: frames a second, and seconds from the last key to what it brought."""

    frames: float
    lag: float


@dataclass
class Keys:
    """Many presses of one kind."""

    pressed: list[Pressed] = field(default_factory=list)

    @property
    def size(self) -> float:
        """Median bytes."""
        return statistics.median(one.size for one in self.pressed)

    def milliseconds(self, share: float) -> float:
        """The time that this share (0..1) of the keys stay within."""
        times = sorted(one.seconds * 1000 for one in self.pressed)
        return times[min(len(times) - 1, int(share * len(times)))]

    def cpu_milliseconds(self, share: float) -> float:
        """The CPU time that this share of the keys stay within, all that followed included."""
        times = sorted(one.cpu * 1000 for one in self.pressed)
        return times[min(len(times) - 1, int(share * len(times)))]

    def __str__(self) -> str:
        p50, p99 = self.milliseconds(0.5), self.milliseconds(0.99)
        return f"{self.size:.0f} B; {p50:.1f} / {p99:.1f} ms"


class Terminal:
    """A program in a pty of its own."""

    def __init__(
        self, *arguments: str, columns: int = 80, lines: int = 24, state: Path, program: str = sys.executable
    ) -> None:
        self.began = time.monotonic()
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            environ = {**os.environ, "TERM": "xterm-256color", "XDG_STATE_HOME": str(state)}
            environ.pop("COLORTERM", None)
            environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its byte code
            os.execve(program, [program, *arguments], environ)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def until(self, pattern: bytes, began: float | None = None) -> float:
        """Seconds from the start (or from ``began``) until a text was there."""
        seen = b""
        while not re.search(pattern, _CONTROL.sub(b"", seen)):
            ready, _, _ = select.select([self.fd], [], [], 60)
            assert ready, seen[-500:]
            seen += os.read(self.fd, 1 << 16)
        return time.monotonic() - (self.began if began is None else began)

    def write(self, keys: str) -> float:
        """Press keys; returns when."""
        os.write(self.fd, keys.encode())
        return time.monotonic()

    def press(self, keys: str, quiet: float = _QUIET_SECONDS) -> Pressed:
        """One key, and all it brings until nothing has come for ``quiet`` seconds."""
        cpu, waited = self.scheduled()
        began, first, size = self.write(keys), 0.0, 0
        while select.select([self.fd], [], [], quiet)[0]:
            size += len(os.read(self.fd, 1 << 16))
            at = time.monotonic() - began
            if first == 0.0 or at - first < _FRAME_SECONDS:
                first = at
        cpu_now, waited_now = self.scheduled()
        return Pressed(size, first, cpu_now - cpu, waited_now - waited)

    def scheduled(self) -> tuple[float, float]:
        """Seconds that the main thread ran, and seconds that it waited for a processor; zeros where the kernel does not say."""
        try:
            ran, waited, _ = Path(f"/proc/{self.pid}/schedstat").read_text().split()
        except OSError:
            return 0.0, 0.0
        return int(ran) / 1e9, int(waited) / 1e9

    def keys(self, keys: Iterable[str], quiet: float = _QUIET_SECONDS) -> Keys:
        """Each of these characters."""
        return Keys([self.press(key, quiet) for key in keys])

    def hold(self, key: str, seconds: float, rate: int = 30) -> Held:
        """A key that repeats ``rate`` times a second."""
        began = last_key = time.monotonic()
        sent = frames = 0
        last_bytes, lag = 0.0, 0.0
        while (now := time.monotonic()) - began < seconds or lag == 0.0:
            assert now - last_key < 30
            pressing = now - began < seconds
            if pressing and now >= began + sent / rate:
                last_key, lag = self.write(key), 0.0
                sent += 1
            due = max(0.0, began + sent / rate - time.monotonic()) if pressing else 1.0
            if select.select([self.fd], [], [], due)[0]:
                os.read(self.fd, 1 << 16)
                at = time.monotonic()
                frames += at - last_bytes > _FRAME_SECONDS
                last_bytes, lag = at, lag or at - last_key
        return Held(frames / seconds, lag)

    def drain(self) -> int:
        """Read what is there; how much it was."""
        return len(os.read(self.fd, 1 << 16))

    def quiet(self, seconds: float = 1.0) -> None:
        """Wait until nothing comes any more."""
        while select.select([self.fd], [], [], seconds)[0]:
            os.read(self.fd, 1 << 16)

    def leave(self) -> None:
        """Press Q and wait for its end."""
        self.write("Q")
        try:
            while os.read(self.fd, 1 << 16):
                pass
        except OSError:
            pass  # what a pty says when its last writer is gone
        os.waitpid(self.pid, 0)
        os.close(self.fd)

    def listen(self, seconds: float) -> int:
        """Bytes that come within some time without a key."""
        end, size = time.monotonic() + seconds, 0
        while (left := end - time.monotonic()) > 0:
            if select.select([self.fd], [], [], left)[0]:
                size += len(os.read(self.fd, 1 << 16))
        return size

    def cpu(self) -> float:
        """CPU seconds of the program itself, without its children."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICK

    def memory_kb(self) -> int:
        """What it holds in memory, without its children."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+)", status)
        assert found is not None
        return int(found.group(1))

    def end(self) -> None:
        """End it."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.fd)

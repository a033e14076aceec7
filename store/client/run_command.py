"""Running somebody else's program in the foreground and keeping all it prints: the parent for ``mltrack exec -- CMD``.

Unlike the tee inside a training (console.py) this sees everything: C libraries, child processes, crashes. The program
notices as little as possible: what is a terminal for us is a terminal for it (a pty, so that bars and colours live),
what is a pipe or file stays one, keys and signals reach it, and its exit code is ours.

The program runs in a session of its own, so that each signal reaches it exactly once, through us.
"""

from __future__ import annotations

import codecs
import os
import select
import signal
import subprocess
import sys
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from mltrack.store.client.console_log import ConsoleLog
from mltrack.store.client.run_terminal import Terminal, same_file

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from types import FrameType

# After the program's end its descendants may still hold its output; what they print later is not part of the run.
DRAIN_IDLE_SECONDS = 0.2
DRAIN_SECONDS = 2.0
# Without signals (not in the main thread) the end of the program is looked for this often.
POLL_SECONDS = 0.05

# To everything the program started, as the terminal and batch systems do; the user signals only to the program itself,
# because they end whoever does not handle them.
_GROUP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_SINGLE_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2)
_OWN_SIGNALS = (signal.SIGWINCH, signal.SIGCONT, signal.SIGCHLD)


class CommandResult(NamedTuple):
    """``exit_code`` as a shell gives it: 128 + n after signal n, 127 not found, 126 not executable."""

    exit_code: int
    signal: int | None
    last_lines: tuple[str, ...]  # the last twenty, redacted; one sentence when the program did not start


def run_command(
    argv: Sequence[str],
    *,
    console_path: Path,
    env: Mapping[str, str],
    on_output: Callable[[bytes], object] | None = None,
    warn: Callable[[str], object] | None = None,
) -> CommandResult:
    """Run ``argv`` (no shell) until it ends. ``env`` is its whole environment; it gets MLTRACK_CONSOLE=0, because its
    output is kept here. ``on_output`` sees each piece of raw output after it was passed on and must not raise."""
    _fill_standard_descriptors()
    log = ConsoleLog(console_path, warn)
    runner = _Runner(log, on_output)
    try:
        problem = runner.start(list(argv), {**env, "MLTRACK_CONSOLE": "0"})
        if problem is not None:
            log.write(problem[1] + "\n", "stderr")
            if warn is not None:
                warn(problem[1].removeprefix("mltrack: "))
            return CommandResult(problem[0], None, (problem[1],))
        code = runner.pump()
        last_lines = log.last_lines()
    finally:
        runner.close()
        log.close()
    if code < 0:
        return CommandResult(128 - code, -code, last_lines)
    return CommandResult(code, None, last_lines)


class _Output:
    """One stream of the program: where it is read, where it goes on to, how it becomes text.

    Target 0 is our terminal when only the keys come from there: the echo of what is typed, which is no output.
    """

    def __init__(self, source: int, target: int) -> None:
        self.source = source
        self.target: int | None = target
        self.name = ("", "stdout", "stderr")[target]
        self.decode = codecs.getincrementaldecoder("utf-8")("backslashreplace").decode


class _Runner:
    def __init__(self, log: ConsoleLog, on_output: Callable[[bytes], object] | None) -> None:
        self._log = log
        self._on_output = on_output
        self._terminal = Terminal()
        self._process: subprocess.Popen[bytes] | None = None
        self._outputs: dict[int, _Output] = {}
        self._keys = b""  # typed, and not yet taken by the program
        self._previous: dict[signal.Signals, object] = {}
        self._wake: tuple[int, int] | None = None
        self._previous_wake = -1
        self._early: list[int] = []  # signals that came before there was a program

    def start(self, argv: list[str], env: dict[str, str]) -> tuple[int, str] | None:
        """Start the program; returns (exit code, sentence) when it cannot be started."""
        self._take_signals()
        terminal = self._terminal
        terminal.open()
        merged = same_file(1, 2)
        targets = [1] if merged else [1, 2]
        pipes: dict[int, tuple[int, int]] = {}
        for target in targets:
            if not terminal.serves(target):
                pipes[target] = os.pipe()
        ends = {target: terminal.inner if terminal.serves(target) else pipes[target][1] for target in targets}
        try:
            self._process = subprocess.Popen(
                argv,
                stdin=terminal.inner if terminal.serves(0) else None,
                stdout=ends[1],
                stderr=subprocess.STDOUT if merged else ends[2],
                env=env,
                start_new_session=True,
                preexec_fn=terminal.adopt if terminal.inner >= 0 else None,
            )
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            for pair in pipes.values():
                os.close(pair[0])
            return _not_started(argv, error)
        finally:
            for pair in pipes.values():
                os.close(pair[1])
            terminal.close_inner()
        for target in targets:
            source = terminal.outer if terminal.serves(target) else pipes[target][0]
            self._outputs.setdefault(source, _Output(source, target))
        if terminal.outer >= 0:
            self._outputs.setdefault(terminal.outer, _Output(terminal.outer, 0))
        terminal.take_keys()
        for number in self._early:
            self._forward(number)
        return None

    def pump(self) -> int:
        """Pass everything on until the program has ended and its output is drained; returns its code (-n: signal)."""
        process = self._process
        assert process is not None
        ended_at = 0.0
        heard_at = monotonic()
        while True:
            code = process.poll()
            now = monotonic()
            if code is not None:
                ended_at = ended_at or now
                idle = now - max(heard_at, ended_at) >= DRAIN_IDLE_SECONDS
                if not self._outputs or idle or now - ended_at >= DRAIN_SECONDS:
                    return code
            if self._turn(DRAIN_IDLE_SECONDS if code is not None else None):
                heard_at = monotonic()

    def close(self) -> None:
        """Give the terminal and the signals back, in this order: a signal must not find the terminal half restored."""
        self._terminal.close()
        for output in self._outputs.values():
            if output.source != self._terminal.outer:
                os.close(output.source)
        self._outputs = {}
        if self._wake is not None:
            signal.set_wakeup_fd(self._previous_wake)
            for number, handler in self._previous.items():
                signal.signal(number, handler)  # type: ignore[arg-type]
            for fd in self._wake:
                os.close(fd)
            self._wake = None

    def _turn(self, seconds: float | None) -> bool:
        """Wait for something to happen and do it; True when the program printed."""
        poller = select.poll()
        for source in self._outputs:
            poller.register(source, select.POLLIN)
        terminal = self._terminal
        if terminal.takes_keys and not self._keys:
            poller.register(0, select.POLLIN)
        if terminal.outer not in self._outputs:
            self._keys = b""  # the program has closed its terminal
        elif self._keys:
            poller.register(terminal.outer, select.POLLIN | select.POLLOUT)
        if self._wake is not None:
            poller.register(self._wake[0], select.POLLIN)
        elif seconds is None:
            seconds = POLL_SECONDS
        heard = False
        for fd, event in poller.poll(None if seconds is None else seconds * 1000):
            if self._wake is not None and fd == self._wake[0]:
                os.read(fd, 4096)
                continue
            if fd == 0 and fd not in self._outputs:
                self._keys = terminal.read_keys()
            if event & select.POLLOUT:
                self._keys = terminal.send_keys(self._keys)
            if fd in self._outputs and event & ~select.POLLOUT:
                heard = self._pass_on(self._outputs[fd]) or heard
        return heard

    def _pass_on(self, output: _Output) -> bool:
        try:
            piece = os.read(output.source, 65536)
        except BlockingIOError:
            return False
        except OSError:
            piece = b""  # a pty without a program behind it says EIO
        if not piece:
            del self._outputs[output.source]
            if output.source != self._terminal.outer:
                os.close(output.source)
            if output.name:
                self._log.write(output.decode(b"", True), output.name)
            return False
        # The program's readers come first; the log must not delay what they get.
        if output.target is not None and not _write_all(output.target, piece):
            output.target = None
        if not output.name:
            return False
        self._log.write(output.decode(piece), output.name)
        if self._on_output is not None:
            self._on_output(piece)
        return True

    def _take_signals(self) -> None:
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        try:
            self._previous_wake = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        except ValueError:  # not the main thread: signals are somebody else's
            os.close(reader)
            os.close(writer)
            return
        self._wake = (reader, writer)
        for number in (*_GROUP_SIGNALS, *_SINGLE_SIGNALS, *_OWN_SIGNALS):
            # What nohup and the like made us ignore, the program ignores too.
            if number in _OWN_SIGNALS or signal.getsignal(number) is not signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # Here and not in the loop: the loop may be waiting for a slow reader of our output.
        if number == signal.SIGWINCH:
            self._terminal.copy_size()
        elif number == signal.SIGCONT:
            self._terminal.take_keys()
        elif number != signal.SIGCHLD:
            if self._process is None:
                self._early.append(number)
            else:
                self._forward(number)

    def _forward(self, number: int) -> None:
        process = self._process
        # Not reaped, so the number is still the program's.
        if process is None or process.returncode is not None:
            return
        try:
            if number in _GROUP_SIGNALS:
                os.killpg(process.pid, number)
            else:
                os.kill(process.pid, number)
        except (ProcessLookupError, PermissionError):
            return  # it has just ended, or became another user's (sudo)


def _not_started(argv: list[str], error: Exception) -> tuple[int, str]:
    name = argv[0] if argv else ""
    if isinstance(error, FileNotFoundError):
        return 127, f"mltrack: {name}: command not found"
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return 126, f"mltrack: {name}: cannot be run ({reason})"


def _write_all(fd: int, data: bytes) -> bool:
    """False when nobody reads there any more."""
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:
            # Our parent made the descriptor non-blocking; the program must not suffer from it.
            poller = select.poll()
            poller.register(fd, select.POLLOUT)
            poller.poll(1000)
        except OSError:
            return False
    return True


def _fill_standard_descriptors() -> None:
    """Closed standard descriptors become /dev/null; else our own pipes would get their numbers."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            try:
                stream.flush()
            except (OSError, ValueError):
                pass
    while True:
        fd = os.open(os.devnull, os.O_RDWR)
        if fd > 2:
            os.close(fd)
            return
        os.set_inheritable(fd, True)

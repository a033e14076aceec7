"""The terminal a wrapped program sees: a pty between it and ours, so that bars, colours, keys and sizes work."""

from __future__ import annotations

import fcntl
import os
import termios
from typing import Any

# tcgetattr's fields.
_IFLAG, _OFLAG, _LFLAG, _CC = 0, 1, 3, 6


class Terminal:
    """A pty for those of our three standard descriptors that are terminals; nothing when none is, or no pty is to be had.

    ``outer`` is our end (read output, send keys), ``inner`` the program's.
    """

    def __init__(self) -> None:
        self.outer = -1
        self.inner = -1
        self.takes_keys = False
        self._served: set[int] = set()
        self._saved: list[Any] | None = None

    def open(self) -> None:
        """Make the pty, with the modes and size of our own terminal."""
        terminals = {fd for fd in (0, 1, 2) if os.isatty(fd)}
        if not terminals:
            return
        try:
            self.outer, self.inner = os.openpty()
        except OSError:
            return  # no /dev/pts here: the program gets pipes
        self._served = terminals
        os.set_blocking(self.outer, False)
        try:
            modes = termios.tcgetattr(min(terminals))
            if not {0, 1} <= terminals:
                modes[_OFLAG] &= ~termios.OPOST  # our terminal keeps translating newlines: once is enough
            termios.tcsetattr(self.inner, termios.TCSANOW, modes)
        except termios.error:
            pass  # it begins with the modes of a fresh pty
        self.copy_size()

    def serves(self, fd: int) -> bool:
        """Whether the program's descriptor ``fd`` is this terminal."""
        return fd in self._served

    def adopt(self) -> None:
        """In the child, after setsid: make the pty its controlling terminal, so that ^C and size changes are its own."""
        fcntl.ioctl(self.inner, termios.TIOCSCTTY, 0)

    def close_inner(self) -> None:
        """The program has its end; ours would keep the pty from ever ending."""
        if self.inner >= 0:
            os.close(self.inner)
            self.inner = -1

    def copy_size(self) -> None:
        """Give the pty the size of our terminal; the kernel tells the program when it changed."""
        if self.outer < 0:
            return
        try:
            size = fcntl.ioctl(min(self._served), termios.TIOCGWINSZ, b"\0" * 8)
            fcntl.ioctl(self.outer, termios.TIOCSWINSZ, size)
        except OSError:
            return  # our terminal is gone

    def take_keys(self) -> None:
        """Pass keys on, unless we are in the background, where reading would stop us. Raw, so that ^C is a key as well."""
        if 0 not in self._served or self.outer < 0:
            return
        try:
            if os.tcgetpgrp(0) != os.getpgrp():
                return
            modes = termios.tcgetattr(0)
            if self._saved is None:
                self._saved = list(modes)
            termios.tcsetattr(0, termios.TCSANOW, _raw(modes, keep_output=not self.serves(1)))
        except (OSError, termios.error):
            return
        self.takes_keys = True

    def read_keys(self) -> bytes:
        """What was typed; at the terminal's end keys are no longer taken."""
        try:
            keys = os.read(0, 4096)
        except OSError:
            keys = b""
        if not keys:
            self.takes_keys = False
        return keys

    def send_keys(self, keys: bytes) -> bytes:
        """Send as much as the program's side takes; returns the rest."""
        try:
            return keys[os.write(self.outer, keys) :]
        except BlockingIOError:
            return keys
        except OSError:
            return b""  # the program has closed its terminal

    def close(self) -> None:
        """Give our terminal its modes back."""
        self.close_inner()
        if self._saved is not None:
            try:
                # In the background this would stop us, and the shell has given the terminal its own modes.
                if os.tcgetpgrp(0) == os.getpgrp():
                    termios.tcsetattr(0, termios.TCSANOW, self._saved)
            except (OSError, termios.error):
                pass  # hung up
            self._saved = None
        if self.outer >= 0:
            os.close(self.outer)
            self.outer = -1


def same_file(first: int, second: int) -> bool:
    """Whether two of our descriptors lead to one place, so that the order of what is written matters."""
    try:
        one, other = os.fstat(first), os.fstat(second)
    except OSError:
        return False
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def _raw(modes: list[Any], keep_output: bool) -> list[Any]:
    """Every byte as it is typed. ``keep_output``: others of our pipeline print here and need their newlines translated."""
    raw = list(modes)
    translated = termios.ICRNL | termios.INLCR | termios.IGNCR | termios.ISTRIP
    raw[_IFLAG] &= ~(translated | termios.BRKINT | termios.PARMRK | termios.IXON)
    if not keep_output:
        raw[_OFLAG] &= ~termios.OPOST
    raw[_LFLAG] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    raw[_CC] = list(raw[_CC])
    raw[_CC][termios.VMIN], raw[_CC][termios.VTIME] = 1, 0
    return raw

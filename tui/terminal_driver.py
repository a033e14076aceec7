"""Textual's driver with a quieter mouse: presses and the wheel are reported, motion never is."""

from __future__ import annotations

from textual.drivers.linux_driver import LinuxDriver

# Buttons and wheel, in the form that knows no limit of columns.
MOUSE_ON = "\x1b[?1000h\x1b[?1006h"
MOUSE_OFF = "\x1b[?1000l\x1b[?1006l"


class TerminalDriver(LinuxDriver):
    """Over a slow line, every report of a moving mouse would be a packet each way."""

    def _enable_mouse_support(self) -> None:
        if self._mouse:
            self.write(MOUSE_ON)
            self.flush()

    def _disable_mouse_support(self) -> None:
        if self._mouse:
            self.write(MOUSE_OFF)
            self.flush()

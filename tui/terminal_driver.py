"""Textual's driver with a quieter mouse (presses and the wheel are reported, motion never is), and an ear for what the terminal
answers about itself."""

from __future__ import annotations

from collections.abc import Iterable

from textual._xterm_parser import XTermParser
from textual.drivers import linux_driver
from textual.drivers.linux_driver import LinuxDriver
from textual.message import Message

from mltrack.tui.messages import TerminalAnswered

# Buttons and wheel, in the form that knows no limit of columns.
MOUSE_ON = "\x1b[?1000h\x1b[?1006h"
MOUSE_OFF = "\x1b[?1000l\x1b[?1006l"


class AnswerParser(XTermParser):
    """Keeps answers to our questions from becoming keys, from the moment that one was asked."""

    expects = False
    """Of all parsers: a terminal has one. Set before the first question is sent."""

    def __init__(self, debug: bool = False) -> None:
        super().__init__(debug)
        self._begun = ""

    def feed(self, data: str) -> Iterable[Message]:
        if not self.expects or not data:
            yield from super().feed(data)
            return
        from mltrack.tui.graphics import take_replies

        replies, rest, self._begun = take_replies(self._begun + data)
        for reply in replies:
            yield TerminalAnswered(reply)
        if rest:
            yield from super().feed(rest)


# The driver makes its parser itself.
setattr(linux_driver, "XTermParser", AnswerParser)  # noqa: B010  # a name that it imports


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

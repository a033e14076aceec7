"""The app: wiring of screens, worker and terminal, nothing else."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from textual import events
from textual.app import App
from textual.binding import BindingType
from textual.css.query import NoMatches
from textual.filter import LineFilter
from textual.theme import Theme
from textual.widgets import Input

from mltrack.tui.clean import clean
from mltrack.tui.live import Live
from mltrack.tui.messages import Answered, StoreChanged, Trouble, WorkerEnded
from mltrack.tui.screens.base import BaseScreen
from mltrack.tui.screens.runs import RunsScreen
from mltrack.tui.widgets.look import LastFilter, use_ascii
from mltrack.tui.worker_process import WorkerProcess

# How often a store that does not exist yet is looked for.
_LOOK_SECONDS = 1.0
_DARK = Theme(
    name="mltrack-dark",
    primary="#005f87",
    foreground="#d7dce2",
    background="#121212",
    surface="#262626",
    panel="#3a3a3a",
    dark=True,
)


class MltrackApp(App[None]):
    """Experiments in the terminal."""

    CSS_PATH = "app.tcss"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = []

    def __init__(
        self,
        where: str | None = None,
        *,
        place: str = "",
        root: Path | None = None,
        filter_text: str = "",
        readonly: bool = False,
        ascii_only: bool = False,
        worker: WorkerProcess | None = None,
    ) -> None:
        """``where`` is the store as it was asked for, ``place`` its name for people. ``root`` is its folder while that
        does not exist: the worker starts when it does."""
        super().__init__()
        use_ascii(ascii_only)
        self.where = where
        self.place = clean(place)
        self.readonly = readonly
        self.ascii_only = ascii_only
        self.live = Live(where, readonly, self.post_message, worker)
        self._awaited = root
        self._runs = RunsScreen(filter_text)
        self._last_filter = LastFilter()
        self.register_theme(_DARK)
        self.theme = _DARK.name

    def get_line_filters(self) -> Sequence[LineFilter]:
        return [*super().get_line_filters(), self._last_filter]

    async def on_event(self, event: events.Event) -> None:
        # Textual sends a key through the queues of widgets before its action runs; keys that come in one burst (typed
        # ahead, pasted, over a slow line) would then meet the focus of before. Here each acts before the next is read.
        if isinstance(event, events.Key) and not event.is_forwarded:
            acts = event.key in ("enter", "escape") or not isinstance(self.focused, Input)
            screen = self.screen
            if isinstance(screen, BaseScreen):
                screen.key_pressed()
            if acts and await self._check_bindings(event.key):
                return
        await super().on_event(event)

    def on_mount(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            try:
                loop.add_signal_handler(number, self.exit)
            except (ValueError, RuntimeError, NotImplementedError):
                break  # not the main thread: a test, or an app inside another
        if self._awaited is None:
            self.live.start()
        else:
            self.set_interval(_LOOK_SECONDS, self._look_for_store, name="look")
        self.push_screen(self._runs)

    def _look_for_store(self) -> None:
        if self._awaited is not None and self._awaited.is_dir():
            self._awaited = None
            self.live.start()
            self._runs.set_class(False, "-empty")
            self._runs.reload()

    def first_rows(self) -> None:
        """The first rows are on the screen: what was loaded until now stays, the collector need not look at it."""
        gc.enable()
        gc.freeze()

    def on_answered(self, message: Answered) -> None:
        try:
            sentence = self.live.deliver(message)
        except NoMatches:
            return  # the screen that asked is being closed: its widgets are gone
        if sentence:
            self._say(sentence)

    def on_store_changed(self, message: StoreChanged) -> None:
        for screen in self.screen_stack:
            if isinstance(screen, BaseScreen):
                screen.on_store_changed(message)

    def on_trouble(self, message: Trouble) -> None:
        self._say(message.sentence)

    def on_worker_ended(self, message: WorkerEnded) -> None:
        sentence = self.live.ended(message)
        if sentence is None:
            return
        self._runs.trouble = "" if self.live.running else "no store"
        self._say(sentence)
        if self.live.running:
            for screen in self.screen_stack:
                if isinstance(screen, BaseScreen):
                    screen.on_store_changed(StoreChanged(0, 0))

    def _say(self, sentence: str) -> None:
        for screen in reversed(self.screen_stack):
            if isinstance(screen, BaseScreen):
                screen.say(sentence, "error")
                return

    def on_unmount(self) -> None:
        self.live.close()

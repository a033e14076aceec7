"""The app: wiring of screens, worker and terminal, nothing else."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from rich.console import RenderableType
from textual import events
from textual._compositor import ChopsUpdate
from textual.actions import ActionParseResult
from textual.app import App, SuspendNotSupported
from textual.binding import BindingType
from textual.css.query import NoMatches
from textual.dom import DOMNode
from textual.filter import LineFilter
from textual.screen import Screen
from textual.theme import Theme
from textual.widgets import Input

from mltrack.tui.alert_list import Alert, AlertList, style_of
from mltrack.tui.clean import clean
from mltrack.tui.config import PICTURES, Config
from mltrack.tui.keys import KEYS, Key, remap
from mltrack.tui.keys_roles import NEEDED
from mltrack.tui.live import Live
from mltrack.tui.messages import Answered, Note, StoreChanged, TerminalAnswered, Trouble, WorkerEnded
from mltrack.tui.saved_view import SavedView
from mltrack.tui.screens import desk
from mltrack.tui.screens.base import BaseScreen
from mltrack.tui.screens.registry import ROOT, SCREENS
from mltrack.tui.screens.runs import RunsScreen
from mltrack.tui.small_frames import SmallUpdate
from mltrack.tui.terminal_driver import MOUSE_OFF, MOUSE_ON, AnswerParser, TerminalDriver
from mltrack.tui.widgets.look import LastFilter, shown, use_ascii, use_theme
from mltrack.tui.widgets.themes import PALETTES
from mltrack.tui.worker_process import WorkerProcess

if TYPE_CHECKING:
    from mltrack.tui.commands import Typed
    from mltrack.tui.graphics import Graphics

# How often a store that does not exist yet is looked for.
_LOOK_SECONDS = 1.0
_SETTLE_SECONDS = 0.3
# Slurm is asked as seldom as its administrators like, and only while a job of ours goes on there.
_SLURM_SECONDS = 30.0


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
        theme: str = "dark",
        screen: str = "",
        config: Config | None = None,
        worker: WorkerProcess | None = None,
        saved: SavedView | None = None,
        view_file: Path | None = None,
        follow: Sequence[str] = (),
        look_around: bool = False,
        pictures: str = "",
    ) -> None:
        """``where`` is the store as it was asked for, ``place`` its name for people. ``root`` is its folder while that
        does not exist: the worker starts when it does. ``saved`` is the view to begin with, kept in ``view_file``.
        ``screen`` is opened over the table of runs.
        ``follow``: data of other tools; ``look_around`` looks for some. ``pictures``: how they are drawn, whatever is configured."""
        super().__init__(driver_class=TerminalDriver)
        config = config or Config()
        remap(config.keys)
        bindings = {key.id: key.binding for key in KEYS}
        self.set_keymap({bindings[id]: ",".join(keys) for id, keys in config.keys.items()})
        self._troubles = list(config.troubles)
        self._first_screen = screen
        use_ascii(ascii_only)
        self.where = where
        self.place = clean(place)
        self.readonly = readonly
        self.pictures = pictures or os.environ.get(PICTURES, "") or config.pictures
        self.ascii_only = ascii_only
        self.live = Live(where, readonly, self.post_message, worker)
        self.alerts = AlertList(config, self.live, self.set_timer, self.send_raw, self._alerted)
        self.who: dict[str, Any] = {"name": "", "shown": "", "guarded": False, "refusals": {}}
        """Who one is on this store, as the worker said last (worker_calls/who.py)."""
        self._awaited = root
        if root is not None:
            self.live.absent = (
                f"There is no store in {self.place} yet; the first run that is logged there makes it."
            )
        self._to_follow = list(follow)
        self._looks_around = look_around
        self._progress = ""
        self._runs = RunsScreen(saved or SavedView(filter=filter_text), view_file)
        self._last_filter = LastFilter()
        for palette in PALETTES.values():
            self.register_theme(
                Theme(
                    name=f"mltrack-{palette.name}",
                    primary=palette.primary,
                    foreground="ansi_default" if palette.ansi else palette.text,
                    background=palette.ground,
                    surface=palette.field,
                    panel=palette.field,
                    dark=palette.dark,
                    ansi=palette.ansi,
                    # Textual sets these two for colours of our own only.
                    variables={"ansi-background": "ansi_default", "ansi-foreground": "ansi_default"}
                    if palette.ansi
                    else {},
                )
            )
        self.set_colours(theme)

    def _display(self, screen: Screen[object], renderable: object | None) -> None:
        if isinstance(renderable, ChopsUpdate):
            renderable = SmallUpdate.of(renderable)
        super()._display(screen, renderable)  # type: ignore[arg-type]  # what it was given

    def get_line_filters(self) -> Sequence[LineFilter]:
        return [*super().get_line_filters(), self._last_filter]

    async def on_event(self, event: events.Event) -> None:
        # Textual sends a key through the queues of widgets before its action runs; keys that come in one burst (typed
        # ahead, pasted, over a slow line) would then meet the focus of before. Here each acts before the next is read.
        if isinstance(event, events.Key) and not event.is_forwarded:
            screen, field = self.screen, self.focused
            if isinstance(screen, BaseScreen):
                screen.key_pressed()
            if isinstance(field, Input) and event.is_printable:
                await field._on_key(event)
                return
            if await self._check_bindings(event.key):
                return
        await super().on_event(event)

    @property
    def runs(self) -> RunsScreen:
        """The table of runs, below whatever else is shown."""
        return self._runs

    def get_default_screen(self) -> Screen[Any]:
        # Not a screen over an empty one, which would be laid out and painted first.
        if self._awaited is None:
            self.live.start()
        return self._runs

    def on_mount(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            try:
                loop.add_signal_handler(number, self.exit)
            except (ValueError, RuntimeError, NotImplementedError):
                break  # not the main thread: a test, or an app inside another
        if self._awaited is not None:
            self.set_interval(_LOOK_SECONDS, self._look_for_store, name="look")
        if self._first_screen and self._first_screen != ROOT:
            self.push_screen(SCREENS[self._first_screen]())
        if self._troubles:
            self.call_after_refresh(self._say, " ".join(self._troubles))
        if self._to_follow:
            self._follow(self._to_follow)
        elif self._awaited is not None:
            self._begin_to_look_around()

    # -- what `:` and help can do

    async def perform(self, key: Key) -> None:
        """Do what a key of the screen does, whatever key that is now."""
        for node, bindings in self.screen._binding_chain:
            for binding in itertools.chain.from_iterable(bindings.key_to_bindings.values()):
                if binding.id == key.binding:
                    await self.run_action(binding.action, node)
                    return

    def refusal(self, focus: str, id: str) -> str:
        """Why a key cannot do anything for whoever sits here; "" where it may."""
        role, kind = NEEDED.get((focus, id), ("", ""))
        return str(self.who["refusals"].get(kind, {}).get(role, ""))

    async def run_action(
        self,
        action: str | ActionParseResult,
        default_namespace: DOMNode | None = None,
        namespaces: Mapping[str, DOMNode] | None = None,
    ) -> bool:
        """Every key and command comes through here: one that the server would refuse anyway says so before it asks anything."""
        screen = self.screen
        if isinstance(action, str) and isinstance(screen, BaseScreen):
            why = next((why for focus in screen.focuses() if (why := self.refusal(focus, action))), "")
            if why:
                screen.say(shown(why))
                self.live.ask("who", self._known_again, topic="who", again=True)
                return True
        return await super().run_action(action, default_namespace, namespaces)

    def _known_again(self, who: dict[str, Any]) -> None:
        """A role may have been given since the server was asked: the next press goes by what it says now."""
        self.who = who

    async def carry_out(self, typed: Typed) -> None:
        """Carry out a command typed behind `:`."""
        screen = self.screen
        if not isinstance(screen, BaseScreen):
            return
        if typed.name == "q":
            self.exit()
        elif typed.name == "w":
            screen.write_shown(typed.argument)
        elif typed.name == "goto":
            screen.go_to(int(typed.argument))
        elif typed.name == "!":
            screen.run_shell(typed.argument)
        elif typed.name == "mouse":
            on = typed.argument == "on"
            self.send_raw(MOUSE_ON if on else MOUSE_OFF)
            screen.say(f"The mouse belongs to {'the app: wheel and click' if on else 'the terminal'}.")
        elif typed.name == "theme":
            if typed.argument in PALETTES:
                self.set_colours(typed.argument)
            else:
                screen.say(f"There is no theme '{typed.argument}'; there are {', '.join(PALETTES)}.")
        else:
            await desk.carry_out(screen, typed)

    def set_colours(self, name: str) -> None:
        """Draw in another theme."""
        use_theme(name)
        self.theme = f"mltrack-{name}"
        for screen in self.screen_stack if self._running else ():
            for widget in screen.walk_children():
                widget.refresh()

    async def show_screen(self, name: str) -> None:
        """Go to a screen that a digit opens, from wherever one is."""
        while len(self.screen_stack) > 1:
            self.pop_screen()
        if name != ROOT:
            await self.push_screen(SCREENS[name]())

    def send_raw(self, sequence: str) -> None:
        """Send a control sequence of ours to the terminal; safe from any thread."""
        driver = self._driver
        if driver is not None and not self.is_headless:
            driver.write(sequence)
            driver.flush()

    # -- pictures

    @cached_property
    def graphics(self) -> Graphics:
        """What pictures the terminal can draw. Asked for by whoever shows the first one."""
        from mltrack.tui.graphics import Graphics

        colours = self.console.color_system in ("256", "truecolor", "windows")
        plain = "NO_COLOR" in os.environ or self.theme == "mltrack-plain" or self.ascii_only
        return Graphics(self.pictures, os.environ, colours and not plain)

    def ask_about_pictures(self) -> None:
        """Ask the terminal, once; screens that show pictures hear of it when it draws more than half-blocks."""
        self._ask_terminal(self.graphics.questions())

    def window_resized(self) -> None:
        """The letters may have another size than when the terminal was asked."""
        self._ask_terminal(self.graphics.resized())

    def _ask_terminal(self, questions: str) -> None:
        if questions:
            AnswerParser.expects = True
            self.send_raw(questions)

    def on_terminal_answered(self, message: TerminalAnswered) -> None:
        graphics = self.graphics
        before = graphics.canvas
        self._ask_terminal(graphics.heard(message.reply))
        if graphics.canvas != before and isinstance(self.screen, BaseScreen):
            self.screen.pictures_changed()

    def run_shell(self, command: str, folder: Path) -> None:
        """A shell in a folder, or one command there; the app comes back when it ends."""
        screen = self.screen
        shell = os.environ.get("SHELL") or "/bin/sh"
        try:
            with self.suspend():
                words = [shell, "-c", command] if command else [shell]
                print(
                    clean(
                        f"mltrack: {command or shell} in {folder}" + ("" if command else "; exit comes back"),
                        None,
                    )
                )
                done = subprocess.run(words, cwd=folder)
                if command:
                    input(f"mltrack: it ended with {done.returncode}; enter goes back ")
        except (SuspendNotSupported, OSError, EOFError, KeyboardInterrupt) as error:
            if isinstance(screen, BaseScreen) and not isinstance(error, EOFError | KeyboardInterrupt):
                screen.say(f"No shell: {error}", "error")
        self.refresh(layout=True)

    # -- data of other tools

    async def look_around(self, asked: bool = False) -> None:
        """Offer what lies below the working folder. Unasked, only where nothing else is shown, else in a sentence."""
        from mltrack.tui.screens.offer import OfferScreen, search

        folder = os.getcwd()
        found = await search(self.where, folder)
        if found is None or not found["found"]:
            if asked:
                refused = (found or {}).get("refused")
                folders = int((found or {}).get("folders", 0))
                self._say(
                    refused or f"Nothing new to follow in {folders:,} folders below {folder}.", "yellow"
                )
            return
        paths = [str(row["path"]) for row in found["found"]]
        if not asked and self._runs.view is not None and self._runs.view.get("all"):
            self._say(
                f"{len(paths):,} sources below this folder are not followed yet; O shows them.", "yellow"
            )
            return

        def answered(yes: bool | None) -> None:
            if yes:
                self._follow(paths)

        await self.push_screen(OfferScreen(found, folder), answered)

    def _follow(self, paths: Sequence[str]) -> None:
        if self._awaited is not None:  # the store is made for this
            self._awaited = None
            self.live.start()
            self._runs.set_class(False, "-empty")

        def done(result: dict[str, Any]) -> None:
            for trouble in result["troubles"]:
                self._say(trouble)
            if result["sentence"] and not result["troubles"]:
                # Said as the first of the progress, which takes its place.
                self._progress = clean(f"{result['sentence']}. Nothing there is ever changed.")
                self._say(self._progress, "green")
            self._runs.reload()

        self.live.ask("follow", done, lambda error: self._say(str(error.get("message"))), paths=list(paths))

    def _look_for_store(self) -> None:
        if self._awaited is not None and self._awaited.is_dir():
            self._awaited = None
            self.live.start()
            self._runs.set_class(False, "-empty")
            self._ask_all_again()

    def exit(self, result: None = None, return_code: int = 0, message: RenderableType | None = None) -> None:
        if self._runs.is_mounted:
            self._runs.save(leaving=True)
        super().exit(result, return_code, message)

    def first_rows(self) -> None:
        """The first rows are on the screen: what was loaded until now stays, the collector need not look at it."""
        gc.enable()
        gc.freeze()
        # A process that would compete with the painting of these rows.
        self.set_timer(_SETTLE_SECONDS, self._begin_to_look_around)
        self._ask_slurm()
        self.set_interval(_SLURM_SECONDS, self._ask_slurm)

    def _ask_slurm(self) -> None:
        if self.live.running:
            self.live.ask("ask_slurm", lambda nothing: None, topic="slurm")

    def _begin_to_look_around(self) -> None:
        """Once, and not before the first rows are there: it is a process that would compete with them."""
        if self._looks_around and not self._to_follow:
            self._looks_around = False
            self.run_worker(self.look_around(), name="look around", exit_on_error=False)

    def on_answered(self, message: Answered) -> None:
        try:
            sentence = self.live.deliver(message)
        except NoMatches:
            return  # the screen that asked is being closed: its widgets are gone
        if sentence:
            self._say(sentence)

    def on_store_changed(self, message: StoreChanged) -> None:
        if not self.screen_stack:
            return  # the app is being closed
        if again := self.live.heard():
            self._runs.trouble = ""
            self._say(again, "green")
        # Progress stands where sentences stand, and makes room for any other.
        if isinstance(self.screen, BaseScreen) and self.screen.said in ("", self._progress):
            had, self._progress = self._progress, ""
            if message.waiting_runs > 1:
                self._progress = f"{message.waiting_runs:,} runs of other tools are still to be read"
                self.screen.say(self._progress, "dim")
            elif had:
                self.screen.key_pressed()
        # What lies below another screen must not change: Textual would paint those parts of the screen on top again.
        looked_at = True
        for screen in reversed(self.screen_stack):
            if isinstance(screen, BaseScreen):
                if looked_at:
                    screen.on_store_changed(message)
                else:
                    screen.missed = True
                looked_at = False

        self.alerts.store_changed()

    def _alerted(self, alert: Alert) -> None:
        if isinstance(self.screen, BaseScreen) and not self.screen.said:
            self.screen.say(f"{alert.sentence}   :alerts lists them", style_of(alert.kind))
        self._runs.show_head()

    def on_trouble(self, message: Trouble) -> None:
        self.live.troubled()
        self._say(message.sentence)

    def on_note(self, message: Note) -> None:
        self._say(message.sentence, "dim")

    def on_worker_ended(self, message: WorkerEnded) -> None:
        sentence = self.live.ended(message)
        if sentence is None:
            return
        self._runs.trouble = "" if self.live.running else "no connection" if self.live.host else "no store"
        self.live.absent = sentence
        self._say(sentence)
        if self.live.retry_seconds:
            self.set_timer(self.live.retry_seconds, self._connect_again, name="connect")
        elif self.live.running:
            self._ask_all_again()

    def _connect_again(self) -> None:
        self.live.start()
        self._ask_all_again()

    def _ask_all_again(self) -> None:
        """Another worker answers: every screen asks it."""
        for screen in self.screen_stack:
            if isinstance(screen, BaseScreen):
                screen.on_store_changed(StoreChanged(0, 0))

    def _say(self, sentence: str, style: str = "error") -> None:
        for screen in reversed(self.screen_stack):
            if isinstance(screen, BaseScreen):
                screen.say(clean(sentence), style)
                return

    def on_unmount(self) -> None:
        self.live.close()

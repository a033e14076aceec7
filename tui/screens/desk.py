"""What is typed behind `:` at the desk: reproduce a run. Each is the command of the same name, in a process of its own."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

from mltrack.tui.alert_list import style_of
from mltrack.tui.clean import clean, clip
from mltrack.tui.named_views import list_views, load_named, remove_named, save_named
from mltrack.tui.screens.dialogs import Question
from mltrack.tui.screens.tidy import TIDYING
from mltrack.tui.widgets.look import Line, shown

if TYPE_CHECKING:
    from mltrack.tui.commands import Typed
    from mltrack.tui.screens.base import BaseScreen
    from mltrack.tui.screens.runs import RunsScreen

_OUTPUT_BYTES = 65536
_NAME, _COMMAND = 40, 200
# What chooses a view: no letter that moves in the menu or closes it.
_VIEW_LETTERS = "123456789abcdefghilmnoprstuvwxyz"
_MENU_FRAME, _MENU_NAME = 6, 28


async def carry_out(screen: BaseScreen, typed: Typed) -> None:
    """Carry out what was typed, or say why it cannot be done here."""
    if typed.name == "alerts":
        await _show_alerts(screen)
    elif typed.name in ("group", "view"):
        from mltrack.tui.screens.runs import RunsScreen

        if not isinstance(screen, RunsScreen):
            screen.say(f":{typed.name} acts in the table of runs (1).")
        elif typed.name == "group":
            await screen.show_groups(typed.argument)
        else:
            await view(screen, typed.argument)
    elif typed.name in TIDYING:
        await TIDYING[typed.name](screen, typed.argument)
    elif typed.name == "diff":
        from mltrack.tui.screens.compare import CompareScreen

        if isinstance(screen, CompareScreen):
            await screen.show_file(typed.argument)
        else:
            screen.say(":diff acts in a comparison: mark two runs, then c.")
    elif typed.name == "plot":
        await plot(screen, typed.argument)
    elif typed.name in ("checkout", "rerun"):
        run_id = screen.looked_at
        if run_id is None:
            screen.say("There is no run here.")
        elif typed.name == "checkout":
            twin(
                screen,
                "Making the folder",
                "checkout",
                run_id,
                os.path.abspath(os.path.expanduser(typed.argument)),
            )
        else:
            ask_rerun(screen, run_id, typed.argument)
    elif typed.name == "server":
        words = typed.argument.split() or ["status"]
        if words[0] not in ("start", "stop", "status") or len(words) > 2:
            screen.say(":server start [PORT], :server stop or :server status")
            return
        port = ["--port", words[1]] if len(words) == 2 else []
        screen.say("Looking for the server ..." if words[0] == "status" else "One moment ...", "dim")
        screen.run_worker(_server(screen, ("server", words[0], *port)), exit_on_error=False)


async def plot(screen: BaseScreen, words: str) -> None:
    """`:plot KIND [A,B]`."""
    from mltrack.tui.screens.plot import KINDS, PlotScreen

    kind, _, columns = words.partition(" ")
    names = [name.strip() for name in columns.split(",") if name.strip()]
    question = screen.plotted()
    if kind == "confusion":
        run_id = screen.looked_at
        question = None if run_id is None else {"run_ids": [run_id], "filter": "", "experiment": None}
    if kind not in (*KINDS, "confusion"):
        screen.say(f"There is no plot '{kind}'; there are {', '.join(KINDS)} and confusion.")
    elif question is None:
        screen.say("There are no runs to plot here: go to the table (1).")
    elif isinstance(screen, PlotScreen):
        screen.draw(kind, names, question)
    else:
        await screen.app.push_screen(PlotScreen(kind, names, question))


async def view(screen: RunsScreen, words: str) -> None:
    """`:view`, `:view NAME`, `:view save NAME`, `:view drop NAME`."""
    url = screen.mltrack.place
    first, _, rest = words.partition(" ")
    name = rest.strip()
    try:
        if first == "save" and name:
            save_named(url, name, screen.current_view())
            screen.say(f"Saved as {name}; :view {name} comes back to it.", "green")
        elif first == "drop" and name:
            dropped = remove_named(url, name)
            screen.say(
                f"{'Dropped' if dropped else 'There is no'} view {name}.", "green" if dropped else "yellow"
            )
        elif words:
            _use_view(screen, words)
        elif names := list_views(url):
            choose_view(screen, names)
        else:
            screen.say("No view is saved yet: `:view save NAME` saves this one.")
    except (OSError, ValueError) as error:
        screen.say(str(error), "error")


def _use_view(screen: RunsScreen, name: str) -> None:
    url = screen.mltrack.place
    found = load_named(url, name)
    if found is None:
        screen.say(f"There is no view '{name}'; there are {', '.join(list_views(url)) or 'none'}.")
    else:
        screen.use_view(found)
        screen.say(f"View {name}.", "green")


def choose_view(screen: RunsScreen, names: list[str]) -> None:
    """A menu of the saved views, as many as fit; the others by their names."""
    from mltrack.tui.screens.column_menu import ColumnMenu

    by_letter = dict(zip(_VIEW_LETTERS[: max(1, screen.size.height - _MENU_FRAME)], names, strict=False))

    def choose(letter: str) -> bool:
        try:
            _use_view(screen, by_letter[letter])
        except (OSError, ValueError) as error:
            screen.say(str(error), "error")
        return False

    title = "Views" if len(by_letter) == len(names) else f"{len(by_letter)} of {len(names)} views"
    entries = [(letter, clip(shown(name), _MENU_NAME), "") for letter, name in by_letter.items()]
    screen.app.push_screen(ColumnMenu(title, lambda: entries, choose))


async def _show_alerts(screen: BaseScreen) -> None:
    from mltrack.tui.screens.text import TextScreen

    found = screen.mltrack.alerts
    found.seen()
    lines: list[Line] = [
        (
            (time.strftime(" %H:%M:%S  ", time.localtime(alert.time_s)), "dim"),
            (alert.sentence, style_of(alert.kind)),
            (f"   {alert.experiment} {alert.run_id[:8]}", "dim"),
        )
        for alert in reversed(found.alerts)
    ]
    nothing: Line = (
        (" Nothing happened since the app was started; `mltrack alerts` says what is wrong now.", "dim"),
    )
    await screen.app.push_screen(TextScreen("Alerts", lines or [nothing], sentences=True))


def run_again(screen: BaseScreen, run_id: str) -> None:
    """The form of a run that was launched by us; for any other its recorded command in its own code, after a question."""
    from mltrack.tui.screens.jobs import launch_like

    launch_like(screen, run_id, lambda error: ask_rerun(screen, run_id))


def ask_rerun(screen: BaseScreen, run_id: str, folder: str = "") -> None:
    """Run the recorded command again, after a question that shows it."""

    def ask(target: dict[str, Any]) -> None:
        def answered(yes: bool | None) -> None:
            if yes:
                place = ["--in", os.path.abspath(os.path.expanduser(folder))] if folder else []
                twin(screen, "Running it again; the new run comes into the table", "rerun", run_id, *place)

        name, command = clip(shown(target["name"]), _NAME), clip(shown(target["command"]), _COMMAND)
        screen.app.push_screen(Question(f"Run {name} again: {command}, at {target['code']}?"), answered)

    screen.mltrack.live.ask("rerun_target", ask, screen.failed, run_id=run_id)


def twin(screen: BaseScreen, doing: str, *words: str) -> None:
    """Run the `mltrack` command with these words; what it says last is said. It outlives the app."""
    screen.say(f"{doing} ...", "dim")
    screen.run_worker(_twin(screen, words), exit_on_error=False)


async def _server(screen: BaseScreen, words: tuple[str, ...]) -> None:
    """What the command says; where there are lines for clients, on a page of their own, and copied."""
    code, lines = await said(screen, words)
    for_clients = [line.strip() for line in lines if line.startswith("  ")]
    screen.say(lines[0], "error" if code and words[1] != "status" else "green")
    if for_clients:
        from mltrack.tui.screens.text import TextScreen

        page: list[Line] = [((f" {lines[0]}", ""),), (("", ""),)]
        page += [((f"   {line}", "bold"),) for line in for_clients]
        page += [
            (("", ""),),
            ((" These lines are copied. :server stop ends it; it outlives the app.", "dim"),),
        ]
        await screen.app.push_screen(TextScreen("Server for MLflow's clients", page))
        shown_screen = screen.app.screen
        if isinstance(shown_screen, TextScreen):
            shown_screen.copy("\n".join(for_clients) + "\n", "the lines for clients")


async def _twin(screen: BaseScreen, words: tuple[str, ...]) -> None:
    code, lines = await said(screen, words)
    screen.say(lines[-1], "error" if code else "green")


async def said(screen: BaseScreen, words: tuple[str, ...]) -> tuple[int, list[str]]:
    """The exit code of a `mltrack` command and the lines it said, fit for the screen."""
    # Not among its words, which everybody on the machine may read: an address may hold a password.
    environment = {**os.environ, "MLTRACK_STORE": screen.mltrack.where} if screen.mltrack.where else None
    # Into a file: the command goes on when nobody is there to read a pipe.
    with tempfile.TemporaryFile() as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mltrack.tui.cli", *words),
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        code = await process.wait()
        output.seek(max(0, output.seek(0, os.SEEK_END) - _OUTPUT_BYTES))
        lines = [line for line in output.read().decode("utf-8", "replace").splitlines() if line.strip()]
    return code, [clean(line, None).removeprefix("mltrack: ") for line in lines or ["It said nothing."]]

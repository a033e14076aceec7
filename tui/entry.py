"""`mltrack-tui`: something on the screen first, then everything else.

Order matters here: the alternate screen is entered and the worker started before Textual is imported, so that both
load at the same time.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from mltrack.tui.drawable import is_terminal

if TYPE_CHECKING:
    import argparse

_THEMES = ("dark", "light", "contrast", "16", "plain")
_SCREENS = ("runs", "models", "system")
_PICTURES = ("auto", "kitty", "sixel", "blocks")
_ENTER = "\x1b[?1049h\x1b[?25l\x1b[2J\x1b[H"
_LEAVE = "\x1b[?1049l\x1b[?25h"


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Open the app; without a terminal print the table that `mltrack ls` prints."""
    options = _parse(list(sys.argv[1:] if argv is None else argv))
    _check_machines(options)
    if options.demo is not None and not (is_terminal() and not options.once and not options.plain):
        _tell_demo(options)
    if options.demo is not None:
        from mltrack.tui.live_demo import LiveDemo

        with LiveDemo(options.demo) as demo:
            options.store = str(demo.folder)
            sys.exit(_choose_and_open(options))
    if options.once or options.plain or not is_terminal():
        _print_table(options)
    sys.exit(_choose_and_open(options))


def _check_machines(options: argparse.Namespace) -> None:
    """Leave with a sentence when other machines that are to be followed cannot be meant."""
    others = [path for path in options.paths if path.startswith("ssh://")]
    if not others:
        return
    from mltrack.store.ssh_address import NotRemote, remote_of
    from mltrack.tui.cli.output import warn

    asked = options.store or os.environ.get("MLTRACK_STORE", "")
    try:
        for address in others:
            remote_of(address)
    except NotRemote as error:
        warn(str(error))
        sys.exit(5)
    if asked.startswith("ssh://"):
        # What is followed is remembered over there, where the other machine may not even have this name.
        warn(
            f"The store of another machine does not follow {others[0]} from here: "
            f"`mltrack-tui --store FOLDER {asked} {others[0]}` shows both in one table."
        )
        sys.exit(5)


def _choose_and_open(options: argparse.Namespace) -> int:
    asked = options.store or os.environ.get("MLTRACK_STORE", "")
    if asked.startswith("ssh://"):
        from mltrack.store.ssh_address import NotRemote, remote_of

        options.store = asked
        try:
            remote_of(options.store)
        except NotRemote as error:
            from mltrack.tui.cli.output import warn

            warn(str(error))
            return 5
        return _open(options, options.store, None)
    from mltrack.store.client.location import LocationError, choose_store

    try:
        choice = choose_store(options.store)
    except LocationError as error:
        from mltrack.tui.cli.output import warn

        warn(str(error))
        return 5
    return _open(options, choice.url, None if choice.is_remote else choice.root)


def _parse(arguments: list[str]) -> argparse.Namespace:
    import argparse

    parser = argparse.ArgumentParser(
        prog="mltrack-tui",
        description="Experiments in the terminal: a live table of runs, and their curves. ? shows the keys.",
    )
    parser.add_argument(
        "paths",
        nargs="*",
        metavar="PATH",
        help="data to follow, or a project's folder: mlruns, mlflow.db, TensorBoard and more, ssh://HOST/PATH of other machines",
    )
    parser.add_argument(
        "--store",
        metavar="WHERE",
        help="a folder or URL (ssh://HOST/PATH for one on another machine) instead of the store `mltrack where` names",
    )
    parser.add_argument(
        "--filter", metavar="TEXT", default="", help='for example "lr < 1e-3 and status = running"'
    )
    parser.add_argument("--ascii", action="store_true", help="draw with ASCII characters only")
    parser.add_argument("--no-mouse", action="store_true", help="leave the mouse to the terminal")
    parser.add_argument(
        "--pictures",
        choices=_PICTURES,
        default="",
        help="draw them so, whatever the terminal says: by kitty's protocol, as sixels, or in half-blocks",
    )
    parser.add_argument("--once", action="store_true", help="print the table and leave")
    parser.add_argument(
        "--plain",
        action="store_true",
        help="print the table, then a line for each change; nothing is drawn over",
    )
    parser.add_argument(
        "--demo",
        nargs="?",
        const="",
        metavar="DIR",
        help="open a made-up store that goes on by itself, in a new folder DIR or one that is gone afterwards",
    )
    parser.add_argument(
        "--theme",
        metavar="NAME",
        choices=_THEMES,
        help=f"one of {', '.join(_THEMES)} instead of the configured one",
    )
    parser.add_argument("--screen", choices=_SCREENS, default="", help="what to open first")
    parser.add_argument("--readonly", action="store_true", help="change nothing in the store")
    options = parser.parse_args(arguments)
    if options.store is None and len(options.paths) == 1 and options.paths[0].startswith("ssh://"):
        options.store = options.paths.pop()
    return options


def _tell_demo(options: argparse.Namespace) -> NoReturn:
    """The demo without a screen: its leading run, line by line, until ctrl+c."""
    import tempfile

    from mltrack.tui.cli.main import main as command

    seconds = ["--seconds", "1"] if options.once else []
    with tempfile.TemporaryDirectory(prefix="mltrack-demo-") as above:
        command(["demo", options.demo or os.path.join(above, "demo"), "--live", *seconds])


def _print_table(options: argparse.Namespace) -> NoReturn:
    from mltrack.tui.cli.main import main as command

    words = ["--ascii"] if options.ascii else []
    if options.store:
        words += ["--store", options.store]
    words += ["ls", *(f"--follow={path}" for path in options.paths), "--", options.filter]
    if options.once or not options.plain:
        command(words)
    import time

    began_ms = time.time_ns() // 1_000_000
    try:
        command(words)
    except SystemExit as done:
        if done.code:
            raise
    from mltrack.tui.cli.plain import follow_plainly
    from mltrack.tui.cli.session import Session
    from mltrack.tui.cli.terminal import detect_terminal

    try:
        session = Session(options.store, detect_terminal(ascii_only=options.ascii))
        follow_plainly(session, options.filter, since_ms=began_ms)
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(0)
    sys.exit(0)


def _open(options: argparse.Namespace, url: str, root: os.PathLike[str] | None) -> int:
    import gc
    import termios
    from pathlib import Path

    # What is to be followed is remembered in the store: then it is made.
    missing = root is not None and not os.path.isdir(root) and not options.paths
    before = termios.tcgetattr(0)
    try:
        _skeleton(before)
        worker = None
        if not missing:
            from mltrack.tui.worker_process import WorkerProcess

            worker = WorkerProcess(options.store, options.readonly)
        size = os.get_terminal_size(1)
        from mltrack.tui.saved_view import load_view, view_file

        file = view_file(url)
        saved = load_view(file)
        if options.filter:
            saved.filter, saved.run_id = options.filter, None
        if worker is not None:
            around = {"around": saved.run_id} if saved.run_id is not None else {}
            worker.ask_first("view", **saved.question(), first=size.lines, width=size.columns, **around)
            if not options.filter and saved.size == list(size):
                _draw_page(saved.page, size.columns, options.ascii)
        # Nothing of what is loaded now will be garbage; the app turns the collector on again with its first rows.
        gc.disable()
        os.environ.setdefault("TEXTUAL_ANIMATIONS", "none")
        os.environ.setdefault("TEXTUAL_SMOOTH_SCROLL", "0")
        from mltrack.tui.app import MltrackApp
        from mltrack.tui.cli.terminal import detect_terminal
        from mltrack.tui.config import load_config
        from mltrack.tui.widgets.themes import choose_theme

        config = load_config()
        app = MltrackApp(
            options.store,
            place=url,
            root=Path(root) if missing and root is not None else None,
            saved=saved,
            view_file=None if options.demo is not None else file,
            readonly=options.readonly,
            ascii_only=options.ascii or config.ascii or detect_terminal().ascii,
            theme=choose_theme(options.theme or config.theme),
            screen=options.screen,
            config=config,
            worker=worker,
            follow=[path if "://" in path else os.path.abspath(path) for path in options.paths],
            # Who names a store looks for its runs, not for what else lies around.
            pictures=options.pictures,
            look_around=not options.paths and not options.readonly and not options.store,
        )
        app.run(mouse=config.mouse and not options.no_mouse)
        return app.return_code or 0
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
        os.write(1, _LEAVE.encode())


def _skeleton(before: list[int | list[bytes | int]]) -> None:
    """The frame of the screen, and no echo of keys that are typed meanwhile: they wait for the app."""
    import termios

    quiet = list(before)
    local = quiet[3]
    assert isinstance(local, int)
    quiet[3] = local & ~(termios.ECHO | termios.ICANON)
    # Enter that is typed now must still be enter when the app reads it.
    flags = quiet[0]
    assert isinstance(flags, int)
    quiet[0] = flags & ~termios.ICRNL
    termios.tcsetattr(0, termios.TCSADRAIN, quiet)
    columns, _ = os.get_terminal_size(1)
    os.write(1, f"{_ENTER}\x1b[1m{' mltrack   opening'.ljust(columns)[:columns]}\x1b[0m".encode())


def _draw_page(page: Sequence[str], columns: int, ascii_only: bool) -> None:
    """What was on the screen when the app was left, faint until the worker has confirmed it."""
    rows = [
        f"\x1b[{number};1H\x1b[2m{''.join(filter(str.isprintable, line))[:columns]}\x1b[0m"
        for number, line in enumerate(page, 3)
        if line and (not ascii_only or line.isascii())
    ]
    os.write(1, "".join(rows).encode("utf-8", "replace"))


if __name__ == "__main__":
    main()

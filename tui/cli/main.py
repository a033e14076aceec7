"""The entry of `mltrack`: a table of commands, each imported only when it is the one that runs."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from mltrack.tui.cli.exit_codes import ExitCode, exit_code_for
from mltrack.tui.cli.output import warn
from mltrack.tui.cli.session import Session
from mltrack.tui.cli.terminal import detect_terminal, prepare_streams

# Group of the help page -> command -> (module of this package, what it does).
COMMANDS: dict[str, dict[str, tuple[str, str]]] = {
    "Look": {
        "ui": ("open_app", "Open the app; `mltrack` alone does so too."),
        "ls": ("list_runs", "List runs, filtered and sorted."),
        "show": ("show", "Show everything known about a run."),
        "metrics": ("series", "Print the points of a metric, exactly."),
        "plot": ("series", "Draw a metric of one or more runs."),
        "logs": ("logs", "Print what a run printed, and follow it."),
        "compare": ("compare", "Put runs side by side."),
        "report": ("report", "Write one HTML page about runs."),
        "watch": ("follow", "Watch a run live."),
        "alerts": ("alerts", "Say what is wrong with runs, and what happens to them."),
        "wait": ("follow", "Wait until runs have ended."),
        "system": ("system", "Show GPUs and who holds them, CPU, memory, disk."),
    },
    "Change": {
        "tag": ("edits", "Set or remove tags."),
        "note": ("edits", "Write the note of a run."),
        "rename": ("edits", "Give a run another name."),
        "move": ("edits", "Move runs to another experiment."),
        "pin": ("edits", "Pin runs to the top, or unpin them."),
        "delete": ("trash", "Put runs into the trash."),
        "restore": ("trash", "Take runs out of the trash."),
        "purge": ("trash", "Remove runs in the trash for good."),
        "keep": ("tidy", "Keep the best N of a sweep, trash the others."),
        "checkpoints": ("tidy", "List checkpoints, and remove those nothing needs."),
        "undo": ("trash", "Take back the last change."),
        "redo": ("trash", "Make the change that was taken back."),
    },
    "Run": {
        "exec": ("execute", "Run a command as a run."),
        "checkout": ("reproduce", "Make a folder with the code of a run, as it was."),
        "rerun": ("reproduce", "Run the command of a run again, with its code."),
        "stop": ("process", "Stop the process of a run."),
        "run": ("launch", "Run a project, in a container or not."),
        "jobs": ("jobs", "List what is queued, building and running."),
        "project": ("project", "Show what a project declares."),
        "demo": ("demo", "Fill a store with a story to try things on."),
    },
    "Models": {
        "models": ("models", "Register, promote, roll back, look at models."),
        "serve": ("serve", "Serve a model over HTTP."),
    },
    "Store": {
        "init": ("init", "Make a store here, or share one with a group."),
        "where": ("places", "Say which store is used, and why."),
        "config": ("places", "Show settings and where they come from."),
        "fold": ("upkeep", "Take in everything that was logged."),
        "source": ("sources", "Follow data of other tools where it lies."),
        "import": ("sources", "Copy the runs of another tool into the store."),
        "sync": ("upkeep", "Take in journals or data from elsewhere."),
        "ship": ("ship", "Send what waits for a remote store."),
        "backup": ("upkeep", "Copy the store's database safely."),
        "doctor": ("upkeep", "Check a store, and repair what can be."),
        "gc": ("trash", "Free the space of what is deleted for good."),
        "auth": ("auth", "Users, roles and tokens of the server."),
        "server": ("server", "Let MLflow's clients log into the store."),
        "worker": ("upkeep", "Serve the screen: fold and answer queries."),
    },
}
ALIASES = {"runs": "ls"}
_PLACES = {name: place for group in COMMANDS.values() for name, place in group.items()}


class CommandTable(click.Group):
    """Commands by name, imported on demand."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_PLACES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        name = ALIASES.get(cmd_name, cmd_name)
        if name not in _PLACES:
            return None
        module = importlib.import_module(f"mltrack.tui.cli.{_PLACES[name][0]}")
        command = getattr(module, f"{name}_command")
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _PLACES and args[0] not in ALIASES and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], [*_PLACES, *ALIASES], n=1)
            hint = f" Did you mean `mltrack {close[0]}`?" if close else " `mltrack --help` lists them."
            ctx.fail(f"There is no command '{args[0][:60]}'.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, group in COMMANDS.items():
            with formatter.section(title):
                formatter.write_dl([(name, summary) for name, (_, summary) in group.items()])


@click.command(
    cls=CommandTable, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.option("--store", metavar="WHERE", help="A folder or URL instead of the store `mltrack where` names.")
@click.option("--ascii", "ascii_only", is_flag=True, help="Print ASCII characters only.")
@click.option("--version", is_flag=True, help="Print the version and exit.")
@click.pass_context
def cli(ctx: click.Context, store: str | None, ascii_only: bool, version: bool) -> None:
    """Experiments at the prompt: what `mltrack-tui` shows, for scripts and for people in a hurry.

    RUN is an id or its beginning, a name, @last or @running.
    """
    if version:
        import mltrack

        click.echo(f"mltrack {mltrack.__version__}")
        ctx.exit(0)
    ctx.obj = Session(store, detect_terminal(ascii_only=ascii_only))
    if ctx.invoked_subcommand is None:
        from mltrack.tui.cli.open_app import open_app
        from mltrack.tui.drawable import is_terminal

        if not is_terminal():
            click.echo(ctx.get_help())
            return
        open_app(ctx.obj)


# Otherwise click takes a missing subcommand for an error before --version was looked at.
cli.invoke_without_command = True
cli.no_args_is_help = False


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit. No failure shows a traceback: one sentence on standard error and an exit code."""
    prepare_streams()
    _check_package()
    code = _run(list(sys.argv[1:] if argv is None else argv))
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _forget_stdout()
    except (OSError, ValueError) as error:
        warn(f"the output could not be written: {error}")
        code = code or ExitCode.FAILED
    sys.exit(int(code))


def _run(arguments: list[str]) -> int:
    from mltrack.store.client.location import LocationError
    from mltrack.store.errors import FilterError, MltrackError

    try:
        if os.environ.get("_MLTRACK_COMPLETE"):
            cli.main(args=arguments, prog_name="mltrack")
        # Not cli.main(): that turns a reader who left into a failure.
        with cli.make_context("mltrack", arguments) as context:
            where = context.params["store"] or os.environ.get("MLTRACK_STORE", "")
            if where.startswith("ssh://"):
                _go_there(where, context)
            result = cli.invoke(context)
        return result if isinstance(result, int) else ExitCode.OK
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except (click.exceptions.Abort, EOFError):
        return ExitCode.INTERRUPTED
    except click.ClickException as error:
        usage = error.ctx.get_usage() + "\n" if isinstance(error, click.UsageError) and error.ctx else ""
        warn(
            usage.replace("Usage: ", "usage: ") + error.format_message() if usage else error.format_message()
        )
        return error.exit_code
    except FilterError as error:
        warn(f"{error.message}\n{error.excerpt()}")
        return exit_code_for(error)
    except MltrackError as error:
        warn(error.message)
        return exit_code_for(error)
    except LocationError as error:
        warn(str(error))
        return ExitCode.STORE
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # The reader (head, a pager) has enough; that is no failure of ours.
        _forget_stdout()
        return ExitCode.OK
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        warn(f"{name}{error.strerror or error}")
        return ExitCode.FAILED
    except Exception as error:  # noqa: BLE001  # the border of the command: a bug is one sentence and a report, no traceback
        warn(_report_bug(error))
        return ExitCode.FAILED


def _go_there(where: str, context: click.Context) -> None:
    """Be the same command on the machine of the store; returns only for the app, whose worker alone is over there."""
    from mltrack.store.ssh_address import NotRemote, remote_of

    words = [*getattr(context, "_protected_args", ()), *context.args]
    if not words or words[0] == "ui" or context.params["version"]:
        return
    try:
        remote = remote_of(where)
    except NotRemote as error:
        raise click.UsageError(str(error)) from None
    assert remote is not None
    words = [*(["--ascii"] if context.params["ascii_only"] else []), *words]
    command = remote.command(words, terminal=sys.stdin.isatty() and sys.stdout.isatty(), quiet=False)
    sys.stdout.flush()
    try:
        os.execvp(command[0], command)
    except OSError as error:
        raise click.ClickException(f"ssh cannot be started ({error.strerror}). Is it installed?") from None


def _report_bug(error: Exception) -> str:
    """A sentence about a mistake of ours, with the file that now holds its traceback."""
    import tempfile
    import traceback

    what = f"this is a mistake in mltrack, not yours: {type(error).__name__}: {str(error)[:200]}"
    try:
        # Made anew for this user only: arguments, paths and values may stand in it.
        handle, path = tempfile.mkstemp(prefix="mltrack-error-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            traceback.print_exception(error, file=file)
    except OSError as trouble:
        return f"{what}. Its report could not be written ({trouble.strerror})."
    return f"{what}. Please report it with {path}."


def _forget_stdout() -> None:
    """Point standard output nowhere, so that the interpreter's last flush finds no closed pipe."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def _check_package() -> None:
    """The package `mltrack` on PyPI is somebody else's; installed beside ours it would replace our __init__.py."""
    import mltrack

    if not (mltrack.__doc__ or "").startswith("mltrack: experiment tracking that lives in the terminal"):
        warn(
            f"the Python package `mltrack` at {mltrack.__file__} is another project of that name. "
            "Repair it with: pip uninstall mltrack && pip install --force-reinstall mltrack-tui"
        )
        sys.exit(int(ExitCode.FAILED))

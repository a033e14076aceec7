"""What can be typed behind `:`. Pure data and its parser; the screens carry it out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """A word with what follows it. ``twin`` is the command line that does the same, where there is one."""

    name: str
    argument: str
    label: str
    twin: str = ""

    @property
    def optional(self) -> bool:
        """Whether it works without what follows it."""
        return self.argument.startswith("[")

    @property
    def shown(self) -> str:
        """As a person types it."""
        return f":{self.name}{' ' if self.argument and self.name != '!' else ''}{self.argument}"


COMMANDS: tuple[Command, ...] = (
    Command("q", "", "quit at once"),
    Command("w", "FILE", "write what is shown: .csv .json .md .html .svg .txt", "mltrack ls --csv > FILE"),
    Command(
        "theme", "NAME", "dark, light, contrast, 16 or plain, until the app ends", "mltrack-tui --theme NAME"
    ),
    Command("mouse", "on|off", "take the mouse, or leave it to the terminal", "mltrack-tui --no-mouse"),
    Command("group", "A,B", "groups of runs by these params", "mltrack ls --group-by A,B"),
    Command(
        "plot",
        "KIND [A,B]",
        "scatter, parallel, importance, hist, bands of these runs; confusion of this one",
        "mltrack plot --kind KIND A,B",
    ),
    Command(
        "diff",
        "[FILE]",
        "the same file of two runs compared; without a name which files differ",
        "mltrack compare A B --file FILE",
    ),
    Command(
        "view",
        "[save NAME]",
        "named views: a menu of them; save NAME, NAME, drop NAME",
        "mltrack ls --view NAME",
    ),
    Command(
        "move",
        "EXPERIMENT",
        "the marked runs, or this one, into this experiment",
        "mltrack move RUN... EXPERIMENT",
    ),
    Command(
        "keep", "N", "the best N of this sweep, the others into the trash (asks)", "mltrack keep N PARENT"
    ),
    Command("trash", "", "what is in the trash, and how many bytes", "mltrack ls --trash"),
    Command("restore", "RUN", "take a run out of the trash: its name, or its id", "mltrack restore RUN"),
    Command(
        "purge",
        "[marked|RUN]",
        "the whole trash for good, the marked runs, or one in the trash (wants the word typed)",
        "mltrack purge --all",
    ),
    Command(
        "checkpoints",
        "[delete]",
        "checkpoints and what needs them; delete: those that nothing needs (asks)",
        "mltrack checkpoints --delete",
    ),
    Command(
        "gc",
        "[journals]",
        "free the space of what is gone, seal ended journals; journals: drop sealed ones (asks)",
        "mltrack gc --journals",
    ),
    Command("alerts", "", "what happened to runs since the app was started", "mltrack alerts"),
    Command("checkout", "DIR", "the code of this run as it was, in a new folder", "mltrack checkout RUN DIR"),
    Command("rerun", "[DIR]", "the recorded command again, in the run's own code", "mltrack rerun RUN"),
    Command(
        "server",
        "[start|stop|status]",
        "let MLflow's clients log into this store; with the lines they need",
        "mltrack server start|stop|status",
    ),
    Command("!", "COMMAND", "run a shell command in the run's folder"),
    Command("42", "", "go to that row or line: any number"),
)


@dataclass(frozen=True)
class Typed:
    """A command line that can be carried out; ``name`` is "goto" for a number."""

    name: str
    argument: str


def parse_command(text: str) -> Typed | None:
    """The command that was typed, None when the text is none (then it looks for an action). A leading `:` is optional."""
    text = text.strip().removeprefix(":").strip()
    if text.startswith("!"):
        return Typed("!", text[1:].strip()) if text[1:].strip() else None
    if text.isascii() and text.isdigit():
        return Typed("goto", text)
    name, _, argument = text.partition(" ")
    command = next((command for command in COMMANDS if command.name == name), None)
    if command is None or command.name in ("!", "42"):
        return None
    argument = argument.strip()
    if bool(argument) != bool(command.argument) and not command.optional:
        return None
    return Typed(name, argument)


def complete_command(text: str) -> str | None:
    """The text with its command's name completed, None when no single command begins so."""
    begin = text.strip().removeprefix(":")
    found = [command for command in COMMANDS if command.name.startswith(begin) and command.name.isalpha()]
    if not begin or len(found) != 1:
        return None
    return found[0].name + (" " if found[0].argument else "")

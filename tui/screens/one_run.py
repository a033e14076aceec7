"""What is done to one run from the table and from its own screen: its process stopped, its note written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from textual.app import SuspendNotSupported

from mltrack.tui.clean import clean, clip
from mltrack.tui.messages import StoreChanged
from mltrack.tui.screens.dialogs import Question
from mltrack.tui.widgets.look import shown

if TYPE_CHECKING:
    from mltrack.tui.screens.base import BaseScreen

_NAME = 40


def ask_stop(screen: BaseScreen, run_id: str) -> None:
    """Stop the run's process, after a question that names host, process and owner."""

    def ask(target: dict[str, Any]) -> None:
        def stop(yes: bool | None) -> None:
            if yes:
                screen.mltrack.live.ask(
                    "stop",
                    lambda done: screen.say(f"{done['sentence']}.", "green"),
                    screen.failed,
                    run_id=run_id,
                    pid=target["pid"],
                    started=target["started"],
                )

        name = clip(shown(str(target["name"])), _NAME)
        owner = target["user"] or "nobody known"
        screen.app.push_screen(Question(f"Stop {name}: {target['what']}, of {owner}?"), stop)

    screen.mltrack.live.ask("stop_target", ask, screen.failed, run_id=run_id)


def write_note(screen: BaseScreen, run_id: str) -> None:
    """Write the run's note in $EDITOR."""
    screen.mltrack.live.ask(
        "note_of", lambda note: _edit(screen, run_id, str(note)), screen.failed, run_id=run_id
    )


def _edit(screen: BaseScreen, run_id: str, before: str) -> None:
    """Give the terminal to $EDITOR; what was written is kept whatever happens."""
    from mltrack.store.errors import BadInput
    from mltrack.tui.cli.edits import edit_text, keep_text

    try:
        with screen.app.suspend():
            text = edit_text(before)
    except SuspendNotSupported:
        screen.say(f"Not possible here. At a prompt: mltrack note {run_id[:8]} --edit", "error")
        return
    except BadInput as error:
        screen.say(clean(str(error)), "error")
        return
    if text == before:
        screen.say("The note was not changed.", "dim")
        return

    def done(decision: dict[str, Any]) -> None:
        screen.decided()
        screen.say(f"{decision['sentence']}.   u takes it back", "green")
        screen.on_store_changed(StoreChanged(0, 0))

    def refused(error: dict[str, Any]) -> None:
        screen.say(f"{error.get('message', '')} Your text is in {keep_text(text)}", "error")

    screen.mltrack.live.ask("write_note", done, refused, run_id=run_id, before=before, text=text)

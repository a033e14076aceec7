"""What is done to runs from the table and to one from its own screen: tagged, renamed, put into the trash, stopped, noted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from textual.app import SuspendNotSupported

from mltrack.tui.clean import clean, clip
from mltrack.tui.draw.numbers import format_bytes
from mltrack.tui.messages import StoreChanged
from mltrack.tui.screens.dialogs import Prompt, Question
from mltrack.tui.widgets.look import shown

if TYPE_CHECKING:
    from mltrack.tui.screens.base import BaseScreen

_NAME = 40
_TRASH_DAYS = 30


def named(run_ids: Sequence[str], name_of: Callable[[str], str]) -> str:
    """These runs in a sentence: the name of one, the number of several."""
    if len(run_ids) == 1:
        return clip(shown(name_of(run_ids[0])), _NAME)
    return f"{len(run_ids):,} runs"


def ask_tag(screen: BaseScreen, run_ids: Sequence[str], name_of: Callable[[str], str]) -> None:
    """Ask for a tag, and put it on these runs."""

    def tag(text: str | None) -> None:
        key, equals, value = (text or "").strip().partition("=")
        if key.strip():
            tags = {key.strip(): value.strip() if equals else ""}
            screen.decide("set_tags", run_ids=list(run_ids), tags=tags)

    label = f"Tag {named(run_ids, name_of)}"
    screen.app.push_screen(Prompt(label, placeholder="key=value, or just a word"), tag)


def ask_name(screen: BaseScreen, run_id: str, now: str) -> None:
    """Ask for another name than the one it has now."""

    def rename(text: str | None) -> None:
        name = (text or "").strip()
        if name and name != now:
            screen.decide("rename", run_id=run_id, name=name)

    screen.app.push_screen(Prompt("Rename to", now), rename)


def ask_trash(
    screen: BaseScreen,
    run_ids: Sequence[str],
    name_of: Callable[[str], str],
    marks: set[str],
    hidden: set[str],
) -> None:
    """Put these runs into the trash, after a question that says whose they are and how much that is. Their ``marks`` go with them;
    of those that are ``hidden`` the question says that nobody sees them."""

    def ask(weighed: dict[str, Any]) -> None:
        ids = [str(run_id) for run_id in weighed["ids"]]
        if not ids:
            return
        owners = [str(owner) for owner in weighed["owners"]]
        of = f" of {', '.join(owners[:3])}" if owners else ""
        size = format_bytes(weighed["bytes"])
        sentence = f"Delete {named(ids, name_of)}{of} to trash ({size}, kept {_TRASH_DAYS} days)"
        if weighed["running"]:
            sentence += (
                f", {weighed['running']:,} of them still running" if len(ids) > 1 else ", still running"
            )
        if unseen := len(hidden.intersection(ids)):
            sentence += f", {unseen:,} of them hidden by the filter"

        def trash(yes: bool | None) -> None:
            if yes:
                marks.difference_update(ids)
                screen.decide("trash", run_ids=ids)

        screen.app.push_screen(Question(f"{sentence}?"), trash)

    screen.mltrack.live.ask("weigh", ask, screen.failed, run_ids=list(run_ids))


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

"""What is typed behind `:` to tidy: keep the best of a sweep, empty the trash, clean up, remove checkpoints."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from mltrack.tui.clean import clip
from mltrack.tui.draw.numbers import format_bytes
from mltrack.tui.messages import StoreChanged
from mltrack.tui.screens.dialogs import Prompt, Question
from mltrack.tui.widgets.look import Line, shown, spans_of

if TYPE_CHECKING:
    from mltrack.tui.screens.base import BaseScreen

_NAMES = 3
_WORD = "purge"


async def keep(screen: BaseScreen, words: str) -> None:
    """`:keep N` on a sweep, or on a run of one."""
    run_id = screen.looked_at
    if run_id is None or not words.isdigit():
        screen.say("`:keep N` keeps the best N of the sweep under the cursor.")
        return

    def ask(weighed: dict[str, Any]) -> None:
        ids = weighed["ids"]
        if not ids:
            screen.say("There are no more than these.", "dim")
            return
        names = [clip(shown(name), 24) for name in weighed["names"]]
        best = f" ({', '.join(names[:_NAMES])}{' ...' if len(names) > _NAMES else ''})" if names else ""
        also = f", {weighed['spared']:,} spared" if weighed["spared"] else ""
        sentence = (
            f"Keep the best {len(names):,} by {shown(weighed['goal'])}{best}{also}, and put {len(ids):,} others "
            f"({format_bytes(weighed['bytes'])}) into the trash?"
        )

        def answered(yes: bool | None) -> None:
            if yes:
                screen.decide("trash", run_ids=ids)

        screen.app.push_screen(Question(sentence), answered)

    screen.mltrack.live.ask("weigh_keep", ask, screen.failed, run_id=run_id, count=int(words))


async def purge(screen: BaseScreen, words: str) -> None:
    """`:purge`: the whole trash, for good; `:purge marked` the marked runs; `:purge RUN` one that is in the trash."""
    what: dict[str, Any] = {"reference": words}
    if words == "marked":
        what = {"run_ids": _chosen(screen)}
    if words == "marked" and not what["run_ids"]:
        screen.say("No run is marked.")
        return

    def ask(weighed: dict[str, Any]) -> None:
        ids = weighed["ids"]
        held = f"{weighed['held']:,} stay: a model is made of them" if weighed["held"] else ""
        if not ids:
            screen.say(f"Nothing can be purged; {held}." if held else "The trash is empty.", "dim")
            return
        of = f" of {', '.join(weighed['owners'][:3])}" if weighed["owners"] else ""
        label = f"Type {_WORD}:"
        runs = f"{len(ids):,} {'run' if len(ids) == 1 else 'runs'}"
        about = f"{runs}{shown(of)}, {format_bytes(weighed['bytes'])}, gone for good{held and '; ' + held}"

        def typed(text: str | None) -> None:
            if (text or "").strip() != _WORD:
                screen.say("Nothing was purged.", "dim")
                return

            def done(decision: dict[str, Any]) -> None:
                screen.mltrack.runs.table.marks.difference_update(ids)
                screen.say(f"{decision['sentence']}, {format_bytes(weighed['bytes'])}.", "green")
                screen.on_store_changed(StoreChanged(0, 0))

            screen.mltrack.live.ask("purge_for_good", done, screen.failed, run_ids=ids)

        screen.app.push_screen(Prompt(label, placeholder=about), typed)

    screen.mltrack.live.ask("weigh_purge", ask, screen.failed, **what)


async def checkpoints(screen: BaseScreen, words: str) -> None:
    """`:checkpoints`: which there are, and what needs them; `:checkpoints delete` removes those that nothing needs."""
    from mltrack.tui.screens.text import open_text

    def read(lines: list[Any]) -> tuple[str, list[Line]]:
        return "Checkpoints", [spans_of(line) for line in lines]

    def ask(spare: dict[str, int]) -> None:
        def answered(yes: bool | None) -> None:
            from mltrack.tui.screens.desk import twin

            if yes:
                twin(screen, "Removing checkpoints", "checkpoints", "--delete", "--yes")

        if not spare["count"]:
            screen.say("Every checkpoint is needed.", "dim")
            return
        which = f"{spare['count']:,} checkpoints that nothing needs ({format_bytes(spare['bytes'])})"
        screen.app.push_screen(Question(f"Remove {which} for good?"), answered)

    if not words:
        open_text(screen, "Checkpoints", "checkpoint_lines", read, sentences=True)
    elif words != "delete":
        screen.say("`:checkpoints` lists them, `:checkpoints delete` removes those that nothing needs.")
    elif _may_write(screen):
        screen.mltrack.live.ask("weigh_checkpoints", ask, screen.failed)


async def gc(screen: BaseScreen, words: str) -> None:
    """`:gc`: free the space of what is deleted for good and of leftovers, seal ended journals; `:gc journals` drops sealed ones."""
    if words not in ("", "journals"):
        screen.say("`:gc` cleans up, `:gc journals` drops the sealed journals too.")
    elif _may_write(screen):
        screen.say("Looking for what can go ...", "dim")
        screen.run_worker(_gc(screen, ("--journals",) if words else ()), exit_on_error=False)


async def _gc(screen: BaseScreen, options: tuple[str, ...]) -> None:
    """In a process of its own, as it may take long: what would go, a question, then it goes."""
    from mltrack.tui.screens.desk import said

    def listed(lines: list[str]) -> str:
        return ", ".join(" ".join(line.split()) for line in lines if line != "Nothing was changed.")

    async def free() -> None:
        screen.say("Cleaning up ...", "dim")
        code, lines = await said(screen, ("gc", "--yes", *options))
        screen.say(lines[-1] if code else f"Cleaned up: {listed(lines)}.", "error" if code else "green")

    def answered(yes: bool | None) -> None:
        if yes:
            screen.run_worker(free(), exit_on_error=False)
        else:
            screen.say("Nothing was changed.", "dim")

    code, lines = await said(screen, ("gc", "--dry-run", *options))
    if code:
        screen.say(lines[-1], "error")
        return
    nothing = lines[-1] != "Nothing was changed."
    what = "Seal ended journals" if nothing else f"Free {listed(lines)}, and seal ended journals"
    if options:
        what += "; after that only backups can replace a damaged database"
    screen.app.push_screen(Question(f"{what}?"), answered)


def _may_write(screen: BaseScreen) -> bool:
    if screen.mltrack.readonly:
        screen.say("The store is open read-only; nothing was changed.", "error")
    return not screen.mltrack.readonly


async def trash(screen: BaseScreen, words: str) -> None:
    """`:trash`: what is in it."""
    from mltrack.tui.screens.text import open_text

    open_text(screen, "Trash", "trash_lines")


async def restore(screen: BaseScreen, words: str) -> None:
    """`:restore RUN`: out of the trash again."""
    screen.mltrack.live.ask(
        "in_trash",
        lambda run_id: screen.decide("restore", run_ids=[run_id]),
        screen.failed,
        reference=words,
    )


async def move(screen: BaseScreen, words: str) -> None:
    """`:move EXPERIMENT`: the marked runs, or the one that is looked at."""
    one = screen.looked_at
    chosen = _chosen(screen) or ([one] if one is not None else [])
    if chosen:
        screen.decide("move", run_ids=chosen, experiment=words)
    else:
        screen.say("There is no run to move.")


def _chosen(screen: BaseScreen) -> list[str]:
    """The marked runs, where the table is what is looked at."""
    runs = screen.mltrack.runs
    return runs.chosen() if screen is runs and runs.table.marks else []


TIDYING: dict[str, Callable[[BaseScreen, str], Awaitable[None]]] = {
    "keep": keep,
    "move": move,
    "trash": trash,
    "restore": restore,
    "purge": purge,
    "checkpoints": checkpoints,
    "gc": gc,
}

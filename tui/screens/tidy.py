"""What is typed behind `:` to tidy: keep the best of a sweep, empty the trash, look at checkpoints."""

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
    """`:purge`: the whole trash, for good."""

    def ask(weighed: dict[str, Any]) -> None:
        ids = weighed["ids"]
        if not ids:
            screen.say("The trash is empty.", "dim")
            return
        of = f" of {', '.join(weighed['owners'][:3])}" if weighed["owners"] else ""
        label = f"Type {_WORD}:"
        about = f"{len(ids):,} runs{shown(of)}, {format_bytes(weighed['bytes'])}, gone for good"

        def typed(text: str | None) -> None:
            if (text or "").strip() != _WORD:
                screen.say("Nothing was purged.", "dim")
                return

            def done(decision: dict[str, Any]) -> None:
                screen.say(f"{decision['sentence']}, {format_bytes(weighed['bytes'])}.", "green")
                screen.on_store_changed(StoreChanged(0, 0))

            screen.mltrack.live.ask("purge", done, screen.failed, run_ids=ids)

        screen.app.push_screen(Prompt(label, placeholder=about), typed)

    screen.mltrack.live.ask("weigh_purge", ask, screen.failed)


async def checkpoints(screen: BaseScreen, words: str) -> None:
    """`:checkpoints`: which there are, and what needs them."""
    from mltrack.tui.screens.text import open_text

    def read(lines: list[Any]) -> tuple[str, list[Line]]:
        return "Checkpoints", [spans_of(line) for line in lines]

    open_text(screen, "Checkpoints", "checkpoint_lines", read, sentences=True)


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
    from mltrack.tui.screens.runs import RunsScreen

    one = screen.looked_at
    chosen = screen.chosen() if isinstance(screen, RunsScreen) else [one] if one is not None else []
    if chosen:
        screen.decide("move", run_ids=chosen, experiment=words)
    else:
        screen.say("There is no run to move.")


TIDYING: dict[str, Callable[[BaseScreen, str], Awaitable[None]]] = {
    "keep": keep,
    "move": move,
    "trash": trash,
    "restore": restore,
    "purge": purge,
    "checkpoints": checkpoints,
}

"""What the table of runs changes: tags, names, notes, pins, trash, and processes that are stopped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mltrack.tui.clean import clip
from mltrack.tui.draw.numbers import format_bytes
from mltrack.tui.screens.one_run import ask_stop, write_note
from mltrack.tui.screens.runs_columns import RunsColumns
from mltrack.tui.widgets.look import shown

_NAMES_IN_QUESTION = 40
_TRASH_DAYS = 30


class RunsChanges(RunsColumns):
    """Each change is a decision that can be taken back, or asks first."""

    def chosen(self) -> list[str]:
        """Ids of the marked runs in the order of the table, those that the filter hides behind; else of the run here."""
        table = self.table
        if table.marks:
            here = [run_id for run_id in table.ids if run_id in table.marks]
            return here + sorted(table.marks.difference(here))
        return [table.current] if table.current is not None else []

    def _named(self, run_ids: Sequence[str]) -> str:
        if len(run_ids) == 1:
            return clip(shown(self.table.name_of(run_ids[0])), _NAMES_IN_QUESTION)
        return f"{len(run_ids):,} runs"

    async def action_tag(self) -> None:
        from mltrack.tui.screens.dialogs import Prompt

        chosen = self.chosen()
        if not chosen:
            self.say("There is no run to tag.")
            return

        def tag(text: str | None) -> None:
            key, equals, value = (text or "").strip().partition("=")
            if key.strip():
                self._decide("set_tags", run_ids=chosen, tags={key.strip(): value.strip() if equals else ""})

        label = f"Tag {self._named(chosen)}"
        await self.app.push_screen(Prompt(label, placeholder="key=value, or just a word"), tag)

    async def action_rename(self) -> None:
        from mltrack.tui.screens.dialogs import Prompt

        run_id = self.table.current
        if run_id is None:
            self.say("There is no run to rename.")
            return

        def rename(text: str | None) -> None:
            name = (text or "").strip()
            if name and name != self.table.name_of(run_id):
                self._decide("rename", run_id=run_id, name=name)

        await self.app.push_screen(Prompt("Rename to", self.table.name_of(run_id)), rename)

    def action_pin(self) -> None:
        chosen = self.chosen()
        if not chosen:
            self.say("There is no run to pin.")
            return
        mine = self.saved.pins
        if not self._pinned_for_all(chosen) or set(chosen) & set(mine):
            pinned = set(chosen) <= set(mine)
            self.saved.pins = [run_id for run_id in mine if run_id not in chosen] + ([] if pinned else chosen)
            verb = "Unpinned" if pinned else "Pinned"
            self.say(f"{verb} {self._named(chosen)}, for you alone.   P does it for everybody", "green")
            self.reload()
        else:
            self.say(f"Pinned for everybody: {self._named(chosen)}.   P takes that away", "yellow")

    def action_pin_for_all(self) -> None:
        chosen = self.chosen()
        if chosen:
            self._decide("pin", run_ids=chosen, pinned=not self._pinned_for_all(chosen))
        else:
            self.say("There is no run to pin.")

    def _pinned_for_all(self, run_ids: Sequence[str]) -> bool:
        known = [self.table.known(run_id) for run_id in run_ids]
        return all(row is not None and row["pinned"] == "all" for row in known)

    def action_trash(self) -> None:
        chosen = self.chosen()
        if not chosen:
            self.say("There is no run to delete.")
            return
        self.mltrack.live.ask("weigh", self._ask_trash, self.failed, run_ids=chosen)

    def _ask_trash(self, weighed: dict[str, Any]) -> None:
        ids = [str(run_id) for run_id in weighed["ids"]]
        if not ids:
            return
        owners = [str(owner) for owner in weighed["owners"]]
        of = f" of {', '.join(owners[:3])}" if owners else ""
        size = format_bytes(weighed["bytes"])
        sentence = f"Delete {self._named(ids)}{of} to trash ({size}, kept {_TRASH_DAYS} days)"
        if weighed["running"]:
            sentence += (
                f", {weighed['running']:,} of them still running" if len(ids) > 1 else ", still running"
            )
        hidden = len(set(ids) & self.table.marks - set(self.table.ids))
        if hidden:
            sentence += f", {hidden:,} of them hidden by the filter"

        from mltrack.tui.screens.dialogs import Question

        def trash(yes: bool | None) -> None:
            if yes:
                self.table.marks.difference_update(ids)
                self._decide("trash", run_ids=ids)

        self.app.push_screen(Question(f"{sentence}?"), trash)

    def action_stop(self) -> None:
        run_id = self.table.current
        if run_id is None:
            self.say("There is no run to stop.")
            return

        ask_stop(self, run_id)

    def action_note(self) -> None:
        run_id = self.table.current
        if run_id is None:
            self.say("There is no run to write a note on.")
            return
        write_note(self, run_id)

    def action_register(self) -> None:
        from mltrack.tui.screens.models_register import register_model

        if self.table.current is None:
            self.say("There is no run to register a model of.")
            return
        register_model(self, self.table.current, self._decide)

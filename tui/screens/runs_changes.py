"""What the table of runs changes: tags, names, notes, pins, trash, and processes that are stopped."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mltrack.tui.screens.one_run import ask_name, ask_stop, ask_tag, ask_trash, named, write_note
from mltrack.tui.screens.runs_columns import RunsColumns


class RunsChanges(RunsColumns):
    """Each change is a decision that can be taken back, or asks first."""

    def chosen(self) -> list[str]:
        """Ids of the marked runs in the order of the table, those that the filter hides behind; else of the run here."""
        table = self.table
        if table.marks:
            here = [run_id for run_id in table.ids if run_id in table.marks]
            return here + sorted(table.marks.difference(here))
        return [table.current] if table.current is not None else []

    def action_tag(self) -> None:
        if chosen := self.chosen():
            ask_tag(self, chosen, self.table.name_of)
        else:
            self.say("There is no run to tag.")

    def action_rename(self) -> None:
        run_id = self.table.current
        if run_id is None:
            self.say("There is no run to rename.")
        else:
            ask_name(self, run_id, self.table.name_of(run_id))

    def action_pin(self) -> None:
        if chosen := self.chosen():
            self.say(*self.pin(chosen, self.table.name_of))
        else:
            self.say("There is no run to pin.")

    def pin(self, run_ids: Sequence[str], name_of: Callable[[str], str]) -> tuple[str, str]:
        """Keep these runs on top for this person alone, or no longer; (what was done, its style)."""
        mine = self.saved.pins
        if self._pinned_for_all(run_ids) and not set(run_ids) & set(mine):
            return f"Pinned for everybody: {named(run_ids, name_of)}.   P takes that away", "yellow"
        pinned = set(run_ids) <= set(mine)
        kept = [run_id for run_id in mine if run_id not in run_ids]
        self.saved.pins = kept if pinned else [*kept, *run_ids]
        self.reload()
        verb = "Unpinned" if pinned else "Pinned"
        return f"{verb} {named(run_ids, name_of)}, for you alone.   P does it for everybody", "green"

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
        table = self.table
        if chosen := self.chosen():
            ask_trash(self, chosen, table.name_of, table.marks, table.marks.difference(table.ids))
        else:
            self.say("There is no run to delete.")

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

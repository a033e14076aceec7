"""What keys do to the run whose screen this is, and what `w` and `!` take from it: the run, its report, its chart."""

from __future__ import annotations

from typing import Any

from mltrack.tui.screens.base import BaseScreen
from mltrack.tui.screens.one_run import ask_name, ask_stop, ask_tag, ask_trash, write_note
from mltrack.tui.widgets.charts import Charts


class RunSharing(BaseScreen):
    """The run ``run_id``, at ``tab``."""

    run_id: str
    tab: str
    page: dict[str, Any] | None

    @property
    def looked_at(self) -> str | None:
        return self.run_id

    def action_note_here(self) -> None:
        write_note(self, self.run_id)

    def action_stop_here(self) -> None:
        ask_stop(self, self.run_id)

    def _called(self, run_id: str) -> str:
        """What it is called; its children have no name here."""
        return str(self.page["name"]) if self.page is not None and run_id == self.run_id else run_id[:8]

    def action_tag_here(self) -> None:
        ask_tag(self, [self.run_id], self._called)

    def action_rename_here(self) -> None:
        ask_name(self, self.run_id, self._called(self.run_id))

    def action_trash_here(self) -> None:
        ask_trash(self, [self.run_id], self._called, self.mltrack.runs.table.marks, set())

    def action_pin_here(self) -> None:
        self.say(*self.mltrack.runs.pin([self.run_id], self._called))

    def action_pin_for_all_here(self) -> None:
        if self.page is not None:
            self.decide("pin", run_ids=[self.run_id], pinned=not self.page["pinned"])

    def action_register_here(self) -> None:
        from mltrack.tui.screens.models_register import register_model

        register_model(self, self.run_id, self.decide)

    def action_run_again_here(self) -> None:
        from mltrack.tui.screens.desk import run_again

        run_again(self, self.run_id)

    def decided(self) -> None:
        # Back in the table `u` takes this back before the marks that were made earlier.
        self.mltrack.runs.decided()

    def action_undo(self) -> None:
        self.mltrack.runs.undone_elsewhere()
        super().action_undo()

    def action_redo(self) -> None:
        self.mltrack.runs.undone_elsewhere(redo=True)
        super().action_redo()

    @property
    def reported(self) -> list[str]:
        return [self.run_id] if self.tab in ("Overview", "Charts") else []

    @property
    def figure(self) -> dict[str, Any] | None:
        """The chart that has the keys, by steps."""
        charts = self.query_one("#charts", Charts)
        if self.tab != "Charts" or charts.chosen_key is None:
            return None
        return {"run_ids": [self.run_id], "key": charts.chosen_key, "y_scale": charts.y_scale}

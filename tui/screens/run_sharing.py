"""What `w` and `!` take from the screen of a run: the run, its report, its chart."""

from __future__ import annotations

from typing import Any

from mltrack.tui.screens.base import BaseScreen
from mltrack.tui.screens.one_run import ask_stop, write_note
from mltrack.tui.widgets.charts import Charts


class RunSharing(BaseScreen):
    """The run ``run_id``, at ``tab``."""

    run_id: str
    tab: str

    @property
    def looked_at(self) -> str | None:
        return self.run_id

    def action_note_here(self) -> None:
        write_note(self, self.run_id)

    def action_stop_here(self) -> None:
        ask_stop(self, self.run_id)

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

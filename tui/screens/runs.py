"""The table of all runs, live."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import BindingType

from mltrack.tui.screens.runs_sharing import RunsSharing
from mltrack.tui.widgets.bindings import bindings_of


class RunsScreen(RunsSharing):
    """The table, and the ways from it to other screens."""

    BINDINGS: ClassVar[list[BindingType]] = bindings_of("runs")

    async def action_open(self) -> None:
        if not self.toggle_family():
            await self._open("Charts")

    async def action_logs(self) -> None:
        await self._open("Logs")

    async def action_compare(self) -> None:
        chosen = self.chosen() if self.table.marks else []
        aggregate = self.aggregate or "best"
        if len(chosen) > 1:
            # The worker reads the runs while the screen is loaded and laid out; it says again what is wrong with them.
            self.mltrack.live.ask(
                "compare_cells",
                lambda _: None,
                lambda _: None,
                run_ids=chosen,
                aggregate=aggregate,
                places=[],
            )
        from mltrack.tui.screens.compare import MOST_RUNS, CompareScreen

        if len(chosen) < 2:
            self.say("Mark two runs or more with space, then c puts them side by side.")
        elif len(chosen) > MOST_RUNS:
            self.say(f"{len(chosen):,} runs are marked; at most {MOST_RUNS} fit side by side.")
        else:
            await self.app.push_screen(CompareScreen(chosen, aggregate))

    def action_run_again(self) -> None:
        from mltrack.tui.screens.desk import run_again

        if self.table.current is None:
            self.say("There is no run to run again.")
        else:
            run_again(self, self.table.current)

    async def _open(self, tab: str) -> None:
        from mltrack.tui.screens.run import RunScreen

        if self.table.current is None:
            self.say("There is no run to open.")
            return
        await self.app.push_screen(RunScreen(self.table, tab))

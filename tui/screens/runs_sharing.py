"""The table of runs, copied and written: exact values of all runs that the filter lets through, not only those on the screen."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from textual.widgets import Input

from mltrack.tui.saved_view import SavedView
from mltrack.tui.screens.runs_changes import RunsChanges

if TYPE_CHECKING:
    from mltrack.tui.export import Shown


@dataclass(frozen=True)
class _Mine:
    """What is this person's alone, and can be taken back without the store."""

    marks: frozenset[str]
    pins: tuple[str, ...]


class RunsSharing(RunsChanges):
    """What the screen of the table does with `y`, `Y`, `w`, `!` and a number behind `:`."""

    file_stem = "runs"

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._now = _Mine(frozenset(), tuple(self.saved.pins))
        # What can be taken back, newest last: marks and pins as they were, or None for a decision, which the store takes back.
        self._past: list[_Mine | None] = []
        self._future: list[_Mine | None] = []

    def ask_shown(self, use: Callable[[Shown], None]) -> None:
        if self.view is None:
            self.say("The table is not there yet.")
            return
        table = self.table
        self._ask_rows_of(list(table.ids), [_column(column) for column in table.columns], use)

    def _ask_rows_of(
        self, run_ids: list[str], columns: list[dict[str, Any]], use: Callable[[Shown], None]
    ) -> None:
        from mltrack.tui.export import Shown

        def arrived(answer: dict[str, Any]) -> None:
            use(Shown("Runs", answer["headings"], answer["rows"]))

        self.mltrack.live.ask("export_runs", arrived, self.failed, run_ids=run_ids, columns=columns)

    def go_to(self, number: int) -> None:
        self.table.move(number - 1 - self.table.row)

    @property
    def looked_at(self) -> str | None:
        return self.table.current

    def ask_outside(self, use: Callable[[dict[str, str] | None], None]) -> None:
        self.ask_outside_of_run(use, column=self.table.column or "")

    @property
    def reported(self) -> list[str]:
        return self.chosen() if self.table.marks else []

    # -- groups and named views

    def action_group(self) -> None:
        from mltrack.tui.screens.dialogs import Prompt

        telling = [column.key for column in self.table.columns if column.kind == "param"][:2]

        def use(text: str | None) -> None:
            if text and text.strip():
                self.call_later(self.show_groups, text.strip())

        self.app.push_screen(Prompt("Group by", ",".join(telling), "params, such as lr,batch_size"), use)

    async def show_groups(self, by: str) -> None:
        """The groups of the runs that are shown."""
        from mltrack.tui.screens.groups import GroupsScreen

        question = {
            "filter": self.filter_text if self.error is None else "",
            "experiment": self.saved.experiment,
            "aggregate": self.saved.aggregate,
            "layout": dict(self.scope_layout()),
        }
        await self.app.push_screen(GroupsScreen(by, question, self.narrow))

    def plotted(self) -> dict[str, Any]:
        return {
            "run_ids": self.chosen() if len(self.table.marks) > 1 else [],
            "filter": self.filter_text if self.error is None else "",
            "experiment": self.saved.experiment,
        }

    async def action_plot(self) -> None:
        from mltrack.tui.screens.desk import plot

        await plot(self, "scatter")

    def narrow(self, more: str) -> None:
        """Show only what fits this filter too."""
        now = self.filter_text.strip() if self.error is None else ""
        self.query_one("#filter", Input).value = f"({now}) and {more}" if now else more

    def current_view(self) -> SavedView:
        """The view as it is now."""
        self.saved.filter = self.filter_text if self.error is None else ""
        self.saved.sort = [list(key) for key in self.table.sort]
        return deepcopy(self.saved)

    def use_view(self, view: SavedView) -> None:
        """Show a view that was saved."""
        saved = self.saved
        saved.sort, saved.aggregate, saved.flat = view.sort, view.aggregate, view.flat
        saved.layouts = {**saved.layouts, **deepcopy(view.layouts)}
        self.table.sort = [(str(key), bool(turned)) for key, turned in view.sort]
        self.filter_text = view.filter
        self.query_one("#filter", Input).value = view.filter
        self._choose_experiment(view.experiment)

    # -- undo: marks and pins too

    def key_pressed(self) -> None:
        super().key_pressed()
        self._note_mine()

    def _note_mine(self) -> None:
        """Remember marks and pins as they were before a key, whichever key it was."""
        now = _Mine(frozenset(self.table.marks), tuple(self.saved.pins))
        if now != self._now:
            self._past.append(self._now)
            self._now = now
            self._future.clear()

    def decided(self) -> None:
        self._note_mine()
        self._past.append(None)
        self._future.clear()

    def undone_elsewhere(self, redo: bool = False) -> None:
        """A decision is taken back, or made again, from a screen over this one."""
        take, give = (self._future, self._past) if redo else (self._past, self._future)
        if take and take[-1] is None:
            give.append(take.pop())

    def action_undo(self) -> None:
        self._note_mine()
        if not self._past or self._past[-1] is None:
            self._future.append(self._past.pop() if self._past else None)
            super().action_undo()
            return
        self._future.append(self._now)
        self._restore(self._past.pop() or self._now)

    def action_redo(self) -> None:
        self._note_mine()
        if not self._future or self._future[-1] is None:
            self._past.append(self._future.pop() if self._future else None)
            super().action_redo()
            return
        self._past.append(self._now)
        self._restore(self._future.pop() or self._now)

    def _restore(self, mine: _Mine) -> None:
        before, self._now = self._now, mine
        self.table.marks = set(mine.marks)
        self.table.refresh()
        self.show_filter_state()
        if mine.pins != before.pins:
            self.saved.pins = list(mine.pins)
            self.reload()
            self.say(f"{_number(len(mine.pins))} pinned for you, as before.", "dim")
        else:
            self.say(f"{_number(len(mine.marks))} marked, as before.", "dim")

    # -- actions

    def action_copy_cell(self) -> None:
        run_id, column = self.table.current, self.table.current_column
        if run_id is None or column is None:
            self.say("There is no run here.")
        elif (column.kind, column.key) == ("attribute", "run"):
            self.copy(run_id)
        else:
            self._ask_rows_of([run_id], [_column(column)], self._copy_value)

    def _copy_value(self, shown: Shown) -> None:
        value = shown.rows[0][-1] if shown.rows else None
        self.copy(None if value is None else str(value), "in this cell")


def _column(column: Any) -> dict[str, Any]:
    """What the worker must know of a column."""
    names = ("kind", "key", "heading", "aggregate", "direction")
    return {name: getattr(column, name) for name in names if hasattr(column, name)}


def _number(count: int) -> str:
    return f"{count:,}" if count else "None"

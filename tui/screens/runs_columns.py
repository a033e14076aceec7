"""Moving through the table of runs, and what its columns, order, filter and families do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from textual import on
from textual.timer import Timer
from textual.widgets import Input

from mltrack.tui.screens.runs_view import RunsView
from mltrack.tui.widgets.experiment_pane import ExperimentPane
from mltrack.tui.widgets.filter_input import FilterInput
from mltrack.tui.widgets.table_columns import Column

if TYPE_CHECKING:
    from mltrack.tui.screens.column_menu import Entry

AGGREGATES = ("", "best", "last", "min", "max")
_NO_COLUMN = "There are no columns yet: they come with the first run."
# Typing is one question, not one for each letter.
_TYPING_SECONDS = 0.08


class RunsColumns(RunsView):
    """The keys that change what is looked at, and nothing else."""

    _typing: Timer | None = None
    _choosing = False
    """Whether the columns to choose from are on their way: esc then means them, not the app."""
    _before_edit = ""

    # -- the filter

    def action_filter(self) -> None:
        self._before_edit = self.filter_text
        field = self.query_one("#filter", FilterInput)
        self.set_focus(field)
        field.cursor_position = len(field.value)
        field.found = field.value
        field.forget()
        # It has the focus only when it has heard of it.
        self._ask_completion(field.value, len(field.value))

    @on(Input.Changed, "#filter")
    def _typed(self, message: Input.Changed) -> None:
        if message.value == self.filter_text:
            return
        self.filter_text = message.value
        if self._typing is not None:
            self._typing.stop()
        self._typing = self.set_timer(_TYPING_SECONDS, self._typing_rests)

    def _typing_rests(self) -> None:
        self.reload()
        self._ask_candidates()

    def _ask_candidates(self) -> None:
        field = self.query_one("#filter", FilterInput)
        if field.has_focus and not field.completing and not field.waiting:
            self._ask_completion(field.value, field.cursor_position)

    @on(FilterInput.Wanted)
    def _completion_wanted(self, message: FilterInput.Wanted) -> None:
        self._ask_completion(message.text, message.position)

    def _ask_completion(self, text: str, position: int) -> None:
        field = self.query_one("#filter", FilterInput)

        def show(answer: dict[str, Any]) -> None:
            waited = field.waiting
            field.offer(text, position, int(answer["start"]), [str(each) for each in answer["candidates"]])
            if self.error is not None and field.has_focus:
                self.key_pressed()
                self.show_filter_state()
            self.show_footer()
            if waited and field.value != text:
                self._ask_candidates()

        self.mltrack.live.ask("complete", show, topic="complete", text=text, position=position)

    @on(FilterInput.Completed)
    def _completed(self) -> None:
        self.show_footer()

    @on(Input.Submitted, "#filter")
    def _accepted(self) -> None:
        self.set_focus(self.table)
        self.show_filter_state()
        self.show_footer()

    def action_filter_cell(self) -> None:
        self._filter_cell(without=False)

    def action_filter_out(self) -> None:
        self._filter_cell(without=True)

    def _filter_cell(self, without: bool) -> None:
        column, run_id = self.table.current_column, self.table.current
        if column is None or run_id is None:
            self.say("There is no cell to filter by.")
            return

        def filter(answer: dict[str, Any]) -> None:
            self.set_filter(str(answer["filter"]))

        self.mltrack.live.ask(
            "cell_term",
            filter,
            self.failed,
            filter=self.filter_text,
            run_id=run_id,
            column=column.id,
            aggregate=column.aggregate,
            direction=column.direction,
            without=without,
        )

    # -- back

    def action_back(self) -> None:
        if self._choosing:
            self._choosing = False
        elif isinstance(self.focused, Input):
            self.set_focus(self.table)
            if self.error is not None:
                self.set_filter(self._before_edit)
            self.show_filter_state()
            self.show_footer()
        elif isinstance(self.focused, ExperimentPane):
            self._leave_pane()
        elif self.table.range_from is not None:
            self.table.set_range(None)
            self.show_filter_state()
        elif self.filter_text:
            self.set_filter("")
        elif self.saved.experiment is not None:
            self._choose_experiment(None)
        else:
            self.app.exit()

    # -- experiments

    def action_experiments(self) -> None:
        if isinstance(self.focused, ExperimentPane):
            self._leave_pane()
            return
        self.pane.here = self.saved.experiment
        self.set_class(True, "-pane")
        self.set_focus(self.pane)
        self._show_pane()
        self.show_footer()

    def action_hide_pane(self) -> None:
        self.saved.pane = not self.saved.pane
        if isinstance(self.focused, ExperimentPane):
            self.set_focus(self.table)
        self._show_pane()
        if self.saved.pane and not self.has_class("-pane"):
            self.say("The experiments have no room beside the table here; tab shows them.")

    @on(ExperimentPane.Chosen)
    def _experiment_chosen(self, message: ExperimentPane.Chosen) -> None:
        self._leave_pane()
        self._choose_experiment(message.name)

    def _choose_experiment(self, name: str | None) -> None:
        self.saved.experiment = self.pane.chosen = name
        self.pane.repaint()
        self.reload()

    def _leave_pane(self) -> None:
        self.set_focus(self.table)
        self._show_pane()
        self.show_footer()

    # -- moves

    def action_down(self) -> None:
        self._move(1)

    def action_up(self) -> None:
        self._move(-1)

    def action_top(self) -> None:
        self._move(-len(self.table.ids))

    def action_bottom(self) -> None:
        self._move(len(self.table.ids))

    def action_page_down(self) -> None:
        self.table.page(1)

    def action_page_up(self) -> None:
        self.table.page(-1)

    def _move(self, rows: int) -> None:
        self.table.move(rows)
        if self.table.range_from is not None:
            self.show_filter_state()

    def action_left(self) -> None:
        table = self.table
        order = table.layout_of_columns.order
        if order and table.column == order[0].id and self._close_family():
            return
        self._move_column(-1)

    def action_right(self) -> None:
        self._move_column(1)

    def action_first_column(self) -> None:
        self._move_column(-len(self.table.columns))

    def action_last_column(self) -> None:
        self._move_column(len(self.table.columns))

    def _move_column(self, by: int) -> None:
        self.table.move_column(by)
        self._show_twin()
        self._ask_trends()

    def action_next_problem(self) -> None:
        self._problem(back=False)

    def action_previous_problem(self) -> None:
        self._problem(back=True)

    def _problem(self, back: bool) -> None:
        def go(answer: dict[str, Any]) -> None:
            run_id = answer["run_id"]
            if run_id is None:
                self.say("No run here failed, fell silent or is damaged.", "green")
            elif not self.table.go_to(run_id):
                self._open_families(answer["parents"])
                self._around = run_id
                self.reload()

        self.mltrack.live.ask("next_problem", go, self.failed, run_id=self.table.current, back=back)

    # -- families

    def action_tree(self) -> None:
        self.saved.flat = not self.saved.flat
        self.say("Runs stand side by side." if self.saved.flat else "Runs stand under their parents.", "dim")
        self.reload()

    def toggle_family(self) -> bool:
        """Open the closed family under the cursor; False when there is none."""
        row = self.table.known(self.table.current)
        if row is None or row["fold"] != "closed":
            return False
        self._toggle(str(self.table.current))
        return True

    def _close_family(self) -> bool:
        """Close the family under the cursor, or go to the parent of the run that is."""
        row = self.table.known(self.table.current)
        if row is None:
            return False
        if row["fold"] == "open":
            self._toggle(str(self.table.current))
            return True
        if not row["depth"]:
            return False
        for place in range(self.table.row - 1, -1, -1):
            above = self.table.known(self.table.ids[place])
            if above is None or above["depth"] < row["depth"]:
                self.table.move(place - self.table.row)
                return True
        return False

    def _open_families(self, run_ids: list[str]) -> None:
        opened = not self.filter_text.strip()
        turned = set(self.saved.families)
        turned = turned | set(run_ids) if opened else turned - set(run_ids)
        self.saved.families = sorted(turned)

    def _toggle(self, run_id: str) -> None:
        self.saved.families = sorted(set(self.saved.families) ^ {run_id})
        self.reload()

    # -- order

    def action_sort(self) -> None:
        column = self._sortable()
        if column is None:
            return
        sort = self.table.sort
        turned = bool(sort) and sort[0] == (column.id, False)
        self.table.sort = [(column.id, turned)]
        self.reload()

    def action_sort_second(self) -> None:
        column = self._sortable()
        if column is None:
            return
        sort = self.table.sort
        if not sort or sort[0][0] == column.id:
            self.say("Sort by one column with s first; S then decides where that one is equal.")
            return
        turned = len(sort) > 1 and sort[1] == (column.id, False)
        self.table.sort = [sort[0], (column.id, turned)]
        self.reload()

    def _sortable(self) -> Column | None:
        column = self.table.current_column
        if column is None:
            self.say(_NO_COLUMN)
        elif column.sort is None:
            self.say(f"There is no order by {column.heading}.")
            return None
        return column

    # -- columns

    def action_aggregate(self) -> None:
        saved = self.saved
        saved.aggregate = AGGREGATES[(AGGREGATES.index(saved.aggregate) + 1) % len(AGGREGATES)]
        what = f"their {saved.aggregate} value" if saved.aggregate else "the best of the goal, else the last"
        self.say(f"Metrics show {what}.", "dim")
        self.reload()

    def action_goal(self) -> None:
        column = self.table.current_column
        if column is None or column.kind not in ("metric", "step", "trend"):
            self.say("Only a metric can be the goal: go to its column first.")
            return
        layout = self.scope_layout()
        if layout.get("goal") == column.key:
            del layout["goal"]
            self.say(f"{column.key} is no longer chosen as the goal.", "dim")
        else:
            layout["goal"] = column.key
            self.say(f"The goal is {column.key}; * on it again leaves the choice to mltrack.", "green")
        self.reload()

    async def action_choose_columns(self) -> None:
        if self.view is None:
            self.say(_NO_COLUMN)
            return
        shown = [column.id for column in self.table.columns if column.weight < 20]
        usual = {column.id for column in self.table.columns}

        def chosen(ids: list[str] | None) -> None:
            if ids is None:
                return
            layout = self.scope_layout()
            layout["hidden"] = sorted((set(layout.get("hidden", ())) | set(shown)) - set(ids))
            before = [id for id in layout.get("added", ()) if id in ids]
            layout["added"] = [*before, *(id for id in ids if id not in shown and id not in before)]
            self.reload()

        def open_chooser(keys: list[str]) -> None:
            from mltrack.tui.screens.column_chooser import ColumnChooser

            if not self._choosing:
                return
            self._choosing = False
            every = list(dict.fromkeys((*keys, *usual)))
            self.app.push_screen(ColumnChooser(every, shown), chosen)

        self._choosing = True
        self.mltrack.live.ask("column_keys", open_chooser, self.failed)

    async def action_column_menu(self) -> None:
        from mltrack.tui.screens.column_menu import ColumnMenu

        column = self.table.current_column
        if column is None:
            self.say(_NO_COLUMN)
        else:
            await self.app.push_screen(ColumnMenu(column.heading, self._menu_of, self._menu_chosen))

    def _menu_of(self) -> list[Entry]:
        column = self.table.current_column
        if column is None:
            return []
        metric = column.kind in ("metric", "step", "trend")
        frozen = self.scope_layout().get("frozen")
        entries: list[Entry] = []
        if metric:
            entries += [
                ("a", "value", column.aggregate or "last"),
                ("d", "good is", "less" if column.direction == "min" else "more"),
                ("g", "goal metric", "yes" if column.role == "goal" else "no"),
            ]
        if column.sort is not None:
            entries.append(("s", "sort", "yes" if self.table.sort[:1] == [(column.id, False)] else ""))
        if column.id != "attribute:run":
            entries.append(("x", "hide", ""))
        entries += [
            ("+", "wider", str(self.table.layout_of_columns.width(column))),
            ("-", "narrower", ""),
            ("z", "keep in sight up to here", "yes" if frozen == column.id else ""),
        ]
        if column.id != "attribute:run":
            entries += [("<", "move to the left", ""), (">", "move to the right", "")]
        return [*entries, ("r", "all columns as they were", "")]

    def _menu_chosen(self, letter: str) -> bool:
        """Do what an entry says; whether the menu stays."""
        column, layout = self.table.current_column, self.scope_layout()
        if column is None:
            return False
        metric = f"metric:{column.key}"
        if letter == "a":
            aggregates = AGGREGATES[1:]
            now = aggregates.index(column.aggregate) if column.aggregate in aggregates else -1
            layout.setdefault("aggregates", {})[metric] = aggregates[(now + 1) % len(aggregates)]
        elif letter == "d":
            layout.setdefault("directions", {})[column.key] = "max" if column.direction == "min" else "min"
        elif letter == "g":
            self.action_goal()
            return True
        elif letter == "s":
            self.action_sort()
            return True
        elif letter == "x":
            layout["hidden"] = sorted({*layout.get("hidden", ()), column.id})
            layout["added"] = [id for id in layout.get("added", ()) if id != column.id]
        elif letter in "+-":
            widths = layout.setdefault("widths", {})
            width = widths.get(column.id, self.table.layout_of_columns.width(column))
            widths[column.id] = max(3, width + (1 if letter == "+" else -1))
        elif letter == "z":
            layout["frozen"] = None if layout.get("frozen") == column.id else column.id
        elif letter in "<>":
            self._shift(column, 1 if letter == ">" else -1)
        elif letter == "r":
            layout.clear()
        self.reload()
        return letter != "x"

    def _shift(self, column: Column, by: int) -> None:
        ids = [each.id for each in self.table.layout_of_columns.order]
        place = ids.index(column.id)
        target = max(1, min(len(ids) - 1, place + by))
        ids.insert(target, ids.pop(place))
        self.scope_layout()["order"] = ids

    def action_range(self) -> None:
        table = self.table
        if not table.ids:
            self.say("There is no run to mark.")
        elif table.range_from is None:
            table.set_range(table.row)
        else:
            marked = set(table.range_ids())
            table.marks = table.marks - marked if marked <= table.marks else table.marks | marked
            table.set_range(None)
        self.show_filter_state()

    def action_mark(self) -> None:
        if self.table.current is None:
            self.say("There is no run to mark.")
            return
        self.table.toggle_mark()
        self.table.move(1)
        self.show_filter_state()

    def action_mark_all(self) -> None:
        if not self.table.ids:
            self.say("There is no run to mark.")
            return
        self.table.mark_all()
        self.show_filter_state()

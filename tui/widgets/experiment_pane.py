"""Experiments under their folders, beside the table or in its place where there is no room for both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from textual.binding import BindingType
from textual.message import Message

from mltrack.tui.clean import cell_width, clip, pad
from mltrack.tui.widgets.bindings import bindings_of
from mltrack.tui.widgets.lines import Lines
from mltrack.tui.widgets.look import Line, shown

_NUMBERS = 6
_AGE = 5


class ExperimentPane(Lines, can_focus=True):
    """A tree to choose from: all runs, a folder, or one experiment."""

    BINDINGS: ClassVar[list[BindingType]] = bindings_of("experiments")
    DEFAULT_CSS = "ExperimentPane { height: 1fr; width: 36; }"

    class Chosen(Message):
        """Show this experiment, or with a slash at the end this folder; None: all."""

        def __init__(self, name: str | None) -> None:
            self.name = name
            super().__init__()

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.folded: set[str] = set()
        self.chosen: str | None = None
        self.here: str | None = None
        """The row under the cursor, by name."""
        self._tree: Sequence[Mapping[str, Any]] = ()
        self._rows: list[Mapping[str, Any]] = []

    def show_tree(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """The experiments as the worker knows them."""
        self._tree = rows
        self.repaint()

    def repaint(self) -> None:
        """Draw what is there."""
        everything = {
            "name": None,
            "label": "all experiments",
            "depth": 0,
            "folder": False,
            "runs": sum(row["runs"] for row in self._tree if not row["depth"]),
            "running": sum(row["running"] for row in self._tree if not row["depth"]),
            "age": next((row["age"] for row in self._tree), ""),
        }
        rows: list[Mapping[str, Any]] = [everything]
        hidden: str | None = None
        for row in self._tree:
            if hidden is not None and row["name"].startswith(hidden):
                continue
            hidden = row["name"] if row["folder"] and row["name"] in self.folded else None
            rows.append(row)
        self._rows = rows
        if self.here not in [row["name"] for row in rows]:
            self.here = self.chosen if self.chosen in [row["name"] for row in rows] else None
        width = max(12, self.size.width - 1)
        title = pad(" EXPERIMENT", width - 2 * _NUMBERS - _AGE) + pad("RUNS", _NUMBERS, "right")
        title += pad("●", _NUMBERS, "right") + pad("AGE", _AGE, "right")
        self.show([((clip(title, width), "header"),), *(self._line(row, width) for row in rows)])
        self._keep_in_sight()

    def _line(self, row: Mapping[str, Any], width: int) -> Line:
        here = row["name"] == self.here and self.has_focus
        chosen = row["name"] == self.chosen
        sign = ("▸ " if row["name"] in self.folded else "▾ ") if row["folder"] else ""
        label = "  " * row["depth"] + sign + shown(row["label"])
        room = max(4, width - 2 * _NUMBERS - _AGE - 1)
        if cell_width(label) > room:
            label = clip(label, room)
        ground = " cursor" if here else ""
        running = f"{row['running']:,}" if row["running"] else ""
        return (
            ("▌" if here else " ", "key" + ground),
            (pad(label, room), ("bold" if chosen else "") + ground),
            # Nothing where nothing has come yet: a 0 would be a statement.
            (pad(f"{row['runs']:,}" if self._tree else "", _NUMBERS, "right"), "dim" + ground),
            (pad(running, _NUMBERS, "right"), "green" + ground),
            (pad(str(row["age"]), _AGE, "right"), "dim" + ground),
        )

    def on_resize(self) -> None:
        super().on_resize()
        self.repaint()

    def on_focus(self) -> None:
        self.repaint()

    def on_blur(self) -> None:
        self.repaint()

    def on_click(self, event: Any) -> None:
        place = event.y + round(self.scroll_offset.y) - 1
        if 0 <= place < len(self._rows):
            self.here = self._rows[place]["name"]
            self.action_choose()

    def _place(self) -> int:
        return next((place for place, row in enumerate(self._rows) if row["name"] == self.here), 0)

    def _move(self, by: int) -> None:
        if self._rows:
            self.here = self._rows[max(0, min(len(self._rows) - 1, self._place() + by))]["name"]
            self.repaint()

    def _keep_in_sight(self) -> None:
        line, top = self._place() + 1, round(self.scroll_offset.y)
        target = top
        if line <= top:
            target = line - 1
        elif line >= top + self.size.height:
            target = line - self.size.height + 1
        if target != top:
            self.scroll_to(y=target, animate=False, immediate=True, force=True)

    def action_pane_down(self) -> None:
        self._move(1)

    def action_pane_up(self) -> None:
        self._move(-1)

    def action_pane_page_down(self) -> None:
        self._move(max(1, self.size.height - 2))

    def action_pane_page_up(self) -> None:
        self._move(-max(1, self.size.height - 2))

    def action_pane_top(self) -> None:
        self._move(-len(self._rows))

    def action_pane_bottom(self) -> None:
        self._move(len(self._rows))

    def action_choose(self) -> None:
        self.post_message(self.Chosen(self.here))

    def action_unfold(self) -> None:
        if self.here in self.folded:
            self.folded.discard(self.here)
            self.repaint()

    def action_fold(self) -> None:
        """Close the folder, or go to the one that it is in."""
        row = self._rows[self._place()] if self._rows else None
        if row is None or row["name"] is None:
            return
        if row["folder"] and row["name"] not in self.folded:
            self.folded.add(row["name"])
        else:
            above = [each for each in self._rows[: self._place()] if each["depth"] < row["depth"]]
            self.here = above[-1]["name"] if row["depth"] and above else None
        self.repaint()

"""Groups of runs that share params: mean ± std, least and greatest, n; the best mean first."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType

from mltrack.tui.clean import cell_width, clip, pad
from mltrack.tui.export import Shown
from mltrack.tui.keys import Focus
from mltrack.tui.messages import StoreChanged
from mltrack.tui.screens.base import BaseScreen
from mltrack.tui.widgets.bindings import bindings_of
from mltrack.tui.widgets.lines import Lines
from mltrack.tui.widgets.look import Line, Span, shown
from mltrack.tui.widgets.row_list import RowList

_WIDEST = 26
AGGREGATES = ("best", "last", "min", "max")


class GroupsScreen(BaseScreen):
    """``question`` is what the table of runs shows; ``choose`` shows the runs of one group there."""

    BINDINGS: ClassVar[list[BindingType]] = bindings_of("groups")
    file_stem = "groups"

    def __init__(self, by: str, question: dict[str, Any], choose: Callable[[str], None]) -> None:
        super().__init__()
        self.by = by
        self.question = question
        self.answer: dict[str, Any] | None = None
        self._choose = choose
        self._aggregate = str(question.get("aggregate") or AGGREGATES[0])

    def compose(self) -> ComposeResult:
        yield Lines(id="head", ground="bar")
        yield Lines(id="titles")
        yield RowList(id="rows")
        yield Lines(id="twin")
        yield Lines(id="foot", ground="bar")

    def on_mount(self) -> None:
        self.set_focus(self.rows)
        self._load()

    def on_resize(self) -> None:
        self._draw()
        self.show_footer()

    def focuses(self) -> tuple[Focus, ...]:
        return ("groups", "everywhere")

    @property
    def rows(self) -> RowList:
        """The groups."""
        return self.query_one("#rows", RowList)

    def on_store_changed(self, message: StoreChanged) -> None:
        self._load()

    def _load(self) -> None:
        asked = {**self.question, "aggregate": self._aggregate}
        self.mltrack.live.ask("groups", self._arrived, self._refused, topic="groups", by=self.by, **asked)

    def _arrived(self, answer: dict[str, Any]) -> None:
        self.answer = answer
        self._draw()

    def _refused(self, error: dict[str, Any]) -> None:
        self.failed(error)

    def _draw(self) -> None:
        answer = self.answer
        head: list[Span] = [(" Groups", "bold"), (f"  by {self.by}", "")]
        if answer is None:
            head.append(("   grouping", "dim"))
        else:
            head.append(
                (
                    f"   {answer['total']:,} {'group' if answer['total'] == 1 else 'groups'} of {answer['runs']:,} runs",
                    "dim",
                )
            )
            head.append((f"   m {self._aggregate} values, mean ± std", "dim"))
        self.query_one("#head", Lines).show([tuple(head)])
        if answer is None:
            return
        table = [answer["headings"], *answer["rows"]]
        widths = [
            min(_WIDEST, max((cell_width(shown(row[place])) for row in table), default=1))
            for place in range(len(answer["headings"]))
        ]
        keys = len(answer["by"])
        self.query_one("#titles", Lines).show(
            [((" ", ""), *self._line(answer["headings"], widths, keys, "header"))]
        )
        lines = [self._line(row, widths, keys, "", place == 0) for place, row in enumerate(answer["rows"])]
        self.rows.fill([str(place) for place in range(len(lines))], lines)
        words = [f"mltrack{self.store_option}"]
        words += ["ls", *([shlex.quote(self.question["filter"])] if self.question.get("filter") else [])]
        if self.question.get("experiment"):
            words += ["-x", shlex.quote(self.question["experiment"])]
        words += ["--group-by", shlex.quote(",".join(answer["by"]))]
        self.query_one("#twin", Lines).show([((" $ " + " ".join(words), "dim"),)])

    def _line(self, row: list[str], widths: list[int], keys: int, style: str, best: bool = False) -> Line:
        spans: list[Span] = []
        room = self.size.width - 1
        for place, (text, width) in enumerate(zip(row, widths, strict=True)):
            if room < width and place > keys:
                break  # half a number says nothing
            room -= width + 3
            ends = place > keys and (place - keys) % 2 == 0
            look = style or ("best" if best and place == keys + 1 else "dim" if ends else "")
            right = place == keys
            spans.append((pad(clip(shown(text), width), width, "right" if right else "left") + "   ", look))
        return tuple(spans)

    def ask_shown(self, use: Callable[[Shown], None]) -> None:
        if self.answer is not None:
            use(Shown(f"Groups by {self.by}", self.answer["headings"], self.answer["rows"]))

    # -- actions

    def action_open_group(self) -> None:
        if self.answer is None or not self.answer["filters"]:
            self.say("There is no group here.")
            return
        chosen = self.answer["filters"][self.rows.cursor]
        self.app.pop_screen()
        self._choose(chosen)

    def action_group_aggregate(self) -> None:
        self._aggregate = AGGREGATES[(AGGREGATES.index(self._aggregate) + 1) % len(AGGREGATES)]
        self._load()

    def action_next_group(self) -> None:
        self.rows.move(1)

    def action_previous_group(self) -> None:
        self.rows.move(-1)

    def action_first_group(self) -> None:
        self.rows.move(-len(self.rows.keys))

    def action_last_group(self) -> None:
        self.rows.move(len(self.rows.keys))

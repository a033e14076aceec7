"""Pictures of compared runs side by side: a step at a time, a series at a time."""

from __future__ import annotations

import shlex
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType

from mltrack.tui.draw.numbers import format_step
from mltrack.tui.keys import Focus
from mltrack.tui.raster import placed
from mltrack.tui.screens.base import BaseScreen
from mltrack.tui.widgets.bindings import bindings_of
from mltrack.tui.widgets.lines import Lines
from mltrack.tui.widgets.look import spans_of
from mltrack.tui.widgets.picture_page import PicturePage, asked_canvas

_FRAME = 3


class PicturesScreen(BaseScreen):
    """What the runs show at one step; the worker decodes it when it is looked at."""

    BINDINGS: ClassVar[list[BindingType]] = bindings_of("pictures")
    file_stem = "pictures"

    def __init__(self, run_ids: list[str], name: str = "") -> None:
        super().__init__()
        self.run_ids = run_ids
        self.wanted = name
        self.page: dict[str, Any] | None = None
        self._step: int | None = None

    def compose(self) -> ComposeResult:
        yield Lines(id="head", ground="bar")
        yield PicturePage(id="page")
        yield Lines(id="twin")
        yield Lines(id="foot", ground="bar")

    def on_mount(self) -> None:
        self.set_focus(self.query_one("#page", PicturePage))
        self.query_one("#head", Lines).show([((" Pictures", "bold"), ("   reading", "dim"))])
        self.mltrack.ask_about_pictures()

    def on_resize(self) -> None:
        self.show_footer()
        self.mltrack.window_resized()
        self._load()

    def pictures_changed(self) -> None:
        self._load()

    def focuses(self) -> tuple[Focus, ...]:
        return ("pictures", "text", "everywhere")

    def _load(self) -> None:
        self.mltrack.live.ask(
            "compare_pictures",
            self._arrived,
            self._refused,
            topic="pictures",
            run_ids=self.run_ids,
            name=self.wanted,
            step=self._step,
            width=self.size.width - 2,
            height=self.size.height - _FRAME,
            **asked_canvas(self.mltrack.graphics),
        )

    def _arrived(self, page: dict[str, Any]) -> None:
        self.page = page
        self.wanted, self._step = page["name"], page["step"]
        steps, names = page["steps"], page["names"]
        where = f"   step {format_step(page['step'])}, {steps.index(page['step']) + 1} of {len(steps)}"
        series = f"   series {names.index(page['name']) + 1} of {len(names)}"
        self.query_one("#head", Lines).show(
            [((f" {page['name']}", "bold"), (where, ""), (series if len(names) > 1 else "", "dim"))]
        )
        self.query_one("#page", PicturePage).show_pictures(
            [((" ", ""), *spans_of(line)) for line in page["lines"]], placed(page.get("pictures", ()), 1)
        )
        words = [f"mltrack{self.store_option}"]
        words += ["compare", *(run_id[:8] for run_id in self.run_ids[:6])]
        words += ["--images", shlex.quote(page["name"]), "--step", str(page["step"])]
        self.query_one("#twin", Lines).show([((" $ " + " ".join(words), "dim"),)])

    def _refused(self, error: dict[str, Any]) -> None:
        self.query_one("#head", Lines).show([((" Pictures", "bold"),)])
        self.query_one("#page", PicturePage).show_error(error)

    # -- actions

    def action_next_step(self) -> None:
        self._turn(1)

    def action_previous_step(self) -> None:
        self._turn(-1)

    def action_first_step(self) -> None:
        self._turn(-(1 << 40))

    def action_last_step(self) -> None:
        self._turn(1 << 40)

    def _turn(self, by: int) -> None:
        if self.page is None:
            return
        steps = self.page["steps"]
        place = steps.index(self.page["step"])
        target = max(0, min(len(steps) - 1, place + by))
        if target == place:
            self.say("That was the last step." if by > 0 else "That was the first step.")
            return
        self._step = steps[target]
        self._load()

    def action_next_series(self) -> None:
        self._other(1)

    def action_previous_series(self) -> None:
        self._other(-1)

    def _other(self, by: int) -> None:
        if self.page is None:
            return
        names = self.page["names"]
        if len(names) < 2:
            self.say("There is one series of pictures.")
            return
        self.wanted = names[(names.index(self.page["name"]) + by) % len(names)]
        self._load()

"""Projects that can be launched: those of before, those that lie here, and any by its address."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType

from mltrack.tui.clean import cell_width, clip, pad
from mltrack.tui.keys import Focus
from mltrack.tui.messages import StoreChanged
from mltrack.tui.screens.base import BaseScreen
from mltrack.tui.screens.dialogs import Prompt
from mltrack.tui.widgets.bindings import bindings_of
from mltrack.tui.widgets.lines import Lines
from mltrack.tui.widgets.look import Line
from mltrack.tui.widgets.row_list import RowList


class ProjectsScreen(BaseScreen):
    """A row for each project; enter opens the form to launch it."""

    BINDINGS: ClassVar[list[BindingType]] = bindings_of("projects")
    file_stem = "projects"

    def __init__(self) -> None:
        super().__init__()
        self._loaded = False

    def compose(self) -> ComposeResult:
        yield Lines(id="head", ground="bar")
        yield RowList(id="rows")
        yield Lines(id="twin")
        yield Lines(id="foot", ground="bar")

    @property
    def rows(self) -> RowList:
        """The projects."""
        return self.query_one("#rows", RowList)

    def focuses(self) -> tuple[Focus, ...]:
        return ("projects", "everywhere")

    def on_mount(self) -> None:
        self.set_focus(self.rows)

    def on_screen_resume(self) -> None:
        self._load()

    def on_resize(self) -> None:
        self.query_one("#head", Lines).show([((" Projects", "bold"),)])
        self.show_footer()
        self._load()

    def on_store_changed(self, message: StoreChanged) -> None:
        if message.seq == 0:
            self._load()

    def _load(self) -> None:
        if not self.mltrack.live.running:
            self.rows.show(self.absent_lines())
        self.mltrack.live.ask("projects_page", self._arrived, self.failed, topic="projects")

    def _arrived(self, page: dict[str, Any]) -> None:
        self._loaded = True
        wide = max((cell_width(row[1]) for row in page["rows"]), default=0)
        name_width, room = min(30, max(8, wide)), self.size.width
        rows: list[Line] = []
        what_width = max((cell_width(row[2]) for row in page["rows"]), default=0)
        most = max(10, room - name_width - what_width - 14)
        address_width = min(most, max((cell_width(row[0]) for row in page["rows"]), default=0))
        for address, name, what, age in page["rows"]:
            left = pad(clip(name, name_width), name_width)
            middle = pad(clip(address, address_width, keep="tail"), address_width)
            end = f"{pad(what, what_width)}  {age}"
            rows.append(((left + "  ", "bold"), (middle, ""), ("  " + end, "dim")))
        self.rows.fill([row[0] for row in page["rows"]], rows, [row[1] for row in page["rows"]])
        if not rows:
            self.rows.show(
                [
                    (),
                    ((f" No project in {page['folder']}, and none was launched before.", "bold"),),
                    (),
                    (
                        (
                            " A project is a folder with an MLproject file, or with programs; a gives any folder or git address.",
                            "dim",
                        ),
                    ),
                ]
            )
        self._show_twin()

    def on_row_list_moved(self) -> None:
        self._show_twin()

    def _show_twin(self) -> None:
        project = shlex.quote(self.rows.current) if self.rows.current else "PROJECT"
        self.query_one("#twin", Lines).show([((f" $ mltrack{self.store_option} run {project}", "dim"),)])

    def ask_outside(self, use: Callable[[dict[str, str] | None], None]) -> None:
        address = self.rows.current
        use({"target": address.partition("#")[0], "what": "the project"} if address else None)

    # -- keys

    def action_next_project(self) -> None:
        self.rows.move(1)

    def action_previous_project(self) -> None:
        self.rows.move(-1)

    def action_first_project(self) -> None:
        self.rows.move(-len(self.rows.keys))

    def action_last_project(self) -> None:
        self.rows.move(len(self.rows.keys))

    async def action_open_project(self) -> None:
        if self.rows.current is not None:
            await self._open(self.rows.current)
        elif self._loaded:
            await self.action_address()

    async def action_address(self) -> None:
        async def given(text: str | None) -> None:
            if text and text.strip():
                await self._open(text.strip())

        await self.app.push_screen(
            Prompt("Project", "", "a folder, https://..., git@host:path; then #SUBDIR and @REVISION"), given
        )

    async def _open(self, address: str) -> None:
        from mltrack.tui.screens.launch import LaunchScreen

        await self.app.push_screen(LaunchScreen({"address": address}))

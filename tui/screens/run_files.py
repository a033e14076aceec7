"""The files of a run: the one under the cursor beside the tree, or on a page of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from textual import on
from textual.geometry import Size

from mltrack.tui.raster import is_picture
from mltrack.tui.screens.run_sharing import RunSharing
from mltrack.tui.screens.text import AGAIN_SECONDS, TextScreen
from mltrack.tui.widgets.file_tree import Entry, FileTree, facts_and_lines
from mltrack.tui.widgets.look import shown
from mltrack.tui.widgets.picture_page import PicturePage, asked_canvas


class RunFiles(RunSharing):
    """What the screen of a run does in its files' tab."""

    @property
    def file_tree(self) -> FileTree:
        """The files' tab."""
        return self.query_one("#tree", FileTree)

    def show_files(self, answer: dict[str, Any]) -> None:
        """Show the tree, and ask again while a server has not answered."""
        self.file_tree.show_files(answer)
        if answer.get("again"):
            self.set_timer(AGAIN_SECONDS, self.ask_files)

    def ask_files(self) -> None:
        """Ask for the tree."""
        self.mltrack.live.ask("files", self.show_files, self.failed, topic="files", run_id=self.run_id)

    @on(FileTree.Pointed)
    def _file_pointed_at(self, message: FileTree.Pointed) -> None:
        """Its preview beside the tree, where there is room for both."""
        self._preview(message.entry)

    def _preview(self, pointed: Entry | None) -> None:
        preview = self.query_one("#file-preview", PicturePage)
        if not preview.display:
            return
        if pointed is None or not pointed.opens:
            detail = "" if pointed is None else pointed.detail
            self.mltrack.live.drop("file")
            preview.show([(), ((f" {detail}", "dim"),)] if detail else [])
            return
        self._ask_file(
            pointed,
            preview.size,
            lambda answer: preview.show_pictures(*facts_and_lines(answer)),
            preview.show_error,
        )

    def pictures_changed(self) -> None:
        if self.file_tree.current is not None:
            self._preview(self.file_tree.current)

    @on(FileTree.Opened)
    def _file_opened(self, message: FileTree.Opened) -> None:
        entry = message.entry
        if not entry.opens:
            self.say(f"{shown(entry.path)} is a {entry.kind}: {shown(entry.detail)}. It is not opened.")
            return

        # It is there at once, so that a key pressed before the answer belongs to it.
        page = TextScreen(shown(entry.path), None)

        def show(answer: dict[str, Any]) -> None:
            lines, pictures = facts_and_lines(answer)
            page.fill(answer["path"], lines, answer["kind"], pictures)

        def fail(error: dict[str, Any]) -> None:
            if page.is_current:
                self.app.pop_screen()
            self.failed(error)

        self.app.push_screen(page)
        size = Size(self.size.width, self.size.height - 10)
        page.ask_again = lambda: self._ask_file(entry, size, show, fail, lambda: page.is_attached)
        page.ask_again()

    def _ask_file(
        self,
        entry: Entry,
        size: Size,
        show: Callable[[dict[str, Any]], None],
        fail: Callable[[dict[str, Any]], None],
        wanted: Callable[[], bool] | None = None,
    ) -> None:
        """``wanted``: whether a page that shows nothing but the whole file still waits; None for the preview beside the tree."""

        def arrived(answer: dict[str, Any]) -> None:
            if not answer.get("again") or wanted is None:
                show(answer)
            if answer.get("again"):  # a server has not sent it yet
                self.set_timer(AGAIN_SECONDS, ask_again)

        def ask_again() -> None:
            if wanted() if wanted is not None else self.is_current and self.file_tree.current == entry:
                self._ask_file(entry, size, show, fail, wanted)

        if _may_be_picture(entry):
            self.mltrack.ask_about_pictures()
        self.mltrack.live.ask(
            "file_preview",
            arrived,
            fail,
            topic="file",
            run_id=self.run_id,
            path=entry.path,
            width=size.width - 2,
            height=size.height - 6,
            **(asked_canvas(self.mltrack.graphics) if _may_be_picture(entry) else {}),
        )


def _may_be_picture(entry: Entry) -> bool:
    """Only then the terminal is asked about pictures."""
    return is_picture(entry.path) or entry.kind == "logged"

"""The files of a run as a tree with sizes. What a file looks like is the screen's business."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from textual.binding import BindingType
from textual.message import Message

from mltrack.tui.clean import cell_width, clip
from mltrack.tui.draw.numbers import format_bytes
from mltrack.tui.raster import Placed, placed
from mltrack.tui.widgets.bindings import bindings_of
from mltrack.tui.widgets.lines import Lines
from mltrack.tui.widgets.look import Line, shown

_SIZE_CELLS = 9
# Deeper folders of a large tree begin closed: the first look is at what there is, not at thousands of lines.
_OPEN_ENTRIES = 300


@dataclass(frozen=True)
class Entry:
    """``kind`` is folder, file, link, other, gone, or logged (in no file of its own); ``detail`` where a link points, or what
    else it is."""

    path: str
    kind: str
    size: int
    detail: str

    @property
    def depth(self) -> int:
        return self.path.count("/")

    @property
    def opens(self) -> bool:
        """Whether there is something to be shown."""
        return self.kind in ("file", "logged")


class FileTree(Lines, can_focus=True):
    """A tree one moves in; enter opens."""

    BINDINGS: ClassVar[list[BindingType]] = bindings_of("files")
    DEFAULT_CSS = "FileTree { height: 1fr; }"

    class Pointed(Message):
        """The cursor is on another entry."""

        def __init__(self, entry: Entry | None) -> None:
            self.entry = entry
            super().__init__()

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, FileTree.Pointed)

    class Opened(Message):
        """A person wants to see a file."""

        def __init__(self, entry: Entry) -> None:
            self.entry = entry
            super().__init__()

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.entries: list[Entry] = []
        self.closed: set[str] = set()
        self.row = 0
        self.top = 0
        self._more = 0
        self._why = ""
        self._visible: list[Entry] = []
        self._known = False

    def forget(self) -> None:
        """Another run."""
        self.entries, self._visible, self.closed = [], [], set()
        self.row = self.top = 0
        self._known = False
        self._why = ""
        self.redraw()

    def show_files(self, answer: Mapping[str, Any]) -> None:
        """The tree as the worker answers; the cursor stays on its entry."""
        here = self.current
        self.entries = [
            Entry(str(path), str(kind), int(size), str(detail))
            for path, kind, size, detail in answer["entries"]
        ]
        self.entries += [
            Entry(str(path), "gone", 0, "logged, but not there any more") for path in answer["gone"]
        ]
        self._more, self._why = int(answer["more"]), str(answer["why"])
        if not self._known and len(self.entries) > _OPEN_ENTRIES:
            self.closed = {entry.path for entry in self.entries if entry.kind == "folder"}
        self._known = True
        self._find_visible()
        if here is not None:
            self.row = next(
                (place for place, entry in enumerate(self._visible) if entry.path == here.path), self.row
            )
        self._go(0)

    @property
    def current(self) -> Entry | None:
        """The entry under the cursor."""
        return self._visible[self.row] if self.row < len(self._visible) else None

    # -- actions

    def action_file_down(self) -> None:
        self._go(1)

    def action_file_up(self) -> None:
        self._go(-1)

    def action_file_page_down(self) -> None:
        self._go(max(1, self.size.height - 2))

    def action_file_page_up(self) -> None:
        self._go(-max(1, self.size.height - 2))

    def action_file_top(self) -> None:
        self._go(-len(self._visible))

    def action_file_bottom(self) -> None:
        self._go(len(self._visible))

    def action_close_folder(self) -> None:
        entry = self.current
        if entry is None:
            return
        if entry.kind != "folder" or entry.path in self.closed:
            above = entry.path.rpartition("/")[0]
            self.row = next(
                (place for place, other in enumerate(self._visible) if other.path == above), self.row
            )
            self._go(0)
        else:
            self._fold(entry)

    def action_open_folder(self) -> None:
        entry = self.current
        if entry is not None and entry.kind == "folder" and entry.path in self.closed:
            self._fold(entry)

    def action_open_file(self) -> None:
        entry = self.current
        if entry is None:
            return
        if entry.kind == "folder":
            self._fold(entry)
        else:
            self.post_message(self.Opened(entry))

    def on_resize(self) -> None:
        super().on_resize()
        self._go(0)

    # -- drawing

    def _fold(self, entry: Entry) -> None:
        self.closed ^= {entry.path}
        self._find_visible()
        self._go(0)

    def _find_visible(self) -> None:
        self._visible = []
        hidden = ""
        for entry in self.entries:
            if hidden and entry.path.startswith(hidden):
                continue
            hidden = f"{entry.path}/" if entry.kind == "folder" and entry.path in self.closed else ""
            self._visible.append(entry)

    def _go(self, by: int) -> None:
        self.row = max(0, min(len(self._visible) - 1, self.row + by))
        height = max(1, self.size.height - bool(self._more))
        self.top = max(0, min(self.top, self.row, len(self._visible) - 1))
        self.top = max(self.top, self.row - height + 1)
        self.redraw()
        self.post_message(self.Pointed(self.current))

    def redraw(self) -> None:
        """Draw the window; what is the same is not painted."""
        height = self.size.height
        if height <= 0:
            return
        if not self._visible:
            self.show([(), ((f"  {self._why}" if self._known else "  loading", "dim"),)])
            return
        rows = height - bool(self._more)
        lines: list[Line] = [
            self._line(entry, place == self.row)
            for place, entry in enumerate(self._visible[self.top : self.top + rows], self.top)
        ]
        lines += [()] * (rows - len(lines))
        if self._more:
            lines.append(((f"  and {self._more:,} more files", "dim"),))
        self.show(lines)

    def _line(self, entry: Entry, here: bool) -> Line:
        sign = "▸ " if entry.path in self.closed else "▾ " if entry.kind == "folder" else "  "
        name = shown(entry.path.rpartition("/")[2]) + ("/" if entry.kind == "folder" else "")
        left = " " + "  " * min(entry.depth, 12) + sign
        size = "" if entry.kind not in ("file", "folder") else format_bytes(entry.size)
        far = f"  {shown(entry.detail.partition('://')[0])}" if entry.detail else ""
        detail = {"link": f" → {shown(entry.detail)}", "file": far, "folder": ""}.get(
            entry.kind, f"  {shown(entry.detail)}"
        )
        room = max(4, self.size.width - cell_width(left) - _SIZE_CELLS - 1)
        name = clip(name, room)
        detail = clip(detail, max(0, room - cell_width(name)))
        gap = " " * max(0, room - cell_width(name) - cell_width(detail))
        ground = " cursor" if here else ""
        style = {"folder": "bold", "file": "", "link": "cyan", "logged": ""}.get(entry.kind, "dim")
        return (
            ("▌" if here else " ", "key" + ground),
            (left[1:], "dim" + ground),
            (name, style + ground),
            (detail + gap, "dim" + ground),
            (f"{size:>{_SIZE_CELLS}} ", "dim" + ground),
        )


def facts_and_lines(answer: Mapping[str, Any]) -> tuple[list[Line], list[Placed]]:
    """A file's preview as the worker answers it: what is known of it, a blank line, what it holds; and pictures over that."""

    def lines_of(part: Sequence[Sequence[Sequence[str]]]) -> list[Line]:
        return [((" ", ""), *((str(text), str(style)) for text, style in line)) for line in part]

    facts = lines_of(answer["facts"])
    pictures = placed(answer.get("pictures", ()), 1, len(facts) + 1)
    return [*facts, (), *lines_of(answer["lines"])], pictures

"""What lies below the folder that the app was started in, and the one key that follows it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen

from mltrack.tui.clean import clip
from mltrack.tui.widgets.bindings import bindings_of
from mltrack.tui.widgets.lines import Lines
from mltrack.tui.widgets.look import Line, shown

# The search itself stops after two seconds; its process must be started and read.
_SEARCH_SECONDS = 20.0
_SHOWN = 12


async def search(where: str | None, folder: str) -> dict[str, Any] | None:
    """What `mltrack source find --new` says of a folder: a process of its own, so that no key waits for it."""
    # -c instead of -m: the folder we run in, where anything may lie, is not searched for modules.
    code = "import sys; sys.path[:1] = []; from mltrack.tui.cli.main import main; main(sys.argv[1:])"
    # In the environment: everybody on the machine may read the words of a command, and an address may hold a password.
    environment = {**os.environ, "MLTRACK_STORE": where} if where else None
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code),
        *("source", "find", "--new", "--json", "--", folder),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
        env=environment,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), _SEARCH_SECONDS)
        found = json.loads(output)
    except (TimeoutError, ValueError):
        return None
    finally:
        if process.returncode is None:
            process.kill()
    return found if isinstance(found, dict) and isinstance(found.get("found"), list) else None


class OfferScreen(ModalScreen[bool]):
    """Asks whether to follow what was found."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *bindings_of("dialog"),
        Binding("f,enter", "yes", "follow", show=False),
        Binding("escape,q", "no", "no", show=False),
    ]

    def __init__(self, found: dict[str, Any], folder: str) -> None:
        super().__init__()
        self._found = found
        self._folder = folder

    def compose(self) -> ComposeResult:
        yield Lines(id="offer")

    def on_mount(self) -> None:
        width = max(20, self.app.size.width - 8)
        self.query_one("#offer", Lines).show([self._cut(line, width) for line in self._lines()])

    def _lines(self) -> Sequence[Line]:
        rows = self._found["found"]
        folders = int(self._found.get("folders", 0))
        more = "" if self._found.get("complete", True) else " in two seconds; there are more"
        lines: list[Line] = [((" Experiments of other tools lie below this folder:", "bold"),), ()]
        for row in rows[:_SHOWN]:
            place = os.path.relpath(row["path"], self._folder) if "://" not in row["path"] else row["path"]
            lines.append((("   " + shown(place), ""), ("   " + shown(row["title"]), "dim")))
        if len(rows) > _SHOWN:
            lines.append(((f"   and {len(rows) - _SHOWN:,} more", "dim"),))
        lines += [
            (),
            ((" f", "key"), ("  follow: shown here, live; nothing there is ever changed", "")),
            ((" esc", "key"), ("  not now; O asks again", "")),
            (),
            ((f" {folders:,} folder{'s were' if folders != 1 else ' was'} read{more}", "dim"),),
        ]
        return lines

    def _cut(self, line: Line, width: int) -> Line:
        kept: list[tuple[str, str]] = []
        for text, style in line:
            text = clip(text, width)
            kept.append((text, style))
            width = max(1, width - len(text))
        return tuple(kept)

    def action_yes(self) -> None:
        self.dismiss(True)

    def action_no(self) -> None:
        self.dismiss(False)

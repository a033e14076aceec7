"""`C`: which columns there are, of thousands of keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal
from textual.screen import ModalScreen
from textual.widgets import Input

from mltrack.tui.widgets.bindings import bindings_of
from mltrack.tui.widgets.line_input import LineInput
from mltrack.tui.widgets.lines import Lines
from mltrack.tui.widgets.look import Line, Span

_KINDS = {"metric": "metrics", "param": "params", "tag": "tags", "attribute": "run"}


class ColumnChooser(ModalScreen[list[str] | None]):
    """Type to narrow the keys, enter shows or hides the one under the cursor. Dismissed with the ids that are shown."""

    BINDINGS: ClassVar[list[BindingType]] = bindings_of("chooser")

    def __init__(self, ids: Sequence[str], shown: Sequence[str]) -> None:
        super().__init__()
        self._ids = [id for id in ids if id.partition(":")[0] in _KINDS and id != "attribute:run"]
        self._others = [id for id in shown if id not in self._ids]
        self._shown = [id for id in shown if id in set(self._ids)]
        self._before = list(self._shown)
        self._found: list[str] = []
        self._row = 0

    def compose(self) -> ComposeResult:
        with Horizontal(id="choose-row"):
            yield Lines(id="choose-label")
            yield LineInput(placeholder="type to find a key; system shows system/*", id="choose")
        yield Lines(id="choose-list")
        yield Lines(id="foot", ground="bar")

    def on_mount(self) -> None:
        self.query_one("#choose-label", Lines).show([((" Columns ", "key"),)])
        self.set_focus(self.query_one("#choose", Input))

    def on_resize(self) -> None:
        self._find()

    def on_input_changed(self, message: Input.Changed) -> None:
        message.stop()
        self._row = 0
        self._find()

    def on_input_submitted(self, message: Input.Submitted) -> None:
        message.stop()
        self.set_focus(self.query_one("#choose", Input))
        self._toggle()

    def _find(self) -> None:
        """Keys with what was typed: those that are shown first, then by group and name."""
        words = self.query_one("#choose", Input).value.lower().split()
        asked = any("sys" in word for word in words)
        ranked: list[tuple[int, int, str, str]] = []
        order = list(_KINDS)
        shown = set(self._before)
        for id in self._ids:
            kind, _, key = id.partition(":")
            low = key.lower()
            if key.startswith(("system/", "mlflow.")) and not asked and id not in shown and not words:
                continue
            if all(word in low or word in _KINDS[kind] for word in words):
                first = 0 if id in shown else 1 if not words or low.startswith(words[0]) else 2
                ranked.append((first, order.index(kind), key, id))
        self._found = [entry[-1] for entry in sorted(ranked)]
        if not asked:
            hidden = [id for id in self._found if id.startswith("metric:system/") and id not in shown]
            self._found = [id for id in self._found if id not in set(hidden)]
        self._row = max(0, min(self._row, len(self._found) - 1))
        self._repaint()

    def _repaint(self) -> None:
        lines: list[Line] = []
        group = ""
        at = 0
        shown = set(self._shown)
        for place, id in enumerate(self._found):
            kind, _, key = id.partition(":")
            prefix, slash, _ = key.partition("/")
            title = "shown" if id in set(self._before) else _KINDS[kind] + (f"  {prefix}/" if slash else "")
            if title != group:
                group = title
                lines.append(((f" {title}", "header"),))
            here = place == self._row
            if here:
                at = len(lines)
            ground = " cursor" if here else ""
            sign = "✓" if id in shown else " "
            spans: list[Span] = [(f" {'▌' if here else ' '}{sign} ", "key" + ground), (key, ground.strip())]
            lines.append(tuple(spans))
        listed = self.query_one("#choose-list", Lines)
        listed.show(lines or [(("  No key has that in its name.", "dim"),)])
        top, height = round(listed.scroll_offset.y), max(1, listed.size.height)
        if not top <= at - 1 or at >= top + height:
            target = max(0, at - 1 if at <= top else at - height + 1)
            listed.scroll_to(y=target, animate=False, immediate=True, force=True)
        self.query_one("#foot", Lines).show(
            [
                (
                    (" enter", "key"),
                    (" show, hide   ", "dim"),
                    ("esc", "key"),
                    (f" done   {len(self._shown):,} shown, {len(self._found):,} found", "dim"),
                )
            ]
        )

    def _toggle(self) -> None:
        if not self._found:
            return
        id = self._found[self._row]
        if id in self._shown:
            self._shown.remove(id)
        else:
            self._shown.append(id)
        self._repaint()

    def _move(self, by: int) -> None:
        self._row = max(0, min(len(self._found) - 1, self._row + by))
        self._repaint()

    def action_choice_down(self) -> None:
        self._move(1)

    def action_choice_up(self) -> None:
        self._move(-1)

    def action_choice_page_down(self) -> None:
        self._move(max(1, self.size.height - 4))

    def action_choice_page_up(self) -> None:
        self._move(-max(1, self.size.height - 4))

    def action_choices_done(self) -> None:
        self.dismiss(None if self._shown == self._before else [*self._others, *self._shown])

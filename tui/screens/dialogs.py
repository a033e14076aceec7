"""Questions of one line at the bottom of the screen."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.screen import ModalScreen

from mltrack.tui.clean import clean, wrap
from mltrack.tui.widgets.bindings import bindings_of
from mltrack.tui.widgets.line_input import LineInput
from mltrack.tui.widgets.lines import Lines


class Question(ModalScreen[bool]):
    """Yes or no; anything but yes is no."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *bindings_of("dialog"),
        Binding("escape,q", "no", "no", show=False),
    ]

    def __init__(self, sentence: str) -> None:
        super().__init__()
        self.sentence = sentence

    def compose(self) -> ComposeResult:
        yield Lines(id="question")

    def on_resize(self) -> None:
        # Whatever the sentence names, the end of the question is on the screen.
        *first, last = wrap(self.sentence, max(10, self.size.width - 8), max(1, min(4, self.size.height - 1)))
        question = self.query_one("#question", Lines)
        question.styles.height = len(first) + 1
        question.show(
            [*(((f" {line} ", "bold"),) for line in first), ((f" {last} ", "bold"), ("[y/N]", "key"))]
        )

    def action_yes(self) -> None:
        self.dismiss(True)

    def action_no(self) -> None:
        self.dismiss(False)


class Prompt(ModalScreen[str | None]):
    """A line of text; escape gives None."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "leave", show=False)]

    def __init__(self, label: str, value: str = "", placeholder: str = "") -> None:
        super().__init__()
        self._label = label
        self._value = value
        self._placeholder = placeholder

    def compose(self) -> ComposeResult:
        with Horizontal(id="prompt-row"):
            yield Lines(id="prompt-label")
            # What one edits is the cleaned text: an invisible character could not be edited anyway.
            yield LineInput(
                clean(self._value, None),
                placeholder=clean(self._placeholder),
                id="prompt",
                select_on_focus=False,
            )

    def on_mount(self) -> None:
        label = clean(f" {self._label} ", 40)
        lines = self.query_one("#prompt-label", Lines)
        lines.styles.width = len(label)
        lines.show([((label, "key"),)])
        self.set_focus(self.query_one("#prompt", LineInput))

    def on_input_submitted(self, message: LineInput.Submitted) -> None:
        message.stop()
        self.dismiss(message.value)

    def action_leave(self) -> None:
        self.dismiss(None)

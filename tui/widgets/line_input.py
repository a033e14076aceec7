"""A field of one line that gives the keys back the moment it is left."""

from __future__ import annotations

from textual.widgets import Input


class LineInput(Input):
    """Input, for people who type faster than messages travel: keys behind enter are for the screen."""

    def on_mount(self) -> None:
        # A blinking cursor sends bytes twice a second for nothing.
        self.cursor_blink = False

    async def action_submit(self) -> None:
        self.screen.set_focus(None)
        # Enter acts at once; letters before it in the same burst may still wait in this field's queue, and belong to the text.
        self.call_later(super().action_submit)

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
        await super().action_submit()

"""A page of text with pictures in it, where the terminal draws pixels: its lines are blank there, and the pictures lie over them.

With kitty's protocol a picture is sent to the terminal once, and its cells are text of a private character. Sixels are sent with the
line they lie on, right behind its blanks: whatever paints the line again brings its piece of the picture along, and whatever
covers the line wipes it away. Both are made from pixels (picture_pieces.py); nothing of a file's own bytes reaches the terminal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from rich.color import Color
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region
from textual.strip import Strip

from mltrack.tui.widgets.lines import TextPage
from mltrack.tui.widgets.look import Line, style_of

if TYPE_CHECKING:
    from mltrack.tui.app import MltrackApp
    from mltrack.tui.graphics import Graphics
    from mltrack.tui.raster import Placed
    from mltrack.tui.widgets.picture_pieces import Piece


def asked_canvas(graphics: Graphics) -> dict[str, Any]:
    """What a question for pictures says of the terminal; nothing where it draws none."""
    canvas = graphics.canvas
    return {} if canvas is None else {"canvas": [*canvas.cell, canvas.most]}


class PictureStrip(Strip):
    """A line with what is sent behind it: sixels, drawn over its blanks."""

    __slots__ = ("_behind",)

    def __init__(self, segments: Iterable[Segment], cell_length: int, behind: str) -> None:
        super().__init__(segments, cell_length)
        self._behind = behind

    def crop(self, start: int, end: int | None = None) -> Strip:
        """Whatever part of the line is painted again may lie below a picture."""
        part = super().crop(start, end)
        return part if part is self else PictureStrip(part, part.cell_length, self._behind)

    def render(self, console: Any) -> str:
        """The line and its pictures, as they are sent."""
        return super().render(console) + self._behind


class PicturePage(TextPage):
    """Shows lines, and pictures over them."""

    DEFAULT_CSS = "PicturePage { height: 1fr; }"

    def __init__(self, *, id: str | None = None, filters: bool = False) -> None:
        super().__init__(id=id, filters=filters)
        self._pieces: Mapping[int, Sequence[Piece]] = {}
        self._numbers: Sequence[int] = ()
        self._drawn: dict[int, tuple[Strip, Strip]] = {}

    @property
    def _mltrack(self) -> MltrackApp:
        return cast("MltrackApp", self.app)

    # -- data in

    def show(self, lines: Sequence[Line]) -> None:
        """Lines without pictures."""
        self.workers.cancel_group(self, "pictures")
        self._put(lines, {})

    def show_pictures(self, lines: Sequence[Line], pictures: Sequence[Placed]) -> None:
        """Lines, and pictures over blanks in them. What was shown stays until they are made."""
        if not pictures:
            self.show(lines)
            return
        self.run_worker(self._make(lines, pictures), group="pictures", exclusive=True)

    async def _make(self, lines: Sequence[Line], pictures: Sequence[Placed]) -> None:
        from mltrack.tui.widgets.picture_pieces import made_for

        graphics = self._mltrack.graphics
        many_colours = self.app.console.color_system == "truecolor"
        # Compressing takes a tenth of a second: keys come first.
        made = await asyncio.to_thread(
            made_for, graphics.kind, graphics.cell[1], pictures, many_colours, self._numbers
        )
        if self.is_attached:
            self._put(lines, made.pieces, made.sent, made.numbers)

    def _put(
        self,
        lines: Sequence[Line],
        pieces: Mapping[int, Sequence[Piece]],
        sent: str = "",
        numbers: Sequence[int] = (),
    ) -> None:
        old = self._numbers
        if sent:
            self._mltrack.send_raw(self._mltrack.graphics.wrapped(sent))
        self._numbers = numbers
        if pieces or self._pieces:
            self._pieces = pieces
            self._drawn.clear()
            self.refresh()
        super().show(lines)
        if old:
            # When nothing of them is on the screen any more.
            self.call_after_refresh(self._forget, old)

    def _forget(self, numbers: Sequence[int]) -> None:
        from mltrack.tui.draw.kitty import removal

        self._mltrack.send_raw(self._mltrack.graphics.wrapped("".join(map(removal, numbers))))

    def on_resize(self) -> None:
        super().on_resize()
        self._drawn.clear()

    def on_unmount(self) -> None:
        if self._numbers:
            self._forget(self._numbers)

    # -- drawing

    def render_lines(self, crop: Region) -> list[Strip]:
        """As Textual asks for them; pictures are laid over lines that are ready, filters of the app included."""
        strips = super().render_lines(crop)
        if not self._pieces or crop.column_span != (0, self.size.width):
            return strips
        top = round(self.scroll_offset.y)
        return [
            self._with_pictures(strip, y, self._pieces[y + top]) if y + top in self._pieces else strip
            for y, strip in zip(crop.line_range, strips, strict=True)
        ]

    def _with_pictures(self, strip: Strip, y: int, pieces: Sequence[Piece]) -> Strip:
        kept = self._drawn.get(y)
        if kept is not None and kept[0] is strip:
            return kept[1]
        corner = self.content_region.offset
        segments: list[Segment] = []
        behind: list[str] = []
        at = 0
        for piece in pieces:
            end = piece.column + piece.columns
            if end > self.size.width:
                continue
            if not piece.number:
                row, column = corner.y + y + 1, corner.x + piece.column + 1
                behind.append(f"\x1b7\x1b[{row};{column}H{piece.text}\x1b8")
                continue
            segments += [*strip.crop(at, piece.column), Segment(piece.text, self._colour(piece.number))]
            at = end
        segments += strip.crop(at)
        drawn = PictureStrip(segments, self.size.width, "".join(behind))
        self._drawn[y] = strip, drawn
        return drawn

    def _colour(self, number: int) -> Style:
        """The colour that says which picture it is: one of 256, or of all where the terminal has them."""
        colour = Color.from_ansi(number)
        if number > 255:
            colour = Color.from_rgb(number >> 16, number >> 8 & 255, number & 255)
        return Style(color=colour, bgcolor=style_of("").bgcolor)

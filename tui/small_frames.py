"""Frames that hold what changed and no more.

Textual paints a changed part of a line from the left edge of its widget on. Over SSH that is most of a frame: one column
of a wide chart would cost the whole chart. This cuts each part at its own left edge. It uses the compositor's own
structures, which are not public: tests/unit/test_chart_parts.py holds it to what Textual does.
"""

from __future__ import annotations

from textual._compositor import ChopsUpdate
from textual.strip import Strip


class SmallUpdate(ChopsUpdate):
    """An update of parts of lines, each from its first changed cell to its last."""

    @classmethod
    def of(cls, update: ChopsUpdate) -> SmallUpdate:
        """The same update, cut."""
        return cls(update.chops, update.spans, update.chop_ends)

    def render_segments(self, console: object) -> str:
        """What goes to the terminal: for each part a move and its cells."""
        parts: list[str] = []
        for y, begin, end in self.spans:
            for edge, (x, strip) in zip(self.chop_ends[y], self.chops[y].items(), strict=False):
                if strip is None or x >= end or edge <= begin:
                    continue
                first, last = max(x, begin), min(edge, end)
                piece: Strip = strip if (first, last) == (x, edge) else strip.crop(first - x, last - x)
                parts.append(f"\x1b[{y + 1};{first + 1}H")
                parts.append(piece.render(console))  # type: ignore[arg-type]  # Textual hands its own console over
        return "".join(parts)

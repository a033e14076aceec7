"""Aligned tables that fit the terminal: columns give way in a fixed order, never the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mltrack.tui.clean import cell_width, clean, clip, pad
from mltrack.tui.cli.terminal import Terminal

_GAP = 2
# Text narrower than this no longer tells rows apart: other columns leave first.
_COMFORTABLE = 18
# A heading longer than this may be cut before the column's cells are.
_HEADING_SLACK = 10


@dataclass(frozen=True)
class Cell:
    """Text of one cell (not cleaned yet) and the style it is shown in."""

    text: str
    style: str | None = None


@dataclass(frozen=True)
class Column:
    """A heading and its cells. `weight` says who gives way: the column with the largest goes first, 0 never."""

    heading: str
    cells: Sequence[Cell | str]
    align: Literal["left", "right"] = "left"
    weight: int = 1
    widest: int = 40
    narrowest: int = _COMFORTABLE
    keep: Literal["head", "tail"] = "head"


def draw_table(
    columns: Sequence[Column], terminal: Terminal, *, heading: bool = True, indent: int = 0
) -> list[str]:
    """Lines of the table, coloured for `terminal`, at most its width."""
    columns, widths = _fit(columns, terminal, indent)
    lines: list[str] = []
    if heading:
        parts = [
            terminal.fold(pad(_shown(column.heading, terminal), width, column.align))
            for column, width in zip(columns, widths, strict=True)
        ]
        lines.append(terminal.style((" " * indent + (" " * _GAP).join(parts)).rstrip(), "header"))
    for row in range(max((len(column.cells) for column in columns), default=0)):
        parts = []
        for column, width in zip(columns, widths, strict=True):
            cell = _cell(column.cells[row])
            text = _shown(cell.text, terminal)
            if column.keep == "tail" and cell_width(text) > width:
                text = clip(text, width, keep="tail")
            filled = terminal.fold(pad(text, width, column.align))  # folded again: clipping adds an ellipsis
            bare = filled.strip()
            # Only the words are coloured: underlines and backgrounds must not run through the gaps.
            start = filled.find(bare) if bare else 0
            parts.append(filled[:start] + terminal.style(bare, cell.style) + filled[start + len(bare) :])
        lines.append((" " * indent + (" " * _GAP).join(parts)).rstrip())
    return lines


def _fit(columns: Sequence[Column], terminal: Terminal, indent: int) -> tuple[list[Column], list[int]]:
    kept = list(columns)
    widths = [_wanted(column, terminal) for column in kept]
    while True:
        wanted = list(widths)
        room = terminal.width - indent - _GAP * (len(kept) - 1)
        excess = sum(wanted) - room
        if excess <= 0:
            return kept, wanted
        shortest = [_shortest(column, width) for column, width in zip(kept, wanted, strict=True)]
        if sum(shortest) <= room or all(column.weight == 0 for column in kept):
            # The widest gives way first, a cell at a time, so that no column is cut while a wider one stands.
            while excess > 0:
                slack = [(width, index) for index, width in enumerate(wanted) if width > shortest[index]]
                if not slack:
                    return kept, wanted
                wanted[max(slack)[1]] -= 1
                excess -= 1
            return kept, wanted
        leaving = max(range(len(kept)), key=lambda index: (kept[index].weight, index))
        del kept[leaving], widths[leaving]


def _wanted(column: Column, terminal: Terminal) -> int:
    cells = max((cell_width(_shown(_cell(cell).text, terminal)) for cell in column.cells), default=0)
    return min(column.widest, max(cells, cell_width(_shown(column.heading, terminal))))


def _shortest(column: Column, wanted: int) -> int:
    if column.align == "right":
        # A number cut in the middle is a wrong number; only a long heading may shrink.
        cells = max((cell_width(_cell(cell).text) for cell in column.cells), default=0)
        return min(wanted, max(cells, min(wanted, _HEADING_SLACK)))
    return min(wanted, column.narrowest)


def _cell(cell: Cell | str) -> Cell:
    return cell if isinstance(cell, Cell) else Cell(cell)


def _shown(text: str, terminal: Terminal) -> str:
    return terminal.fold(clean(text))


def without_empty(columns: Sequence[Column]) -> list[Column]:
    """Columns that have something to say."""
    return [
        replace(column)
        for column in columns
        if any(_cell(cell).text not in ("", "-") for cell in column.cells)
    ]

"""Columns of the table of runs on a screen: how wide, in what order, and who gives way. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mltrack.tui.clean import cell_width, clip, pad
from mltrack.tui.widgets.look import Span, shown

GAP = 2
GUTTER = 3
EXTRA = 20
"""Columns of this weight and more are only reached by scrolling."""
# Names give way to numbers on a narrow screen: they may take a quarter of it, but not less than tells them apart.
_NAME_SHARE, _NARROWEST_NAME = 4, 16
# A heading longer than this and than its cells is cut before a column leaves the screen.
_SHORT_HEADING = 7

Cell = Sequence[str]
"""Text, style, text, style and so on."""


@dataclass(frozen=True)
class Column:
    """One column as the worker describes it."""

    id: str
    kind: str
    key: str
    heading: str
    align: str
    weight: int
    widest: int
    sort: str | None
    aggregate: str = ""
    direction: str = ""
    role: str = ""

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Column:
        """From the worker's answer."""
        return cls(**{name: data[name] for name in cls.__dataclass_fields__})


@dataclass
class Layout:
    """Widths and order of the columns for a screen of some width; `fit` works both out."""

    columns: tuple[Column, ...] = ()
    widths: dict[str, int] = field(default_factory=dict)
    """The widest cell seen in each column."""
    chosen_widths: Mapping[str, int] = field(default_factory=dict)
    chosen_order: bool = False
    frozen: int = 1
    signs: Mapping[str, str] = field(default_factory=dict)
    """Columns that the rows are sorted by."""
    order: list[Column] = field(default_factory=list)
    headings: dict[str, str] = field(default_factory=dict)
    _drawn_widths: dict[str, int] = field(default_factory=dict)
    _fitted: tuple[object, frozenset[str]] = (None, frozenset())
    """What the last fit was for, and the columns of its first window."""

    def take(self, columns: Sequence[Column]) -> None:
        """Other columns; widths that were seen stay known."""
        self.columns = tuple(columns)
        self.widths = {column.id: self.widths.get(column.id, 1) for column in columns}

    def saw(self, id: str, cells: int) -> bool:
        """A cell of this width came; whether the column must grow."""
        if cells <= self.widths.get(id, 0):
            return False
        self.widths[id] = cells
        return True

    def width(self, column: Column) -> int:
        """Cells that the column takes."""
        return self._drawn_widths.get(column.id, 1)

    def fit(self, screen: int) -> None:
        """The order: those that fit into the first window, then those that gave way, then more."""
        usual = [column for column in self.columns if column.weight < EXTRA]
        more = [column for column in self.columns if column.weight >= EXTRA]
        headings = {
            column.id: self.signs.get(column.id, "") + shown(column.heading) for column in self.columns
        }
        short = _short_headings(usual, headings, self.signs)
        narrow = {column.id: self._cells(column, short[column.id], screen) for column in usual}
        fitting = list(usual)
        room = screen - GUTTER
        # Where only a wider cell came (a family was opened, a live value has grown) nothing else changes its looks: the names
        # give way before a column does, and headings stay as long as they are.
        fitted_for = (screen, self.columns, dict(self.signs), dict(self.chosen_widths), self.chosen_order)
        kept = self._fitted[1] if self._fitted[0] == fitted_for else frozenset[str]()
        name = usual[0].id if usual else ""
        if kept and name not in self.chosen_widths:
            excess = sum(narrow[column.id] + GAP for column in usual if column.id in kept) - GAP - room
            if 0 < excess <= narrow[name] - _NARROWEST_NAME:
                narrow[name] -= excess
        while not self.chosen_order and len(fitting) > 2:
            if sum(narrow[column.id] + GAP for column in fitting) - GAP <= room:
                break
            heaviest = max(range(len(fitting)), key=lambda index: (fitting[index].weight, index))
            if fitting[heaviest].weight == 0:
                break
            del fitting[heaviest]
        left = room - sum(narrow[column.id] + GAP for column in fitting) + GAP
        # The goal and what the rows are sorted by are named in full before others are.
        for column in sorted(
            fitting, key=lambda column: (column.id not in self.signs, column.role != "goal")
        ):
            whole = self._cells(column, headings[column.id], screen)
            if column.id in kept and self.headings.get(column.id) != headings[column.id]:
                continue
            if column.id == name and kept:
                continue
            if whole - narrow[column.id] <= left:
                left -= max(0, whole - narrow[column.id])
                short[column.id], narrow[column.id] = headings[column.id], whole
        for column in [*more, *usual]:
            if column not in fitting:
                short[column.id] = headings[column.id]
                narrow[column.id] = self._cells(column, headings[column.id], screen)
        if max(self.widths.values(), default=0) > 1:  # rows are here
            self._fitted = fitted_for, frozenset(column.id for column in fitting)
        self.headings, self._drawn_widths = short, narrow
        if self.chosen_order:
            self.order = list(self.columns)
        else:
            self.order = [*fitting, *(column for column in usual if column not in fitting), *more]

    def _cells(self, column: Column, heading: str, screen: int) -> int:
        chosen = self.chosen_widths.get(column.id)
        if chosen is not None:
            return max(3, min(chosen, screen - GUTTER))
        width = min(column.widest, max(self.widths[column.id], cell_width(heading)))
        if self.columns and column is self.columns[0]:
            width = min(width, max(_NARROWEST_NAME, screen // _NAME_SHARE))
        return width

    def visible(self, first: int, screen: int) -> list[Column]:
        """The frozen columns and those from ``first`` (counted behind them) that fit."""
        frozen = self.order[: self.frozen]
        room = screen - GUTTER - sum(self.width(column) for column in frozen) - GAP * max(0, len(frozen) - 1)
        drawn: list[Column] = []
        for column in self.order[self.frozen + first :]:
            room -= GAP + self.width(column)
            if room < 0:
                break
            drawn.append(column)
        return [*frozen, *drawn]


def _short_headings(
    columns: Sequence[Column], headings: Mapping[str, str], signs: Mapping[str, str]
) -> dict[str, str]:
    """train/loss↓ as loss↓, where nothing else is called so; cut where that is still long."""
    tails = [headings[column.id].rpartition("/")[2] for column in columns]
    short: dict[str, str] = {}
    for column, tail in zip(columns, tails, strict=True):
        heading, sign = headings[column.id], signs.get(column.id, "")
        if tails.count(tail) == 1 and tail:
            heading = sign + tail.removeprefix(sign)
        if cell_width(heading) > _SHORT_HEADING:
            heading = clip(heading, _SHORT_HEADING)
        short[column.id] = heading
    return short


def cell_spans(cell: Cell, width: int, align: str, tail: bool = False) -> list[Span]:
    """A cell as spans of exactly ``width``. ``tail``: what is too long loses its middle, not its end."""
    if len(cell) == 2:
        text = shown(cell[0])
        if tail and cell_width(text) > width:
            text = _without_middle(text, width)
        return [(pad(text, width, "right" if align == "right" else "left"), cell[1])]
    spans: list[Span] = []
    room = width
    for text, style in zip(cell[::2], cell[1::2], strict=True):
        text = shown(text)
        if cell_width(text) > room:
            text = clip(text, room)
        room -= cell_width(text)
        spans.append((text, style))
    if room:
        spans.append((" " * room, ""))
    return spans


def width_of(cell: Cell) -> int:
    """Cells that a cell would like."""
    return sum(cell_width(shown(text)) for text in cell[::2])


def _without_middle(text: str, width: int) -> str:
    indent = len(text) - len(text.lstrip(" ▸▾⚑>v"))
    head = min(max(indent, (width - 1) // 3), width // 2)
    return text[:head] + clip(text[head:], max(1, width - cell_width(text[:head])), keep="tail")

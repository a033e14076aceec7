"""What search needs of the run table: columns, one entry per run, in one fixed order of rows.

`columns.py` implements this protocol over the store; a test may do so over plain lists. The arrays are shared
and must not be written to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
IntArray: TypeAlias = npt.NDArray[np.int64]
CodeArray: TypeAlias = npt.NDArray[np.int32]

NumberKind: TypeAlias = Literal["metric", "attribute"]
TextKind: TypeAlias = Literal["param", "tag", "attribute", "dataset"]
Kind: TypeAlias = Literal["metric", "param", "tag", "attribute", "dataset"]
Aggregate: TypeAlias = Literal["last", "min", "max", "count"]

TEXT_ATTRIBUTES = frozenset(
    "run_id run_name experiment status user host note lifecycle parent_id artifact_uri damage".split()
)
TIME_ATTRIBUTES = frozenset(("start_time", "end_time", "heard"))
"""Milliseconds since 1970, UTC."""
NUMBER_ATTRIBUTES = TIME_ATTRIBUTES | {"duration", "step"}
"""`duration` is in milliseconds."""


@dataclass(frozen=True, eq=False)
class Number:
    """A column of numbers. `values` float64[n]; `present` bool[n]: where it is False the value means nothing.

    A present value may be NaN: the run logged NaN. So is the `min` and `max` of a metric that was only ever NaN.
    """

    values: FloatArray
    present: BoolArray


@dataclass(frozen=True, eq=False)
class Text:
    """A column of texts, dictionary-coded, so that a comparison is made once per distinct value.

    `codes` int32: index into `values`, -1 where the run has none. `values` are distinct, in any order, and may
    hold some that no code uses. With `rows` None there is one code per run; otherwise `codes[i]` belongs to run
    `rows[i]` and a run may have several (datasets).

    `numbers`, `lowered` and `ranks` are worked out on first use and live as long as this object: keep the object while
    its content is unchanged, make a new one when it changes.
    """

    codes: CodeArray
    values: tuple[str, ...]
    rows: IntArray | None = None

    def equals(self, text: str) -> BoolArray:
        """For each code whether it stands for this text."""
        matches: BoolArray = self.codes == (self.values.index(text) if text in self.values else -2)
        return matches

    def begins_with(self, text: str) -> BoolArray:
        """For each code whether its text begins so."""
        table = np.array([value.startswith(text) for value in self.values] + [False], dtype=np.bool_)
        matches: BoolArray = table[self.codes]
        return matches

    @cached_property
    def numbers(self) -> Number:
        """For each distinct value the number it spells; `present` says whether it spells one."""
        try:
            if all(map(str.isascii, self.values)) and "_" not in "".join(self.values):
                every = np.fromiter(map(float, self.values), dtype=np.float64, count=len(self.values))
                return Number(every, np.ones(len(self.values), dtype=np.bool_))
        except ValueError:
            pass
        spelled = [number_in(value) for value in self.values]
        return Number(
            np.array([np.nan if number is None else number for number in spelled], dtype=np.float64),
            np.array([number is not None for number in spelled], dtype=np.bool_),
        )

    @cached_property
    def lowered(self) -> tuple[str, ...]:
        """The distinct values in lower case."""
        return tuple(value.lower() for value in self.values)

    @cached_property
    def ranks(self) -> IntArray:
        """For each distinct value its place in code point order, from 0."""
        order = sorted(range(len(self.values)), key=self.values.__getitem__)
        ranks = np.empty(len(order), dtype=np.int64)
        ranks[order] = np.arange(len(order), dtype=np.int64)
        return ranks


class Columns(Protocol):
    """The run table as columns. A key that no run has gives a column with nothing present, never an error."""

    @property
    def n(self) -> int:
        """Number of runs."""
        ...

    @property
    def run_ids(self) -> Sequence[str]:
        """The run id of each row."""
        ...

    def number(self, kind: NumberKind, key: str, aggregate: Aggregate = "last") -> Number:
        """A metric's aggregate, or one of NUMBER_ATTRIBUTES (`aggregate` then means nothing)."""
        ...

    def text(self, kind: TextKind, key: str) -> Text:
        """A param, a tag, one of TEXT_ATTRIBUTES, or a dataset's name, digest or context."""
        ...

    def has(self, kind: Kind, key: str) -> bool:
        """Whether any run has this key."""
        ...

    def keys(self, kind: Kind) -> Sequence[str]:
        """All keys of this kind that any run has: asked to suggest what a mistyped key was meant to be."""
        ...


def number_in(text: str) -> float | None:
    """The number that a text spells, or None. Python's spelling, ASCII, without `_`; inf and nan are numbers."""
    if "_" in text or not text.isascii():
        return None
    try:
        return float(text)
    except ValueError:
        return None

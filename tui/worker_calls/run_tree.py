"""Runs under their parents, in the order of a flat list. Pure: places of runs in, places out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.int64]
# Deeper nesting, and circles, are cut here: what is left stands at the top.
_DEEPEST = 32


class RunTree:
    """The matching runs and their parents, which are shown although they may not match themselves.

    A family stands where the first of its members stands in ``order``, so children stay under their parent however they
    are sorted. Pinned runs leave their family and stand at the top.
    """

    def __init__(self, order: Places, parent: Places, pinned: Sequence[int] = ()) -> None:
        """``order``: places of the matching runs. ``parent``: for every place that of its parent, or -1."""
        n = len(parent)
        self.order = order
        self._parent = _without_circles(parent)
        pins = np.array(pinned, np.int64)
        self._parent[pins] = -1
        first = np.full(n, n, np.int64)
        first[order] = np.arange(len(order))
        first[pins] = np.where(first[pins] < n, first[pins] - n, first[pins])
        node, rank = order, first[order]
        while True:
            up = self._parent[node]
            node, rank = up[up >= 0], rank[up >= 0]
            if not len(node):
                break
            np.minimum.at(first, node, rank)
        shown = np.flatnonzero(first < n)
        shown = shown[np.lexsort((first[shown], self._parent[shown]))]
        self._shown = shown
        self._parents = self._parent[shown]
        self.groups: frozenset[int] = frozenset(np.unique(self._parents[self._parents >= 0]).tolist())
        """Places of the runs that have children here."""
        self._matching = np.zeros(n, np.bool_)
        self._matching[order] = True

    def visible(self, is_open: Callable[[int], bool]) -> Places:
        """The rows of the table: families in order, of open ones the children too."""
        roots = self._below(-1)
        opened = {place for place in self.groups if is_open(place)}
        if not opened:
            return roots
        rows: list[int] = []
        stack: list[Iterator[int]] = [iter(roots.tolist())]
        while stack:
            for place in stack[-1]:
                rows.append(place)
                if place in opened:
                    stack.append(iter(self._below(place).tolist()))
                    break
            else:
                stack.pop()
        return np.array(rows, np.int64)

    def members(self, place: int) -> Places:
        """The matching runs below one, at any depth."""
        found: list[Places] = []
        waiting = [place]
        while waiting:
            below = self._below(waiting.pop())
            found.append(below[self._matching[below]])
            waiting += [child for child in below.tolist() if child in self.groups]
        return np.concatenate(found) if found else np.zeros(0, np.int64)

    def path(self, place: int) -> list[int]:
        """The parents of a run that are shown, the nearest first."""
        found: list[int] = []
        while (place := int(self._parent[place])) >= 0:
            found.append(place)
        return found

    def _below(self, place: int) -> Places:
        start, stop = np.searchsorted(self._parents, (place, place + 1))
        return self._shown[start:stop]


def _without_circles(parent: Places) -> Places:
    parent = parent.copy()
    nested = np.flatnonzero(parent >= 0)
    above = parent[nested]
    for _ in range(_DEEPEST):
        going = above >= 0
        if not going.any():
            return parent
        nested, above = nested[going], parent[above[going]]
    parent[nested[above >= 0]] = -1
    return parent

"""Families of runs in the order of a flat list: any nesting, any circles, any filter."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mltrack.tui.worker_calls.run_tree import RunTree


def tree(order: list[int], parent: list[int], pinned: list[int] | None = None) -> RunTree:
    return RunTree(np.array(order, np.int64), np.array(parent, np.int64), pinned or [])


def visible(built: RunTree, opened: set[int]) -> list[int]:
    return built.visible(lambda place: place in opened).tolist()


def test_a_family_stands_where_its_first_member_does() -> None:
    # 0 is the parent of 1 and 3; sorted by value the order is 3 2 1 0.
    built = tree([3, 2, 1, 0], [-1, 0, -1, 0])
    assert visible(built, set()) == [0, 2]
    assert visible(built, {0}) == [0, 3, 1, 2]
    assert sorted(built.members(0).tolist()) == [1, 3]


def test_a_parent_that_does_not_match_is_shown_above_those_that_do() -> None:
    built = tree([1], [-1, 0, 0])
    assert visible(built, {0}) == [0, 1]
    assert built.members(0).tolist() == [1]
    assert built.path(1) == [0]


def test_pinned_runs_leave_their_family_and_come_first() -> None:
    built = tree([2, 1, 0, 3], [-1, 0, -1, 0], [3])
    assert visible(built, {0}) == [3, 2, 0, 1]


@st.composite
def forests(draw: st.DrawFn) -> tuple[list[int], list[int], list[int]]:
    n = draw(st.integers(1, 25))
    parent = draw(st.lists(st.integers(-1, n - 1), min_size=n, max_size=n))
    order = draw(st.permutations(range(n)))[: draw(st.integers(0, n))]
    pinned = draw(st.lists(st.sampled_from(range(n)), unique=True, max_size=3))
    return list(order), parent, pinned


@given(forests())
def test_every_match_is_there_once_below_its_parents(forest: tuple[list[int], list[int], list[int]]) -> None:
    order, parent, pinned = forest
    built = tree(order, parent, pinned)
    rows = visible(built, set(range(len(parent))))
    assert len(rows) == len(set(rows))
    assert set(order) <= set(rows)
    for place in rows:
        above = built.path(place)
        assert len(set(above)) == len(above) <= 32
        assert all(rows.index(each) < rows.index(place) for each in above)
        # Only what matches is there, and what it stands below.
        assert place in order or len(built.members(place)) > 0
    closed = visible(built, set())
    assert all(not built.path(place) for place in closed)
    assert len(closed) + sum(len(built.path(place)) > 0 for place in rows) == len(rows)


@given(forests())
def test_siblings_keep_the_order_of_their_best_members(
    forest: tuple[list[int], list[int], list[int]],
) -> None:
    order, parent, _ = forest
    built = tree(order, parent)

    def first(place: int) -> int:
        family = [place, *built.members(place).tolist()]
        return min(order.index(each) for each in family if each in order)

    rows = visible(built, set(range(len(parent))))
    for above in {tuple(built.path(place)) for place in rows}:
        siblings = [place for place in rows if tuple(built.path(place)) == above]
        assert [first(place) for place in siblings] == sorted(first(place) for place in siblings)

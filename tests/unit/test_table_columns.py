"""Which columns are on a screen, how wide, and how they are named."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mltrack.tui.clean import cell_width
from mltrack.tui.widgets.table_columns import GAP, GUTTER, Column, Layout, cell_spans


def column(id: str, heading: str, weight: int, align: str = "right", role: str = "") -> Column:
    kind, _, key = id.partition(":")
    return Column(id, kind, key, heading, align, weight, 24, None, role=role)


USUAL = (
    column("attribute:run", "RUN", 0, "left"),
    column("attribute:status", "STATUS", 0, "left"),
    column("metric:val/acc", "val/acc↑", 0, role="goal"),
    column("step:val/acc", "@step", 8),
    column("metric:train/loss", "train/loss↓", 2),
    column("trend:val/acc", "trend", 14, "left"),
    column("param:lr", "lr", 3),
    column("param:batch_size", "batch_size", 5),
    column("attribute:age", "AGE", 1),
    column("metric:more", "more", 20),
)
CELLS = {"attribute:run": 14, "attribute:status": 12, "trend:val/acc": 8, "param:lr": 6}


def fitted(screen: int, **options: object) -> Layout:
    layout = Layout(**options)  # type: ignore[arg-type]
    layout.take(USUAL)
    for each in USUAL:
        layout.saw(each.id, CELLS.get(each.id, 5))
    layout.fit(screen)
    return layout


def ids(layout: Layout, screen: int, first: int = 0) -> list[str]:
    return [each.id for each in layout.visible(first, screen)]


def test_the_trend_gives_way_first_then_the_step_then_params() -> None:
    assert "trend:val/acc" in ids(fitted(100), 100)
    at_80 = ids(fitted(80), 80)
    gone = [each.id for each in USUAL[:-1] if each.id not in ids(fitted(60), 60)]
    assert gone[:2] == ["step:val/acc", "trend:val/acc"]
    assert {"attribute:run", "attribute:status", "metric:val/acc"} <= set(ids(fitted(50), 50))
    assert "attribute:age" in at_80


def test_headings_lose_their_group_before_a_column_leaves() -> None:
    wide, narrow = fitted(200), fitted(72)
    assert wide.headings["metric:train/loss"] == "train/loss↓"
    assert narrow.headings["metric:train/loss"] == "loss↓"
    assert narrow.headings["metric:val/acc"].endswith("acc↑")


def test_what_the_rows_are_sorted_by_is_named_with_its_sign() -> None:
    layout = fitted(70, signs={"metric:train/loss": "▲"})
    assert layout.headings["metric:train/loss"].startswith("▲")
    assert layout.headings["metric:train/loss"].endswith("↓")


def test_frozen_columns_stay_and_a_chosen_width_is_kept() -> None:
    layout = fitted(80, frozen=3, chosen_widths={"attribute:run": 30})
    assert layout.width(USUAL[0]) == 30
    assert ids(layout, 80, 4)[:3] == [each.id for each in layout.order[:3]]
    assert ids(layout, 80, 4)[3:] == [each.id for each in layout.order[7:]][: len(ids(layout, 80, 4)) - 3]


@given(st.integers(20, 250), st.integers(0, 9))
def test_what_is_drawn_fits_unless_it_never_leaves(screen: int, first: int) -> None:
    layout = fitted(screen)
    drawn = layout.visible(first, screen)
    width = GUTTER + sum(layout.width(each) + GAP for each in drawn) - GAP
    assert width <= screen or len(drawn) == 1
    assert {each.id for each in layout.order} == {each.id for each in USUAL}


@given(st.lists(st.tuples(st.text(max_size=12), st.just("")), min_size=1, max_size=4), st.integers(1, 30))
def test_a_cell_is_exactly_as_wide_as_its_column(parts: list[tuple[str, str]], width: int) -> None:
    flat = [each for part in parts for each in part]
    for tail in (False, True):
        spans = cell_spans(flat, width, "left", tail)
        assert sum(cell_width(text) for text, _ in spans) == width


def test_a_long_name_keeps_its_tail() -> None:
    ((text, _),) = cell_spans(["  ▸ a-very-long-name-of-a-run-0042", "bold"], 20, "left", True)
    assert text.startswith("  ▸ ") and text.endswith("0042") and "…" in text


def test_a_wider_cell_changes_no_other_column() -> None:
    """As when a family is opened: the names give way, then a column, and no heading becomes longer for that."""
    for screen in range(60, 130):
        layout = fitted(screen)
        before = ids(layout, screen)
        headings = {id: layout.headings[id] for id in before}
        widths = {each.id: layout.width(each) for each in layout.order}
        layout.saw("param:lr", 8)
        layout.fit(screen)
        after = ids(layout, screen)
        assert len(set(before) - set(after)) <= 2
        assert all(len(layout.headings[id]) <= len(headings[id]) for id in after if id in headings)
        for each in layout.order:
            if each.id in after and each.id in headings and each.id not in ("param:lr", "attribute:run"):
                assert layout.width(each) <= widths[each.id], (screen, each.id)

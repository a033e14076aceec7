"""The comparison of the screen, made of arrays, says what the comparison of the command says, made run by run."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from mltrack.store import open_store
from mltrack.tui.comparison import Row, compare_rows
from mltrack.tui.kept_files import KeptFiles
from mltrack.tui.worker_calls.comparisons import comparison


def _told(rows: Sequence[Row]) -> dict[tuple[str, str], tuple[tuple[str, ...], bool, str]]:
    """What is said of each row; NaN as a text, because it is not equal to itself."""
    return {
        (row.section, row.key): (tuple(map(repr, row.values)), row.differs, repr(row.best)) for row in rows
    }


@pytest.mark.parametrize("aggregate", ["best", "last", "min", "max"])
def test_arrays_say_what_summaries_say(demo_store: str, aggregate: str) -> None:
    with open_store(demo_store, readonly=True) as store:
        ids = list(store.search().run_ids)
        for chosen in (ids[:2], ids[5:30], [*ids[-40:], "not-a-run"]):
            made = comparison(store, chosen, aggregate)
            rows = [made.row(place) for place in range(len(made))]
            expected = compare_rows(
                store.runs(chosen), aggregate, everything=True, read_blob=KeptFiles(store, [])
            )
            assert _told(rows) == _told(expected)
            assert [bool(made.differs[key]) for key in made.order] == [
                row.differs for row in rows if row.section == "metrics"
            ]
            for key, name in enumerate(made.table.keys):
                summaries = [made.table.summary(key, column) for column in range(len(made.runs))]
                assert list(map(repr, summaries)) == [
                    repr(run.metrics.get(name)) for run in store.runs(chosen)
                ]
                if key > 40:
                    break

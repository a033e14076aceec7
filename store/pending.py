"""Summaries that stand in for points that are not folded yet: what the journal's writer says of them, laid over the rows.

A run's stored summary is what tables, filters and sorting read. While some of its points wait, that is a better answer than the
rows of the points that happen to be in; the true rows wait beside it in ``run.attempts``, which folding goes on from.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mltrack.store import summary as summaries
from mltrack.store.database import Database
from mltrack.store.fold_points import KeyIds, store_summary
from mltrack.store.summary import Rows

_FIELDS = (
    "first_step",
    "last_step",
    "last_time",
    "last",
    "low",
    "low_step",
    "high",
    "high_step",
    "count",
    "nan",
)


def lay_over(database: Database, run: int, pending: dict[str, Any]) -> None:
    """Write a run's summary with what ``pending`` (by jid: rank and fields by key) knows more of. Inside a transaction."""
    stored = database.execute("SELECT summary, attempts FROM run WHERE id = ?", (run,))[0]
    every = summaries.unpack(stored[1] or stored[0])
    store_summary(database, run, every[every["whole"] == 1], every[every["whole"] == 0])
    said = _rows(database, pending)
    if len(said) == 0:
        return
    rows = summaries.unpack(database.execute("SELECT summary FROM run WHERE id = ?", (run,))[0][0])
    known = {series: place for place, series in enumerate(_series(rows))}
    counts, said_counts = rows["count"].tolist(), said["count"].tolist()
    kept = np.ones(len(rows), np.bool_)
    added: dict[tuple[int, int], int] = {}
    for at, series in enumerate(_series(said)):
        place = known.get(series)
        if place is not None and counts[place] >= said_counts[at]:
            continue  # as much or more of it is in already
        if series in added and said_counts[added[series]] >= said_counts[at]:
            continue
        added[series] = at
        if place is not None:
            kept[place] = False
    shown = summaries.joined([rows[kept], said[list(added.values())]])
    shown = shown[np.lexsort((shown["attempt"], shown["rank"], shown["key"]))]
    database.execute(
        "UPDATE run SET summary = ?, attempts = ? WHERE id = ?",
        (summaries.pack(shown), summaries.pack(every), run),
    )


def _series(rows: Rows) -> list[tuple[int, int]]:
    """(key, rank) of each row."""
    return list(zip(rows["key"].tolist(), rows["rank"].tolist(), strict=True))


def _rows(database: Database, pending: dict[str, Any]) -> Rows:
    """A row for each series, column by column: a run may have 1,500 of them, and numpy takes its time per row."""
    keys = KeyIds(database)
    keys.add({key for kept in pending.values() for key in kept["v"]})
    parts: list[Rows] = []
    for kept in pending.values():
        entries = [(keys.ids[key], *fields) for key, fields in kept["v"].items() if int(fields[8]) > 0]
        if not entries:
            continue
        ids, *columns = zip(*entries, strict=True)
        rows = np.zeros(len(entries), summaries.ROW)
        for name, values in zip(_FIELDS, columns, strict=True):
            if name in ("last", "low", "high"):
                rows[name] = [np.nan if value is None else float(value) for value in values]
            else:
                rows[name] = [value or 0 for value in values]
        rows["key"], rows["rank"], rows["attempt"] = ids, int(kept.get("rank", 0)), summaries.MERGED
        rows["newest"], rows["cut"], rows["whole"] = rows["last_time"], summaries.NO_CUT, 1
        parts.append(rows)
    return summaries.joined(parts)

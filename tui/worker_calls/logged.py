"""What another tool logged beside numbers: listed from what was counted, and read from its files only when looked at."""

from __future__ import annotations

from typing import Any

from mltrack.store.records import Run
from mltrack.store.sources.tensorboard_media import Histogram, Media, event_files, read_media
from mltrack.tui.clean import clean
from mltrack.tui.cli.columns import logged_names
from mltrack.tui.draw.numbers import format_bytes, format_number, format_step
from mltrack.tui.draw.sparkline import draw_sparkline
from mltrack.tui.file_preview import preview
from mltrack.tui.raster import Canvas

FOLDER = "(logged)"
"""The folder in the tree of files that holds what is in no file of its own."""
_READ = frozenset(("images", "histograms", "text", "audio"))
_MOST_LINES = 400
_LOOK_SECONDS = 3.0

Line = list[list[str]]


def logged_entries(run: Run) -> list[list[Any]]:
    """[path, kind, bytes, detail] as ``files`` has them: a folder per kind, and how many there are under each name."""
    names = logged_names(run)
    if not names:
        return []
    entries: list[list[Any]] = [[FOLDER, "folder", 0, ""]]
    made: set[str] = set()
    for name in sorted(names):
        kind, _, tag = name.partition(" ")
        above = FOLDER
        for part in (kind, *tag.split("/")[:-1]):
            above = f"{above}/{part}"
            if above not in made:
                made.add(above)
                entries.append([above, "folder", 0, ""])
        entries.append([f"{FOLDER}/{kind}/{tag}", "logged", 0, _seen(names[name])])
    return entries


def logged_preview(
    run: Run, path: str, width: int, height: int, canvas: Canvas | None = None
) -> dict[str, Any]:
    """What was logged under a name, like ``file_preview``: the newest picture, histograms over steps, texts."""
    kind, _, tag = path.removeprefix(f"{FOLDER}/").partition("/")
    seen = logged_names(run).get(f"{kind} {tag}")
    facts: list[Line] = [[["logged  ", "dim"], [_seen(seen) if seen else "not any more", ""]]]
    files = event_files(run.artifacts) if run.artifacts is not None else []
    pictures: list[list[Any]] = []
    if kind not in _READ or not files:
        where = "in the event files" if files else "in the tool's own files"
        lines: list[Line] = [[[f"Its content is {where}; it is not shown here.", "dim"]]]
    else:
        found = read_media(files, kind, tag, _LOOK_SECONDS)
        lines, pictures = _lines(found, width, height, canvas)
        if not found.complete:
            facts.append([["The files are large; this is from their beginning.", "yellow"]])
    return {
        "path": f"{kind} {tag}",
        "kind": kind,
        "facts": facts,
        "lines": lines,
        "pictures": pictures,
        "pickle": False,
    }


def _seen(seen: list[Any]) -> str:
    count, first, last = (int(value) for value in seen[:3])
    at = (
        f"step {format_step(first)}"
        if first == last
        else f"steps {format_step(first)} to {format_step(last)}"
    )
    return f"{count:,} at {at}"


def _lines(
    found: Media, width: int, height: int, canvas: Canvas | None
) -> tuple[list[Line], list[list[Any]]]:
    """Lines, and the pictures over them."""
    if found.data:
        head: Line = [[f"the newest, step {format_step(found.step)}, {format_bytes(len(found.data))}", "dim"]]
        if found.kind == "audio":
            return [head, [["Sound is not played here.", "dim"]]], []
        size = len(found.data)
        shown = preview("picture.png", found.data, size, max(20, width), max(5, height - 2), canvas=canvas)
        return [head, *shown.lines], shown.placed(1)
    if found.histograms:
        return _histograms(found.histograms, max(20, width)), []
    lines: list[Line] = []
    for step, text in reversed(found.texts):
        lines.append([[f"step {format_step(step)}", "dim"]])
        lines += [[["  " + clean(row), ""]] for row in text.splitlines()]
        if len(lines) > _MOST_LINES:
            break
    return lines[:_MOST_LINES] or [[["Nothing of it can be read any more.", "dim"]]], []


def _histograms(found: list[tuple[int, Histogram]], width: int) -> list[Line]:
    """A row per step on one scale of values, the newest first; each is as high as its own fullest place."""
    low = min(histogram.edges[0] for _, histogram in found)
    high = max(histogram.edges[-1] for _, histogram in found)
    steps = [format_step(step) for step, _ in found]
    wide = max(len(step) for step in steps)
    across = max(10, min(120, width - wide - 4))
    left, right = format_number(low), format_number(high)
    scale = left + " " * max(1, across - len(left) - len(right)) + right
    lines: list[Line] = [[[" " * (wide + 2), ""], [scale, "dim"]]]
    for (_, histogram), step in zip(reversed(found), reversed(steps), strict=True):
        density = _density(histogram, low, high, across)
        lines.append([[f"{step:>{wide}}  ", "dim"], [draw_sparkline(density, across, low=0.0), "cyan"]])
    return lines


def _density(histogram: Histogram, low: float, high: float, cells: int) -> list[float | None]:
    """How many hits fall into each of equal cells, a bucket's spread evenly; None where there were none."""
    found = [0.0] * cells
    span = high - low
    for left, right, count in zip(histogram.edges, histogram.edges[1:], histogram.counts, strict=False):
        if count <= 0:
            continue
        if span <= 0 or right <= left:
            found[min(cells - 1, int((left - low) / span * cells) if span > 0 else 0)] += count
            continue
        begin, end = (left - low) / span * cells, (right - low) / span * cells
        for cell in range(max(0, int(begin)), min(cells, int(end) + 1)):
            found[cell] += count * max(0.0, min(end, cell + 1) - max(begin, cell)) / (end - begin)
    return [value or None for value in found]

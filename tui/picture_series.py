"""Pictures of several runs side by side, step by step: which series there are, and one step of one as lines of half-blocks.

Only the pictures of the step that is looked at are read and decoded. What is no picture, too large or damaged says so in its place.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from mltrack.store.client.artifacts import regular_files
from mltrack.store.errors import BadInput, NotFound
from mltrack.store.machines import files_over_there
from mltrack.store.run_files import open_below
from mltrack.tui.clean import cell_width, clean, clip, wrap
from mltrack.tui.cli.columns import logged_names
from mltrack.tui.draw.braille import curve_letter
from mltrack.tui.draw.numbers import format_step
from mltrack.tui.draw.png import MOST_SLOW_BYTES, Budget
from mltrack.tui.file_preview import Preview, preview
from mltrack.tui.raster import Canvas, Raster, is_picture
from mltrack.tui.worker_calls.files import files_root
from mltrack.tui.worker_calls.logged import FOLDER

if TYPE_CHECKING:
    from mltrack.store.far_files import FarFiles
    from mltrack.store.records import Run

MOST_SHOWN = 12
_NUMBER = re.compile(r"\d{1,18}(?=\D*\Z)")
_MOST_FILES = 20_000
_BYTES = 4 << 20
_LEAST_WIDTH, _LEAST_HEIGHT = 24, 6
_GAP = 2
# In no files of their own: in the event files of TensorBoard, of which all are read for one name.
_LOGGED = f"{FOLDER}/images/"
_LOOK_SECONDS = 2.0
# For the list of a run's files on another machine, and for a picture of it.
_FAR_SECONDS = 2.0

Line = list[list[str]]
_kept_pictures: dict[tuple[object, ...], dict[int, bytes]] = {}
"""Those looked at last: turning steps reads nothing."""
Steps = dict[int, str]
"""Step -> path of the picture."""


@dataclass(frozen=True)
class Shown:
    """One step of one series."""

    name: str
    names: list[str]
    """All series."""
    step: int
    steps: list[int]
    """All steps at which some run has a picture of it."""
    lines: list[Line]
    placed: list[tuple[int, int, Raster]]
    """Pictures that lie over these lines, from a line and a column on, where pixels were asked for."""


def series_of(paths: Iterable[str]) -> dict[str, Steps]:
    """Series by name: `log_image(key=...)` makes a folder of numbers; elsewhere the last number of a name is its step."""
    found: dict[str, Steps] = {}
    for path in paths:
        name = PurePosixPath(path)
        if not is_picture(path):
            continue
        number = _NUMBER.search(name.stem)
        if number is None:
            found.setdefault(path, {})[0] = path
            continue
        if number[0] == name.stem and len(name.parts) > 1:
            key = str(name.parent)
        else:
            stem = name.stem[: number.start()] + "*" + name.stem[number.end() :]
            key = str(name.with_name(stem + name.suffix))
        found.setdefault(key, {})[int(number[0])] = path
    return found


def pictures_of(runs: Sequence[Run]) -> dict[str, list[Steps]]:
    """Series that any of the runs has, with their steps in each; those that most runs have first."""
    every = [series_of(_paths(run)) | _logged_series(run) for run in runs]
    names = {name for found in every for name in found}
    many = {name: sum(name in found for found in every) for name in names}
    return {
        name: [found.get(name, {}) for found in every]
        for name in sorted(names, key=lambda name: (-many[name], name))
    }


def _logged_series(run: Run) -> dict[str, Steps]:
    """Pictures in event files, with the first and the last of their steps: the others are known when they are looked at."""
    found: dict[str, Steps] = {}
    for name, (_, first, last, *_) in logged_names(run).items():
        kind, _, tag = name.partition(" ")
        if kind == "images":
            path = f"{_LOGGED}{tag}"
            found[path] = {first: path, last: path}
    return found


def _logged_pictures(run: Run, path: str, seconds: float) -> dict[int, bytes]:
    """The pictures of a name in event files, by step; of many an even share."""
    from mltrack.store.sources.tensorboard_media import event_files, read_media

    files = event_files(run.artifacts) if run.artifacts is not None else []
    mark = (run.run_id, path, tuple((str(file), file.stat().st_size) for file in files if file.exists()))
    if mark not in _kept_pictures:
        while len(_kept_pictures) >= MOST_SHOWN:
            del _kept_pictures[next(iter(_kept_pictures))]
        _kept_pictures[mark] = dict(read_media(files, "images", path.removeprefix(_LOGGED), seconds).pictures)
    return _kept_pictures[mark]


def _paths(run: Run) -> Iterable[str]:
    if (machine := files_over_there(run)) is not None:
        told = machine.listing(run.run_id, _FAR_SECONDS)
        return [path for path, kind, _, _ in told.answer[0] if kind == "file"] if told.answer else []
    root = files_root(run)
    if root is None or not root.is_dir():
        return []
    return [name for (_, name), _ in zip(regular_files(root), range(_MOST_FILES), strict=False)]


def step_of(
    runs: Sequence[Run],
    pictures: Mapping[str, Sequence[Steps]],
    name: str,
    step: int | None,
    width: int,
    height: int,
    canvas: Canvas | None = None,
) -> Shown:
    """A step of a series (the first that there is; the last step) of all runs. Raises BadInput with what there is."""
    if not pictures:
        if problem := next(filter(None, map(_unheard, runs)), ""):
            raise BadInput(problem)
        raise BadInput(
            f"No pictures were logged in {'this run' if len(runs) == 1 else 'these runs'}; mltrack.log_image does it."
        )
    names = list(pictures)
    if name and name not in pictures:
        fitting = [each for each in names if name in each]
        if len(fitting) != 1:
            raise BadInput(f"There are no pictures '{name}'; there are {', '.join(names[:8])}.")
        name = fitting[0]
    name = name or names[0]
    if name.startswith(_LOGGED):
        shown = runs[:MOST_SHOWN]
        read = [
            dict.fromkeys(_logged_pictures(run, name, _LOOK_SECONDS / len(shown)), name) if found else {}
            for run, found in zip(shown, pictures[name], strict=False)
        ]
        pictures = {**pictures, name: [*read, *pictures[name][len(read) :]]}
        if not any(read):
            raise BadInput(f"The pictures of {name} cannot be read any more.")
    steps = sorted({each for found in pictures[name] for each in found})
    # Between two steps it is still the one before, as the runs would have shown it then.
    step = steps[-1] if step is None else max((each for each in steps if each <= step), default=steps[0])
    across = max(1, min(len(runs), MOST_SHOWN, (width + _GAP) // (_LEAST_WIDTH + _GAP)))
    count = min(len(runs), MOST_SHOWN)
    down = -(-count // across)
    wide = (width + _GAP) // across - _GAP
    high = max(_LEAST_HEIGHT, height // down - 2)
    lines: list[Line] = []
    placed: list[tuple[int, int, Raster]] = []
    budget = Budget(2 * MOST_SLOW_BYTES)
    if canvas is not None:
        canvas = replace(canvas, most=canvas.most // count)
    for first in range(0, count, across):
        cells = [
            _cell(place, runs[place], pictures[name][place], step, _Room(wide, high, budget, canvas))
            for place in range(first, min(count, first + across))
        ]
        for place, (_, picture) in enumerate(cells):
            if picture is not None:
                placed.append((len(lines) + 1, place * (wide + _GAP), picture))
        lines += _beside([block for block, _ in cells], wide)
        lines.append([])
    if len(runs) > count:
        lines.append([[f"The first {count} of {len(runs):,} runs.", "dim"]])
    return Shown(name, names, step, steps, lines, placed)


@dataclass(frozen=True)
class _Room:
    """What there is for one picture."""

    width: int
    height: int
    budget: Budget
    canvas: Canvas | None


def _cell(place: int, run: Run, steps: Steps, step: int, room: _Room) -> tuple[list[Line], Raster | None]:
    """A title and what is below it; a picture of pixels lies over the lines from the second on."""
    at = max((each for each in steps if each <= step), default=None)
    told = "" if at is None or at == step else f" @{format_step(at)}"
    title = clip(f"{curve_letter(place)} {clean(run.name)}{told}", room.width)
    lines: list[Line] = [[[title, f"curve:{place}"]]]
    root, machine = files_root(run), files_over_there(run)
    if at is None or (root is None and machine is None):
        told = "none yet" if steps else _unheard(run) or "no such pictures"
        return [*lines, *([[part, "dim"]] for part in wrap(told, room.width))], None
    if steps[at].startswith(_LOGGED):
        head = _logged_pictures(run, steps[at], _LOOK_SECONDS).get(at, b"")
        shown = preview("picture.png", head, len(head), room.width, room.height, room.budget, room.canvas)
        return _drawn(lines, shown, room.width)
    try:
        if machine is not None:
            head, size = _far_picture(machine, run, steps[at])
        else:
            assert root is not None  # one of the two is there
            with open_below(root, steps[at]) as file:
                size = os.fstat(file.fileno()).st_size
                head = file.read(_BYTES)
    except (NotFound, BadInput, OSError) as error:
        return [*lines, *([[part, "yellow"]] for part in wrap(str(error), room.width))], None
    shown = preview(steps[at], head, size, room.width, room.height, room.budget, room.canvas)
    return _drawn(lines, shown, room.width)


def _unheard(run: Run) -> str:
    """Why it is not known which pictures there are, where they are on another machine; "" where it is."""
    machine = files_over_there(run)
    told = machine.listing(run.run_id, 0.0) if machine is not None else None
    if machine is None or told is None or told.answer is not None:
        return ""
    return f"{told.problem or f'{machine.host} has not answered yet'}."


def _far_picture(machine: FarFiles, run: Run, path: str) -> tuple[bytes, int]:
    """Raises NotFound."""
    told = machine.head(run.run_id, path, _FAR_SECONDS)
    if told.answer is None:
        raise NotFound(f"{told.problem or f'{machine.host} has not answered yet'}.")
    data, size = told.answer
    return data, size


def _drawn(lines: list[Line], shown: Preview, width: int) -> tuple[list[Line], Raster | None]:
    if shown.kind != "picture":
        return [*lines, [["this is no picture", "yellow"]]], None
    if shown.picture is not None:
        return [*lines, *shown.lines[-shown.picture.rows :]], shown.picture
    pixels = [line for line in shown.lines if line and line[0][0] == "▀"]
    if pixels:
        return [*lines, *pixels], None
    words = " ".join(text for line in shown.lines for text, _ in line)
    return [*lines, *([[part, "dim"]] for part in wrap(words, width))], None


def _beside(cells: Sequence[list[Line]], width: int) -> list[Line]:
    """Blocks of lines beside each other."""
    lines: list[Line] = []
    for row in range(max(map(len, cells))):
        line: Line = []
        for place, cell in enumerate(cells):
            pieces = cell[row] if row < len(cell) else []
            line += pieces
            if place < len(cells) - 1:
                used = sum(cell_width(text) for text, _ in pieces)
                line.append([" " * (width - used + _GAP), ""])
        lines.append(line)
    return lines

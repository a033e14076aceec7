"""What a run printed, as pages of lines: its log may be larger than memory."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from mltrack.store.machines import files_over_there
from mltrack.store.records import Run
from mltrack.store.store import Store
from mltrack.tui.cli.logs import is_captured, log_place, start_of_last_lines
from mltrack.tui.kept_files import ASKED_SECONDS
from mltrack.tui.sgr import Spans, plain, spans_of_line
from mltrack.tui.worker_calls.log_index import LogIndex

_BLOCK_BYTES = 4 << 20
_MOST_LINES = 5000
_NEAR_BYTES = 1 << 18
PROBLEM = re.compile(
    rb"Traceback \(most recent call last\)|\b(?:ERROR|CRITICAL|FATAL|PANIC)\b|^\S*(?:Error|Exception)\b",
    re.MULTILINE,
)
TRACEBACK = re.compile(rb"Traceback \(most recent call last\)")
_WORRY = re.compile(r"\b(?:WARN|WARNING)\b")
_PROBLEM_TEXT = re.compile(
    r"Traceback \(most recent call last\)|\b(?:ERROR|CRITICAL|FATAL|PANIC)\b|^\S*(?:Error|Exception)\b"
)
# The step a line is about: a word that says so, or the number that the line begins with.
_STEP = re.compile(
    rb"(?:\b(?:global_?)?(?:step|iter|iteration|it)s?[ =:#\]]+|^[\[ ]*)(\d[\d,_]*)(?=[\s/|:,\])]|$)",
    re.IGNORECASE,
)

_indexes: dict[Path, LogIndex] = {}


def log_page(store: Store, run_id: str, first: int, count: int) -> dict[str, Any]:
    """``count`` lines of the log from line ``first`` on; a negative ``first`` counts from the end.

    "lines" are [[text, style], ...] each, "first" the number of the first of them, "total" of all, "left_out" the bytes at
    the start that cannot be paged to. ``why`` says why there are none. "again" while another machine has not sent its end.
    """
    answer: dict[str, Any] = {"lines": [], "first": 0, "total": 0, "left_out": 0, "why": "", "place": ""}
    opened = _open(store, run_id, answer)
    if opened is None:
        return answer
    with opened as file:
        index = _index(file, Path(answer["place"]), int(answer.pop("begin")))
        if first < 0:
            first = max(0, index.total + first)
        lines = index.read(file, first, min(count, _MOST_LINES))
    return {
        **answer,
        "lines": [styled(line) for line in lines],
        "first": first,
        "total": index.total,
        "left_out": index.left_out + answer["left_out"],
        "why": "" if index.total else "Nothing printed yet.",
    }


def log_find(store: Store, run_id: str, text: str, line: int, forward: bool) -> dict[str, Any]:
    """The next line after ``line`` (or before it) that holds ``text``, going round at the end; None when none does.

    Capitals count only when ``text`` has some. An empty text means the next problem, "Traceback" the next traceback.
    """
    answer: dict[str, Any] = {"lines": [], "why": "", "place": ""}
    opened = _open(store, run_id, answer)
    if opened is None:
        return {"line": None, "round": False, "why": answer["why"]}
    with opened as file:
        index = _index(file, Path(answer["place"]), int(answer["begin"]))
        size = file.seek(0, os.SEEK_END)
        here = index.place_of(file, line)
        after = index.place_of(file, line + 1)
        if forward:
            parts = ((after, size, False), (index.begin, after, True))
        else:
            parts = ((index.begin, here, False), (here, size, True))
        for begin, end, round_it in parts:
            found = _search(file, text, begin, end, forward)
            if found is not None:
                return {"line": index.line_of(file, found), "round": round_it, "why": ""}
    return {"line": None, "round": False, "why": ""}


def log_line(store: Store, run_id: str, steps: Sequence[float] | None = None) -> dict[str, Any]:
    """The line of the log that belongs to these steps (from, to); without steps the last one.

    "line" are [[text, style], ...], "number" its place, "here" whether it belongs to these steps.
    """
    answer: dict[str, Any] = {"lines": [], "why": "", "place": ""}
    opened = _open(store, run_id, answer)
    if opened is None:
        return {**answer, "line": [[answer["why"], "dim"]], "here": False, "number": None}
    with opened as file:
        index = _index(file, Path(answer["place"]), int(answer["begin"]))
        if not index.total:
            return {"line": [["Nothing printed yet.", "dim"]], "here": False, "number": None}
        number = None if steps is None else _line_at(file, index, float(steps[0]), float(steps[1]))
        here = number is not None
        shown = index.total - 1 if number is None else number
        lines = index.read(file, shown, 1)
    return {"line": styled(lines[0]) if lines else [["", ""]], "here": here, "number": shown}


def log_tail(store: Store, run_id: str, lines: int) -> dict[str, Any]:
    """The last lines of what a run printed, as texts; ``why`` says why there are none."""
    answer: dict[str, Any] = {"lines": [], "why": "", "place": ""}
    opened = _open(store, run_id, answer)
    if opened is None:
        return answer
    with opened as file:
        begin = int(answer.pop("begin"))
        start = max(start_of_last_lines(file, begin, lines), file.seek(0, os.SEEK_END) - (1 << 20))
        file.seek(start)
        found = [plain(spans_of_line(line)) for line in file.read().split(b"\n")]
    if found and not found[-1]:
        found.pop()
    return {**answer, "lines": found[-lines:], "why": "Nothing printed yet."}


CALLS = (log_page, log_find, log_line, log_tail)


def styled(line: bytes) -> list[list[str]]:
    """A line with its own colours; without any, problems are red and warnings yellow."""
    spans: Spans = spans_of_line(line)
    if any(style for _, style in spans):
        return [[text, style] for text, style in spans]
    text = plain(spans)
    style = "red" if _PROBLEM_TEXT.search(text) else "yellow" if _WORRY.search(text) else ""
    return [[text, style]]


def _open(store: Store, run_id: str, answer: dict[str, Any]) -> BinaryIO | None:
    """The log of a run; else None, and "why" in ``answer``. A pipe or device in its place is never opened."""
    runs = store.runs([run_id])
    if not runs:
        answer["why"] = "The run is not in the store any more."
        return None
    machine = files_over_there(runs[0])
    if machine is not None and is_captured(runs[0]):
        told = machine.log(runs[0], ASKED_SECONDS)
        if told.answer is None:
            answer["why"] = (
                "The other machine is being asked for it ..." if told.waiting else f"{told.problem}."
            )
            answer.update({"again": True} if told.waiting else {})
            return None
        copy, answer["left_out"] = told.answer
        return _opened(copy, 0, answer)
    path, begin = log_place(runs[0])
    if path is None:
        answer["why"] = not_captured(runs[0])
        return None
    return _opened(path, begin, answer)


def _opened(path: Path, begin: int, answer: dict[str, Any]) -> BinaryIO | None:
    answer["place"], answer["begin"] = str(path), begin
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        answer["why"] = f"{path}: {error.strerror}."
        return None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        answer["why"] = f"{path} is not a file."
        return None
    return os.fdopen(descriptor, "rb")


def not_captured(run: Run) -> str:
    """Why there is no log, and how there will be one."""
    console = run.facts.get("console")
    if isinstance(console, dict) and console.get("tty"):
        return (
            f"Output not captured: it printed to the terminal {console['tty']}. "
            "MLTRACK_CONSOLE=1 captures that too, from the next run on."
        )
    return "Output not captured."


def _index(file: BinaryIO, path: Path, begin: int) -> LogIndex:
    index = _indexes.get(path)
    if index is None or not index.fits(path):
        if len(_indexes) > 8:
            _indexes.clear()
        index = _indexes[path] = LogIndex(path, begin)
    index.update(file)
    return index


def _search(file: BinaryIO, text: str, begin: int, end: int, forward: bool) -> int | None:
    """The byte of the first match between ``begin`` and ``end``, of the last when not forward."""
    whole = text.encode("utf-8", "surrogateescape")
    fold = whole.lower() == whole
    pattern = TRACEBACK if text == "Traceback" else PROBLEM if not text else None
    for start, block in _blocks(file, begin, end, forward, len(whole) + 64):
        if pattern is not None:
            hits = [hit.start() for hit in pattern.finditer(block)]
            place = (hits[0] if forward else hits[-1]) if hits else -1
        else:
            searched = block.lower() if fold else block
            place = searched.find(whole) if forward else searched.rfind(whole)
        if place >= 0 and start + place < end:
            return start + place
    return None


def _blocks(file: BinaryIO, begin: int, end: int, forward: bool, more: int) -> Iterator[tuple[int, bytes]]:
    """Blocks that overlap by what a match may span, in the order of the search."""
    starts = range(begin, max(begin, end), _BLOCK_BYTES)
    for start in starts if forward else reversed(starts):
        file.seek(start)
        yield start, file.read(min(_BLOCK_BYTES + more, end - start))


def _line_at(file: BinaryIO, index: LogIndex, low: float, high: float) -> int | None:
    """The line whose step lies in low..high, one that warns before others; else the last one before them.

    The steps of a log ascend, so their place is found by halving.
    """
    begin, end = 0, index.total
    while end - begin > 64:
        middle = (begin + end) // 2
        step = next(
            (found for line in index.read(file, middle, 32) if (found := _step(line)) is not None), None
        )
        if step is None:
            # Nothing here says its step: look at what is before, where at least the start does.
            end = middle
        elif step < low:
            begin = middle
        else:
            end = middle
    best: tuple[int, int] | None = None
    before: int | None = None
    for number, line in enumerate(index.read(file, begin, 400), begin):
        step = _step(line)
        if step is None:
            continue
        if step > high:
            break
        if step < low:
            before = number
            continue
        rank = 2 if PROBLEM.search(line) else 1 if b"WARN" in line else 0
        if best is None or rank > best[0]:
            best = (rank, number)
    return best[1] if best is not None else before


def _step(line: bytes) -> int | None:
    """The step a line is about; of a bar that was painted over the last one."""
    state = line.rstrip(b"\r\n")[-4096:].rsplit(b"\r", 1)[-1]
    hit = _STEP.search(state[:400])
    return None if hit is None else int(re.sub(rb"[,_]", b"", hit[1])[:18])

"""Pages of a log: any line at once, also of a log that grows, is painted over, is cut, or is 64 MB long."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltrack.store import open_store
from mltrack.store.client import log
from mltrack.store.store import Store
from mltrack.tui.worker_calls.log_index import LogIndex
from mltrack.tui.worker_calls.logs import log_find, log_line, log_page

PARTS = st.lists(
    st.lists(st.binary(max_size=20).map(lambda line: line.replace(b"\n", b"")), max_size=700), max_size=4
)


@given(PARTS, st.integers(0, 1500), st.booleans())
def test_an_index_that_grows_reads_what_lies_there(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[bytes]], first: int, finished: bool
) -> None:
    path = tmp_path_factory.mktemp("index") / "log"
    path.write_bytes(b"")
    index = LogIndex(path, 0)
    written: list[bytes] = []
    for lines in parts:
        with path.open("ab") as file:
            file.write(b"".join(line + b"\n" for line in lines))
        written += lines
        with path.open("rb") as file:
            index.update(file)
            assert index.total == len(written)
    if not finished:
        with path.open("ab") as file:
            file.write(b"half")
        written.append(b"half")
    with path.open("rb") as file:
        index.update(file)
        assert index.total == len(written)
        assert [line.rstrip(b"\n") for line in index.read(file, first, 40)] == written[first : first + 40]
        for number in {0, first, len(written) - 1} & set(range(len(written))):
            assert index.line_of(file, index.place_of(file, number)) == number


@pytest.fixture
def store(store_root: Path) -> Store:
    return open_store()


def run_with_log(store: Store, root: Path, text: bytes) -> str:
    """A finished run that printed this."""
    with log.start_run(name="printed") as run:
        folder = run.folder
        run.log_metric("loss", 1.0, step=0)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "console.log").write_bytes(text)
    store.refresh(None)
    return run.run_id


def texts(lines: list[list[list[str]]]) -> list[str]:
    return ["".join(text for text, _ in line) for line in lines]


def test_64_megabytes_page_and_search(store: Store, store_root: Path) -> None:
    line = b"%9d INFO step done, the loss is what it is and the rate is what it was\n"
    text = bytearray(b"".join(line % number for number in range(900_000)))
    place = text.index(b"   700000 INFO")
    text[place : place + 20] = b"   700000 WARN scale"
    run_id = run_with_log(store, store_root, bytes(text))
    page = log_page(store, run_id, -5, 5)
    assert (page["total"], page["first"]) == (900_000, 899_995)
    assert texts(page["lines"])[-1].startswith("   899999 INFO")
    assert texts(log_page(store, run_id, 450_000, 1)["lines"])[0].startswith("   450000")
    assert log_find(store, run_id, "WARN", 0, True) == {"line": 700_000, "round": False, "why": ""}
    assert log_find(store, run_id, "warn", 800_000, True) == {"line": 700_000, "round": True, "why": ""}
    assert log_find(store, run_id, "899999 info", 10, False)["round"]
    assert log_find(store, run_id, "not there", 10, True)["line"] is None
    here = log_line(store, run_id, [699_950, 700_050])
    assert here["here"] and here["number"] == 700_000
    assert here["line"][0][1] == "yellow"


def test_problems_and_tracebacks(store: Store, store_root: Path) -> None:
    text = "1 INFO a\n2 ERROR b\n3 INFO c\nTraceback (most recent call last):\n  File 'x'\nValueError: no\nlast\n"
    run_id = run_with_log(store, store_root, text.encode())
    found = []
    line = 0
    for _ in range(3):
        line = log_find(store, run_id, "", line, True)["line"]
        found.append(line)
    assert found == [1, 3, 5]
    assert log_find(store, run_id, "Traceback", 7, False)["line"] == 3
    styles = [line[0][1] for line in log_page(store, run_id, 0, 10)["lines"]]
    assert styles == ["", "red", "", "red", "", "red", ""]


def test_a_log_that_is_no_file_is_never_opened(store: Store, store_root: Path) -> None:
    run_id = run_with_log(store, store_root, b"")
    path = next(store_root.rglob("console.log"))
    path.unlink()
    os.mkfifo(path)
    assert log_page(store, run_id, 0, 5)["lines"] == []


def test_the_log_lines_of_steps_are_found_by_halving(store: Store, store_root: Path) -> None:
    seeded = random.Random(1)
    lines, step = [], 0
    for _ in range(5000):
        step += seeded.randint(1, 40)
        lines.append(f"[{step}/200000] loss {seeded.random():.3f}" if seeded.random() < 0.7 else "  chatter")
    run_id = run_with_log(store, store_root, "\n".join(lines).encode())
    answer = log_line(store, run_id, [50_000, 50_200])
    number = int("".join(text for text, _ in answer["line"]).split("/")[0].strip("["))
    assert answer["here"] and 50_000 <= number <= 50_200

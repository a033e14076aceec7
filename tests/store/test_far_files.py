"""Files that another machine hands over when they are asked for: none but the run's, and nothing it says is believed."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from mltrack.store.far_files import FarFiles, NotThere
from mltrack.store.mirror_files import PIECE_BYTES, list_files, read_file

RUN = "0123456789abcdef" * 2
DIGEST = "ab" * 32


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "store"
    run = root / "runs" / "01" / RUN
    (run / "artifacts" / "folder").mkdir(parents=True)
    (run / "artifacts" / "folder" / "a.txt").write_text("hello")
    (run / "artifacts" / "link").symlink_to("/etc/passwd")
    (run / "artifacts" / "way").symlink_to("/etc")
    os.mkfifo(run / "artifacts" / "pipe")
    (run / "meta.txt").write_text("not an artifact")
    (root / "blobs" / "ab").mkdir(parents=True)
    (root / "blobs" / "ab" / DIGEST).write_bytes(b"a patch")
    (tmp_path / "console").write_text("before\nmine\nmore\n")
    return root


def asked(**words: Any) -> dict[str, Any]:
    return {"of": "artifact", "run": RUN, "name": "folder/a.txt", "at": 0, "size": 100, "begin": 0, **words}


def test_what_is_handed_over(root: Path, tmp_path: Path) -> None:
    listed = {path: (kind, size) for path, kind, size, _ in list_files(root, RUN)["entries"]}
    assert listed["folder/a.txt"] == ("file", 5) and listed["link"] == ("link", 0)
    assert listed["pipe"] == ("other", 0) and not any(path.startswith("way/") for path in listed)
    assert list_files(root, "f" * 32) == {"entries": [], "more": 0}
    assert read_file(root, asked()) == ({"at": 0, "bytes": 5, "size": 5, "begin": 0}, b"hello")
    assert read_file(root, asked(at=-2))[1] == b"lo" and read_file(root, asked(at=9))[1] == b""
    assert read_file(root, asked(of="kept", name=DIGEST))[1] == b"a patch"
    console = asked(of="log", name=str(tmp_path / "console"), begin=7)
    assert read_file(root, console) == ({"at": 7, "bytes": 10, "size": 17, "begin": 7}, b"mine\nmore\n")
    assert read_file(root, {**console, "at": -5})[1] == b"more\n"
    assert read_file(root, {**console, "at": -100})[1] == b"mine\nmore\n"
    # A run's own log goes before what its start named.
    (root / "runs" / "01" / RUN / "console.log").write_text("its own\n")
    assert read_file(root, console) == ({"at": 0, "bytes": 8, "size": 8, "begin": 0}, b"its own\n")
    with (root / "runs" / "01" / RUN / "artifacts" / "big").open("wb") as file:
        file.truncate(2 * PIECE_BYTES)
    assert read_file(root, asked(name="big", size=1 << 60))[0]["bytes"] == PIECE_BYTES


@pytest.mark.parametrize(
    "words",
    [
        {"name": "../meta.txt"},
        {"name": "/etc/passwd"},
        {"name": "link"},
        {"name": "way/passwd"},
        {"name": "pipe"},
        {"name": "folder"},
        {"name": "folder/a.txt\0"},
        {"name": "nothing"},
        {"run": "../../x"},
        {"run": "0" * 31 + "/"},
        {"of": "kept", "name": "../runs"},
        {"of": "kept", "name": "cd" * 32},
        {"of": "log", "name": "console"},
        {"of": "log", "name": "/dev/zero"},
        {"of": "log", "name": ""},
        {"of": "journal"},
    ],
    ids=str,
)
def test_nothing_else_is(root: Path, words: dict[str, str]) -> None:
    told, data = read_file(root, asked(**words))
    assert told["problem"] and data == b"" and "size" not in told


HELLO = '{"journals": 1, "files": 1, "root": "/x"}'
ANSWERS = {
    '{"at": 0, "bytes": 1000000000000, "size": 3}': "a piece without end",
    '{"at": 0, "bytes": -5, "size": 3}': "a piece without end",
    '{"at": 0, "bytes": 10, "size": 10}': "ssh ended with 0",
    '{"bytes": "x"}': "does not answer as mltrack does",
    "[1]": "does not answer as mltrack does",
    "{nothing": "does not answer as mltrack does",
    '{"problem": "it is mine"}': "box: it is mine",
    "": "does not answer as mltrack does",
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_that_cannot_be_is_a_sentence(
    answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands in for ``ssh`` is a script that says just that."""
    ssh = tmp_path / "ssh"
    ssh.write_text(f"#!/bin/sh\necho '{HELLO}'\nread question\necho '{answer}'\n")
    ssh.chmod(ssh.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    far = FarFiles("ssh://box/x")
    with pytest.raises(NotThere) as refused:
        io.BytesIO().writelines(far.pieces("artifact", RUN, "a.txt"))
    assert ANSWERS[answer] in str(refused.value)
    told = far.head(RUN, "a.txt", 20.0)
    assert ANSWERS[answer] in told.problem and told.answer is None

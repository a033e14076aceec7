"""Files of a run: shown by their bytes, never loaded, and nothing opened that is not a regular file of the run."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import struct
import sys
import zipfile
from pathlib import Path
from unicodedata import category

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mltrack.store import open_store
from mltrack.store.client import log
from mltrack.store.errors import BadInput, NotFound
from mltrack.store.store import Store
from mltrack.tui.file_preview import preview
from mltrack.tui.pickles import contains_pickle
from mltrack.tui.widgets.look import strip_of, style_of
from mltrack.tui.worker_calls.code import code
from mltrack.tui.worker_calls.files import file_preview, files
from mltrack.tui.worker_calls.overview import overview


def shown(lines: list[list[list[str]]]) -> str:
    return "\n".join("".join(text for text, _ in line) for line in lines)


def seen(name: str, content: bytes) -> str:
    return shown(preview(name, content, len(content), 80, 24).lines)


def zip_of(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), content)
    return buffer.getvalue()


def array_bytes(array: np.ndarray, **options: bool) -> bytes:  # type: ignore[type-arg]
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


OBJECTS = np.array([{"a": 1}], dtype=object)
PICKLES = {
    "model.pkl": pickle.dumps({"a": 1}),
    "anything": pickle.dumps([1, 2, 3], protocol=2),
    "old.pickle": pickle.dumps({"a": [1]}, protocol=0),
    "weights.pt": zip_of(archive__data_dot_pkl=b"x", archive__version=b"3"),
    "objects.npy": array_bytes(OBJECTS, allow_pickle=True),
    "objects.npz": zip_of(a_dot_npy=array_bytes(OBJECTS, allow_pickle=True)),
    "scaler.joblib": gzip.compress(pickle.dumps({"mean": 0.0})),
}
HARMLESS = {
    "notes.txt": b"I1\n.",
    "data.csv": b"a,b\n1,2\n",
    "numbers.npy": array_bytes(np.arange(3)),
    "numbers.npz": zip_of(a_dot_npy=array_bytes(np.arange(3))),
    "readme.zip": zip_of(readme=b"hello"),
    "words.pkl": b"this is no pickle at all",
    "noise.bin": bytes(range(128, 256)),
    "text.gz": gzip.compress(b"hello"),
}


@pytest.mark.parametrize("name", PICKLES)
def test_pickles_are_named_whatever_they_are_called(name: str) -> None:
    content = PICKLES[name]
    assert contains_pickle(name, content[:4096], io.BytesIO(content))


@pytest.mark.parametrize("name", HARMLESS)
def test_other_files_are_not_accused(name: str) -> None:
    content = HARMLESS[name]
    assert not contains_pickle(name, content[:4096], io.BytesIO(content))


def picture(kind: str, width: int = 16, height: int = 8) -> bytes:
    """Its left half red, its right half blue."""
    image = Image.new("RGB", (width, height), "#0000ff")
    image.paste("#ff0000", (0, 0, width // 2, height))
    content = io.BytesIO()
    image.save(content, kind)
    return content.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP"])
def test_pictures_are_shown_in_their_colours(kind: str) -> None:
    content = picture(kind)
    told, _, first, *_ = preview("x", content, len(content), 80, 24).lines
    assert "16 x 8 pixels" in told[0][0]
    for (_, style), wanted in ((first[0], (255, 0, 0)), (first[-1], (0, 0, 255))):
        got = bytes.fromhex(style.partition("fg:#")[2][:6])
        assert max(abs(one - other) for one, other in zip(got, wanted, strict=True)) < 12


def test_pictures_that_cannot_be_shown_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    many = picture("GIF", 9000, 8000)
    assert len(many) < 1 << 20 and "too large" in seen("x", many)
    assert "too large" in shown(preview("x", picture("JPEG"), 1 << 30, 80, 24).lines)
    assert "cannot be read" in seen("x", picture("JPEG")[:200])
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    assert "pip install" in seen("x", picture("JPEG"))
    assert "▀" in seen("x", picture("PNG")), "these need no package"


@given(
    st.sampled_from(["x.pkl", "x.csv", "x.json", "x.png", "x.safetensors", "x.md", "x"]),
    st.binary(max_size=300),
)
def test_any_bytes_have_a_harmless_preview(name: str, content: bytes) -> None:
    for prefix in (
        b"",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe0",
        b"PK\x03\x04",
        b"BM",
        b"\x80\x04",
        b'{"a": ',
    ):
        whole = prefix + content
        contains_pickle(name, whole, io.BytesIO(whole))
        for line in preview(name, whole, len(whole), 40, 10).lines:
            for _, style in line:
                style_of(style)
            shown = "".join(segment.text for segment in strip_of([(a, b) for a, b in line], 40))
            # Letters of private use (icons of fonts) stay; Python calls them not printable.
            assert all(letter.isprintable() or category(letter) == "Co" for letter in shown)


def test_tables_and_trees() -> None:
    assert seen("a.csv", b"id,name,score\n1,cat,.5\n10,dog,0.25\n").splitlines() == [
        "id  name  score  ",
        " 1  cat      .5  ",
        "10  dog    0.25  ",
    ]
    assert seen("a.csv", b"x;y\n1;2\n").startswith("x  y")
    table = json.dumps({"columns": ["a", "b"], "data": [[1, "x"], [None, 2.5]]}).encode()
    assert "a  b" in seen("t.json", table)
    assert '"lr": 0.1' in seen("c.json", b'{"lr":0.1}')
    matrix = json.dumps({"classes": ["cat", "dog"], "matrix": [[9, 1], [2, 8]]}).encode()
    assert "predicted" in seen("m.json", matrix)
    head = json.dumps({"layer.w": {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]}}).encode()
    tensors = struct.pack("<Q", len(head)) + head + bytes(48)
    assert "3x4" in seen("m.safetensors", tensors) and "12 values" in seen("m.safetensors", tensors)
    assert "256 x 128" in seen(
        "i.png", b"\x89PNG\r\n\x1a\n" + bytes(8) + struct.pack(">II", 256, 128) + bytes(9)
    )
    assert "empty" in seen("nothing", b"")
    assert seen("data", b"\x00\x01abc").startswith("000000  00 01 61 62 63")


def test_code_is_coloured() -> None:
    styles = {
        style
        for line in preview("t.py", b"def f():\n    return 1  # one\n", 30, 80, 24).lines
        for _, style in line
    }
    assert {"magenta", "blue", "cyan", "dim"} <= styles


@pytest.fixture
def store(store_root: Path) -> Store:
    return open_store()


@pytest.fixture
def run_id(store: Store, tmp_path: Path) -> str:
    (tmp_path / "notes.md").write_text("# Notes\n")
    with log.start_run(name="filed", tags={"team": "a\x1b]0;x\x07b"}) as run:
        run.log_params({"lr": 0.1})
        run.log_params({"lr": 0.2})
        run.log_metric("loss", 1.0, step=0)
        log.log_artifact(tmp_path / "notes.md", "docs")
        folder = run.folder
    store.refresh(None)
    os.symlink("/etc/passwd", folder / "artifacts" / "link")
    os.symlink("/etc", folder / "artifacts" / "linked")
    os.mkfifo(folder / "artifacts" / "pipe")
    (folder / "artifacts" / ".half.part").write_text("")
    return run.run_id


def test_links_and_pipes_are_shown_and_not_opened(store: Store, run_id: str) -> None:
    entries = {path: (kind, detail) for path, kind, _, detail in files(store, run_id)["entries"]}
    assert entries == {
        "docs": ("folder", ""),
        "docs/notes.md": ("file", ""),
        "link": ("link", "/etc/passwd"),
        "linked": ("link", "/etc"),
        "pipe": ("other", "pipe"),
    }
    for path in ("link", "pipe", "docs", "../meta", "/etc/passwd", "docs/../link", "", "."):
        with pytest.raises((BadInput, NotFound)):
            file_preview(store, run_id, path, 80, 24)
    with pytest.raises(NotFound):
        file_preview(store, run_id, "linked/passwd", 80, 24)


def test_a_changed_file_says_so(store: Store, run_id: str) -> None:
    answer = file_preview(store, run_id, "docs/notes.md", 80, 24)
    assert "✓ as logged" in shown(answer["facts"]) and "# Notes" in shown(answer["lines"])
    folder = store.runs([run_id])[0].folder
    assert folder is not None
    (folder / "artifacts" / "docs" / "notes.md").write_text("# Other\n")
    assert "changed since it was logged" in shown(
        file_preview(store, run_id, "docs/notes.md", 80, 24)["facts"]
    )
    (folder / "artifacts" / "docs" / "notes.md").unlink()
    assert files(store, run_id)["gone"] == ["docs/notes.md"]


def test_the_overview_has_everything_and_hides_no_conflict(store: Store, run_id: str) -> None:
    page = shown(overview(store, run_id, 100)["lines"])
    for part in (
        "exit code",
        "lr",
        "was also logged as 0.2",
        "loss",
        "1 logged",
        "command",
        run_id,
        "team=",
    ):
        assert part in page, part
    assert "ENVIRONMENT" in shown(code(store, run_id, 100)["lines"])


def test_damage_and_starts_are_told(demo_store: str) -> None:
    with open_store(demo_store) as store:
        ids = store.search("").run_ids
        damaged = next(run for run in store.runs(ids) if run.damage)
        assert "damaged" in shown(overview(store, damaged.run_id, 80)["lines"])
        resumed = store.resolve("long-jay-02")
        assert "no end was recorded" in shown(overview(store, resumed, 80)["lines"])
        failed = shown(overview(store, store.resolve("bold-yak-07"), 80)["lines"])
        assert "OutOfMemoryError" in failed and failed.count("Traceback") == 1
        patch = shown(code(store, store.resolve("bold-yak-07"), 80)["lines"])
        assert "+        RandomCrop(config.crop" in patch
        assert "not captured" in shown(code(store, resumed, 80)["lines"])

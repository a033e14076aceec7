"""House rules that no linter knows."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests import databases

from mltrack.tui import keys

ROOT = Path(__file__).parents[2]
FOLDERS = ("tui", "store", "projects", "src", "tests", "docs", ".ci")
FILES = ("README.md", "CHANGELOG.md", "pyproject.toml")
TEXT = {".py", ".md", ".toml", ".sh", ".sql", ".tcss", ".mako", ".ini", ""}

LINES_PER_FILE = 500
LINES_PER_TEST_FILE = 1000  # a table of cases may be long; the code it tests may not
# A bare except also catches KeyboardInterrupt. An import that begins with a dot means something else behind the links.
FORBIDDEN_IN_CODE = re.compile(r"^\s*except\s*:|^\s*from\s+\.", re.MULTILINE)
# Folders of somebody's machine: the clone this runs in, homes, and environments outside of the clone.
MACHINE_PATHS = re.compile(
    rf"{re.escape(str(ROOT))}/|(?<![\w.~])/(?:root|farm|opt/venv|opt/pypi|opt/wheels|work/(?:main|shared))\b"
)

SKIPS = """
import pytest

def test_skipped(): pytest.skip("no such service")

@pytest.mark.skipif(True, reason="wrong machine")
def test_marked(): ...

@pytest.mark.xfail
def test_known(): assert False
"""


def texts() -> Iterator[tuple[str, str]]:
    """(path in the repository, contents) of every text file."""
    paths = [ROOT / name for name in FILES]
    for folder in FOLDERS:
        paths += sorted((ROOT / folder).rglob("*"))
    for path in paths:
        data = ROOT / "tests" / "data" in path.parents
        if path.is_file() and path.suffix in TEXT and "__pycache__" not in path.parts and not data:
            yield str(path.relative_to(ROOT)), path.read_text("utf-8")


def test_no_file_is_too_long_to_read() -> None:
    long = {
        name: text.count("\n")
        for name, text in texts()
        if name.endswith(".py")
        and text.count("\n") > (LINES_PER_TEST_FILE if name.startswith("tests/") else LINES_PER_FILE)
    }
    assert not long, "split by what they own"


def test_code_has_no_bare_except_and_no_relative_import() -> None:
    assert [name for name, text in texts() if name.endswith(".py") and FORBIDDEN_IN_CODE.search(text)] == []


def test_no_machine_is_named() -> None:
    here = str(Path(__file__).relative_to(ROOT))
    assert [
        (name, hit.group()) for name, text in texts() if name != here and (hit := MACHINE_PATHS.search(text))
    ] == []


def test_every_script_runs() -> None:
    scripts = [ROOT / ".ci" / "run", ROOT / ".ci" / "long", *(ROOT / "tests" / "services").glob("*.sh")]
    assert [path.name for path in scripts if not os.access(path, os.X_OK)] == []
    for path in scripts:
        subprocess.run(["bash", "-n", path], check=True)


def test_a_skip_is_a_failure_under_ci_only(tmp_path: Path) -> None:
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    (tmp_path / "test_skips.py").write_text(SKIPS)
    (tmp_path / "test_file.py").write_text("import pytest\npytest.importorskip('no_such_module')\n")

    def closing_line(ci: str) -> str:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
        # Its options are not this session's: a common folder would be emptied under the tests that run.
        environment = {**os.environ, "CI": ci, "PYTEST_ADDOPTS": ""}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        return done.stdout.splitlines()[-1]

    assert closing_line("").startswith("3 skipped, 1 xfailed")
    # A file that cannot be imported stops the session.
    assert closing_line("true").startswith("1 error")
    # A mark skips before its test begins, which pytest counts as an error.
    (tmp_path / "test_file.py").unlink()
    assert closing_line("true").startswith("1 failed, 1 xfailed, 1 error")


def test_the_documented_table_of_keys_is_the_table() -> None:
    assert keys.key_table().strip() in (ROOT / "docs" / "keys.md").read_text("utf-8"), (
        "python -m mltrack.tui.keys > docs/keys.md makes it anew"
    )


# A test of the store, the server or the app takes its store from a fixture, which gives one in each engine, or is listed with a reason.
OPENS_A_STORE = re.compile(r'open_store\(|"--store"|set_store\(|MLTRACK_STORE')
STORE_OF_A_FIXTURE = re.compile(
    r"\b(store_root|store_address|small_store|demo_store|own_demo|follow|shared_store|new_server|server: Server)\b"
)


def test_stores_of_tests_are_tried_in_both_engines_or_a_reason_is_given() -> None:
    listed = {*databases.SQLITE_ONLY, *databases.SOON}
    for name in listed:
        file, _, test = name.partition("::")
        assert (ROOT / file).exists(), name
        assert not test or f"def {test}(" in (ROOT / file).read_text(), name
    forgotten = [
        name
        for name, text in texts()
        if re.match(r"tests/(store|tui|mlflow_api)/test_", name) and name not in listed
        if OPENS_A_STORE.search(text) and not STORE_OF_A_FIXTURE.search(text)
    ]
    assert not forgotten, "take the store from a fixture, or say in tests/databases.py why it is a folder"

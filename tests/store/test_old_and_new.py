"""Old client with new reader and the reverse: the code of the first day, taken from the repository's history, beside today's.

What the client of one writes and the client of the other goes on with, the readers of both show alike. The golden files
(test_journal_format.py) say the same of what was written; this says it of what was read.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FIRST = "412d291fcb2935925c0a636d84f2e77a7655fb53"
WRITE = """
import sys, mltrack
mltrack.set_experiment("across")
with mltrack.start_run(run_id=sys.argv[1], run_name="both", tags={"began": sys.argv[2]}, description="words") as run:
    mltrack.log_params({"lr": 0.1, "opt": "adam"})
    for step in range(int(sys.argv[3]), int(sys.argv[3]) + 100):
        mltrack.log_metrics({"loss": step / 7, "odd": float("nan") if step % 2 else float("-inf")}, step=step)
    mltrack.log_text(sys.argv[2], "notes/a.txt")
    mltrack.log_input(__import__("sys").executable)
    mltrack.progress(step + 1, 200)
    mltrack.set_tags({"x": "1", "y": sys.argv[2]})
    mltrack.delete_tag("x")
"""

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The import roots of both."""
    folder = tmp_path_factory.mktemp("first")
    archive = ["git", "-C", str(ROOT), "archive", FIRST, "src", "store", "projects", "tui"]
    if shutil.which("git") is None or subprocess.run([*archive[:3], "cat-file", "-e", FIRST]).returncode:
        pytest.skip("needs git and the repository's whole history (git fetch --unshallow)")
    packed = subprocess.run(archive, stdout=subprocess.PIPE, check=True).stdout
    subprocess.run(["tar", "x", "-C", str(folder)], input=packed, check=True)
    return {"old": folder / "src", "new": ROOT / "src"}


def python(source: Path, root: Path, *arguments: str) -> str:
    environment = {
        **os.environ,
        "PYTHONPATH": str(source),
        "MLTRACK_STORE": str(root),
        "MLTRACK_SYSTEM_METRICS": "0",
    }
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, cwd=root.parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("first", "then"), [("old", "new"), ("new", "old"), ("old", "old"), ("new", "new")])
def test_each_reads_and_continues_what_the_other_wrote(
    versions: dict[str, Path], tmp_path: Path, first: str, then: str
) -> None:
    root, run_id = tmp_path / "store", "ab" * 16
    python(versions[first], root, "-c", WRITE, run_id, first, "0")
    python(versions[then], root, "-c", WRITE, run_id, then, "50")
    seen: dict[str, list[Any]] = {}
    for reader, source in versions.items():
        # Databases are each version's own; journals are what they share.
        copy = tmp_path / f"for-{reader}"
        shutil.copytree(root, copy, ignore=shutil.ignore_patterns("mltrack.db*"))
        command = ("-m", "mltrack.tui.cli")
        (run,) = json.loads(python(source, copy, *command, "ls", "--json"))
        seen[reader] = [run] + [
            json.loads(python(source, copy, *command, "metrics", run_id, key, "--json"))
            for key in ("loss", "odd")
        ]
        assert run["tags"] == {"began": then, "y": then} and run["status"] == "FINISHED"
        assert run["params"] == {"lr": "0.1", "opt": "adam"}
        steps = [point[0] for point in seen[reader][1]["points"]]
        assert steps == list(range(150)), "what the second attempt wrote again stands for the first's"
        assert [point[2] for point in seen[reader][1]["points"]] == [step / 7 for step in range(150)]
        assert {point[2] for point in seen[reader][2]["points"]} == {"NaN", "-Infinity"}
    assert seen["old"] == seen["new"]

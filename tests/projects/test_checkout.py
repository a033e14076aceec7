"""The code of a run comes back byte for byte, from real repositories, or not at all and with the reason."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mltrack.projects.checkout import CheckedOut, checkout
from mltrack.projects.errors import ProjectError
from mltrack.store.client.git import snapshot
from mltrack.store.records import Run
from mltrack.tui.reproduction import differences, report_lines

pytestmark = pytest.mark.skipif(
    shutil.which("git") is None, reason="git is not installed: apt-get install git"
)
Tree = dict[bytes, tuple[str, bytes]]
Answer = subprocess.CompletedProcess[str]

TRAIN = """
import sys, random
sys.path.insert(0, {package!r})
import mltrack
from model import SCALE
seed = int(sys.argv[1])
random.seed(seed)
with mltrack.start_run(run_name="first", experiment="again", system_metrics=False):
    mltrack.log_params({{"seed": seed}})
    for step in range(20):
        mltrack.log_metric("loss", SCALE * random.random(), step=step)
"""


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, check=True, text=True)
    return done.stdout.strip()


def commit(folder: Path) -> None:
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "--allow-empty", "-m", "a commit")


def new_repository(folder: Path) -> Path:
    folder.mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    return folder


def tree(folder: Path) -> Tree:
    """Every file but git's own: kind, with the executable bit, and content."""
    found: Tree = {}
    top = os.fsencode(folder)
    for parent, folders, names in os.walk(top):
        linked = [name for name in folders if os.path.islink(os.path.join(parent, name))]
        folders[:] = [name for name in folders if name != b".git"]
        for name in [*names, *linked]:
            path = os.path.join(parent, name)
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                found[os.path.relpath(path, top)] = ("link", os.readlink(path))
            else:
                with open(path, "rb") as file:
                    found[os.path.relpath(path, top)] = ("program" if mode & 0o100 else "file", file.read())
    return found


class Kept:
    """A run that was started in a folder, and its patch."""

    def __init__(self, folder: Path) -> None:
        taken = snapshot(folder, "patch", 60.0)
        assert taken is not None
        self.blobs: dict[str, bytes] = {}
        digest = None
        if taken.patch:
            digest = hashlib.sha256(taken.patch).hexdigest()
            self.blobs[digest] = taken.patch
        facts = {
            "commit": taken.commit,
            "remote": taken.remote,
            "dirty": taken.dirty,
            "patch": digest,
            "complete": taken.complete,
            "left_out": list(taken.left_out),
            "root": taken.root,
        }
        self.run = Run("ab12" * 8, "sage-owl", "vision", "FINISHED", facts={"git": facts, "cwd": str(folder)})

    def out(self, target: Path, **options: object) -> CheckedOut:
        return checkout(self.run, target, self.blobs.get, **options)  # type: ignore[arg-type]


def test_the_recorded_tree_comes_back_whatever_happened_to_the_repository_since(tmp_path: Path) -> None:
    folder = new_repository(tmp_path / "work")
    (folder / "train.py").write_text("print(1)\n" * 30)
    (folder / "gone.txt").write_text("deleted before the run\n")
    (folder / "link").symlink_to("train.py")
    (folder / "crlf.txt").write_bytes(b"one\r\ntwo\r\n")
    (folder / "sub").mkdir()
    (folder / "sub" / "run.sh").write_text("#!/bin/sh\n")
    commit(folder)
    (folder / "train.py").write_text("print('ä')\r\nno newline at the end")
    (folder / "gone.txt").unlink()
    (folder / "link").unlink()
    (folder / "link").write_text("a file now\n")
    (folder / "sub" / "run.sh").chmod(0o755)
    (folder / "new.bin").write_bytes(bytes(range(256)) * 30)
    (folder / 'odd\nname\t"ü').write_text("untracked\n")
    recorded, before = Kept(folder / "sub"), tree(folder)
    git(folder, "checkout", "-q", "--force", ".")
    (folder / "train.py").write_text("something else\n")
    commit(folder)
    made = recorded.out(tmp_path / "out" / "as it was")
    assert tree(made.folder) == before
    assert made.workdir == made.folder / "sub" and made.missing == ()
    # What had not been committed is not committed there either.
    assert git(made.folder, "rev-parse", "HEAD") == made.commit
    assert " M train.py" in git(made.folder, "status", "--porcelain").splitlines()
    assert sorted(path.name for path in made.folder.parent.iterdir()) == ["as it was"]


NAMES = st.sampled_from(["a", "b.py", "dir/a", "dir/b", "dir", "ü ö", "-x", "é/ß.txt"])
CONTENTS = st.sampled_from([b"", b"x", b"x\n", b"x\r\n", b"\0\xff" * 9, b"lines\n" * 50, b"lines\nno end"])
CHANGES = st.lists(
    st.tuples(NAMES, st.sampled_from(["write", "link", "program", "remove"]), CONTENTS), max_size=7
)


def change(folder: Path, changes: list[tuple[str, str, bytes]]) -> None:
    for name, what, content in changes:
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif os.path.lexists(path):
            path.unlink()
        if what == "remove":
            continue
        for above in reversed(path.parents):
            if os.path.lexists(above) and not above.is_dir():
                above.unlink()
        path.parent.mkdir(parents=True, exist_ok=True)
        if what == "link":
            path.symlink_to("nowhere")
        else:
            path.write_bytes(content)
            path.chmod(0o755 if what == "program" else 0o644)


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=CHANGES, then=CHANGES)
def test_any_tree_comes_back_byte_for_byte(
    tmp_path_factory: pytest.TempPathFactory,
    first: list[tuple[str, str, bytes]],
    then: list[tuple[str, str, bytes]],
) -> None:
    base = tmp_path_factory.mktemp("any")
    folder = new_repository(base / "work")
    change(folder, first)
    commit(folder)
    change(folder, then)
    assert tree(Kept(folder).out(base / "out").folder) == tree(folder)


def test_lines_end_as_they_did_under_autocrlf(tmp_path: Path) -> None:
    folder = new_repository(tmp_path / "work")
    git(folder, "config", "core.autocrlf", "true")
    (folder / "a.txt").write_bytes(b"one\r\ntwo\r\n")
    commit(folder)
    (folder / "a.txt").write_bytes(b"one\r\n2\r\n")
    assert tree(Kept(folder).out(tmp_path / "out").folder) == tree(folder)


def test_a_repository_that_is_gone_is_had_from_its_remote(tmp_path: Path) -> None:
    bare = tmp_path / "origin.git"
    git(tmp_path, "init", "-q", "--bare", str(bare))
    folder = new_repository(tmp_path / "work")
    git(folder, "remote", "add", "origin", str(bare))
    (folder / "a.txt").write_text("a\n")
    commit(folder)
    git(folder, "push", "-q", "origin", "main")
    (folder / "new.txt").write_text("untracked\n")
    recorded, before = Kept(folder), tree(folder)
    folder.rename(tmp_path / "moved")
    made = recorded.out(tmp_path / "out")
    assert tree(made.folder) == before and made.taken_from == str(bare)
    bare.rename(tmp_path / "away.git")
    with pytest.raises(ProjectError, match=r"cannot be had .*--repo says where"):
        recorded.out(tmp_path / "other")
    assert not (tmp_path / "other").exists()
    assert tree(recorded.out(tmp_path / "other", repository=str(tmp_path / "moved")).folder) == before


def test_what_was_not_recorded_whole_is_refused_by_name(tmp_path: Path) -> None:
    folder = new_repository(tmp_path / "work")
    (folder / "a.txt").write_text("a\n")
    commit(folder)
    (folder / "large.bin").write_bytes(b"\0" * (2 << 20))
    (folder / "b.txt").write_text("b\n")
    recorded = Kept(folder)
    with pytest.raises(ProjectError, match=r"not recorded whole: large\.bin"):
        recorded.out(tmp_path / "out")
    made = recorded.out(tmp_path / "out", partial=True)
    assert made.missing == ("large.bin",) and set(tree(made.folder)) == {b"a.txt", b"b.txt"}


def test_files_behind_a_filter_and_a_lost_patch_are_refused(tmp_path: Path) -> None:
    folder = new_repository(tmp_path / "work")
    (folder / "a.bin").write_text("pointer\n")
    (folder / ".gitattributes").write_text("*.bin filter=lfs\n")
    commit(folder)
    with pytest.raises(ProjectError, match=r"git alone cannot bring back a\.bin \(filter lfs\)"):
        Kept(folder).out(tmp_path / "out")
    (folder / ".gitattributes").unlink()
    recorded = Kept(folder)
    digest = next(iter(recorded.blobs))
    recorded.blobs[digest] += b"x"
    with pytest.raises(ProjectError, match="damaged"):
        recorded.out(tmp_path / "out")
    recorded.blobs.clear()
    with pytest.raises(ProjectError, match="are lost"):
        recorded.out(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_of_the_repository_is_executed_and_nothing_is_overwritten(tmp_path: Path) -> None:
    folder = new_repository(tmp_path / "work")
    (folder / "a.txt").write_text("a\n")
    commit(folder)
    proof = tmp_path / "proof"
    hook = folder / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch '{proof}'\n")
    hook.chmod(0o755)
    git(folder, "config", "core.fsmonitor", f"touch '{proof}'; false")
    git(folder, "config", "filter.evil.smudge", f"touch '{proof}'; cat")
    recorded = Kept(folder)
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine").touch()
    with pytest.raises(ProjectError, match="is there already"):
        recorded.out(full)
    assert [path.name for path in full.iterdir()] == ["mine"]
    recorded.out(tmp_path / "out")
    assert not proof.exists()


@pytest.fixture
def command(store_root: Path) -> Iterator[Callable[..., Answer]]:
    package = Path(__file__).parents[2] / "src"

    def run(*arguments: str, expect: int = 0) -> Answer:
        done = subprocess.run(
            [sys.executable, "-m", "mltrack.tui.cli", *arguments],
            env={
                **os.environ,
                "PYTHONPATH": str(package),
                "LC_ALL": "C.UTF-8",
                "COLUMNS": "200",
                "MLTRACK_SYSTEM_METRICS": "0",
            },
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == expect, done.stderr
        return done

    yield run


def test_a_run_is_run_again_in_its_own_code_and_the_report_says_how_it_differs(
    command: Callable[..., Answer], tmp_path: Path
) -> None:
    folder = new_repository(tmp_path / "project")
    (folder / "train.py").write_text(TRAIN.format(package=str(Path(__file__).parents[2] / "src")))
    (folder / "model.py").write_text("SCALE = 1.0\n")
    commit(folder)
    (folder / "model.py").write_text("SCALE = 3.0\n")  # never committed
    subprocess.run([sys.executable, str(folder / "train.py"), "7"], cwd=folder, check=True, timeout=60)
    (folder / "model.py").write_text("SCALE = 5.0\n")
    report = command("rerun", "first", "--in", str(tmp_path / "again")).stdout
    assert "All 1 metrics are equal to the last bit (20 points)." in report
    assert str(tmp_path / "again" / "train.py") in report  # not the one that has changed since
    runs = {run["run_name"]: run for run in json.loads(command("ls", "--json").stdout)}
    assert runs["first-again"]["tags"]["mltrack.rerun_of"] == runs["first"]["run_id"]
    assert runs["first-again"]["params"] == {"seed": "7"}


def test_the_report_names_metrics_that_differ_and_where() -> None:
    one = {"loss": [(0, 1.0), (1, 0.5), (2, 0.25)], "acc": [(0, float("nan"))], "old": [(0, 1.0)]}
    other = {"loss": [(0, 1.0), (1, 0.75), (2, 0.5)], "acc": [(0, float("nan"))], "system/cpu": [(0, 3.0)]}
    found = differences(one, other)
    assert [(metric.key, metric.equal) for metric in found] == [
        ("loss", False),
        ("old", False),
        ("acc", True),
    ]
    assert (found[0].first_step, found[0].differing, found[0].largest) == (1, 2, 0.25)
    text = "\n".join(line for line, _ in report_lines(found, ("a", "b")))
    assert "1 of 3 metrics are equal to the last bit" in text
    assert "loss: 2 of 3 points differ, from step 1; last .25 then .5 (+100%)" in text
    assert "old: only a has it" in text

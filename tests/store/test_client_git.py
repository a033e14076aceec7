"""The code of a run, from real repositories: the patch rebuilds the tree, secrets stay out, nothing is executed."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import time
from pathlib import Path

import pytest

from mltrack.store.client import git as client_git
from mltrack.store.client.git import Snapshot, capture_setting, snapshot

pytestmark = pytest.mark.skipif(
    shutil.which("git") is None, reason="git is not installed: apt-get install git"
)

TOKEN = b"hf_" + b"abcDEF1234567890ghij"
Tree = dict[bytes, tuple[str, bytes]]


def run(folder: Path, *arguments: str | bytes, feed: bytes = b"") -> bytes:
    return subprocess.run(["git", *arguments], cwd=folder, input=feed, capture_output=True, check=True).stdout


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    run(home, "config", "--global", "user.email", "ann@example.org")
    run(home, "config", "--global", "user.name", "Ann")
    run(home, "config", "--global", "init.defaultBranch", "main")
    # The account that runs the tests may not own the folders of a container.
    run(home, "config", "--global", "safe.directory", "*")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    run(folder, "init", "-q")
    (folder / "train.py").write_text("print(1)\n" * 30)
    (folder / "model.bin").write_bytes(bytes(range(256)) * 40)
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "gone.txt").write_text("to be deleted\n")
    (folder / "link").symlink_to("train.py")
    (folder / "sub").mkdir()
    (folder / "sub" / "Ünïcode näme.txt").write_text("ä\n")
    (folder / ".gitignore").write_text("ignored*\n")
    commit(folder)
    return folder


def commit(folder: Path) -> None:
    run(folder, "add", "-A")
    run(folder, "commit", "-q", "-m", "a commit")


def take(folder: Path, capture: str = "patch", seconds: float = 60.0) -> Snapshot:
    said: list[str] = []
    taken = snapshot(folder, capture, seconds, said.append)
    assert taken is not None, said
    return taken


def tree(folder: Path) -> Tree:
    """Every file below ``folder`` but git's own and ignored ones: kind (with the executable bit) and content."""
    found: Tree = {}
    top = os.fsencode(folder)
    for parent, folders, names in os.walk(top):
        linked = [name for name in folders if os.path.islink(os.path.join(parent, name))]
        folders[:] = [name for name in folders if name != b".git"]
        for name in [*names, *linked]:
            path = os.path.join(parent, name)
            mode = os.lstat(path).st_mode
            if name.startswith(b"ignored") or name == b".git":
                continue
            if stat.S_ISLNK(mode):
                found[os.path.relpath(path, top)] = ("link", os.readlink(path))
            else:
                with open(path, "rb") as file:
                    found[os.path.relpath(path, top)] = ("program" if mode & 0o100 else "file", file.read())
    return found


def rebuilt(repository: Path, taken: Snapshot, target: Path) -> Tree:
    """The tree one gets from a clean checkout of the commit and the patch."""
    run(repository.parent, "clone", "-q", "--no-local", str(repository), str(target))
    if taken.commit:
        run(target, "checkout", "-q", "--detach", taken.commit)
    if taken.patch:
        run(target, "apply", "--whitespace=nowarn", "-", feed=taken.patch)
    return tree(target)


def test_a_clean_tree(repository: Path) -> None:
    taken = take(repository / "sub")
    assert taken.commit == run(repository, "rev-parse", "HEAD").decode().strip()
    assert taken.branch == "main" and taken.remote == "" and taken.root == str(repository.resolve())
    assert (taken.dirty, taken.patch, taken.complete, taken.left_out) == (False, None, True, ())


def test_the_patch_rebuilds_the_tree_byte_for_byte(repository: Path, tmp_path: Path) -> None:
    lines = "print(1)\n"
    (repository / "train.py").write_text(lines * 10 + "print('ä')\r\n" + lines * 20 + "no newline")
    (repository / "model.bin").write_bytes(bytes(range(255, -1, -1)) * 41)
    (repository / "run.sh").chmod(0o755)
    (repository / "gone.txt").unlink()
    (repository / "link").unlink()
    (repository / "link").write_text("a file now\n")
    (repository / "sub" / "Ünïcode näme.txt").write_text("ö\n")
    (repository / "new.bin").write_bytes(b"\0\1\2" * 1000)
    (repository / "empty").touch()
    (repository / "new link").symlink_to("nowhere")
    (repository / "deep" / "er").mkdir(parents=True)
    (repository / "deep" / "er" / "new ö b.py").write_text("x = 1")
    (repository / 'odd\nname\t"quoted\\ b').write_text("newline in the name\n")
    (repository / "program").write_text("#!/bin/sh\n")
    (repository / "program").chmod(0o755)
    (repository / "staged.txt").write_text("staged\n")
    run(repository, "add", "staged.txt")
    (repository / "staged.txt").write_text("staged, then edited\n")
    with open(os.fsencode(repository) + b"/latin-\xe4.txt", "wb") as file:
        file.write(b"not UTF-8 in the name\n")
    (repository / "ignored.log").write_text("not part of it\n")
    before = tree(repository)
    index = (repository / ".git" / "index").read_bytes()
    objects = sorted(path.name for path in (repository / ".git" / "objects").rglob("*"))
    taken = take(repository)
    assert taken.left_out == () and taken.complete and taken.dirty
    assert (repository / ".git" / "index").read_bytes() == index, "the index was written"
    assert sorted(path.name for path in (repository / ".git" / "objects").rglob("*")) == objects
    assert rebuilt(repository, taken, tmp_path / "clone") == before


def test_a_file_taken_out_of_the_index_and_a_file_that_became_a_folder(
    repository: Path, tmp_path: Path
) -> None:
    run(repository, "rm", "-q", "--cached", "train.py")
    (repository / "gone.txt").unlink()
    (repository / "gone.txt").mkdir()
    (repository / "gone.txt" / "inner").write_text("a folder now\n")
    taken = take(repository)
    assert taken.complete
    assert rebuilt(repository, taken, tmp_path / "clone") == tree(repository)


def test_an_edit_in_the_same_instant_as_the_index_is_seen(repository: Path) -> None:
    for _ in range(5):
        (repository / "same.txt").write_text("a")
        commit(repository)
        (repository / "same.txt").write_text("b")  # same size, same second
        assert take(repository).dirty
        (repository / "same.txt").write_text("c")
        commit(repository)


def test_a_touched_but_equal_file_is_no_change(repository: Path) -> None:
    os.utime(repository / "train.py", (1, 1))
    taken = take(repository)
    assert not taken.dirty and taken.patch is None and taken.complete


def test_before_the_first_commit(tmp_path: Path) -> None:
    folder = tmp_path / "fresh"
    folder.mkdir()
    run(folder, "init", "-q")
    (folder / "staged.py").write_text("x\n")
    run(folder, "add", "staged.py")
    (folder / "new.py").write_text("y\n")
    taken = take(folder)
    assert taken.commit is None and taken.branch == "main" and taken.dirty and taken.complete
    assert rebuilt(folder, taken, tmp_path / "clone") == tree(folder)


def test_secret_looking_files_are_left_out_whole_and_named(repository: Path, tmp_path: Path) -> None:
    (repository / "config.py").write_text("token = None\n")
    commit(repository)
    (repository / "config.py").write_bytes(b"token = '" + TOKEN + b"'\n")
    (repository / ".env").write_text("PASSWORD=hunter2\n")
    (repository / "deploy.pem").write_text("x")
    (repository / "aws credentials.csv").write_text("x")
    (repository / "notes.md").write_text("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n")
    (repository / "binary.dat").write_bytes(b"\0\0" + TOKEN + b"\0")
    (repository / "fine.py").write_text("ok\n")
    (repository / "train.py").write_text("edited\n")
    taken = take(repository)
    assert taken.patch is not None and taken.dirty and not taken.complete
    assert taken.left_out == (
        ".env",
        "aws credentials.csv",
        "binary.dat",
        "config.py",
        "deploy.pem",
        "notes.md",
    )
    for text in (b"hunter2", TOKEN, b"MIIE"):
        assert text not in taken.patch
    result = rebuilt(repository, taken, tmp_path / "clone")
    assert result[b"fine.py"] == ("file", b"ok\n") and result[b"train.py"] == ("file", b"edited\n")
    assert result[b"config.py"] == ("file", b"token = None\n")


def test_a_removed_token_is_not_stored_either(repository: Path) -> None:
    (repository / "leak.py").write_bytes(TOKEN)
    commit(repository)
    (repository / "leak.py").write_text("cleaned\n")
    taken = take(repository)
    assert taken.left_out == ("leak.py",) and taken.patch is None and not taken.complete


def test_large_files_are_left_out_and_named(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (repository / "a-data.bin").write_bytes(b"x" * (client_git.UNTRACKED_FILE_BYTES + 1))
    for number in range(12):
        (repository / f"part{number:02}").write_bytes(os.urandom(client_git.UNTRACKED_FILE_BYTES))
    (repository / "model.bin").write_bytes(os.urandom(20_000))
    monkeypatch.setattr(client_git, "TRACKED_FILE_BYTES", 10_000)
    taken = take(repository)
    assert taken.left_out == ("a-data.bin", "model.bin", "part10", "part11") and not taken.complete


def test_a_patch_without_bounds_is_given_up(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_git, "TRACKED_FILE_BYTES", 300)
    for number in range(8):
        (repository / f"f{number}").write_text(f"{number}\n" * 100)
    run(repository, "add", "-A")
    said: list[str] = []
    taken = snapshot(repository, "patch", 60, said.append)
    assert taken is not None and taken.commit and taken.patch is None and not taken.complete and taken.dirty
    assert "larger than" in said[0]


def test_commit_only_and_none(repository: Path) -> None:
    (repository / "train.py").write_text("edited\n")
    taken = take(repository, "commit")
    assert taken.commit and taken.dirty and taken.patch is None and not taken.complete
    run(repository, "checkout", "-q", "train.py")
    assert take(repository, "commit").complete
    assert snapshot(repository, "none") is None


def test_a_hostile_repository_runs_nothing(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = tmp_path / "ran"
    ran.mkdir()
    program = tmp_path / "payload"
    program.write_text(f'#!/bin/sh\necho "$0 $@" >> "{ran}/log"\ncat\n')
    program.chmod(0o755)
    module = repository / "module"
    module.mkdir()
    run(module, "init", "-q")
    (module / "x").write_text("x")
    commit(module)
    (repository / ".gitmodules").write_text('[submodule "module"]\n\tpath = module\n\turl = ext::payload\n')
    (repository / ".gitattributes").write_text(
        "*.py filter=evil diff=evil\n*.bin diff=evil\n*.txt diff=evil\n"
    )
    (repository / "extra.txt").write_text("one\n")
    commit(repository)
    programs = """core.fsmonitor core.pager core.editor core.sshCommand core.askPass core.gitProxy diff.external
        core.alternateRefsCommand diff.evil.command diff.evil.textconv filter.evil.clean filter.evil.smudge
        filter.evil.process interactive.diffFilter gpg.program credential.helper""".split()
    settings = {name: str(program) for name in programs}
    settings.update({f"alias.{name}": f"!{program}" for name in ("diff", "rev-parse", "config", "add")})
    for name in (
        "filter.evil.required",
        "submodule.recurse",
        "remote.origin.promisor",
        "diff.noprefix",
        "color.ui",
    ):
        settings[name] = "true"
    settings["core.hooksPath"] = str(tmp_path / "hooks")
    settings["remote.origin.url"] = f"ext::{program}"
    settings["diff.submodule"] = "diff"
    settings["diff.renames"] = "copies"
    settings["color.diff"] = "always"
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    for folder in (repository, module):
        for key, value in settings.items():
            run(folder, "config", key, value)
        for name in ("post-index-change", "post-checkout", "pre-commit", "reference-transaction"):
            shutil.copy(program, hooks / name)
            shutil.copy(program, folder / ".git" / "hooks" / name)
    for name in ("GIT_EXTERNAL_DIFF", "GIT_PAGER", "GIT_SSH_COMMAND", "GIT_ASKPASS", "PAGER", "GIT_EDITOR"):
        monkeypatch.setenv(name, str(program))
    monkeypatch.setenv("GIT_TRACE", str(ran / "trace"))
    # Other content of the same size, so that git must read it to know.
    (repository / "train.py").write_text("print(2)\n" * 30)
    (repository / "model.bin").write_bytes(bytes(range(255, -1, -1)) * 40)
    (repository / "extra.txt").write_text("two\n")
    (repository / "new.py").write_text("new\n")
    (repository / "new.txt").write_text("new\n")
    (module / "x").write_text("changed")
    taken = take(repository)
    assert list(ran.iterdir()) == []
    assert taken.patch is not None and b"two" in taken.patch and b"new.txt" in taken.patch
    # What a filter would have made of these is unknown, and the submodule's files were not looked at.
    assert taken.left_out == ("module", "new.py", "train.py") and not taken.complete
    # The trap works: git itself falls into it.
    subprocess.run(["git", "status"], cwd=repository, capture_output=True, check=False)
    assert list(ran.iterdir()) != []


def test_the_users_own_filters_do_not_run(repository: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (repository / ".gitattributes").write_text("*.dat filter=lfs\n")
    (repository / "x.dat").write_text("pointer\n")
    commit(repository)
    run(repository, "config", "--global", "filter.lfs.clean", f"sh -c 'touch {ran}; cat'")
    (repository / "x.dat").write_text("content\n")
    taken = take(repository)
    assert not ran.exists() and taken.left_out == ("x.dat",)


def test_line_endings_of_the_repository_are_kept(repository: Path) -> None:
    (repository / "dos.txt").write_bytes(b"a\r\nb\r\n")
    run(repository, "config", "core.autocrlf", "true")
    commit(repository)
    os.utime(repository / "dos.txt", (1, 1))
    assert not take(repository).dirty


def test_ignore_files_of_the_user_and_the_repository(repository: Path) -> None:
    (Path.home() / ".config" / "git").mkdir(parents=True)
    (Path.home() / ".config" / "git" / "ignore").write_text("*.swp\n")
    (repository / ".git" / "info" / "exclude").write_text("scratch\n")
    (repository / "a.swp").touch()
    (repository / "scratch").touch()
    (repository / ".mltrack").mkdir()
    (repository / ".mltrack" / "mltrack.db").write_text("our own store is not code")
    assert not take(repository).dirty
    (Path.home() / "mine").write_text("*.tmp\n")
    run(repository, "config", "core.excludesFile", "~/mine")
    (repository / "a.tmp").touch()
    (repository / "a.swp").unlink()
    assert not take(repository).dirty


def test_a_linked_worktree_with_a_split_index(repository: Path, tmp_path: Path) -> None:
    worktree = tmp_path / "worktree"
    run(repository, "worktree", "add", "-q", "-b", "topic", str(worktree))
    run(worktree, "update-index", "--split-index")
    (worktree / "train.py").write_text("edited\n")
    (worktree / "new").write_text("new\n")
    taken = take(worktree)
    assert taken.branch == "topic" and taken.complete
    assert rebuilt(repository, taken, tmp_path / "clone") == tree(worktree)


def test_a_sha256_repository(tmp_path: Path) -> None:
    folder = tmp_path / "sha256"
    folder.mkdir()
    run(folder, "init", "-q", "--object-format=sha256")
    (folder / "a").write_text("a")
    commit(folder)
    (folder / "a").write_text("b")
    (folder / "c").write_text("c")
    taken = take(folder)
    assert taken.commit and len(taken.commit) == 64 and taken.complete
    assert rebuilt(folder, taken, tmp_path / "clone") == tree(folder)


def test_a_merge_with_conflicts(repository: Path, tmp_path: Path) -> None:
    run(repository, "checkout", "-q", "-b", "topic")
    (repository / "train.py").write_text("theirs\n")
    commit(repository)
    run(repository, "checkout", "-q", "main")
    (repository / "train.py").write_text("ours\n")
    commit(repository)
    subprocess.run(["git", "merge", "topic"], cwd=repository, capture_output=True, check=False)
    assert b"<<<<<<<" in (repository / "train.py").read_bytes()
    taken = take(repository)
    assert rebuilt(repository, taken, tmp_path / "clone") == tree(repository)


def test_the_remote_loses_its_token(repository: Path) -> None:
    run(repository, "remote", "add", "upstream", "https://ann:hunter2@example.org/x.git")
    assert take(repository).remote == "https://example.org/x.git"
    run(repository, "remote", "add", "origin", "git@example.org:a/b.git")
    assert take(repository).remote == "git@example.org:a/b.git"
    run(repository, "config", "branch.main.remote", "upstream")
    assert take(repository).remote == "https://example.org/x.git"


def test_a_nested_repository_is_named(repository: Path) -> None:
    nested = repository / "nested"
    nested.mkdir()
    run(nested, "init", "-q")
    (nested / "x").write_text("x")
    commit(nested)
    taken = take(repository)
    assert taken.left_out == ("nested/",) and not taken.complete


def test_the_deadline_kills_git_and_its_children(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = tmp_path / "pids"
    slow = tmp_path / "bin" / "git"
    slow.parent.mkdir()
    hang = f"sleep 300 & echo $! $$ > {pids}; wait"
    slow.write_text(f'#!/bin/sh\ncase "$*" in *--raw*) {hang};; *) exec {shutil.which("git")} "$@";; esac\n')
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}:{os.environ['PATH']}")
    said: list[str] = []
    started = time.monotonic()
    taken = snapshot(repository, "patch", 2.0, said.append)
    assert time.monotonic() - started < 20
    assert taken is not None and taken.commit and not taken.complete and taken.patch is None
    assert "longer than 2 s" in said[0]
    deadline = time.monotonic() + 10
    for pid in pids.read_text().split():
        while _runs(int(pid)) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not _runs(int(pid))


def _runs(pid: int) -> bool:
    from mltrack.store.client import host

    return host.is_alive(
        pid, ""
    )  # nobody may be there to reap an orphan of a container: zombies count as gone


def test_reasons_are_sentences(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    lonely = tmp_path / "lonely"
    lonely.mkdir()
    assert snapshot(lonely, explain=said.append) is None
    assert snapshot(repository / ".git", explain=said.append) is None
    monkeypatch.setenv("PATH", str(lonely))
    assert snapshot(repository, explain=said.append) is None
    assert said == [
        "the code was not recorded: the folder is not in a git repository",
        "the code was not recorded: the git repository has no working tree here",
        "the code was not recorded: git is not installed",
    ]


def test_a_broken_index_still_gives_the_commit(repository: Path) -> None:
    (repository / ".git" / "index").write_bytes(b"garbage" * 10)
    said: list[str] = []
    taken = snapshot(repository, explain=said.append)
    assert taken is not None and taken.commit and not taken.complete and said


def test_capture_setting(tmp_path: Path) -> None:
    inner = tmp_path / "project" / "package"
    inner.mkdir(parents=True)
    said: list[str] = []
    assert capture_setting(inner, said.append) == "patch"
    settings = tmp_path / "project" / "pyproject.toml"
    settings.write_text('[tool.mltrack]\ncapture = "none"\n')
    assert capture_setting(inner, said.append) == "none"
    (inner / "pyproject.toml").write_text("[tool.other]\nx = 1\n")
    assert capture_setting(inner, said.append) == "none", "the nearest file with the table counts"
    (inner / "pyproject.toml").write_text("[tool.mltrack]\n")
    assert capture_setting(inner, said.append) == "patch"
    (inner / "pyproject.toml").unlink()
    (inner / ".git").mkdir()
    assert capture_setting(inner, said.append) == "patch", "another repository's file does not count"
    assert said == []
    settings.write_text('[tool.mltrack]\ncapture = "everything"\n')
    assert capture_setting(tmp_path / "project", said.append) == "commit"
    settings.write_text('[tool.mltrack\ncapture = "none"\n')
    assert capture_setting(tmp_path / "project", said.append) == "commit"
    assert len(said) == 2 and "everything" in said[0]

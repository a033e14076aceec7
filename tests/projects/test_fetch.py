"""Only addresses that are let through are fetched, and nothing of a repository runs while it is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mltrack.projects.errors import ProjectError
from mltrack.projects.fetch import Address, fetch, parse_address
from mltrack.projects.submodules import absolute_url


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, store_root: Path) -> Path:
    folder = tmp_path / "origin"
    (folder / "sub").mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    for version in ("one", "two"):
        (folder / "sub" / "MLproject").write_text(
            f"name: {version}\nentry_points:\n  main:\n    command: python train.py\n"
        )
        git(folder, "add", ".")
        git(folder, "commit", "-q", "-m", version)
        git(folder, "tag", version)
    return folder


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://h.org/a/b.git", ("https://h.org/a/b.git", "", "")),
        ("https://h.org/a/b.git#x/y@v1", ("https://h.org/a/b.git", "x/y", "v1")),
        ("https://u:t@h.org/a/b@feat/x", ("https://u:t@h.org/a/b", "", "feat/x")),
        ("https://u@h.org/a", ("https://u@h.org/a", "", "")),
        ("ssh://git@h.org:22/a.git@main", ("ssh://git@h.org:22/a.git", "", "main")),
        ("git@h.org:a/b.git#s@v1.2", ("git@h.org:a/b.git", "s", "v1.2")),
        ("git@h.org:a/b.git@v1", ("git@h.org:a/b.git", "", "v1")),
    ],
)
def test_git_addresses(text: str, expected: tuple[str, str, str]) -> None:
    assert parse_address(text) == Address(expected[0], True, expected[1], expected[2])


@pytest.mark.parametrize(
    "text",
    [
        "ext::sh -c touch% bang",
        "http://h.org/a",
        "git://h.org/a",
        "fd::17",
        "ssh://-oProxyCommand=touch/a",
        "https://h.org/a@--upload-pack=x",
        "https://h.org/a@a..b",
        "https://h.org/a@a;b",
        "-oProxyCommand@h:a",
        "file://other/a",
        "ftp://h/a",
        "nowhere",
        "",
        "a\nb",
    ],
)
def test_other_addresses_are_refused(text: str, store_root: Path) -> None:
    with pytest.raises(ProjectError):
        parse_address(text)


def test_a_secret_in_the_address_is_not_shown() -> None:
    assert "t0k3n" not in parse_address("https://u:t0k3n@h.org/a/b#c@d").shown


@pytest.mark.parametrize("revision", ["", "one", "main", "<commit>", "<short>"])
def test_a_repository_at_a_revision(repository: Path, revision: str) -> None:
    commit = git(repository, "rev-parse", "one" if revision not in ("", "main") else "main")
    revision = {"<commit>": commit, "<short>": commit[:10]}.get(revision, revision)
    fetched = fetch(parse_address(f"file://{repository}/.git#sub" + (f"@{revision}" if revision else "")))
    assert fetched.commit == commit
    name = "two" if revision in ("", "main") else "one"
    assert f"name: {name}\n" in (fetched.folder / "MLproject").read_text()
    assert fetched.folder.name == "sub"
    assert not (fetched.root / ".git").exists()


def test_an_unknown_revision_and_a_path_that_leads_out(repository: Path) -> None:
    with pytest.raises(ProjectError, match="no branch, tag or commit 'nope'"):
        fetch(parse_address(f"{repository}@nope"))
    (repository / "out").symlink_to("/etc")
    git(repository, "add", ".")
    git(repository, "commit", "-q", "-m", "link")
    for subdir in ("..", "out", "gone"):
        with pytest.raises(ProjectError):
            fetch(parse_address(f"file://{repository}/.git#{subdir}@main"))


def test_nothing_of_a_repository_runs(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bang = tmp_path / "bang"
    hook = repository / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    for path in (hook, hook.with_name("pre-upload"), hook.with_name("reference-transaction")):
        path.write_text(f"#!/bin/sh\ntouch {bang}\n")
        path.chmod(0o755)
    (repository / ".gitattributes").write_text("* filter=evil diff=evil\n")
    git(repository, "add", ".")
    git(repository, "commit", "-q", "-m", "attributes")
    bang.unlink(missing_ok=True)
    for setting in (
        "core.fsmonitor",
        "core.sshCommand",
        "filter.evil.smudge",
        "filter.evil.clean",
        "diff.evil.command",
    ):
        git(repository, "config", setting, f"touch {bang}")
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", f"touch {bang}")
    monkeypatch.setenv("GIT_DIR", str(repository / ".git"))
    fetch(parse_address(f"{repository}@main"))
    fetch(parse_address(str(repository)))
    assert not bang.exists()


@pytest.mark.parametrize(
    ("url", "parent", "expected"),
    [
        ("../lib.git", "https://h.org/a/app.git", "https://h.org/a/lib.git"),
        ("./lib", "https://h.org/a/app/", "https://h.org/a/app/lib"),
        ("../../b/lib", "git@h.org:a/app.git", "git@h.org:b/lib"),
        ("../lib", "/srv/git/app", "/srv/git/lib"),
        ("https://o.org/x", "/srv/git/app", "https://o.org/x"),
        ("../../../x", "https://h.org/a", None),
    ],
)
def test_addresses_of_submodules(url: str, parent: str, expected: str | None) -> None:
    if expected is None:
        with pytest.raises(ProjectError):
            absolute_url(url, parent)
        return
    assert absolute_url(url, parent) == expected


def test_submodules_are_fetched_at_their_commits(repository: Path, tmp_path: Path) -> None:
    inner, outer = tmp_path / "inner", tmp_path / "outer"
    allow = ("-c", "protocol.file.allow=always")
    for folder, below, url in ((inner, "deep", str(repository)), (outer, "lib", "../inner")):
        folder.mkdir()
        git(folder, "init", "-q", "-b", "main")
        git(folder, *allow, "submodule", "--quiet", "add", url if url[0] == "/" else str(inner), below)
        git(folder, "config", "-f", ".gitmodules", f"submodule.{below}.url", url)
        (folder / "main.py").write_text("import lib\n")
        git(folder, "add", ".")
        git(folder, "commit", "-q", "-m", "x")
    (repository / "later.txt").write_text("not yet\n")
    git(repository, "add", ".")
    git(repository, "commit", "-q", "-m", "later")
    fetched = fetch(parse_address(f"{outer}@main"))
    assert (fetched.folder / "lib" / "deep" / "sub" / "MLproject").read_text().startswith("name: two")
    assert not (fetched.folder / "lib" / "deep" / "later.txt").exists()
    git(outer, "config", "-f", ".gitmodules", "submodule.lib.url", "ext::sh -c true")
    git(outer, "commit", "-aqm", "evil")
    with pytest.raises(ProjectError, match="not fetched from"):
        fetch(parse_address(f"{outer}@main"))


def test_a_local_folder_is_taken_as_it_is_with_its_changes(repository: Path) -> None:
    (repository / "sub" / "new.py").write_text("print(1)\n")
    (repository / "sub" / ".env").write_text("TOKEN=abc\n")
    fetched = fetch(parse_address(f"{repository}#sub"))
    assert (fetched.folder, fetched.dirty) == (repository / "sub", True)
    assert fetched.patch is not None and b"print(1)" in fetched.patch and b"abc" not in fetched.patch
    assert fetched.left_out == ("sub/.env",)


def test_project_show_prints_the_stable_shape(repository: Path) -> None:
    command = [
        sys.executable,
        "-c",
        "from mltrack.tui.cli.main import main; main()",
        "project",
        "show",
        "--json",
    ]
    printed = subprocess.run(
        [*command, f"{repository}#sub@one"], capture_output=True, text=True, check=True
    ).stdout
    assert json.loads(printed) == {
        "name": "one",
        "entry_points": {"main": {"command": "python train.py", "parameters": {}}},
        "environment": {"type": "python", "path": None},
        "commit": git(repository, "rev-parse", "one"),
    }

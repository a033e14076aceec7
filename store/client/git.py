"""The one wrapper of the git binary: which code does this run use, and how does it differ from the commit?

A repository's own configuration can name programs (fsmonitor, filters, textconv, external diff, hooks), so looking at
an untrusted folder could run its code. Therefore the working tree is never compared under that configuration: a private
git folder is made in a temporary place, with our configuration, a copy of the index and the repository's objects as
alternates. Nothing in the repository is written, no network is used, and everything ends within one deadline.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mltrack.store.client.git_folder import discover, private_folder, shown
from mltrack.store.client.git_process import Git, GitProblem
from mltrack.store.client.secrets import holds_secret, looks_secret_file, redact_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from mltrack.store.client.git_folder import Repository

    Explain = Callable[[str], object]

CAPTURES = ("patch", "commit", "none")
UNTRACKED_FILE_BYTES = 1 << 20
UNTRACKED_TOTAL_BYTES = 10 << 20
UNTRACKED_FILES = 2000
# A tracked file above this is left out before git reads it; the whole patch is given up above four times this.
TRACKED_FILE_BYTES = 16 << 20
LEFT_OUT_NAMES = 200
# Pathspecs go through argv; the kernel allows 128 kB for a single one and 2 MB for all.
PATHSPEC_BYTES = 100_000

_DIFF = (
    "diff --no-renames --no-color --no-ext-diff --no-textconv --ignore-submodules=dirty --src-prefix=a/ --dst-prefix=b/"
).split()


class Snapshot(NamedTuple):
    """The code of a run. ``patch``, applied to a clean checkout of ``commit``, gives the working tree if ``complete``."""

    commit: str | None  # None before the first commit; the patch then applies to an empty folder
    branch: str  # "" when detached
    remote: str  # without userinfo; "" when there is none
    dirty: bool
    patch: bytes | None
    complete: bool
    left_out: tuple[
        str, ...
    ]  # paths that differ and are not in the patch: secret-looking, too large, filtered, submodules
    root: str


def capture_setting(folder: Path, explain: Explain | None = None) -> str:
    """``[tool.mltrack] capture`` of the nearest pyproject.toml that has the table, up to the repository's root.

    "patch" without one. A value or file that cannot be read gives "commit": whoever wrote it wanted less stored.
    """
    folder = Path(os.path.abspath(folder))
    for place in (folder, *folder.parents):
        try:
            text = (place / "pyproject.toml").read_bytes()
        except OSError:
            text = b""
        if b"mltrack" in text:
            import tomllib

            try:
                table = tomllib.loads(text.decode("utf-8")).get("tool", {}).get("mltrack")
                value = table.get("capture", "patch") if table is not None else None
            except (ValueError, AttributeError) as error:
                _say(
                    explain,
                    f"{place / 'pyproject.toml'} cannot be read ({error}): only the commit is recorded",
                )
                return "commit"
            if value in CAPTURES:
                return str(value)
            if table is not None:
                _say(
                    explain,
                    f"[tool.mltrack] capture is one of {', '.join(CAPTURES)}, not {value!r}: taken as commit",
                )
                return "commit"
        if (place / ".git").exists():
            break
    return "patch"


def snapshot(
    folder: Path, capture: str = "patch", deadline_seconds: float = 5.0, explain: Explain | None = None
) -> Snapshot | None:
    """The state of the repository around ``folder``; None with a sentence through ``explain`` when there is none to give.

    When time runs out or git fails on the way, what is known by then is returned with ``complete=False``. Raises OSError
    only when the temporary folder cannot be written.
    """
    if capture == "none":
        return None
    program = shutil.which("git")
    if program is None:
        _say(explain, "the code was not recorded: git is not installed")
        return None
    git = Git(program, deadline_seconds)
    try:
        repository = discover(git, os.fsencode(os.path.abspath(folder)))
    except GitProblem as problem:
        _say(explain, f"the code was not recorded: {problem}")
        return None
    with tempfile.TemporaryDirectory(prefix="mltrack-git-", ignore_cleanup_errors=True) as scratch:
        changes = _Changes()
        try:
            _compare(git, repository, Path(scratch), capture, changes)
        except GitProblem as problem:
            changes.dirty = True
            changes.failed = True
            _say(explain, f"the code was recorded without all its changes: {problem}")
    patch = b"".join(changes.sections)
    return Snapshot(
        commit=repository.commit,
        branch=repository.branch,
        remote=repository.remote,
        dirty=changes.dirty,
        patch=patch or None,
        complete=not changes.failed and not changes.left_out and (capture == "patch" or not changes.dirty),
        left_out=_names(changes.left_out),
        root=shown(repository.root),
    )


class _Changes:
    def __init__(self) -> None:
        self.sections: list[bytes] = []
        self.left_out: list[bytes] = []
        self.dirty = False
        self.failed = False


def _compare(git: Git, repository: Repository, scratch: Path, capture: str, changes: _Changes) -> None:
    private = private_folder(repository, scratch)
    git.environment.update(
        GIT_DIR=str(private),
        GIT_WORK_TREE=os.fsdecode(repository.root),
        HOME=str(scratch),
        XDG_CONFIG_HOME=str(scratch),
    )
    git.environment["GIT_CONFIG_GLOBAL"] = os.devnull
    root = repository.root
    listing = git.run(root, *_DIFF, "--raw", "-z", "--no-abbrev", repository.base, "--").split(b"\0")
    changed = dict(zip(listing[1::2], listing[::2], strict=False))
    changes.dirty = bool(changed)
    others = ["ls-files", "--others", "--exclude-standard", "--exclude=.mltrack/", "-z"]
    if capture == "patch":
        _tracked(git, repository, changed, changes)
        changes.left_out += _submodules(git, root)
    untracked = [path for path in git.run(root, *others).split(b"\0") if path]
    changes.dirty = changes.dirty or bool(untracked)
    if capture == "patch" and untracked:
        _untracked(git, root, scratch, untracked, changes)


def _tracked(git: Git, repository: Repository, changed: dict[bytes, bytes], changes: _Changes) -> None:
    if not changed:
        return
    root = repository.root
    left_out = [
        path for path in changed if looks_secret_file(shown(path)) or _size(root, path) > TRACKED_FILE_BYTES
    ]
    left_out += [path for path in _filtered(git, root, changed) if path not in left_out]
    changes.left_out += left_out
    if len(left_out) == len(changed):
        return
    excluded = [b":(top,exclude,literal)" + path for path in left_out]
    if sum(map(len, excluded)) > PATHSPEC_BYTES:
        raise GitProblem(f"{len(left_out)} changed files had to be left out, which is too many")
    patch = git.run(
        root,
        *_DIFF,
        "--binary",
        "--full-index",
        repository.base,
        "--",
        ":/",
        *excluded,
        limit=4 * TRACKED_FILE_BYTES,
    )
    _keep_sections(root, patch, changes)


def _untracked(git: Git, root: bytes, scratch: Path, paths: list[bytes], changes: _Changes) -> None:
    """Small new files as patch sections: an index of its own that knows only their names makes them "new" to git diff."""
    chosen: list[bytes] = []
    total = 0
    filtered = _filtered(git, root, paths)
    for path in sorted(paths):
        size = _size(root, path)
        fits = (
            size <= UNTRACKED_FILE_BYTES
            and total + size <= UNTRACKED_TOTAL_BYTES
            and len(chosen) < UNTRACKED_FILES
        )
        if fits and not path.endswith(b"/") and path not in filtered and not looks_secret_file(shown(path)):
            chosen.append(path)
            total += size
        else:
            changes.left_out.append(path)
    if not chosen:
        return
    git.environment.update(GIT_INDEX_FILE=str(scratch / "untracked"), GIT_LITERAL_PATHSPECS="1")
    while chosen:
        batch: list[bytes] = []
        while chosen and sum(map(len, batch)) < PATHSPEC_BYTES:
            batch.append(chosen.pop())
        git.run(root, "add", "--intent-to-add", "--", *batch)
    del git.environment["GIT_LITERAL_PATHSPECS"]
    patch = git.run(root, *_DIFF, "--binary", "--full-index", limit=4 * UNTRACKED_TOTAL_BYTES)
    _keep_sections(root, patch, changes, needed=b"\nnew file mode ")


def _keep_sections(root: bytes, patch: bytes, changes: _Changes, needed: bytes = b"") -> None:
    """Take the patch file by file; a file whose section or (when binary) content holds a secret is left out whole."""
    from mltrack.store.client.git_patch import sections

    taken: list[tuple[bytes, bytes]] = []
    secret: set[bytes] = set()
    for path, section in sections(patch):
        taken.append((path, section))
        binary = b"\nGIT binary patch\n" in section
        if needed not in section or holds_secret(_content(root, path) if binary else section):
            secret.add(path)
    changes.sections += [section for path, section in taken if path not in secret]
    changes.left_out += sorted(secret)


def _filtered(git: Git, root: bytes, paths: dict[bytes, bytes] | list[bytes]) -> set[bytes]:
    """Paths whose stored form is made by a program we do not run (git-lfs, nbstripout): their difference is unknown."""
    fields = git.run(
        root, "check-attr", "-z", "--stdin", "filter", feed=b"".join(path + b"\0" for path in paths)
    )
    rows = fields.split(b"\0")
    return {
        path
        for path, value in zip(rows[::3], rows[2::3], strict=False)
        if value not in (b"unspecified", b"unset")
    }


def _submodules(git: Git, root: bytes) -> list[bytes]:
    """Checked-out submodules: their commit is compared, their files are not looked at (their configuration could run)."""
    if not os.path.lexists(os.path.join(root, b".gitmodules")):
        return []
    rows = (row.partition(b"\t") for row in git.run(root, "ls-files", "--stage", "-z").split(b"\0"))
    links = [path for mode, _, path in rows if mode.startswith(b"160000 ")]
    return [path for path in links if os.path.lexists(os.path.join(root, path, b".git"))]


def _size(root: bytes, path: bytes) -> int:
    try:
        facts = os.lstat(os.path.join(root, path))
    except OSError:
        return 0  # deleted
    return facts.st_size if stat.S_ISREG(facts.st_mode) or stat.S_ISLNK(facts.st_mode) else 0


def _content(root: bytes, path: bytes) -> bytes:
    """The file's bytes, without following a link or waiting for a pipe; b"" when there are none."""
    try:
        fd = os.open(os.path.join(root, path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)  # where a file was, there may be a folder now
        return b""
    with open(fd, "rb") as file:
        return file.read(TRACKED_FILE_BYTES)


def _names(paths: list[bytes]) -> tuple[str, ...]:
    names = [shown(path) for path in sorted(set(paths))]
    if len(names) > LEFT_OUT_NAMES:
        names[LEFT_OUT_NAMES:] = [f"... and {len(names) - LEFT_OUT_NAMES} more"]
    return tuple(names)


def _say(explain: Explain | None, sentence: str) -> None:
    if explain is not None:
        explain(redact_text(sentence))

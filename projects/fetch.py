"""Getting the files of a project: a local folder as it is, or a git repository at one commit, cached and shallow.

GitPython calls the git binary; what makes that safe for repositories of strangers is here: which addresses and
revisions are let through, the environment every call gets, and that nothing of a repository is ever checked out with
its own configuration, hooks or filters at work.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mltrack.projects.errors import ProjectError
from mltrack.projects.spec import inside
from mltrack.projects.submodules import COUNT, DEPTH, absolute_url, declared_urls, is_local, linked_commits
from mltrack.store.client.secrets import redact_text, redact_url
from mltrack.store.filesystem import cache_folder

if TYPE_CHECKING:
    from git.cmd import Git

REVISION = re.compile(r"[A-Za-z0-9._/][A-Za-z0-9._/-]{0,199}")
_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?:[^/@\s]*@)?(?P<host>[^/\s:]*)(?::\d+)?(?P<path>/\S*)?"
)
_SCP = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9._-]*@)(?P<host>[A-Za-z0-9][A-Za-z0-9.-]*):(?P<path>[^\s:-]\S*)")
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
FETCH_SECONDS = 900.0

_OVERRIDES = (
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "core.attributesFile=/dev/null",
    "core.symlinks=true",
    "protocol.ext.allow=never",
    "submodule.recurse=false",
    "gc.auto=0",
    "maintenance.auto=false",
)
_ENVIRONMENT = {
    "GIT_ALLOW_PROTOCOL": "https:ssh:file",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_LFS_SKIP_SMUDGE": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    # What a caller's hook or shell may have set would redirect us.
    "GIT_CONFIG_COUNT": "0",
    "GIT_CONFIG_PARAMETERS": "",
    "GIT_EXTERNAL_DIFF": "",
    "GIT_TEMPLATE_DIR": "",
    "GIT_ASKPASS": "",
}


@dataclass(frozen=True, slots=True)
class Address:
    """Where a project lies, as a person wrote it: ``DIR`` or ``GIT_URL``, then ``#SUBDIR`` and ``@REV``."""

    base: str
    is_git: bool
    subdir: str = ""
    revision: str = ""

    @property
    def shown(self) -> str:
        """The address without secrets."""
        base = redact_url(self.base) if self.is_git else self.base
        return (
            base + (f"#{self.subdir}" if self.subdir else "") + (f"@{self.revision}" if self.revision else "")
        )


@dataclass(frozen=True, slots=True)
class Fetched:
    """The files of a project. ``folder`` holds it; ``root`` is the checkout or the folder itself."""

    address: Address
    folder: Path
    root: Path
    commit: str | None = None
    branch: str = ""
    remote: str = ""
    dirty: bool = False
    patch: bytes | None = None
    complete: bool = True
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def parse_address(text: str) -> Address:
    """Understand an address. Raises ProjectError for schemes and revisions that are not let through."""
    if "\0" in text or "\n" in text or not text.strip():
        raise ProjectError("The project's address is empty or holds a line break.")
    if Path(os.path.expanduser(text)).is_dir():
        return Address(os.path.abspath(os.path.expanduser(text)), False)
    base, hash_mark, rest = text.partition("#")
    subdir, revision = "", ""
    if hash_mark:
        subdir, _, revision = rest.partition("@")
    url, scp = _URL.fullmatch(base), _SCP.fullmatch(base)
    if url or scp:
        if not revision:
            at = base.rfind("@")
            start = url.start("path") if url and url["path"] else scp.start("path") if scp else len(base)
            if at > start >= 0:
                base, revision = base[:at], base[at + 1 :]
        return _git_address(base, subdir, revision)
    if "::" in base or "://" in base:
        raise _refused(base)
    if not revision and "@" in base and not Path(os.path.expanduser(base)).is_dir():
        base, _, revision = base.rpartition("@")
    folder = os.path.abspath(os.path.expanduser(base))
    if not Path(folder).is_dir():
        raise ProjectError(
            f"There is no folder {redact_text(text)}. Give a folder, https://HOST/REPO, ssh://... or git@HOST:PATH, "
            "then #SUBDIR and @REVISION if needed."
        )
    if revision:
        _check_revision(revision)
        return Address(folder, True, subdir.strip("/"), revision)
    return Address(folder, False, subdir.strip("/"))


def _git_address(base: str, subdir: str, revision: str) -> Address:
    url = _URL.fullmatch(base)
    if url:
        scheme, host = url["scheme"].lower(), url["host"]
        if scheme == "file":
            path = url["path"] or ""
            if host not in ("", "localhost") or not os.path.isabs(path):
                raise _refused(base)
            if not Path(path).is_dir():
                raise ProjectError(f"There is no folder {path}.")
            if not revision and not (Path(path) / "HEAD").exists():
                return Address(os.path.abspath(path), False, subdir.strip("/"))
            base = path
        elif scheme not in ("https", "ssh") or not re.match(r"[A-Za-z0-9\[]", host) or not url["path"]:
            raise _refused(base)
    if revision:
        _check_revision(revision)
    return Address(base, True, subdir.strip("/"), revision)


def _refused(base: str) -> ProjectError:
    return ProjectError(
        f"Projects are not fetched from {redact_url(base)[:200]}: only https://, ssh://, git@HOST:PATH and local folders."
    )


def _check_revision(revision: str) -> None:
    if not REVISION.fullmatch(revision) or ".." in revision or revision.endswith((".lock", "/", ".")):
        raise ProjectError(
            f"'{revision[:80]}' is no revision: give a branch, a tag or a commit (letters, digits, and . _ / -)."
        )


def fetch(address: Address, say: Callable[[str], object] = lambda line: None) -> Fetched:
    """Have the files of a project here. Raises ProjectError with git's own sentence, without secrets."""
    if not address.is_git:
        return _local(address)
    commit, checkout = _checkout(address, say)
    folder = _subfolder(checkout, address.subdir)
    remote = redact_url(address.base) if "://" in address.base or "@" in address.base else address.base
    branch = "" if _COMMIT.fullmatch(address.revision) else address.revision
    return Fetched(address, folder, checkout, commit, branch, remote)


def _subfolder(root: Path, subdir: str) -> Path:
    if not subdir:
        return root
    folder = inside(root, subdir, "The folder")
    if not folder.is_dir():
        raise ProjectError(f"The project has no folder '{subdir}'.")
    return folder


def _local(address: Address) -> Fetched:
    from mltrack.store.client.git import capture_setting, snapshot

    root = Path(address.base)
    folder = _subfolder(root, address.subdir)
    said: list[str] = []
    code = snapshot(folder, capture_setting(folder, said.append), 5.0, said.append)
    if code is None:
        # A folder without git is nothing to speak of.
        return Fetched(
            address,
            folder,
            folder,
            notes=tuple(line for line in said if "not in a git repository" not in line),
        )
    return Fetched(
        address,
        folder,
        root,
        code.commit,
        code.branch,
        code.remote,
        code.dirty,
        code.patch,
        code.complete,
        code.left_out,
        tuple(said),
    )


# -- git


def _checkout(address: Address, say: Callable[[str], object], depth: int = 0) -> tuple[str, Path]:
    """(commit, folder with its files); from the cache when the commit is known and there."""
    name = hashlib.sha256(address.base.encode("utf-8", "surrogateescape")).hexdigest()[:24]
    home = cache_folder() / "projects" / name
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    if _COMMIT.fullmatch(address.revision):
        ready = home / f"tree-{address.revision}"
        if ready.is_dir():
            return address.revision, ready
    repository = home / "repository"
    with _lock(home):
        git = _git(repository)
        if not (repository / "HEAD").is_file():
            repository.mkdir(mode=0o700, exist_ok=True)
            _run(git, "init", "--quiet", "--bare", "--template=", str(repository))
        say(f"fetching {address.shown}")
        commit = _fetch_commit(git, address)
        ready = home / f"tree-{commit}"
        if not ready.is_dir():
            say(f"checking out {commit[:12]}")
            part = Path(tempfile.mkdtemp(prefix="part-", dir=home))
            try:
                index = {"GIT_INDEX_FILE": str(part / "index")}
                tree = part / "tree"
                tree.mkdir()
                _run(git, "read-tree", commit, extra=index)
                _run(git, "checkout-index", "--all", f"--prefix={tree}/", extra=index)
                _add_submodules(git, commit, tree, address, say, depth)
                os.rename(tree, ready)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    return commit, ready


def _add_submodules(
    git: Git, commit: str, tree: Path, address: Address, say: Callable[[str], object], depth: int
) -> None:
    """The files of every submodule at the commit that is pinned, by the same rules as the repository itself."""
    linked = linked_commits(_run(git, "ls-tree", "-r", "-z", commit))
    if not linked:
        return
    if depth >= DEPTH or len(linked) > COUNT:
        raise ProjectError(
            f"{address.shown} has more than {COUNT} submodules, or deeper than {DEPTH} levels."
        )
    urls = declared_urls(tree, lambda *arguments: _run(git, *arguments))
    for path, pinned in linked.items():
        if path not in urls:
            raise ProjectError(f"{address.shown} does not say where its submodule {path[:200]} comes from.")
        url = absolute_url(urls[path], address.base)
        if not (_URL.fullmatch(url) or _SCP.fullmatch(url) or is_local(url)):
            raise _refused(url)
        below = _git_address(url, "", pinned)
        # As git since 2.38: a repository from elsewhere says nothing about folders of this machine.
        if is_local(below.base) and not is_local(address.base):
            raise _refused(url)
        _, files = _checkout(below, say, depth + 1)
        shutil.copytree(files, inside(tree, path, "The submodule"), symlinks=True, dirs_exist_ok=True)


def _fetch_commit(git: Git, address: Address) -> str:
    revision = address.revision or "HEAD"
    fetching = ("fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--force")
    try:
        _run(git, *fetching, "--depth=1", "--", address.base, revision)
    except ProjectError as problem:
        # Servers need not give out single commits: then everything is fetched and looked through.
        if not re.fullmatch(r"[0-9a-f]{7,64}", revision):
            raise _unknown_revision(problem, address) from None
        _run(
            git,
            *fetching,
            "--",
            address.base,
            "+refs/heads/*:refs/all/heads/*",
            "+refs/tags/*:refs/all/tags/*",
        )
        try:
            return _run(
                git, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"
            ).strip()
        except ProjectError:
            raise _unknown_revision(problem, address) from None
    return _run(git, "rev-parse", "--verify", "--quiet", "--end-of-options", "FETCH_HEAD^{commit}").strip()


def _unknown_revision(problem: ProjectError, address: Address) -> ProjectError:
    if "couldn't find remote ref" in problem.message or "not our ref" in problem.message:
        return ProjectError(f"{address.shown} has no branch, tag or commit '{address.revision}'.")
    return problem


def _git(repository: Path) -> Git:
    from git.cmd import Git

    return Git(str(repository.parent))


def _run(git: Git, *arguments: str, extra: dict[str, str] | None = None) -> str:
    """Standard output of one hardened call."""
    from git.exc import GitCommandError, GitCommandNotFound

    repository = os.path.join(str(git.working_dir), "repository")
    environment = {
        **_ENVIRONMENT,
        "GIT_DIR": repository,
        "GIT_OBJECT_DIRECTORY": os.path.join(repository, "objects"),
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": "",
        "GIT_COMMON_DIR": repository,
        "GIT_INDEX_FILE": os.path.join(repository, "index"),
        "GIT_NAMESPACE": "",
        **(extra or {}),
    }
    command = [git.GIT_PYTHON_GIT_EXECUTABLE or "git"]
    for override in _OVERRIDES:
        command += ["-c", override]
    try:
        return str(git.execute([*command, *arguments], env=environment, kill_after_timeout=FETCH_SECONDS))
    except GitCommandNotFound:
        raise ProjectError("git is not installed; install it, or give a local folder.") from None
    except GitCommandError as error:
        lines = [line for line in str(error.stderr).strip(" '\n").splitlines() if line.strip()]
        lines = [line.strip().removeprefix("stderr: '") for line in lines]
        told = next((line for line in lines if line.startswith(("fatal:", "error:", "remote:"))), "")
        reason = redact_text(told or (lines[-1] if lines else "no reason given"))[:300]
        raise ProjectError(f"git could not do that ({reason.removeprefix('fatal: ')}).") from None


class _lock:
    """One process at a time in a cache folder."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "lock"
        self._fd = -1

    def __enter__(self) -> None:
        import fcntl

        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def __exit__(self, *ignored: object) -> None:
        os.close(self._fd)

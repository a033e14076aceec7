"""The code of a run, as it was, in a folder of its own: the recorded commit with the recorded changes over it.

The new folder is a git repository that holds that one commit, so `git diff` there shows what had not been committed.
It takes its objects from the repository the run was started in or, when that is gone, from the recorded remote; no
configuration, hook or filter of either is at work. The folder appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mltrack.projects.errors import ProjectError
from mltrack.projects.fetch import FETCH_SECONDS, parse_address
from mltrack.store.client.git_folder import CARRIED, discover
from mltrack.store.client.git_process import Git, GitProblem
from mltrack.store.client.secrets import redact_url
from mltrack.store.records import Run

_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_PATCH_BYTES = 256 << 20
_NAMED = 8

ReadBytes = Callable[[str], bytes | None]
"""Bytes of a kept file by its digest; None when it is not there."""


@dataclass(frozen=True, slots=True)
class CheckedOut:
    """``folder`` holds the code; the run's command was started in ``workdir``, which is it or lies in it."""

    folder: Path
    workdir: Path
    commit: str
    taken_from: str
    files: int
    changed: int
    missing: tuple[str, ...] = ()
    """What differs from the recorded tree; empty unless that was asked for."""
    root: str = ""
    """Where the recorded tree lay."""


def checkout(
    run: Run,
    target: Path,
    read: ReadBytes,
    *,
    repository: str = "",
    partial: bool = False,
    say: Callable[[str], object] = lambda line: None,
) -> CheckedOut:
    """Make ``target`` (new, or empty) the tree the run was started from, byte for byte.

    ``repository`` is a folder or address to take the commit from instead of the recorded ones. Raises ProjectError when
    the tree cannot be made whole; with ``partial`` it is made as far as it goes and ``missing`` says what is not.
    """
    facts = run.facts.get("git")
    if not isinstance(facts, Mapping) or not _COMMIT.fullmatch(str(facts.get("commit") or "")):
        why = str(run.facts.get("code_note") or "no commit was recorded").removeprefix(
            "the code was not recorded: "
        )
        raise ProjectError(f"The code of {run.name} is not known: {why}.")
    commit = str(facts["commit"])
    missing = _not_recorded(facts)
    if missing and not partial:
        raise ProjectError(
            f"What {run.name} ran with was not recorded whole: {_few(missing)}. --partial makes the rest."
        )
    patch = _patch(run, str(facts.get("patch") or ""), read)
    program = shutil.which("git")
    if program is None:
        raise ProjectError("git is not installed.")
    target = Path(os.path.abspath(target))
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ProjectError(f"{target} is there already and is not an empty folder; nothing was changed.")
    places = [repository] if repository else _places(run, facts)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{target.name[:40]}-", dir=target.parent))
    except OSError as error:
        raise ProjectError(f"{target} cannot be made: {error.strerror}.") from None
    try:
        git = Git(program, FETCH_SECONDS)
        taken_from, settings, root = _fetch(git, part, commit, places, say)
        work = _Tree(git, part, settings)
        more = work.read(commit)
        if more and not partial:
            raise ProjectError(
                f"git alone cannot bring back {_few(more)}, which the run had. --partial makes the rest."
            )
        files, changed = work.write(commit, patch)
        os.rename(part, target)
    except GitProblem as problem:
        raise ProjectError(f"The tree of {run.name} could not be made: {problem}.") from None
    except OSError as error:
        raise ProjectError(f"{target} could not be written: {error.strerror}.") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    recorded = str(facts.get("root") or root)
    inside = _below(str(run.facts.get("cwd") or ""), recorded)
    workdir = target / inside if inside and (target / inside).is_dir() else target
    return CheckedOut(target, workdir, commit, taken_from, files, changed, (*missing, *more), recorded)


def _not_recorded(facts: Mapping[str, object]) -> tuple[str, ...]:
    """What the record itself says it has not."""
    left_out = facts.get("left_out")
    names = tuple(str(name) for name in left_out) if isinstance(left_out, list | tuple) else ()
    if facts.get("complete", True) or names:
        return names
    return ("uncommitted changes, which the run did not keep",)


def _patch(run: Run, digest: str, read: ReadBytes) -> bytes:
    if not digest:
        return b""
    patch = read(digest)
    if patch is None:
        raise ProjectError(
            f"The uncommitted changes of {run.name} are lost: blobs/{digest[:8]}... is not in the store."
        )
    if hashlib.sha256(patch).hexdigest() != digest:
        raise ProjectError(
            f"The uncommitted changes of {run.name} are damaged: blobs/{digest[:8]}... is not what was kept."
        )
    return patch


def _places(run: Run, facts: Mapping[str, object]) -> list[str]:
    """Where the commit may be had, nearest first."""
    here = [str(facts.get("root") or ""), str(run.facts.get("cwd") or "")]
    found = [place for place in here if os.path.isabs(place) and os.path.isdir(place)]
    return list(dict.fromkeys([*found, str(facts.get("remote") or "")]))


def _fetch(
    git: Git, part: Path, commit: str, places: list[str], say: Callable[[str], object]
) -> tuple[str, dict[str, str], str]:
    """Have the commit in a new repository at ``part``. (where from, how files look to git there, that tree's root)."""
    folder = os.fsencode(part)
    kind = ("--object-format=sha256",) if len(commit) == 64 else ()
    git.run(folder, "init", "--quiet", "--template=", *kind, ".")
    troubles: list[str] = []
    for place in places:
        if not place:
            continue
        settings: dict[str, str] = {}
        root, remote = "", place
        try:
            address = parse_address(place)
            if os.path.isdir(address.base):
                known = discover(git, os.fsencode(address.base)) if not _is_bare(address.base) else None
                if known is not None:
                    settings, root, remote = known.config, os.fsdecode(known.root), known.remote or place
            say(f"taking {commit[:12]} from {address.shown}")
            _fetch_commit(git, folder, address.base, commit)
        except (GitProblem, ProjectError) as problem:
            sentence = (
                problem.message if isinstance(problem, ProjectError) else f"{redact_url(place)}: {problem}"
            )
            troubles.append(sentence.rstrip("."))
            continue
        if remote:
            git.run(folder, "config", "remote.origin.url", redact_url(remote))
            git.run(folder, "config", "remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*")
        return address.shown, settings, root
    why = "; ".join(troubles) or "the folder it ran in is gone, and no remote was recorded"
    raise ProjectError(f"Commit {commit[:12]} cannot be had ({why}). --repo says where it is.")


def _fetch_commit(git: Git, folder: bytes, base: str, commit: str) -> None:
    fetching = ("fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head")
    try:
        git.run(folder, *fetching, "--depth=1", "--", base, commit)
    except GitProblem:
        # Servers need not give out single commits: then everything is fetched and looked through.
        everything = ("+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")
        git.run(folder, *fetching, "--", base, *everything)
    if git.run(folder, "cat-file", "-t", commit, allowed=(0, 128)).strip() != b"commit":
        raise GitProblem(f"there is no commit {commit[:12]}")


class _Tree:
    """Writes a commit with a patch over it, with nobody's configuration but how files look on this machine."""

    def __init__(self, git: Git, part: Path, settings: Mapping[str, str]) -> None:
        self._git, self._part = git, os.fsencode(part)
        self._settings: list[str] = []
        for key in CARRIED:
            if key in settings:
                value = os.path.expanduser(settings[key]) if key.endswith("file") else settings[key]
                self._settings += ["-c", f"{key}={value}"]
                if not key.endswith("file"):
                    git.run(self._part, "config", key, value)
        # Filters that programs of this user's configuration do (git-lfs, nbstripout) must not run unasked.
        git.environment["GIT_CONFIG_GLOBAL"] = os.devnull

    def _run(self, *arguments: str, feed: bytes = b"") -> bytes:
        return self._git.run(self._part, *self._settings, *arguments, feed=feed, limit=_PATCH_BYTES)

    def read(self, commit: str) -> tuple[str, ...]:
        """Read the commit into the index. Returns files whose content is not in the commit: submodules and filtered ones."""
        self._run("read-tree", commit)
        rows = [row.partition(b"\t") for row in self._run("ls-files", "--stage", "-z").split(b"\0") if row]
        links = [_shown(path) + " (a submodule)" for mode, _, path in rows if mode.startswith(b"160000 ")]
        if not any(path == b".gitattributes" or path.endswith(b"/.gitattributes") for _, _, path in rows):
            return tuple(links)
        names = b"".join(path + b"\0" for _, _, path in rows)
        fields = self._run("check-attr", "--cached", "-z", "--stdin", "filter", feed=names).split(b"\0")
        pairs = zip(fields[::3], fields[2::3], strict=False)
        filtered = [
            f"{_shown(path)} (filter {_shown(value)})"
            for path, value in pairs
            if value not in (b"unspecified", b"unset")
        ]
        return (*links, *filtered)

    def write(self, commit: str, patch: bytes) -> tuple[int, int]:
        """Write the files. (files in all, files the patch changed)."""
        if patch:
            self._run("apply", "--cached", "--whitespace=nowarn", "-", feed=patch)
        changed = self._run("diff-index", "--cached", "--name-only", "-z", commit, "--").count(b"\0")
        files = self._run("ls-files", "-z").count(b"\0")
        self._run("checkout-index", "--all", "--force")
        # What was not committed then is not committed here.
        self._run("read-tree", commit)
        self._git.run(self._part, *self._settings, "update-index", "-q", "--refresh", allowed=(0, 1))
        self._run("update-ref", "--no-deref", "HEAD", commit)
        return files, changed


def _is_bare(folder: str) -> bool:
    return not os.path.exists(os.path.join(folder, ".git")) and os.path.isfile(os.path.join(folder, "HEAD"))


def _below(path: str, root: str) -> str:
    """``path`` relative to ``root``; "" when it is not below it."""
    if not path or not root or os.path.commonpath([path, root]) != root.rstrip("/"):
        return ""
    relative = os.path.relpath(path, root)
    return "" if relative == "." else relative


def _few(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _shown(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")

"""A repository as it says it is, and a private git folder in which it can be looked at without obeying it.

The private folder holds our configuration, a copy of the index, and the repository's objects as alternates: whatever
program the repository's configuration names is unknown there.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, NamedTuple

from mltrack.store.client.secrets import redact_url

if TYPE_CHECKING:
    from pathlib import Path

    from mltrack.store.client.git_process import Git

# git knows the empty tree without storing it.
_EMPTY_TREE = {
    "sha1": "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
    "sha256": "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321",
}
# What the working tree looks like to git; everything else a configuration can say is unknown to the private folder.
CARRIED = (
    "core.filemode core.symlinks core.ignorecase core.precomposeunicode core.autocrlf core.eol core.trustctime "
    "core.checkstat core.excludesfile core.attributesfile"
).split()


class Repository(NamedTuple):
    """Where it lies, what is checked out, and its configuration as text (never obeyed, only read)."""

    root: bytes
    git_folder: bytes
    common_folder: bytes
    commit: str | None
    branch: str
    remote: str
    config: dict[str, str]

    @property
    def base(self) -> str:
        """What the working tree is compared with."""
        return self.commit or _EMPTY_TREE[self.object_format]

    @property
    def object_format(self) -> str:
        """The hash of its objects."""
        return "sha256" if self.config.get("extensions.objectformat") == "sha256" else "sha1"


def discover(git: Git, folder: bytes) -> Repository:
    """Ask the repository itself; these commands read configuration and references and start nothing.

    Raises GitProblem when the folder is in none, or git does not trust it.
    """

    def ask(*arguments: str) -> bytes:
        return git.run(folder, *arguments)

    root = ask("rev-parse", "--show-toplevel")[:-1]
    git_folder = os.path.join(folder, ask("rev-parse", "--git-dir")[:-1])
    common_folder = os.path.join(folder, ask("rev-parse", "--git-common-dir")[:-1])
    commit = (
        git.run(folder, "rev-parse", "--verify", "--quiet", "HEAD^{commit}", allowed=(0, 1)).decode().strip()
    )
    branch = git.run(folder, "symbolic-ref", "--quiet", "--short", "HEAD", allowed=(0, 1))[:-1]
    config: dict[str, str] = {}
    for item in ask("config", "--list", "-z").decode("utf-8", "surrogateescape").split("\0"):
        name, newline, value = item.partition("\n")
        config[name] = value if newline else "true"
    name = config.get(f"branch.{os.fsdecode(branch)}.remote", "origin")
    url = config.get(f"remote.{name}.url") or next(
        (value for key, value in config.items() if key.startswith("remote.") and key.endswith(".url")), ""
    )
    remote = redact_url(shown(os.fsencode(url)))
    return Repository(root, git_folder, common_folder, commit or None, shown(branch), remote, config)


def private_folder(repository: Repository, scratch: Path) -> Path:
    """A git folder with our configuration, the repository's index (copied) and its objects (as alternates)."""
    private = scratch / "git"
    (private / "objects" / "info").mkdir(parents=True)
    (private / "refs").mkdir()
    (private / "info").mkdir()
    (private / "HEAD").write_text((repository.commit or "ref: refs/heads/none") + "\n")
    (private / "config").write_bytes(_configuration(repository))
    objects = os.path.realpath(os.path.join(repository.common_folder, b"objects"))
    (private / "objects" / "info" / "alternates").write_bytes(_quoted(objects) + b"\n")
    for name in ("exclude", "attributes"):
        _copy(os.path.join(repository.common_folder, b"info", name.encode()), private / "info" / name)
    shared = [name for name in os.listdir(repository.git_folder) if name.startswith(b"sharedindex.")]
    for file in (b"index", *shared):
        _copy(os.path.join(repository.git_folder, file), private / os.fsdecode(file))
    return private


def _configuration(repository: Repository) -> bytes:
    lines = [b"[core]", b"bare = false"]
    sha256 = repository.object_format == "sha256"
    lines.append(b"repositoryformatversion = " + (b"1" if sha256 else b"0"))
    config = dict(repository.config)
    default = os.path.join(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"), "git")
    config.setdefault("core.excludesfile", os.path.join(default, "ignore"))
    config.setdefault("core.attributesfile", os.path.join(default, "attributes"))
    for key in CARRIED:
        if key in config:
            # HOME is the scratch folder, so that ~ must be resolved here.
            value = os.path.expanduser(config[key]) if key.endswith("file") else config[key]
            lines.append(key.partition(".")[2].encode() + b" = " + _quoted(os.fsencode(value)))
    if sha256:
        lines += [b"[extensions]", b"objectFormat = sha256"]
    return b"\n".join(lines) + b"\n"


def _quoted(value: bytes) -> bytes:
    for plain, escaped in ((b"\\", b"\\\\"), (b'"', b'\\"'), (b"\n", b"\\n"), (b"\t", b"\\t")):
        value = value.replace(plain, escaped)
    return b'"' + value + b'"'


def _copy(source: bytes, target: Path) -> None:
    """Copy with the modification time: git trusts an entry's time stamp only when it is older than the index."""
    try:
        shutil.copyfile(source, target)
        facts = os.stat(source)
        os.utime(target, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    except (OSError, shutil.SpecialFileError):
        return  # there is none (a new repository has no index), or it is no file


def shown(path: bytes) -> str:
    """A path as JSON and people can hold it."""
    return path.decode("utf-8", "backslashreplace")

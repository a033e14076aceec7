"""Where the files of a store's runs go in the end: an object store that ``mltrack init --artifacts`` named, or nowhere else.

A training writes artifacts to its store's own folder, always: what is said here is for the companion that sends them on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

FILE = "artifacts.toml"
"""In a store's folder (log.py looks for it). A store in a database keeps the same text there, as the setting of this name."""
EXTRAS = {"s3": "s3", "gs": "gcs", "sftp": "sftp"}
"""Which of our extras brings what a scheme needs."""
_MODULES = {"s3": ("s3fs",), "gs": ("gcsfs",), "sftp": ("fsspec", "paramiko")}


class DestinationError(ValueError):
    """The address or the file cannot be used; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Destination:
    """``url``: of a store's artifacts, but for experiments named in ``experiments`` (a name, or a folder of them that ends in
    a slash). ``drop_local``: the files here go when their copies are proven. ``former``: addresses of before, which are still
    read."""

    url: str = ""
    drop_local: bool = False
    experiments: dict[str, str] = field(default_factory=dict)
    former: tuple[str, ...] = ()

    def of(self, experiment: str) -> str:
        """The address for runs of an experiment: the longest name that fits counts; "" where they stay here."""
        names = [
            name
            for name in self.experiments
            if name == experiment or (name.endswith("/") and experiment.startswith(name))
        ]
        return self.experiments[max(names, key=len)] if names else self.url

    def addresses(self) -> list[str]:
        """All addresses, each once."""
        return sorted({url for url in (self.url, *self.experiments.values()) if url})

    def trusted(self) -> set[str]:
        """Addresses that are read at all. A journal can come from anybody, and says an address, too: what this store was never
        told to use is not asked with our keys."""
        return {*self.addresses(), *self.former}


def parse(text: str, where: str) -> Destination:
    """What the file says. Raises DestinationError."""
    import tomllib

    try:
        said = tomllib.loads(text)
        experiments = said.get("experiments", {})
        if not isinstance(experiments, dict):
            raise DestinationError("'experiments' must be a table")
        return Destination(
            check_address(str(said["url"])) if said.get("url") else "",
            said.get("drop_local", False) is True,
            {name: check_address(str(url)) if url else "" for name, url in experiments.items()},
            tuple(check_address(str(url)) for url in said.get("former", ())),
        )
    except (tomllib.TOMLDecodeError, DestinationError) as error:
        raise DestinationError(f"{where} cannot be used ({error}). Correct it there.") from None


def to_text(destination: Destination) -> str:
    """The file's text."""
    lines = [f"url = {_quoted(destination.url)}", f"drop_local = {str(destination.drop_local).lower()}"]
    if destination.former:
        lines.append(f"former = [{', '.join(map(_quoted, destination.former))}]")
    if destination.experiments:
        lines += ["", "[experiments]"]
        lines += [
            f"{_quoted(name)} = {_quoted(url)}" for name, url in sorted(destination.experiments.items())
        ]
    return "\n".join(lines) + "\n"


def read(root: Path) -> Destination:
    """What the store in the folder ``root`` says. Raises DestinationError."""
    path = root / FILE
    try:
        text = path.read_text("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return Destination()
    except (OSError, UnicodeDecodeError) as error:
        raise DestinationError(f"{path} cannot be read ({error}).") from None
    return parse(text, str(path))


def check_address(url: str) -> str:
    """The address without a slash at its end. Raises DestinationError for one that is none, or that holds a password."""
    parts = urlsplit(url)
    known = ", ".join(f"{scheme}://" for scheme in EXTRAS)
    if parts.scheme not in EXTRAS or not parts.netloc.rpartition("@")[2]:
        raise DestinationError(f"Artifacts go to {known}, as in s3://bucket/prefix; this is neither")
    if parts.password is not None or (parts.username is not None and parts.scheme != "sftp"):
        raise DestinationError(
            "An address holds no keys or passwords: they belong into the environment or the configuration of the store's own tools"
        )
    if parts.query or parts.fragment or ".." in parts.path.split("/"):
        raise DestinationError("An address of artifacts is a bucket or host and a path, and nothing else")
    if parts.scheme == "sftp" and not parts.path.strip("/"):
        raise DestinationError("An address of sftp:// names a folder, as in sftp://host/path")
    return url.rstrip("/")


def missing_extra(url: str) -> str:
    """A sentence when what the scheme of ``url`` needs is not installed, else ""."""
    from importlib.util import find_spec

    scheme = urlsplit(url).scheme
    if all(find_spec(module) is not None for module in _MODULES[scheme]):
        return ""
    return f"{scheme}:// needs more than is installed: pip install 'mltrack-tui[{EXTRAS[scheme]}]'"


def problem_file(root: Path) -> Path:
    """Where the companion says why it cannot send."""
    return root / "cache" / "artifacts.problem"


def last_problem(root: Path) -> str:
    """Why artifacts could not be sent the last time; "" when they could."""
    try:
        return problem_file(root).read_text("utf-8", "replace")[:500].strip()
    except OSError:
        return ""


def object_name(run_id: str, path: str, sha256: str) -> str:
    """Where an artifact lies below an address. Other bytes have another name: what was proven once is never written over."""
    return f"{run_id}/artifacts/{sha256[:16]}/{path}"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

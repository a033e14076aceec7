"""Which store a process means, decided the same way by the client, the command and the app.

Order: an explicit choice (``--store``, ``set_store``), ``MLTRACK_STORE``, the nearest ``.mltrack/`` folder upwards from
the working folder (found like ``.git``), the site file ``/etc/mltrack/config.toml``, the user's data folder.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

SITE_FILE = Path("/etc/mltrack/config.toml")
SITE_FILE_VARIABLE = "MLTRACK_SITE_FILE"
MARK = ".mltrack"
REMOTE_SCHEMES = ("postgresql://", "postgresql+psycopg://", "http://", "https://")


class LocationError(ValueError):
    """The configured store cannot be used as written; the message says which setting and what to do."""


@dataclass(frozen=True, slots=True)
class StoreChoice:
    """Where to store and why.

    ``url`` is what was asked for (a folder path or a URL); ``root`` the folder journals are written to: the store
    itself when it is a folder, else the local spool of that URL.
    """

    url: str
    root: Path
    chosen_by: str

    @property
    def is_remote(self) -> bool:
        """Whether journals wait in a spool for ``mltrack ship``."""
        return self.url.startswith(REMOTE_SCHEMES)


def site_file() -> Path:
    """The file of settings for everybody on this machine; the environment variable MLTRACK_SITE_FILE names another."""
    return Path(os.environ.get(SITE_FILE_VARIABLE) or SITE_FILE)


def user_data_folder() -> Path:
    """The per-user data folder (XDG on Linux, Application Support on macOS), not created here."""
    if sys.platform == "darwin":
        return Path(os.path.expanduser("~/Library/Application Support/mltrack"))
    base = os.environ.get("XDG_DATA_HOME", "")
    if not os.path.isabs(base):
        base = os.path.expanduser("~/.local/share")
    return Path(base) / "mltrack"


def choose_store(explicit: str | None = None, folder: Path | None = None) -> StoreChoice:
    """Decide the store for ``folder`` (default: the working folder). Reads at most one small file; creates nothing."""
    if explicit:
        return _choice(explicit, "asked for (--store or set_store)")
    from_environment = os.environ.get("MLTRACK_STORE", "")
    if from_environment:
        return _choice(from_environment, "the environment variable MLTRACK_STORE")
    start = folder or _working_folder()
    nearest = _nearest_mark(start)
    if nearest is not None:
        return StoreChoice(str(nearest), nearest, f"the nearest {MARK}/ folder upwards from {start}")
    site = site_store()
    if site:
        return _choice(site, f"the site file {site_file()}")
    data = user_data_folder()
    if _can_create(data):
        return StoreChoice(str(data), data, "the user data folder (default)")
    local = start / MARK
    return StoreChoice(str(local), local, f"a {MARK}/ folder here, because {data} cannot be written")


def explain_choice(explicit: str | None = None, folder: Path | None = None) -> list[tuple[str, str]]:
    """Every candidate in order as ``(setting, value or '-')``: what ``mltrack config --why store`` prints."""
    start = folder or _working_folder()
    nearest = _nearest_mark(start)
    return [
        ("--store / set_store()", explicit or "-"),
        ("MLTRACK_STORE", os.environ.get("MLTRACK_STORE") or "-"),
        (f"nearest {MARK}/", str(nearest) if nearest else "-"),
        (str(site_file()), site_store() or "-"),
        ("user data folder", str(user_data_folder())),
    ]


def _working_folder() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError:  # the working folder was removed under a running process
        return Path("/")


def _choice(value: str, chosen_by: str) -> StoreChoice:
    if value.startswith(REMOTE_SCHEMES):
        return StoreChoice(value, spool_folder(value), chosen_by)
    if "://" in value:
        if not value.startswith("file://"):
            scheme = value.split("://", 1)[0]
            if scheme == "ssh":
                raise LocationError(
                    "A store behind ssh:// can be looked at and changed, not logged into. Log into a folder or a server, or"
                    " copy the run over with rsync and `mltrack sync`."
                )
            raise LocationError(
                f"The store address uses '{scheme}://', which mltrack does not know. "
                "Use a folder, postgresql://… or http(s)://…."
            )
        value = value[len("file://") :]
    path = Path(os.path.abspath(os.path.expanduser(value)))
    return StoreChoice(str(path), path, chosen_by)


def spool_folder(url: str) -> Path:
    """The local folder where journals for a remote store wait. Named by a hash: the URL may hold a password."""
    import hashlib

    name = hashlib.sha256(url.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    base = os.environ.get("MLTRACK_SPOOL") or str(user_data_folder() / "spool")
    return Path(base) / name


def _nearest_mark(start: Path) -> Path | None:
    for folder in (start, *start.parents):
        candidate = folder / MARK
        if candidate.is_dir():
            return candidate
    return None


def site_store() -> str:
    """The store that the site file names, "" when it names none. Raises LocationError when the file is no TOML."""
    path = site_file()
    if not path.is_file():
        return ""
    import tomllib

    try:
        with path.open("rb") as file:
            value = tomllib.load(file).get("store", "")
    except (OSError, ValueError) as error:  # no TOML, or no UTF-8
        raise LocationError(
            f"The site file {path} cannot be read ({error}). Correct it or set MLTRACK_STORE."
        ) from None
    if not isinstance(value, str):
        raise LocationError(
            f"In the site file {path}, 'store' must be a text. Correct it or set MLTRACK_STORE."
        )
    return value


def _can_create(path: Path) -> bool:
    for folder in (path, *path.parents):
        if folder.is_dir():
            return os.access(folder, os.W_OK | os.X_OK)
    return False

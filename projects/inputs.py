"""Values of path parameters that lie elsewhere: downloaded for one job, as MLflow does, and removed after it."""

from __future__ import annotations

import os
import posixpath
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mltrack.projects.errors import LaunchError, ProjectError
from mltrack.store.client.destination import EXTRAS, missing_extra
from mltrack.store.client.journal import random_hex
from mltrack.store.client.secrets import redact_text, redact_url
from mltrack.store.errors import MltrackError
from mltrack.store.filesystem import cache_folder
from mltrack.store.object_store import ObjectStore, open_objects

_PIECE = 1 << 20
_CONNECT_SECONDS = 30.0


def is_remote(text: str) -> bool:
    """Whether a path parameter names something that has to be downloaded first."""
    return "://" in text and not text.startswith("file://")


def place_for(name: str, url: str) -> Path:
    """Where the value of the parameter ``name`` will lie, in a folder that nothing else uses. Raises ProjectError for schemes
    that cannot be read here."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https", *EXTRAS):
        known = ", ".join(f"{scheme}://" for scheme in ("https", "http", *EXTRAS))
        raise ProjectError(
            f"The parameter {name} is a path, and {redact_url(url)} is neither one here nor at {known}."
        )
    if parts.scheme in EXTRAS:
        missing = missing_extra(url)
        if missing:
            raise ProjectError(f"{missing}.")
    last = posixpath.basename(unquote(parts.path).rstrip("/"))
    last = "".join(sign for sign in last if sign.isprintable() and sign not in "/\\:")[:200]
    return _downloads() / random_hex(16) / (last if last.strip(".") else "data")


def download(url: str, target: Path, say: Callable[[str], object], stopped: Callable[[], bool]) -> None:
    """Bring ``url`` to ``target``: a file, or of an object store a folder. Raises LaunchError."""
    shown = redact_url(url)
    say(f"downloading {shown}")
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        if urlsplit(url).scheme in ("http", "https"):
            size = _over_http(url, target, stopped)
        else:
            size = _from_object_store(url, target, stopped)
    except (OSError, ValueError, MltrackError) as error:
        reason = redact_text(str(error).replace(url, shown))[:300].strip()
        raise LaunchError(f"{shown} could not be downloaded: {reason}") from None
    # The containers' user may be another number than whoever looks here; only reading is given.
    for path in (target.parent, target, *(target.rglob("*") if target.is_dir() else ())):
        os.chmod(path, 0o755 if path.is_dir() else 0o444)
    say(f"downloaded {size:,} bytes")


def remove(target: Path) -> None:
    """What was downloaded for a job that has ended: nothing but a folder that place_for() can have made."""
    folder = _downloads() / target.parent.name
    if target.parent == folder and re.fullmatch(r"[0-9a-f]{16}", folder.name):
        shutil.rmtree(folder, ignore_errors=True)


def _downloads() -> Path:
    return cache_folder() / "inputs"


def _over_http(url: str, target: Path, stopped: Callable[[], bool]) -> int:
    import urllib3

    pool = urllib3.PoolManager(timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=300), retries=3)
    parts = urlsplit(url)
    person, at, host = parts.netloc.rpartition("@")
    headers = urllib3.make_headers(basic_auth=unquote(person)) if at else {}
    size = 0
    try:
        plain = parts._replace(netloc=host, fragment="").geturl()
        answer = pool.request("GET", plain, headers=headers, preload_content=False, decode_content=False)
        if answer.status != 200:
            raise ValueError(f"the server answered {answer.status} {answer.reason or ''}".strip())
        with open(target, "xb") as file:
            for piece in answer.stream(_PIECE):
                if stopped():
                    raise ValueError("stopped")
                file.write(piece)
                size += len(piece)
    except urllib3.exceptions.HTTPError as error:
        # The text of the one that gave up holds the whole address.
        told = error.reason if isinstance(error, urllib3.exceptions.MaxRetryError) else error
        raise ValueError(str(told)) from None
    finally:
        pool.clear()
    return size


def _from_object_store(url: str, target: Path, stopped: Callable[[], bool]) -> int:
    """An object, or all that lie below a name as a folder."""
    parent, _, name = url.rstrip("/").rpartition("/")
    whole = parent.endswith("/")  # a bucket, which has no name in another one
    objects = open_objects(url if whole else parent)
    below = "" if whole else name
    size = 0
    for found in objects.listing(below):
        relative = found.name[len(below) :].lstrip("/")
        if not relative or relative.endswith("/"):
            continue  # what some tools put in a folder's place
        # Names in an object store are any text.
        if ".." in relative.split("/") or "\0" in relative:
            raise ValueError("a name in it leads out of it")
        path = target / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        size += _take(objects, found.name, path, stopped)
    return size if target.exists() else _take(objects, name, target, stopped)


def _take(objects: ObjectStore, name: str, path: Path, stopped: Callable[[], bool]) -> int:
    with path.open("xb") as file:
        for piece in objects.stream(name):
            if stopped():
                raise ValueError("stopped")
            file.write(piece)
        return file.tell()

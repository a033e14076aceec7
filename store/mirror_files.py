"""Files of runs, handed over when they are asked for (the other side is store/far_files.py; the line is that of store/mirror_far.py).

Two questions, a line of JSON each:

    {"files": RUN}                                       -> {"entries": [[path, kind, bytes, detail], ...], "more": how many were left out}
    {"read": {"of": ..., "run": RUN, "name": ..., "at": n, "size": n}}
                                                         -> {"at": n, "bytes": n, "size": of the file, "begin": n}, and the bytes

What is read is an ``artifact`` (``name`` its path), the console ``log`` (the file that the run recorded as ``name``, and where in it
it ``begin``s, unless the run has one of its own) or a ``kept`` file (its digest: a patch, a list of packages). ``at`` below 0 counts
from the end. Where it cannot be, the answer is {"problem": why}. Only reads.
"""

from __future__ import annotations

import os
import re
import stat
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from mltrack.store.client.journal import run_folder
from mltrack.store.errors import BadInput, MltrackError
from mltrack.store.run_files import open_below, walk

MOST_ENTRIES = 20_000
PIECE_BYTES = 4 << 20
"""What one answer holds of a file at most."""
_RUN_ID = re.compile(r"[0-9a-f]{32}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def list_files(root: Path, run: str) -> dict[str, Any]:
    """The tree below a run's artifacts."""
    try:
        folder = _folder(root, run) / "artifacts"
        if folder.is_symlink() or not folder.is_dir():
            return {"entries": [], "more": 0}
        entries = walk(folder)
    except MltrackError as error:
        return {"problem": error.message}
    return {"entries": [*islice(entries, MOST_ENTRIES)], "more": max(0, len(entries) - MOST_ENTRIES)}


def read_file(root: Path, asked: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """A piece of a file, and what is to be said of it."""
    try:
        file, begin = _open(root, asked)
        with file:
            size = file.seek(0, os.SEEK_END)
            at = int(asked["at"])
            at = max(begin, size + at) if at < 0 else min(max(begin, at), size)
            file.seek(at)
            data = file.read(max(0, min(int(asked["size"]), PIECE_BYTES)))
    except MltrackError as error:
        return {"problem": error.message}, b""
    except OSError as error:
        return {"problem": f"{asked.get('name')}: {error.strerror}"}, b""
    return {"at": at, "bytes": len(data), "size": size, "begin": begin}, data


def _open(root: Path, asked: dict[str, Any]) -> tuple[BinaryIO, int]:
    """The file, and where in it what belongs to the run begins."""
    of, name = asked["of"], str(asked["name"])
    if of == "kept":
        if not _SHA256.fullmatch(name):
            raise BadInput("no digest")
        return _regular(root / "blobs" / name[:2] / name), 0
    folder = _folder(root, str(asked["run"]))
    if of == "artifact":
        return open_below(folder / "artifacts", name), 0
    if of != "log":
        raise BadInput(f"nothing of a run is called '{of}'")
    if (folder / "console.log").is_file():
        return _regular(folder / "console.log"), 0
    if not os.path.isabs(name):
        raise BadInput("it recorded no output")
    return _regular(Path(name)), max(0, int(asked["begin"]))


def _regular(path: Path) -> BinaryIO:
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise BadInput(f"{path} is not a file")
    return file


def _folder(root: Path, run: str) -> Path:
    if not _RUN_ID.fullmatch(run):
        raise BadInput("not a run")
    return run_folder(root, run)

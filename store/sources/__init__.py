"""Data of other tools, followed where it lies: one file per tool, each a reader that yields what the journals would hold.

A **source** is a path that a person named (``mltrack source add``, ``mltrack-tui PATH``). Its **reader** (``base.Reader``) does
four things and knows nothing of the database:

``recognise(path)``
    Whether what lies there is of its kind: from names and a few bytes, quickly.
``candidates(folder, folders, files)``
    For the search below a project's folder: which paths may be of its kind going by names alone.
``scan(known)``
    The runs that may have something new, live and newest first. ``known`` holds the *stamp* of every run that was read to its
    end; a reader compares it with a fresh one (mtimes, sizes) and opens only what differs. It yields ``None`` now and then,
    so that the caller can stop and go on later.
``read(found, position)``
    What is new of one run, as **pieces** (``base.Piece``): meta records as in docs/journal.md, points as columns, and the new
    position. A piece is small (some 100 kB), so that a large run costs no memory and a slice of work stays short.

``store/fold_sources.py`` folds pieces with the code that folds journals: a piece and its position go in with one transaction,
so each record counts exactly once. Where the reader stopped is the *position* (any text), known again at the next ``read``.

Rules for readers

- Nothing below a source is ever written, locked, renamed or touched.
- A run keeps its id: 32 hex digits are kept as they are, other names become ``base.stable_id(kind, what it is)``. What a run *is*,
  not where it lies: the same run reached by two ways is one run. Who reached it first owns it (``run.source``).
- Damage stays in its run: ``Piece.damage`` says file, line and reason, ``Piece.skipped`` counts records that could not be read;
  everything before (and where possible behind) them is yielded. ``scan`` and ``read`` may raise OSError; for one run it is noted
  with that run and its neighbours go on. A reader follows no links in loops, opens only regular files, and reads no file whole
  that has no right to be large (``base.read_small``).
- Values that change (tags, name, status) are yielded again with the same or a larger "t": the later record wins. What is gone
  is yielded as ``untag``.
- Status is what the source says (record ``status``), never a guess from the age of files; ``Piece.heard_ms`` is when the source
  last changed and makes an unfinished run "quiet".

Records beside those of the journal, for sources only: ``{"op": "status", "v": STATUS, "end": ms or None, "reason": text}``,
``{"op": "lost", "v": [LOST or KILLED, the proof, end in ms] or None}`` (of the piece's attempt, unless that says how it ended),
``{"op": "experiment", "v": name}``, ``{"op": "lifecycle", "v": "active" | "trash"}`` and ``{"op": "artifacts", "v": where}``: the
folder that holds the run's files, relative to the source's path, or absolute, or a URL. Every record has ``"t"`` (ms).
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mltrack.store.errors import BadInput
from mltrack.store.sources.base import Reader
from mltrack.store.ssh_address import remote_of

# Kind -> class, imported only when it is needed. The order is the order of asking: special before general.
KINDS = {
    "ssh": "ssh_store:SshReader",
    "mlruns": "mlruns:MlrunsReader",
    "mlflow_server": "mlflow_server:MlflowServerReader",
    "mlflow_db": "mlflow_db:MlflowDatabaseReader",
    "mltrack": "mltrack_store:MltrackReader",
    "wandb": "wandb_offline:WandbReader",
    "tensorboard": "tensorboard:TensorboardReader",
    "trackio": "trackio:TrackioReader",
    "neptune": "neptune:NeptuneReader",
    "lightning_csv": "lightning_csv:LightningReader",
}


def reader_class(kind: str) -> type[Reader]:
    """The reader of a kind. Raises KeyError."""
    module, _, name = KINDS[kind].partition(":")
    found: type[Reader] = getattr(importlib.import_module(f"mltrack.store.sources.{module}"), name)
    return found


def recognise(path: Path | str) -> str | None:
    """The kind of what lies at a path (or behind a URL), or None."""
    for kind in KINDS:
        if reader_class(kind).recognise(path):
            return kind
    return None


def absolute(path: str) -> str:
    """The one name of a source: links and relative parts resolved, so that two ways to it are one source."""
    if path.startswith("file://"):
        path = unquote(urlsplit(path).path)
    elif path.startswith("sqlite:///"):
        path = path.removeprefix("sqlite:///")
    if "://" in path:
        return path.rstrip("/")
    return os.path.realpath(os.path.expanduser(path))


def identify(path: str) -> tuple[str, str]:
    """The one name of a source and its kind. Raises BadInput when there is nothing, or nothing that a reader knows."""
    where = absolute(path)
    remote_of(where)  # an address that names no machine is said to be one
    if "://" in where and urlsplit(where).password:
        raise BadInput(
            "What is followed is remembered, so leave the password out of the URL and put it into ~/.pgpass or PGPASSWORD."
        )
    kind = recognise(where)
    if kind is not None:
        return where, kind
    if "://" not in where and not os.path.exists(where):
        raise BadInput(f"There is nothing at {where}.")
    raise BadInput(f"{where} holds nothing that can be followed. Known are: {', '.join(titles())}.")


def is_store(where: str, root: Path) -> bool:
    """Whether a source is the store at ``root`` itself, or the server of it that runs on this host."""
    if not where.startswith(("http://", "https://")):
        return where == os.path.realpath(root)
    from mltrack.store.mlflow_api.background import addresses

    return where in addresses(root)


def titles() -> list[str]:
    """What can be followed, for people."""
    return [reader_class(kind).title for kind in KINDS]


def open_reader(kind: str, path: Path | str) -> Reader:
    """A reader on a path. Raises KeyError for an unknown kind."""
    return reader_class(kind)(path)

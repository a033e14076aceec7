"""What every reader of a source gives: runs that changed, and pieces of them (see the package's docstring)."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from mltrack.store.sources.mlflow_files import ServerFiles

RUN_ID = re.compile(r"[0-9a-f]{32}")
# What a piece should hold at most: it is folded in one commit, while others wait for the lock.
PIECE_BYTES = 256 * 1024
PIECE_POINTS = 50_000
# A file that holds one value or one description is damaged when it is larger.
SMALL_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Found:
    """A run that may have something new. ``place`` names it below the source, in any form that the reader knows again.

    ``stamp`` is remembered when the run was read to its end; take it before reading, so that what changes meanwhile is seen the
    next time. ``live`` runs are read before those that have ended.
    """

    place: str
    stamp: str
    live: bool = False
    about: Any = None  # what the reader learnt while scanning and needs not to read again
    run: bool = True  # or a logged model


@dataclass(frozen=True, slots=True, eq=False)
class SourcePoints:
    """``n`` points: ``names[key[i]]`` is the metric; int32[n], int64[n], int64[n] ms, float64[n]."""

    names: Sequence[str]
    key: npt.NDArray[np.int32]
    step: npt.NDArray[np.int64]
    time_ms: npt.NDArray[np.int64]
    value: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.value)


@dataclass(frozen=True, slots=True)
class LoggedModel:
    """A model that a run logged, as MLflow 3 keeps it: a thing beside runs. ``location`` as the record ``artifacts`` has it.

    ``metrics`` are (run id, key, step, ms, value, dataset's name, its digest).
    """

    model_id: str
    experiment: str
    run_id: str
    name: str
    status: str
    model_type: str
    created_ms: int
    updated_ms: int
    location: str
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Sequence[tuple[str, str, int, int, float, str, str]] = ()
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Piece:
    """What one commit takes in of a run.

    ``attempt`` names a start of the run and sorts by it, ``<13-digit ms>-<anything>`` (empty: there is only one): a later one
    supersedes points from its first step on. ``damage`` is what is wrong with the run as far as this piece knows; the last
    piece of a ``read`` decides. ``skipped``: records that could not be read, beside those counted before. A piece without a
    ``run_id`` is about a logged ``model``, or says what is wrong with one. ``host``: where the run was made.
    """

    run_id: str
    position: str
    records: Sequence[Mapping[str, Any]] = ()
    points: SourcePoints | None = None
    attempt: str = ""
    rank: int = 0
    skipped: int = 0
    damage: str | None = None
    heard_ms: int | None = None
    model: LoggedModel | None = None
    host: str = ""


@dataclass(frozen=True, slots=True)
class ModelRow:
    """A version of a registered model, as the source has it. ``version`` 0 stands for the model itself."""

    name: str
    version: int = 0
    stage: str = "None"
    location: str = ""
    run_id: str = ""
    description: str = ""
    actor: str = ""
    created_ms: int = 0
    updated_ms: int = 0
    tags: Mapping[str, str] = field(default_factory=dict)
    aliases: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What belongs to no run: experiments (name -> note, tags) and models. ``stamp`` as in Found."""

    stamp: str
    experiments: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    models: Sequence[ModelRow] = ()
    damaged: Sequence[str] = ()


class Reader(ABC):
    """Reads one source. Kept for as long as the store is open: what was learnt in one scan may speed up the next."""

    kind: ClassVar[str]
    title: ClassVar[str]
    """For people: "MLflow folder"."""

    def __init__(self, path: Path | str) -> None:
        self.where = str(path)
        """The path as text, or the URL of a database."""
        self.path = Path(path)
        self.checkpoint = ""
        """Anything that scan wants to know again after a restart. Set it at the end of a scan: it is kept when all that the scan
        had found is taken in."""
        self.total = 0
        """How many runs the last scan listed."""
        self.unread = 0
        """How many of them were not known to the caller, who counts it down."""
        self.files: ServerFiles | None = None
        """Where the source is a server: how its runs' files are asked for."""

    def web_address(self, place: str) -> str:
        """Where a browser shows a run; "" where none does."""
        return ""

    @classmethod
    @abstractmethod
    def recognise(cls, path: Path | str) -> bool:
        """Whether the path is of this kind; False for what cannot be read."""

    @classmethod
    def candidates(cls, folder: str, folders: Sequence[str], files: Sequence[str]) -> Iterable[str]:
        """Paths at or directly below ``folder``, of which these are the entries, that may be of this kind going by their names.

        The search for sources asks ``recognise`` about them only, so that it need not open what lies in every folder.
        """
        return ()

    @abstractmethod
    def scan(self, known: Mapping[str, str]) -> Iterator[Found | None]:
        """Runs whose stamp is not the known one (place -> stamp), live and newest first. Raises OSError for the source."""

    @abstractmethod
    def read(self, found: Found, position: str) -> Iterator[Piece]:
        """What is new of a run behind ``position`` ("" at first). Raises OSError for this run."""

    def want(self, place: str, key: str, seconds: float) -> bool:
        """Somebody looks at a series of a run; a reader that had left it out gets it now. Waits at most ``seconds`` for it.
        True when ``scan`` will yield it."""
        return False

    def is_run(self, folder: str) -> bool:
        """Whether a folder among the files of a run is a run of its own: an import of the one leaves it to the other."""
        return False

    def look_again(self, runs: bool = True, seconds: float = 0.0) -> bool:
        """What is there was changed by us a moment ago, of runs too or in the registry alone. Who asks in the background does so
        soon, and waits at most ``seconds`` for it. Whether the next ``scan`` shows it."""
        return True

    def await_registry(self, seconds: float) -> bool:
        """Wait until experiments and models can be told, where they are asked for in the background. Whether they can."""
        return True

    def catalogue(self, stamp: str) -> Catalogue | None:
        """Experiments and models, when they have changed since ``stamp``."""
        return None


def stable_id(kind: str, what: str) -> str:
    """A run id for a run whose tool gave it none of ours: 32 hex digits that depend only on what the run is."""
    return hashlib.sha256(f"{kind}\0{what}".encode("utf-8", "surrogateescape")).hexdigest()[:32]


def open_regular(path: Path | str) -> int:
    """A descriptor for reading; OSError when it is no regular file (opening a pipe would wait forever)."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return fd


def read_small(path: Path | str, limit: int = SMALL_BYTES) -> bytes:
    """The whole of a file that may not be large. Raises OSError, also when it is larger than ``limit``."""
    fd = open_regular(path)
    try:
        parts: list[bytes] = []
        size = 0
        while block := os.read(fd, min(limit + 1 - size, 1 << 20)):
            parts.append(block)
            size += len(block)
            if size > limit:
                raise OSError(errno.EFBIG, f"larger than {limit >> 10} kB", str(path))
        return b"".join(parts)
    finally:
        os.close(fd)


def points(
    names: Sequence[str],
    key: Sequence[int],
    step: Sequence[int],
    time_ms: Sequence[int],
    value: Sequence[float],
) -> SourcePoints:
    """Points from plain lists. Raises OverflowError for a number that no 64 bits hold."""
    return SourcePoints(
        names,
        np.array(key, np.int32),
        np.array(step, np.int64),
        np.array(time_ms, np.int64),
        np.array(value, np.float64),
    )


def why(error: OSError) -> str:
    """The reason of an OSError without its number."""
    return error.strerror or str(error) or type(error).__name__

"""Starting companions: of a spool, which sends it to its remote store, and of a store whose artifacts go to an object store. One per
store, detached, outliving the training."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from mltrack.store.client.run import ActiveRun

# A companion goes on for a minute after the last artifact; this often one is started in case that has just ended.
START_SECONDS = 30.0


def start_shipper(url: str, spool: Path, warn: Callable[[str], None]) -> None:
    """Start ``python -m mltrack.store.sync``, which ends by itself when another one is at work or nothing is left."""
    if not _at_work(spool / "locks" / "ship"):
        _start("mltrack.store.sync", url, "the shipper", "spool", warn)


def start_uploader(url: str, warn: Callable[[str], None]) -> None:
    """Start ``python -m mltrack.store.upload``, which sends a store's artifacts on, and ends by itself like the other."""
    _start("mltrack.store.upload", url, "the companion that uploads artifacts", "artifacts", warn)


def _at_work(lock: Path) -> bool:
    """Whether a companion holds its lock. It looks once more after it has let go, so that what was there before this question is
    not left lying. To start one only for it to find that out costs half a second of the processor, at every run of a sweep."""
    import fcntl

    try:
        fd = os.open(lock, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False  # nobody ever was, or the locks lie elsewhere: the one that is started looks itself
    try:
        # Shared, so that two who ask at once do not take each other for a companion.
        fcntl.lockf(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (
        BlockingIOError,
        PermissionError,
    ):  # which of them a lock that is held gives is the system's choice
        return True
    except OSError:
        return False
    finally:
        os.close(fd)
    return False


def send_artifacts(run: ActiveRun) -> None:
    """See to it that a companion sends what was just logged, and once more at the end of the run, whatever ended meanwhile."""
    first = not run.sending
    if not first and monotonic() - run.sending < START_SECONDS:
        return
    run.sending = monotonic()
    if not first:
        start_uploader(str(run.journal.root), run.trouble)
        return
    from mltrack.store.client import destination

    try:
        addresses = destination.read(run.journal.root).addresses()
        missing = next(filter(None, map(destination.missing_extra, addresses)), "")
    except destination.DestinationError as error:
        missing = str(error)
    if missing:
        run.trouble(f"artifacts stay here: {missing}; 'mltrack ship' sends them later")
        run.sending = float("inf")  # said once
        return
    start_uploader(str(run.journal.root), run.trouble)
    run.on_end.append(lambda: start_uploader(str(run.journal.root), run.trouble))


def _start(module: str, url: str, what: str, left: str, warn: Callable[[str], None]) -> None:
    """The address goes by environment, not by argument: it may hold a password, and arguments are public on the box."""
    environment = {**os.environ, "MLTRACK_STORE": url}
    try:
        subprocess.Popen(
            [sys.executable, "-m", module],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            close_fds=True,
        )
    except OSError as error:
        warn(f"{what} could not be started ({error.strerror}); 'mltrack ship' sends the {left} later")

"""Starting the companion that sends a spool to its remote store: one per spool, detached, outliving the training."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable


def start_shipper(url: str, warn: Callable[[str], None]) -> None:
    """Start ``python -m mltrack.store.sync``, which ends by itself when another one is at work or nothing is left.

    The address goes by environment, not by argument: it may hold a password, and arguments are public on the box.
    """
    environment = {**os.environ, "MLTRACK_STORE": url}
    try:
        subprocess.Popen(
            [sys.executable, "-m", "mltrack.store.sync"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            close_fds=True,
        )
    except OSError as error:
        warn(f"the shipper could not be started ({error.strerror}); 'mltrack ship' sends the spool later")

"""`--demo`: a store with a story that goes on while the app is open. Standard library only."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType

_PATIENCE_SECONDS = 5.0


class LiveDemo:
    """A process that tells the story, and the folder it tells it in. A context manager."""

    def __init__(self, folder: str = "") -> None:
        """``folder``: a new one that stays; without it one that is gone when the app is left."""
        self._above = "" if folder else tempfile.mkdtemp(prefix="mltrack-demo-")
        self.folder = Path(folder).absolute() if folder else Path(self._above) / "demo"
        """The store; there as soon as the first run is."""
        code = (
            "import sys; sys.path[:1] = []; from mltrack.tui.cli.main import main; "
            f"main(['demo', {str(self.folder)!r}, '--live'])"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # ctrl+c is the app's
        )

    def __enter__(self) -> LiveDemo:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._above:
            shutil.rmtree(self._above, ignore_errors=True)

"""What an image of a model runs: ``python -m mltrack.projects.serve_image FOLDER PORT``.

It listens on every address of its container: whoever publishes the port decides who reaches it. With a file named by
MLTRACK_TOKEN_FILE it asks for the token in it.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from mltrack.projects.serving import Options, Server, find
from mltrack.store.errors import MltrackError


def main() -> int:
    """Serve until told to stop; 1 when the model cannot be served."""
    token = os.environ.get("MLTRACK_TOKEN_FILE")
    options = Options(
        host="0.0.0.0",
        port=int(sys.argv[2]),
        workers=int(os.environ.get("MLTRACK_WORKERS", "1")),
        token_file=Path(token) if token else None,
        record=False,
        contained=True,
    )

    def say(sentence: str) -> None:
        sys.stdout.write(sentence + "\n")
        sys.stdout.flush()

    try:
        asyncio.run(Server(None, find(None, sys.argv[1]), options, say).serve())
    except MltrackError as error:
        sys.stderr.write(error.message + "\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

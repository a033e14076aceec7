"""Copying from a terminal, without claiming more than is known.

tmux takes a buffer and says so. A terminal gets OSC 52 and answers nothing, so nobody knows whether it took it. A file
always has it.
"""

from __future__ import annotations

import base64
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from mltrack.tui.draw.numbers import format_bytes

# Terminals drop longer sequences without a word; xterm's limit is the lowest known.
_OSC_BYTES = 74_994
_TMUX_SECONDS = 2.0


def copy_file() -> Path:
    """Where what was copied last lies."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return Path(base if os.path.isabs(base) else os.path.expanduser("~/.cache")) / "mltrack" / "copied.txt"


def copy_text(
    text: str, send: Callable[[str], object], environ: Mapping[str, str] | None = None
) -> tuple[str, bool]:
    """Copy ``text`` every way there is; ``send`` writes to the terminal. (sentence, whether it is anywhere at all).

    Blocks for at most two seconds, when tmux does not answer.
    """
    environ = os.environ if environ is None else environ
    size = format_bytes(len(text.encode("utf-8", "surrogateescape")))
    kept = _keep(text)
    where = f"in {kept}" if isinstance(kept, Path) else f"not in a file ({kept})"
    if environ.get("TMUX"):
        trouble = _to_tmux(text)
        if not trouble:
            return f"Copied {size} to tmux's buffer (prefix ] pastes), and {where}", True
        why = f"tmux did not take it ({trouble})"
    else:
        why = ""
    encoded = base64.b64encode(text.encode("utf-8", "surrogateescape"))
    if len(encoded) > _OSC_BYTES:
        return f"{size} is more than a terminal's clipboard takes; it is {where}", isinstance(kept, Path)
    sequence = f"\x1b]52;c;{encoded.decode()}\x07"
    # Inside tmux an unknown sequence must be wrapped, or tmux swallows it.
    send("\x1bPtmux;" + sequence.replace("\x1b", "\x1b\x1b") + "\x1b\\" if why else sequence)
    start = f"{why}; " if why else ""
    return (
        f"{start}sent {size} to the terminal's clipboard (OSC 52; not every one takes it), and {where}",
        True,
    )


def _keep(text: str) -> Path | str:
    """The file that has it, or why there is none."""
    path = copy_file()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}")
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(text.encode("utf-8", "surrogateescape"))
        os.replace(part, path)
    except OSError as error:
        return f"{path}: {error.strerror}"
    return path


def _to_tmux(text: str) -> str:
    """Hand it to tmux; what went wrong, or "". -w passes it on to the terminal where tmux may do that."""
    trouble = ""
    for arguments in (("load-buffer", "-w", "-"), ("load-buffer", "-")):
        try:
            done = subprocess.run(
                ["tmux", *arguments],
                input=text.encode("utf-8", "surrogateescape"),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=_TMUX_SECONDS,
            )
        except OSError as error:
            return str(error.strerror)
        except subprocess.TimeoutExpired:
            return "no answer"
        if done.returncode == 0:
            return ""
        trouble = done.stderr.decode("utf-8", "replace").strip()[:80] or f"exit code {done.returncode}"
    return trouble

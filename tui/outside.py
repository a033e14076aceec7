"""What lies outside of the terminal: a folder, a file or a web address, opened with the desktop's program where there is a
desktop; elsewhere, as over SSH, its place is said."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys


def open_outside(target: str, what: str) -> tuple[str, bool]:
    """Open an absolute path or an http(s) address. Returns a sentence for the person, and whether something was opened.

    ``what`` is its name in a sentence, like "the run's folder".
    """
    here = f"{what[0].upper()}{what[1:]}: {target}"
    web = target.startswith(("http://", "https://"))
    if not web and not os.path.isabs(target):
        return f"{here}   (not a place on this machine)", False
    if not web and not os.path.exists(target):
        return f"{here}   (not on this machine)", False
    program = _program(web)
    if program is None:
        return f"{here}   (no desktop here to open it with)", False
    try:
        subprocess.Popen(
            [program, target],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        return f"{here}   ({program}: {error.strerror})", False
    return f"{here}   (opened with {os.path.basename(program)})", True


def _program(web: bool) -> str | None:
    """What opens things here: $BROWSER for web addresses, else the desktop's own program; None without a desktop."""
    browser = os.environ.get("BROWSER", "").partition(os.pathsep)[0]
    if web and browser and shutil.which(browser):
        return shutil.which(browser)
    if sys.platform == "darwin":
        return shutil.which("open")
    if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        return shutil.which("xdg-open")
    return None

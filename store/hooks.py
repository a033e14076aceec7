"""Commands of this user or site that hear of promotions and alerts: told on standard input, after the fact, and never able
to undo it.

They stand in ``/etc/mltrack/config.toml`` and the user's own ``config.toml``, never in the store: what a colleague writes into a shared
store must not run in my name.

    [hooks]
    promote = ["notify-send", "mltrack"]
    alert = ["/home/ann/bin/tell-me"]
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from mltrack.store.client.location import site_file, user_data_folder

EVENTS = ("request", "promote", "rollback", "served-differs", "audit-head", "alert")
SECONDS = 30.0
_REMEMBERED_SECONDS = 30 * 24 * 3600


def user_file() -> Path:
    """The user's configuration file."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    return Path(base if os.path.isabs(base) else os.path.expanduser("~/.config")) / "mltrack" / "config.toml"


def hooks_for(event: str) -> list[list[str]]:
    """The commands for an event, the site's before the user's. A file that cannot be read names none."""
    found: list[list[str]] = []
    for path in (site_file(), user_file()):
        try:
            with path.open("rb") as file:
                command = tomllib.load(file).get("hooks", {}).get(event)
        except (OSError, tomllib.TOMLDecodeError, AttributeError):
            continue
        if isinstance(command, list) and command and all(isinstance(part, str) for part in command):
            found.append(command)
    return found


def tell(event: str, facts: Mapping[str, Any]) -> list[str]:
    """Run the hooks of an event with its facts as JSON on standard input. Returns a sentence for each that failed."""
    failed: list[str] = []
    body = orjson.dumps({"event": event, **facts})
    for command in hooks_for(event):
        try:
            done = subprocess.run(
                command,
                input=body,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=SECONDS,
                start_new_session=True,
                check=False,
            )
            if done.returncode:
                failed.append(f"The hook {command[0]} for {event} ended with exit code {done.returncode}.")
        except OSError as error:
            failed.append(f"The hook {command[0]} for {event} cannot be started ({error.strerror}).")
        except subprocess.TimeoutExpired:
            failed.append(f"The hook {command[0]} for {event} took more than {SECONDS:.0f} s and was ended.")
    return failed


def tell_once(event: str, identity: str, facts: Mapping[str, Any]) -> list[str]:
    """As ``tell``, but only for the first of this user's programs that says so: several may see the same thing."""
    if not hooks_for(event) or not _claim(hashlib.sha256(f"{event} {identity}".encode()).hexdigest()):
        return []
    return tell(event, facts)


def _claim(name: str) -> bool:
    folder = user_data_folder() / "told"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        old = time.time() - _REMEMBERED_SECONDS
        for path in folder.iterdir():
            if path.stat().st_mtime < old:
                path.unlink(missing_ok=True)
        os.close(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return False
    except OSError:
        return True  # better told twice than never
    return True

"""Journey J5: two people of one machine, each with the app in a terminal of their own, on a store of their group."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Command = tuple[tuple[str, ...], dict[str, str]]
OpenApp = Callable[..., Any]
GROUP = 60  # both people are in it; that it has a name matters to nobody
MLMODEL = (
    "flavors: {python_function: {loader_module: os}}\n"
    'signature: {inputs: \'[{"type": "double", "name": "a"}]\'}\n'
)


class Person:
    """A Unix user. Reads what this process may read (the interpreter may lie in a private folder), writes as themselves."""

    def __init__(self, name: str, store: Path, command: Command, folder: Path) -> None:
        entry = pwd.getpwnam(name)
        self.name = name
        self.before = (
            *("sh", "-c", 'umask 007; exec "$@"', "sh"),
            *("setpriv", f"--reuid={entry.pw_uid}", f"--regid={GROUP}", "--clear-groups"),
            *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", "--"),
        )
        home = folder / name
        home.mkdir()
        os.chown(home, entry.pw_uid, GROUP)
        kept = {key: value for key, value in command[1].items() if not key.startswith("XDG_")}
        self.environment = {**kept, "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
        self._command = (*self.before, *command[0], "--store", str(store), "models")
        self._store = store

    def models(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._command, *arguments], env=self.environment, capture_output=True, text=True, timeout=120
        )

    def open(self, open_app: OpenApp) -> Any:
        app = open_app(
            self.environment,
            "--store",
            str(self._store),
            "--screen",
            "models",
            columns=110,
            lines=32,
            before=self.before,
        )
        app.until("audit chain")
        return app


@pytest.fixture
def people(command: Command) -> Iterator[tuple[Person, Person]]:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs to be root, and setpriv (Debian's util-linux), to be two people")
    # Not pytest's own folder, which nobody else may enter.
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield two_people(Path(name), command)


def two_people(tmp_path: Path, command: Command) -> tuple[Person, Person]:
    """daemon and bin, on a store of their group with three versions of churn, the first in Production."""
    store = tmp_path / "store"
    store.mkdir()
    os.chown(store, 0, GROUP)
    store.chmod(0o2770)
    ann, bob = (Person(name, store, command, tmp_path) for name in ("daemon", "bin"))
    for number in (1, 2, 3):
        folder = tmp_path / f"model{number}"
        folder.mkdir()
        (folder / "MLmodel").write_text(MLMODEL)
        (folder / "weights").write_text(str(number))
        done = ann.models("register", str(folder), "--name", "churn")
        assert done.returncode == 0, done.stderr
    assert ann.models("promote", "churn/1", "Production", "-m", "first").returncode == 0
    assert ann.models("policy", "churn", "approvals=1").returncode == 0
    return ann, bob


def test_one_asks_the_other_approves_one_is_too_late(
    people: tuple[Person, Person], open_app: OpenApp
) -> None:
    ann, bob = people
    hers, his = ann.open(open_app), bob.open(open_app)
    # The newest version is looked at first; `l` goes to the one before: v2.
    his.press("l").until("v2 against v1")
    his.press("P").until("stage or @alias")
    his.press("Production\r").until("Why")
    his.press("passes shadow week 46\r").until("Asked for churn v2 to Production")
    hers.until("1 request waits for you")
    hers.press("P").until("bin asks for churn v2 to Production")
    hers.press("y\r").until("Why")
    hers.press("looks good\r").until("Approved churn v2 to Production")
    his.until("v2 .*daemon.*approved|v2 Production|approved v2")
    assert json.loads(bob.models("list", "--json").stdout)[0]["production"] == [2]
    # Somebody may go back without asking again, once the board says where that leads.
    hers.redrawn(r"way back.{0,40}v1")
    hers.press("B").until("Why")
    hers.press("latency x3\r").until("Type Production")
    hers.press("Production\r").until("Rolled back churn to v1")
    assert json.loads(bob.models("list", "--json").stdout)[0]["production"] == [1]
    # Without the policy both may promote; she is faster while his question stands.
    assert ann.models("policy", "churn", "approvals=0", "goal=auc").returncode == 0
    his.until("goal auc")
    his.press("P").until("stage or @alias")
    his.press("Production\r").until("Why")
    his.press("mine\r").until("Type Production")
    assert ann.models("promote", "churn/3", "Production", "-m", "hers").returncode == 0
    his.press("Production\r").until(r"Production of churn is now v3 \(by daemon")
    for app in (hers, his):
        app.press("Q")
        assert app.finish() == 0
        assert app.left_as_found()
    rows = json.loads(bob.models("history", "churn", "--json").stdout)
    told = [(row["user"], row["action"], row["channel"], row["identity"]) for row in rows]
    assert ("bin", "asked", "tui", "kernel") in told
    assert ("daemon", "approved", "tui", "kernel") in told
    assert ("daemon", "rolled back", "tui", "kernel") in told
    assert rows[-1]["reason"] == "hers" and rows[-1]["user"] == "daemon"
    assert ann.models("audit", "--verify").returncode == 0

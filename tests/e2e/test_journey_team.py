"""Journey J6: three people of one machine on one store, each with the app in a terminal of their own."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
GROUP = "games"
APP = (sys.executable, "-m", "mltrack.tui.entry")
COMMAND = (sys.executable, "-m", "mltrack.tui.cli")
UMASKS = {"daemon": "022", "bin": "077", "sys": "002"}
TRAINING = """
import sys, time, mltrack
with mltrack.start_run(run_name=sys.argv[1], experiment="vision", system_metrics=False):
    mltrack.log_param("lr", float(sys.argv[2]))
    step = 0
    while step < 20 or sys.argv[3:] == ["on"]:
        step += 1
        mltrack.log_metric("val/acc", 1 - 1 / (1 + step), step)
        if step >= 20:
            time.sleep(0.1)
"""


class Person:
    """A Unix user of the group with a home of their own. Reads what this process may read (the interpreter may lie in a private
    folder); writes, and sends signals, as themselves."""

    def __init__(self, name: str, place: Path) -> None:
        entry = pwd.getpwnam(name)
        self.name = name
        home = place / f"home-{name}"
        home.mkdir()
        os.chown(home, entry.pw_uid, -1)
        self.words = (
            *("env", "-i", f"HOME={home}", f"PATH={os.environ['PATH']}", f"PYTHONPATH={ROOT / 'src'}", "LC_ALL=C.UTF-8"),
            *("TERM=xterm-256color", "SHELL=/bin/sh", "PYTHONDONTWRITEBYTECODE=1", f"MLTRACK_SITE_FILE={place / 'site.toml'}"),
            *("sh", "-c", f'umask {UMASKS[name]}; cd; exec "$@"', "sh"),
            *("setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", f"--groups={GROUP}"),
            *("--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search", "--bounding-set=-all,+dac_read_search", "--"),
        )  # fmt: skip

    def run(self, *command: str) -> str:
        done = subprocess.run([*self.words, *command], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, (self.name, done.stderr)
        return done.stdout

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*self.words, *command])


@pytest.fixture
def place() -> Iterator[Path]:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs to be root, and setpriv (Debian's util-linux), to be three people")
    # Not pytest's own folder, which nobody else may enter.
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_a_team_on_one_box(place: Path, terminal: Callable[..., Any]) -> None:
    """Whose is what, mine and all, a question that names the owner, a change that the others see and that can be taken back."""
    script = place / "train.py"
    script.write_text(TRAINING)
    made = subprocess.run(
        [*COMMAND, "init", str(place / "srv"), "--group", GROUP],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "MLTRACK_SITE_FILE": str(place / "site.toml")},
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    ann, bob, eve = (Person(name, place) for name in UMASKS)
    for each, rate in ((ann, "0.1"), (bob, "0.2"), (eve, "0.3")):
        each.run(sys.executable, str(script), f"by-{each.name}", rate)
    hers, his, third = (terminal(140, 30, *each.words, *APP) for each in (ann, bob, eve))
    for window, each in ((hers, ann), (his, bob), (third, eve)):
        window.until(rf"{each.name}@")
        window.until("OWNER")
        for name in UMASKS:
            window.until(rf"by-{name} [^\n]* {name} ")

    # Mine, and all again.
    his.type("/").type("mine").until("/ mine")
    his.press("Enter")
    lines = his.until(r"1 of 3")
    assert any("by-bin" in line for line in lines) and not any("by-daemon" in line for line in lines)
    his.type("q").until(r"by-daemon")  # out of the filter

    # What one logs, the others see; the question before it is stopped names process, host and owner, and the kernel has the last word.
    training = ann.start(sys.executable, str(script), "goes-on", "0.4", "on")
    try:
        for window in (his, third):
            window.until("goes-on")
        his.until(r"goes-on [^\n]* daemon ")
        his.type("g").until("▌[^\n]*goes-on")
        his.type("X").until(r"Stop goes-on: process \d+ on \S+, of daemon\?")
        his.type("y").until("belongs to somebody else; only its owner can stop it")
        assert training.poll() is None
        hers.until("goes-on")
        hers.type("g").until("▌[^\n]*goes-on")
        hers.type("X").until(r"Stop goes-on: process \d+ on \S+, of daemon\?")
        hers.type("y").until("Asked process|SIGTERM")
        training.wait(60)
    finally:
        training.kill()
        training.wait(30)

    # Another's run goes to the trash only after a question that says whose it is, No being the answer of a hasty enter.
    his.until(r"goes-on[^\n]*(signal|✗|SIGTERM)")
    his.type("/").type("name = by-daemon").until("/ name = by-daemon")
    his.press("Enter").until("1 of 4")
    his.type("D").until(r"Delete by-daemon of daemon to trash \([\d.]+ .?B, kept 30 days\)\?")
    his.press("Enter")
    his.wait_for(lambda: not any("Delete by-daemon" in line for line in his.screen()))
    his.type("D").until(r"Delete by-daemon of daemon to trash")
    his.type("y").until("Moved .* to the trash.*u takes it back")
    third.wait_for(lambda: not any("by-daemon" in line for line in third.screen()))
    his.type("u").until("Undid")
    third.until("by-daemon")
    for window in (hers, his, third):
        window.type("Q")
        assert window.ended() == 0
    rows = json.loads(eve.run(*COMMAND, "ls", "--json"))
    assert {(row["run_name"], row["user"]) for row in rows} == {
        *((f"by-{name}", name) for name in UMASKS),
        ("goes-on", "daemon"),
    }
    decisions = [json.loads(line) for line in (place / "srv" / "decisions.jsonl").read_text().splitlines()]
    assert [(record["actor"], record["kind"]) for record in decisions[-2:]] == [
        ("bin", "do"),
        ("bin", "undo"),
    ]

"""A store of a group: two Unix users with the usual umask of 022 log into it, fold it and keep it, and none shuts the other out."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

GROUP = 60  # both people are in it; that it has a name matters to nobody
TRAIN = """
import os, sys, mltrack
os.chmod(sys.argv[3], 0o400)
with mltrack.start_run(run_id=sys.argv[1], run_name=sys.argv[2], experiment="shared"):
    for step in range(50):
        mltrack.log_metric("loss", step / 7)
    mltrack.log_text("kept", "notes/a.txt")
    mltrack.log_artifact(sys.argv[3])
    mltrack.log_input(sys.argv[3])
    print("said by", sys.argv[2])
"""
RESUME = """
import sys, mltrack
with mltrack.start_run(run_id=sys.argv[1]):
    mltrack.log_metric("more", 1)
"""
KEEP = """
import sys
from mltrack.store import open_store
with open_store() as store:
    store.refresh(None)
    store.set_tags([sys.argv[1]], {"seen": "1"})
    store.note(sys.argv[1], "looked at")
    store.backup()
    store.gc()
    store.seal(older_than_seconds=-1)
"""
Run = Callable[..., str]


@pytest.fixture
def store() -> Iterator[Path]:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs to be root, and setpriv (Debian's util-linux), to be two people")
    # Not pytest's own folder, which nobody else may enter.
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name) / "store"


def person(name: str, folder: Path) -> Run:
    """Runs Python or the command as this user. It may read what this process may (the interpreter may lie in a private
    folder), so that what others can read is asserted by permission bits; it writes as itself."""
    entry = pwd.getpwnam(name)
    home = folder / name
    home.mkdir()
    os.chown(home, entry.pw_uid, entry.pw_gid)
    before = (
        *("sh", "-c", 'umask 022; exec "$@"', "sh"),
        *("setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", f"--groups={GROUP}"),
        *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", "--"),
    )
    kept = {key: value for key, value in os.environ.items() if not key.startswith("XDG_")}

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [*before, sys.executable, *arguments],
            env={
                **kept,
                "HOME": str(home),
                "PYTHONDONTWRITEBYTECODE": "1",
                "MLTRACK_STORE": str(folder / "store"),
            },
            cwd=home,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        assert not done.stderr, done.stderr
        return done.stdout

    return run


def test_two_people_share_a_store(store: Path) -> None:
    folder = store.parent
    (folder / "store").mkdir()
    os.chown(store, pwd.getpwnam("daemon").pw_uid, -1)
    ann, bob = person("daemon", folder), person("bin", folder)
    command = ("-m", "mltrack.tui.cli")
    assert "shared with the group 60" in ann(*command, "init", str(store), "--group", str(GROUP))
    for number, (who, name) in enumerate(((ann, "hers"), (bob, "his"))):
        data = folder / ("daemon", "bin")[number] / "data.bin"
        data.write_bytes(b"weights")
        os.chown(data, pwd.getpwnam(("daemon", "bin")[number]).pw_uid, -1)
        who("-c", TRAIN, f"{number:032x}", name, str(data))
        assert name in who(*command, "ls", "--csv")
    # Each goes on with the other's run, decides about it, and keeps the store.
    for who, number, other in ((ann, 1, "his"), (bob, 0, "hers")):
        who("-c", RESUME, f"{number:032x}")
        who("-c", KEEP, f"{number:032x}")
        shown = who(*command, "show", other)
        assert "looked at" in shown and "more" in shown
        assert f"said by {other}" in who(*command, "logs", other)
    assert list(store.rglob("*.jsonl.zst")) and list(store.rglob("data.bin"))
    for path in (store, *store.rglob("*")):
        facts = path.lstat()
        mode = stat.S_IMODE(facts.st_mode)
        wanted = (0o2770,) if path.is_dir() else (0o660,)
        assert facts.st_gid == GROUP and mode in wanted, f"{path} {oct(mode)} of group {facts.st_gid}"

"""A store of somebody else: read, followed into a cache of our own, never written."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

import mltrack
from mltrack.store import open_store

READ = """
import os, sys
# All modules first: another user may not be able to read the interpreter's own folder.
from mltrack.store import open_store
from mltrack.store.errors import ReadOnly
from mltrack.store import database
schema = database.schema_sql()
database.schema_sql = lambda: schema
with open_store(sys.argv[3]) as warm:
    warm.refresh(None)
    warm.runs(warm.search("").run_ids)
os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
with open_store(sys.argv[1]) as store:
    report = store.refresh(None)
    run = store.run("@last")
    points = store.points(run.run_id, "loss")
    print(run.name, run.note, len(points.values), points.values[-1], *store.location.notes)
    try:
        store.note(run.run_id, "x")
    except ReadOnly as error:
        print("refused:", error.message)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user: run the tests as root")
def test_another_user_follows_a_store_they_may_not_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "theirs"
    mltrack.set_store(str(root))
    try:
        with mltrack.start_run(run_name="shared", system_metrics=False) as run:
            for step in range(50):
                mltrack.log_metric("loss", step / 7, step)
        with open_store(str(root)) as store:
            store.refresh(None)
            store.note(run.run_id, "look")
    finally:
        mltrack.set_store(None)
    for path in [root, *root.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    for path in tmp_path.parents:
        if path.stat().st_uid == 0 and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o055)
    tmp_path.chmod(0o755)
    home = tmp_path / "home"
    home.mkdir()
    nobody = pwd.getpwnam("nobody")
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    package = Path(mltrack.__file__).parent.parent
    environment = {
        **os.environ,
        "PYTHONPATH": str(package),
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
    }
    done = subprocess.run(
        [sys.executable, "-c", READ, str(root), str(nobody.pw_uid), str(tmp_path / "warm")],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "shared look 50 7.0" in done.stdout and "is followed" in done.stdout and "refused:" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before

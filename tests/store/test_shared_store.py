"""A store of a group: three Unix users with umasks of their own, one folder, and the kernel's word on who made what."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mltrack.projects.gpus import Lease, lease_folder
from mltrack.store import open_store
from mltrack.store.client.location import choose_store
from mltrack.store.errors import BadInput
from mltrack.store.sharing import make_store

GROUP = "games"
PEOPLE = {"daemon": "022", "bin": "077", "sys": "002"}
COMMAND = [sys.executable, "-c", "from mltrack.tui.cli.main import main; main()"]
TRAINING = """
import os, sys, mltrack
with mltrack.start_run(name=sys.argv[1]):
    mltrack.log_param("who", sys.argv[1])
    for step in range(20):
        mltrack.log_metric("loss", 1 / (step + 1), step)
    mltrack.log_text("a", "notes.txt")
"""


@dataclass
class Person:
    """A Unix user of the group. Reads what this process may read (the interpreter may lie in a private folder)."""

    name: str
    group: str
    environment: dict[str, str]

    def run(self, *command: str, reads_all: bool = True) -> subprocess.CompletedProcess[str]:
        entry = pwd.getpwnam(self.name)
        umask = PEOPLE.get(self.name, "022")
        more = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"] if reads_all else []
        before = ["sh", "-c", f'umask {umask}; exec "$@"', "sh", "setpriv", f"--reuid={entry.pw_uid}"]
        before += [f"--regid={entry.pw_gid}", f"--groups={self.group or entry.pw_gid}", *more, "--"]
        return subprocess.run(
            [*before, *command], env=self.environment, capture_output=True, text=True, timeout=120
        )

    def mltrack(self, *arguments: str) -> str:
        done = self.run(*COMMAND, *arguments)
        assert done.returncode == 0, (self.name, done.stderr)
        return done.stdout


@pytest.fixture
def place() -> Iterator[Path]:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs to be root, and setpriv (Debian's util-linux), to be three people")
    # Not pytest's own folder, which nobody else may enter.
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def person(name: str, place: Path, group: str = GROUP) -> Person:
    home = place / f"home-{name}"
    home.mkdir()
    os.chown(home, pwd.getpwnam(name).pw_uid, -1)
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("XDG_", "MLTRACK_STORE", "PYTEST"))
    }
    kept |= {"HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1", "MLTRACK_SITE_FILE": str(place / "site.toml")}
    return Person(name, group, kept)


def test_three_people_on_one_store(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLTRACK_SITE_FILE", str(place / "site.toml"))
    root = place / "srv" / "mltrack"
    made = make_store(root, GROUP)
    assert not made.left and (place / "site.toml").read_text() == f'store = "{root}"\n'
    monkeypatch.delenv("MLTRACK_STORE", raising=False)
    monkeypatch.chdir(place)
    assert choose_store().root == root
    ann, bob, eve = (person(name, place) for name in PEOPLE)
    script = place / "train.py"
    script.write_text(TRAINING)
    # Nobody names the store: the site file does. Each is the first to fold something.
    for each in (ann, bob, eve):
        done = each.run(sys.executable, str(script), f"by-{each.name}")
        assert done.returncode == 0 and not done.stderr, done.stderr
        assert each.mltrack("show", f"by-{each.name}", "--json")
    rows = json.loads(bob.mltrack("ls", "--json"))
    assert {(row["run_name"], row["user"]) for row in rows} == {(f"by-{name}", name) for name in PEOPLE}
    assert {row["metrics"]["loss"] for row in rows} == {0.05}
    # Everybody may change everything, and each change has its maker.
    for each, other in ((ann, "bin"), (bob, "sys"), (eve, "daemon")):
        each.mltrack("tag", f"by-{other}", f"seen={each.name}")
    with open_store(str(root)) as store:
        assert {store.run(f"by-{name}").tags["seen"] for name in PEOPLE} == set(PEOPLE)
        actors = store.database.execute("SELECT DISTINCT actor FROM decision")
        assert {str(actor) for (actor,) in actors} == set(PEOPLE)
    eve.mltrack("backup")
    ann.mltrack("gc")
    wrong = []
    for base, folders, files in os.walk(root):
        for name in (*folders, *files):
            facts = os.lstat(os.path.join(base, name))
            wanted = 0o2770 if stat.S_ISDIR(facts.st_mode) else 0o660
            if os.path.basename(base) != "leases" and (
                stat.S_IMODE(facts.st_mode) != wanted or facts.st_gid != 60
            ):
                wrong.append((base, name, oct(facts.st_mode), facts.st_gid))
    assert not wrong
    # Somebody outside the group sees nothing of it.
    outsider = person("nobody", place, group="")
    for what in (root, root / "mltrack.db", root / "runs"):
        look = ["head", "-c1", str(what)] if what.is_file() else ["ls", str(what)]
        assert outsider.run(*look, reads_all=False).returncode != 0
        assert ann.run(*look, reads_all=False).returncode == 0


def test_a_name_that_is_not_ones_own_is_not_believed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = place / "store"
    make_store(root, GROUP, site=False)
    liar = person("bin", place)
    liar.environment["MLTRACK_STORE"] = str(root)
    says = "import mltrack.store.client.host as h; h.user = lambda: 'daemon'\n"
    assert liar.run(sys.executable, "-c", says + TRAINING, "mine").returncode == 0
    with open_store(str(root)) as store:
        store.refresh(None)
        assert store.run("mine").user == "bin"
        # Sealing keeps whose file it was, so that a database built anew says the same.
        assert store.seal(0).count_by_kind["sealed journals"] == 2
    assert not list(root.glob("runs/*/*/*.jsonl"))
    for name in ("mltrack.db", "mltrack.db-wal", "mltrack.db-shm"):
        (root / name).unlink(missing_ok=True)
    assert "bin" in liar.mltrack("fold", "--all") + liar.mltrack("ls", "--json")
    with open_store(str(root)) as store:
        assert store.run("mine").user == "bin"
        assert len(store.points(store.run("mine").run_id, "loss").steps) == 20


def test_only_ones_own_journals_are_sealed_by_others_than_root(place: Path) -> None:
    root = place / "store"
    make_store(root, GROUP, site=False)
    ann, bob = person("daemon", place), person("bin", place)
    for each in (ann, bob):
        each.environment["MLTRACK_STORE"] = str(root)
        assert each.run(sys.executable, "-c", TRAINING, each.name).returncode == 0
    sealing = "from mltrack.store import open_store\nwith open_store() as s: s.refresh(None); s.seal(0)"
    assert ann.run(sys.executable, "-c", sealing).returncode == 0
    for each in (ann, bob):
        files = [path for path in root.glob("runs/*/*/*.jsonl*") if path.owner() == each.name]
        assert {path.suffix for path in files} == {".zst" if each is ann else ".jsonl"}


def test_one_gpu_is_held_by_one_of_them(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLTRACK_SITE_FILE", str(place / "site.toml"))
    root = place / "store"
    make_store(root, GROUP)
    assert lease_folder() == (root / "leases", True)
    ann, bob = person("daemon", place), person("bin", place)
    take = "import sys; from mltrack.projects.gpus import Lease; sys.exit(not Lease().take(['GPU-1']))"
    assert ann.run(sys.executable, "-c", take).returncode == 0  # made by one, free again
    mine = Lease()
    assert mine.take(["GPU-1"])
    assert bob.run(sys.executable, "-c", take).returncode == 1
    mine.close()
    assert bob.run(sys.executable, "-c", take).returncode == 0


def test_a_store_of_one_is_shared_later(place: Path) -> None:
    root = place / "store"
    environment = {**os.environ, "MLTRACK_STORE": str(root)}
    subprocess.run([sys.executable, "-c", TRAINING, "old"], env=environment, check=True, timeout=60)
    with open_store(str(root)) as store:
        store.refresh(None)
    outside = place / "outside"
    outside.write_text("x")
    outside.chmod(0o600)
    (root / "runs" / "link").symlink_to(outside)
    make_store(root, GROUP, site=False)
    assert stat.S_IMODE(outside.stat().st_mode) == 0o600
    bob = person("bin", place)
    bob.environment["MLTRACK_STORE"] = str(root)
    bob.mltrack("tag", "old", "seen=yes")
    (notes,) = root.glob("runs/*/*/artifacts/notes.txt")
    assert bob.run("cat", str(notes), reads_all=False).stdout == "a"


def test_a_group_that_cannot_be_used_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no group 'nosuch' here. As root: groupadd nosuch"):
        make_store(tmp_path / "store", "nosuch")
    assert not (tmp_path / "store").exists()


def test_the_site_file_keeps_what_it_says(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = place / "site.toml"
    monkeypatch.setenv("MLTRACK_SITE_FILE", str(site))
    site.write_text('[hooks]\npromote = ["true"]\n')
    make_store(place / "one", GROUP)
    assert site.read_text() == f'store = "{place}/one"\n[hooks]\npromote = ["true"]\n'
    made = make_store(place / "two", GROUP)
    assert "names another store" in made.left[0] and "one" in site.read_text()

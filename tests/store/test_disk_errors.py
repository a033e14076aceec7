"""Quotas, dying disks and file size limits: training goes on, the store says what is wrong, nothing acknowledged is lost."""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mltrack.store import open_store
from mltrack.store.errors import MltrackError, StoreUnavailable
from mltrack.store.sync import sync

RUN = "e10e" + "0" * 28
SHUTDOWN = 0x8004587D  # FS_IOC_SHUTDOWN: the file system flushes and from then on answers everything with EIO
TRAIN = """
import fcntl, os, resource, struct, sys
import mltrack
folder = sys.argv[1]
filler = folder + "/filler"
def fill():
    with open(filler, "ab", buffering=0) as file:
        size = 1 << 20
        while size:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2
def free():
    os.unlink(filler)
    os.sync()
def die():
    fd = os.open(folder, os.O_RDONLY)
    fcntl.ioctl(fd, 0x8004587D, struct.pack("I", 0))
    os.close(fd)
mltrack.set_store(folder + "/store")
"""
Mount = Callable[[str], Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Mount a small file system of a kind, in a file; mounting it again brings back what was flushed."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a file system: run the tests as root in a container")
    mounted: list[Path] = []

    def mount(kind: str) -> Path:
        image, folder = tmp_path / f"{kind}.img", tmp_path / kind
        if not image.exists():
            program = shutil.which(f"mkfs.{kind}", path=f"{os.environ['PATH']}:/sbin:/usr/sbin")
            if program is None:
                package = {"btrfs": "btrfs-progs", "ext4": "e2fsprogs"}[kind]
                pytest.skip(
                    f"needs mkfs.{kind}: apt-get install {package} (or your system's package of that name)"
                )
            image.touch()
            os.truncate(image, (160 if kind == "btrfs" else 16) << 20)
            subprocess.run([program, "-q", str(image)], check=True, capture_output=True)
            folder.mkdir()
        if folder in mounted:
            subprocess.run(["umount", str(folder)], check=True)
            mounted.remove(folder)
        done = subprocess.run(
            ["mount", "-o", "loop", str(image), str(folder)], capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(
                f"needs loop devices ({done.stderr.strip()}): run in a container with SYS_ADMIN and /dev/loop*"
            )
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def quota(mount: Mount) -> Path:
    """A folder that may hold 4 MB."""
    top = mount("btrfs")
    for command in (
        ["quota", "enable", top],
        ["subvolume", "create", top / "mine"],
        ["qgroup", "limit", "4M", top / "mine"],
    ):
        subprocess.run(["btrfs", *map(str, command)], check=True, capture_output=True)
    return top / "mine"


def train(folder: Path, code: str, spool: Path) -> list[str]:
    """Run the training; what it said on stderr. It must end well."""
    quiet = dict.fromkeys(("MLTRACK_FACTS", "MLTRACK_CONSOLE", "MLTRACK_SYSTEM_METRICS"), "0")
    done = subprocess.run(
        [sys.executable, "-c", TRAIN + code, str(folder)],
        env={**os.environ, **quiet, "MLTRACK_SPOOL": str(spool)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    return done.stderr.strip().splitlines()


def check(folder: Path, count: int, params: dict[str, str]) -> None:
    with open_store(str(folder / "store")) as store:
        assert store.refresh(None).skipped == 0
        run = store.run(RUN)
        assert run.status == "FINISHED" and run.params == params
        points = store.points(RUN, "loss")
        assert points.steps.tolist() == list(range(count))
        assert points.values.tolist() == [step / 7 for step in range(count)]


def test_a_quota_that_is_used_up_for_a_while(quota: Path, tmp_path: Path) -> None:
    said = train(
        quota,
        f"""
mltrack.start_run(run_id={RUN!r})
for step in range(6000):
    if step == 1000:
        fill()
    if step == 4000:
        free()
    if step == 2500:
        mltrack.log_param("during", "x" * 5000)
    mltrack.log_metric("loss", step / 7, step=step)
""",
        tmp_path / "spool",
    )
    assert len(said) == 1 and "Disk quota exceeded" in said[0], said
    assert not (tmp_path / "spool").exists()
    check(quota, 6000, {"during": "x" * 5000})


def test_a_quota_that_stays_used_up(quota: Path, tmp_path: Path) -> None:
    """The rest waits in a spool that is named; the store refuses a decision with a sentence, and answers questions."""
    spool = tmp_path / "spool"
    said = train(
        quota,
        f"""
mltrack.start_run(run_id={RUN!r})
for step in range(3000):
    if step == 1000:
        fill()
    mltrack.log_metric("loss", step / 7, step=step)
""",
        spool,
    )
    assert len(said) == 2 and str(spool) in said[-1] and "mltrack sync" in said[-1], said
    (quota / "filler").unlink()
    os.sync()
    with open_store(str(quota / "store")) as store:
        store.refresh(None)
        subprocess.run([sys.executable, "-c", TRAIN + "fill()", str(quota)], check=True)
        done = -1
        with pytest.raises(StoreUnavailable, match="quota|space"):
            for number in itertools.count():
                store.set_tags([RUN], {f"t{number}": "x" * 3000})
                done = number
        assert f"t{done + 1}" not in store.run(RUN).tags
        assert store.search("loss >= 0").run_ids == (RUN,)
        (quota / "filler").unlink()
        os.sync()
        store.set_tags([RUN], {"after": "1"})
        assert store.run(RUN).tags["after"] == "1"
        sync(store, spool)
    check(quota, 3000, {})


def test_a_disk_that_dies_in_the_middle(mount: Mount, tmp_path: Path) -> None:
    folder, spool = mount("ext4"), tmp_path / "spool"
    said = train(
        folder,
        f"""
mltrack.start_run(run_id={RUN!r})
for step in range(3000):
    if step == 1000:
        die()
    if step == 2000:
        mltrack.log_param("late", "x" * 5000)
        mltrack.log_text("seen", "note.txt")
    mltrack.log_metric("loss", step / 7, step=step)
""",
        spool,
    )
    assert said and all(line.startswith("mltrack: ") for line in said)
    assert "Input/output error" in said[0] and str(spool) in said[-1], said
    with pytest.raises(MltrackError) as refusal:
        open_store(str(folder / "store")).close()
    assert str(folder) in str(refusal.value) and "Input/output error" in str(refusal.value)
    folder = mount("ext4")
    with open_store(str(folder / "store")) as store:
        sync(store, spool)
    check(folder, 3000, {"late": "x" * 5000})


def test_a_store_whose_disk_dies_while_it_is_open(mount: Mount, tmp_path: Path) -> None:
    folder = mount("ext4")
    train(
        folder,
        f"""
with mltrack.start_run(run_id={RUN!r}):
    for step in range(500):
        mltrack.log_metric("loss", step / 7, step=step)
""",
        tmp_path / "spool",
    )
    with open_store(str(folder / "store")) as store:
        store.refresh(None)
        store.set_tags([RUN], {"kept": "1"})
        handle = os.open(folder, os.O_RDONLY)
        fcntl.ioctl(handle, SHUTDOWN, struct.pack("I", 0))
        os.close(handle)
        with pytest.raises(MltrackError, match="Input/output|I/O"):
            store.set_tags([RUN], {"lost": "1"})
        with pytest.raises(MltrackError):
            store.backup()
    folder = mount("ext4")
    with open_store(str(folder / "store")) as store:
        assert store.run(RUN).tags == {"kept": "1"}
    check(folder, 500, {})


def test_a_limit_on_the_size_of_files(tmp_path: Path) -> None:
    """`ulimit -f`: the journal cannot grow, what is left over fits into a journal of its own."""
    spool = tmp_path / "spool"
    said = train(
        tmp_path,
        f"""
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
mltrack.start_run(run_id={RUN!r})
for step in range(2200):
    mltrack.log_metric("loss", step / 7, step=step)
""",
        spool,
    )
    assert "File too large" in said[0] and str(spool) in said[-1], said
    with open_store(str(tmp_path / "store")) as store:
        sync(store, spool)
    check(tmp_path, 2200, {})

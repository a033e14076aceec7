"""GPUs for launches on a machine that has none: the driver's library is a fake one (fake_nvml.c), everything else is real."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.projects.launching import console, state_of, wait_for_end, wait_until, write_project
from tests.tui.conftest import command_environment

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler: apt-get install gcc")


@pytest.fixture
def box(store_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with two GPUs. A file GPU-0 or GPU-1 in the folder holds the memory that somebody uses there, in MB."""
    source = Path(__file__).with_name("fake_nvml.c")
    library = tmp_path / "driver" / "libnvidia-ml.so.1"
    library.parent.mkdir()
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(library.parent))
    monkeypatch.setenv("FAKE_GPUS", str(tmp_path / "driver"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    write_project(
        tmp_path / "p",
        MLproject="""\
            entry_points:
              main:
                parameters: {name: string}
                command: "python wait.py {name}"
            """,
        wait_DOT_py="""\
            import os, pathlib, sys, time
            print("GPUs", repr(os.environ.get("CUDA_VISIBLE_DEVICES")), flush=True)
            while not pathlib.Path(sys.argv[1]).exists(): time.sleep(0.05)
            """,
    )
    return tmp_path


def run(box: Path, name: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """`mltrack run`, which needs the fake library in its own process, too."""
    words = [
        "run",
        str(box / "p"),
        "--backend",
        "local",
        "-P",
        f"name={name}",
        "--detach",
        "--json",
        *arguments,
    ]
    return mltrack(*words, **environ)


def mltrack(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mltrack.tui.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=command_environment(**environ),
        timeout=120,
    )


def gpus_of(run_id: str) -> str:
    wait_until(lambda: "GPUs" in console(run_id), f"{run_id} ran")
    return console(run_id).partition("GPUs ")[2].splitlines()[0].strip("'")


def test_free_gpus_are_held_waited_for_and_given_on(box: Path) -> None:
    (box / "driver" / "GPU-0").write_text("9000")  # somebody's training
    first = json.loads(run(box, "first", "--gpu", "free").stdout)["run_id"]
    assert gpus_of(first) == "GPU-1"
    # Nothing is free now, though nothing computes on GPU-1 yet: the launch holds it.
    refused = run(box, "no", "--gpu", "free")
    assert refused.returncode != 0 and "1 free GPU is wanted, 0 of 2 are free" in refused.stderr
    waiting, given_up = (
        json.loads(run(box, name, "--gpu", "free", "--queue").stdout)["run_id"]
        for name in ("second", "third")
    )
    listed = {job["run_id"]: job for job in json.loads(mltrack("jobs", "--json").stdout)}
    assert [listed[job]["phase"] for job in (first, waiting, given_up)] == ["running", "queued", "queued"]
    assert listed[waiting]["text"] == "waits for GPUs: free"
    assert mltrack("jobs", "--cancel", given_up).returncode == 0
    assert state_of(given_up).state["reason"] == "cancelled in the queue"
    (box / "p" / "first").touch()
    assert wait_for_end(first).status == "FINISHED"
    assert gpus_of(waiting) == "GPU-1"
    (box / "p" / "second").touch()
    assert wait_for_end(waiting).status == "FINISHED"
    # Two at once, by count; and never one that somebody else's allocation holds.
    (box / "driver" / "GPU-0").unlink()
    both = json.loads(run(box, "second", "--gpu", "2").stdout)["run_id"]
    assert gpus_of(both) == "GPU-0,GPU-1"
    wait_for_end(both)
    own = json.loads(run(box, "second", "--gpu", "free", CUDA_VISIBLE_DEVICES="1").stdout)["run_id"]
    assert gpus_of(own) == "GPU-1"
    wait_for_end(own)


def test_without_a_word_a_launch_takes_no_gpu_and_the_choice_is_remembered(box: Path) -> None:
    (box / "p" / "now").touch()
    none = json.loads(run(box, "now").stdout)["run_id"]
    assert gpus_of(none) == ""
    chosen = json.loads(run(box, "now", "--gpu", "1").stdout)["run_id"]
    assert gpus_of(chosen) == "GPU-0"
    wait_for_end(chosen)
    again = json.loads(run(box, "now").stdout)["run_id"]
    assert gpus_of(again) == "GPU-0"
    wait_for_end(again)
    plan = json.loads(run(box, "now", "--dry-run").stdout)
    assert any("among your own launches only" in note for note in plan["notes"])

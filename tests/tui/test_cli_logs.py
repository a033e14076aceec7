"""`mltrack logs` where what it prints goes to the end of the file it reads: as in the script of a job."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = f"{sys.executable} -m mltrack.tui.cli logs @last"
TRAINING = (
    "import mltrack, sys\nwith mltrack.start_run(system_metrics=False):\n    print('said once', flush=True)\n"
)


@pytest.mark.parametrize("options", ["", "--raw", "-n 5"])
def test_what_is_printed_into_the_log_itself_is_not_printed_again(
    store_root: Path, tmp_path: Path, options: str
) -> None:
    said = tmp_path / "slurm-1.out"
    script = f'{sys.executable} -c "$TRAINING"; exec {COMMAND} {options}'
    with said.open("ab") as output:
        done = subprocess.run(
            ["sh", "-c", script],
            env={**os.environ, "TRAINING": TRAINING},
            stdin=subprocess.DEVNULL,
            stdout=output,
            timeout=30,
        )
    assert done.returncode == 0
    assert said.read_text() == "said once\n" * 2


def test_following_into_the_log_itself_is_refused(store_root: Path, tmp_path: Path) -> None:
    said = tmp_path / "slurm-1.out"
    going_on = f"{TRAINING}    import subprocess; sys.exit(subprocess.call({[*COMMAND.split(), '-f']!r}))\n"
    with said.open("ab") as output:
        done = subprocess.run(
            [sys.executable, "-c", going_on], stdout=output, stderr=subprocess.PIPE, text=True, timeout=30
        )
    assert done.returncode == 2 and "no end of following it" in done.stderr
    assert said.read_text() == "said once\n" * 2

"""Readers of binary formats fed by atheris, which looks for new paths through them; hypothesis does the same in short elsewhere."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECONDS = 60


@pytest.mark.long
@pytest.mark.parametrize("reader", ["tensorboard", "wandb"])
def test_nothing_that_a_fuzzer_finds_ends_a_reader(fuzz_python: str, reader: str) -> None:
    answer = subprocess.run(
        [fuzz_python, str(ROOT / "tests" / "data" / "sources" / "fuzz.py"), reader, str(SECONDS)],
        capture_output=True,
        text=True,
        errors="replace",
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        timeout=SECONDS * 10,
    )
    assert answer.returncode == 0, answer.stderr[-3000:]
    assert "stat::number_of_executed_units" in answer.stderr

"""What the benchmarks share: a table of figures, printed at the end, and MLflow's figures from an environment of its own.

Every figure is CPU time, or a ratio of two that were taken side by side: other work on the machine does not change them much.
`BENCH_TABLE=FILE` keeps the table, as Markdown.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the benchmarks' own modules: no package, as in all of tests/

from measure import Figures
from mlflow_beside import mlflow_figures


@pytest.fixture(scope="session")
def figures() -> Iterator[Figures]:
    """The table that every benchmark adds its rows to."""
    made = Figures()
    yield made
    text = made.markdown()
    print("\n" + text)
    if target := os.environ.get("BENCH_TABLE"):
        Path(target).write_text(text, encoding="utf-8")


@pytest.fixture(scope="session")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """MLflow's figures by name, taken now on this machine; empty when it cannot be installed."""
    return mlflow_figures(tmp_path_factory.mktemp("mlflow"))

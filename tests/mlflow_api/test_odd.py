"""Five hundred odd things that MLflow's newest client may do come out as with MLflow's own server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.mlflow_api.conftest import Server, said


@pytest.mark.parametrize("script", ["odd_runs.py", "odd_models.py"])
def test_odd_things_come_out_as_with_mlflow(
    mlflow_python: Path, said_by_mlflow: Callable[..., Any], new_server: Callable[..., Server], script: str
) -> None:
    file = Path(__file__).with_name(script)
    ours, theirs = said(mlflow_python, file, new_server().address), said_by_mlflow(file)
    assert len(ours) > 150
    assert {key: (ours[key], theirs[key]) for key in ours if ours[key] != theirs.get(key)} == {}

"""Five hundred odd things that MLflow's newest client may do come out as with MLflow's own server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.mlflow_api.conftest import Server
from tests.mlflow_api.test_clients import said


@pytest.mark.parametrize("script", ["odd_runs.py", "odd_models.py"])
def test_odd_things_come_out_as_with_mlflow(
    mlflow_python: Path, reference: str, new_server: Callable[..., Server], script: str
) -> None:
    ours, theirs = (
        said(mlflow_python, address, script=Path(__file__).with_name(script))
        for address in (new_server().address, reference)
    )
    assert len(ours) > 150
    assert {key: (ours[key], theirs[key]) for key in ours if ours[key] != theirs.get(key)} == {}

"""Models there and back between us and real MLflow, in an environment of its own: the predictions are the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mltrack.store import open_store

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("flavors_in_mlflow.py")
LIBRARIES = (
    "xgboost",
    "xgboost-booster",
    "lightgbm",
    "lightgbm-wrapper",
    "onnx",
    "pytorch",
    "keras",
    "transformers",
)


def there_and_back(python: Path, folder: Path, *cases: str) -> dict[str, Any]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "src"),
        "PYTHONWARNINGS": "ignore",
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/unused.db",
        "KERAS_BACKEND": "torch",
    }
    done = subprocess.run(
        [str(python), str(SCRIPT), str(folder), *cases], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answers: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answers


def agree(answers: dict[str, Any]) -> None:
    for name, found in answers.items():
        assert found["ours by us"] == found["ours by MLflow"], name
        assert len(found["ours by us"]) >= 4
        if "theirs by us" in found:
            assert found["theirs by us"] == found["theirs by MLflow"], name
        assert found.get("native", True), name
        assert {"MLmodel", "requirements.txt", "python_env.yaml", "conda.yaml", "input_example.json"} <= set(
            found["files"]
        )


def test_scikit_learn_and_functions_there_and_back(mlflow_python: Path, tmp_path: Path) -> None:
    answers = there_and_back(mlflow_python, tmp_path, "sklearn", "sklearn-cloudpickle", "function", "object")
    agree(answers)
    assert "model.skops" in answers["sklearn"]["files"] and "theirs by us" in answers["function"]
    assert "model.pkl" in answers["sklearn-cloudpickle"]["files"]


def test_mlflow_2_there_and_back(mlflow2_python: Path, tmp_path: Path) -> None:
    answers = there_and_back(mlflow2_python, tmp_path, "sklearn-cloudpickle", "function", "object")
    agree(answers)
    assert "theirs by us" in answers["sklearn-cloudpickle"] and "theirs by us" in answers["function"]


@pytest.mark.long
@pytest.mark.parametrize("mlflow", ["flavors_python", "flavors2_python"])
@pytest.mark.parametrize("case", LIBRARIES)
def test_other_libraries_there_and_back(
    case: str, mlflow: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    agree(there_and_back(request.getfixturevalue(mlflow), tmp_path, case))


MODULE = """
class Doubler:
    def predict(self, data, scale=2.0):
        return data * scale
"""
LOGGING = """
import sys, warnings
sys.path.insert(0, {folder!r})
import mltrack, numpy as np
from doubler import Doubler
example = np.array([[1.0, 2.0]])
signature = mltrack.infer_signature(example, example, params={{"scale": 2.0}})
for number in range(2):
    with mltrack.start_run(system_metrics=False):
        info = mltrack.log_model(
            Doubler(), "net", signature=signature, input_example=example, registered_model_name="doubler",
            code_paths=[{folder!r} + "/doubler.py"], metadata={{"team": "vision"}},
        )
    assert info.version == number + 1, info
mltrack.load_model(info.model_uri)
for uri in (info.model_uri, "models:/doubler/1", "models:/doubler/latest", "models:/doubler@champion"):
    try:
        model = mltrack.load_model(uri)
    except mltrack.UsageError as error:
        print(uri, error)
        continue
    print(uri.partition(":")[0], model.predict([[3, 4]]).tolist(), model.predict([[3.0, 4.0]], params={{"scale": 3.0}}).tolist())
try:
    model.predict([[1, 2, 3]])
except ValueError as error:
    print(error)
print(info.run_id)
"""


def test_a_model_is_logged_registered_and_loaded_by_every_name(store_root: Path, tmp_path: Path) -> None:
    (tmp_path / "doubler.py").write_text(MODULE)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "MLTRACK_FACTS": "0"}
    done = subprocess.run(
        [sys.executable, "-c", LOGGING.format(folder=str(tmp_path))],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    *lines, run_id = done.stdout.splitlines()
    assert lines == [
        "runs [[6.0, 8.0]] [[9.0, 12.0]]",
        "models [[6.0, 8.0]] [[9.0, 12.0]]",
        "models [[6.0, 8.0]] [[9.0, 12.0]]",
        "models:/doubler@champion load_model: The model 'doubler' has no alias 'champion'.",
        "the input must have the shape (-1, 2), not (1, 3).",
    ]
    with open_store(str(store_root)) as store:
        version = store.registry.version("doubler", 2)
        assert (version.run_id, version.source) == (run_id, f"runs:/{run_id}/net")
        assert store.registry.file_problems("doubler", 2) == []


def test_a_model_of_the_script_itself_needs_cloudpickle_and_says_so(store_root: Path) -> None:
    code = (
        "import mltrack\nmltrack.start_run(system_metrics=False)\nmltrack.log_model(lambda data: data, 'net')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "cloudpickle" in done.stderr.splitlines()[-1]

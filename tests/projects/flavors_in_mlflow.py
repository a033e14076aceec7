"""Runs inside MLflow's environment: saves models with us and with MLflow, loads each with the other, prints what they predict.

Arguments: a folder, and the names of the cases. No test itself: test_flavors.py calls it.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas as pd
import yaml

from mltrack.store.flavors.loading import load_folder
from mltrack.store.flavors.payload import plain
from mltrack.store.flavors.saving import save_model

X = pd.DataFrame(np.random.default_rng(7).normal(size=(60, 3)), columns=["a", "b", "c"])
Y = (X["a"] + X["b"] > 0).astype(int)
EXAMPLE = X[:4]
TEXTS = ["a good film", "a very bad film", "not bad", "good"]
ARRAY = EXAMPLE.to_numpy().astype("float32")


def sklearn_model() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y)


def xgboost_model() -> Any:
    import xgboost

    return xgboost.XGBClassifier(n_estimators=5).fit(X, Y)


def booster() -> Any:
    import xgboost

    return xgboost.train({}, xgboost.DMatrix(X, Y), 3)


def lightgbm_model() -> Any:
    import lightgbm

    return lightgbm.train({"verbose": -1}, lightgbm.Dataset(X, Y), 3)


def lightgbm_wrapper() -> Any:
    import lightgbm

    return lightgbm.LGBMRegressor(n_estimators=5, verbose=-1).fit(X, Y)


def onnx_model() -> Any:
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression

    array = X.to_numpy().astype("float32")
    return to_onnx(LogisticRegression().fit(array, Y), array[:1], options={"zipmap": False})


def torch_model() -> Any:
    import torch

    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))


def keras_model() -> Any:
    import keras

    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2)])


def text_classifier() -> Any:
    """A tiny BERT of random weights over a vocabulary of ten words."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    torch.manual_seed(1)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "film", "a", "very", "not"]
    made = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    )
    model = transformers.BertForSequenceClassification(config).eval()
    return transformers.pipeline("text-classification", model=model, tokenizer=tokenizer)


def function() -> Any:
    return lambda data: data["a"] * 2 + data["b"]


class Predictor:
    """A class of the script itself."""

    def predict(self, data: Any, scale: float = 1.0) -> Any:
        return data["a"].to_numpy() * scale


# name -> (model, example, options of ours, MLflow's own save_model for it)
CASES: dict[str, tuple[Callable[[], Any], Any, dict[str, Any], str]] = {
    "sklearn": (sklearn_model, EXAMPLE, {}, "sklearn"),
    "sklearn-cloudpickle": (sklearn_model, EXAMPLE, {"serialization_format": "cloudpickle"}, "sklearn"),
    "function": (function, EXAMPLE, {}, ""),
    "object": (Predictor, EXAMPLE, {}, ""),
    "xgboost": (xgboost_model, EXAMPLE, {}, "xgboost"),
    "xgboost-booster": (booster, EXAMPLE, {}, "xgboost"),
    "lightgbm": (lightgbm_model, EXAMPLE, {}, "lightgbm"),
    "lightgbm-wrapper": (lightgbm_wrapper, EXAMPLE, {}, "lightgbm"),
    "onnx": (onnx_model, ARRAY, {}, "onnx"),
    "pytorch": (torch_model, ARRAY, {}, "pytorch"),
    "keras": (keras_model, ARRAY, {}, "keras"),
    "transformers": (text_classifier, TEXTS, {}, "transformers"),
}


def predictions(value: Any) -> Any:
    """As JSON, whatever table or array it came as."""
    found = plain(next(iter(value.values())) if isinstance(value, dict) else value)
    flat = [
        item
        for row in found
        for item in (row.values() if isinstance(row, dict) else row if isinstance(row, list) else [row])
    ]
    return [item if isinstance(item, str) else round(float(item), 5) for item in flat]


def document_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((folder / "MLmodel").read_text("utf-8"))
    return found


def main() -> None:
    base = Path(sys.argv[1])
    answers: dict[str, Any] = {}
    for name in sys.argv[2:]:
        make, example, options, module = CASES[name]
        model = make()
        ours = base / f"ours-{name}"
        save_model(model, ours, input_example=example, run_id="0" * 32, artifact_path="model", **options)
        found = {
            "files": sorted(path.name for path in ours.iterdir()),
            "ours by us": predictions(load_folder(ours, document_of(ours)).predict(example)),
            "ours by MLflow": predictions(mlflow.pyfunc.load_model(str(ours)).predict(example)),
        }
        if module:
            __import__(f"mlflow.{module}")
            theirs = base / f"theirs-{name}"
            # Its own default for PyTorch is a traced graph, of which we would need the example's shape.
            traced = module == "pytorch" and not mlflow.__version__.startswith("2.")
            how: dict[str, Any] = {"serialization_format": "pickle"} if traced else {}
            # Else it loads the model once more to see what that imports, and looks for packages that nobody needs.
            how["pip_requirements"] = []
            getattr(mlflow, module).save_model(model, str(theirs), **how)
            found["native"] = (
                type(getattr(mlflow, module).load_model(str(ours))).__name__
                == type(getattr(mlflow, module).load_model(str(theirs))).__name__
            )
            found["theirs by us"] = predictions(load_folder(theirs, document_of(theirs)).predict(example))
            found["theirs by MLflow"] = predictions(mlflow.pyfunc.load_model(str(theirs)).predict(example))
        answers[name] = found
    if "function" in answers:
        theirs = base / "theirs-function"

        class Model(mlflow.pyfunc.PythonModel):  # type: ignore[misc, name-defined]
            def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
                return model_input["a"] * 2

        mlflow.pyfunc.save_model(str(theirs), python_model=Model(), pip_requirements=[])
        answers["function"]["theirs by us"] = predictions(
            load_folder(theirs, document_of(theirs)).predict(EXAMPLE)
        )
        answers["function"]["theirs by MLflow"] = predictions(
            mlflow.pyfunc.load_model(str(theirs)).predict(EXAMPLE)
        )
    print(json.dumps(answers))


main()

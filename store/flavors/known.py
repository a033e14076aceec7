"""Every flavor, in the order in which an object is asked whose it is."""

from __future__ import annotations

from mltrack.store.flavors.kinds import (
    Flavor,
    comes_from,
    load_function,
    load_keras,
    load_lightgbm,
    load_onnx,
    load_sklearn,
    load_torch,
    load_xgboost,
    save_function,
    save_keras,
    save_lightgbm,
    save_onnx,
    save_sklearn,
    save_torch,
    save_xgboost,
)
from mltrack.store.flavors.pipelines import is_pipeline, load_pipeline, save_pipeline

FLAVORS: tuple[Flavor, ...] = (
    Flavor("xgboost", lambda model: comes_from(model, "xgboost"), save_xgboost, load_xgboost),
    Flavor("lightgbm", lambda model: comes_from(model, "lightgbm"), save_lightgbm, load_lightgbm),
    Flavor("onnx", lambda model: type(model).__name__ == "ModelProto", save_onnx, load_onnx),
    Flavor("keras", lambda model: comes_from(model, "keras"), save_keras, load_keras),
    Flavor("transformers", is_pipeline, save_pipeline, load_pipeline),
    Flavor("pytorch", lambda model: comes_from(model, "torch.nn"), save_torch, load_torch),
    Flavor("sklearn", lambda model: comes_from(model, "sklearn"), save_sklearn, load_sklearn),
    Flavor("python_function", lambda model: True, save_function, load_function),
)
BY_NAME = {flavor.name: flavor for flavor in FLAVORS}

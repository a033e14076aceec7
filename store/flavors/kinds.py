"""The libraries whose models we know: how a model is recognised, written, and read back to something that predicts.

Each flavor names the library MLflow's loader of it, so that a folder of ours is loaded by MLflow and one of theirs by us.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import os
import pickle
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Conf = dict[str, Any]
Predict = Callable[[Any, Mapping[str, Any]], Any]


class ModelError(Exception):
    """A model cannot be saved or loaded; the message says why and what to do."""


@dataclass
class Saved:
    """What a flavor wrote: its own configuration, python_function's, and the packages it needs beside Python."""

    flavor: Conf
    function: Conf
    packages: list[str]
    pickled: bool = False


@dataclass(frozen=True)
class Loaded:
    """A model in memory: the library's own object, and how it is asked."""

    native: Any
    predict: Predict


@dataclass(frozen=True)
class Flavor:
    """One library. ``save(model, folder, options)``; ``load(folder, conf)`` with the flavor's configuration."""

    name: str
    matches: Callable[[Any], bool]
    save: Callable[[Any, Path, Conf], Saved]
    load: Callable[[Path, Conf], Loaded]
    loader_modules: tuple[str, ...] = field(default=())


def comes_from(model: Any, *modules: str) -> bool:
    """Whether the model's class, or one it inherits from, is of one of these modules. Imports nothing."""
    return any(
        base.__module__ == module or base.__module__.startswith(module + ".")
        for base in type(model).__mro__
        for module in modules
    )


def version_of(package: str) -> str:
    """Installed version of a distribution, "" when it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def class_name(model: Any) -> str:
    """module.Class of an object."""
    return f"{type(model).__module__}.{type(model).__qualname__}"


def inside(folder: Path, name: object, what: str) -> Path:
    """The file a configuration names, which must lie in the model's folder."""
    path = folder / str(name)
    if not isinstance(name, str) or not path.resolve().is_relative_to(folder.resolve()):
        raise ModelError(f"The {what} {name!r} of the model leads out of its folder.")
    return path


def _plain(method: Callable[..., Any]) -> Predict:
    """Ask with those of the params that the method takes."""
    parameters = inspect.signature(method).parameters
    anything = any(each.kind is each.VAR_KEYWORD for each in parameters.values())

    def predict(data: Any, params: Mapping[str, Any]) -> Any:
        if not params:
            return method(data)
        return method(data, **{key: value for key, value in params.items() if anything or key in parameters})

    return predict


def library(name: str) -> Any:
    """A model's library, imported when it is needed. Raises ModelError where it is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModelError(f"The model needs {error.name}, which is not installed here.") from None


def dump_pickle(value: Any, path: Path) -> str:
    """Write with cloudpickle where it is installed, else with pickle. Returns which."""
    cloudpickle: Any = library("cloudpickle") if version_of("cloudpickle") else None
    home = getattr(value, "__module__", "") if callable(value) else type(value).__module__
    if cloudpickle is None and home == "__main__":
        raise ModelError(
            "The model is defined in the script itself, and only cloudpickle can save that: install it, or move the model into a "
            "module and name that in code_paths."
        )
    with path.open("wb") as file:
        try:
            (cloudpickle or pickle).dump(value, file)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            hint = (
                "" if cloudpickle else " Installing cloudpickle lets functions of the script itself be saved."
            )
            raise ModelError(f"The model cannot be saved ({error}).{hint}") from None
    return "cloudpickle" if cloudpickle else "pickle"


def load_pickle(path: Path) -> Any:
    """Run the pickle at a path: the caller decided that its code may run."""
    with path.open("rb") as file:
        try:
            return pickle.load(file)
        except ModuleNotFoundError as error:
            raise ModelError(
                f"The model needs the module {error.name}, which is not installed here."
            ) from None


# -- scikit-learn


def save_sklearn(model: Any, folder: Path, options: Conf) -> Saved:
    wanted = options.get("serialization_format")
    trusted: list[str] | None = options.get("skops_trusted_types")
    kind, path = "skops", folder / "model.skops"
    if wanted in (None, "skops") and not _dump_skops(model, path, trusted):
        path.unlink(missing_ok=True)
        if wanted == "skops":
            raise ModelError(
                "skops cannot hold this model safely, or is not installed: name the types to trust (skops_trusted_types=), "
                "or pass serialization_format='cloudpickle'."
            )
        wanted = "cloudpickle"
    if wanted not in (None, "skops"):
        path = folder / "model.pkl"
        kind = dump_pickle(model, path)
    packages = ["scikit-learn", "numpy", "scipy"] + ([kind] if kind != "pickle" else [])
    conf: Conf = {
        "pickled_model": path.name,
        "serialization_format": kind,
        "sklearn_version": version_of("scikit-learn"),
        "code": None,
    }
    if kind == "skops":
        conf["skops_trusted_types"] = trusted
    function = {"loader_module": "mlflow.sklearn", "model_path": path.name, "predict_fn": "predict"}
    return Saved(conf, function, packages, pickled=kind != "skops")


def _dump_skops(model: Any, path: Path, trusted: list[str] | None) -> bool:
    """Whether skops is there and its file can be read without trusting anything more."""
    if not version_of("skops"):
        return False
    skops, errors = library("skops.io"), library("skops.io.exceptions")
    refusals = (errors.UntrustedTypesFoundException, errors.UnsupportedTypeException)
    try:
        skops.dump(model, path)
        skops.load(path, trusted=trusted)
    except (*refusals, TypeError, AttributeError, ValueError):
        return False
    return True


def load_sklearn(folder: Path, conf: Conf) -> Loaded:
    path = inside(folder, conf.get("pickled_model") or conf.get("data"), "file")
    if conf.get("serialization_format") == "skops":
        model = library("skops.io").load(path, trusted=conf.get("skops_trusted_types"))
    else:
        model = load_pickle(path)
    method = getattr(model, "predict", None) or getattr(model, "transform", None)
    if method is None:
        raise ModelError(f"A {class_name(model)} has neither predict nor transform.")
    return Loaded(model, _plain(method))


# -- XGBoost, LightGBM


def save_xgboost(model: Any, folder: Path, options: Conf) -> Saved:
    kind = str(options.get("model_format") or "ubj")
    data = f"model.{kind}"
    model.save_model(folder / data)
    conf: Conf = {
        "data": data,
        "model_class": class_name(model),
        "model_format": kind,
        "xgb_version": version_of("xgboost"),
        "code": None,
    }
    packages = ["xgboost", "numpy", "scipy"]
    if not class_name(model).endswith(".Booster"):
        packages.append("scikit-learn")
    return Saved(conf, {"loader_module": "mlflow.xgboost", "data": data}, packages)


def load_xgboost(folder: Path, conf: Conf) -> Loaded:
    xgboost = library("xgboost")

    module, _, name = str(conf.get("model_class") or "xgboost.core.Booster").rpartition(".")
    if not module.startswith("xgboost"):
        raise ModelError(f"{module}.{name} is no class of XGBoost.")
    model = getattr(importlib.import_module(module), name)()
    model.load_model(inside(folder, conf.get("data"), "file"))
    if isinstance(model, xgboost.Booster):
        return Loaded(model, lambda data, params: model.predict(xgboost.DMatrix(data), **params))
    return Loaded(model, _plain(model.predict))


def save_lightgbm(model: Any, folder: Path, options: Conf) -> Saved:
    conf: Conf = {
        "model_class": class_name(model),
        "lgb_version": version_of("lightgbm"),
        "code": None,
    }
    if type(model).__name__ == "Booster":
        conf["data"] = "model.lgb"
        model.save_model(folder / "model.lgb")
        packages, pickled = ["lightgbm", "numpy", "scipy"], False
    else:
        # MLflow's loader knows the wrappers of scikit-learn's kind as pickles only.
        conf["data"] = "model.pkl"
        conf["serialization_format"] = dump_pickle(model, folder / "model.pkl")
        packages, pickled = ["lightgbm", "numpy", "scipy", "scikit-learn", "cloudpickle"], True
    return Saved(conf, {"loader_module": "mlflow.lightgbm", "data": conf["data"]}, packages, pickled)


def load_lightgbm(folder: Path, conf: Conf) -> Loaded:
    if str(conf.get("model_class") or "lightgbm.basic.Booster") == "lightgbm.basic.Booster":
        lightgbm = library("lightgbm")

        model = lightgbm.Booster(model_file=inside(folder, conf.get("data"), "file"))
        return Loaded(model, lambda data, params: model.predict(data))
    return load_sklearn(folder, conf)


# -- ONNX


def save_onnx(model: Any, folder: Path, options: Conf) -> Saved:
    onnx = library("onnx")

    onnx.save_model(model, str(folder / "model.onnx"))
    conf: Conf = {
        "data": "model.onnx",
        "onnx_version": version_of("onnx"),
        "providers": ["CPUExecutionProvider"],
        "onnx_session_options": None,
        "code": None,
    }
    return Saved(
        conf, {"loader_module": "mlflow.onnx", "data": "model.onnx"}, ["onnx", "onnxruntime", "numpy"]
    )


def load_onnx(folder: Path, conf: Conf) -> Loaded:
    numpy = library("numpy")
    onnxruntime = library("onnxruntime")

    path = inside(folder, conf.get("data") or "model.onnx", "file")
    known = onnxruntime.get_available_providers()
    providers = [name for name in conf.get("providers") or [] if name in known] or ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(str(path), providers=providers)
    inputs = [(each.name, each.type) for each in session.get_inputs()]
    outputs = [each.name for each in session.get_outputs()]

    def predict(data: Any, params: Mapping[str, Any]) -> Any:
        columns = getattr(data, "columns", None)
        if isinstance(data, Mapping):
            feed = {name: numpy.asarray(value) for name, value in data.items()}
        elif columns is not None and len(inputs) > 1:
            feed = {name: numpy.asarray(data[name]) for name, _ in inputs}
        elif len(inputs) == 1:
            feed = {inputs[0][0]: numpy.asarray(data)}
        else:
            raise ModelError(f"The model takes {', '.join(name for name, _ in inputs)}: give them by name.")
        for name, kind in inputs:
            if kind == "tensor(float)" and name in feed and feed[name].dtype != numpy.float32:
                feed[name] = feed[name].astype(numpy.float32)
        return dict(zip(outputs, session.run(outputs, feed), strict=True))

    return Loaded(session, predict)


# -- PyTorch


def save_torch(model: Any, folder: Path, options: Conf) -> Saved:
    torch = library("torch")

    data = folder / "data"
    data.mkdir()
    by_value = bool(version_of("cloudpickle"))
    torch.save(model, data / "model.pth", pickle_module=library("cloudpickle" if by_value else "pickle"))
    # MLflow's loader is told by which module a pickle is read.
    module = "mlflow.pytorch.pickle_module" if by_value else "pickle"
    (data / "pickle_module_info.txt").write_text(module, "utf-8")
    conf: Conf = {"model_data": "data", "pytorch_version": version_of("torch"), "code": None}
    function = {
        "loader_module": "mlflow.pytorch",
        "data": "data",
        "pickle_module_name": module,
    }
    packages = ["torch", "numpy"] + (["cloudpickle"] if by_value else [])
    return Saved(conf, function, packages, pickled=True)


def load_torch(folder: Path, conf: Conf) -> Loaded:
    numpy = library("numpy")
    torch = library("torch")

    model = torch.load(
        inside(folder, conf.get("model_data") or "data", "folder") / "model.pth",
        weights_only=False,
        map_location="cpu",
    )
    model.eval()

    def predict(data: Any, params: Mapping[str, Any]) -> Any:
        frame = data if hasattr(data, "columns") else None
        values = numpy.asarray(data, dtype=numpy.float32)
        with torch.no_grad():
            output = model(torch.from_numpy(values), **params).cpu().numpy()
        if frame is None:
            return output
        pandas = library("pandas")

        return pandas.DataFrame(output, index=frame.index)

    return Loaded(model, predict)


# -- Keras


def save_keras(model: Any, folder: Path, options: Conf) -> Saved:
    data = folder / "data"
    data.mkdir()
    model.save(data / "model.keras")
    conf: Conf = {
        "data": "data",
        "keras_version": version_of("keras"),
        "keras_backend": sys.modules["keras"].backend.backend(),
        "code": None,
    }
    backend = {"torch": "torch", "jax": "jax"}.get(conf["keras_backend"], "tensorflow")
    return Saved(conf, {"loader_module": "mlflow.keras"}, ["keras", "numpy", backend])


def load_keras(folder: Path, conf: Conf) -> Loaded:
    os.environ.setdefault("KERAS_BACKEND", str(conf.get("keras_backend") or "tensorflow"))
    keras = library("keras")
    numpy = library("numpy")

    data = inside(folder, conf.get("data") or "data", "data")
    found = [*sorted(data.glob("*.keras")), data.with_name(data.name + ".keras"), data]
    file = next((path for path in found if path.is_file()), None)
    if file is None:
        raise ModelError("There is no .keras file in the model's data folder.")
    model = keras.saving.load_model(file)

    def predict(data: Any, params: Mapping[str, Any]) -> Any:
        return model.predict(numpy.asarray(data), verbose=0, **params)

    return Loaded(model, predict)


# -- any callable

_FUNCTION_LOADER = "mltrack_function.py"


def save_function(model: Any, folder: Path, options: Conf) -> Saved:
    if not callable(model) and not callable(getattr(model, "predict", None)):
        raise ModelError(f"A {class_name(model)} is neither a function nor has it a method predict.")
    code = folder / "code"
    code.mkdir(exist_ok=True)
    shutil.copyfile(Path(__file__).with_name(_FUNCTION_LOADER), code / _FUNCTION_LOADER)
    kind = dump_pickle(model, folder / "function.pkl")
    function = {
        "loader_module": _FUNCTION_LOADER.removesuffix(".py"),
        "data": "function.pkl",
        "code": "code",
        "serialization_format": kind,
    }
    return Saved({}, function, ["cloudpickle"] if kind == "cloudpickle" else [], pickled=True)


def load_function(folder: Path, conf: Conf) -> Loaded:
    """Any python_function by its loader module, as MLflow does: for flavors nobody here knows."""
    name = str(conf.get("loader_module") or "")
    if not name.replace(".", "").replace("_", "").isalnum():
        raise ModelError(f"{name!r} is no name of a loader module.")
    data = conf.get("data")
    path = inside(folder, data, "data") if data else folder
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModelError(
            f"The model is loaded by {name}, and {error.name} is not installed here. Install the model's requirements.txt."
        ) from None
    if not hasattr(module, "_load_pyfunc"):
        raise ModelError(f"{name} is no loader of models: it has no _load_pyfunc.")
    model = module._load_pyfunc(str(path))
    return Loaded(model, _with_params(model.predict))


def _with_params(method: Callable[..., Any]) -> Predict:
    takes = "params" in inspect.signature(method).parameters

    def predict(data: Any, params: Mapping[str, Any]) -> Any:
        return method(data, params=dict(params)) if takes and params else method(data)

    return predict

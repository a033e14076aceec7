"""Pipelines of Hugging Face's transformers: weights as safetensors, tokenizer and the like beside them, as MLflow lays it out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mltrack.store.flavors.kinds import (
    Conf,
    Loaded,
    ModelError,
    Saved,
    comes_from,
    inside,
    library,
    version_of,
)

_COMPONENTS = ("feature_extractor", "tokenizer", "image_processor")
# One shard: tools that look at a folder expect one file, and a model of any size can be read in pieces anyway.
_SHARD = "100GB"


def is_pipeline(model: Any) -> bool:
    """Whether it is what ``transformers.pipeline()`` gives. A bare model is PyTorch's: nobody would know its task or tokenizer."""
    return comes_from(model, "transformers.pipelines")


def save_pipeline(model: Any, folder: Path, options: Conf) -> Saved:
    """``model`` and ``components`` in the folder. Never a pickle: transformers writes safetensors."""
    model.model.save_pretrained(folder / "model", safe_serialization=True, max_shard_size=_SHARD)
    conf: Conf = {
        "task": model.task,
        "instance_type": type(model).__name__,
        "pipeline_model_type": type(model.model).__name__,
        "source_model_name": str(getattr(model.model, "name_or_path", "") or ""),
        "model_binary": "model",
        "transformers_version": version_of("transformers"),
        "code": None,
        "components": [],
    }
    framework = getattr(model, "framework", None)
    if framework:
        conf["framework"] = framework
    dtype = str(getattr(model.model, "dtype", "") or "")
    if dtype:
        conf["torch_dtype"] = dtype
    for name in _COMPONENTS:
        part = getattr(model, name, None)
        if part is not None:
            part.save_pretrained(folder / "components" / name)
            conf["components"].append(name)
            conf[f"{name}_type"] = type(part).__name__
    function = {"loader_module": "mlflow.transformers", "model_binary": "model"}
    return Saved(conf, function, ["transformers", "torch", "safetensors", "numpy"])


def load_pipeline(folder: Path, conf: Conf) -> Loaded:
    """From the folder alone: nothing is fetched, and no code of the model's authors is run."""
    transformers = library("transformers")

    if not conf.get("model_binary"):
        raise ModelError(
            "The model's weights were not saved with it, only where they came from: load it with MLflow, or log it with them."
        )
    kind = getattr(transformers, str(conf.get("pipeline_model_type")), None)
    if not isinstance(kind, type) or not hasattr(kind, "from_pretrained"):
        raise ModelError(f"transformers has no model {conf.get('pipeline_model_type')!r}.")
    here: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    weights = inside(folder, conf["model_binary"], "weights")
    given: dict[str, Any] = {"model": kind.from_pretrained(weights, use_safetensors=True, **here)}
    makers = {
        "tokenizer": "AutoTokenizer",
        "feature_extractor": "AutoFeatureExtractor",
        "image_processor": "AutoImageProcessor",
    }
    for name in conf.get("components") or []:
        if name in makers:
            place = inside(folder, f"components/{name}", "component")
            given[name] = getattr(transformers, makers[name]).from_pretrained(place, **here)
    pipeline = transformers.pipeline(str(conf.get("task")), **given)

    def predict(data: Any, params: Mapping[str, Any]) -> Any:
        return _simple(pipeline(_questions(data), **params))

    return Loaded(pipeline, predict)


def _questions(data: Any) -> Any:
    """What a pipeline takes: a list, of texts where a table has one column, of mappings where it has several."""
    columns = getattr(data, "columns", None)
    if columns is not None:
        return data[columns[0]].tolist() if len(columns) == 1 else data.to_dict(orient="records")
    if hasattr(data, "tolist"):
        data = data.ravel().tolist() if data.dtype.kind in "OUS" else data.tolist()
    if isinstance(data, Mapping) and len(data) == 1:
        return _questions(next(iter(data.values())))
    return [data] if isinstance(data, str) else data


def _simple(answer: Any) -> Any:
    """An answer without the wrapping: a list of one is its item, and a mapping with nothing but a text is that text."""
    if isinstance(answer, list):
        return [_simple(each[0] if isinstance(each, list) and len(each) == 1 else each) for each in answer]
    if isinstance(answer, Mapping) and len(answer) == 1:
        [(key, value)] = answer.items()
        if str(key).endswith("_text"):
            return value
    return answer

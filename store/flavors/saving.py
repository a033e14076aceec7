"""Writing a model folder as MLflow lays it out: MLmodel, the model's files, signature, example, environment."""

from __future__ import annotations

import datetime
import json
import platform
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mltrack.store.flavors.kinds import Loaded, ModelError, version_of
from mltrack.store.flavors.known import BY_NAME, FLAVORS
from mltrack.store.flavors.payload import plain
from mltrack.store.flavors.schema import ModelSignature, enforce, infer_signature

# Loaders of MLflow 2 and 3 read what is written here; the number tells them how to read it.
_LAYOUT = "2.22.0"
_EXAMPLE, _SERVING_EXAMPLE = "input_example.json", "serving_input_example.json"


def save_model(
    model: Any,
    folder: Path,
    *,
    flavor: str | None = None,
    signature: ModelSignature | None = None,
    input_example: Any = None,
    pip_requirements: Sequence[str] | None = None,
    code_paths: Sequence[str | Path] = (),
    metadata: Mapping[str, Any] | None = None,
    run_id: str = "",
    artifact_path: str = "",
    **options: Any,
) -> dict[str, Any]:
    """Write ``model`` into the new folder. Returns what its MLmodel file says.

    ``flavor``: None finds it from the object. ``options`` are the flavor's: serialization_format, skops_trusted_types,
    model_format. Raises ModelError.
    """
    if flavor is not None and flavor not in BY_NAME:
        raise ModelError(f"There is no flavor '{flavor}'; there are: {', '.join(BY_NAME)}.")
    chosen = BY_NAME[flavor] if flavor else next(each for each in FLAVORS if each.matches(model))
    folder.mkdir(parents=True)
    saved = chosen.save(model, folder, options)
    if code_paths:
        saved.function["code"] = "code"
        _copy_code(code_paths, folder / "code")
    if saved.flavor:
        saved.flavor["code"] = saved.function.get("code")
    if signature is None and input_example is not None:
        signature = _signature_by_asking(chosen.name, model, folder, saved.flavor, input_example)
    packages = _requirements(saved.packages, pip_requirements, signature)
    _write_environment(folder, packages)
    flavors: dict[str, Any] = {
        "python_function": {
            **saved.function,
            "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
            "python_version": platform.python_version(),
        }
    }
    if saved.flavor:
        flavors[chosen.name] = saved.flavor
    document: dict[str, Any] = {"flavors": flavors, "mlflow_version": _LAYOUT}
    if artifact_path:
        document["artifact_path"] = artifact_path
    if run_id:
        document["run_id"] = run_id
    if input_example is not None:
        document["saved_input_example_info"] = _write_example(input_example, folder)
    if signature is not None:
        document["signature"] = signature.to_dict()
    if metadata:
        document["metadata"] = dict(metadata)
    document["model_size_bytes"] = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    document["utc_time_created"] = now.isoformat(" ")
    (folder / "MLmodel").write_text(_yaml(document), "utf-8")
    return document


def _copy_code(paths: Sequence[str | Path], target: Path) -> None:
    target.mkdir(exist_ok=True)
    for each in paths:
        path = Path(each)
        if path.is_dir():
            skip = shutil.ignore_patterns("__pycache__", "*.pyc", ".git")
            shutil.copytree(path, target / path.resolve().name, ignore=skip, dirs_exist_ok=True)
        elif path.is_file():
            shutil.copyfile(path, target / path.name)
        else:
            raise ModelError(f"There is no code at {path}.")


def _signature_by_asking(
    flavor: str, model: Any, folder: Path, conf: dict[str, Any], example: Any
) -> ModelSignature:
    """The signature of the example and of what the model, read back from its files, answers to it."""
    inputs = infer_signature(example).inputs
    if flavor == "python_function":
        output = (getattr(model, "predict", None) or model)(example)
    else:
        loaded: Loaded = BY_NAME[flavor].load(folder, conf)
        output = loaded.predict(enforce(example, inputs), {})
    return ModelSignature(inputs, infer_signature(output).inputs)


def _requirements(
    packages: Sequence[str], given: Sequence[str] | None, signature: ModelSignature | None
) -> list[str]:
    if given is not None:
        return list(given)
    wanted = list(packages)
    columns = signature is not None and signature.inputs and signature.inputs[0].get("type") != "tensor"
    for package in ("numpy", "pandas") if columns else ("numpy",):
        if package not in wanted and version_of(package):
            wanted.append(package)
    return sorted(f"{name}=={version_of(name)}" if version_of(name) else name for name in set(wanted))


def _write_environment(folder: Path, packages: Sequence[str]) -> None:
    python = platform.python_version()
    (folder / "requirements.txt").write_text("".join(f"{line}\n" for line in packages), "utf-8")
    (folder / "python_env.yaml").write_text(
        f"python: {python}\nbuild_dependencies:\n- pip\ndependencies:\n- -r requirements.txt\n", "utf-8"
    )
    conda = ["name: mlflow-env", "channels:", "- conda-forge", "dependencies:", f"- python={python}", "- pip"]
    conda += ["- pip:", *(f"  - {json.dumps(line)}" for line in packages)]
    (folder / "conda.yaml").write_text("\n".join(conda) + "\n", "utf-8")


def _write_example(example: Any, folder: Path) -> dict[str, Any]:
    """The example as MLflow keeps it, and as a request that the scoring protocol takes."""
    if hasattr(example, "columns") and hasattr(example, "to_dict"):
        split = example.to_dict(orient="split")
        content = {"columns": [str(name) for name in split["columns"]], "data": plain(split["data"])}
        request: dict[str, Any] = {"dataframe_split": content}
        info: dict[str, Any] = {"type": "dataframe", "pandas_orient": "split"}
    elif hasattr(example, "tolist"):
        content = {"inputs": example.tolist()}
        request = content
        info = {"type": "ndarray", "format": "tf-serving"}
    else:
        content = plain(example)
        request = {"inputs": content}
        info = {"type": "json_object"}
    for name, value in ((_EXAMPLE, content), (_SERVING_EXAMPLE, request)):
        (folder / name).write_text(json.dumps(value), "utf-8")
    return {"artifact_path": _EXAMPLE, "serving_input_path": _SERVING_EXAMPLE, **info}


def _yaml(document: Mapping[str, Any]) -> str:
    try:
        import yaml
    except ImportError:
        return json.dumps(document, indent=1) + "\n"  # JSON is YAML
    return str(yaml.safe_dump(document, default_flow_style=False, allow_unicode=True))

"""``mltrack.log_model`` and ``mltrack.load_model``."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mltrack.store.client.log import UsageError, active_run, chosen_store, log_artifacts, start_run
from mltrack.store.flavors.kinds import ModelError
from mltrack.store.flavors.loading import LoadedModel, environment_problems, load_folder
from mltrack.store.flavors.saving import save_model
from mltrack.store.flavors.schema import ModelSignature

if TYPE_CHECKING:
    from mltrack.store.store import Store


@dataclass(frozen=True)
class ModelInfo:
    """A model that was logged. ``version`` is its number when it was registered too."""

    model_uri: str
    run_id: str
    name: str
    flavors: tuple[str, ...]
    signature: ModelSignature | None
    version: int | None = None


def log_model(
    model: Any,
    name: str = "model",
    *,
    signature: ModelSignature | None = None,
    input_example: Any = None,
    registered_model_name: str | None = None,
    pip_requirements: Sequence[str] | None = None,
    code_paths: Sequence[str | Path] = (),
    metadata: Mapping[str, Any] | None = None,
    flavor: str | None = None,
    **options: Any,
) -> ModelInfo:
    """Keep a model with the active run, as a folder ``name`` that MLflow can load too; register it where that is asked for.

    The flavor is found from the object; ``options`` are the flavor's (docs/models.md). Raises UsageError.
    """
    run = active_run() or start_run()
    with tempfile.TemporaryDirectory(prefix="mltrack-model-") as temporary:
        folder = Path(temporary) / "model"
        try:
            document = save_model(
                model,
                folder,
                flavor=flavor,
                signature=signature,
                input_example=input_example,
                pip_requirements=pip_requirements,
                code_paths=code_paths,
                metadata=metadata,
                run_id=run.run_id,
                artifact_path=name,
                **options,
            )
        except ModelError as error:
            raise UsageError(f"log_model: {error}") from None
        log_artifacts(folder, name)
    kept = run.folder / "artifacts" / name / "MLmodel"
    if not kept.is_file():
        raise UsageError(f"log_model: the files of the model could not be kept at {kept.parent}.")
    uri = f"runs:/{run.run_id}/{name}"
    version = None
    if registered_model_name is not None:
        with _open() as store:
            version = store.registry.register_from(uri, registered_model_name)
    stated = document.get("signature")
    return ModelInfo(
        uri,
        run.run_id,
        name,
        tuple(document["flavors"]),
        ModelSignature.from_dict(stated) if stated else None,
        version,
    )


def load_model(uri: str | Path) -> LoadedModel:
    """The model at ``runs:/ID/name``, ``models:/NAME/3``, ``models:/NAME/Production``, ``models:/NAME@alias`` or a folder.

    Loading may run code that came with the model: load what you trust. What differs from the environment the model was saved in is
    said as a warning. Raises UsageError.
    """
    from mltrack.store.errors import MltrackError
    from mltrack.store.mlmodel import read_mlmodel

    try:
        text = str(uri)
        if text.startswith(("runs:/", "models:/", "mltrack:/", "mlflow-artifacts:")):
            with _open() as store:
                folder = store.registry.locate(text)
        else:
            folder = Path(text.removeprefix("file://")).absolute()
        document = read_mlmodel(folder).document
        problems = environment_problems(folder, document)
        try:
            loaded = load_folder(folder, document)
        except (ModelError, ImportError) as error:
            why = f" ({'; '.join(problems[:3])})" if problems else ""
            raise UsageError(f"load_model: {error}{why}") from error
    except MltrackError as error:
        raise UsageError(f"load_model: {error.message}") from None
    if problems:
        warnings.warn(
            f"The model {text} was saved in another environment: {'; '.join(problems)}.", stacklevel=2
        )
    return loaded


def _open() -> Store:
    try:
        from mltrack.store.opening import open_store
    except ImportError as error:
        raise UsageError(
            f"The registry needs the packages the store is made of ({error.name} is missing): pip install mltrack-tui."
        ) from None
    return open_store(chosen_store().url)

"""How a launched process finds its run: environment variables, ours and MLflow's, and our client on its path."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import mltrack
from mltrack.store.filesystem import cache_folder

CLIENT_IN_CONTAINER = "/mltrack/client"
STORE_IN_CONTAINER = "/mltrack/store"
# Variables that would make a launched process take itself for part of another run, rank or store.
_FOREIGN = (
    "MLTRACK_RUN_ID",
    "MLTRACK_EXPERIMENT",
    "MLTRACK_STORE",
    "MLTRACK_CONSOLE",
    "MLFLOW_RUN_ID",
    "MLFLOW_EXPERIMENT_ID",
    "MLFLOW_EXPERIMENT_NAME",
    "MLFLOW_TRACKING_URI",
)


def identity_variables(run_id: str, experiment: str, store: str) -> dict[str, str]:
    """The variables of a launched process. ``store`` as the process reaches it: a folder or URL."""
    variables = {
        "MLTRACK_RUN_ID": run_id,
        "MLTRACK_EXPERIMENT": experiment,
        "MLTRACK_STORE": store,
        "MLTRACK_CONSOLE": "0",  # its output is kept by whoever launched it
        "PYTHONUNBUFFERED": "1",
    }
    server = mlflow_server(store)
    if server:
        variables.update(
            {"MLFLOW_RUN_ID": run_id, "MLFLOW_TRACKING_URI": server, "MLFLOW_EXPERIMENT_NAME": experiment}
        )
    return variables


def mlflow_server(store: str) -> str:
    """The address of an MLflow REST server of this store; "" when none is known.

    The one place where launching learns of a server: a store that is itself behind http is one, and so is the address
    that MLTRACK_MLFLOW_URI names.
    """
    if store.startswith(("http://", "https://")):
        return store
    return os.environ.get("MLTRACK_MLFLOW_URI", "")


def without_foreign_identity(environment: dict[str, str]) -> dict[str, str]:
    """The caller's environment without what ties the caller itself to a run."""
    return {name: value for name, value in environment.items() if name not in _FOREIGN}


def package_places() -> tuple[Path, Path]:
    """(our __init__.py, the store package), as they lie on this machine."""
    init = Path(os.path.realpath(mltrack.__file__))
    return init, Path(os.path.realpath(Path(mltrack.__file__).parent / "store"))


def client_folder() -> Path:
    """A folder for PYTHONPATH that holds nothing but the package as far as a training needs it, by links."""
    init, store = package_places()
    name = hashlib.sha256(os.fsencode(f"{init}\0{store}")).hexdigest()[:16]
    folder = cache_folder() / "client" / name
    package = folder / "mltrack"
    package.mkdir(mode=0o700, parents=True, exist_ok=True)
    for link, target in (("__init__.py", init), ("store", store)):
        try:
            os.symlink(target, package / link)
        except FileExistsError:
            continue
    return folder


def with_client(path: str | None, folder: str) -> str:
    """PYTHONPATH with the client behind everything else on it."""
    return f"{path}{os.pathsep}{folder}" if path else folder

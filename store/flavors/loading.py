"""Reading a model folder back to something that predicts. This may run code that came with the model."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mltrack.store.flavors.kinds import Loaded, ModelError, inside, load_function, version_of
from mltrack.store.flavors.known import BY_NAME
from mltrack.store.flavors.schema import ModelSignature, enforce, enforce_params

_PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^]]*\])?\s*(?:==\s*([^\s;#]+))?")


class LoadedModel:
    """A model in memory. ``native`` is the library's own object, ``document`` its MLmodel file."""

    def __init__(self, loaded: Loaded, document: Mapping[str, Any]) -> None:
        self.native = loaded.native
        self.document = document
        stated = document.get("signature")
        self.signature = ModelSignature.from_dict(stated) if isinstance(stated, Mapping) else None
        self._predict = loaded.predict

    def predict(self, data: Any, params: Mapping[str, Any] | None = None) -> Any:
        """What the model says to ``data``, which is held to the signature. Raises SchemaError."""
        if self.signature is None:
            return self._predict(data, dict(params or {}))
        return self._predict(
            enforce(data, self.signature.inputs), enforce_params(params or {}, self.signature.params)
        )


def load_folder(folder: Path, document: Mapping[str, Any]) -> LoadedModel:
    """Load the model whose MLmodel file says ``document``. Raises ModelError."""
    flavors = document.get("flavors")
    if not isinstance(flavors, Mapping) or not flavors:
        raise ModelError("The MLmodel file names no flavors.")
    function = dict(flavors.get("python_function") or {})
    for conf in (function, *flavors.values()):
        code = conf.get("code")
        if code:
            path = str(inside(folder, code, "code"))
            if path not in sys.path:
                sys.path.insert(0, path)
    for name, conf in flavors.items():
        if name in BY_NAME and name != "python_function":
            return LoadedModel(BY_NAME[name].load(folder, dict(conf)), document)
    if not function:
        raise ModelError(f"Nothing here loads a model of the flavor {', '.join(map(str, flavors))}.")
    return LoadedModel(load_function(folder, function), document)


def environment_problems(folder: Path, document: Mapping[str, Any]) -> list[str]:
    """What differs between this environment and the one the model was saved in, a sentence each; missing packages first."""
    missing: list[str] = []
    differs: list[str] = []
    function = (document.get("flavors") or {}).get("python_function") or {}
    python = str(function.get("python_version") or "")
    if python and python.split(".")[:2] != platform.python_version().split(".")[:2]:
        differs.append(f"it was saved with Python {python}, this is {platform.python_version()}")
    try:
        lines = (folder / "requirements.txt").read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    for line in lines[:500]:
        pin = _PIN.match(line.strip())
        if not pin or line.strip().startswith(("-", "#", "mlflow")):
            continue
        have = version_of(pin[1])
        if not have:
            missing.append(f"{pin[1]} is not installed")
        elif pin[2] and pin[2] != have:
            differs.append(f"{pin[1]} is {have}, not {pin[2]}")
    return missing + differs

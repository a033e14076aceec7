"""A model whose loading runs code is listed, opened, checked, compared and promoted, and nothing of it runs."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Command = tuple[tuple[str, ...], dict[str, str]]
Run = Callable[..., "subprocess.CompletedProcess[str]"]

# A whole session of the worker under an audit hook that ends it at the first pickle that is loaded or code of a model that is imported.
SESSION = """
import os, sys

def watch(event, arguments):
    if event == "pickle.find_class" or (event == "import" and str(arguments[0]).startswith("mltrack.store.flavors")):
        os.write(2, f"{event} {arguments[0]}".encode())
        os._exit(3)

sys.addaudithook(watch)
from mltrack.store.opening import open_store
from mltrack.tui.worker_calls import models, models_pages as pages

with open_store(sys.argv[1]) as store:
    store.refresh(None)
    name = "evil"
    for version in (1, 2):
        models.models(store, 120, 40, name, version)
        pages.model_version_page(store, name, version)
    pages.model_diff(store, name, 1, 2)
    pages.model_history(store, name)
    pages.model_move(store, name, 1, "Production", "", None)
    pages.model_move(store, name, 2, "Production", "", 1)
    pages.model_back(store, name, 1, "", 2)
    pages.model_register(store, "models:/evil/1", "copy")
    pages.model_register(store, sys.argv[2], "copy")
    store.gc()
    print("lived")
"""


class Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.mark}",)


def test_nothing_of_a_model_runs_in_the_app_or_the_command(
    tmp_path: Path, command: Command, mltrack: Run, small_store: str
) -> None:
    mark = tmp_path / "ran"
    folders = []
    for number in (1, 2):
        folder = tmp_path / f"model{number}"
        (folder / "code").mkdir(parents=True)
        (folder / "model.pkl").write_bytes(pickle.dumps(Bomb(mark)))
        (folder / "weights.bin").write_bytes(pickle.dumps([number, Bomb(mark)]))
        (folder / "code" / "evil.py").write_text(f"open({str(mark)!r}, 'w')")
        (folder / "MLmodel").write_text(
            "flavors: {python_function: {loader_module: evil, code: code, data: model.pkl}, sklearn: {pickled_model: model.pkl}}\n"
            'signature: {inputs: \'[{"type": "double", "name": "a"}]\'}\n'
        )
        folders.append(str(folder))
        answer = mltrack("--store", small_store, "models", "register", str(folder), "--name", "evil")
        assert answer.returncode == 0, answer.stderr
    done = subprocess.run(
        [sys.executable, "-c", SESSION, small_store, folders[0]],
        env=command[1],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, "lived\n"), done.stderr
    for arguments in (("show", "evil/1"), ("diff", "evil/1", "evil/2"), ("test", "evil/1"), ("list",)):
        output = mltrack("--store", small_store, "models", *arguments).stdout
        assert output
    shown = mltrack("--store", small_store, "models", "show", "evil/1").stdout
    assert "model.pkl, weights.bin: runs code when loaded" in shown
    assert not mark.exists()

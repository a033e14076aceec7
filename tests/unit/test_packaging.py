"""The house of DESIGN: the links, what is shipped, what an import costs, and who may import whom."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("tui", "store", "projects")

# Prints what importing the package loads beyond the standard library, and where the package lies.
IMPORT_COST = """
import sys
before = set(sys.modules)
import mltrack
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
print(sorted(loaded - sys.stdlib_module_names - {"mltrack"}))
print(mltrack.__file__)
"""


LOG_ALL = """
import sys, mltrack
mltrack.set_store(sys.argv[1])
with mltrack.start_run(run_name="bare", system_metrics=False) as run:
    for step in range(10):
        mltrack.log_metrics({"loss": 1 / (step + 1)}, step=step)
    mltrack.log_params({"lr": 0.1})
    mltrack.set_tags({"a": "b"})
    mltrack.log_text("x", "a.txt")
    mltrack.log_dict({"a": 1}, "b.json")
    mltrack.log_table({"a": [1, 2]}, "c.json")
    mltrack.log_input(sys.executable)
    mltrack.progress(10, 10)
"""


@dataclass(frozen=True)
class Built:
    sdist: Path
    wheel: Path


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Run a program in the repository; what it printed. A failure shows all of it."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def shipped_files() -> set[str]:
    """Every file of the three folders, as its path below the package."""
    return {
        f"mltrack/{path.relative_to(ROOT).as_posix()}"
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The sdist of this tree, and the wheel made from that sdist, as an installer without our git would."""
    folder = tmp_path_factory.mktemp("built")
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder)
    (sdist,) = folder.glob("*.tar.gz")
    run(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
        "-w",
        folder,
        sdist,
    )
    (wheel,) = folder.glob("*.whl")
    return Built(sdist, wheel)


def test_the_package_is_three_links_to_the_folders_at_the_root() -> None:
    package = ROOT / "src" / "mltrack"
    assert {path.name: os.readlink(path) for path in package.iterdir() if path.is_symlink()} == {
        folder: f"../../{folder}" for folder in FOLDERS
    }
    assert {path.name for path in package.iterdir() if not path.is_symlink()} - {"__pycache__"} == {
        "__init__.py",
        "py.typed",
    }


def test_the_type_checker_is_told_of_every_link() -> None:
    """Pyright passes over links that it is not told of, without a word."""
    included = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["pyright"]["include"]
    assert {f"src/mltrack/{folder}" for folder in FOLDERS} <= set(included)


def test_sdist_holds_every_file_the_tests_and_the_licence(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    expected = {f"src/{name}" for name in shipped_files()} | {
        "LICENSE",
        "README.md",
        "tests/unit/test_packaging.py",
    }
    assert expected <= names


def test_wheel_from_the_sdist_holds_every_file_and_nothing_beside_the_package(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        names = set(archive.namelist())
    inside = {name for name in names if ".dist-info/" not in name}
    assert inside == shipped_files() | {"mltrack/__init__.py", "mltrack/py.typed"}
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_wheel_without_dependencies_is_enough_to_log(built: Built, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    run(
        sys.executable,
        "-m",
        "pip",
        "-q",
        "--python",
        python,
        "install",
        "--no-deps",
        "--no-index",
        built.wheel,
    )
    foreign, place = run(python, "-I", "-c", IMPORT_COST, cwd=tmp_path).splitlines()
    assert foreign == "[]"
    assert Path(place).is_relative_to(tmp_path)
    said = run(python, "-I", "-c", LOG_ALL, tmp_path / "store", cwd=tmp_path)
    assert said == ""
    (meta,) = (tmp_path / "store").glob("runs/*/*/meta.*.jsonl")
    assert '"status":"FINISHED"' in meta.read_text() and '"op":"refused"' not in meta.read_text()
    assert {path.name for path in meta.parent.glob("artifacts/*")} == {"a.txt", "b.json", "c.json"}
    for name in ("mltrack", "mltrack-tui"):
        done = subprocess.run([python.with_name(name)], capture_output=True, text=True)
        assert (
            done.returncode == 1 and done.stderr.count("\n") == 1 and "pip install mltrack-tui" in done.stderr
        )


def test_importing_mltrack_loads_only_the_standard_library(tmp_path: Path) -> None:
    foreign, _ = run(sys.executable, "-c", IMPORT_COST, cwd=tmp_path).splitlines()
    assert foreign == "[]"


def test_the_client_imports_only_the_standard_library_and_itself() -> None:
    graph = grimp.build_graph(
        "mltrack", include_external_packages=True, exclude_type_checking_imports=True, cache_dir=None
    )
    client = {"mltrack.store.client", *graph.find_descendants("mltrack.store.client")}
    foreign = {
        (module, imported)
        for module in client
        for imported in graph.find_modules_directly_imported_by(module)
        if imported not in client and imported not in sys.stdlib_module_names
    }
    assert foreign == set()


def test_layers_and_forbidden_imports_hold() -> None:
    run(
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command as lint; lint()",
        "--no-logo",
        "--no-cache",
    )

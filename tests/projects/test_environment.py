"""What is declared, from every kind of file, becomes one description and one Dockerfile; nothing is dropped silently."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.projects.launching import write_project

from mltrack.projects.conda import honoured
from mltrack.projects.dockerfile import base_image, render_dockerfile, requirement_files
from mltrack.projects.environment import Environment, read_environment
from mltrack.projects.errors import ProjectError
from mltrack.projects.gpus import Gpu, Lease, choose_gpus
from mltrack.projects.image_context import collect_source, content_hash, write_context
from mltrack.projects.locks import locked_lines
from mltrack.projects.mounts import parse_volume
from mltrack.projects.profiles import parse_size, read_profile
from mltrack.projects.spec import read_project


def environment_of(folder: Path, **files: str) -> Environment:
    return read_environment(read_project(write_project(folder, **files)))


def test_python_env_with_requirement_files(tmp_path: Path) -> None:
    found = environment_of(
        tmp_path,
        MLproject="python_env: env/python_env.yaml\n",
        env__python_env_DOT_yaml="""\
            python: "3.10"
            build_dependencies: [pip, setuptools==68]
            dependencies: ["-r reqs/base.txt", "numpy>=2", ". ", "./wheels/x.whl"]
            """,
        reqs__base_DOT_txt="torch==2.4 \\\n  --hash=sha256:ab  # exactly\n-r more.txt\n-c limits.txt\n\n# nothing\n",
        reqs__more_DOT_txt="--extra-index-url https://example.org/simple\nrich\n",
        reqs__limits_DOT_txt="rich<99\n",
        wheels__x_DOT_whl="",
        pyproject_DOT_toml='[project]\nname = "own"\ndependencies = ["click"]\n',
        apt_DOT_txt="ffmpeg  # for video\n",
    )
    assert found.python == "3.10"
    assert found.build_dependencies == ("pip", "setuptools==68")
    assert found.dependencies == (
        "torch==2.4 --hash=sha256:ab",
        "--extra-index-url https://example.org/simple",
        "rich",
        "numpy>=2",
        "click",
    )
    assert found.local == (".", "./wheels/x.whl")
    assert found.constraints == ("rich<99",)
    assert found.system_packages == ("ffmpeg",)


def test_conda_files_lose_nothing_silently(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = environment_of(
        tmp_path,
        conda_DOT_yaml="""\
            name: x
            channels: [conda-forge]
            dependencies: [python=3.11.4, pip=24, cudatoolkit=11.8, conda-forge::numpy, {pip: [six==1.17.0]}]
            """,
    )
    assert (found.python, found.build_dependencies, found.dependencies) == (
        "3.11.4",
        ("pip==24",),
        ("six==1.17.0",),
    )
    assert found.conda == ("cudatoolkit=11.8", "conda-forge::numpy") and found.channels == ("conda-forge",)
    monkeypatch.setenv("PATH", "/nowhere")
    left = honoured(found, "docker")
    assert "cudatoolkit=11.8, conda-forge::numpy" in left.not_honoured[0] and not left.conda
    tool = tmp_path / "micromamba"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert honoured(found, "docker") == honoured(found, "venv") == found
    assert honoured(found, "local").not_honoured
    assert json.loads(requirement_files(found)["conda.yml"]) == {
        "channels": ["conda-forge"],
        "dependencies": ["python=3.11.4", "pip", "cudatoolkit=11.8", "conda-forge::numpy"],
    }
    dockerfile = render_dockerfile(found, "python:3.11-slim").splitlines()
    path = dockerfile.index("ENV PATH=/opt/conda/env/bin:$PATH")
    assert dockerfile[path - 1].startswith("RUN /mltrack/micromamba create -y")
    assert any("pip install -r" in line for line in dockerfile[path:])


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("python_env.yaml", "python: 3.10\n", "YAML reads 3.1"),
        ("python_env.yaml", "python: '3.x; rm -rf'\n", "no Python version"),
        ("python_env.yaml", "packages: []\n", "line 1: 'packages' is not known"),
        ("python_env.yaml", "dependencies: ['-r ../../secret.txt']\n", "leads out"),
        ("python_env.yaml", "dependencies: ['-r a.txt']\n", "deeper than"),
        ("conda.yaml", "dependencies: ['python>=3.9']\n", "pin Python"),
    ],
)
def test_mistakes_in_environments(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text)
    (tmp_path / "a.txt").write_text("-r a.txt\n")
    with pytest.raises(ProjectError, match=says):
        read_environment(read_project(tmp_path))


UV_LOCK = """
version = 1
[[package]]
name = "demo"
version = "0.1"
source = { virtual = "." }
dependencies = [{ name = "torch" }, { name = "colorama", marker = "sys_platform == 'win32'" }, { name = "tool" }]
[package.dev-dependencies]
dev = [{ name = "pytest" }]
[[package]]
name = "torch"
version = "2.4.0"
source = { registry = "https://download.example.org/cpu" }
dependencies = [{ name = "filelock" }, { name = "triton", marker = "platform_machine == 'x86_64'" }]
[[package]]
name = "filelock"
version = "3.15.4"
source = { registry = "https://pypi.org/simple" }
[[package]]
name = "triton"
version = "3.0.0"
source = { registry = "https://pypi.org/simple" }
dependencies = [{ name = "filelock" }, { name = "inner", marker = "python_version < '3.12'" }]
[[package]]
name = "inner"
version = "1"
source = { registry = "https://pypi.org/simple" }
[[package]]
name = "colorama"
version = "0.4.6"
source = { registry = "https://pypi.org/simple" }
[[package]]
name = "tool"
version = "1.0"
source = { git = "https://example.org/tool.git?rev=main#0123456789abcdef0123456789abcdef01234567" }
[[package]]
name = "pytest"
version = "8.0"
source = { registry = "https://pypi.org/simple" }
"""
POETRY_LOCK = """
[[package]]
name = "requests"
version = "2.32.3"
optional = false
[package.dependencies]
idna = ">=2.5"
PySocks = {version = ">=1", optional = true}
[[package]]
name = "idna"
version = "3.7"
[[package]]
name = "pysocks"
version = "1.7.1"
[[package]]
name = "pytest"
version = "8.0"
"""


def test_locks_give_exactly_what_the_project_needs() -> None:
    lines, said = locked_lines("uv.lock", tomllib.loads(UV_LOCK), {"project": {"name": "demo"}})
    assert said == ()
    assert lines == [
        "--extra-index-url https://download.example.org/cpu",
        "torch==2.4.0",
        "filelock==3.15.4",
        "triton==3.0.0 ; platform_machine == 'x86_64'",
        "inner==1 ; (platform_machine == 'x86_64') and (python_version < '3.12')",
        "colorama==0.4.6 ; sys_platform == 'win32'",
        "tool @ git+https://example.org/tool.git@0123456789abcdef0123456789abcdef01234567",
    ]
    pyproject = {"tool": {"poetry": {"dependencies": {"python": "^3.11", "Requests": "^2"}}}}
    lines, _ = locked_lines("poetry.lock", tomllib.loads(POETRY_LOCK), pyproject)
    assert lines == ["requests==2.32.3", "idna==3.7"]


def test_locks_come_before_requirements(tmp_path: Path) -> None:
    found = environment_of(
        tmp_path,
        uv_DOT_lock=UV_LOCK,
        requirements_DOT_txt="other\n",
        pyproject_DOT_toml='[project]\nname = "demo"\nrequires-python = "==3.12.*"\n',
    )
    assert found.sources == ("uv.lock",) and "torch==2.4.0" in found.dependencies and found.python == "3.12"


GOLDEN = """\
# Made by mltrack from: python_env.yaml
FROM python:3.11-slim
ARG PIP_INDEX_URL
COPY mltrack-ca.crt /etc/ssl/mltrack-ca.crt
ENV SSL_CERT_FILE={ca} REQUESTS_CA_BUNDLE={ca} CURL_CA_BUNDLE={ca} PIP_CERT={ca}
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ffmpeg && rm -rf /var/lib/apt/lists/*
COPY constraints.txt /mltrack/
COPY build.txt /mltrack/
RUN python -m pip install -r /mltrack/build.txt -c /mltrack/constraints.txt
COPY requirements.txt /mltrack/
RUN python -m pip install -r /mltrack/requirements.txt -c /mltrack/constraints.txt
RUN mkdir -p /project && chmod 0777 /project
WORKDIR /project
COPY project/ /project/
COPY local.txt /mltrack/
RUN python -m pip install -r /mltrack/local.txt -c /mltrack/constraints.txt
"""


def test_the_dockerfile_of_everything() -> None:
    everything = Environment(
        "3.11", ("setuptools",), ("six",), ("six<2",), (".",), ("ffmpeg",), sources=("python_env.yaml",)
    )
    assert render_dockerfile(
        everything, base_image(everything, None, "3.12"), build_args=("PIP_INDEX_URL",), certificates=True
    ) == GOLDEN.replace("{ca}", "/etc/ssl/mltrack-ca.crt")
    assert requirement_files(everything)["requirements.txt"] == "six\n"
    assert base_image(Environment(), None, "3.12") == "python:3.12-slim"


@given(st.text(max_size=40))
def test_no_name_becomes_an_instruction(text: str) -> None:
    for render in (
        lambda: render_dockerfile(Environment(), text),
        lambda: render_dockerfile(Environment(), "python:3.11-slim", build_args=(text,)),
    ):
        try:
            rendered = render()
        except ProjectError:
            continue
        assert len(rendered.splitlines()) <= 8 and all(line.isprintable() for line in rendered.splitlines())
    found = requirement_files(Environment(dependencies=(text.replace("\n", " "),)))
    assert "requirements.txt" in found


def test_the_context_is_the_same_for_the_same_files_and_without_secrets(tmp_path: Path) -> None:
    import io

    folder = write_project(
        tmp_path / "p",
        train_DOT_py="x",
        _DOT_env="PASSWORD=x",
        venv__x_DOT_py="",
        data__big_DOT_bin="b",
        keep_DOT_txt="k",
    )
    (folder / ".dockerignore").write_text("data\n")
    (folder / "out").symlink_to("/etc/hostname")
    source = collect_source(folder)
    assert source.files == (".dockerignore", "keep.txt", "out", "train.py") and source.secret == (".env",)
    first, second = io.BytesIO(), io.BytesIO()
    write_context(first, "FROM x\n", {}, source)
    (folder / "train.py").touch()
    write_context(second, "FROM x\n", {}, collect_source(folder))
    assert first.getvalue() == second.getvalue() and b"PASSWORD" not in first.getvalue()
    before = content_hash("FROM x\n", {}, source, "base")
    assert content_hash("FROM x\n", {}, collect_source(folder), "base") == before
    (folder / "train.py").write_text("y")
    assert content_hash("FROM x\n", {}, collect_source(folder), "base") != before
    assert content_hash("FROM x\n", {}, source, "other") != before


def test_profiles_and_volumes(store_root: Path, tmp_path: Path) -> None:
    import os

    path = Path(os.environ["XDG_CONFIG_HOME"]) / "mltrack" / "profiles.toml"
    assert read_profile(None).network is None
    path.parent.mkdir(parents=True)
    path.write_text(
        '[default]\nnetwork = "host"\nmemory = "1.5g"\n[wrong]\nnetwrok = "x"\n[ca]\nca = "/nowhere"\n'
    )
    assert (read_profile(None).network, read_profile(None).memory_bytes) == ("host", 3 << 29)
    for name in ("wrong", "ca", "gone"):
        with pytest.raises(ProjectError):
            read_profile(name)
    assert parse_size("512m") == 512 << 20 and parse_size("100") == 100
    assert parse_volume("./data:/data:ro", write_project(tmp_path, data__x="")).source == str(
        tmp_path / "data"
    )
    for wrong in ("data", "name:/data", "./gone:/x", "/tmp:relative"):
        with pytest.raises(ProjectError):
            parse_volume(wrong, tmp_path)


def test_gpus_are_chosen_and_held(store_root: Path) -> None:
    def gpu(index: int, used: int = 0, processes: int = 0, leased: bool = False) -> Gpu:
        return Gpu(index, f"GPU-{index}", "H100", 80 << 30, used, processes, leased)

    box = [gpu(0, processes=1), gpu(1), gpu(2, used=1 << 30), gpu(3, leased=True), gpu(4)]
    assert choose_gpus("none", box) == []
    assert choose_gpus("free", box) == ["GPU-1"]
    assert choose_gpus("2", box) == ["GPU-1", "GPU-4"]
    assert choose_gpus("gpu0,GPU-3", box) == ["GPU-0", "GPU-3"]
    for wrong in ("3", "gpu9", "free,free"):
        with pytest.raises(ProjectError):
            choose_gpus(wrong, box)
    ours, theirs = Lease(), Lease()
    assert ours.take(["GPU-1"]) and not theirs.take(["GPU-4", "GPU-1"]) and theirs.take(["GPU-4"])
    ours.close()
    assert theirs.take(["GPU-1"])
    theirs.close()

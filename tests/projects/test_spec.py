"""Projects are read as MLflow reads them, and mistakes are told with file, line and advice."""

from __future__ import annotations

import textwrap
import tomllib
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mltrack.projects.errors import ProjectError
from mltrack.projects.limited_yaml import parse_yaml
from mltrack.projects.spec import Parameter, read_project


def project_in(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return folder


def test_all_keys_of_an_mlproject(tmp_path: Path) -> None:
    project_in(
        tmp_path,
        mlPROJECT="""\
            name: wine quality
            conda_env: envs/conda.yaml
            entry_points:
              main:
                parameters:
                  alpha: float
                  l1_ratio: {type: float, default: 0.1}
                  data: {type: path, default: data/wine.csv}
                  site: {type: uri, default: "https://example.org/x"}
                  rounds: {type: int, default: 10}
                  flag: {default: true}
                  nothing: {type: string, default: null}
                  empty: {type: string, default: ""}
                command: >-
                  python train.py {alpha} {l1_ratio}
                  --data {data}
              validate:
                command: "python validate.py"
            """,
        envs__conda_DOT_yaml="name: x\n",
    )
    project = read_project(tmp_path)
    assert project.name == "wine quality"
    assert (project.environment.kind, project.environment.path) == ("conda", "envs/conda.yaml")
    main = project.entry_point()
    assert main.command == "python train.py {alpha} {l1_ratio} --data {data}"
    assert main.parameters == {
        "alpha": Parameter("alpha", "float", None),
        "l1_ratio": Parameter("l1_ratio", "float", 0.1),
        "data": Parameter("data", "path", "data/wine.csv"),
        "site": Parameter("site", "uri", "https://example.org/x"),
        "rounds": Parameter("rounds", "int", 10),
        "flag": Parameter("flag", "string", True),
        "nothing": Parameter("nothing", "string", None),
        "empty": Parameter("empty", "string", ""),
    }
    assert list(project.entry_points) == ["main", "validate"]
    assert project.entry_points["validate"].parameters == {}


def test_docker_environment(tmp_path: Path) -> None:
    project_in(
        tmp_path,
        MLproject="""\
            docker_env:
              image: registry.example.org/ml:7
              volumes: ["/data:/data:ro"]
              environment: [["MODE", "fast"], "TOKEN_FILE"]
            """,
    )
    environment = read_project(tmp_path).environment
    assert environment.image == "registry.example.org/ml:7"
    assert environment.volumes == ("/data:/data:ro",)
    assert environment.variables == (("MODE", "fast"), ("TOKEN_FILE", None))


@pytest.mark.parametrize(
    ("files", "kind", "path"),
    [
        ({}, "python", None),
        ({"python_env_DOT_yaml": "", "conda_DOT_yaml": ""}, "python", "python_env.yaml"),
        ({"conda_DOT_yaml": ""}, "conda", "conda.yaml"),
    ],
)
def test_environment_files_beside_the_project_count(
    tmp_path: Path, files: dict[str, str], kind: str, path: str | None
) -> None:
    for mlproject in ({}, {"MLproject": "name: x\n"}):
        environment = read_project(project_in(tmp_path, **files, **mlproject)).environment
        assert (environment.kind, environment.path) == (kind, path)


def test_scripts_can_be_named_and_stay_inside(tmp_path: Path) -> None:
    project_in(tmp_path, MLproject="name: x\n", train_DOT_py="", sub__run_DOT_sh="")
    (tmp_path.parent / "outside.py").write_text("")
    (tmp_path / "link.py").symlink_to(tmp_path.parent / "outside.py")
    project = read_project(tmp_path)
    assert project.entry_points == {}
    assert project.entry_point("train.py").command == "python train.py"
    assert project.entry_point("sub/run.sh").command == "bash sub/run.sh"
    for name in ("../outside.py", "link.py", "gone.py", "notes.txt", str(tmp_path.parent / "outside.py")):
        with pytest.raises(ProjectError):
            project.entry_point(name)
    with pytest.raises(ProjectError, match="no entry point 'main'"):
        project.entry_point()


def test_a_folder_without_mlproject_offers_what_it_has(tmp_path: Path) -> None:
    project_in(
        tmp_path,
        pyproject_DOT_toml="""\
            [project]
            name = "vision"
            scripts = {evaluate = "vision.evaluate:main"}
            [tool.mltrack]
            system_packages = ["ffmpeg"]
            python = "3.12"
            [tool.mltrack.entry_points.train]
            command = "python train.py --lr {lr}"
            parameters = {lr = {type = "float", default = 0.1, help = "step size"}}
            """,
        train_DOT_py="",
        setup_DOT_py="",
        test_train_DOT_py="",
        prepare_DOT_sh="",
    )
    project = read_project(tmp_path)
    assert project.name == "vision"
    assert list(project.entry_points) == ["train", "evaluate", "prepare.sh", "train.py"]
    assert project.entry_point().parameters == {"lr": Parameter("lr", "float", 0.1, "step size")}
    assert "from vision.evaluate import main" in project.entry_points["evaluate"].command
    assert (project.settings.python, project.settings.system_packages) == ("3.12", ("ffmpeg",))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: x\nentry_points:\n  main:\n    parameters: {a: 1}\n", "MLproject line 3: .*no command"),
        ("entry_points:\n  main:\n    command: x\n    parameters:\n      a: 3\n", "line 5: the parameter 'a' needs a type"),
        ("entry_points:\n  main:\n\tcommand: x\n", "line 3: .*indent with spaces"),
        ("entry_points:\n  main: python x\n", "line 2: the entry point 'main' needs"),
        ("python_env: a.yaml\nconda_env: b.yaml\n", "line 2: a project has one environment"),
        ("name: x\npython_env: ../a.yaml\n", "leads out of the project"),
        ("name: x\npython_env: gone.yaml\n", "line 2: .*not in the project"),
        ("docker_env:\n  image: x\n  volumes: /a:/b\n", "line 3: 'volumes' must be a list"),
        ("docker_env: {volumes: []}\n", "line 1: 'docker_env' needs an image"),
        ("databricks_spark_job: {}\n", "line 1: .*Databricks"),
        ("- a\n", "must hold"),
        ("a: !!python/object/apply:os.system [touch bang]\n", "line 1: .*refused"),
        ("a: b: c\n", "line 1: .*quote a value"),
        ("x" * (1 << 20) + "y", "1 MiB"),
        ("a: &a [x]\nb: [" + "*a, " * 101 + "]\n", "line 2: it has more than 100 aliases"),
        ("[" * 51 + "]" * 51, "nested deeper than 50"),
    ],
)  # fmt: skip
def test_mistakes_are_told_with_their_line(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "MLproject").write_text(text)
    with pytest.raises(ProjectError, match=says):
        read_project(tmp_path)


PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=80)
@given(PLAIN)
def test_yaml_within_the_limits_is_read_as_by_yaml(value: object) -> None:
    text = yaml.safe_dump(value)
    assert parse_yaml(text.encode(), "x").value == yaml.safe_load(text)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.text(max_size=60), st.text("abc:-{}[]&*!\n \"'#|>\t", max_size=60)), st.booleans())
def test_no_text_does_more_than_a_sentence(tmp_path: Path, text: str, toml: bool) -> None:
    for name in ("MLproject", "pyproject.toml"):
        (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / ("pyproject.toml" if toml else "MLproject")).write_bytes(
        text.encode("utf-8", "surrogatepass")
    )
    try:
        read_project(tmp_path)
    except ProjectError as error:
        assert error.message
    else:
        if toml:
            tomllib.loads(text.replace("\r\n", "\n")) if "\r" not in text else None

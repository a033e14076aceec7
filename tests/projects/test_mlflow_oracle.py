"""MLflow itself, in an environment of its own, says how a project is to be read."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from mltrack.projects.command import build_command, parameter_values
from mltrack.projects.spec import read_project

ORACLE = """
import json, sys
from mlflow.projects._project_spec import load_project
found = []
for folder, entry, given in json.load(sys.stdin):
    project = load_project(folder)
    point = project.get_entry_point(entry)
    found.append({
        "name": project.name,
        "kind": {"python_env": "python", "conda_env": "conda", "docker_env": "docker"}.get(project.env_type, project.env_type),
        "path": project.env_config_path,
        "docker": project.docker_env,
        "points": {name: [p.command, {k: [v.type, v.default] for k, v in p.parameters.items()}]
                   for name, p in project._entry_points.items()},
        "command": point.compute_command(given, None),
    })
json.dump(found, sys.stdout)
"""

PROJECTS: dict[str, tuple[dict[str, str], str, dict[str, str]]] = {
    "regression": (
        {
            "MLproject": "name: regression\npython_env: python_env.yaml\nentry_points:\n  main:\n    parameters:\n"
            "      alpha: {type: float, default: 0.5}\n      l1_ratio: {type: float, default: 0.1}\n"
            '    command: "python train.py {alpha} {l1_ratio}"\n',
            "python_env.yaml": "python: '3.11'\ndependencies: [numpy]\n",
        },
        "main",
        {"alpha": "0.7"},
    ),
    "docker": (
        {
            "MLproject": "name: docker-example\ndocker_env:\n  image: example\n  volumes: ['/a:/b']\n"
            "  environment: [['A', 'b'], 'HOME']\nentry_points:\n  main:\n    parameters:\n      alpha: float\n"
            "      extra: {type: string, default: 'x y'}\n    command: \"python train.py --alpha {alpha} {extra}\"\n",
        },
        "main",
        {"alpha": "1e-3"},
    ),
    "steps": (
        {
            "mlproject": "name: steps\nconda_env: env.yaml\nentry_points:\n  load:\n    command: \"python load.py\"\n"
            "  etl:\n    parameters: {csv: path, rows: {type: int, default: 100000}}\n    command: >\n"
            "      python etl.py --csv {csv}\n      --rows {rows}\n  main:\n    parameters: {als: {type: int, default: 10}}\n"
            "    command: \"python main.py --als {als}\"\n",
            "env.yaml": "dependencies: [python=3.11, {pip: [mlflow]}]\n",
        },
        "main",
        {"als": "3", "more": "2"},
    ),
    # Projects of the shapes that MLflow's own public examples have, in our own words.
    "wine": (
        {
            "MLproject": "name: wine\n\npython_env: python_env.yaml\n\nentry_points:\n  main:\n    parameters:\n"
            "      alpha: float\n      l1_ratio: {type: float, default: 0.1}\n"
            '    command: "python train.py {alpha} {l1_ratio}"\n',
            "python_env.yaml": "python: '3.10'\nbuild_dependencies:\n  - pip\ndependencies:\n  - scikit-learn==1.2.0\n",
        },
        "main",
        {"alpha": "0.42"},
    ),
    "search": (
        {
            "MLproject": "name: search\npython_env: env.yaml\nentry_points:\n  # one training\n  train:\n    parameters:\n"
            "      training_data: {type: string, default: 'https://example.org/white.csv'}\n"
            "      epochs: {type: int, default: 32}\n      learning_rate: {type: float, default: 1e-2}\n"
            "      momentum: {type: float, default: .0}\n      seed: {type: int, default: 97531}\n"
            '    command: "python train.py {training_data}\n                                    --batch-size 256\n'
            "                                    --epochs {epochs}\n                                    --learning-rate {learning_rate}\n"
            '                                    --momentum {momentum}"\n'
            "  # all of them\n  random:\n    parameters:\n      max_runs: {type: int, default: 8}\n"
            "      metric: {type: string, default: rmse}\n"
            '    command: "python search_random.py  --max-runs {max_runs} --metric {metric}"\n',
            "env.yaml": "python: '3.9'\ndependencies: [keras]\n",
        },
        "train",
        {"epochs": "3", "learning_rate": "1e-3"},
    ),
    "pytorch": (
        {
            "MLproject": "name: mnist\npython_env: python_env.yaml\nentry_points:\n  main:\n    parameters:\n"
            "      max_epochs: {type: int, default: 5}\n      devices: {type: str, default: auto}\n"
            "      strategy: {type: str, default: \"auto\"}\n      enable_mnist: {type: bool, default: true}\n    command: |\n"
            "      python mnist.py \\\n        --trainer.max_epochs {max_epochs} \\\n        --trainer.devices {devices} \\\n"
            "        --trainer.strategy {strategy}\n",
            "python_env.yaml": "dependencies: [torch]\n",
        },
        "main",
        {"devices": "1"},
    ),
    "flower": (
        {
            "MLproject": "name: flower\nconda_env: conda.yaml\nentry_points:\n  main:\n    parameters:\n"
            "      training_data: {type: string, default: './flower_photos'}\n      image_width: {type: int, default: 224}\n"
            "    command: \"python train.py --training-data {training_data}\n              --image-width {image_width}\"\n"
            "  test: {command: 'python -m pytest -k \"not slow\"'}\n",
            "conda.yaml": "name: flower\nchannels: [conda-forge]\ndependencies: [python=3.8, pip, pandas=1.0, {pip: [click]}]\n",
        },
        "test",
        {},
    ),
    "yaml-only-defaults": (
        {
            "MLPROJECT": "name: upper\nentry_points:\n  validate:\n    command: \"echo --x {x} '{y}'\"\n    parameters:\n"
            "      x: {default: 1}\n      y: {type: string, default: ab}\n",
        },
        "validate",
        {"x": "7"},
    ),
    "plain": ({"train.py": "", "conda.yaml": "name: x\n"}, "train.py", {}),
    "nothing": ({"MLproject": "name: nothing\n", "x.py": ""}, "x.py", {"n": "1"}),
}  # fmt: skip


def test_projects_are_read_as_mlflow_reads_them(mlflow_python: Path, tmp_path: Path) -> None:
    asked = []
    for name, (files, entry, given) in PROJECTS.items():
        (tmp_path / name).mkdir()
        for file, text in files.items():
            (tmp_path / name / file).write_text(text)
        asked.append((str(tmp_path / name), entry, given))
    answer = subprocess.run(
        [mlflow_python, "-c", ORACLE], input=json.dumps(asked), capture_output=True, text=True, check=True
    )
    for (folder, entry, given), theirs in zip(asked, json.loads(answer.stdout), strict=True):
        project = read_project(Path(folder))
        assert project.name == theirs["name"]
        assert project.environment.kind == theirs["kind"]
        path = project.environment.path
        assert (str(project.folder / path) if path else None) == theirs["path"]
        if theirs["docker"]:
            assert project.environment.image == theirs["docker"]["image"]
            assert list(project.environment.volumes) == theirs["docker"]["volumes"]
        if project.source == "MLproject" or theirs["points"]:
            ours = {
                name: [point.command, {key: [p.type, p.default] for key, p in point.parameters.items()}]
                for name, point in project.entry_points.items()
            }
            assert ours == theirs["points"]
        point = project.entry_point(entry)
        command = build_command(point, parameter_values(point, given, project.folder))
        words = subprocess.run(
            ["bash", "-c", "printf '%s\\n' " + theirs["command"]], capture_output=True, text=True, check=True
        )
        assert "\n".join(command.argv) + "\n" == words.stdout

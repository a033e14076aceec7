"""Journey J4 in a real terminal on a real engine: change the learning rate, launch, watch it build and run, close the app."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.projects.launching import console, wait_for_end, wait_until, write_project
from tests.tui.conftest import TerminalApp, command_environment

from mltrack.projects.jobs import list_jobs
from mltrack.store.client.location import choose_store

pytestmark = pytest.mark.usefixtures("engine")


def test_launched_from_the_screen_built_watched_and_outliving_the_app(
    tmp_path: Path, store_root: Path
) -> None:
    go = tmp_path / "data" / "go"
    go.parent.mkdir()
    project = write_project(
        Path.cwd() / "vision",
        MLproject="""\
            name: vision
            python_env: python_env.yaml
            entry_points:
              main:
                parameters:
                  lr: {type: float, default: 0.1}
                  data: path
                command: "python train.py --lr {lr} {data}"
            """,
        python_env_DOT_yaml='python: "3.11"\ndependencies: ["./lib"]\n',
        lib__pyproject_DOT_toml='[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "tiny"\nversion = "1"\n',
        lib__backend_DOT_py="""\
            import zipfile
            def build_wheel(folder, config_settings=None, metadata_directory=None):
                name = "tiny-1-py3-none-any.whl"
                with zipfile.ZipFile(f"{folder}/{name}", "w") as file:
                    file.writestr("tiny.py", "WORD = 'tiny'")
                    file.writestr("tiny-1.dist-info/METADATA", "Metadata-Version: 2.1\\nName: tiny\\nVersion: 1\\n")
                    file.writestr("tiny-1.dist-info/WHEEL", "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\n")
                    file.writestr("tiny-1.dist-info/RECORD", "")
                return name
            """,
        train_DOT_py="""\
            import pathlib, sys, time, tiny
            import mltrack
            with mltrack.start_run():
                mltrack.log_metric("loss", float(sys.argv[2]), step=0)
                print("training with", sys.argv[2], tiny.WORD)
                while not (pathlib.Path(sys.argv[3]) / "go").exists():
                    time.sleep(0.1)
            """,
        notes_DOT_txt=os.urandom(8).hex(),
    )  # fmt: skip
    store_root.mkdir()
    app = TerminalApp(command_environment(), "--store", str(store_root), columns=120, lines=30)
    app.until("mltrack|runs|Runs|help")
    app.press("3").until("found here")
    app.press("\r").until("needs a value for data")
    app.press("G\r").until("name=value")
    app.press(f"data={go.parent}").until("/data")
    app.press("\r").until("ready: 1 run in a container, image will be built")
    app.press("d").until("Dry run")
    app.until("FROM python:3.11-slim")
    app.press("q").until("launch")
    app.press("G\r").until("name=value")
    app.press("lr=0.25").until(r"0\.25")
    app.press("\r").until("--lr 0.25")
    app.until("image will be built")
    app.press("r").until("Step 1/")
    app.until("training with 0.25 tiny")
    assert app.press("Q").finish() == 0
    assert app.left_as_found()
    job = list_jobs(choose_store().root)[0]
    assert job.watched and job.phase == "running" and job.job.folder == str(project)
    go.touch()
    run = wait_for_end(job.job.run_id)
    assert (run.status, run.params["lr"], run.metrics["loss"].last) == ("FINISHED", "0.25", 0.25)
    assert "Successfully installed tiny-1" in console(run.run_id)
    wait_until(lambda: not list_jobs(choose_store().root)[0].watched, "the supervisor was gone")

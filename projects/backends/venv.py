"""A job in a virtual environment made of what the project declares, kept and reused by the hash of that."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from mltrack.projects.backends.base import Report
from mltrack.projects.backends.local import LocalBackend
from mltrack.projects.conda import find_tool
from mltrack.projects.errors import LaunchError
from mltrack.store.client.secrets import redact_text
from mltrack.store.filesystem import cache_folder

_MARK = ".complete"


def find_python(version: str | None) -> str | None:
    """An interpreter of this version (3.11 or 3.11.7); None: not here. Without a version the one we run on."""
    running = f"{sys.version_info[0]}.{sys.version_info[1]}.{sys.version_info[2]}"
    own = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
    if version is None or running == version or running.startswith(version + "."):
        return own
    minor = ".".join(version.split(".")[:2])
    found = shutil.which(f"python{minor}")
    if found is None:
        return None
    if version.count(".") == 2:
        told = subprocess.run(
            [found, "-I", "-c", "import sys; print(*sys.version_info[:3], sep='.')"],
            capture_output=True,
            check=False,
        )
        if told.stdout.decode("ascii", "replace").strip() != version:
            return None
    return found


def venv_hash(python: dict[str, Any], folder: str) -> str:
    """What decides what an environment holds; with the project's own folder when it installs from that."""
    parts = {
        name: python.get(name) for name in ("version", "build", "lines", "constraints", "local", "conda")
    }
    if python.get("local"):
        parts["folder"] = folder
    return hashlib.sha256(json.dumps([parts, os.uname().machine], sort_keys=True).encode()).hexdigest()


def venv_folder(python: dict[str, Any], folder: str) -> Path:
    """Where that environment is kept."""
    return cache_folder() / "venvs" / venv_hash(python, folder)[:24]


class VenvBackend(LocalBackend):
    """Made with uv where it is on the path, else with venv and pip."""

    def prepare(self, report: Report) -> dict[str, Any]:
        facts = super().prepare(report)
        python = self.job.python
        home = venv_folder(python, str(self.folder))
        home.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(f"{home}.lock", "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if (home / _MARK).exists():
                report.say(f"environment {home.name} is there already")
            else:
                shutil.rmtree(home, ignore_errors=True)
                try:
                    self._make(home, python, report)
                except (LaunchError, OSError):
                    shutil.rmtree(home, ignore_errors=True)
                    raise
                (home / _MARK).touch()
        self.environment["VIRTUAL_ENV"] = str(home)
        self.environment["PATH"] = f"{home / 'bin'}{os.pathsep}{self.environment.get('PATH', os.defpath)}"
        self.environment.pop("PYTHONHOME", None)
        return {**facts, "venv": str(home)}

    def _make(self, home: Path, python: dict[str, Any], report: Report) -> None:
        conda = find_tool("venv") if python.get("conda") else None
        if python.get("conda") and conda is None:
            raise LaunchError(
                "The environment needs packages of conda, and micromamba is not on the PATH any more."
            )
        uv = shutil.which("uv") if conda is None else None
        interpreter = find_python(python.get("version"))
        if interpreter is None and uv is None and conda is None:
            raise LaunchError(
                f"Python {python.get('version')} is not on this machine; install it (or uv, which fetches it), "
                "or use --backend docker."
            )
        steps: list[tuple[str, list[str]]] = []
        if uv is not None:
            steps.append(
                ("environment", [uv, "venv", "--python", interpreter or str(python["version"]), str(home)])
            )
            pip = [uv, "pip", "install", "--compile-bytecode", "--python", str(home / "bin" / "python")]
        else:
            if conda is not None:
                made = Path(f"{home}.conda.yml")
                made.write_text(str(python["conda"]), "utf-8")
                steps.append(
                    ("packages of conda", [conda, *_create(conda), "-p", str(home), "-f", str(made)])
                )
            else:
                assert interpreter is not None
                steps.append(("environment", [interpreter, "-I", "-m", "venv", str(home)]))
            pip = [
                str(home / "bin" / "python"),
                "-m",
                "pip",
                "--disable-pip-version-check",
                "install",
                "--progress-bar=off",
            ]
        constraints = self._file(home, "constraints", python)
        if constraints:
            pip += ["-c", constraints]
        for name in ("build", "lines", "local"):
            listed = self._file(home, name, python)
            if listed:
                steps.append(
                    (
                        f"{len(python[name])} {'packages' if name != 'build' else 'build tools'}",
                        [*pip, "-r", listed],
                    )
                )
        try:
            for number, (what, command) in enumerate(steps, 1):
                report.step(number, len(steps), what)
                self._run(command, report)
        finally:
            # The lines may name an index or a repository with a password.
            for name in ("constraints.txt", "build.txt", "lines.txt", "local.txt", "conda.yml"):
                Path(f"{home}.{name}").unlink(missing_ok=True)

    def _file(self, home: Path, name: str, python: dict[str, Any]) -> str:
        lines = python.get(name) or []
        if not lines:
            return ""
        path = Path(f"{home}.{name}.txt")
        path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
        return str(path)

    def _run(self, command: list[str], report: Report) -> None:
        environment = {
            name: value
            for name, value in self.environment.items()
            if not name.startswith(("MLTRACK_", "MLFLOW_"))
        }
        environment.pop("PYTHONPATH", None)
        environment.pop("VIRTUAL_ENV", None)
        try:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        except OSError as error:
            raise LaunchError(f"{command[0]} cannot be run ({error.strerror}).") from None
        self._process = process
        assert process.stdout is not None
        last = ""
        with process.stdout:
            for line in process.stdout:
                report.output(line)
                text = line.decode("utf-8", "backslashreplace").strip()
                if text and (text.lower().startswith("error") or not last.lower().startswith("error")):
                    last = text
        code = process.wait()
        self._process = None
        if code != 0:
            raise LaunchError(
                f"The environment could not be made: {redact_text(last)[:300] or f'exit code {code}'}"
            )

    def _signal(self, number: signal.Signals) -> None:
        if self._pid == 0 and self._process is not None:
            self._process.send_signal(number)
            return
        super()._signal(number)


def _create(tool: str) -> tuple[str, ...]:
    """conda and mamba read environment files with another command than micromamba, and ask nothing."""
    return ("create", "-y") if os.path.basename(tool) == "micromamba" else ("env", "create")

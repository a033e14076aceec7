"""MLflow in a virtual environment of its own, made once per user and machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from measure import answers_of

# The skinny package with what its SQLite store needs: the same store code as the whole of MLflow.
PACKAGES = ("mlflow-skinny>=3,<4", "sqlalchemy", "alembic", "sqlparse", "pandas", "numpy")


def mlflow_figures(folder: Path) -> dict[str, float]:
    """Its figures by name (see mlflow_figures.py), or nothing when it cannot be installed."""
    python = _python()
    if python is None:
        print("\nMLflow cannot be installed here; its column stays empty.")
        return {}
    found: dict[str, float] = answers_of("mlflow_figures.py", folder, python=str(python))
    return found


def _python() -> Path | None:
    base = Path(tempfile.gettempdir()) / f"mltrack-bench-{os.getuid()}"
    base.mkdir(mode=0o700, exist_ok=True)
    if base.stat().st_uid != os.getuid():
        return None  # somebody else's folder: what lies in it is not ours to run
    environment = base / "mlflow"
    python = environment / "bin" / "python"
    if _imports(python):
        return python
    shutil.rmtree(environment, ignore_errors=True)
    try:
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True, timeout=120)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *PACKAGES], check=True, timeout=900)
    except (subprocess.SubprocessError, OSError):
        return None
    return python if _imports(python) else None


def _imports(python: Path) -> bool:
    code = "import mlflow, sqlalchemy, alembic, pandas"
    return python.exists() and subprocess.run([str(python), "-c", code], capture_output=True).returncode == 0

"""A project's folder with several tools' data, through the command: found, read, and shown for what it is."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

from mltrack.store.sources.crc32c import crc32c, masked_crc

Answer = subprocess.CompletedProcess[str]


def record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return b"".join(part + struct.pack("<I", masked_crc(crc32c(part))) for part in (length, data))


def event_file(folder: Path, number: int) -> None:
    """An event file with one scalar, ``loss``, of 0.25 at step 7."""
    folder.mkdir(parents=True)
    wall = b"\x09" + struct.pack("<d", 1.7e9 + number)
    value = b"\x0a\x04loss\x15" + struct.pack("<f", 0.25)
    summary = b"\x0a" + bytes([len(value)]) + value
    data = record(wall + b"\x1a\x0dbrain.Event:2") + record(
        wall + b"\x10\x07\x2a" + bytes([len(summary)]) + summary
    )
    (folder / f"events.out.tfevents.{1_700_000_000 + number}.host").write_bytes(data)


def test_a_project_of_several_tools(tmp_path: Path, mltrack: Callable[..., Answer]) -> None:
    project = tmp_path / "digits"
    event_file(project / "runs" / "lr3e-4_bs64", 1)
    event_file(project / "runs" / "lr1e-3_bs32", 2)
    (project / "runs" / "lr1e-3_bs32" / "hparams.yaml").write_text("lr: 0.001\nbs: 32\n")
    logs = project / "lightning_logs" / "version_0"
    logs.mkdir(parents=True)
    (logs / "metrics.csv").write_text("step,loss\n1,0.5\n2,0.125\n")
    (project / "pyproject.toml").write_text("")
    (project / ".git").mkdir()
    before = sorted((path, path.stat().st_mtime_ns) for path in project.rglob("*"))
    store = str(tmp_path / "store")

    def said(*arguments: str) -> str:
        answer = mltrack("--store", store, *arguments, environ={"COLUMNS": "120"})
        assert answer.returncode == 0, answer.stderr
        return answer.stdout

    said("source", "add", str(project))
    listed = said("source", "list")
    assert "TensorBoard" in listed and "Lightning CSV logs" in listed and str(project / "runs") in listed
    rows = {line.split()[0]: line for line in said("ls").splitlines() if line.startswith(("tb:", "csv:"))}
    assert set(rows) == {"tb:lr3e-4_bs64", "tb:lr1e-3_bs32", "csv:version_0"}
    assert "3e-4*" in rows["tb:lr3e-4_bs64"] and "64*" in rows["tb:lr3e-4_bs64"]
    assert "*" not in rows["tb:lr1e-3_bs32"] + rows["csv:version_0"]
    shown = said("show", "tb:lr3e-4_bs64")
    assert "read from the folder's name" in shown and ".25" in shown
    assert before == sorted((path, path.stat().st_mtime_ns) for path in project.rglob("*"))

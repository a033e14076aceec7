"""Journal format 1 as golden files: what was written by the first release is read the same by every later one."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest

from mltrack.store import open_store
from mltrack.store.client.journal import Journal, points_line
from mltrack.store.journal_reader import JournalProblem, file_kind, read_header

GOLDEN = Path(__file__).parent.parent / "data" / "journal-1"
RUN_ID = "0123456789abcdef0123456789abcdef"


def test_the_golden_journal_reads_as_it_always_did(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "runs", tmp_path / "runs")
    with open_store(str(tmp_path)) as store:
        report = store.refresh(None)
        run = store.run(RUN_ID)
        loss = store.points(RUN_ID, "train/loss")
        odd = store.points(RUN_ID, "odd")
    expected = json.loads((GOLDEN / "expected.json").read_text())
    assert report.skipped == expected["skipped"]
    seen = {
        "name": run.name,
        "experiment": run.experiment,
        "status": run.status,
        "user": run.user,
        "note": run.note,
        "params": run.params,
        "conflicts": run.conflicts,
        "tags": run.tags,
        "step": run.step,
        "total": run.total,
        "exit_code": run.exit_code,
        "start_ms": run.start_ms,
        "end_ms": run.end_ms,
        "loss": [loss.steps.tolist(), loss.times_ms.tolist(), loss.values.tolist()],
    }
    assert seen == expected["run"]
    assert math.isnan(odd.values[0]) and odd.values[1:].tolist() == [math.inf, -math.inf, 5e-324]


def test_a_newer_format_is_refused_and_hides_no_neighbour(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "runs", tmp_path / "runs")
    other = tmp_path / "runs" / "ff" / ("f" * 32)
    other.mkdir(parents=True)
    header = {"mltrack": 2, "kind": "meta", "jid": "f" * 16, "run": "f" * 32, "attempt": "1-a", "rank": 0}
    (other / f"meta.{'f' * 16}.jsonl").write_text(json.dumps(header) + "\n")
    with pytest.raises(JournalProblem, match="format 2"):
        read_header(other / f"meta.{'f' * 16}.jsonl")
    with open_store(str(tmp_path)) as store:
        report = store.refresh(None)
        assert any("format 2" in text for text in report.damaged)
        assert store.run(RUN_ID).name == "golden"
        damaged = store.run("f" * 32)
        assert damaged.damage is not None and "format 2" in damaged.damage


def test_the_writer_still_writes_format_1(tmp_path: Path) -> None:
    identity: dict[str, object] = {
        "host": "h",
        "machine": "m",
        "boot": "b",
        "pidns": "1",
        "pid": 7,
        "pstart": "9",
    }
    journal = Journal(tmp_path, RUN_ID, "1700000000000-abcdef", 0, "main", identity, time_ms=1700000000000)
    journal.meta("param", 1700000000001, v={"lr": "0.1"})
    journal.points().append(points_line(1, 1700000000002, {"a/b": 0.1, "nan": float("nan")}))
    journal.close()
    meta = (journal.folder / f"meta.{journal.jid}.jsonl").read_text().splitlines()
    points = (journal.folder / f"points.{journal.jid}.jsonl").read_text().splitlines()
    golden = next((GOLDEN / "runs").glob("*/*/meta.00*.jsonl")).read_text().splitlines()
    assert list(json.loads(meta[0])) == list(json.loads(golden[0]))
    assert json.loads(meta[0])["mltrack"] == 1
    assert meta[1] == '{"t":1700000000001,"op":"param","v":{"lr":"0.1"}}'
    assert points[1] == '[1,1700000000002,"a/b",0.1,"nan","NaN"]'
    assert file_kind(f"meta.{journal.jid}.jsonl") == ("meta", journal.jid)

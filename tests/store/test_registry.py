"""The registry: gapless versions under a race, one Production after every race, an audit that notices, a way back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mltrack.store import Store, open_store
from mltrack.store.doctor import examine
from mltrack.store.errors import BadInput, Conflict, NotFound


def race(script: str, processes: int) -> list[str]:
    """Run ``script`` in several processes at once, with ``store`` open and ``n`` the number of the process; their outputs."""
    code = "import sys\nfrom mltrack.store import open_store\nn = int(sys.argv[1])\nwith open_store() as store:\n"
    code += "".join(f"    {line}\n" for line in script.splitlines())
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(n)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ,
        )
        for n in range(processes)
    ]
    outputs = [process.communicate()[0] for process in running]
    assert all(process.returncode == 0 for process in running), outputs
    return outputs


@pytest.fixture
def store(store_root: Path) -> Store:
    return open_store()


def test_racing_registrations_number_without_gaps(store_root: Path) -> None:
    race("for i in range(4):\n    store.registry.register('churn', f's3://m/{n}/{i}')", 8)
    with open_store() as store:
        assert sorted(version.version for version in store.registry.versions("churn")) == list(range(1, 33))
        assert len(store.registry.audit("churn")) == 32
        assert store.registry.verify_audit() is None


def test_two_promoters_leave_one_production_and_the_loser_is_told(store_root: Path) -> None:
    with open_store() as store:
        for _ in range(2):
            store.registry.register("churn", "s3://m")
    script = "\n".join(
        [
            "from mltrack.store.errors import Conflict",
            "for i in range(20):",
            "    holder = next((v.version for v in store.registry.versions('churn') if v.stage == 'Production'), None)",
            "    try:",
            "        store.registry.promote('churn', n + 1, 'production', f'round {i}', expected_holder=holder)",
            "    except Conflict as error:",
            "        assert 'is now' in error.message",
            "    standing = [v.version for v in store.registry.versions('churn') if v.stage == 'Production']",
            "    assert len(standing) == 1, standing",
        ]
    )
    race(script, 2)
    with open_store() as store:
        assert [v.stage for v in store.registry.versions("churn")].count("Production") == 1
        assert store.registry.verify_audit() is None


def test_promotion_archives_the_holder_and_can_be_undone(store: Store) -> None:
    registry = store.registry
    assert [registry.register("m", "a"), registry.register("m", "b")] == [1, 2]
    registry.promote("m", 1, "Production", "first")
    registry.promote("m", 2, "PRODUCTION", "better", expected_holder=1)
    assert {v.version: v.stage for v in registry.versions("m")} == {1: "Archived", 2: "Production"}
    with pytest.raises(Conflict, match="now v2"):
        registry.promote("m", 1, "Production", "stale", expected_holder=1)
    store.undo()
    assert {v.version: v.stage for v in registry.versions("m")} == {1: "Production", 2: "None"}
    registry.set_alias("m", "champion", 2)
    assert registry.versions("m")[0].aliases == ("champion",)
    assert [row.action for row in registry.audit()] == ["registered"] * 2 + ["stage"] * 5 + ["alias champion"]


def test_an_altered_audit_row_is_noticed(store: Store) -> None:
    for _ in range(3):
        store.registry.register("m", "a")
    assert store.registry.verify_audit() is None
    with store.database.transaction():
        store.database.execute(
            "UPDATE audit SET actor = 'mallory' WHERE id = (SELECT min(id) + 1 FROM audit)"
        )
    assert store.registry.verify_audit() == 2


@pytest.mark.parametrize("name", ["", "a/b", "a:b", "x" * 257])
def test_a_bad_name_is_refused_with_a_sentence(store: Store, name: str) -> None:
    with pytest.raises(BadInput, match="model name"):
        store.registry.register(name, "s")
    assert store.registry.models() == []


def test_bad_stages_aliases_and_versions(store: Store) -> None:
    store.registry.register("m", "a")
    with pytest.raises(BadInput, match="stage"):
        store.registry.promote("m", 1, "Prod", "x")
    with pytest.raises(NotFound, match="no version 7"):
        store.registry.promote("m", 7, "Production", "x")
    for alias in ("latest", "v3", "a b", ""):
        with pytest.raises(BadInput, match="alias"):
            store.registry.set_alias("m", alias, 1)


def test_registry_and_notes_come_back_after_the_database_is_destroyed(store_root: Path) -> None:
    with open_store() as store:
        for source in ("a", "b"):
            store.registry.register("m", source, reason="because")
        store.registry.promote("m", 2, "Production", "good")
        store.registry.set_alias("m", "champion", 2)
        before = (store.registry.versions("m"), store.registry.audit())
    path = store_root / "mltrack.db"
    for extra in ("-wal", "-shm"):
        path.with_name(path.name + extra).unlink(missing_ok=True)
    path.write_bytes(b"SQLite format 3\0" + os.urandom(8192))
    diagnosis = examine(store_root, path)
    assert not diagnosis.healthy
    with open_store() as store:
        assert (store.registry.versions("m"), store.registry.audit()) == before
        assert store.registry.verify_audit() is None

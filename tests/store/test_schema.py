"""The schema: generated, compared, upgraded all or nothing, and never guessed when it is newer."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from mltrack.store import open_store
from mltrack.store.database import SCHEMA_VERSION, schema_sql
from mltrack.store.errors import ReadOnly, StoreUnavailable
from mltrack.store.migrate import SCRIPTS, migrate


def test_schema_sql_is_what_the_tables_say() -> None:
    made = subprocess.run(
        [sys.executable, "-m", "mltrack.store.tables"], capture_output=True, text=True, check=True
    )
    assert made.stdout == schema_sql(), "run: python -m mltrack.store.tables > store/schema.sql"


def test_a_store_is_made_without_sqlalchemy(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom mltrack.store import open_store\nopen_store(sys.argv[1]).search('')\n"
        "print([name for name in ('sqlalchemy', 'sqlmodel', 'alembic', 'psycopg') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def _next_schema(tmp_path: Path, body: str) -> Path:
    scripts = tmp_path / "migrations"
    shutil.copytree(SCRIPTS, scripts)
    (scripts / "versions" / "0002_next.py").write_text(
        "from alembic import op\nimport sqlalchemy as sa\nrevision = '0002'\ndown_revision = '0001'\n"
        f"branch_labels = depends_on = None\ndef upgrade():\n{body}\ndef downgrade():\n    pass\n"
    )
    return scripts


def _columns(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    names = [row[1] for row in connection.execute("PRAGMA table_info(run)")]
    connection.close()
    return names


def test_an_upgrade_keeps_a_backup_and_changes_the_version(tmp_path: Path) -> None:
    root = tmp_path / "store"
    open_store(str(root)).close()
    scripts = _next_schema(tmp_path, "    op.add_column('run', sa.Column('colour', sa.Text))")
    migrate(root / "mltrack.db", root, scripts, SCHEMA_VERSION + 1)
    assert "colour" in _columns(root / "mltrack.db")
    assert [path.name for path in (root / "backups").iterdir()] == ["before-schema-2-from-1.db"]
    with open_store(str(root)) as store:
        assert any("newer" in note for note in store.location.notes)
        assert store.search("").total == 0
        with pytest.raises(ReadOnly):
            store.set_tags(["0" * 32], {"a": "b"})


def test_an_upgrade_that_fails_midway_changes_nothing(tmp_path: Path) -> None:
    root = tmp_path / "store"
    open_store(str(root)).close()
    body = "    op.add_column('run', sa.Column('colour', sa.Text))\n    raise RuntimeError('power went')"
    with pytest.raises(StoreUnavailable, match="power went"):
        migrate(root / "mltrack.db", root, _next_schema(tmp_path, body), SCHEMA_VERSION + 1)
    assert "colour" not in _columns(root / "mltrack.db")
    with open_store(str(root)) as store:
        assert store.database.setting("schema") == str(SCHEMA_VERSION) and not store.database.readonly

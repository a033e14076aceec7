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

# What takes a new PostgreSQL store back to the first schema: later schemas add their own here.
POSTGRESQL_BACK = (
    "DROP TABLE column_segment",
    "ALTER TABLE run_segment DROP COLUMN column_seq",
    "DROP TABLE artifact_copy",
    "ALTER TABLE journal ADD COLUMN header TEXT DEFAULT '{}' NOT NULL",
    "DROP TABLE logged_model",
    "DROP TABLE model_link",
    "DROP TABLE model_metric",
    "ALTER TABLE run_input DROP COLUMN detail",
    "DROP TABLE source",
    "DROP TABLE source_run",
    "ALTER TABLE registered_model DROP COLUMN source",
    "ALTER TABLE registered_model DROP COLUMN policy",
    "ALTER TABLE model_version DROP COLUMN staged_ms, DROP COLUMN staged_by, DROP COLUMN files",
    "DROP INDEX model_version_run_index",
    "DROP INDEX model_version_stage_index",
    "ALTER TABLE audit DROP COLUMN channel, DROP COLUMN identity",
    "DROP TABLE model_request",
)


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
    (scripts / "versions" / "next.py").write_text(
        "from alembic import op\nimport sqlalchemy as sa\n"
        f"revision = '{SCHEMA_VERSION + 1:04d}'\ndown_revision = '{SCHEMA_VERSION:04d}'\n"
        f"branch_labels = depends_on = None\ndef upgrade():\n{body}\ndef downgrade():\n    pass\n"
    )
    return scripts


def _columns(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    names = [row[1] for row in connection.execute("PRAGMA table_info(run)")]
    connection.close()
    return names


def _shape(path: Path) -> dict[str, object]:
    """Columns (type, nullable, key) of each table, and the indexes, whatever order they came in."""
    connection = sqlite3.connect(path)
    tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    shape: dict[str, object] = {
        table: sorted(
            (row[1], row[2], row[3], str(row[4]).strip("'"), row[5])
            for row in connection.execute(f"PRAGMA table_info({table})")
        )
        for table in tables
        if table != "alembic_version"
    }
    shape["indexes"] = sorted(
        str(row[0])
        for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'index' AND sql > ''")
    )
    connection.close()
    return shape


def test_a_store_of_the_first_schema_becomes_one_of_this(tmp_path: Path) -> None:
    root = tmp_path / "store"
    root.mkdir()
    connection = sqlite3.connect(root / "mltrack.db")
    connection.executescript((Path(__file__).parents[1] / "data" / "schema-1.sql").read_text("utf-8"))
    for key, value in (("schema", "1"), ("store_id", "0" * 32), ("seq", "0"), ("created_ms", "1")):
        connection.execute("INSERT INTO setting VALUES (?, ?)", (key, value))
    connection.execute("INSERT INTO registered_model (name, last_version) VALUES ('churn', 1)")
    connection.execute(
        "INSERT INTO model_version (name, version, stage, updated_ms) VALUES ('churn', 1, 'Production', 7)"
    )
    connection.commit()
    connection.close()
    with open_store(str(root)) as store:
        (version,) = store.registry.versions("churn")
        assert (version.stage, version.staged_ms) == ("Production", 7)
        store.registry.promote("churn", 1, "Archived", "old")
    open_store(str(tmp_path / "fresh")).close()
    assert _shape(root / "mltrack.db") == _shape(tmp_path / "fresh" / "mltrack.db")


def test_a_postgresql_store_of_the_first_schema_becomes_one_of_this(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLTRACK_SPOOL", str(tmp_path / "spool"))
    columns = "SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns WHERE table_schema = 'public'"
    columns += " AND table_name <> 'alembic_version' ORDER BY 1, 2"
    with open_store(postgres_url) as store:
        fresh = store.database.execute(columns)
        store.registry.register("churn", "s3://m")
        for statement in POSTGRESQL_BACK:
            store.database.execute(statement)
        store.database.execute("UPDATE setting SET value = '1' WHERE key = 'schema'")
    # Several come at once; one upgrades, the others wait for it.
    code = "import sys; from mltrack.store import open_store; open_store(sys.argv[1]).close()"
    opening = [subprocess.Popen([sys.executable, "-c", code, postgres_url]) for _ in range(3)]
    assert [process.wait(120) for process in opening] == [0, 0, 0]
    with open_store(postgres_url) as store:
        assert store.database.setting("schema") == str(SCHEMA_VERSION)
        assert store.database.execute(columns) == fresh
        assert store.registry.register("churn", "s3://n") == 2


def test_an_upgrade_keeps_a_backup_and_changes_the_version(tmp_path: Path) -> None:
    root = tmp_path / "store"
    open_store(str(root)).close()
    scripts = _next_schema(tmp_path, "    op.add_column('run', sa.Column('colour', sa.Text))")
    migrate(root / "mltrack.db", root, scripts, SCHEMA_VERSION + 1)
    assert "colour" in _columns(root / "mltrack.db")
    assert [path.name for path in (root / "backups").iterdir()] == [
        f"before-schema-{SCHEMA_VERSION + 1}-from-{SCHEMA_VERSION}.db"
    ]
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

"""Schema 5: on SQLite, indexes that hold the params and tags a search reads, and rows kept once, in their primary key's index.

What nobody read of a journal's first line goes.
"""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Four tables are written anew, with the same rows."""
    op.drop_column("journal", "header")
    if op.get_bind().dialect.name != "sqlite":
        return  # PostgreSQL's indexes hold no long texts
    for table in ("param", "tag", "journal", "attempt"):
        _without_row_ids(table)
    op.create_index("param_columns_index", "param", ["key", "run", "value"])
    op.create_index("tag_columns_index", "tag", ["key", "run", "edited", "edit", "value"])
    op.create_index("journal_run_index", "journal", ["run"])


def _without_row_ids(table: str) -> None:
    made = (
        op.get_bind().exec_driver_sql("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).scalar_one()
    )
    op.rename_table(table, "old")
    op.execute(f"{made} WITHOUT ROWID")
    op.execute(f"INSERT INTO {table} SELECT * FROM old")
    op.drop_table("old")


def downgrade() -> None:
    """An older mltrack opens a newer store read-only instead."""

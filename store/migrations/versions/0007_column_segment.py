"""Schema 7: stored columns of params, tags and attributes beside those of metrics."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """One table, and which segments are of it; the segments that lack it are made anew when they are wanted."""
    op.create_table(
        "column_segment",
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("segment", sa.BigInteger, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=True),
        sa.PrimaryKeyConstraint("kind", "key", "segment"),
    )
    op.add_column(
        "run_segment", sa.Column("column_seq", sa.BigInteger, nullable=False, server_default=sa.text("'-1'"))
    )
    op.execute("DELETE FROM run_segment")
    op.execute("DELETE FROM metric_segment")


def downgrade() -> None:
    """An older mltrack opens a newer store read-only instead."""

"""Schema 6: which artifacts lie in an object store."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """One table."""
    op.create_table(
        "artifact_copy",
        sa.Column("run", sa.BigInteger, sa.ForeignKey("run.id", ondelete="CASCADE"), nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("place", sa.Text, nullable=False, server_default=sa.text("''")),
        sa.Column("stamp", sa.Text, nullable=False, server_default=sa.text("''")),
        sa.PrimaryKeyConstraint("run", "path", "sha256"),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    """An older mltrack opens a newer store read-only instead."""

"""Schema 3: data of other tools that is followed where it lies."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def _text(name: str, default: str = "") -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False, server_default=sa.text(f"'{default}'"))


def _number(name: str, default: int = 0) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False, server_default=sa.text(f"'{default}'"))


def upgrade() -> None:
    """Two new tables, and whom a registered model belongs to."""
    op.create_table(
        "source",
        sa.Column("path", sa.Text, nullable=False),
        _text("kind"),
        _number("followed", 1),
        _number("hidden"),
        _number("added_ms"),
        _text("state", "{}"),
        sa.PrimaryKeyConstraint("path"),
    )
    op.create_table(
        "source_run",
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("place", sa.Text, nullable=False),
        sa.Column("run", sa.BigInteger, sa.ForeignKey("run.id", ondelete="SET NULL"), nullable=True),
        _text("stamp"),
        _text("position"),
        _number("records"),
        _number("skipped"),
        sa.PrimaryKeyConstraint("source", "place"),
    )
    op.create_index("source_run_index", "source_run", ["run"])
    op.add_column("registered_model", _text("source"))


def downgrade() -> None:
    """An older mltrack opens a newer store read-only instead."""

"""Schema 2: policies, requests, who staged a version through what, and the files a version was registered with."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def _text(name: str, default: str = "") -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False, server_default=sa.text(f"'{default}'"))


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False, server_default=sa.text("'0'"))


def upgrade() -> None:
    """New columns with their defaults; a version of before was staged when it was last changed, by whom nobody knows."""
    op.add_column("registered_model", _text("policy", "{}"))
    for column in (_number("staged_ms"), _text("staged_by"), _text("files")):
        op.add_column("model_version", column)
    op.execute(sa.text("UPDATE model_version SET staged_ms = updated_ms"))
    op.create_index("model_version_run_index", "model_version", ["run_id"])
    op.create_index("model_version_stage_index", "model_version", ["stage"])
    for name in ("channel", "identity"):
        op.add_column("audit", _text(name))
    op.create_table(
        "model_request",
        sa.Column("id", sa.Text, nullable=False),
        _text("name"),
        _number("version"),
        _text("target"),
        _text("actor"),
        _text("reason"),
        _number("time_ms"),
        _text("state", "open"),
        _text("decided_by"),
        sa.Column("decided_ms", sa.BigInteger, nullable=True),
        _text("answer"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("model_request_state_index", "model_request", ["state"])


def downgrade() -> None:
    """An older mltrack opens a newer store read-only instead."""

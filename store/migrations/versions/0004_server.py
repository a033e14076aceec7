"""Schema 4: what MLflow's clients say through the server: logged models, their metrics and links, details of data sets."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def _text(name: str, default: str | None = "") -> sa.Column[str]:
    given = None if default is None else sa.text(f"'{default}'")
    return sa.Column(name, sa.Text, nullable=False, server_default=given)


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False, server_default=sa.text("'0'"))


def _run() -> sa.Column[int]:
    return sa.Column("run", sa.BigInteger, sa.ForeignKey("run.id", ondelete="CASCADE"), nullable=False)


def upgrade() -> None:
    """Three tables and a column with its default."""
    op.add_column("run_input", _text("detail"))
    op.create_table(
        "logged_model",
        _text("model_id", None),
        sa.Column("experiment_id", sa.BigInteger, sa.ForeignKey("experiment.id"), nullable=False),
        *(_text(name) for name in ("run_id", "name", "status", "model_type")),
        *(_number(name) for name in ("created_ms", "updated_ms")),
        sa.Column("deleted_ms", sa.BigInteger, nullable=True),
        _text("detail", "{}"),
        sa.PrimaryKeyConstraint("model_id"),
    )
    op.create_index("logged_model_experiment_index", "logged_model", ["experiment_id"])
    op.create_table(
        "model_link",
        _run(),
        _text("model_id", None),
        _text("way", None),
        _number("step"),
        sa.PrimaryKeyConstraint("run", "model_id", "way"),
    )
    op.create_index("model_link_model_index", "model_link", ["model_id"])
    texts = ("model_id", "key", "dataset_name", "dataset_digest")
    op.create_table(
        "model_metric",
        _run(),
        *(_text(name, None) for name in texts),
        sa.Column("step", sa.BigInteger, nullable=False),
        sa.Column("time_ms", sa.BigInteger, nullable=False),
        _text("value", None),
        sa.PrimaryKeyConstraint("run", *texts, "step", "time_ms", "value"),
    )
    op.create_index("model_metric_model_index", "model_metric", ["model_id"])


def downgrade() -> None:
    """An older mltrack opens a newer store read-only instead."""

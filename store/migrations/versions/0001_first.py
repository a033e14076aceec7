"""Schema 1 is created whole from the tables; this revision only names it."""

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing: every store begins here or later."""


def downgrade() -> None:
    """There is nothing before the first schema."""

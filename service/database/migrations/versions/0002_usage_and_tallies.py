"""How much each tenant has sent, and what is still to be counted by the metrics."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "usage",
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("hour", sa.Integer, nullable=False),
        sa.Column("bytes", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "hour", name="pk_usage"),
    )
    op.create_table(
        "tallies",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("body", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tallies"),
    )
    op.create_index("ix_tallies_at", "tallies", ["at"])


def downgrade() -> None:
    """Remove the tables."""
    for table in ("tallies", "usage"):
        op.drop_table(table)

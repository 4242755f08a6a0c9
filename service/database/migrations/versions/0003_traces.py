"""What the request was called that a job came with, where requests are traced."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make room for it."""
    op.add_column("jobs", sa.Column("trace", sa.JSON, nullable=True))


def downgrade() -> None:
    """Forget it."""
    with op.batch_alter_table("jobs") as table:
        table.drop_column("trace")

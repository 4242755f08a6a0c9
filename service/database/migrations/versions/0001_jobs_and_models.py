"""The first tables: jobs, what happened to them, and the models that came of them."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_UNFINISHED = sa.text("state IN ('queued', 'running')")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("idempotency", sa.String(255)),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("owner", sa.String(64)),
        sa.Column("lease_until", sa.Double),
        sa.Column("cancel", sa.Boolean, nullable=False),
        sa.Column("rung", sa.Integer, nullable=False),
        sa.Column("ring_after", sa.Double, nullable=False),
        sa.Column("upload", sa.JSON, nullable=False),
        sa.Column("options", sa.JSON, nullable=False),
        sa.Column("bytes", sa.Double, nullable=False),
        sa.Column("format", sa.String(32)),
        sa.Column("step", sa.String(200)),
        sa.Column("done", sa.Double),
        sa.Column("error", sa.JSON),
        sa.Column("version", sa.Integer),
        sa.Column("sandbox", sa.String(32)),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("started", sa.Double),
        sa.Column("finished", sa.Double),
        sa.Column("upload_expires_at", sa.Double),
        sa.Column("expires_at", sa.Double),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
    )
    op.create_index(
        "uq_jobs_tenant_key_unfinished",
        "jobs",
        ["tenant", "key"],
        unique=True,
        sqlite_where=_UNFINISHED,
        postgresql_where=_UNFINISHED,
    )
    op.create_index("uq_jobs_tenant_idempotency", "jobs", ["tenant", "idempotency"], unique=True)
    op.create_index("ix_jobs_state_ring_after", "jobs", ["state", "ring_after"])
    op.create_index("ix_jobs_tenant_created_id", "jobs", ["tenant", "created", "id"])
    op.create_index("ix_jobs_expires_at", "jobs", ["expires_at"])
    op.create_table(
        "events",
        sa.Column("job", sa.String(32), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("body", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("job", "number", name="pk_events"),
    )
    op.create_table(
        "models",
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("job", sa.String(32), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("report", sa.String(64), nullable=False),
        sa.Column("page", sa.String(64), nullable=False),
        sa.Column("card", sa.Text, nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("deleted", sa.Double),
        sa.PrimaryKeyConstraint("tenant", "name", "version", name="pk_models"),
    )
    op.create_index("ix_models_tenant_key", "models", ["tenant", "key"])


def downgrade() -> None:
    """Remove the tables."""
    for table in ("models", "events", "jobs"):
        op.drop_table(table)

"""Alembic runs this: the connection comes from whoever opens the database."""

from alembic import context

from service.database.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    transaction_per_migration=False,
)
context.run_migrations()

"""What alembic runs: the caller brings the connection and its transaction."""

from alembic import context

from qinling.db import models

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=models.Base.metadata,
    # SQLite changes tables by copying them.
    render_as_batch=True,
)
context.run_migrations()

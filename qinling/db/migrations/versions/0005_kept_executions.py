"""Executions: how large they are, when they ended, and the keys that name a request for one"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    size = sa.Column("size", sa.Integer, nullable=False, server_default="0")
    key = sa.Column("idempotency_key", sa.String(255))
    if op.get_bind().dialect.name == "sqlite":
        # It reads a column that is behind large ones by walking through those.
        with op.batch_alter_table("executions", recreate="always") as executions:
            executions.add_column(size, insert_before="input")
            executions.add_column(key, insert_before="input")
    else:
        op.add_column("executions", size)
        op.add_column("executions", key)
    op.execute(
        "UPDATE executions SET size = COALESCE(LENGTH(input), 0) + COALESCE(LENGTH(result), 0)"
    )
    op.create_index("ix_executions_ended", "executions", ["updated_at"])
    op.create_index(
        "ix_executions_key", "executions", ["project_id", "idempotency_key"], unique=True
    )

"""Executions that wait, by project: the index finds each one's oldest"""

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.drop_index("ix_executions_status", "executions")
    columns = ["status", "owner", "project_id", "created_at"]
    op.create_index("ix_executions_status", "executions", columns)

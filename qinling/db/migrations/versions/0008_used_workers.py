"""Demands: when a worker was wanted last, whether or not executions tell of it"""

from alembic import op
from sqlalchemy.dialects import mysql

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.execute("ALTER TABLE demands RENAME COLUMN raised_at TO used_at")
    else:
        op.alter_column(
            "demands",
            "raised_at",
            new_column_name="used_at",
            existing_type=mysql.DATETIME(fsp=6),
            existing_nullable=False,
        )

"""Demands: when a worker was wanted last, whether or not executions tell of it"""

import sqlalchemy as sa
from alembic import op
from oslo_utils import timeutils
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
    # How old it may be was not known: nothing is to be let go for that at once.
    demands = sa.table("demands", sa.column("used_at"))
    op.execute(sa.update(demands).values(used_at=timeutils.utcnow()))

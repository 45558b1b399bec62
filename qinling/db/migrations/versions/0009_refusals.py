"""Functions that no worker takes as they are"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0009"
down_revision = "0008"

TIMESTAMP = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def upgrade() -> None:
    op.add_column("demands", sa.Column("refused_revision", sa.Integer))
    op.add_column("demands", sa.Column("refused_until", TIMESTAMP))

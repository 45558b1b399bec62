"""Why a function has not the workers that it should have"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("demands", sa.Column("reason", sa.String(1000)))

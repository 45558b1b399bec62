"""Functions"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0002"
down_revision = "0001"

TIMESTAMP = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
OPTIONS = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_nopad_bin",
}


def upgrade() -> None:
    op.create_table(
        "functions",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("project_id", sa.String(64), nullable=False),
        sa.Column("created_at", TIMESTAMP, nullable=False),
        sa.Column("updated_at", TIMESTAMP),
        sa.Column("name", sa.String(255)),
        sa.Column(
            "name_missing",
            sa.SmallInteger,
            sa.Computed("CASE WHEN name IS NULL THEN 1 ELSE 0 END", persisted=True),
        ),
        sa.Column("description", sa.String(255)),
        sa.Column("runtime_id", sa.String(36)),
        sa.Column("code", sa.Text, nullable=False),
        sa.Column("package", sa.String(64)),
        sa.Column("entry", sa.String(255)),
        sa.Column("cpu", sa.Integer, nullable=False),
        sa.Column("memory_size", sa.BigInteger, nullable=False),
        sa.Column("timeout", sa.Integer, nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("latest_version", sa.Integer, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        **OPTIONS,
    )
    op.create_index("ix_functions_created", "functions", ["project_id", "created_at", "id"])
    op.create_index(
        "ix_functions_name", "functions", ["project_id", "name_missing", "name", "created_at", "id"]
    )
    op.create_index("ix_functions_runtime", "functions", ["runtime_id"])
    op.create_index("ix_functions_package", "functions", ["package"])

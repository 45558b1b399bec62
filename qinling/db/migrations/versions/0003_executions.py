"""Executions, their logs, and the workers that run them"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0003"
down_revision = "0002"

TIMESTAMP = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
LONG_TEXT = sa.Text().with_variant(mysql.MEDIUMTEXT, "mysql", "mariadb")
OPTIONS = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_nopad_bin",
}


def upgrade() -> None:
    op.create_table(
        "demands",
        sa.Column("function_id", sa.String(36), primary_key=True),
        sa.Column("function_version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("wanted", sa.Integer, nullable=False),
        sa.Column("raised_at", TIMESTAMP, nullable=False),
        sa.Column("settled", sa.Boolean, nullable=False),
        **OPTIONS,
    )
    op.create_index("ix_demands_settled", "demands", ["settled", "function_id"])
    op.create_table(
        "workers",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("function_id", sa.String(36), nullable=False),
        sa.Column("function_version", sa.Integer, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("runtime_id", sa.String(36), nullable=False),
        sa.Column("boot_id", sa.String(64)),
        sa.Column("address", sa.String(255), nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("claimed_at", TIMESTAMP, nullable=False),
        **OPTIONS,
    )
    op.create_index("ix_workers_function", "workers", ["function_id", "function_version"])
    op.create_index("ix_workers_runtime", "workers", ["runtime_id"])
    op.create_table(
        "executions",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("project_id", sa.String(64), nullable=False),
        sa.Column("created_at", TIMESTAMP, nullable=False),
        sa.Column("updated_at", TIMESTAMP),
        sa.Column("function_id", sa.String(36), nullable=False),
        sa.Column("function_version", sa.Integer, nullable=False),
        sa.Column("function_alias", sa.String(255)),
        sa.Column("description", sa.String(255)),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("sync", sa.Boolean, nullable=False),
        sa.Column("input", LONG_TEXT),
        sa.Column("result", LONG_TEXT),
        sa.Column("owner", sa.String(36)),
        sa.Column("worker_id", sa.String(36)),
        **OPTIONS,
    )
    op.create_index("ix_executions_created", "executions", ["project_id", "created_at", "id"])
    op.create_index("ix_executions_function", "executions", ["function_id", "created_at", "id"])
    op.create_index("ix_executions_status", "executions", ["status", "owner"])
    op.create_table(
        "execution_logs",
        sa.Column("execution_id", sa.String(36), primary_key=True),
        sa.Column("log", LONG_TEXT, nullable=False),
        **OPTIONS,
    )

"""Runtimes and the leases of services"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None

TIMESTAMP = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
OPTIONS = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_nopad_bin",
}


def upgrade() -> None:
    op.create_table(
        "runtimes",
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
        sa.Column("image", sa.String(255), nullable=False),
        sa.Column("previous_image", sa.String(255)),
        sa.Column("is_public", sa.Boolean, nullable=False),
        sa.Column("trusted", sa.Boolean, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("status_reason", sa.Text),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("settled", sa.Boolean, nullable=False),
        sa.Column("pool_total", sa.Integer, nullable=False),
        sa.Column("pool_available", sa.Integer, nullable=False),
        sa.Column("pool_reason", sa.Text),
        **OPTIONS,
    )
    op.create_index("ix_runtimes_created", "runtimes", ["created_at", "id"])
    op.create_index("ix_runtimes_name", "runtimes", ["name_missing", "name", "created_at", "id"])
    op.create_index("ix_runtimes_settled", "runtimes", ["settled", "id"])
    op.create_table(
        "services",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("binary", sa.String(64), nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("orchestrator", sa.String(64)),
        sa.Column("started_at", TIMESTAMP, nullable=False),
        sa.Column("renewed_at", TIMESTAMP, nullable=False),
        **OPTIONS,
    )
    op.create_index("ix_services_renewed", "services", ["renewed_at"])

"""Versions and aliases of functions, and the store of packages that they are in"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0004"
down_revision = "0003"

TIMESTAMP = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
OPTIONS = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_nopad_bin",
}


def upgrade() -> None:
    op.create_table(
        "function_versions",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("project_id", sa.String(64), nullable=False),
        sa.Column("created_at", TIMESTAMP, nullable=False),
        sa.Column("updated_at", TIMESTAMP),
        sa.Column("function_id", sa.String(36), nullable=False),
        sa.Column("version_number", sa.Integer, nullable=False),
        sa.Column("description", sa.String(255)),
        sa.Column("package", sa.String(64), nullable=False),
        sa.Column("entry", sa.String(255), nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        **OPTIONS,
    )
    op.create_index(
        "ix_function_versions_number",
        "function_versions",
        ["function_id", "version_number"],
        unique=True,
    )
    op.create_index("ix_function_versions_package", "function_versions", ["package"])
    op.create_table(
        "function_aliases",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("project_id", sa.String(64), nullable=False),
        sa.Column("created_at", TIMESTAMP, nullable=False),
        sa.Column("updated_at", TIMESTAMP),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("function_id", sa.String(36), nullable=False),
        sa.Column("function_version", sa.Integer, nullable=False),
        sa.Column("description", sa.String(255)),
        **OPTIONS,
    )
    op.create_index(
        "ix_function_aliases_name", "function_aliases", ["project_id", "name"], unique=True
    )
    op.create_index(
        "ix_function_aliases_created", "function_aliases", ["project_id", "created_at", "id"]
    )
    op.create_index(
        "ix_function_aliases_function", "function_aliases", ["function_id", "function_version"]
    )
    op.create_table(
        "stores",
        sa.Column("noun", sa.String(32), primary_key=True),
        sa.Column("marker", sa.String(64), nullable=False),
        **OPTIONS,
    )

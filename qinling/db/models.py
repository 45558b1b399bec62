"""The tables, as SQLAlchemy sees them.

The migrations make the same tables; a test compares the two on each database.
"""

import datetime as dt

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.dialects import mysql

# MariaDB keeps whole seconds unless it is told otherwise.
Timestamp = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")

# Inputs, results and logs: MariaDB's TEXT ends at 64 KiB.
LongText = sa.Text().with_variant(mysql.MEDIUMTEXT, "mysql", "mariadb")

TABLE_OPTIONS = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    # Names differ when their bytes differ, blanks at their end too, as they do on SQLite.
    "mysql_collate": "utf8mb4_nopad_bin",
}


class Base(orm.DeclarativeBase):
    type_annotation_map = {dt.datetime: Timestamp}


class Owned:
    """What each thing of a project has. A version's project is its function's."""

    id: orm.Mapped[str] = orm.mapped_column(sa.String(36), primary_key=True)
    project_id: orm.Mapped[str] = orm.mapped_column(sa.String(64))
    created_at: orm.Mapped[dt.datetime]
    updated_at: orm.Mapped[dt.datetime | None]
    description: orm.Mapped[str | None] = orm.mapped_column(sa.String(255))


class Named:
    """What has a name that may be missing."""

    name: orm.Mapped[str | None] = orm.mapped_column(sa.String(255))
    # Lists sort names with the missing ones last; no index could do that alone.
    # Nullable only because MariaDB has no generated columns that are not.
    name_missing: orm.Mapped[int | None] = orm.mapped_column(
        sa.SmallInteger, sa.Computed("CASE WHEN name IS NULL THEN 1 ELSE 0 END", persisted=True)
    )


class Runtime(Owned, Named, Base):
    """A runtime as its owner asked for it, and what was seen of its pool."""

    __tablename__ = "runtimes"

    image: orm.Mapped[str] = orm.mapped_column(sa.String(255))
    # While upgrading: the image to go back to.
    previous_image: orm.Mapped[str | None] = orm.mapped_column(sa.String(255))
    is_public: orm.Mapped[bool]
    trusted: orm.Mapped[bool]
    status: orm.Mapped[str] = orm.mapped_column(sa.String(16))
    # Why the row is in its status: an error, a rollback.
    status_reason: orm.Mapped[str | None] = orm.mapped_column(sa.Text)
    # Raised by each change of what should be.
    revision: orm.Mapped[int]
    # False from a change until the pool was seen to be as it should be.
    settled: orm.Mapped[bool]
    pool_total: orm.Mapped[int]
    pool_available: orm.Mapped[int]
    # What keeps the pool from being whole, as last seen.
    pool_reason: orm.Mapped[str | None] = orm.mapped_column(sa.Text)

    __table_args__ = (
        sa.Index("ix_runtimes_created", "created_at", "id"),
        sa.Index("ix_runtimes_name", "name_missing", "name", "created_at", "id"),
        sa.Index("ix_runtimes_settled", "settled", "id"),
        TABLE_OPTIONS,
    )


class Function(Owned, Named, Base):
    """A function as its owner asked for it."""

    __tablename__ = "functions"

    # None when an image is the function.
    runtime_id: orm.Mapped[str | None] = orm.mapped_column(sa.String(36))
    # Where its code is from, the JSON object that is answered.
    code: orm.Mapped[str] = orm.mapped_column(sa.Text)
    # What the store of packages knows its zip by (SHA-256, hex).
    package: orm.Mapped[str | None] = orm.mapped_column(sa.String(64))
    entry: orm.Mapped[str | None] = orm.mapped_column(sa.String(255))
    # Millicpu, bytes and seconds.
    cpu: orm.Mapped[int]
    memory_size: orm.Mapped[int] = orm.mapped_column(sa.BigInteger)
    timeout: orm.Mapped[int]
    # Executions so far.
    count: orm.Mapped[int] = orm.mapped_column(sa.BigInteger)
    # The number of the version that was made last, 0 before the first.
    latest_version: orm.Mapped[int]
    # Raised by each change that workers which have the function cannot follow.
    revision: orm.Mapped[int]

    __table_args__ = (
        sa.Index("ix_functions_created", "project_id", "created_at", "id"),
        sa.Index("ix_functions_name", "project_id", "name_missing", "name", "created_at", "id"),
        sa.Index("ix_functions_runtime", "runtime_id"),
        sa.Index("ix_functions_package", "package"),
        TABLE_OPTIONS,
    )


class FunctionVersion(Owned, Base):
    """A function's package as it once was. The rest of it is as the function is now."""

    __tablename__ = "function_versions"

    function_id: orm.Mapped[str] = orm.mapped_column(sa.String(36))
    # From 1; a number is never given twice.
    version_number: orm.Mapped[int]
    package: orm.Mapped[str] = orm.mapped_column(sa.String(64))
    # What was called in that package.
    entry: orm.Mapped[str] = orm.mapped_column(sa.String(255))
    # Executions so far.
    count: orm.Mapped[int] = orm.mapped_column(sa.BigInteger)

    __table_args__ = (
        sa.Index("ix_function_versions_number", "function_id", "version_number", unique=True),
        sa.Index("ix_function_versions_package", "package"),
        TABLE_OPTIONS,
    )


class FunctionAlias(Owned, Base):
    """A name in a project for a function, or for a version of it."""

    __tablename__ = "function_aliases"

    name: orm.Mapped[str] = orm.mapped_column(sa.String(255))
    function_id: orm.Mapped[str] = orm.mapped_column(sa.String(36))
    # 0 for the function itself.
    function_version: orm.Mapped[int]

    __table_args__ = (
        sa.Index("ix_function_aliases_name", "project_id", "name", unique=True),
        sa.Index("ix_function_aliases_created", "project_id", "created_at", "id"),
        sa.Index("ix_function_aliases_function", "function_id", "function_version"),
        TABLE_OPTIONS,
    )


class Store(Base):
    """What this database refers to and does not hold: the one store that has it."""

    __tablename__ = "stores"

    # What is in it: packages.
    noun: orm.Mapped[str] = orm.mapped_column(sa.String(32), primary_key=True)
    marker: orm.Mapped[str] = orm.mapped_column(sa.String(64))

    __table_args__ = (TABLE_OPTIONS,)


class Service(Base):
    """A running process of the service and its lease."""

    __tablename__ = "services"

    id: orm.Mapped[str] = orm.mapped_column(sa.String(36), primary_key=True)
    binary: orm.Mapped[str] = orm.mapped_column(sa.String(64))
    host: orm.Mapped[str] = orm.mapped_column(sa.String(255))
    orchestrator: orm.Mapped[str | None] = orm.mapped_column(sa.String(64))
    started_at: orm.Mapped[dt.datetime]
    renewed_at: orm.Mapped[dt.datetime]

    __table_args__ = (sa.Index("ix_services_renewed", "renewed_at"), TABLE_OPTIONS)


class Demand(Base):
    """How many workers a version of a function should have."""

    __tablename__ = "demands"

    function_id: orm.Mapped[str] = orm.mapped_column(sa.String(36), primary_key=True)
    # 0 is the function itself.
    function_version: orm.Mapped[int] = orm.mapped_column(
        sa.Integer, primary_key=True, autoincrement=False
    )
    wanted: orm.Mapped[int]
    # When more of them were wanted, or one was sent something, but for the last moments.
    used_at: orm.Mapped[dt.datetime]
    # False from a change until the workers were seen to be as many.
    settled: orm.Mapped[bool]
    # Why there are fewer, where the last ones were of no use; null from the next good one on.
    reason: orm.Mapped[str | None] = orm.mapped_column(sa.String(1000))
    # The revision of the function that no worker takes, for that reason, and until when that is
    # believed.
    refused_revision: orm.Mapped[int | None]
    refused_until: orm.Mapped[dt.datetime | None]

    __table_args__ = (sa.Index("ix_demands_settled", "settled", "function_id"), TABLE_OPTIONS)


class Worker(Base):
    """A worker that was claimed for a version of a function: what is, for whoever calls it."""

    __tablename__ = "workers"

    id: orm.Mapped[str] = orm.mapped_column(sa.String(36), primary_key=True)
    function_id: orm.Mapped[str] = orm.mapped_column(sa.String(36))
    function_version: orm.Mapped[int]
    # Of the function, when it was claimed: it runs no other code.
    revision: orm.Mapped[int]
    runtime_id: orm.Mapped[str] = orm.mapped_column(sa.String(36))
    # Tells one start of its server from the next; null until it was loaded.
    boot_id: orm.Mapped[str | None] = orm.mapped_column(sa.String(64))
    address: orm.Mapped[str] = orm.mapped_column(sa.String(255))
    # What its requests and answers are signed with, encrypted.
    key: orm.Mapped[str] = orm.mapped_column(sa.String(255))
    status: orm.Mapped[str] = orm.mapped_column(sa.String(16))
    claimed_at: orm.Mapped[dt.datetime]

    __table_args__ = (
        sa.Index("ix_workers_function", "function_id", "function_version"),
        sa.Index("ix_workers_runtime", "runtime_id"),
        TABLE_OPTIONS,
    )


class Execution(Owned, Base):
    """One run of a function, from its acceptance to its end."""

    __tablename__ = "executions"

    function_id: orm.Mapped[str] = orm.mapped_column(sa.String(36))
    function_version: orm.Mapped[int]
    function_alias: orm.Mapped[str | None] = orm.mapped_column(sa.String(255))
    status: orm.Mapped[str] = orm.mapped_column(sa.String(16))
    sync: orm.Mapped[bool]
    # Bytes of input and result.
    size: orm.Mapped[int]
    input: orm.Mapped[str | None] = orm.mapped_column(LongText)
    result: orm.Mapped[str | None] = orm.mapped_column(LongText)
    # The process that runs it, by its lease; null until one took it, and again at its end.
    owner: orm.Mapped[str | None] = orm.mapped_column(sa.String(36))
    # The worker that it was sent to: from then on no other one gets it.
    worker_id: orm.Mapped[str | None] = orm.mapped_column(sa.String(36))
    # What its caller names the request by: another one with it, in this project, is the same.
    idempotency_key: orm.Mapped[str | None] = orm.mapped_column(sa.String(255))

    __table_args__ = (
        sa.Index("ix_executions_created", "project_id", "created_at", "id"),
        sa.Index("ix_executions_function", "function_id", "created_at", "id"),
        sa.Index("ix_executions_status", "status", "owner", "project_id", "created_at"),
        # Nothing but its end changes an execution.
        sa.Index("ix_executions_ended", "updated_at"),
        sa.Index("ix_executions_key", "project_id", "idempotency_key", unique=True),
        TABLE_OPTIONS,
    )


class ExecutionLog(Base):
    """What an execution printed; a list never reads it."""

    __tablename__ = "execution_logs"

    execution_id: orm.Mapped[str] = orm.mapped_column(sa.String(36), primary_key=True)
    log: orm.Mapped[str] = orm.mapped_column(LongText)

    __table_args__ = (TABLE_OPTIONS,)

"""Queries on functions. Each takes a connection and is one transaction (``db.api``)."""

import datetime as dt
from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import Any

import sqlalchemy as sa
from oslo_utils import timeutils

from qinling import exceptions
from qinling.db import demands, models
from qinling.db import listing as lists
from qinling.states import RuntimeStatus

Table: sa.Table = models.Function.__table__  # type: ignore[assignment]
_Runtimes: sa.Table = models.Runtime.__table__  # type: ignore[assignment]
_Versions: sa.Table = models.FunctionVersion.__table__  # type: ignore[assignment]
_Aliases: sa.Table = models.FunctionAlias.__table__  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class Function:
    """A row. What the columns mean: ``models.Function``."""

    id: str
    project_id: str
    created_at: dt.datetime
    updated_at: dt.datetime | None
    name: str | None
    description: str | None
    runtime_id: str | None
    code: str
    package: str | None
    entry: str | None
    cpu: int
    memory_size: int
    timeout: int
    count: int
    latest_version: int
    revision: int


_NAMES = [entry.name for entry in fields(Function)]
_COLUMNS = [Table.c[name] for name in _NAMES]
# Statements of every call, made once: SQLAlchemy compiles them once, too.
_INSERT = sa.insert(Table)
_FIND = sa.select(*_COLUMNS).where(Table.c.id == sa.bindparam("function_id"))
_TO_RUN = (
    sa.select(*_COLUMNS, _Runtimes.c.status)
    .select_from(Table.outerjoin(_Runtimes, _Runtimes.c.id == Table.c.runtime_id))
    .where(Table.c.id == sa.bindparam("function_id"))
)
# A function's fields that lists can be filtered and sorted by.
LISTED = (
    "id",
    "name",
    "description",
    "runtime_id",
    "entry",
    "cpu",
    "memory_size",
    "timeout",
    "count",
    "latest_version",
    "project_id",
    "created_at",
    "updated_at",
)
# Fields that workers which have the function need not know of.
DESCRIPTIVE = frozenset({"name", "description", "timeout"})


def _function(row: sa.Row[Any]) -> Function:
    return Function(**row._asdict())


def create(connection: sa.Connection, values: dict[str, Any]) -> Function:
    """Insert a function.

    :raises BadRequest: its runtime is not available. None that is can be
        deleted until this is committed.
    """
    function = Function(
        **values,
        created_at=timeutils.utcnow(),
        updated_at=None,
        count=0,
        latest_version=0,
        revision=1,
    )
    if function.runtime_id is not None:
        _hold_runtime(connection, function.runtime_id)
    connection.execute(_INSERT, {name: getattr(function, name) for name in _NAMES})
    return function


def find(connection: sa.Connection, function_id: str) -> Function | None:
    row = connection.execute(_FIND, {"function_id": function_id}).one_or_none()
    return None if row is None else _function(row)


def get(connection: sa.Connection, function_id: str) -> Function:
    """:raises NotFound: there is no such function."""
    function = find(connection, function_id)
    if function is None:
        raise exceptions.NotFound.of("Function", function_id)
    return function


def get_to_run(
    connection: sa.Connection, function_id: str
) -> tuple[Function, RuntimeStatus | None]:
    """A function and how its runtime is, None for an image.

    :raises NotFound: there is no such function.
    """
    row = connection.execute(_TO_RUN, {"function_id": function_id}).one_or_none()
    if row is None:
        raise exceptions.NotFound.of("Function", function_id)
    *values, status = row
    return Function(*values), None if status is None else RuntimeStatus(status)


def revisions(connection: sa.Connection, function_ids: Collection[str]) -> dict[str, int]:
    """The revision of each function that is there."""
    query = sa.select(Table.c.id, Table.c.revision).where(Table.c.id.in_(function_ids))
    return {row.id: row.revision for row in connection.execute(query)}


def page(connection: sa.Connection, listing: lists.Listing, project_id: str | None) -> lists.Page:
    """A page of the functions of ``project_id``; of everything when it is None."""
    visible = [] if project_id is None else [Table.c.project_id == project_id]
    return lists.page(connection, Table, _COLUMNS, _function, listing, *visible)


def update(connection: sa.Connection, function: Function, values: dict[str, Any]) -> bool:
    """Change the function, and raise its revision unless all of it is ``DESCRIPTIVE``.

    :returns: False when the row is no longer at the revision of ``function``:
        somebody else changed it, and nothing was done.
    """
    revised = not values.keys() <= DESCRIPTIVE
    result = connection.execute(
        sa.update(Table)
        .where(Table.c.id == function.id, Table.c.revision == function.revision)
        .values(**values, revision=function.revision + revised, updated_at=timeutils.utcnow())
    )
    return bool(result.rowcount)


def delete(connection: sa.Connection, function: Function) -> set[str] | None:
    """Delete the row, those of its versions, and what was wanted for them.

    :returns: the packages that they had; None as False of ``update``.
    :raises Forbidden: aliases use it.
    """
    result = connection.execute(
        sa.delete(Table).where(Table.c.id == function.id, Table.c.revision == function.revision)
    )
    if not result.rowcount:
        return None
    # Only now: whoever makes an alias or a version of it holds the row until that is committed.
    alias = connection.execute(
        sa.select(_Aliases.c.name).where(_Aliases.c.function_id == function.id).limit(1)
    ).scalar()
    if alias is not None:
        raise exceptions.Forbidden(
            f"Function {function.id} cannot be deleted while aliases use it, as {alias[:80]!r} "
            "does."
        )
    versions = _Versions.c.function_id == function.id
    packages = set(connection.execute(sa.select(_Versions.c.package).where(versions)).scalars())
    connection.execute(sa.delete(_Versions).where(versions))
    demands.remove(connection, function.id)
    return packages if function.package is None else packages | {function.package}


def number(connection: sa.Connection, function: Function, version: int) -> bool:
    """Give a new version its number; returns as ``update``."""
    result = connection.execute(
        sa.update(Table)
        .where(
            Table.c.id == function.id,
            Table.c.revision == function.revision,
            Table.c.latest_version == function.latest_version,
        )
        .values(latest_version=version)
    )
    return bool(result.rowcount)


def hold(connection: sa.Connection, function_id: str, project_id: str) -> None:
    """Keep a function of a project from being deleted until the end of this transaction.

    :raises NotFound: there is no such function in it.
    """
    query = (
        sa.select(Table.c.id)
        .where(Table.c.id == function_id, Table.c.project_id == project_id)
        .with_for_update(read=True)
    )
    if connection.execute(query).scalar() is None:
        raise exceptions.NotFound.of("Function", function_id)


def uses(connection: sa.Connection, runtime_id: str) -> bool:
    """Whether any function is of this runtime."""
    return _any(connection, Table, Table.c.runtime_id == runtime_id)


def package_is_used(connection: sa.Connection, digest: str) -> bool:
    """Whether anything in the database is of this package."""
    return bool(packages_in_use(connection, [digest]))


def packages_in_use(connection: sa.Connection, digests: Collection[str]) -> set[str]:
    """Those of the packages that something in the database is of."""
    return {
        digest
        for table in (Table, _Versions)
        for digest in connection.execute(
            sa.select(table.c.package).where(table.c.package.in_(digests)).distinct()
        ).scalars()
    }


def _any(connection: sa.Connection, table: sa.Table, condition: sa.ColumnElement[bool]) -> bool:
    query = sa.select(sa.literal(1)).select_from(table).where(condition).limit(1)
    return connection.execute(query).scalar() is not None


def _hold_runtime(connection: sa.Connection, runtime_id: str) -> None:
    """Keep the runtime from being deleted until the end of this transaction."""
    query = (
        sa.select(_Runtimes.c.status).where(_Runtimes.c.id == runtime_id).with_for_update(read=True)
    )
    status = connection.execute(query).scalar()
    if status != RuntimeStatus.AVAILABLE:
        raise exceptions.BadRequest(
            f"runtime_id: runtime {runtime_id} is {status or 'gone'}, and not available."
        )

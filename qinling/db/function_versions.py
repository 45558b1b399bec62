"""Queries on versions of functions. Each takes a connection and is one transaction (``db.api``)."""

import datetime as dt
from dataclasses import dataclass, fields
from typing import Any

import sqlalchemy as sa
from oslo_utils import timeutils

from qinling import exceptions
from qinling.db import demands, functions, models
from qinling.db import listing as lists

Table: sa.Table = models.FunctionVersion.__table__  # type: ignore[assignment]
_Aliases: sa.Table = models.FunctionAlias.__table__  # type: ignore[assignment]

# Versions that a function has at most.
MAX_VERSIONS = 10


@dataclass(frozen=True, slots=True)
class FunctionVersion:
    """A row. What the columns mean: ``models.FunctionVersion``."""

    id: str
    project_id: str
    created_at: dt.datetime
    updated_at: dt.datetime | None
    function_id: str
    version_number: int
    description: str | None
    package: str
    entry: str
    count: int


_NAMES = [entry.name for entry in fields(FunctionVersion)]
_COLUMNS = [Table.c[name] for name in _NAMES]
# A version's fields that lists can be filtered and sorted by.
LISTED = ("id", "version_number", "description", "count", "created_at", "updated_at")


def _version(row: sa.Row[Any]) -> FunctionVersion:
    return FunctionVersion(**row._asdict())


def create(
    connection: sa.Connection, function: functions.Function, values: dict[str, Any]
) -> FunctionVersion | None:
    """Keep the function's package as its next version; None when somebody else changed the row.

    :raises Forbidden: it has none, has too many versions, or none is new in it.
    """
    if function.package is None or function.entry is None:
        raise exceptions.Forbidden(
            f"Function {function.id} is an image: only packages have versions."
        )
    number = function.latest_version + 1
    # First, as it holds the row: two at once would each see that there is room for one.
    if not functions.number(connection, function, number):
        return None
    rows = connection.execute(
        sa.select(Table.c.version_number, Table.c.package)
        .where(Table.c.function_id == function.id)
        .order_by(Table.c.version_number)
    ).all()
    if len(rows) >= MAX_VERSIONS:
        raise exceptions.Forbidden(
            f"Function {function.id} has {MAX_VERSIONS} versions, and no more are allowed."
        )
    if rows and rows[-1].package == function.package:
        raise exceptions.Forbidden(
            f"The package of function {function.id} has not changed since its version "
            f"{rows[-1].version_number}."
        )
    version = FunctionVersion(
        **values,
        project_id=function.project_id,
        created_at=timeutils.utcnow(),
        updated_at=None,
        function_id=function.id,
        version_number=number,
        package=function.package,
        entry=function.entry,
        count=0,
    )
    connection.execute(sa.insert(Table).values({name: getattr(version, name) for name in _NAMES}))
    return version


def get(connection: sa.Connection, function_id: str, number: int) -> FunctionVersion:
    """:raises NotFound: the function has no such version."""
    row = connection.execute(sa.select(*_COLUMNS).where(*_named(function_id, number))).one_or_none()
    if row is None:
        raise _missing(function_id, number)
    return _version(row)


def page(connection: sa.Connection, listing: lists.Listing, function_id: str) -> lists.Page:
    """A page of the versions of a function."""
    return lists.page(
        connection, Table, _COLUMNS, _version, listing, Table.c.function_id == function_id
    )


def delete(connection: sa.Connection, function_id: str, number: int) -> None:
    """:raises NotFound: the function has no such version. :raises Forbidden: aliases use it."""
    if not connection.execute(sa.delete(Table).where(*_named(function_id, number))).rowcount:
        raise _missing(function_id, number)
    # Only now: whoever makes an alias of it holds the row until that is committed.
    query = sa.select(_Aliases.c.name).where(
        _Aliases.c.function_id == function_id, _Aliases.c.function_version == number
    )
    alias = connection.execute(query.limit(1)).scalar()
    if alias is not None:
        raise exceptions.Forbidden(
            f"Version {number} of function {function_id} cannot be deleted while aliases use it, "
            f"as {alias[:80]!r} does."
        )
    demands.let_go(connection, function_id, number)


def count(connection: sa.Connection, function_id: str, number: int) -> None:
    """One more execution of a version.

    :raises NotFound: the function has no such version.
    """
    query = sa.update(Table).where(*_named(function_id, number)).values(count=Table.c.count + 1)
    if not connection.execute(query).rowcount:
        raise _missing(function_id, number)


def hold(connection: sa.Connection, function_id: str, number: int) -> None:
    """Keep a version from being deleted until the end of this transaction.

    :raises NotFound: the function has no such version.
    """
    query = sa.select(Table.c.id).where(*_named(function_id, number)).with_for_update(read=True)
    if connection.execute(query).scalar() is None:
        raise _missing(function_id, number)


def _named(function_id: str, number: int) -> tuple[sa.ColumnElement[bool], ...]:
    return Table.c.function_id == function_id, Table.c.version_number == number


def _missing(function_id: str, number: int) -> exceptions.NotFound:
    return exceptions.NotFound(f"Version {number} of function {function_id} does not exist.")

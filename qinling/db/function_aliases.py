"""Queries on aliases of functions. Each takes a connection and is one transaction (``db.api``)."""

import datetime as dt
from dataclasses import dataclass, fields
from typing import Any

import sqlalchemy as sa
from oslo_db import exception as db_exc
from oslo_utils import timeutils

from qinling import exceptions
from qinling.db import function_versions, functions, models
from qinling.db import listing as lists

Table: sa.Table = models.FunctionAlias.__table__  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class FunctionAlias:
    """A row. What the columns mean: ``models.FunctionAlias``."""

    id: str
    project_id: str
    created_at: dt.datetime
    updated_at: dt.datetime | None
    name: str
    function_id: str
    function_version: int
    description: str | None


_NAMES = [entry.name for entry in fields(FunctionAlias)]
_COLUMNS = [Table.c[name] for name in _NAMES]
# An alias's fields that lists can be filtered and sorted by.
LISTED = (
    "id",
    "name",
    "function_id",
    "function_version",
    "description",
    "project_id",
    "created_at",
    "updated_at",
)


def _alias(row: sa.Row[Any]) -> FunctionAlias:
    return FunctionAlias(**row._asdict())


def create(connection: sa.Connection, values: dict[str, Any]) -> FunctionAlias:
    """Insert an alias.

    :raises NotFound: its project has no such function, or that no such version.
    :raises Conflict: the project has an alias of this name.
    """
    alias = FunctionAlias(**values, created_at=timeutils.utcnow(), updated_at=None)
    _hold(connection, alias.project_id, alias.function_id, alias.function_version)
    try:
        connection.execute(sa.insert(Table).values({name: getattr(alias, name) for name in _NAMES}))
    except db_exc.DBDuplicateEntry as error:
        raise exceptions.Conflict(f"name: there is an alias {alias.name!r} already.") from error
    return alias


def get(connection: sa.Connection, project_id: str, name: str) -> FunctionAlias:
    """:raises NotFound: the project has no alias of this name."""
    return _get(connection, sa.select(*_COLUMNS).where(*_named(project_id, name)), name)


def page(connection: sa.Connection, listing: lists.Listing, project_id: str | None) -> lists.Page:
    """A page of the aliases of ``project_id``; of everything when it is None."""
    visible = [] if project_id is None else [Table.c.project_id == project_id]
    return lists.page(connection, Table, _COLUMNS, _alias, listing, *visible)


def update(
    connection: sa.Connection, project_id: str, name: str, values: dict[str, Any]
) -> FunctionAlias:
    """Change an alias, and return it as it is then; errors as of ``get`` and ``create``."""
    query = sa.select(*_COLUMNS).where(*_named(project_id, name)).with_for_update()
    alias = _get(connection, query, name)
    changes = {key: value for key, value in values.items() if value != getattr(alias, key)}
    if not changes:
        return alias
    if "function_id" in changes or "function_version" in changes:
        # Those that it would have: each may come from another call.
        function_id = changes.get("function_id", alias.function_id)
        _hold(
            connection,
            project_id,
            function_id,
            changes.get("function_version", alias.function_version),
        )
    changes["updated_at"] = timeutils.utcnow()
    connection.execute(sa.update(Table).where(Table.c.id == alias.id).values(changes))
    return FunctionAlias(**{key: getattr(alias, key) for key in _NAMES} | changes)


def delete(connection: sa.Connection, project_id: str, name: str) -> None:
    """:raises NotFound: as of ``get``."""
    if not connection.execute(sa.delete(Table).where(*_named(project_id, name))).rowcount:
        raise exceptions.NotFound.of("Alias", name)


def _hold(connection: sa.Connection, project_id: str, function_id: str, version: int) -> None:
    functions.hold(connection, function_id, project_id)
    if version:
        function_versions.hold(connection, function_id, version)


def _get(connection: sa.Connection, query: sa.Select[Any], name: str) -> FunctionAlias:
    row = connection.execute(query).one_or_none()
    if row is None:
        raise exceptions.NotFound.of("Alias", name)
    return _alias(row)


def _named(project_id: str, name: str) -> tuple[sa.ColumnElement[bool], ...]:
    return Table.c.project_id == project_id, Table.c.name == name

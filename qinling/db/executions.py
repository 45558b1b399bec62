"""Queries on executions. Each takes a connection and is one transaction (``db.api``)."""

import datetime as dt
import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import sqlalchemy as sa
from oslo_db import exception as db_exc
from oslo_utils import timeutils

from qinling import exceptions
from qinling.db import function_versions, models, services, workers
from qinling.db import listing as lists
from qinling.states import ExecutionStatus

Table: sa.Table = models.Execution.__table__  # type: ignore[assignment]
_Logs: sa.Table = models.ExecutionLog.__table__  # type: ignore[assignment]
_Functions: sa.Table = models.Function.__table__  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class Execution:
    """A row. What the columns mean: ``models.Execution``."""

    id: str
    project_id: str
    created_at: dt.datetime
    updated_at: dt.datetime | None
    function_id: str
    function_version: int
    function_alias: str | None
    description: str | None
    status: ExecutionStatus
    sync: bool
    input: str | None
    result: str | None
    owner: str | None
    worker_id: str | None
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class Orphan:
    """Of an execution that has lost its owner what is never large.

    ``is_sent``: a worker, or a run of its image, may know of it.
    """

    id: str
    project_id: str
    owner: str
    is_sent: bool


_NAMES = [entry.name for entry in fields(Execution)]
_COLUMNS = [Table.c[name] for name in _NAMES]
_INSERT = sa.insert(Table)
_INSERT_LOG = sa.insert(_Logs)
_FIND = sa.select(*_COLUMNS).where(Table.c.id == sa.bindparam("execution_id"))
_COUNT = (
    sa.update(_Functions)
    .where(
        _Functions.c.id == sa.bindparam("counted"),
        _Functions.c.revision == sa.bindparam("at_revision"),
    )
    .values(count=_Functions.c.count + 1)
)
_OWNED = (
    Table.c.id == sa.bindparam("execution_id"),
    Table.c.owner == sa.bindparam("sender"),
    Table.c.status == ExecutionStatus.RUNNING,
)
_SEND = (
    sa.update(Table)
    .where(
        *_OWNED,
        sa.exists().where(
            _Functions.c.id == sa.bindparam("of_function"),
            _Functions.c.revision == sa.bindparam("at_revision"),
        ),
    )
    .values(worker_id=sa.bindparam("to_worker"))
)
_LAUNCH = sa.update(Table).where(*_OWNED).values(worker_id=Table.c.id)
_RECALL = sa.update(Table).where(*_OWNED).values(worker_id=None)
_END = (
    sa.update(Table)
    .where(Table.c.id == sa.bindparam("execution_id"), Table.c.status == ExecutionStatus.RUNNING)
    .values(
        status=sa.bindparam("new_status"),
        result=sa.bindparam("new_result"),
        size=Table.c.size + sa.bindparam("result_size"),
        updated_at=sa.bindparam("ended_at"),
        owner=None,
    )
)
_ORPHANS = sa.select(
    Table.c.id, Table.c.project_id, Table.c.owner, Table.c.worker_id.is_not(None)
).where(Table.c.status == ExecutionStatus.RUNNING)
_UNTAKEN = Table.c.status == ExecutionStatus.RUNNING, Table.c.owner.is_(None)
_NEXT = (
    sa.select(Table.c.project_id)
    .where(*_UNTAKEN, Table.c.project_id > sa.bindparam("after"))
    .order_by(Table.c.project_id)
    .limit(1)
)
_WAITING = (
    sa.select(Table.c.id)
    .where(*_UNTAKEN, Table.c.project_id == sa.bindparam("of_project"))
    .order_by(Table.c.created_at)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
# Bytes of inputs and results, and rows, that are read at a time; but at least one row.
_PIECE = 1024**2
_PIECE_ROWS = 500
# An execution's fields that lists can be filtered and sorted by.
LISTED = (
    "id",
    "function_id",
    "function_version",
    "function_alias",
    "description",
    "status",
    "sync",
    "project_id",
    "created_at",
    "updated_at",
)


def _execution(row: sa.Row[Any]) -> Execution:
    values = row._asdict()
    values["status"] = ExecutionStatus(values["status"])
    return Execution(**values)


def create(connection: sa.Connection, values: dict[str, Any], revision: int) -> Execution:
    """Accept an execution, and count it.

    :raises KeyTaken: its project has one with this key.
    :raises FunctionChanged: its function is no longer at ``revision``, or its worker is let go.
    :raises NotFound: the version has gone meanwhile.
    """
    execution = Execution(
        **values,
        created_at=timeutils.utcnow(),
        updated_at=None,
        status=ExecutionStatus.RUNNING,
        result=None,
    )
    if execution.worker_id is not None and not workers.hold(connection, execution.worker_id):
        raise exceptions.FunctionChanged(execution.function_id)
    row = {name: getattr(execution, name) for name in _NAMES} | {"size": _size(execution.input)}
    try:
        connection.execute(_INSERT, row)
    except db_exc.DBDuplicateEntry as error:
        raise exceptions.KeyTaken from error
    if execution.function_version:
        function_versions.count(connection, execution.function_id, execution.function_version)
    # Last: all executions of a function wait for each other here until they have committed.
    counted = {"counted": execution.function_id, "at_revision": revision}
    if not connection.execute(_COUNT, counted).rowcount:
        raise exceptions.FunctionChanged(execution.function_id)
    return execution


def find(connection: sa.Connection, execution_id: str) -> Execution | None:
    row = connection.execute(_FIND, {"execution_id": execution_id}).one_or_none()
    return None if row is None else _execution(row)


def under_way(connection: sa.Connection, execution_id: str) -> tuple[bool, str | None]:
    """Whether it has not ended, and its owner: what somebody asks again and again who waits."""
    query = sa.select(Table.c.owner).where(
        Table.c.id == execution_id, Table.c.status == ExecutionStatus.RUNNING
    )
    row = connection.execute(query).one_or_none()
    return (False, None) if row is None else (True, row.owner)


def get(connection: sa.Connection, execution_id: str) -> Execution:
    """:raises NotFound: there is no such execution."""
    execution = find(connection, execution_id)
    if execution is None:
        raise exceptions.NotFound.of("Execution", execution_id)
    return execution


def find_by_key(connection: sa.Connection, project_id: str, key: str) -> Execution | None:
    """What a project has asked for with a key."""
    query = sa.select(*_COLUMNS).where(
        Table.c.project_id == project_id, Table.c.idempotency_key == key
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else _execution(row)


def page(connection: sa.Connection, listing: lists.Listing, project_id: str | None) -> lists.Page:
    """The first of a page of a project's executions; of everybody's when it is None.

    Nobody gets more of what can be large than he has memory for: the page ends early, with a
    cursor.
    """
    visible = [] if project_id is None else [Table.c.project_id == project_id]
    listing = replace(listing, limit=min(listing.limit, _PIECE_ROWS))
    columns = [Table.c.size, *(Table.c[name] for name in LISTED)]
    light = lists.page(connection, Table, columns, lambda row: row, listing, *visible)
    sizes = itertools.accumulate(row.size for row in light.rows)
    count = max(1, sum(size <= _PIECE for size in sizes))
    light = lists.cut(light, listing, count)
    query = sa.select(*_COLUMNS).where(Table.c.id.in_([row.id for row in light.rows]))
    whole = {row.id: _execution(row) for row in connection.execute(query)}
    # SQLite may see some of them deleted meanwhile.
    return replace(light, rows=[whole[row.id] for row in light.rows if row.id in whole])


def log(connection: sa.Connection, execution_id: str) -> str:
    """What it printed, empty until its end."""
    query = sa.select(_Logs.c.log).where(_Logs.c.execution_id == execution_id)
    return connection.execute(query).scalar() or ""


def take(connection: sa.Connection, execution_id: str, owner: str) -> Execution | None:
    """Own an execution that nobody has; None when somebody has, or it has ended."""
    taken = connection.execute(
        sa.update(Table)
        .where(
            Table.c.id == execution_id,
            Table.c.owner.is_(None),
            Table.c.status == ExecutionStatus.RUNNING,
        )
        .values(owner=owner)
    )
    return find(connection, execution_id) if taken.rowcount else None


def inherit(connection: sa.Connection, orphan: Orphan, owner: str) -> Execution | None:
    """Own an execution whose owner is gone; returns as ``take``."""
    inherited = connection.execute(
        sa.update(Table)
        .where(
            Table.c.id == orphan.id,
            Table.c.owner == orphan.owner,
            Table.c.status == ExecutionStatus.RUNNING,
        )
        .values(owner=owner)
    )
    return find(connection, orphan.id) if inherited.rowcount else None


def put_back(connection: sa.Connection, orphans: Collection[Orphan]) -> int:
    """Leave executions that were sent to nobody to whoever takes them; how many there were."""
    result = connection.execute(
        sa.update(Table)
        .where(
            Table.c.id.in_([orphan.id for orphan in orphans]),
            Table.c.owner.in_({orphan.owner for orphan in orphans}),
            Table.c.worker_id.is_(None),
            Table.c.status == ExecutionStatus.RUNNING,
        )
        .values(owner=None)
    )
    return result.rowcount


def send(connection: sa.Connection, execution: Execution, worker_id: str, revision: int) -> bool:
    """Note the worker that is about to get it.

    :returns: False when it has ended, or has another owner by now, or its
        function is no longer at ``revision``, as the worker's is, or that is let go.
    """
    if not workers.hold(connection, worker_id):
        return False
    key = {
        "execution_id": execution.id,
        "sender": execution.owner,
        "to_worker": worker_id,
        "of_function": execution.function_id,
        "at_revision": revision,
    }
    return bool(connection.execute(_SEND, key).rowcount)


def launch(connection: sa.Connection, execution: Execution) -> bool:
    """Note that its image is about to be run: it has no worker but itself.

    :returns: False when it has ended, or has another owner by now.
    """
    key = {"execution_id": execution.id, "sender": execution.owner}
    return bool(connection.execute(_LAUNCH, key).rowcount)


def recall(connection: sa.Connection, execution: Execution) -> None:
    """Note that the worker has refused it: it was sent to nobody."""
    key = {"execution_id": execution.id, "sender": execution.owner}
    connection.execute(_RECALL, key)


def of_workers(connection: sa.Connection, worker_ids: Collection[str]) -> set[str]:
    """Those of ``worker_ids`` that run executions, or are about to get one."""
    # Those that wait for an engine have no owner, and may be very many.
    query = sa.select(Table.c.worker_id).where(
        Table.c.status == ExecutionStatus.RUNNING,
        Table.c.owner.is_not(None),
        Table.c.worker_id.in_(worker_ids),
    )
    return set(connection.execute(query).scalars())


def running(connection: sa.Connection, execution_ids: Collection[str]) -> set[str]:
    """Those of ``execution_ids`` that are under way."""
    query = sa.select(Table.c.id).where(
        Table.c.status == ExecutionStatus.RUNNING, Table.c.id.in_(execution_ids)
    )
    return set(connection.execute(query).scalars())


def end(connection: sa.Connection, ended: Execution, log: str) -> bool:
    """The one end of an execution, as it stands in ``ended``; False when it had one before."""
    result = connection.execute(
        _END,
        {
            "execution_id": ended.id,
            "new_status": ended.status,
            "new_result": ended.result,
            "result_size": _size(ended.result),
            "ended_at": ended.updated_at,
        },
    )
    if result.rowcount and log:
        connection.execute(_INSERT_LOG, {"execution_id": ended.id, "log": log})
    return bool(result.rowcount)


def delete(connection: sa.Connection, execution_id: str) -> Execution | None:
    """Remove one; returns it as it went, so that whoever was about to get it is known."""
    row = connection.execute(_FIND.with_for_update(), {"execution_id": execution_id}).one_or_none()
    remove(connection, execution_id)
    return None if row is None else _execution(row)


def remove(connection: sa.Connection, *execution_ids: str) -> None:
    connection.execute(sa.delete(_Logs).where(_Logs.c.execution_id.in_(execution_ids)))
    connection.execute(sa.delete(Table).where(Table.c.id.in_(execution_ids)))


def ended(connection: sa.Connection, before: dt.datetime, *, limit: int) -> Sequence[str]:
    """Ids of the executions that ended first, in an order that all who ask have in common."""
    query = (
        sa.select(Table.c.id)
        .where(Table.c.updated_at < before)
        .order_by(Table.c.updated_at)
        .limit(limit)
    )
    return sorted(connection.execute(query).scalars())


def give_up(connection: sa.Connection, ended: Execution) -> None:
    """End an execution that nobody has taken yet, as it stands in ``ended``."""
    connection.execute(
        sa.update(Table)
        .where(
            Table.c.id == ended.id,
            Table.c.owner.is_(None),
            Table.c.status == ExecutionStatus.RUNNING,
        )
        .values(status=ended.status, result=ended.result, updated_at=ended.updated_at)
    )


def waiting(
    connection: sa.Connection, *, after: str, projects: int, limit: int
) -> dict[str, list[str]]:
    """Ids of the executions that nobody has taken, by project, each one's oldest first.

    Reads of each project no more than it returns, however many wait: one seek in the index finds
    the next project.

    :param after: the projects are those that come after this one, and then around.
    :param projects: at most so many. :param limit: executions of each, at most.
    """
    found: dict[str, list[str]] = {}
    for _ in range(projects):
        project_id = connection.execute(_NEXT, {"after": after}).scalar()
        if project_id is None and after:
            project_id = connection.execute(_NEXT, {"after": ""}).scalar()
        if project_id is None or project_id in found:
            break
        of_project = {"of_project": project_id, "limit": limit}
        found[project_id] = list(connection.execute(_WAITING, of_project).scalars())
        after = project_id
    return found


def owned(connection: sa.Connection, owner: str, besides: Collection[str]) -> list[Orphan]:
    """The executions that an owner has beside those that it knows of."""
    # SQLite walks through an input to what is behind it: not of those that are known.
    query = _ORPHANS.where(Table.c.owner == owner, Table.c.id.not_in(besides))
    return [Orphan(*row) for row in connection.execute(query)]


def orphans(connection: sa.Connection, *, limit: int) -> list[Orphan]:
    """Executions whose owners have no lease any more, those first that were sent to nobody."""
    query = (
        _ORPHANS.where(
            Table.c.owner.is_not(None), Table.c.owner.not_in(services.living(connection))
        )
        .order_by(Table.c.worker_id.is_not(None))
        .limit(limit)
    )
    return [Orphan(*row) for row in connection.execute(query)]


def _size(text: str | None) -> int:
    """Its bytes."""
    return 0 if text is None else len(text.encode())

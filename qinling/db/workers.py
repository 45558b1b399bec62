"""Queries on workers that were claimed for functions."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import sqlalchemy as sa

from qinling.db import demands, functions, models
from qinling.states import WorkerStatus

Table: sa.Table = models.Worker.__table__  # type: ignore[assignment]
_Functions: sa.Table = models.Function.__table__  # type: ignore[assignment]
_Demands: sa.Table = models.Demand.__table__  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class Worker:
    """A row. What the columns mean: ``models.Worker``."""

    id: str
    function_id: str
    function_version: int
    revision: int
    runtime_id: str
    boot_id: str | None
    address: str
    key: str
    status: WorkerStatus
    claimed_at: dt.datetime


_NAMES = [entry.name for entry in fields(Worker)]
_COLUMNS = [Table.c[name] for name in _NAMES]
_SERVING = sa.select(*_COLUMNS).where(
    Table.c.function_id == sa.bindparam("function_id"),
    Table.c.function_version == sa.bindparam("function_version"),
    Table.c.revision == sa.bindparam("revision"),
)
_HOLD = (
    sa.select(Table.c.id)
    .where(Table.c.id == sa.bindparam("worker_id"), Table.c.status == WorkerStatus.READY)
    .with_for_update(read=True)
)


def _worker(row: sa.Row[Any]) -> Worker:
    values = row._asdict()
    values["status"] = WorkerStatus(values["status"])
    return Worker(**values)


def create(connection: sa.Connection, worker: Worker) -> bool:
    """Have one more; False when there are as many as are wanted, as by another engine."""
    # Locked, so that of two engines the second one counts what the first has made.
    wanted = connection.execute(
        sa.select(_Demands.c.wanted)
        .where(
            _Demands.c.function_id == worker.function_id,
            _Demands.c.function_version == worker.function_version,
        )
        .with_for_update()
    ).scalar()
    there = connection.execute(
        sa.select(sa.func.count())
        .select_from(Table)
        .where(
            Table.c.function_id == worker.function_id,
            Table.c.function_version == worker.function_version,
            Table.c.revision == worker.revision,
            Table.c.status != WorkerStatus.DRAINING,
        )
    ).scalar_one()
    if wanted is None or there >= wanted:
        return False
    connection.execute(sa.insert(Table), {name: getattr(worker, name) for name in _NAMES})
    return True


def find(connection: sa.Connection, worker_id: str) -> Worker | None:
    row = connection.execute(sa.select(*_COLUMNS).where(Table.c.id == worker_id)).one_or_none()
    return None if row is None else _worker(row)


def with_function(
    connection: sa.Connection, worker_id: str
) -> tuple[Worker | None, functions.Function | None]:
    """A worker and its function, as of one moment."""
    row = find(connection, worker_id)
    return row, None if row is None else functions.find(connection, row.function_id)


def serving(
    connection: sa.Connection, function_id: str, version: int, revision: int
) -> list[Worker]:
    """The workers that have, or get, just this code."""
    key = {"function_id": function_id, "function_version": version, "revision": revision}
    return [_worker(row) for row in connection.execute(_SERVING, key)]


def of_function(connection: sa.Connection, function_id: str) -> list[Worker]:
    query = sa.select(*_COLUMNS).where(Table.c.function_id == function_id)
    return [_worker(row) for row in connection.execute(query.order_by(Table.c.claimed_at))]


def of_runtime(connection: sa.Connection, runtime_id: str) -> list[Worker]:
    query = sa.select(*_COLUMNS).where(Table.c.runtime_id == runtime_id)
    return [_worker(row) for row in connection.execute(query.order_by(Table.c.claimed_at))]


def standing(
    connection: sa.Connection, runtime_id: str
) -> tuple[list[Worker], list[demands.Demand], dict[str, int]]:
    """The workers of a runtime, what is wanted of its pool, and the revisions of the functions
    that have those workers, as of one moment.
    """
    rows = of_runtime(connection, runtime_id)
    having = {row.function_id for row in rows}
    revisions = functions.revisions(connection, having) if having else {}
    return rows, demands.unsettled(connection, runtime_id), revisions


def user(connection: sa.Connection, runtime_id: str) -> str | None:
    """The id of a function that has a worker of a runtime, None when none has."""
    query = (
        sa.select(Table.c.function_id)
        .join(_Functions, _Functions.c.id == Table.c.function_id)
        .where(Table.c.runtime_id == runtime_id, Table.c.status != WorkerStatus.DRAINING)
        .limit(1)
    )
    return connection.execute(query).scalar()


def hold(connection: sa.Connection, worker_id: str) -> bool:
    """Keep a worker from being let go until the end of this transaction.

    :returns: False when it is let go already.
    """
    return connection.execute(_HOLD, {"worker_id": worker_id}).scalar() is not None


def loaded(connection: sa.Connection, worker_id: str, boot_id: str) -> bool:
    """It has its function; False when it is to be let go meanwhile."""
    key = [
        sa.select(column).where(Table.c.id == worker_id).scalar_subquery()
        for column in (Table.c.function_id, Table.c.function_version)
    ]
    connection.execute(
        sa.update(_Demands)
        .where(
            _Demands.c.function_id == key[0],
            _Demands.c.function_version == key[1],
            _Demands.c.reason.is_not(None),
        )
        .values(reason=None, refused_revision=None, refused_until=None)
    )
    return _move(connection, worker_id, WorkerStatus.LOADING, WorkerStatus.READY, boot_id=boot_id)


def drain(connection: sa.Connection, worker_id: str) -> None:
    """Nobody is to be sent to it any more."""
    connection.execute(
        sa.update(Table).where(Table.c.id == worker_id).values(status=WorkerStatus.DRAINING)
    )


def remove(connection: sa.Connection, worker_id: str) -> None:
    connection.execute(sa.delete(Table).where(Table.c.id == worker_id))


def runtimes(connection: sa.Connection, runtime_ids: Sequence[str]) -> Sequence[str]:
    """Those of ``runtime_ids`` that have workers out."""
    query = sa.select(Table.c.runtime_id).where(Table.c.runtime_id.in_(runtime_ids)).distinct()
    return connection.execute(query).scalars().all()


def runtimes_to_look_at(connection: sa.Connection) -> Sequence[str]:
    """Ids of the runtimes that have workers which are on their way in or out."""
    query = sa.select(Table.c.runtime_id).where(Table.c.status != WorkerStatus.READY).distinct()
    return connection.execute(query).scalars().all()


def loading(connection: sa.Connection) -> Sequence[str]:
    """Ids of the workers that wait for their function."""
    query = sa.select(Table.c.id).where(Table.c.status == WorkerStatus.LOADING)
    return connection.execute(query).scalars().all()


def ready(connection: sa.Connection, runtime_ids: Sequence[str]) -> Sequence[str]:
    """Ids of the workers of some runtimes that have their function."""
    query = sa.select(Table.c.id).where(
        Table.c.runtime_id.in_(runtime_ids), Table.c.status == WorkerStatus.READY
    )
    return connection.execute(query).scalars().all()


def _move(
    connection: sa.Connection, worker_id: str, old: WorkerStatus, new: WorkerStatus, **values: Any
) -> bool:
    result = connection.execute(
        sa.update(Table)
        .where(Table.c.id == worker_id, Table.c.status == old)
        .values(status=new, **values)
    )
    return bool(result.rowcount)

"""Queries on runtimes. Each takes a connection and is one transaction (``db.api``)."""

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import sqlalchemy as sa
from oslo_utils import timeutils

from qinling import exceptions, states
from qinling.db import functions, models
from qinling.db import listing as lists
from qinling.states import RuntimeStatus

# Core's table: the mapped class would cost each query its annotations.
Table: sa.Table = models.Runtime.__table__  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class Runtime:
    """A row. What the columns mean: ``models.Runtime``."""

    id: str
    project_id: str
    created_at: dt.datetime
    updated_at: dt.datetime | None
    name: str | None
    description: str | None
    image: str
    previous_image: str | None
    is_public: bool
    trusted: bool
    status: RuntimeStatus
    status_reason: str | None
    revision: int
    settled: bool
    pool_total: int
    pool_available: int
    pool_reason: str | None

    @property
    def reason(self) -> str | None:
        """Why its pool is not whole, or else how it came to its status."""
        return self.pool_reason or self.status_reason

    @property
    def cause(self) -> str | None:
        """The reason without what is the operator's matter, as names of nodes and addresses."""
        return self.reason and self.reason.partition(": ")[0]


@dataclass(frozen=True, slots=True)
class Seen:
    """What the engine saw of a pool; ``whole`` when nothing is left to be done."""

    total: int
    available: int
    reason: str | None
    whole: bool


_NAMES = [entry.name for entry in fields(Runtime)]
_COLUMNS = [Table.c[name] for name in _NAMES]
# Statements of every call, made once: SQLAlchemy compiles them once, too.
_INSERT = sa.insert(Table)
_FIND = sa.select(*_COLUMNS).where(Table.c.id == sa.bindparam("runtime_id"))
# A runtime's fields that lists can be filtered and sorted by.
LISTED = (
    "id",
    "name",
    "image",
    "description",
    "is_public",
    "trusted",
    "status",
    "project_id",
    "created_at",
    "updated_at",
)
# Fields that need nothing of the pool, so that no race about them matters.
DESCRIPTIVE = ("name", "description")


def _runtime(row: sa.Row[Any]) -> Runtime:
    values = row._asdict()
    values["status"] = RuntimeStatus(values["status"])
    return Runtime(**values)


def create(connection: sa.Connection, values: dict[str, Any]) -> Runtime:
    """Insert a runtime that is to be created."""
    runtime = Runtime(
        **values,
        created_at=timeutils.utcnow(),
        updated_at=None,
        previous_image=None,
        status=RuntimeStatus.CREATING,
        status_reason=None,
        revision=1,
        settled=False,
        pool_total=0,
        pool_available=0,
        pool_reason=None,
    )
    connection.execute(_INSERT, {name: getattr(runtime, name) for name in _NAMES})
    return runtime


def find(connection: sa.Connection, runtime_id: str) -> Runtime | None:
    row = connection.execute(_FIND, {"runtime_id": runtime_id}).one_or_none()
    return None if row is None else _runtime(row)


def get(connection: sa.Connection, runtime_id: str) -> Runtime:
    """:raises NotFound: there is no such runtime."""
    runtime = find(connection, runtime_id)
    if runtime is None:
        raise exceptions.NotFound.of("Runtime", runtime_id)
    return runtime


def page(connection: sa.Connection, listing: lists.Listing, project_id: str | None) -> lists.Page:
    """A page of what ``project_id`` may see; of everything when it is None."""
    visible = [] if project_id is None else [Table.c.is_public | (Table.c.project_id == project_id)]
    return lists.page(connection, Table, _COLUMNS, _runtime, listing, *visible)


def describe(connection: sa.Connection, runtime_id: str, values: dict[str, Any]) -> None:
    """Change what needs nothing of the pool, whatever the row's status and revision are now.

    :raises ValueError: something in ``values`` is not ``DESCRIPTIVE``: it goes
        through a door that compares and swaps.
    """
    if not values.keys() <= set(DESCRIPTIVE):
        raise ValueError(f"{sorted(values)} are more than {DESCRIPTIVE}")
    connection.execute(
        sa.update(Table)
        .where(Table.c.id == runtime_id)
        .values(**values, updated_at=timeutils.utcnow())
    )


def upgrade(connection: sa.Connection, runtime: Runtime, values: dict[str, Any]) -> bool:
    """Give the runtime a new image (and what else is in ``values``).

    A runtime in error has no image to go back to. False when somebody else
    changed the row since ``runtime`` was read.
    """
    working = runtime.image if runtime.status == RuntimeStatus.AVAILABLE else None
    return transition(
        connection,
        runtime,
        RuntimeStatus.UPGRADING,
        **values,
        previous_image=working,
        status_reason=None,
    )


def delete(connection: sa.Connection, runtime: Runtime) -> bool:
    """Mark the runtime as to be deleted; False when somebody else changed the row.

    :raises Forbidden: functions use it.
    """
    if not transition(connection, runtime, RuntimeStatus.DELETING, status_reason=None):
        return False
    # Only now: whoever made a function of it meanwhile held the row until that was committed.
    if functions.uses(connection, runtime.id):
        raise exceptions.Forbidden(
            f"Runtime {runtime.id} cannot be deleted while functions use it."
        )
    return True


def transition(
    connection: sa.Connection, runtime: Runtime, status: RuntimeStatus, /, **values: Any
) -> bool:
    """The one door for a change of what should be: raises the revision.

    :returns: False when the row is no longer at the status and revision of
        ``runtime``: somebody else moved it, and nothing was changed.
    """
    states.check_runtime(runtime.status, status)
    return _swap(
        connection,
        runtime,
        status=status,
        revision=runtime.revision + 1,
        settled=False,
        updated_at=timeutils.utcnow(),
        **values,
    )


def conclude(
    connection: sa.Connection, runtime: Runtime, status: RuntimeStatus, seen: Seen, /, **values: Any
) -> bool:
    """The one door for an end that the pool has come to; the revision stays.

    :returns: as ``transition``.
    """
    states.check_runtime(runtime.status, status)
    return _swap(
        connection,
        runtime,
        status=status,
        updated_at=timeutils.utcnow(),
        **_observed(seen),
        **values,
    )


def is_known(runtime: Runtime, seen: Seen) -> bool:
    """Whether the row says already what was seen of the pool. No query."""
    return all(getattr(runtime, name) == value for name, value in _observed(seen).items())


def observe(connection: sa.Connection, runtime: Runtime, seen: Seen) -> bool:
    """Keep what was seen of the pool; returns as ``transition``."""
    return _swap(connection, runtime, **_observed(seen))


def outgrow(connection: sa.Connection, runtime: Runtime, revision: int) -> bool:
    """Put the row above a revision of its pool, with nothing else changed; returns as
    ``transition``.
    """
    return _swap(connection, runtime, revision=revision + 1, settled=False)


def remove(connection: sa.Connection, runtime: Runtime) -> bool:
    """Delete the row of a runtime of which the orchestrator has nothing left."""
    result = connection.execute(
        sa.delete(Table).where(
            Table.c.id == runtime.id,
            Table.c.status == RuntimeStatus.DELETING,
            Table.c.revision == runtime.revision,
        )
    )
    return bool(result.rowcount)


def ids(
    connection: sa.Connection, *, settled: bool, after: str = "", limit: int = 1000
) -> Sequence[str]:
    """Ids of the rows that are (not) settled, in order, behind ``after``."""
    query = (
        sa.select(Table.c.id)
        .where(Table.c.settled == settled, Table.c.id > after)
        .order_by(Table.c.id)
        .limit(limit)
    )
    return connection.execute(query).scalars().all()


def count(connection: sa.Connection, *, settled: bool, after: str = "") -> int:
    """How many rows ``ids`` would find without a limit."""
    query = (
        sa.select(sa.func.count())
        .select_from(Table)
        .where(Table.c.settled == settled, Table.c.id > after)
    )
    return connection.execute(query).scalar_one()


def existing(connection: sa.Connection, runtime_ids: Iterable[str]) -> set[str]:
    """Those of ``runtime_ids`` that have a row."""
    query = sa.select(Table.c.id).where(Table.c.id.in_(list(runtime_ids)))
    return set(connection.execute(query).scalars())


def _observed(seen: Seen) -> dict[str, Any]:
    return {
        "pool_total": seen.total,
        "pool_available": seen.available,
        "pool_reason": seen.reason,
        "settled": seen.whole,
    }


def _swap(connection: sa.Connection, runtime: Runtime, **values: Any) -> bool:
    result = connection.execute(
        sa.update(Table)
        .where(
            Table.c.id == runtime.id,
            Table.c.status == runtime.status,
            Table.c.revision == runtime.revision,
        )
        .values(**values)
    )
    return bool(result.rowcount)

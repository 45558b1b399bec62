"""Queries on demands: how many workers each version of a function should have."""

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from oslo_db import exception as db_exc
from oslo_utils import timeutils

from qinling.db import models
from qinling.states import WorkerStatus

Table: sa.Table = models.Demand.__table__  # type: ignore[assignment]
_Functions: sa.Table = models.Function.__table__  # type: ignore[assignment]
_Workers: sa.Table = models.Worker.__table__  # type: ignore[assignment]
_LONGEST_REASON = 1000
# Seconds for which a refusal is believed: then one worker is tried again, as its package may have
# been put back, or its runtime have another image.
_REFUSED_FOR = dt.timedelta(seconds=30)

#: Seconds between two notes of one process that a version is used; ``used_at`` is so much too old.
NOTED_EVERY = 30.0


@dataclass(frozen=True, slots=True)
class Demand:
    """A row, and of its function what matters for a claim.

    :ivar refused_until: until when no worker is to be tried, where none takes this revision.
    """

    function_id: str
    function_version: int
    wanted: int
    project_id: str
    revision: int
    refused_until: dt.datetime | None


@dataclass(frozen=True, slots=True)
class Idle:
    """A version of a function that keeps workers for nothing."""

    function_id: str
    function_version: int
    wanted: int
    used_at: dt.datetime


def raise_to(connection: sa.Connection, function_id: str, version: int, wanted: int) -> None:
    """Want at least so many workers: of any number of askers for one more, one gets it.

    Who wants no more than are wanted already does not have them: they are looked at again.
    """
    if _raise(connection, function_id, version, wanted):
        return
    new = {
        "function_id": function_id,
        "function_version": version,
        "settled": False,
        "used_at": timeutils.utcnow(),
    }
    try:
        # In no savepoint: a deadlock takes it away, and what it is about would not be known.
        connection.execute(sa.insert(Table).values(**new, wanted=wanted))
    except db_exc.DBDuplicateEntry:
        # Of two first askers the second finds the row of the first.
        _raise(connection, function_id, version, wanted)


def _raise(connection: sa.Connection, function_id: str, version: int, wanted: int) -> bool:
    """Whether there is a row, in which as many are wanted now."""
    key = (Table.c.function_id == function_id) & (Table.c.function_version == version)
    raised = connection.execute(
        sa.update(Table)
        .where(key, Table.c.wanted < wanted)
        .values(wanted=wanted, used_at=timeutils.utcnow(), settled=False)
    )
    return bool(
        raised.rowcount
        or connection.execute(sa.update(Table).where(key).values(settled=False)).rowcount
    )


def change(connection: sa.Connection, function_id: str, version: int, more: int, most: int) -> bool:
    """Want ``more`` workers than now, or fewer, but not fewer than one; False above ``most``."""
    key = (Table.c.function_id == function_id) & (Table.c.function_version == version)
    if more > 0:
        # A row to lock: of several first ones each counts from what the one before it wants.
        raise_to(connection, function_id, version, 0)
    wanted = (
        connection.execute(sa.select(Table.c.wanted).where(key).with_for_update()).scalar() or 0
    )
    changed = wanted + more if more > 0 else max(wanted + more, min(wanted, 1))
    if changed > most:
        return False
    if changed > wanted:
        raise_to(connection, function_id, version, changed)
    else:
        connection.execute(sa.update(Table).where(key).values(wanted=changed, settled=False))
    return True


def note_use(connection: sa.Connection, function_id: str, version: int) -> None:
    """Something is sent to a worker of a version. The row tells it, whatever becomes of that."""
    connection.execute(
        sa.update(Table)
        .where(Table.c.function_id == function_id, Table.c.function_version == version)
        .values(used_at=timeutils.utcnow())
    )


def ask_again(connection: sa.Connection, function_id: str) -> None:
    """The workers of a function are not what they should be, or were not when last seen."""
    connection.execute(
        sa.update(Table).where(Table.c.function_id == function_id).values(settled=False)
    )


def note(connection: sa.Connection, function_id: str, version: int, reason: str) -> None:
    """Why the last worker of a version was of no use."""
    connection.execute(
        sa.update(Table)
        .where(Table.c.function_id == function_id, Table.c.function_version == version)
        .values(reason=reason[:_LONGEST_REASON])
    )


def reason(connection: sa.Connection, function_id: str, version: int) -> str | None:
    """Why a version has not the workers that were wanted, if that is known."""
    query = sa.select(Table.c.reason).where(
        Table.c.function_id == function_id, Table.c.function_version == version
    )
    return connection.execute(query).scalar()


def refuse(
    connection: sa.Connection, function_id: str, version: int, revision: int, reason: str
) -> None:
    """No worker takes a version at this revision of its function: no more are wanted of it than
    have it already.
    """
    there = (
        sa.select(sa.func.count())
        .select_from(_Workers)
        .where(
            _Workers.c.function_id == function_id,
            _Workers.c.function_version == version,
            _Workers.c.revision == revision,
            _Workers.c.status == WorkerStatus.READY,
        )
        .scalar_subquery()
    )
    connection.execute(
        sa.update(Table)
        .where(
            Table.c.function_id == function_id,
            Table.c.function_version == version,
            # Nothing is said of another one.
            sa.exists().where(_Functions.c.id == function_id, _Functions.c.revision == revision),
        )
        .values(
            reason=reason[:_LONGEST_REASON],
            refused_revision=revision,
            refused_until=timeutils.utcnow() + _REFUSED_FOR,
            wanted=there,
            settled=False,
        )
    )


def standing(
    connection: sa.Connection, function_id: str, version: int
) -> tuple[int, str | None] | None:
    """The revision of a function, and why no worker takes the version at that, where it is so.

    None when there is no such function.
    """
    refused = sa.and_(
        Table.c.function_id == _Functions.c.id,
        Table.c.function_version == version,
        Table.c.refused_revision == _Functions.c.revision,
        Table.c.refused_until > timeutils.utcnow(),
    )
    query = (
        sa.select(_Functions.c.revision, Table.c.reason)
        .select_from(_Functions.outerjoin(Table, refused))
        .where(_Functions.c.id == function_id)
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else (row.revision, row.reason)


def let_go(connection: sa.Connection, function_id: str, version: int) -> None:
    """Want no worker of a version any more."""
    connection.execute(
        sa.update(Table)
        .where(Table.c.function_id == function_id, Table.c.function_version == version)
        .values(wanted=0, settled=False)
    )


def idle(connection: sa.Connection, since: dt.datetime) -> list[Idle]:
    """What is wanted and was not used since a time."""
    columns = (Table.c.function_id, Table.c.function_version, Table.c.wanted, Table.c.used_at)
    query = sa.select(*columns).where(Table.c.wanted > 0, Table.c.used_at < since)
    return [Idle(*row) for row in connection.execute(query)]


def give_up(connection: sa.Connection, idle: Idle) -> bool:
    """Want none any more; False when somebody wants another number, or uses it, meanwhile."""
    given_up = sa.update(Table).where(_is_as(idle), Table.c.used_at == idle.used_at)
    return bool(connection.execute(given_up.values(wanted=0, settled=False)).rowcount)


def unsettled(connection: sa.Connection, runtime_id: str) -> list[Demand]:
    """What is wanted of a runtime's pool and may not be there yet."""
    query = (
        sa.select(
            Table.c.function_id,
            Table.c.function_version,
            Table.c.wanted,
            _Functions.c.project_id,
            _Functions.c.revision,
            sa.case((Table.c.refused_revision == _Functions.c.revision, Table.c.refused_until)),
        )
        .join(_Functions, _Functions.c.id == Table.c.function_id)
        .where(_Functions.c.runtime_id == runtime_id, Table.c.settled == sa.false())
        .order_by(Table.c.function_id, Table.c.function_version)
    )
    return [Demand(*row) for row in connection.execute(query)]


def settle(connection: sa.Connection, asked: Iterable[Demand], most: int) -> None:
    """There are as many as were wanted, but where another number is wanted meanwhile, or fewer
    are there.

    :param most: workers that a version may have.
    """
    for demand in asked:
        there = (
            sa.select(sa.func.count())
            .select_from(_Workers)
            .where(
                _Workers.c.function_id == demand.function_id,
                _Workers.c.function_version == demand.function_version,
                _Workers.c.revision == demand.revision,
                _Workers.c.status != WorkerStatus.DRAINING,
            )
            .scalar_subquery()
        )
        connection.execute(
            sa.update(Table)
            .where(_is_as(demand), there >= min(demand.wanted, most))
            .values(settled=True)
        )


def runtimes(connection: sa.Connection) -> Sequence[str]:
    """Ids of the runtimes of whose pools something is wanted."""
    query = (
        sa.select(_Functions.c.runtime_id)
        .join(Table, _Functions.c.id == Table.c.function_id)
        .where(Table.c.settled == sa.false(), _Functions.c.runtime_id.is_not(None))
        .distinct()
    )
    return connection.execute(query).scalars().all()


def remove(connection: sa.Connection, function_id: str) -> None:
    connection.execute(sa.delete(Table).where(Table.c.function_id == function_id))


def _is_as(seen: Demand | Idle) -> sa.ColumnElement[bool]:
    """Whether a row is the one that was seen, and wants as many as then."""
    return sa.and_(
        Table.c.function_id == seen.function_id,
        Table.c.function_version == seen.function_version,
        Table.c.wanted == seen.wanted,
    )

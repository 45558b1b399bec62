"""Leases: which processes of the service are alive, by the database's clock."""

import sqlalchemy as sa

from qinling.db import models

Table: sa.Table = models.Service.__table__  # type: ignore[assignment]

# Seconds between renewals, and the age from which a lease counts as lost.
RENEWAL = 5.0
LEASE = 15.0


def now(connection: sa.Connection) -> sa.ColumnElement[object]:
    """The database's clock, UTC with microseconds where it has them."""
    if connection.dialect.name == "sqlite":
        return sa.func.strftime("%Y-%m-%d %H:%M:%f", "now")
    return sa.func.utc_timestamp(6)


def _lost(connection: sa.Connection) -> sa.ColumnElement[object]:
    if connection.dialect.name == "sqlite":
        return sa.func.strftime("%Y-%m-%d %H:%M:%f", "now", f"-{LEASE} seconds")
    return sa.func.utc_timestamp(6) - sa.text(f"INTERVAL {LEASE:.0f} SECOND")


def living(connection: sa.Connection) -> sa.Select[tuple[str]]:
    """A subquery: ids of the processes whose leases hold."""
    return sa.select(Table.c.id).where(Table.c.renewed_at > _lost(connection))


def _other_host(connection: sa.Connection, orchestrator: str, host: str) -> str | None:
    """Another host with a live engine on ``orchestrator``, if there is one.

    Locked, so that of two hosts that register at once one sees the other.
    """
    query = (
        sa.select(Table.c.host)
        .where(
            Table.c.orchestrator == orchestrator,
            Table.c.host != host,
            Table.c.renewed_at > _lost(connection),
        )
        .limit(1)
        .with_for_update()
    )
    return connection.execute(query).scalar()


def register(
    connection: sa.Connection,
    service_id: str,
    binary: str,
    host: str,
    orchestrator: str | None,
    one_host: bool,
) -> str | None:
    """Take a lease, and forget those long lost.

    :param orchestrator: what it works with, None for a process that has none.
    :param one_host: only one host may have leases with this orchestrator.
    :returns: the other host that has one, in which case none was taken.
    """
    if one_host and orchestrator is not None:
        other = _other_host(connection, orchestrator, host)
        if other is not None:
            return other
    connection.execute(sa.delete(Table).where(Table.c.renewed_at < _lost(connection)))
    connection.execute(
        sa.insert(Table).values(
            id=service_id,
            binary=binary,
            host=host,
            orchestrator=orchestrator,
            started_at=now(connection),
            renewed_at=now(connection),
        )
    )
    return None


def renew(connection: sa.Connection, service_id: str) -> bool:
    """Renew a lease; False when it was lost and has been forgotten."""
    result = connection.execute(
        sa.update(Table).where(Table.c.id == service_id).values(renewed_at=now(connection))
    )
    return bool(result.rowcount)


def leave(connection: sa.Connection, service_id: str) -> None:
    connection.execute(sa.delete(Table).where(Table.c.id == service_id))

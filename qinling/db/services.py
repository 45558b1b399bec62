"""Leases: which processes of the service are alive, by the database's clock."""

import sqlalchemy as sa
from sqlalchemy import orm

from qinling.db import models

Model = models.Service

# Seconds between renewals, and the age from which a lease counts as lost.
RENEWAL = 5.0
LEASE = 15.0


def now(session: orm.Session) -> sa.ColumnElement[object]:
    """The database's clock, UTC with microseconds where it has them."""
    if session.get_bind().dialect.name == "sqlite":
        return sa.func.strftime("%Y-%m-%d %H:%M:%f", "now")
    return sa.func.utc_timestamp(6)


def _lost(session: orm.Session) -> sa.ColumnElement[object]:
    if session.get_bind().dialect.name == "sqlite":
        return sa.func.strftime("%Y-%m-%d %H:%M:%f", "now", f"-{LEASE} seconds")
    return sa.func.utc_timestamp(6) - sa.text(f"INTERVAL {LEASE:.0f} SECOND")


def _other_host(session: orm.Session, orchestrator: str, host: str) -> str | None:
    """Another host with a live engine on ``orchestrator``, if there is one.

    Locked, so that of two hosts that register at once one sees the other.
    """
    query = (
        sa.select(Model.host)
        .where(
            Model.orchestrator == orchestrator,
            Model.host != host,
            Model.renewed_at > _lost(session),
        )
        .limit(1)
        .with_for_update()
    )
    return session.execute(query).scalar()


def register(
    session: orm.Session,
    service_id: str,
    binary: str,
    host: str,
    orchestrator: str,
    one_host: bool,
) -> str | None:
    """Take a lease, and forget those long lost.

    :param one_host: only one host may have leases with this orchestrator.
    :returns: the other host that has one, in which case none was taken.
    """
    if one_host and (other := _other_host(session, orchestrator, host)) is not None:
        return other
    session.execute(sa.delete(Model).where(Model.renewed_at < _lost(session)))
    session.execute(
        sa.insert(Model).values(
            id=service_id,
            binary=binary,
            host=host,
            orchestrator=orchestrator,
            started_at=now(session),
            renewed_at=now(session),
        )
    )
    return None


def renew(session: orm.Session, service_id: str) -> bool:
    """Renew a lease; False when it was lost and has been forgotten."""
    result = session.execute(
        sa.update(Model).where(Model.id == service_id).values(renewed_at=now(session))
    )
    return bool(result.rowcount)  # type: ignore[attr-defined]


def leave(session: orm.Session, service_id: str) -> None:
    session.execute(sa.delete(Model).where(Model.id == service_id))

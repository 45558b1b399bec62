"""Leases: who is alive, and which host has the workers."""

import sqlalchemy as sa

from qinling.db import api as db_api
from qinling.db import models, services


def register(
    db: db_api.Database, id_: str, host: str, *, one_host: bool = True, driver: str = "local"
) -> str | None:
    return db.write(services.register, id_, "qinling-engine", host, driver, one_host)


def ids(db: db_api.Database) -> set[str]:
    query = sa.select(models.Service.id)
    return set(db.read(lambda connection: connection.execute(query).scalars().all()))


def silent_for(db: db_api.Database, id_: str, seconds: int) -> None:
    """Let it be so long that a process has renewed its lease, by the database's clock."""
    past = sa.func.strftime("%Y-%m-%d %H:%M:%f", "now", f"-{seconds} seconds")
    change = sa.update(models.Service).where(models.Service.id == id_).values(renewed_at=past)
    db.write(lambda connection: connection.execute(change))


def test_one_host_may_have_any_number_of_engines(db: db_api.Database) -> None:
    assert [register(db, id_, "this-host") for id_ in "abc"] == [None] * 3
    assert ids(db) == {"a", "b", "c"}


def test_a_second_host_is_told_of_the_first_and_gets_no_lease(db: db_api.Database) -> None:
    register(db, "a", "this-host")
    assert register(db, "b", "that-host") == "this-host"
    assert ids(db) == {"a"}


def test_hosts_may_share_what_keeps_its_workers_elsewhere(db: db_api.Database) -> None:
    assert register(db, "a", "this-host", one_host=False) is None
    assert register(db, "b", "that-host", one_host=False) is None


def test_another_orchestrator_is_no_reason_to_refuse(db: db_api.Database) -> None:
    register(db, "a", "this-host", one_host=False, driver="kubernetes")
    assert register(db, "b", "that-host") is None


def test_a_host_that_is_silent_too_long_has_lost_its_workers(db: db_api.Database) -> None:
    register(db, "a", "this-host")
    silent_for(db, "a", int(services.LEASE) - 3)
    assert register(db, "b", "that-host") == "this-host"
    silent_for(db, "a", int(services.LEASE) + 1)
    assert register(db, "b", "that-host") is None
    # It is told when it comes back: its lease is not there any more.
    assert db.write(services.renew, "a") is False
    assert register(db, "a", "this-host") == "that-host"


def test_a_lease_that_is_renewed_lives_on(db: db_api.Database) -> None:
    register(db, "a", "this-host")
    silent_for(db, "a", int(services.LEASE) - 1)
    assert db.write(services.renew, "a") is True
    assert register(db, "b", "that-host") == "this-host"
    # Often enough that one that is late, or lost, does not matter.
    assert services.RENEWAL * 2 < services.LEASE


def test_who_leaves_is_no_reason_to_refuse(db: db_api.Database) -> None:
    register(db, "a", "this-host")
    db.write(services.leave, "a")
    assert ids(db) == set()
    assert register(db, "b", "that-host") is None
    db.write(services.leave, "a")
    assert ids(db) == {"b"}

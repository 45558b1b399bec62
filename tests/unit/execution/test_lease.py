"""The lease of an engine: while it holds the engine works, and nobody else's host does."""

import threading
from collections.abc import Callable, Iterator

import pytest
from oslo_config import cfg

from qinling import exceptions
from qinling.db import api as db_api
from qinling.db import services
from qinling.execution import lease as leases
from qinling.execution.lease import Lease
from tests.fixtures.process import wait_until

OTHER = "other-host"


class Clock:
    """A double of the host's clock, which a test moves."""

    seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(leases, "_now", clock)
    return clock


@pytest.fixture
def faults() -> list[exceptions.StartupError]:
    """What the engine was told that it cannot go on for."""
    return []


@pytest.fixture
def make(
    conf: cfg.ConfigOpts, db: db_api.Database, faults: list[exceptions.StartupError]
) -> Iterator[Callable[[bool], Lease]]:
    made: list[Lease] = []

    def make(one_host: bool) -> Lease:
        made.append(Lease(conf, db, "qinling-engine", "local", one_host, faults.append))
        return made[-1]

    yield make
    for lease in made:
        lease.stop(10)


def test_an_engine_that_slept_does_nothing_until_it_has_its_lease_again(
    make: Callable[[bool], Lease], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "RENEWAL", 3600.0)
    lease = make(True)
    with pytest.raises(exceptions.LeaseLapsed):
        lease.check()
    lease.start()
    lease.check()
    clock.seconds += services.LEASE - 1
    lease.check()
    clock.seconds += 1
    with pytest.raises(exceptions.LeaseLapsed):
        lease.check()


def test_a_lease_is_renewed_in_time(
    make: Callable[[bool], Lease], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "RENEWAL", 0.01)
    lease = make(True)
    lease.start()

    def holds() -> bool:
        try:
            lease.check()
        except exceptions.LeaseLapsed:
            return False
        return True

    for _ in range(3):
        clock.seconds += services.LEASE
        wait_until(holds, 10, "the lease renewed")


def test_a_lease_is_renewed_as_soon_as_the_database_is_back(
    make: Callable[[bool], Lease], db: db_api.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "RENEWAL", 0.01)
    monkeypatch.setattr(leases, "_AGAIN", 0.01)
    tries = 0
    renewed = threading.Event()
    write = db.write

    def away_at_first(query: Callable[..., object], *arguments: object) -> object:
        nonlocal tries
        if query is not services.renew:
            return write(query, *arguments)
        tries += 1
        monkeypatch.setattr(services, "RENEWAL", 3600.0)
        if tries <= 2:
            raise exceptions.DatabaseUnavailable("away")
        found = write(query, *arguments)
        renewed.set()
        return found

    monkeypatch.setattr(db, "write", away_at_first)
    make(True).start()
    assert renewed.wait(10)


def test_an_engine_whose_host_was_replaced_ends(
    make: Callable[[bool], Lease],
    db: db_api.Database,
    clock: Clock,
    faults: list[exceptions.StartupError],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(services, "RENEWAL", 0.01)
    taken = threading.Event()
    write = db.write

    def late(query: Callable[..., object], *arguments: object) -> object:
        # Before its transaction, which would keep the other host out.
        if query is services.renew:
            taken.wait(10)
        return write(query, *arguments)

    monkeypatch.setattr(db, "write", late)
    lease = make(True)
    lease.start()
    with monkeypatch.context() as later:
        later.setattr(services, "LEASE", 0.0)
        assert db.write(services.register, "b", "qinling-engine", OTHER, "local", True) is None
    clock.seconds += services.LEASE
    taken.set()
    wait_until(lambda: bool(faults), 10, "the engine told")
    assert OTHER in str(faults[0])
    with pytest.raises(exceptions.LeaseLapsed):
        lease.check()


def test_an_orchestrator_of_no_host_needs_no_lease_to_work(
    make: Callable[[bool], Lease], clock: Clock
) -> None:
    lease = make(False)
    lease.start()
    clock.seconds += 10 * services.LEASE
    lease.check()

"""The resync: what it offers to the queue, and which pools it takes for orphans."""

import datetime as dt
import logging
import uuid
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from oslo_config import cfg
from oslo_utils import timeutils

from qinling import exceptions
from qinling.db import api as db_api
from qinling.db import demands
from qinling.engine import resync as module
from qinling.engine.reconciler import Key
from qinling.engine.resync import Resync
from qinling.execution.lease import Lease
from tests.fixtures.process import wait_until
from tests.unit import rows
from tests.unit.engine.doubles import Offers, ScriptedOrchestrator

GRACE = 600.0


class Clock:
    """A monotonic clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=found.monotonic))
    return found


@pytest.fixture
def offers() -> Offers:
    return Offers()


@pytest.fixture
def orchestrator() -> ScriptedOrchestrator:
    return ScriptedOrchestrator(removed=True)


@pytest.fixture
def make(
    conf: cfg.ConfigOpts,
    db: db_api.Database,
    orchestrator: ScriptedOrchestrator,
    offers: Offers,
) -> Callable[..., Resync]:
    """Makes a resync with these options of ``[engine]``."""

    def make(**options: Any) -> Resync:
        for name, value in ({"orphan_grace": GRACE} | options).items():
            conf.set_override(name, value, group="engine")
        lease = Lease(conf, db, "qinling-engine", "local", one_host=False, lost=lambda _error: None)
        return Resync(conf, db, orchestrator, offers, Offers(), lease)  # type: ignore[arg-type]

    return make


@pytest.mark.parametrize("page", [1, 3, 4, 500])
def test_every_unsettled_row_is_offered_once_each_time(
    make: Callable[..., Resync],
    db: db_api.Database,
    offers: Offers,
    monkeypatch: pytest.MonkeyPatch,
    page: int,
) -> None:
    monkeypatch.setattr(module, "_PAGE", page)
    statuses = ("creating", "upgrading", "deleting", "error", "available", "creating")
    unsettled = rows.insert(db, *({"status": status} for status in statuses))
    rows.insert(db, *[{"status": "available", "settled": True}] * 5)
    resync = make()
    resync._unsettled()
    assert offers.keys == [Key("runtime", id_) for id_ in sorted(unsettled)]
    resync._unsettled()
    assert offers.ids() == sorted(unsettled) * 2


@pytest.mark.parametrize("count", [0, 1, 7, 20, 333])
def test_every_settled_row_is_offered_once_in_a_round_that_ends_in_time(
    make: Callable[..., Resync],
    db: db_api.Database,
    offers: Offers,
    clock: Clock,
    count: int,
) -> None:
    settled = rows.insert(db, *[{"status": "available", "settled": True}] * count) if count else []
    rows.insert(db, *[{"status": "creating"}] * 5)
    interval = 100.0
    resync = make(settled_interval=interval)
    ends = clock.now + interval
    most = 0
    while clock.now < ends and len(offers.keys) < count:
        before = len(offers.keys)
        resync._settled()
        most = max(most, len(offers.keys) - before)
        clock.now += 5.0
    assert offers.ids() == sorted(settled)
    # Evenly, and not all at once.
    assert most <= count / (interval / 5.0) + 2
    # The next round is the same again.
    while len(offers.keys) < 2 * count:
        resync._settled()
        clock.now += 5.0
    assert offers.ids() == sorted(settled) * 2


def test_a_walk_over_settled_rows_goes_on_when_rows_come_and_go(
    make: Callable[..., Resync], db: db_api.Database, offers: Offers, clock: Clock
) -> None:
    settled = sorted(rows.insert(db, *[{"status": "available", "settled": True}] * 20))
    resync = make(settled_interval=100.0)
    while len(offers.keys) < 10:
        resync._settled()
        clock.now += 5.0
    # Where the walk stands, one before it, and one after it.
    gone = {settled[0], offers.ids()[-1], settled[-1]}
    rows.delete(db, *gone)
    walked = len(offers.keys)
    rest = [id_ for id_ in settled[walked:] if id_ not in gone]
    while len(offers.keys) < walked + len(rest):
        resync._settled()
        clock.now += 5.0
    assert offers.ids() == settled[:walked] + rest


def test_its_threads_offer_settled_and_unsettled_rows_until_they_are_stopped(
    make: Callable[..., Resync], db: db_api.Database, offers: Offers
) -> None:
    settled = set(rows.insert(db, *[{"status": "available", "settled": True}] * 3))
    unsettled = set(rows.insert(db, *[{"status": "creating"}] * 3))
    resync = make(unsettled_interval=0.1, settled_interval=1.0)
    resync.start()
    try:
        for wanted in (settled, unsettled):
            wait_until(
                lambda wanted=wanted: all(offers.ids().count(id_) >= 3 for id_ in wanted),  # type: ignore[misc]
                20,
                "three rounds",
            )
    finally:
        resync.stop()
    assert set(offers.ids()) == settled | unsettled
    # Nothing is left that could offer.
    assert not any(thread.is_alive() for thread in resync._threads)


def test_a_database_that_is_away_ends_no_thread(
    make: Callable[..., Resync],
    db: db_api.Database,
    offers: Offers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unsettled = rows.insert(db, {"status": "creating"})
    read, refused = db.read, []

    def away(*args: Any, **kw: Any) -> Any:
        if len(refused) < 5:
            refused.append(args)
            raise exceptions.DatabaseUnavailable("The database does not answer for now.")
        return read(*args, **kw)

    monkeypatch.setattr(db, "read", away)
    resync = make(unsettled_interval=0.1)
    resync.start()
    try:
        wait_until(lambda: unsettled[0] in offers.ids(), 20, "an offer after all")
    finally:
        resync.stop()
    assert len(refused) == 5


def orphans(orchestrator: ScriptedOrchestrator, count: int) -> list[str]:
    """Give the orchestrator so many pools without a row."""
    ids = sorted(str(uuid.uuid4()) for _ in range(count))
    orchestrator.pool_ids |= set(ids)
    return ids


def warnings(caplog: pytest.LogCaptureFixture, id_: str) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno == logging.WARNING and id_ in record.getMessage()
    ]


def test_a_pool_without_a_row_is_named_at_once_and_removed_after_the_grace(
    make: Callable[..., Resync],
    orchestrator: ScriptedOrchestrator,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    resync = make()
    [orphan] = orphans(orchestrator, 1)
    resync.sweep()
    assert orchestrator.calls == []
    [named] = warnings(caplog, orphan)
    assert "600 s" in named
    clock.now += GRACE - 1
    resync.sweep()
    assert orchestrator.calls == []
    assert len(warnings(caplog, orphan)) == 1
    clock.now += 1
    resync.sweep()
    # None: whatever revision it is at.
    assert orchestrator.calls == [("remove", orphan, None)]
    assert "removed" in warnings(caplog, orphan)[-1]
    resync.sweep()
    assert len(orchestrator.calls) == 1


@pytest.mark.parametrize("page", [1, 500])
def test_a_pool_with_a_row_is_no_orphan_whatever_its_status(
    make: Callable[..., Resync],
    db: db_api.Database,
    orchestrator: ScriptedOrchestrator,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    page: int,
) -> None:
    monkeypatch.setattr(module, "_PAGE", page)
    statuses = ("creating", "available", "upgrading", "deleting", "error")
    orchestrator.pool_ids |= set(rows.insert(db, *({"status": status} for status in statuses)))
    resync = make()
    for _ in range(3):
        resync.sweep()
        clock.now += GRACE
    assert orchestrator.calls == []


def test_a_row_that_comes_back_saves_its_pool_and_forgets_the_grace(
    make: Callable[..., Resync],
    db: db_api.Database,
    orchestrator: ScriptedOrchestrator,
    clock: Clock,
) -> None:
    resync = make()
    [orphan] = orphans(orchestrator, 1)
    resync.sweep()
    clock.now += GRACE - 1
    rows.insert(db, {"id": orphan})
    resync.sweep()
    clock.now += GRACE
    resync.sweep()
    rows.delete(db, orphan)
    resync.sweep()
    clock.now += GRACE - 1
    resync.sweep()
    assert orchestrator.calls == []
    clock.now += 1
    resync.sweep()
    assert orchestrator.calls == [("remove", orphan, None)]


def test_pools_that_are_not_known_yet_are_no_trouble_and_none_of_them_is_an_orphan(
    make: Callable[..., Resync],
    orchestrator: ScriptedOrchestrator,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resync = make()
    [orphan] = orphans(orchestrator, 1)
    resync.sweep()
    clock.now += GRACE
    caplog.clear()

    def pools() -> set[str]:
        raise exceptions.PoolBusy("pods have not been listed yet")

    with monkeypatch.context() as patch:
        patch.setattr(orchestrator, "pools", pools)
        resync.sweep()
    assert [one for one in caplog.records if one.levelno >= logging.WARNING] == []
    # What is known of them stays.
    resync.sweep()
    assert orchestrator.calls == [("remove", orphan, None)]


@pytest.mark.parametrize("answer", [exceptions.PoolBusy("held"), False])
def test_an_orphan_that_is_busy_or_not_yet_gone_is_removed_by_a_later_sweep(
    make: Callable[..., Resync],
    orchestrator: ScriptedOrchestrator,
    clock: Clock,
    answer: bool | Exception,
) -> None:
    resync = make()
    [orphan] = orphans(orchestrator, 1)
    resync.sweep()
    clock.now += GRACE
    orchestrator.removed = answer
    resync.sweep()
    resync.sweep()
    assert orchestrator.pool_ids == {orphan}
    orchestrator.removed = True
    resync.sweep()
    assert orchestrator.pool_ids == set()
    assert orchestrator.calls == [("remove", orphan, None)] * 3


def test_an_orphan_that_cannot_be_removed_keeps_no_other_alive(
    make: Callable[..., Resync],
    orchestrator: ScriptedOrchestrator,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resync = make()
    broken, *others = orphans(orchestrator, 3)
    remove = orchestrator.remove

    def refuse_one(pool_id: str, revision: int | None) -> bool:
        if pool_id == broken:
            raise exceptions.OrchestratorError("its file is damaged")
        return remove(pool_id, revision)

    monkeypatch.setattr(orchestrator, "remove", refuse_one)
    resync.sweep()
    clock.now += GRACE
    resync.sweep()
    assert orchestrator.pool_ids == {broken}
    assert any("its file is damaged" in line for line in warnings(caplog, broken))
    assert [call[1] for call in orchestrator.calls] == others


def test_workers_are_let_go_when_they_were_not_used_for_long(
    make: Callable[..., Resync], conf: cfg.ConfigOpts, db: db_api.Database
) -> None:
    resync = make(function_service_expiration=100.0)
    longest = conf.resource_limits.max_timeout + conf.execution.start_timeout
    kept = 100.0 + longest + demands.NOTED_EVERY
    used, idle = (rows.insert_function(db).id for _ in range(2))
    for function_id, seconds in ((used, kept - 10), (idle, kept + 10)):
        db.write(demands.raise_to, function_id, 0, 2)
        then = timeutils.utcnow() - dt.timedelta(seconds=seconds)
        condition = demands.Table.c.function_id == function_id
        aged = demands.Table.update().where(condition).values(used_at=then)
        db.write(lambda connection, aged=aged: connection.execute(aged))
    [seen] = db.read(demands.idle, timeutils.utcnow() - dt.timedelta(seconds=kept))
    resync._idle()
    wanted = sa.select(demands.Table.c.function_id, demands.Table.c.wanted)
    assert dict(db.read(lambda c: [*c.execute(wanted)])) == {used: 2, idle: 0}
    # One that is used at that moment keeps them.
    db.write(demands.raise_to, idle, 0, 2)
    assert db.write(demands.give_up, seen) is False

"""``reconcile`` of a runtime: given this row and this answer, these calls and this row after."""

from dataclasses import asdict
from typing import Any

import pytest
from oslo_config import cfg

from qinling import exceptions
from qinling.db import api as db_api
from qinling.db import runtimes
from qinling.engine.runtimes import Runtimes
from qinling.orchestrator.base import PoolSpec, PoolState
from qinling.states import RuntimeStatus
from tests.unit import rows
from tests.unit.engine.doubles import ScriptedOrchestrator

STARTING = PoolState(total=2, available=1, ready=False)
READY = PoolState(total=2, available=2, ready=True)
STALE = exceptions.StaleRevision("older", revision=9)
FAILED = PoolState(total=2, available=0, ready=False, failed=True, reason="no such image")
SHORT = PoolState(total=2, available=1, ready=False, reason="out of luck", retry_in=7.0)

CREATING: dict[str, Any] = {"status": "creating"}
AVAILABLE = {"status": "available", "settled": True, "pool_total": 2, "pool_available": 2}
UPGRADING = {
    "status": "upgrading",
    "image": "new",
    "previous_image": "old",
    "revision": 5,
    "pool_total": 2,
    "pool_available": 2,
}
UPGRADING_FROM_ERROR = UPGRADING | {"previous_image": None}
DELETING = {"status": "deleting", "revision": 3, "pool_total": 2, "pool_available": 2}
ERROR = {"status": "error", "status_reason": "was broken", "pool_reason": "was broken"}

#: What the row keeps of an observation.
SEEN_STARTING = {"pool_total": 2, "pool_available": 1, "pool_reason": None, "settled": False}
SEEN_READY = {"pool_total": 2, "pool_available": 2, "pool_reason": None, "settled": True}
SEEN_FAILED = {
    "pool_total": 2,
    "pool_available": 0,
    "pool_reason": "no such image",
    "settled": False,
}
SEEN_SHORT = {"pool_total": 2, "pool_available": 1, "pool_reason": "out of luck", "settled": False}

#: row, the orchestrator's answer → what changes in the row, seconds until the next look.
APPLIED = {
    "creating, comes up": (CREATING, STARTING, SEEN_STARTING, None),
    "creating, has trouble": (CREATING, SHORT, SEEN_SHORT, 7.0),
    "creating, is up": (CREATING, READY, SEEN_READY | {"status": "available"}, None),
    "creating, fails": (
        CREATING,
        FAILED,
        SEEN_FAILED | {"status": "error", "status_reason": "no such image"},
        None,
    ),
    "available, is whole": (AVAILABLE, READY, {}, None),
    "available, lost workers": (AVAILABLE, STARTING, SEEN_STARTING, None),
    "available, has trouble": (AVAILABLE, SHORT, SEEN_SHORT, 7.0),
    "available, fails": (AVAILABLE, FAILED, SEEN_FAILED, None),
    "available, is whole again": (AVAILABLE | SEEN_FAILED, READY, SEEN_READY, None),
    "available after a rollback, is whole": (
        AVAILABLE | {"settled": False, "status_reason": "rolled back"},
        READY,
        SEEN_READY | {"status_reason": "rolled back"},
        None,
    ),
    "upgrading, comes up": (UPGRADING, STARTING, SEEN_STARTING, None),
    "upgrading, has trouble": (UPGRADING, SHORT, SEEN_SHORT, 7.0),
    "upgrading, is up": (
        UPGRADING,
        READY,
        SEEN_READY | {"status": "available", "previous_image": None},
        None,
    ),
    "upgrading, fails: the image that works comes back as a change of what should be": (
        UPGRADING,
        FAILED,
        {
            "status": "available",
            "image": "old",
            "previous_image": None,
            "revision": 6,
            "settled": False,
            "status_reason": "image new did not come up and was rolled back, as no such image",
            "pool_reason": None,
        },
        0.0,
    ),
    "upgrading from error, fails": (
        UPGRADING_FROM_ERROR,
        FAILED,
        SEEN_FAILED | {"status": "error", "status_reason": "no such image"},
        None,
    ),
    "upgrading from error, is up": (
        UPGRADING_FROM_ERROR,
        READY,
        SEEN_READY | {"status": "available"},
        None,
    ),
    "error, comes up": (ERROR, STARTING, SEEN_STARTING, None),
    "error, fails for another reason": (ERROR, FAILED, SEEN_FAILED, None),
    "error, is up after all": (
        ERROR,
        READY,
        SEEN_READY | {"status": "available", "status_reason": None},
        None,
    ),
}


def reconcile(
    conf: cfg.ConfigOpts,
    db: db_api.Database,
    orchestrator: ScriptedOrchestrator,
    runtime: runtimes.Runtime,
) -> float | None:
    conf.set_override("pool_size", 2, group="engine")
    return Runtimes(conf, db, orchestrator).reconcile(runtime.id)


def as_row(runtime: runtimes.Runtime) -> dict[str, Any]:
    """A runtime but for its time of change, which is looked at apart."""
    values = asdict(runtime)
    del values["updated_at"]
    return values


@pytest.mark.parametrize(("before", "answer", "change", "pause"), APPLIED.values(), ids=APPLIED)
def test_the_pool_is_asked_for_and_what_it_comes_to_is_written_down(
    conf: cfg.ConfigOpts,
    db: db_api.Database,
    before: dict[str, Any],
    answer: PoolState,
    change: dict[str, Any],
    pause: float | None,
) -> None:
    runtime = rows.insert_one(db, trusted=False, **before)
    orchestrator = ScriptedOrchestrator(applied=answer)
    assert reconcile(conf, db, orchestrator, runtime) == pause
    spec = PoolSpec(
        id=runtime.id, image=runtime.image, size=2, trusted=False, revision=runtime.revision
    )
    assert orchestrator.calls == [("apply", spec)]
    after = rows.find(db, runtime.id)
    assert as_row(after) == as_row(runtime) | change
    # Its owner sees a change of status, and not each count of its workers.
    assert (after.updated_at is not None) == ("status" in change)


@pytest.mark.parametrize("before", [CREATING, AVAILABLE, UPGRADING, ERROR])
def test_why_nothing_could_be_tried_is_told_in_the_row_and_tried_again(
    conf: cfg.ConfigOpts, db: db_api.Database, before: dict[str, Any]
) -> None:
    runtime = rows.insert_one(db, **before)
    orchestrator = ScriptedOrchestrator(applied=exceptions.OrchestratorError("the disk is full"))
    with pytest.raises(exceptions.OrchestratorError, match="the disk is full"):
        reconcile(conf, db, orchestrator, runtime)
    change = {"pool_reason": "the disk is full", "settled": False}
    assert as_row(rows.find(db, runtime.id)) == as_row(runtime) | change


def test_a_pool_that_another_engine_works_on_is_no_trouble_to_tell(
    conf: cfg.ConfigOpts, db: db_api.Database
) -> None:
    runtime = rows.insert_one(db, **UPGRADING)
    with pytest.raises(exceptions.PoolBusy):
        reconcile(conf, db, ScriptedOrchestrator(applied=exceptions.PoolBusy("held")), runtime)
    assert rows.find(db, runtime.id) == runtime


def test_a_row_that_has_gone_asks_for_nothing(conf: cfg.ConfigOpts, db: db_api.Database) -> None:
    runtime = rows.insert_one(db)
    rows.delete(db, runtime.id)
    orchestrator = ScriptedOrchestrator()
    assert reconcile(conf, db, orchestrator, runtime) is None
    assert orchestrator.calls == []


def test_a_stale_revision_is_read_again_at_once_when_the_row_has_moved(
    conf: cfg.ConfigOpts, db: db_api.Database
) -> None:
    runtime = rows.insert_one(db, **AVAILABLE)

    def upgrade() -> None:
        db.write(runtimes.upgrade, runtime, {"image": "new"})

    orchestrator = ScriptedOrchestrator(STALE, meanwhile=upgrade)
    assert reconcile(conf, db, orchestrator, runtime) == 0.0
    assert rows.find(db, runtime.id).image == "new"


@pytest.mark.parametrize("before", [CREATING, AVAILABLE, UPGRADING, ERROR, DELETING])
def test_a_row_older_than_its_pool_as_after_a_restored_database_counts_from_then_on(
    conf: cfg.ConfigOpts, db: db_api.Database, before: dict[str, Any]
) -> None:
    runtime = rows.insert_one(db, **before)
    assert reconcile(conf, db, ScriptedOrchestrator(STALE, STALE), runtime) == 0.0
    after = rows.find(db, runtime.id)
    assert as_row(after) == as_row(runtime) | {"revision": STALE.revision + 1, "settled": False}


@pytest.mark.parametrize("answer", [STARTING, SHORT, READY, FAILED, STALE])
@pytest.mark.parametrize("before", [CREATING, AVAILABLE, UPGRADING, ERROR])
def test_a_pool_applied_for_a_row_that_was_deleted_meanwhile_is_removed_again(
    conf: cfg.ConfigOpts,
    db: db_api.Database,
    before: dict[str, Any],
    answer: PoolState | exceptions.StaleRevision,
) -> None:
    # What was seen is what the row said already: nothing needs to be written down.
    runtime = rows.insert_one(db, **before | SEEN_STARTING)
    orchestrator = ScriptedOrchestrator(
        answer, removed=True, meanwhile=lambda: rows.delete(db, runtime.id)
    )
    assert reconcile(conf, db, orchestrator, runtime) is None
    assert orchestrator.calls[1:] == [("remove", runtime.id, None)]


def test_a_pool_applied_for_nobody_is_looked_at_until_nothing_is_left_of_it(
    conf: cfg.ConfigOpts, db: db_api.Database
) -> None:
    runtime = rows.insert_one(db, **CREATING)
    orchestrator = ScriptedOrchestrator(
        STARTING, removed=False, meanwhile=lambda: rows.delete(db, runtime.id)
    )
    hands = Runtimes(conf, db, orchestrator)
    assert hands.reconcile(runtime.id)
    assert hands.reconcile(runtime.id)
    orchestrator.removed = True
    assert hands.reconcile(runtime.id) is None
    assert hands.reconcile(runtime.id) is None
    assert [call[0] for call in orchestrator.calls] == ["apply"] + ["remove"] * 3


@pytest.mark.parametrize("answer", [STARTING, READY, FAILED])
@pytest.mark.parametrize("before", [CREATING, AVAILABLE, UPGRADING, ERROR])
def test_what_was_seen_of_an_older_revision_does_not_count(
    conf: cfg.ConfigOpts, db: db_api.Database, before: dict[str, Any], answer: PoolState
) -> None:
    runtime = rows.insert_one(db, **before)
    moved: list[runtimes.Runtime] = []

    def delete() -> None:
        assert db.write(runtimes.delete, runtime)
        moved.append(rows.find(db, runtime.id))

    reconcile(conf, db, ScriptedOrchestrator(answer, meanwhile=delete), runtime)
    assert rows.find(db, runtime.id) == moved[0]
    assert moved[0].status is RuntimeStatus.DELETING


def test_a_row_stays_while_anything_is_left_of_its_pool(
    conf: cfg.ConfigOpts, db: db_api.Database
) -> None:
    runtime = rows.insert_one(db, **DELETING)
    orchestrator = ScriptedOrchestrator(removed=False)
    pause = reconcile(conf, db, orchestrator, runtime)
    assert pause is not None
    assert pause > 0.0
    assert orchestrator.calls == [("remove", runtime.id, 3)]
    assert rows.find(db, runtime.id) == runtime


def test_a_row_goes_with_the_last_of_its_pool(conf: cfg.ConfigOpts, db: db_api.Database) -> None:
    runtime = rows.insert_one(db, **DELETING)
    orchestrator = ScriptedOrchestrator(removed=True)
    assert reconcile(conf, db, orchestrator, runtime) is None
    assert orchestrator.calls == [("remove", runtime.id, 3)]
    assert db.read(runtimes.find, runtime.id) is None


@pytest.mark.parametrize(
    "error", [exceptions.PoolBusy("held"), exceptions.OrchestratorError("the disk is full")]
)
def test_a_row_stays_when_its_pool_cannot_be_removed_now(
    conf: cfg.ConfigOpts, db: db_api.Database, error: exceptions.OrchestratorError
) -> None:
    runtime = rows.insert_one(db, **DELETING)
    with pytest.raises(type(error)):
        reconcile(conf, db, ScriptedOrchestrator(removed=error), runtime)
    after = rows.find(db, runtime.id)
    assert after.status is RuntimeStatus.DELETING
    told = None if isinstance(error, exceptions.PoolBusy) else str(error)
    assert after.pool_reason == told


def test_deleting_and_looking_on_until_nothing_is_left_takes_the_same_call(
    conf: cfg.ConfigOpts, db: db_api.Database
) -> None:
    runtime = rows.insert_one(db, **AVAILABLE)
    orchestrator = ScriptedOrchestrator(applied=READY, removed=False)
    reconcile(conf, db, orchestrator, runtime)
    db.write(runtimes.delete, runtime)
    reconcile(conf, db, orchestrator, runtime)
    orchestrator.removed = True
    reconcile(conf, db, orchestrator, runtime)
    reconcile(conf, db, orchestrator, runtime)
    revision = runtime.revision + 1
    assert [call[0] for call in orchestrator.calls] == ["apply", "remove", "remove"]
    assert orchestrator.calls[1:] == [("remove", runtime.id, revision)] * 2

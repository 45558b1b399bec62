"""Claims: who gets a worker of a pool, and which workers are let go."""

import json
import uuid
from collections.abc import Callable, Collection

import pytest
import sqlalchemy as sa
from oslo_config import cfg

from qinling.db import api as db_api
from qinling.db import demands, functions, models, workers
from qinling.engine import claims as module
from qinling.engine.claims import Claims
from qinling.execution.keys import Keys
from qinling.orchestrator import base
from qinling.states import WorkerStatus
from tests.unit import rows


class Pool:
    """A double of an orchestrator with one pool, whose workers come and go as a test says."""

    def __init__(self) -> None:
        self.free = 0
        self.alive: set[str] = set()
        self.ending: set[str] = set()
        # Those that end though nobody here has let go of them.
        self.dying: set[str] = set()
        self.released: list[str] = []
        # What somebody else does, once, between a claim and its row.
        self.meanwhile: Callable[[], object] | None = None

    def claim(self, pool_id: str) -> base.Worker | None:
        if not self.free:
            return None
        self.free -= 1
        worker_id = str(uuid.uuid4())
        self.alive.add(worker_id)
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return base.Worker(worker_id, pool_id, "127.0.0.1:1")

    def claimed(self, _pool_id: str, _known: Collection[str] = ()) -> dict[str, bool]:
        return {worker_id: worker_id not in self.dying for worker_id in self.alive}

    def release(self, _pool_id: str, worker_id: str) -> bool:
        self.released.append(worker_id)
        if worker_id in self.ending:
            return False
        self.alive.discard(worker_id)
        return True


@pytest.fixture
def pool() -> Pool:
    return Pool()


@pytest.fixture
def loads() -> list[str]:
    """Ids of the workers that were sent to get their functions."""
    return []


@pytest.fixture
def claims(conf: cfg.ConfigOpts, db: db_api.Database, pool: Pool, loads: list[str]) -> Claims:
    return Claims(conf, db, pool, Keys(conf), loads.append)  # type: ignore[arg-type]


@pytest.fixture
def runtime_id(db: db_api.Database) -> str:
    [runtime_id] = rows.insert(db, {"status": "available"})
    return runtime_id


@pytest.fixture
def function(db: db_api.Database, runtime_id: str) -> Callable[..., str]:
    """Makes a function of a project, which may want workers."""

    def make(project: str = "project", wanted: int = 0) -> str:
        values = {
            "id": str(uuid.uuid4()),
            "project_id": project,
            "name": None,
            "description": None,
            "runtime_id": runtime_id,
            "code": json.dumps({"source": "package"}),
            "package": "0" * 64,
            "entry": "main.main",
            "cpu": 100,
            "memory_size": 33554432,
            "timeout": 5,
        }
        found = db.write(functions.create, values)
        if wanted:
            db.write(demands.raise_to, found.id, 0, wanted)
        return found.id

    return make


def having(db: db_api.Database, function_id: str) -> list[workers.Worker]:
    return db.read(workers.of_function, function_id)


def test_what_is_wanted_is_claimed_and_sent_to_be_loaded(
    claims: Claims,
    db: db_api.Database,
    pool: Pool,
    loads: list[str],
    function: Callable[..., str],
    runtime_id: str,
) -> None:
    pool.free = 5
    function_id = function(wanted=2)
    assert claims.reconcile(runtime_id) is None
    claimed = having(db, function_id)
    assert [row.id for row in claimed] == loads
    assert {row.status for row in claimed} == {WorkerStatus.LOADING}
    assert {row.revision for row in claimed} == {1}
    assert pool.free == 3
    # Each worker has a key of its own, and the table does not show it.
    assert len({row.key for row in claimed}) == 2
    assert db.read(demands.unsettled, runtime_id) == []
    assert claims.reconcile(runtime_id) is None
    assert pool.free == 3


def test_who_finds_the_pool_empty_is_served_when_it_has_refilled(
    claims: Claims,
    db: db_api.Database,
    pool: Pool,
    function: Callable[..., str],
    runtime_id: str,
) -> None:
    pool.free = 1
    function_id = function(wanted=3)
    assert claims.reconcile(runtime_id) is not None
    assert len(having(db, function_id)) == 1
    pool.free = 5
    assert claims.reconcile(runtime_id) is None
    assert len(having(db, function_id)) == 3


def test_projects_take_turns(
    claims: Claims,
    db: db_api.Database,
    pool: Pool,
    function: Callable[..., str],
    runtime_id: str,
) -> None:
    greedy = [function("greedy", wanted=5) for _ in range(3)]
    modest = function("modest", wanted=1)
    pool.free = 2
    claims.reconcile(runtime_id)
    assert len(having(db, modest)) == 1
    assert sum(len(having(db, each)) for each in greedy) == 1


def test_a_worker_that_has_died_is_replaced(
    claims: Claims,
    db: db_api.Database,
    pool: Pool,
    function: Callable[..., str],
    runtime_id: str,
) -> None:
    pool.free = 5
    function_id = function(wanted=1)
    claims.reconcile(runtime_id)
    [first] = having(db, function_id)
    pool.alive.clear()
    claims.reconcile(runtime_id)
    [second] = having(db, function_id)
    assert second.id != first.id


def test_a_worker_that_is_ending_gets_nothing_more_and_is_replaced_before_it_has_ended(
    claims: Claims,
    db: db_api.Database,
    pool: Pool,
    function: Callable[..., str],
    runtime_id: str,
) -> None:
    pool.free = 5
    function_id = function(wanted=1)
    claims.reconcile(runtime_id)
    [first] = having(db, function_id)
    pool.dying.add(first.id)
    pool.ending.add(first.id)
    assert claims.reconcile(runtime_id) is not None
    old, new = having(db, function_id)
    assert (old.id, old.status) == (first.id, WorkerStatus.DRAINING)
    assert new.status is WorkerStatus.LOADING
    claims.reconcile(runtime_id)
    assert len(having(db, function_id)) == 2
    pool.alive.discard(first.id)
    assert claims.reconcile(runtime_id) is None
    assert [row.id for row in having(db, function_id)] == [new.id]
    assert pool.free == 3


def test_who_wants_what_was_there_once_gets_it_again(
    claims: Claims,
    db: db_api.Database,
    pool: Pool,
    function: Callable[..., str],
    runtime_id: str,
) -> None:
    pool.free = 5
    function_id = function(wanted=1)
    claims.reconcile(runtime_id)
    [old] = having(db, function_id)
    db.write(functions.update, db.read(functions.get, function_id), {"package": "1" * 64})
    claims.reconcile(runtime_id)
    # Whoever runs the new code finds no worker that has it, and says so.
    db.write(demands.raise_to, function_id, 0, 1)
    claims.reconcile(runtime_id)
    [new] = having(db, function_id)
    assert (new.revision, new.id) != (old.revision, old.id)


def test_workers_with_old_code_are_let_go_and_their_rows_stay_until_they_are_gone(
    claims: Claims,
    db: db_api.Database,
    pool: Pool,
    function: Callable[..., str],
    runtime_id: str,
) -> None:
    pool.free = 5
    function_id = function(wanted=1)
    claims.reconcile(runtime_id)
    [old] = having(db, function_id)
    db.write(functions.update, db.read(functions.get, function_id), {"package": "1" * 64})
    pool.ending.add(old.id)
    assert claims.reconcile(runtime_id) is not None
    assert [(row.id, row.status) for row in having(db, function_id)] == [
        (old.id, WorkerStatus.DRAINING)
    ]
    assert pool.released == [old.id]
    pool.ending.clear()
    assert claims.reconcile(runtime_id) is None
    assert having(db, function_id) == []


def test_what_nobody_wants_any_more_is_let_go(
    claims: Claims,
    db: db_api.Database,
    pool: Pool,
    function: Callable[..., str],
    runtime_id: str,
) -> None:
    pool.free = 5
    function_id = function(wanted=3)
    claims.reconcile(runtime_id)
    db.write(demands.let_go, function_id, 0)
    claims.reconcile(runtime_id)
    assert having(db, function_id) == []
    assert pool.alive == set()


def test_the_workers_of_a_function_that_was_deleted_are_let_go(
    claims: Claims,
    db: db_api.Database,
    pool: Pool,
    function: Callable[..., str],
    runtime_id: str,
) -> None:
    pool.free = 5
    function_id = function(wanted=2)
    claims.reconcile(runtime_id)
    db.write(functions.delete, db.read(functions.get, function_id))
    claims.reconcile(runtime_id)
    assert having(db, function_id) == []
    assert pool.alive == set()


def test_a_worker_that_was_claimed_for_nobody_is_let_go_after_a_grace(
    claims: Claims,
    pool: Pool,
    runtime_id: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool.free = 1
    assert pool.claim(runtime_id) is not None
    assert claims.reconcile(runtime_id) is not None
    assert pool.released == []
    monkeypatch.setattr(module, "_GRACE", 0.0)
    claims.reconcile(runtime_id)
    assert pool.alive == set()


def test_two_engines_that_claim_at_once_keep_no_more_than_are_wanted(
    conf: cfg.ConfigOpts,
    claims: Claims,
    db: db_api.Database,
    pool: Pool,
    loads: list[str],
    function: Callable[..., str],
    runtime_id: str,
) -> None:
    pool.free = 9
    function_id = function(wanted=3)
    other = Claims(conf, db, pool, Keys(conf), loads.append)  # type: ignore[arg-type]
    pool.meanwhile = lambda: other.reconcile(runtime_id)
    claims.reconcile(runtime_id)
    assert len(having(db, function_id)) == len(loads) == 3
    # The one that was too many is let go at once.
    assert len(pool.released) == 1
    assert pool.alive == set(loads)


def test_ten_askers_for_one_more_worker_get_one(
    db: db_api.Database, function: Callable[..., str]
) -> None:
    function_id = function()
    for _ in range(10):
        db.write(demands.raise_to, function_id, 0, 1)

    def wanted(connection: sa.Connection) -> list[int]:
        return list(connection.execute(sa.select(models.Demand.wanted)).scalars())

    assert db.read(wanted) == [1]

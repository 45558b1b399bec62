"""Claims: who gets a worker of a pool, and which workers are let go."""

import datetime as dt
import json
import uuid
from collections.abc import Callable, Collection
from dataclasses import replace
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from oslo_config import cfg

from qinling import exceptions
from qinling.db import api as db_api
from qinling.db import demands, executions, functions, models, workers
from qinling.engine import claims as module
from qinling.engine import losses
from qinling.engine.claims import KIND, LOAD, Claims, Loads
from qinling.engine.losses import Losses
from qinling.engine.reconciler import Key
from qinling.engine.resync import Resync
from qinling.execution.clients import Clients
from qinling.execution.worker import WorkerClient
from qinling.orchestrator import base
from qinling.states import ExecutionStatus, WorkerStatus
from tests.unit import rows
from tests.unit.engine.doubles import Offers


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
        # The same, when it is asked for the claimed ones.
        self.asked: Callable[[], object] | None = None
        # What workers were to have, and whether they cannot.
        self.resized: list[tuple[str, dict[str, object]]] = []
        self.unfit = False

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
        if self.asked is not None:
            self.asked()
        return {worker_id: worker_id not in self.dying for worker_id in self.alive}

    def resize(self, _pool_id: str, worker_id: str, **wanted: object) -> bool:
        if self.unfit:
            raise exceptions.WorkerUnfit("it cannot")
        self.resized.append((worker_id, wanted))
        return True

    def release(self, _pool_id: str, worker_id: str) -> bool:
        self.released.append(worker_id)
        if worker_id in self.ending:
            return False
        self.alive.discard(worker_id)
        return True


class World:
    """One runtime with its pool, and the engine that claims of it.

    :ivar loads: ids of the workers that were sent to get their functions.
    """

    def __init__(self, conf: cfg.ConfigOpts, db: db_api.Database) -> None:
        self.db = db
        self.pool = Pool()
        self.loads: list[str] = []
        self.claims = self.engine(conf)
        [self.runtime_id] = rows.insert(db, {"status": "available", "settled": True})

    def engine(self, conf: cfg.ConfigOpts) -> Claims:
        """Another engine."""
        return Claims(
            conf,
            self.db,
            self.pool,  # type: ignore[arg-type]
            Clients(conf),
            Losses(),
            self.loads.append,
        )

    def loader(self, conf: cfg.ConfigOpts) -> SimpleNamespace:
        """What takes workers to their functions, in the thread that looks."""
        loads = Loads(
            conf,
            self.db,
            self.pool,  # type: ignore[arg-type]
            None,  # type: ignore[arg-type]
            Clients(conf),
            Losses(),
            lambda _runtime_id: None,
        )
        return SimpleNamespace(look=lambda key: loads.reconcile(key.id))

    def look(self) -> float | None:
        return self.claims.reconcile(self.runtime_id)

    def function(self, project: str = "project", wanted: int = 0) -> str:
        """The id of a new function of a project, which may want workers."""
        values = {
            "id": str(uuid.uuid4()),
            "project_id": project,
            "name": None,
            "description": None,
            "runtime_id": self.runtime_id,
            "code": json.dumps({"source": "package"}),
            "package": "0" * 64,
            "entry": "main.main",
            "cpu": 100,
            "memory_size": 33554432,
            "timeout": 5,
        }
        found = self.db.write(functions.create, values)
        if wanted:
            self.db.write(demands.raise_to, found.id, 0, wanted)
        return found.id

    def having(self, function_id: str) -> list[workers.Worker]:
        return self.db.read(workers.of_function, function_id)

    def execute(
        self, function_id: str, worker_id: str | None, revision: int = 1
    ) -> executions.Execution:
        """An execution that was sent to a worker, or to nobody yet."""
        values = {
            "id": str(uuid.uuid4()),
            "project_id": "project",
            "function_id": function_id,
            "function_version": 0,
            "function_alias": None,
            "description": None,
            "sync": True,
            "input": None,
            "owner": "owner",
            "worker_id": worker_id,
        }
        return self.db.write(executions.create, values, revision)


@pytest.fixture
def world(conf: cfg.ConfigOpts, db: db_api.Database) -> World:
    return World(conf, db)


def test_what_is_wanted_is_claimed_and_sent_to_be_loaded(world: World) -> None:
    world.pool.free = 5
    function_id = world.function(wanted=2)
    assert world.look() is None
    claimed = world.having(function_id)
    assert [row.id for row in claimed] == world.loads
    assert {row.status for row in claimed} == {WorkerStatus.LOADING}
    assert {row.revision for row in claimed} == {1}
    assert world.pool.free == 3
    # Each worker has a key of its own, and the table does not show it.
    assert len({row.key for row in claimed}) == 2
    assert world.db.read(demands.unsettled, world.runtime_id) == []
    assert world.look() is None
    assert world.pool.free == 3


def test_who_finds_the_pool_empty_is_served_when_it_has_refilled(world: World) -> None:
    world.pool.free = 1
    function_id = world.function(wanted=3)
    assert world.look() is not None
    assert len(world.having(function_id)) == 1
    world.pool.free = 5
    assert world.look() is None
    assert len(world.having(function_id)) == 3


def test_projects_take_turns(world: World) -> None:
    greedy = [world.function("greedy", wanted=5) for _ in range(3)]
    modest = world.function("modest", wanted=1)
    world.pool.free = 2
    world.look()
    assert len(world.having(modest)) == 1
    assert sum(len(world.having(each)) for each in greedy) == 1


def test_a_worker_that_has_died_is_replaced(world: World) -> None:
    world.pool.free = 5
    function_id = world.function(wanted=1)
    world.look()
    [first] = world.having(function_id)
    world.pool.alive.clear()
    world.look()
    [second] = world.having(function_id)
    assert second.id != first.id


def test_who_loses_worker_after_worker_waits_for_the_next_and_others_do_not(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(losses.time, "monotonic", lambda: now)
    world.pool.free = 100
    killer = world.function("killer", wanted=1)
    waits = []
    for _ in range(10):
        wait = world.look()
        if wait is not None:
            assert world.having(killer) == []
            now += wait
            assert world.look() is None
        waits.append(wait)
        # It is there, and kills it.
        [row] = world.having(killer)
        world.pool.alive.discard(row.id)
    assert waits == [None, None, None, None, 0.5, 1, 2, 4, 5, 5]
    calm = world.function("calm", wanted=2)
    assert world.look() == 5
    assert len(world.having(calm)) == 2
    assert world.having(killer) == []
    # New code has done nothing yet.
    world.db.write(functions.update, world.db.read(functions.get, killer), {"package": "1" * 64})
    world.db.write(demands.raise_to, killer, 0, 1)
    assert world.look() is None
    assert len(world.having(killer)) == 1


def test_a_worker_that_has_been_of_use_is_no_loss(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.pool.free = 100
    function_id = world.function(wanted=1)
    for _ in range(10):
        assert world.look() is None
        [row] = world.having(function_id)
        long_ago = sa.update(workers.Table).values(
            claimed_at=row.claimed_at - dt.timedelta(seconds=11)
        )
        world.db.write(lambda connection, change=long_ago: connection.execute(change))
        world.pool.alive.discard(row.id)


def test_a_worker_that_is_ending_gets_nothing_more_and_is_replaced_before_it_has_ended(
    world: World,
) -> None:
    world.pool.free = 5
    function_id = world.function(wanted=1)
    world.look()
    [first] = world.having(function_id)
    world.pool.dying.add(first.id)
    world.pool.ending.add(first.id)
    assert world.look() is not None
    old, new = world.having(function_id)
    assert (old.id, old.status) == (first.id, WorkerStatus.DRAINING)
    assert new.status is WorkerStatus.LOADING
    world.look()
    assert len(world.having(function_id)) == 2
    world.pool.alive.discard(first.id)
    assert world.look() is None
    assert [row.id for row in world.having(function_id)] == [new.id]
    assert world.pool.free == 3


def test_who_wants_what_was_there_once_gets_it_again(world: World) -> None:
    world.pool.free = 5
    function_id = world.function(wanted=1)
    world.look()
    [old] = world.having(function_id)
    world.db.write(
        functions.update, world.db.read(functions.get, function_id), {"package": "1" * 64}
    )
    world.look()
    # Whoever runs the new code finds no worker that has it, and says so.
    world.db.write(demands.raise_to, function_id, 0, 1)
    world.look()
    [new] = world.having(function_id)
    assert (new.revision, new.id) != (old.revision, old.id)


def test_workers_with_old_code_are_let_go_and_their_rows_stay_until_they_are_gone(
    world: World,
) -> None:
    world.pool.free = 5
    function_id = world.function(wanted=1)
    world.look()
    [old] = world.having(function_id)
    world.db.write(
        functions.update, world.db.read(functions.get, function_id), {"package": "1" * 64}
    )
    world.pool.ending.add(old.id)
    assert world.look() is not None
    assert [(row.id, row.status) for row in world.having(function_id)] == [
        (old.id, WorkerStatus.DRAINING)
    ]
    assert world.pool.released == [old.id]
    world.pool.ending.clear()
    assert world.look() is None
    assert world.having(function_id) == []


def test_a_worker_that_is_lost_while_its_pool_is_looked_at_is_replaced(world: World) -> None:
    """As by the engine that loads it, after its row was read."""
    world.pool.free = 2
    function = world.function(wanted=1)
    world.look()
    [lost] = world.having(function)

    def lose() -> None:
        world.pool.asked = None
        world.db.write(workers.drain, lost.id)
        world.db.write(demands.ask_again, function)

    world.pool.asked = lose
    world.look()
    world.look()
    assert [row.id for row in world.having(function) if row.id != lost.id] == world.loads[1:]
    assert len(world.loads) == 2


def test_what_nobody_wants_any_more_is_let_go(world: World) -> None:
    world.pool.free = 5
    function_id = world.function(wanted=3)
    world.look()
    world.db.write(demands.let_go, function_id, 0)
    world.look()
    assert world.having(function_id) == []
    assert world.pool.alive == set()


def test_the_workers_of_a_function_that_was_deleted_are_let_go(world: World) -> None:
    world.pool.free = 5
    function_id = world.function(wanted=2)
    world.look()
    world.db.write(functions.delete, world.db.read(functions.get, function_id))
    world.look()
    assert world.having(function_id) == []
    assert world.pool.alive == set()


def test_a_worker_that_was_claimed_for_nobody_is_let_go_after_a_grace(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.pool.free = 1
    assert world.pool.claim(world.runtime_id) is not None
    assert world.look() is not None
    assert world.pool.released == []
    monkeypatch.setattr(module, "_GRACE", 0.0)
    world.look()
    assert world.pool.alive == set()


def test_two_engines_that_claim_at_once_keep_no_more_than_are_wanted(
    world: World, conf: cfg.ConfigOpts
) -> None:
    world.pool.free = 9
    function_id = world.function(wanted=3)
    other = world.engine(conf)
    world.pool.meanwhile = lambda: other.reconcile(world.runtime_id)
    world.look()
    assert len(world.having(function_id)) == len(world.loads) == 3
    # The one that was too many is let go at once.
    assert len(world.pool.released) == 1
    assert world.pool.alive == set(world.loads)


def test_ten_askers_for_one_more_worker_get_one(world: World) -> None:
    function_id = world.function()
    for _ in range(10):
        world.db.write(demands.raise_to, function_id, 0, 1)

    def wanted(connection: sa.Connection) -> list[int]:
        return list(connection.execute(sa.select(models.Demand.wanted)).scalars())

    assert world.db.read(wanted) == [1]


def test_a_worker_is_let_go_only_when_what_was_sent_to_it_has_ended(world: World) -> None:
    world.pool.free = 5
    function_id = world.function(wanted=1)
    world.look()
    [row] = world.having(function_id)
    world.db.write(workers.loaded, row.id, "boot")
    execution = world.execute(function_id, row.id)
    world.db.write(demands.let_go, function_id, 0)
    assert world.look() is not None
    assert world.pool.released == []
    # Nothing more is sent to it.
    with pytest.raises(exceptions.FunctionChanged):
        world.execute(function_id, row.id)
    waiting = world.execute(function_id, None)
    assert world.db.write(executions.send, waiting, row.id, 1) is False
    world.db.write(executions.end, replace(execution, status=ExecutionStatus.SUCCESS), "")
    assert world.look() is None
    assert world.pool.released == [row.id]


@pytest.mark.parametrize("unfit", [False, True])
def test_what_an_engine_left_to_do_for_a_worker_that_serves_is_done_by_the_resync(
    world: World, conf: cfg.ConfigOpts, unfit: bool
) -> None:
    world.pool.free = 1
    function_id = world.function(wanted=1)
    world.look()
    [row] = world.having(function_id)
    world.db.write(workers.loaded, row.id, "boot")
    loads = world.loader(conf)
    resync = Resync(conf, world.db, world.pool, Offers(), loads, None)  # type: ignore[arg-type]
    world.pool.unfit = unfit
    resync._settled()
    [row] = world.having(function_id)
    if unfit:
        assert row.status is WorkerStatus.DRAINING
        assert world.db.read(demands.reason, function_id, 0) == "it cannot"
        assert [each.wanted for each in world.db.read(demands.unsettled, world.runtime_id)] == [1]
    else:
        assert row.status is WorkerStatus.READY
        assert world.pool.resized == [(row.id, {"cpu": 100})]


def test_a_way_to_workers_that_is_closed_is_told_and_costs_none(
    world: World, conf: cfg.ConfigOpts, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.pool.free = 1
    function_id = world.function(wanted=1)
    world.look()
    [row] = world.having(function_id)

    def refuse(_: WorkerClient) -> None:
        raise exceptions.ClusterRefusal("The cluster lets nobody through: an account", 403)

    monkeypatch.setattr(WorkerClient, "meet", refuse)
    with pytest.raises(exceptions.ClusterRefusal):
        world.loader(conf).look(SimpleNamespace(id=row.id))
    assert world.db.read(demands.reason, function_id, 0) == "The cluster lets nobody through"
    assert world.having(function_id) == [row]


def test_a_worker_that_has_refused_an_execution_need_not_wait_for_its_end(world: World) -> None:
    world.pool.free = 5
    function_id = world.function(wanted=1)
    world.look()
    [row] = world.having(function_id)
    world.db.write(workers.loaded, row.id, "boot")
    world.db.write(executions.recall, world.execute(function_id, row.id))
    world.db.write(demands.let_go, function_id, 0)
    assert world.look() is None
    assert world.pool.released == [row.id]


@pytest.mark.parametrize(
    "changed",
    [
        {"execution": {"secret": "B" * 43 + "="}},
        {"orchestrator": {"driver": "kubernetes"}, "kubernetes": {"worker_access": "proxy"}},
    ],
    ids=["its key cannot be read", "its address is not called"],
)
def test_a_worker_that_nobody_can_call_any_more_is_replaced(
    world: World, conf: cfg.ConfigOpts, changed: dict[str, dict[str, str]]
) -> None:
    world.pool.free = 5
    function_id = world.function(wanted=1)
    world.look()
    [old] = world.having(function_id)
    for group, values in changed.items():
        for name, value in values.items():
            conf.set_override(name, value, group=group)
    world.claims = world.engine(conf)
    world.db.write(demands.raise_to, function_id, 0, 1)
    assert world.look() is None
    [new] = world.having(function_id)
    assert new.id != old.id
    assert world.pool.released == [old.id]


def test_no_worker_after_the_other_is_claimed_for_a_version_that_has_gone(
    world: World, conf: cfg.ConfigOpts
) -> None:
    world.pool.free = 5
    function_id = world.function()
    world.db.write(demands.raise_to, function_id, 1, 1)
    loads = world.loader(conf)
    for _ in range(3):
        world.look()
        for row in world.having(function_id):
            loads.look(Key(LOAD, row.id))
    assert (world.having(function_id), world.pool.free) == ([], 4)


def test_workers_are_looked_after_whose_pool_is_not_whole(
    world: World, conf: cfg.ConfigOpts
) -> None:
    world.pool.free = 1
    function_id = world.function(wanted=1)
    world.look()
    [row] = world.having(function_id)
    world.db.write(workers.loaded, row.id, "boot")
    unsettled = models.Runtime.__table__.update().values(settled=False)
    world.db.write(lambda connection: connection.execute(unsettled))
    offers = Offers()
    resync = Resync(conf, world.db, world.pool, offers, offers, None)  # type: ignore[arg-type]
    resync._unsettled()
    assert offers.others == [Key(KIND, world.runtime_id)]


@pytest.mark.parametrize(
    "error",
    [exceptions.FunctionRefused("as it is"), exceptions.PackageLost("0" * 64, "is not there")],
)
def test_a_function_that_no_worker_takes_gets_no_more_until_it_changes_or_for_a_while(
    world: World,
    conf: cfg.ConfigOpts,
    monkeypatch: pytest.MonkeyPatch,
    error: exceptions.QinlingError,
) -> None:
    world.pool.free = 9
    function_id = world.function(wanted=3)
    world.look()
    refuse(world, conf, monkeypatch, error)
    # Those that were claimed beside the one that has refused go, too.
    assert world.look() is None
    assert world.having(function_id) == []
    assert world.db.read(demands.standing, function_id, 0) == (1, str(error))
    world.db.write(demands.raise_to, function_id, 0, 2)
    pause = world.look()
    assert pause is not None
    assert 20 < pause <= 30
    assert world.pool.free == 6
    # The time is over: it is tried again.
    expire = sa.update(demands.Table).values(refused_until=dt.datetime(2026, 1, 31))
    world.db.write(lambda connection: connection.execute(expire))
    assert world.db.read(demands.standing, function_id, 0) == (1, None)
    assert world.look() is None
    assert world.pool.free == 4
    refuse(world, conf, monkeypatch, error)
    world.look()
    function = world.db.read(functions.get, function_id)
    world.db.write(functions.update, function, {"entry": "main.other"})
    assert world.db.read(demands.standing, function_id, 0) == (2, None)
    world.db.write(demands.raise_to, function_id, 0, 1)
    assert world.look() is None
    assert len(world.having(function_id)) == 1


def test_workers_that_have_a_function_serve_on_when_another_one_cannot_have_it(
    world: World, conf: cfg.ConfigOpts, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.pool.free = 9
    function_id = world.function(wanted=1)
    world.look()
    [serving] = world.having(function_id)
    world.db.write(workers.loaded, serving.id, "boot")
    world.db.write(demands.raise_to, function_id, 0, 2)
    world.look()
    refuse(world, conf, monkeypatch, exceptions.PackageLost("0" * 64, "is not there"))
    world.look()
    assert [row.id for row in world.having(function_id)] == [serving.id]


def test_a_worker_that_is_let_go_is_told_once_that_all_it_answered_is_written_down(
    world: World, conf: cfg.ConfigOpts, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.pool.free = 1
    function_id = world.function(wanted=1)
    world.look()
    [row] = world.having(function_id)
    world.db.write(workers.loaded, row.id, "boot")
    execution = world.execute(function_id, row.id)
    world.db.write(demands.let_go, function_id, 0)
    world.loads.clear()
    drained: list[str] = []
    monkeypatch.setattr(WorkerClient, "drain", lambda self: drained.append(self.id))
    world.pool.ending.add(row.id)
    world.look()
    assert world.loads == []
    world.loader(conf).look(SimpleNamespace(id=row.id))
    assert drained == []
    world.db.write(executions.end, replace(execution, status=ExecutionStatus.SUCCESS), "")
    for _ in range(2):
        world.look()
    assert world.loads == [row.id]
    world.loader(conf).look(SimpleNamespace(id=row.id))
    assert drained == [row.id]


def refuse(
    world: World,
    conf: cfg.ConfigOpts,
    monkeypatch: pytest.MonkeyPatch,
    error: exceptions.QinlingError,
) -> None:
    """The worker that was claimed last does not get its function."""

    def fail(*_arguments: object) -> bool:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(Loads, "_load", fail)
        world.loader(conf).look(SimpleNamespace(id=world.loads[-1]))


def test_why_a_function_has_no_worker_is_known_until_it_has_one(
    world: World, conf: cfg.ConfigOpts, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.pool.free = 9
    function_id = world.function(wanted=1)
    world.look()
    # Where it is is not for who reads this.
    refuse(world, conf, monkeypatch, exceptions.WorkerLost("10.244.1.7:9090 did not answer"))
    assert world.db.read(demands.reason, function_id, 0) == "its worker did not take it"
    world.look()
    world.pool.alive.clear()
    world.look()
    assert world.db.read(demands.reason, function_id, 0) == "its last worker is gone"
    world.db.write(workers.loaded, world.loads[-1], "boot")
    assert world.db.read(demands.reason, function_id, 0) is None


def test_a_refusal_is_of_one_revision_and_one_version(world: World) -> None:
    world.pool.free = 9
    function_id = world.function(wanted=1)
    function = world.db.read(functions.get, function_id)
    world.db.write(functions.update, function, {"entry": "main.other"})
    world.db.write(demands.raise_to, function_id, 0, 1)
    world.db.write(demands.refuse, function_id, 0, 1, "that of the old code")
    assert world.db.read(demands.standing, function_id, 0) == (2, None)
    world.db.write(demands.raise_to, function_id, 1, 1)
    world.db.write(demands.refuse, function_id, 1, 2, "that of the version")
    world.look()
    [row] = world.having(function_id)
    world.db.write(workers.loaded, row.id, "boot")
    assert world.db.read(demands.standing, function_id, 1) == (2, "that of the version")

"""What an engine does with executions that it finds."""

import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from oslo_config import cfg

from qinling import context
from qinling.db import api as db_api
from qinling.db import executions
from qinling.engine.executions import Executions
from tests.fixtures.process import wait_until
from tests.unit import rows

OWNER = str(uuid.uuid4())
# What a process leaves that is gone: a worker may be at it, or nobody was sent it.
UNSENT = {"owner": str(uuid.uuid4())}
SENT = UNSENT | {"worker_id": str(uuid.uuid4())}


class Noting:
    """A double of a dispatcher, which ends at once what it is given; and of runs of images."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.recovered: list[str] = []
        self.ending: set[str] = set()

    def is_ending(self, execution_id: str) -> bool:
        return execution_id in self.ending

    def run(self, execution: executions.Execution, *_arguments: Any) -> None:
        self.ran.append(execution.id)

    def recover(self, execution: executions.Execution, _timeout: float) -> None:
        self.recovered.append(execution.id)


@pytest.mark.parametrize("worker_id", [None, "5e3d0b5c-9b55-4f0e-8a34-6d1f4a3c7b21"])
def test_an_engine_goes_on_with_what_it_took_when_the_database_could_not_answer(
    conf: cfg.ConfigOpts, db: db_api.Database, worker_id: str | None
) -> None:
    function = rows.insert_function(db, runtime_id=rows.insert_one(db).id)
    values = rows.asked(function) | {"owner": OWNER, "worker_id": None}
    execution = db.write(executions.create, values, function.revision)
    sent = executions.Table.update().values(worker_id=worker_id)
    db.write(lambda connection: connection.execute(sent))
    dispatcher = Noting()
    engine = Executions(conf, db, dispatcher, dispatcher, OWNER)  # type: ignore[arg-type]
    engine.start()
    try:
        done = dispatcher.ran if worker_id is None else dispatcher.recovered
        wait_until(lambda: execution.id in done, 10, "its execution taken up again")
    finally:
        engine.stop()


def test_what_has_had_its_end_is_not_begun_again_before_the_database_knows(
    conf: cfg.ConfigOpts, db: db_api.Database
) -> None:
    ended, unknown = ask(db, "project", 2, owner=OWNER)
    dispatcher = Noting()
    dispatcher.ending.add(ended)
    engine = Executions(conf, db, dispatcher, dispatcher, OWNER)  # type: ignore[arg-type]
    engine.start()
    try:
        wait_until(lambda: dispatcher.ran, 10, "the other one taken up again")
    finally:
        engine.stop()
    assert set(dispatcher.ran) == {unknown}
    assert db.read(executions.get, ended).owner == OWNER


class Holding(Noting):
    """A double of a dispatcher, which notes projects, and holds what it is given until it may end.

    Like the real one it leaves none that could be taken again.
    """

    def __init__(self, db: db_api.Database) -> None:
        super().__init__()
        self._db = db
        self.let_go = threading.Semaphore(0)

    def run(self, execution: executions.Execution, *_arguments: Any) -> None:
        self._hold(execution, self.ran)

    def recover(self, execution: executions.Execution, _timeout: float) -> None:
        self._hold(execution, self.recovered)

    def _hold(self, execution: executions.Execution, noted: list[str]) -> None:
        noted.append(execution.project_id)
        assert self.let_go.acquire(timeout=30)
        self._db.write(executions.remove, execution.id)


def ask(db: db_api.Database, project_id: str, number: int, **values: Any) -> list[str]:
    """Accept executions of one function."""
    function = rows.insert_function(db, runtime_id=rows.insert_one(db).id)
    waits = {"status": "running", "updated_at": None, "result": None}
    row = waits | {"project_id": project_id, "function_id": function.id} | values
    return rows.insert_executions(db, *[row] * number)


def test_projects_take_turns_however_much_one_of_them_asks_for(
    conf: cfg.ConfigOpts, db: db_api.Database
) -> None:
    conf.set_override("execution_threads", 8, "engine")
    dispatcher = Holding(db)
    engine = Executions(conf, db, dispatcher, dispatcher, OWNER)  # type: ignore[arg-type]
    for execution_id in ask(db, "greedy", 40):
        engine.execute(execution_id, context.RequestContext(project_id="greedy"))
    engine.start()
    try:
        # Told of, or found by a scan.
        [told] = ask(db, "modest", 1)
        engine.execute(told, context.RequestContext(project_id="modest"))
        ask(db, "other", 1)
        wait_until(lambda: "other" in dispatcher.ran, 10, "another's execution begun")
        assert sorted(dispatcher.ran) == ["greedy"] * 6 + ["modest", "other"]
        # Whatever becomes free goes to whoever has the least.
        ask(db, "modest", 9)
        for _ in range(8):
            dispatcher.let_go.release()
        wait_until(lambda: len(dispatcher.ran) >= 15, 10, "threads given to others")
        assert dispatcher.ran[8:].count("modest") >= 3
        for _ in range(60):
            dispatcher.let_go.release()
        wait_until(lambda: len(dispatcher.ran) == 51, 20, "the end of all")
    finally:
        engine.stop()


@pytest.fixture
def holding(conf: cfg.ConfigOpts, db: db_api.Database) -> Iterator[Holding]:
    """What an engine of four threads runs."""
    conf.set_override("execution_threads", 4, "engine")
    dispatcher = Holding(db)
    engine = Executions(conf, db, dispatcher, dispatcher, OWNER)  # type: ignore[arg-type]
    engine.start()
    yield dispatcher
    engine.stop()
    for _ in range(50):
        dispatcher.let_go.release()


def test_what_a_dead_process_had_sent_is_looked_after_at_once(
    db: db_api.Database, holding: Holding
) -> None:
    ask(db, "greedy", 10)
    ask(db, "other", 1)
    wait_until(lambda: len(holding.ran) == 4, 10, "no thread free")
    ask(db, "modest", 4, **SENT)
    wait_until(lambda: holding.recovered == ["modest"] * 4, 10, "all looked after")


@pytest.mark.parametrize(("left", "begun"), [(SENT, 2), (UNSENT, 3)], ids=["sent", "unsent"])
def test_what_a_project_has_of_a_dead_process_counts_for_its_share(
    db: db_api.Database, holding: Holding, left: dict[str, Any], begun: int
) -> None:
    ask(db, "greedy", 4, **left)
    wait_until(lambda: len(holding.recovered or holding.ran) >= 3, 10, "them taken over")
    ask(db, "greedy", 10)
    wait_until(lambda: holding.ran.count("greedy") == begun, 10, "all that it may have")
    ask(db, "other", 1)
    wait_until(lambda: "other" in holding.ran, 10, "another's begun")
    assert holding.ran == ["greedy"] * begun + ["other"]

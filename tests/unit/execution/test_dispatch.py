"""Dispatch where timing is all: what a process does that was overtaken by others."""

import concurrent.futures
import datetime as dt
import time
import uuid
from dataclasses import replace
from typing import Any

import pytest
from oslo_config import cfg

from qinling import context, exceptions
from qinling.db import api as db_api
from qinling.db import demands, executions, functions, models, workers
from qinling.execution.clients import Clients
from qinling.execution.dispatch import Dispatcher
from qinling.execution.worker import Outcome, WorkerClient
from qinling.orchestrator.routes import Direct
from qinling.states import ExecutionStatus, WorkerStatus
from tests.fixtures.process import wait_until
from tests.unit import rows

US, OTHERS = str(uuid.uuid4()), str(uuid.uuid4())
NOW = dt.datetime(2026, 1, 31, 12, 0, 0)


class NoEngine:
    """A double of an engine that nobody has to tell anything."""

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: None


@pytest.fixture
def dispatcher(conf: cfg.ConfigOpts, db: db_api.Database) -> Dispatcher:
    return Dispatcher(conf, db, Clients(conf), NoEngine(), lambda: US)  # type: ignore[arg-type]


def give_worker(conf: cfg.ConfigOpts, db: db_api.Database, function: functions.Function) -> str:
    """Have a worker of a function, at an address where nobody is; its id."""
    worker_id = str(uuid.uuid4())
    worker = workers.Worker(
        id=worker_id,
        function_id=function.id,
        function_version=0,
        revision=1,
        runtime_id=str(uuid.uuid4()),
        boot_id="boot",
        address="127.0.0.1:1",
        key=Clients(conf).make_key(worker_id),
        status=WorkerStatus.READY,
        claimed_at=NOW,
    )
    db.write(lambda connection: connection.execute(models.Worker.__table__.insert(), _row(worker)))
    return worker_id


def test_an_execution_that_others_have_by_now_is_left_to_them_and_told_as_they_end_it(
    conf: cfg.ConfigOpts, db: db_api.Database, dispatcher: Dispatcher
) -> None:
    function = rows.insert_function(db)
    give_worker(conf, db, function)
    values = rows.asked(function) | {"owner": OTHERS, "worker_id": None}
    theirs = db.write(executions.create, values, function.revision)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        # As it was when this process fell asleep.
        ours = replace(theirs, owner=US)
        told = pool.submit(dispatcher.run, ours, function, context.RequestContext())
        with pytest.raises(TimeoutError):
            told.result(0.5)
        assert db.read(executions.get, theirs.id) == theirs
        ended = replace(
            theirs, status=ExecutionStatus.SUCCESS, result="{}", updated_at=NOW, owner=None
        )
        assert db.write(executions.end, ended, "")
        assert told.result(10) == ended


@pytest.mark.parametrize("is_here", [True, False], ids=["here", "in another process"])
def test_an_execution_that_is_deleted_while_it_waits_for_a_worker_is_answered(
    db: db_api.Database, dispatcher: Dispatcher, is_here: bool
) -> None:
    function = rows.insert_function(db)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        values = rows.asked(function)
        told = pool.submit(dispatcher.start, values, function, context.RequestContext())
        (line,) = wait_until(lambda: list(dispatcher._lines._lines.values()), 10, "its line")
        wait_until(lambda: line._waiting, 10, "it waits")
        deleted = db.write(executions.delete, values["id"])
        assert deleted is not None
        if is_here:
            dispatcher.cancel(deleted)
        answer = told.result(10)
    assert answer.status is ExecutionStatus.ERROR
    assert "cancelled" in str(answer.result)


def test_all_who_wait_for_a_function_that_no_worker_takes_are_told_why_at_once(
    db: db_api.Database, dispatcher: Dispatcher
) -> None:
    function = rows.insert_function(db)
    db.write(demands.raise_to, function.id, 0, 1)
    caller = context.RequestContext()
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        told = [
            pool.submit(dispatcher.start, rows.asked(function), function, caller) for _ in range(3)
        ]
        (line,) = wait_until(lambda: list(dispatcher._lines._lines.values()), 10, "their line")
        wait_until(lambda: len(line._waiting) == 3 and line._looked_at > 0, 10, "they wait")
        db.write(demands.refuse, function.id, 0, function.revision, "it cannot be")
        answers = [each.result(10) for each in told]
    # And who comes later.
    answers.append(dispatcher.start(rows.asked(function), function, caller))
    for answer in answers:
        assert answer.status is ExecutionStatus.ERROR
        assert "it cannot be" in str(answer.result)


def test_what_is_written_down_and_nothing_else_is_acknowledged_with_the_next_execution(
    conf: cfg.ConfigOpts,
    db: db_api.Database,
    dispatcher: Dispatcher,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    function = rows.insert_function(db)
    give_worker(conf, db, function)
    sent: list[dict[str, Any]] = []

    def answer(_self: object, _method: str, _path: str, body: Any, _patience: float) -> Any:
        sent.append(body)
        said = {"status": "success", "output": 1, "duration": 0.1, "log": ""}
        return 200, {"execution_id": body["execution_id"], **said}

    def run() -> None:
        dispatcher.start(rows.asked(function), function, context.RequestContext())

    monkeypatch.setattr(WorkerClient, "_signed", answer)
    run()
    with monkeypatch.context() as away:
        away.setattr(dispatcher._recorder, "end", lost)
        with pytest.raises(exceptions.DatabaseUnavailable):
            run()
    run()
    assert [body["acknowledged"] for body in sent] == [[], [sent[0]["execution_id"]], []]


def lost(*_arguments: object) -> None:
    raise exceptions.DatabaseUnavailable("gone")


def test_an_asynchronous_execution_is_accepted_though_its_function_has_just_changed(
    db: db_api.Database, dispatcher: Dispatcher
) -> None:
    read = rows.insert_function(db)
    assert db.write(functions.update, read, {"cpu": 200})
    accepted = dispatcher.accept(rows.asked(read), read)
    waiting = db.read(executions.waiting, after="", projects=2, limit=2)
    assert waiting == {accepted.project_id: [accepted.id]}


def test_an_execution_whose_acceptance_was_not_answered_ends(
    db: db_api.Database, dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    function = rows.insert_function(db)
    values = rows.asked(function)
    write = db.write

    def write_and_lose_the_answer(query: Any, *arguments: Any) -> Any:
        found = write(query, *arguments)
        if query is executions.create:
            raise exceptions.DatabaseUnavailable("gone")
        return found

    monkeypatch.setattr(db, "write", write_and_lose_the_answer)
    with pytest.raises(exceptions.DatabaseUnavailable):
        dispatcher.start(values, function, context.RequestContext())

    def ended() -> bool:
        found = db.read(executions.get, values["id"])
        return (found.status, found.owner) == (ExecutionStatus.ERROR, None)

    wait_until(ended, 10, "its end")


def test_what_no_worker_was_found_for_while_the_database_was_away_is_looked_at_again(
    db: db_api.Database, dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    function = rows.insert_function(db)
    values = rows.asked(function) | {"sync": False, "owner": US, "worker_id": None}
    execution = db.write(executions.create, values, function.revision)
    read = db.read

    def fail_to_look(query: Any, *arguments: Any) -> Any:
        if query is workers.serving:
            raise exceptions.DatabaseUnavailable("gone")
        return read(query, *arguments)

    monkeypatch.setattr(db, "read", fail_to_look)
    with pytest.raises(exceptions.DatabaseUnavailable):
        dispatcher.run(execution, function, context.RequestContext())
    assert read(executions.get, execution.id) == execution


def test_what_its_worker_refused_while_the_database_was_away_is_sent_again(
    conf: cfg.ConfigOpts,
    db: db_api.Database,
    dispatcher: Dispatcher,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    function = rows.insert_function(db)
    give_worker(conf, db, function)
    values = rows.asked(function) | {"sync": False, "owner": US, "worker_id": None}
    execution = db.write(executions.create, values, function.revision)
    answers: list[Any] = [exceptions.WorkerBusy("busy"), Outcome("success", None, 0.1, "")]
    failures: list[Any] = [exceptions.DatabaseUnavailable("gone")]
    write = db.write

    def execute(*_arguments: object) -> Outcome:
        answer = answers.pop(0)
        if isinstance(answer, exceptions.QinlingError):
            raise answer
        return answer

    def write_late(query: Any, *arguments: Any) -> Any:
        if query is executions.recall and failures:
            raise failures.pop()
        return write(query, *arguments)

    monkeypatch.setattr(WorkerClient, "execute", execute)
    monkeypatch.setattr(db, "write", write_late)
    ended = dispatcher.run(execution, function, context.RequestContext())
    assert (ended.status, answers, failures) == (ExecutionStatus.SUCCESS, [], [])


def test_an_execution_that_has_gone_costs_no_place(
    conf: cfg.ConfigOpts,
    db: db_api.Database,
    dispatcher: Dispatcher,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    function, caller = rows.insert_function(db), context.RequestContext()
    give_worker(conf, db, function)
    ran = Outcome("success", None, 0.1, "")
    monkeypatch.setattr(WorkerClient, "execute", lambda *_arguments: ran)
    dispatcher.start(rows.asked(function), function, caller)
    values = rows.asked(function) | {"sync": False, "owner": US, "worker_id": None}
    gone = db.write(executions.create, values, function.revision)
    db.write(executions.remove, gone.id)
    assert dispatcher.run(gone, function, caller).status is ExecutionStatus.ERROR
    line = dispatcher._lines.of(function, 0, caller)
    assert line.try_take() is not None
    assert [seat.in_flight for seat in line._seats.values()] == [1]


@pytest.mark.parametrize(
    "error",
    [
        exceptions.ClusterAway("The cluster cannot answer now (429)", 429, 30),
        exceptions.ClusterRefusal("The cluster lets nobody through: an account", 403),
    ],
)
def test_a_way_that_is_closed_is_told_and_costs_no_worker(
    conf: cfg.ConfigOpts,
    db: db_api.Database,
    dispatcher: Dispatcher,
    monkeypatch: pytest.MonkeyPatch,
    error: exceptions.OrchestratorError,
) -> None:
    conf.set_override("start_timeout", 20.0, group="execution")
    function = rows.insert_function(db)
    give_worker(conf, db, function)
    asked = []

    def refuse(client: WorkerClient, *_: object) -> None:
        asked.append(client.id)
        raise error

    monkeypatch.setattr(WorkerClient, "execute", refuse)
    ended = dispatcher.start(rows.asked(function), function, context.RequestContext())
    assert ended.status is ExecutionStatus.ERROR
    assert error.cause in str(ended.result)
    assert "an account" not in str(ended.result)
    # Not after the time in which it would be heard, and not of another.
    assert len(asked) == 1
    [worker] = db.read(workers.of_function, function.id)
    assert (worker.id, worker.status) == (asked[0], WorkerStatus.READY)


def test_a_line_that_nobody_uses_any_more_keeps_no_connection(
    db: db_api.Database, dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There may be thousands of functions, and each has workers only for a while."""
    caller = context.RequestContext()
    left, busy, new = (dispatcher._lines.of(rows.insert_function(db), 0, caller) for _ in range(3))
    clients = [
        WorkerClient("one", Direct("127.0.0.1:1"), b"", 1),
        WorkerClient("two", Direct("127.0.0.1:1"), b"", 1),
    ]
    for line, client in zip((left, busy), clients, strict=True):
        with line._changed:
            line._see([client])
    assert busy.try_take() is clients[1]
    closed: list[object] = []
    monkeypatch.setattr(WorkerClient, "close", lambda self: closed.append(self))
    clock = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: clock() + 31)
    new.used = time.monotonic()
    dispatcher._lines.of(rows.insert_function(db), 0, caller)
    assert closed == [clients[0]]
    assert left not in dispatcher._lines._lines.values()
    assert {busy, new} <= set(dispatcher._lines._lines.values())


def test_that_workers_are_used_is_written_down_now_and_then_and_outlives_the_executions(
    conf: cfg.ConfigOpts,
    db: db_api.Database,
    dispatcher: Dispatcher,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    function = rows.insert_function(db)
    give_worker(conf, db, function)
    db.write(demands.raise_to, function.id, 0, 1)
    ran = Outcome("success", None, 0.1, "")
    monkeypatch.setattr(WorkerClient, "execute", lambda *_arguments: ran)

    def is_kept_after_a_call() -> bool:
        """Of a function whose workers were wanted long ago."""
        db.write(lambda connection: connection.execute(demands.Table.update().values(used_at=NOW)))
        done = dispatcher.start(rows.asked(function), function, context.RequestContext())
        assert done.status is ExecutionStatus.SUCCESS
        db.write(executions.remove, done.id)
        return not db.read(demands.idle, NOW + dt.timedelta(days=1))

    assert is_kept_after_a_call()
    # The row tells it already.
    assert not is_kept_after_a_call()
    clock = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: clock() + demands.NOTED_EVERY)
    assert is_kept_after_a_call()


def test_an_execution_of_a_version_that_has_gone_ends_and_wants_no_worker(
    db: db_api.Database, dispatcher: Dispatcher
) -> None:
    function = rows.insert_function(db)
    values = {"function_id": function.id, "function_version": 1, "owner": US}
    waits = values | {"status": "running", "updated_at": None, "result": None}
    [id_] = rows.insert_executions(db, waits)
    waited = dispatcher.run(db.read(executions.get, id_), function, context.RequestContext())
    assert waited.status is ExecutionStatus.ERROR
    assert f"Version 1 of function {function.id} does not exist" in (waited.result or "")
    wanted = demands.Table.select()
    assert db.read(lambda connection: connection.execute(wanted).all()) == []


@pytest.mark.parametrize("is_known", [True, False])
def test_a_worker_that_cannot_be_reached_is_asked_again_while_it_may_be_there(
    conf: cfg.ConfigOpts,
    db: db_api.Database,
    dispatcher: Dispatcher,
    monkeypatch: pytest.MonkeyPatch,
    is_known: bool,
) -> None:
    function = rows.insert_function(db)
    worker_id = give_worker(conf, db, function)
    values = rows.asked(function) | {"owner": US, "worker_id": worker_id}
    execution = db.write(executions.create, values, function.revision)

    def answer(*_arguments: Any) -> Outcome:
        if not is_known:
            db.write(workers.remove, worker_id)
        monkeypatch.setattr(WorkerClient, "result", lambda *_: Outcome("success", 7, 0.1, ""))
        raise exceptions.WorkerAway("nobody answers")

    monkeypatch.setattr(WorkerClient, "result", answer)
    dispatcher.recover(execution, 5)
    ended = db.read(executions.get, execution.id)
    assert ended.status is (ExecutionStatus.SUCCESS if is_known else ExecutionStatus.ERROR)


def _row(worker: workers.Worker) -> dict[str, Any]:
    return {name: getattr(worker, name) for name in worker.__slots__}

"""Executions through the whole application: keys of requests, deletes, lists of what is large."""

import json
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
import sqlalchemy as sa
from oslo_config import cfg

from qinling import exceptions
from qinling.api import app
from qinling.api.pieces import MAX_PAGE
from qinling.cmd.server import HttpServer
from qinling.db import api as db_api
from qinling.db import executions
from tests.unit import rows
from tests.unit.api.application import Api, Engine
from tests.unit.api.wsgi import Answer

EXECUTIONS = "/v1/executions"
MIB = 1024**2
KEY = {"HTTP_IDEMPOTENCY_KEY": "8e03978e-40d5-43e8-bc93-6894a57f9324"}


@pytest.fixture
def api(conf: cfg.ConfigOpts, db: db_api.Database) -> Api:
    return Api(conf, db)


@pytest.fixture
def body(db: db_api.Database) -> dict[str, Any]:
    """An asynchronous execution of a function that can be run."""
    runtime = rows.insert_one(db, status="available")
    function = rows.insert_function(db, runtime_id=runtime.id, project_id="default")
    return {"function_id": function.id, "sync": False, "input": '{"name": "Ada"}'}


def shown(answer: Answer, code: int = 201) -> dict[str, Any]:
    assert answer.code == code, answer.body
    return dict(json.loads(answer.body))


# Idempotency-Key


def test_a_request_with_the_same_key_is_answered_again_and_done_once(
    api: Api, body: dict[str, Any]
) -> None:
    first = shown(api.ask("POST", EXECUTIONS, body, **KEY))
    # As a client sends it that minds structured fields; what is null is as if it was not sent.
    quoted = {"HTTP_IDEMPOTENCY_KEY": f'"{KEY["HTTP_IDEMPOTENCY_KEY"]}"'}
    assert shown(api.ask("POST", EXECUTIONS, body | {"description": None}, **quoted)) == first
    assert api.engine.told == [("execute", first["id"])]
    function = shown(api.ask("GET", f"/v1/functions/{body['function_id']}"), 200)
    assert function["count"] == 1
    other = shown(api.ask("POST", EXECUTIONS, body, HTTP_IDEMPOTENCY_KEY="other"))
    assert shown(api.ask("POST", EXECUTIONS, body))["id"] not in (first["id"], other["id"])


def test_the_first_answer_is_given_again_when_the_execution_has_ended_and_its_function_is_gone(
    api: Api, db: db_api.Database, body: dict[str, Any]
) -> None:
    first = shown(api.ask("POST", EXECUTIONS, body, **KEY))
    execution = db.write(executions.take, first["id"], "owner")
    assert execution is not None
    assert db.write(executions.end, execution, "printed")
    assert api.ask("DELETE", f"/v1/functions/{body['function_id']}").code == 204
    assert shown(api.ask("POST", EXECUTIONS, body, **KEY)) == first
    # It is kept as long as the execution is.
    assert api.ask("DELETE", f"{EXECUTIONS}/{first['id']}").code == 204
    assert api.ask("POST", EXECUTIONS, body, **KEY).code == 404


@pytest.mark.parametrize(
    "change",
    [
        {"input": None},
        {"input": '{"name": "Eve"}'},
        {"sync": True},
        {"description": "another"},
        {"function_version": 1},
        {"function_id": "c4f45a0a-6a9c-4d52-8c4b-9d1f6d3f0d5e"},
        {"function_id": None, "function_alias": "prod"},
    ],
)
def test_another_request_with_a_used_key_is_refused(
    api: Api, body: dict[str, Any], change: dict[str, Any]
) -> None:
    first = shown(api.ask("POST", EXECUTIONS, body, **KEY))
    answer = api.ask("POST", EXECUTIONS, body | change, **KEY)
    assert answer.code == 422
    assert "Idempotency-Key" in answer.fault()
    assert first["id"] in answer.fault()


def test_a_request_by_an_alias_is_the_same_when_the_alias_was_moved(
    api: Api, body: dict[str, Any]
) -> None:
    alias = {"name": "prod", "function_id": body["function_id"]}
    assert api.ask("POST", "/v1/aliases", alias).code == 201
    called = {"function_alias": "prod", "sync": False}
    first = shown(api.ask("POST", EXECUTIONS, called, **KEY))
    assert api.ask("DELETE", "/v1/aliases/prod").code == 204
    assert shown(api.ask("POST", EXECUTIONS, called, **KEY)) == first


def test_a_request_whose_first_one_has_no_answer_yet_is_told_to_come_back(
    api: Api, db: db_api.Database, body: dict[str, Any]
) -> None:
    [running] = rows.insert_executions(
        db,
        {
            "project_id": "default",
            "function_id": body["function_id"],
            "status": "running",
            "updated_at": None,
            "result": None,
            "idempotency_key": KEY["HTTP_IDEMPOTENCY_KEY"],
        },
    )
    answer = api.ask("POST", EXECUTIONS, {"function_id": body["function_id"]}, **KEY)
    assert answer.code == 409
    assert running in answer.fault()
    assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize("key", ["", " ", '""', '"a', "a b", "a, a", "ä", "\x7f", "a" * 256])
def test_a_key_that_is_malformed_is_refused_by_the_headers_name(
    api: Api, body: dict[str, Any], key: str
) -> None:
    answer = api.ask("POST", EXECUTIONS, body, HTTP_IDEMPOTENCY_KEY=key)
    assert answer.code == 400
    assert answer.fault().startswith("Idempotency-Key: ")
    assert api.engine.told == []


def test_of_requests_at_once_with_one_key_one_is_done(api: Api, body: dict[str, Any]) -> None:
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(api.ask, "POST", EXECUTIONS, body, **KEY) for _ in range(8)]
        ids = {shown(call.result())["id"] for call in calls}
    assert len(ids) == 1
    assert api.engine.told == [("execute", *ids)]


# Deletes


def test_whoever_got_an_execution_while_it_was_being_deleted_is_told(
    api: Api, db: db_api.Database, body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    execution = shown(api.ask("POST", EXECUTIONS, body))

    def overtaken(connection: sa.Connection, execution_id: str) -> executions.Execution:
        read = get(connection, execution_id)
        begun = executions.Table.update().values(owner="engine", worker_id=execution_id)
        db.write(lambda connection: connection.execute(begun))
        return read

    get = executions.get
    monkeypatch.setattr(executions, "get", overtaken)
    assert api.ask("DELETE", f"{EXECUTIONS}/{execution['id']}").code == 204
    assert api.engine.told[-1] == ("delete execution", execution["id"])


# Lists


def fill(db: db_api.Database, sizes: list[int]) -> list[str]:
    return rows.insert_executions(
        db,
        *(
            {"id": f"{number:036}", "project_id": "default", "result": "é" * (size // 2)}
            for number, size in enumerate(sizes)
        ),
    )


def test_a_page_ends_early_when_it_is_large_and_goes_on_at_next(
    api: Api, db: db_api.Database
) -> None:
    # One alone is more than a page, as JSON has it: six bytes for each of its characters.
    ids = fill(db, [400_000] * 9 + [4 * MIB] + [10, 400_000])
    walked, path = [], f"{EXECUTIONS}?limit=100"
    while path:
        answer = api.ask("GET", path)
        page = shown(answer, 200)
        found = [row["id"] for row in page["executions"]]
        assert len(answer.body) <= MAX_PAGE or len(found) == 1
        walked.append(found)
        link = urlsplit(page.get("next", ""))
        path = f"{link.path}?{link.query}" if link.path else ""
    assert [id_ for page in walked for id_ in page] == ids
    assert [len(page) for page in walked] == [6, 3, 1, 2]


def test_a_list_without_a_limit_is_whole_however_large_and_takes_little_memory(
    api: Api, db: db_api.Database
) -> None:
    ids = fill(db, [MIB] * 30)
    expected = json.loads(api.ask("GET", EXECUTIONS).body)
    assert [row["id"] for row in expected["executions"]] == ids
    assert set(expected) == {"executions"}
    answers = api.stream("GET", EXECUTIONS)
    tracemalloc.start()
    try:
        size = sum(len(piece) for piece in answers)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size > 90 * MIB
    assert peak < 20 * MIB


def test_no_connection_to_the_database_is_in_use_while_a_client_reads(
    api: Api, db: db_api.Database
) -> None:
    fill(db, [MIB] * 3)
    used: list[int] = []
    engine = db.engine()
    sa.event.listen(engine, "checkout", lambda *_: used.append(1))
    sa.event.listen(engine, "checkin", lambda *_: used.append(-1))
    pieces = [(bool(piece), sum(used)) for piece in api.stream("GET", EXECUTIONS)]
    assert pieces == [(True, 0)] * 3
    assert len(used) == 2 * len(pieces)
    for query in ("", "?limit=2", "?sort=function_version"):
        assert api.ask("GET", f"{EXECUTIONS}{query}").code == 200


@pytest.mark.parametrize("query", ["", "?limit=3", "?sort=function_version:desc&limit=1"])
def test_a_small_list_is_an_answer_with_its_length(
    api: Api, db: db_api.Database, query: str
) -> None:
    for count in (0, 2):
        if count:
            fill(db, [10] * count)
        answer = api.ask("GET", f"{EXECUTIONS}{query}")
        assert int(answer.headers["content-length"]) == len(answer.body)
        assert answer.headers["content-type"].startswith("application/json")
        page = shown(answer, 200)
        assert len(page["executions"]) == (1 if count and query.endswith("=1") else count)
        assert ("next" in page) == (len(page["executions"]) < count)


@pytest.fixture
def url(conf: cfg.ConfigOpts, db: db_api.Database) -> Iterator[str]:
    """The application behind the server that qinling-api has."""
    conf.set_override("auth_enable", False, group="pecan")
    server = HttpServer(app.build(conf, db, Engine()), "127.0.0.1", 0, threads=4)
    server.start()
    yield f"http://127.0.0.1:{server.port}{EXECUTIONS}"
    server.stop()


def test_a_list_in_whose_middle_the_database_goes_away_is_cut_off(
    url: str, db: db_api.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(db, [MIB] * 3)
    assert len(requests.get(url, timeout=30).json()["executions"]) == 3
    read, pages = db.read, []

    def fail(query: Callable[..., Any], *args: Any, **kw: Any) -> Any:
        pages.append(query)
        if len(pages) > 1:
            raise exceptions.DatabaseUnavailable("The database does not answer for now.")
        return read(query, *args, **kw)

    monkeypatch.setattr(db, "read", fail)
    answer = requests.get(url, timeout=30, stream=True)
    assert answer.status_code == 200
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        _ = answer.content
    # Before anything was sent it is an error like any other.
    assert requests.get(url, timeout=30).status_code == 503

"""Calls on executions as no client should make them: refused in the contract's words, by name."""

import json
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oslo_config import cfg

from qinling.db import api as db_api
from tests.unit import rows
from tests.unit.api.application import Api

EXECUTIONS = "/v1/executions"
NOBODY = "1a8d4c4a-3ddc-4a0a-9f64-0d7a3dbb5b5a"
MIB = 1024**2

NO_TEXTS = {"number": 7, "boolean": True, "list": ["a"], "object": {"a": 1}}
NO_NAMES = NO_TEXTS | {"256 characters": "x" * 256, "bell": "a\ab", "NUL": "\0"}
NO_IDS = NO_TEXTS | {"empty": "", "a word": "prod", "too long": f"{NOBODY}0", "a path": "../1"}
NO_VERSIONS = {
    "a word": "one",
    "negative": -1,
    "a fraction": 1.5,
    "a boolean": True,
    "beyond all": 2**31,
    "many digits": "9" * 40,
    "a list": [1],
}
ATTRIBUTES: dict[str, dict[str, Any]] = {
    "function_id": NO_IDS,
    "function_alias": NO_NAMES | {"empty": "", "line break": "a\nb"},
    "function_version": NO_VERSIONS,
    "description": NO_NAMES,
    "input": NO_TEXTS | {"half of a surrogate pair": "a\ud83d"},
    "sync": {"word": "false", "one": 1, "list": [], "empty": ""},
    **{
        name: {"text": "success", "number": 1}
        for name in ("id", "status", "status_reason", "result", "project_id", "created_at")
    },
    **{
        name: {"text": "bad", "number": 1}
        for name in ("owner", "worker_id", "size", "idempotency_key", "Input", "timeout", "log")
    },
}


@pytest.fixture
def api(conf: cfg.ConfigOpts, db: db_api.Database) -> Api:
    return Api(conf, db)


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_a_wrong_attribute_is_refused_by_its_name(api: Api, attribute: str) -> None:
    for kind, value in ATTRIBUTES[attribute].items():
        answer = api.ask("POST", EXECUTIONS, {"function_id": NOBODY} | {attribute: value})
        assert answer.code == 400, kind
        assert answer.fault().startswith(f"{attribute}: "), kind
        assert len(answer.fault()) < 500
    assert json.loads(api.ask("GET", EXECUTIONS).body) == {"executions": []}


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "function_id: "),
        ({"function_version": 1}, "function_id: "),
        ({"function_id": NOBODY, "function_alias": "prod"}, "function_alias: "),
        ({"function_alias": "prod", "function_version": 1}, "function_alias: "),
    ],
)
def test_what_is_to_be_run_is_named_once(api: Api, body: dict[str, Any], named: str) -> None:
    answer = api.ask("POST", EXECUTIONS, body)
    assert answer.code == 400
    assert answer.fault().startswith(named)


def test_a_body_is_as_large_as_it_may_be_and_no_larger(api: Api) -> None:
    frame = len(json.dumps({"function_id": NOBODY, "input": ""}))
    for more, code in ((0, 404), (1, 413)):
        body = {"function_id": NOBODY, "input": "x" * (MIB - frame + more)}
        answer = api.ask("POST", EXECUTIONS, body)
        assert answer.code == code
        assert (NOBODY if code == 404 else str(MIB)) in answer.fault()


def test_an_input_may_be_as_deep_as_it_likes(api: Api) -> None:
    """It is a string to everybody but the function."""
    deep = "[" * 10_000 + "]" * 10_000
    assert api.ask("POST", EXECUTIONS, {"function_id": NOBODY, "input": deep}).code == 404
    levels: dict[str, Any] = {}
    for _ in range(65):
        levels = {"input": levels}
    answer = api.ask("POST", EXECUTIONS, levels)
    assert answer.code == 400
    assert "64 levels" in answer.fault()


@pytest.mark.parametrize("part", ["1", "prod", f"{NOBODY}.json", NOBODY[:-1], "%00", "a" * 3000])
def test_what_is_no_id_is_refused(api: Api, part: str) -> None:
    for method, path in (("GET", part), ("DELETE", part), ("GET", f"{part}/log")):
        answer = api.ask(method, f"{EXECUTIONS}/{path}")
        assert answer.code == 400
        assert "execution_id" in answer.fault()


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_a_method_that_there_is_not_is_refused(api: Api, method: str) -> None:
    answer = api.ask(method, EXECUTIONS)
    assert answer.code == 405
    assert answer.headers["allow"]


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("marker=no-id-of-any", "marker"),
        (f"marker={NOBODY}", "marker"),
        ("cursor=eHg", "cursor"),
        ("sort=input", "sort"),
        ("sort=result:desc", "sort"),
        ("sort=size", "sort"),
        ("sort=status:up", "sort"),
        ("input=has:secret", "input"),
        ("result=1", "result"),
        ("owner=1", "owner"),
        ("idempotency_key=1", "idempotency_key"),
        ("function_version=one", "function_version"),
        ("function_version=has:1", "function_version"),
        ("sync=perhaps", "sync"),
        ("created_at=gt:yesterday", "created_at"),
        ("status=%00", "status"),
        ("nonsense=1", "nonsense"),
        ("all_projects=perhaps", "all_projects"),
    ],
)
def test_a_list_asked_for_wrongly_is_refused_by_the_parameters_name(
    api: Api, query: str, word: str
) -> None:
    answer = api.ask("GET", f"{EXECUTIONS}?{query}")
    assert answer.code == 400
    assert word in answer.fault()


@pytest.mark.parametrize(
    ("method", "path"), [("GET", ""), ("GET", "/log"), ("DELETE", "")], ids=str
)
def test_a_call_that_takes_no_query_is_told_so(api: Api, method: str, path: str) -> None:
    answer = api.ask(method, f"{EXECUTIONS}/{NOBODY}{path}?force=true")
    assert answer.code == 400
    assert "force" in answer.fault()


texts = st.text(max_size=8) | st.sampled_from(["", NOBODY, "0", "-1", "9" * 30, "\0", "x" * 300])
values = st.none() | st.booleans() | st.integers() | st.floats() | texts | st.lists(texts)
names = st.sampled_from(sorted(ATTRIBUTES)) | texts
bodies = st.dictionaries(names, values, max_size=4)
operators = st.sampled_from(["", "eq:", "neq:", "in:", "nin:", "gt:", "lte:", "has:", "like:"])
fields = st.sampled_from(["status", "function_version", "sync", "created_at", "description"])
parameters = st.tuples(
    fields | st.sampled_from(["limit", "marker", "sort", "cursor", "all_projects"]) | texts,
    st.builds(lambda operator, text: operator + text, operators, texts),
)


@pytest.fixture
def function_id(db: db_api.Database) -> str:
    """A function that can be run."""
    runtime = rows.insert_one(db, status="available")
    return rows.insert_function(db, runtime_id=runtime.id, project_id="default").id


@settings(
    max_examples=300,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_nothing_that_is_sent_is_answered_with_an_error_of_the_service(
    api: Api, function_id: str, data: st.DataObject
) -> None:
    # Nobody here would run a synchronous one.
    good = {"function_id": function_id, "sync": False} if data.draw(st.booleans()) else {}
    asked = data.draw(st.sampled_from(["POST", "GET", "part"]))
    if asked == "POST":
        key = data.draw(st.sampled_from(["a", "b", '"c"']) | texts)
        body = {"sync": False} | good | data.draw(bodies)
        headers = {"HTTP_IDEMPOTENCY_KEY": key.encode(errors="replace").decode("latin-1")}
        answer = api.ask("POST", EXECUTIONS, body | {"sync": False}, **headers)
    elif asked == "GET":
        query = urlencode(data.draw(st.lists(parameters, max_size=3)), errors="surrogatepass")
        answer = api.ask("GET", f"{EXECUTIONS}?{query}")
    else:
        part = quote(data.draw(texts), safe="", errors="surrogatepass")
        method = data.draw(st.sampled_from(["GET", "HEAD", "DELETE"]))
        answer = api.ask(method, f"{EXECUTIONS}/{part}")
    assert answer.code < 500
    if answer.code >= 400 and answer.body:
        assert answer.fault()

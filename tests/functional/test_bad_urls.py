"""URLs, methods and query strings that there are not, and ids that are none."""

import base64
import json
from typing import Any
from urllib.parse import quote

import pytest

from tests.fixtures.deployment import Deployment
from tests.fixtures.rawhttp import JSON, NOBODY, RUNTIMES, Answer, exchange, request

pytestmark = pytest.mark.usefixtures("unharmed")

NO_IDS = [
    "0",
    "python3",
    "None",
    "%00",
    "%0aFORGED",
    "%20",
    "..",
    ".%2e",
    "%2e%2e%2f",
    "%2F",
    f"{NOBODY}%2Fpool",
    f"{NOBODY}.json",
    f"{NOBODY}%00",
    f"{NOBODY}%0a",
    f"{NOBODY[:-1]}",
    f"{NOBODY}0",
    f"{{{NOBODY}}}",
    f"urn:uuid:{NOBODY}",
    f"{NOBODY[:-1]}g",
    f"1_{NOBODY.replace('-', '')[2:]}",
    quote("\u0661" * 32),
    quote("\U0001f40d"),
    "'%20OR%20'1'='1",
    "%25s",
    "x" * 60_000,
]
CALLS = [("GET", ""), ("HEAD", ""), ("PUT", ""), ("DELETE", ""), ("GET", "/pool")]


@pytest.mark.parametrize(("method", "suffix"), CALLS)
@pytest.mark.parametrize("name", NO_IDS, ids=lambda name: str(name)[:40])
def test_what_is_no_id_is_refused(
    deployment: Deployment, method: str, suffix: str, name: str
) -> None:
    (answer,) = exchange(
        deployment.url, request(method, f"{RUNTIMES}/{name}{suffix}", JSON, body=b"{}")
    )
    fault = answer.refused(400)
    assert method == "HEAD" or "runtime_id" in fault


@pytest.mark.parametrize(("method", "suffix"), CALLS)
@pytest.mark.parametrize("name", [NOBODY, NOBODY.upper(), NOBODY.replace("-", "")])
def test_an_id_that_nothing_has_is_not_found(
    deployment: Deployment, method: str, suffix: str, name: str
) -> None:
    (answer,) = exchange(
        deployment.url, request(method, f"{RUNTIMES}/{name}{suffix}", JSON, body=b"{}")
    )
    fault = answer.refused(404)
    assert method == "HEAD" or NOBODY in fault


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v2", 404),
        ("/v1.0", 404),
        ("/V1", 404),
        ("/v1/Runtimes", 404),
        ("/v1/runtimes.json", 404),
        ("/v1/runtime", 404),
        ("/runtimes", 404),
        ("/v1/runtimes/a/b", 404),
        (f"/v1/runtimes/{NOBODY}/pools", 404),
        (f"/v1/runtimes/{NOBODY}/pool/x", 404),
        ("/v1%2Fruntimes", 404),
        ("/%2e%2e/%2e%2e/etc/passwd", 404),
        ("/../v1", 404),
        ("/healthcheck/x", 404),
        ("/_wsme", 404),
        ("/__init__", 404),
        ("/v1/show_all", 404),
        ("/index.html", 404),
        ("/%00", 404),
        ("/%0d%0aFORGED", 404),
        ("/v1/%E8%9B%87", 404),
        ("/" + "a" * 60_000, 404),
        ("/" * 60_000 + "x", 404),
        ("/%ff", 400),
        ("/v1/runtimes/%ff", 400),
        ("/v1/runtimes/%ff/pool", 400),
        ("/healthcheck%fe", 400),
        ("//v1/runtimes", 400),
        ("//[", 400),
        ("//[::1", 400),
        ("//\u00ff", 400),
        ("/\u00e4", 400),
        ("/v1/run\ttimes", 400),
        ("/v1/run\x01times", 400),
        ("/v1#runtimes", 400),
        ("v1/runtimes", 400),
        ("*", 400),
        ("http://localhost/v1", 400),
        ("/" + "a" * 70_000, 414),
        ("/v1?" + "a" * 70_000, 414),
        ("/" + "a" * 3_000_000, 414),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_nowhere_is_not_found_there(deployment: Deployment, path: str, status: int) -> None:
    (answer,) = exchange(deployment.url, request("GET", path))
    answer.refused(status)


NO_CALLS = ["OPTIONS", "TRACE", "PATCH", "PROPFIND", "FOO", "HEADER", "G"]


@pytest.mark.parametrize(
    ("path", "methods", "allowed"),
    [
        ("/", ["POST", "PUT", "DELETE"], "GET, HEAD"),
        ("/v1", ["POST", "PUT", "DELETE"], "GET, HEAD"),
        ("/healthcheck", ["POST", "PUT", "DELETE"], "GET, HEAD"),
        (RUNTIMES, ["PUT", "DELETE"], "GET, HEAD, POST"),
        (f"{RUNTIMES}/", ["PUT", "DELETE"], "GET, HEAD, POST"),
        (f"{RUNTIMES}/{NOBODY}", ["POST"], "DELETE, GET, HEAD, PUT"),
        (f"{RUNTIMES}/{NOBODY}/pool", ["POST", "PUT", "DELETE"], "GET, HEAD"),
    ],
)
def test_a_method_that_a_url_does_not_have(
    deployment: Deployment, path: str, methods: list[str], allowed: str
) -> None:
    for method in methods + NO_CALLS:
        (answer,) = exchange(deployment.url, request(method, path, JSON, body=b"{}"))
        assert method in answer.refused(405)
        assert answer.headers["allow"] == allowed


@pytest.mark.parametrize("sent", ["POST", "PUT", "DELETE", "FOO"])
def test_no_header_or_parameter_makes_one_method_of_another(
    deployment: Deployment, target: dict[str, Any], sent: str
) -> None:
    answer = deployment.client.call(
        "GET", f"{RUNTIMES}/{target['id']}", headers={"X-HTTP-Method-Override": sent}
    )
    assert answer.json() == target
    query = deployment.client.call("GET", f"{RUNTIMES}/{target['id']}?_method={sent}")
    assert "_method" in Answer.of(query).refused(400)


def test_nothing_is_tunneled(deployment: Deployment) -> None:
    for name in ("localhost:80", RUNTIMES, "*"):
        (answer,) = exchange(deployment.url, request("CONNECT", name))
        answer.refused(405)


QUERIES = [
    ("limit=0", "limit"),
    ("limit=-1", "limit"),
    ("limit=1001", "limit"),
    ("limit=1.5", "limit"),
    ("limit=", "limit"),
    ("limit", "limit"),
    ("limit=ten", "limit"),
    ("limit=%2B5", "limit"),
    ("limit=%D9%A1", "limit"),
    ("limit=" + "9" * 50_000, "limit"),
    ("limit=1&limit=2", "limit"),
    ("limit=1&limit=1", "limit"),
    ("marker=", "marker"),
    ("marker=nobody", "marker"),
    (f"marker={NOBODY}", "marker"),
    ("marker=%00", "marker"),
    (f"marker={NOBODY}&marker={NOBODY}", "marker"),
    ("sort=", "sort"),
    ("sort=flavor", "sort"),
    ("sort=name:up", "sort"),
    ("sort=name:asc:desc", "sort"),
    ("sort=name,name:desc", "sort"),
    ("sort=name,,id", "sort"),
    ("sort=revision", "sort"),
    ("sort=name_missing", "sort"),
    ("sort=name&sort=id", "sort"),
    ("sort=name;DROP TABLE runtimes".replace(" ", "%20"), "sort"),
    ("sort=%00", "sort"),
    ("cursor=", "cursor"),
    ("cursor=none", "cursor"),
    ("cursor=%00%ff", "UTF-8"),
    ("cursor=W10", "cursor"),
    ("cursor=bnVsbA", "cursor"),
    ("cursor=" + "W1tb" * 10_000, "cursor"),
    ("cursor=%E8%9B%87", "cursor"),
    ("status=in:" + "," * 40_000, "status"),
    ("name=a&" * 3_000, "parameters"),
    ("created_at=yesterday", "created_at"),
    ("created_at=gt:", "created_at"),
    ("created_at=gt:2026-13-01", "created_at"),
    ("created_at=lt:0001-01-01T00:00:00%2B12:00", "created_at"),
    ("created_at=lt:9999-12-31T23:59:59-12:00", "created_at"),
    ("created_at=has:2026", "created_at"),
    ("updated_at=in:2026-01-01,,2026-01-02", "updated_at"),
    ("updated_at=2026-01-01T00:00:00%00", "updated_at"),
    ("is_public=maybe", "is_public"),
    ("is_public=", "is_public"),
    ("is_public=gt:true", "is_public"),
    ("is_public=has:t", "is_public"),
    ("trusted=in:true,perhaps", "trusted"),
    ("name=%00", "name"),
    ("name=neq:a%00b", "name"),
    ("all_projects=maybe", "all_projects"),
    ("all_projects=true&all_projects=false", "all_projects"),
    ("flavor=large", "flavor"),
    ("Name=a", "Name"),
    ("revision=1", "revision"),
    ("name_missing=0", "name_missing"),
    ("__body__=[]", "__body__"),
    ("__class__=x", "__class__"),
    ("body.image=python3", "body.image"),
    ("=a", ""),
    ("&=&=", ""),
    ("%ff", "UTF-8"),
    ("name=%ff", "UTF-8"),
    ("%ff=name", "UTF-8"),
    ("name=%ED%A0%80", "UTF-8"),
    ("name=\u00e4", ""),
]


@pytest.mark.parametrize(("query", "word"), QUERIES, ids=lambda text: text[:40])
def test_a_list_asked_for_wrongly_is_refused(deployment: Deployment, query: str, word: str) -> None:
    (answer,) = exchange(deployment.url, request("GET", f"{RUNTIMES}?{query}"))
    assert word in answer.refused(400)


CURSORS = {
    "too few keys": ["2026-01-31"],
    "a text for a time": ["a", "2026-01-31", NOBODY],
    "a time for a text": [{"t": "2026-01-31T00:00:00"}, {"t": "2026-01-31T00:00:00"}, NOBODY],
    "no time": ["a", {"t": "soon"}, NOBODY],
    "a time with a zone": ["a", {"t": "2026-01-31T00:00:00+00:00"}, NOBODY],
    "a number for a text": [1, {"t": "2026-01-31T00:00:00"}, NOBODY],
    "a boolean for a text": [True, {"t": "2026-01-31T00:00:00"}, NOBODY],
    "a fraction": [0.5, {"t": "2026-01-31T00:00:00"}, NOBODY],
    "a list": [["a"], {"t": "2026-01-31T00:00:00"}, NOBODY],
    "half of a surrogate pair": ["\ud83d", {"t": "2026-01-31T00:00:00"}, NOBODY],
    "no id": ["a", {"t": "2026-01-31T00:00:00"}, None],
    "an object": {"a": 1, "b": 2, "c": 3},
}


@pytest.mark.parametrize("kind", CURSORS)
def test_a_cursor_that_no_list_has_given_is_refused(deployment: Deployment, kind: str) -> None:
    text = base64.urlsafe_b64encode(json.dumps(CURSORS[kind]).encode()).decode()
    answer = Answer.of(deployment.client.call("GET", f"{RUNTIMES}?sort=name&cursor={text}"))
    assert "cursor" in answer.refused(400)


@pytest.mark.parametrize("sort", ["is_public", "trusted:desc"])
def test_a_cursor_of_another_list_is_refused(
    deployment: Deployment, target: dict[str, Any], sort: str
) -> None:
    keys = ["a", {"t": "2026-01-31T00:00:00"}, target["id"]]
    text = base64.urlsafe_b64encode(json.dumps(keys).encode()).decode()
    answer = Answer.of(deployment.client.call("GET", f"{RUNTIMES}?sort={sort}&cursor={text}"))
    assert "cursor" in answer.refused(400)


@pytest.mark.parametrize("query", ["x=1", "runtime_id=0", "limit=1", "__body__={}", "%ff"])
def test_calls_that_take_no_parameters_say_so(
    deployment: Deployment, target: dict[str, Any], query: str
) -> None:
    one = f"{RUNTIMES}/{target['id']}"
    for method, path in (
        ("GET", "/"),
        ("GET", "/v1"),
        ("POST", RUNTIMES),
        ("GET", one),
        ("PUT", one),
        ("DELETE", one),
        ("GET", f"{one}/pool"),
    ):
        sent = request(method, f"{path}?{query}", JSON, body=b'{"name": "bad"}')
        (answer,) = exchange(deployment.url, sent)
        assert query in answer.refused(400)

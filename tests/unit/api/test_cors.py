"""Pages in a browser, from other origins: what they may send, and that they can read errors."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from oslo_config import cfg

from qinling import exceptions
from qinling.db import api as db_api
from tests.fixtures.process import free_port
from tests.unit.api.application import Api
from tests.unit.api.wsgi import Answer
from tests.unit.config import options

PAGE = "https://horizon.example.test"
RUNTIMES = "/v1/runtimes"
NOBODY = "1a8d4c4a-3ddc-4a0a-9f64-0d7a3dbb5b5a"


@pytest.fixture
def conf(tmp_path: Path) -> cfg.ConfigOpts:
    """One page may use the API; a Keystone is configured, and away."""
    url = f"http://127.0.0.1:{free_port()}"
    file = tmp_path / "qinling.conf"
    file.write_text(
        f"[cors]\nallowed_origin = {PAGE}\n"
        f"[keystone_authtoken]\nauth_type = password\nauth_url = {url}\n"
        f"www_authenticate_uri = {url}\nhttp_request_max_retries = 0\n"
    )
    return options(files=[file])


@pytest.fixture(params=["open", "keystone"])
def api(request: pytest.FixtureRequest, conf: cfg.ConfigOpts, db: db_api.Database) -> Api:
    """The application with and without Keystone."""
    return Api(conf, db, auth=request.param == "keystone")


def preflight(
    api: Api, method: str, headers: str = "x-auth-token,content-type", origin: str = PAGE
) -> Answer:
    return api.ask(
        "OPTIONS",
        RUNTIMES,
        HTTP_ORIGIN=origin,
        HTTP_ACCESS_CONTROL_REQUEST_METHOD=method,
        HTTP_ACCESS_CONTROL_REQUEST_HEADERS=headers,
    )


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE"])
def test_a_browser_is_told_that_the_page_may_send_what_a_client_sends(
    api: Api, method: str
) -> None:
    sent = "x-auth-token,content-type,x-openstack-request-id,idempotency-key"
    answer = preflight(api, method, sent)
    assert answer.code == 200
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert answer.headers["access-control-allow-methods"] == method
    allowed = answer.headers["access-control-allow-headers"].split(",")
    assert set(allowed) == set(sent.split(","))
    assert "Origin" in answer.headers["vary"]
    assert answer.headers["x-openstack-request-id"].startswith("req-")


@pytest.mark.parametrize(
    "asked",
    [
        {"method": "PATCH"},
        {"method": "TRACE"},
        {"method": "GET", "headers": "x-roles"},
        {"method": "GET", "origin": "https://evil.example.test"},
    ],
    ids=str,
)
def test_a_browser_is_told_of_nothing_else(api: Api, asked: dict[str, str]) -> None:
    answer = preflight(api, **asked)
    assert not [name for name in answer.headers if name.startswith("access-control-")]


def readable(answer: Answer) -> None:
    """A page can read this answer, and what it needs of its headers; each header is there once."""
    assert answer.headers["access-control-allow-origin"] == PAGE
    exposed = answer.headers["access-control-expose-headers"].lower().split(",")
    assert {"x-openstack-request-id", "retry-after"} <= set(exposed)
    assert answer.headers["vary"] == "Origin"
    assert "," not in answer.headers["x-openstack-request-id"]
    assert "," not in answer.headers["content-length"]


@pytest.mark.parametrize("path", ["/", "/v1", "/healthcheck"])
def test_a_page_reads_a_good_answer(api: Api, path: str) -> None:
    answer = api.ask("GET", path, HTTP_ORIGIN=PAGE)
    assert answer.code == 200
    readable(answer)


def test_a_page_lists_runtimes(conf: cfg.ConfigOpts, db: db_api.Database) -> None:
    answer = Api(conf, db).ask("GET", RUNTIMES, HTTP_ORIGIN=PAGE)
    readable(answer)
    assert json.loads(answer.body) == {"runtimes": []}


def failing(error: Exception) -> Callable[..., Any]:
    def read(*_args: Any, **_kw: Any) -> Any:
        raise error

    return read


#: What is asked → how it is refused, one for each layer.
REFUSED: dict[str, tuple[tuple[Any, ...], int]] = {
    "the reading of bodies": (("POST", RUNTIMES, {"image": "x" * 70_000}), 413),
    "the table of URLs": (("GET", "/v1/nothing"), 404),
    "the table of methods": (("PATCH", RUNTIMES, {}), 405),
    "the query": (("GET", f"{RUNTIMES}?color=red"), 400),
    "WSME's arguments": (("GET", f"{RUNTIMES}/nonsense"), 400),
    "the types of bodies": (("POST", RUNTIMES, {"image": 5}), 400),
    "the controllers": (("GET", f"{RUNTIMES}/{NOBODY}"), 404),
    "the healthcheck": (("POST", "/healthcheck", {}), 405),
}


@pytest.mark.parametrize(("asked", "code"), REFUSED.values(), ids=REFUSED)
def test_a_page_reads_a_refusal_of_every_layer(
    conf: cfg.ConfigOpts, db: db_api.Database, asked: tuple[Any, ...], code: int
) -> None:
    answer = Api(conf, db).ask(*asked, HTTP_ORIGIN=PAGE)
    assert answer.code == code
    assert answer.fault()
    readable(answer)


@pytest.mark.parametrize(
    ("error", "path", "code"),
    [
        (exceptions.DatabaseUnavailable("away"), RUNTIMES, 503),
        (exceptions.DatabaseUnavailable("away"), "/healthcheck", 503),
        (exceptions.NotAllowed("runtime:list"), RUNTIMES, 403),
        (RuntimeError("a mistake"), RUNTIMES, 500),
    ],
)
def test_a_page_reads_that_something_is_wrong_within(
    conf: cfg.ConfigOpts,
    db: db_api.Database,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    path: str,
    code: int,
) -> None:
    monkeypatch.setattr(db, "read", failing(error))
    answer = Api(conf, db).ask("GET", path, HTTP_ORIGIN=PAGE)
    assert answer.code == code
    assert answer.fault()
    readable(answer)


@pytest.mark.parametrize(("token", "code"), [("", 401), ("a token", 503)])
def test_a_page_reads_what_the_check_of_tokens_says(
    conf: cfg.ConfigOpts, db: db_api.Database, token: str, code: int
) -> None:
    headers = {"HTTP_X_AUTH_TOKEN": token} if token else {}
    answer = Api(conf, db, auth=True).ask("GET", RUNTIMES, HTTP_ORIGIN=PAGE, **headers)
    assert answer.code == code
    assert answer.fault()
    readable(answer)


@pytest.mark.parametrize("origins", [None, ["https://other.example.test"]])
def test_a_page_that_is_not_allowed_reads_nothing(
    conf: cfg.ConfigOpts, db: db_api.Database, origins: list[str] | None
) -> None:
    conf.set_override("allowed_origin", origins, group="cors")
    for path in (RUNTIMES, "/v1/nothing"):
        answer = Api(conf, db).ask("GET", path, HTTP_ORIGIN=PAGE)
        assert not [name for name in answer.headers if name.startswith("access-control-")]

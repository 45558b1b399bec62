"""Whose an answer through the API server's proxy is, and whether the worker was asked at all."""

import json

import pytest
from oslo_config import cfg

from qinling import exceptions
from qinling.execution.worker import Outcome, WorkerClient
from qinling.orchestrator import routes
from qinling.orchestrator.kubernetes.proxy import Proxy
from qinling.orchestrator.routes import Answer, Request
from qinling.worker import signing

KEY = bytes(32)
ID = "5c1cbbbf-1c32-4c45-b7a6-d7ccd7f5dbbb"
ADDRESS = "pods/r1-777c99cc4f-5fgk9:9090"
UNREACHED = "error trying to reach service: "


@pytest.fixture
def proxy(conf: cfg.ConfigOpts) -> Proxy:
    conf.set_override("driver", "kubernetes", "orchestrator")
    conf.set_override("worker_access", "proxy", "kubernetes")
    found = routes.load(conf)
    assert isinstance(found, Proxy)
    return found


class Api:
    """A double of the client: it answers all requests alike.

    :param signed: as a worker does.
    """

    def __init__(
        self, status: int, body: bytes, signed: bool = False, retry_after: str | None = None
    ) -> None:
        self.status, self.body, self.signed = status, body, signed
        self.headers = {} if retry_after is None else {"Retry-After": retry_after}
        self.paths: list[str] = []

    def forward(self, request: Request, path: str, _most: int) -> Answer:
        self.paths.append(path)
        headers = self.headers.copy()
        if self.signed:
            nonce = request.headers[signing.NONCE]
            headers[signing.SIGNATURE] = signing.sign_answer(KEY, self.status, nonce, self.body)
        return Answer(self.status, headers.get, self.body)

    def get(self, path: str) -> None:
        self.paths.append(path)


def client_of(proxy: Proxy, api: Api) -> WorkerClient:
    """The client of a worker for which `api` answers."""
    proxy._client = api  # type: ignore[assignment]
    route = proxy.to(ADDRESS)
    assert route is not None
    return WorkerClient("worker", route, KEY, 1, "boot")


def status(code: int, message: str) -> bytes:
    """The API server's own word, as it was recorded (06-proxy-and-log, 13-forbidden)."""
    head = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return json.dumps({**head, "message": message, "reason": "Some", "code": code}).encode()


@pytest.mark.parametrize(
    ("code", "message", "error"),
    [
        (404, 'pods "absent" not found', exceptions.WorkerGone),
        (400, "address not allowed", exceptions.WorkerGone),
        (
            503,
            f"{UNREACHED}dial tcp 10.244.0.73:9999: connect: connection refused",
            exceptions.WorkerGone,
        ),
        (503, f"{UNREACHED}dial tcp 10.244.0.73:9999: i/o timeout", exceptions.WorkerAway),
        (
            503,
            f"{UNREACHED}proxy error from 127.0.0.1:8131 while dialing 10.244.0.73:9090, code 503",
            exceptions.WorkerAway,
        ),
        (503, f"{UNREACHED}EOF", exceptions.WorkerLost),
        (
            503,
            f"{UNREACHED}read tcp 10.0.0.1:1->10.244.0.73:9090: read: connection reset by peer",
            exceptions.WorkerLost,
        ),
        (503, f"{UNREACHED}the function said: dial tcp", exceptions.WorkerLost),
        (503, "apiserver is shutting down", exceptions.WorkerLost),
        (500, "etcdserver: request timed out", exceptions.WorkerLost),
        (504, "Timeout: request did not complete", exceptions.WorkerLost),
        (401, "Unauthorized", exceptions.ClusterAway),
        (403, 'pods "r1" is forbidden: User "api" cannot create', exceptions.ClusterRefusal),
    ],
)
def test_what_the_api_server_says_itself_tells_whether_the_worker_may_have_got_it(
    proxy: Proxy, code: int, message: str, error: type[Exception]
) -> None:
    client = client_of(proxy, Api(code, status(code, message)))
    for call in (
        lambda: client.execute(ID, None, 5),
        lambda: client.result(ID),
        lambda: client.cancel(ID),
        # Signed by nobody.
        client.meet,
    ):
        with pytest.raises(error) as raised:
            call()
        assert type(raised.value) is error


def test_a_server_that_forgets_who_asks_is_asked_who_it_is(proxy: Proxy) -> None:
    """A worker may say the same, and is not to cost the API its credentials."""
    api = Api(401, status(401, "Unauthorized"))
    with pytest.raises(exceptions.ClusterAway):
        client_of(proxy, api).result(ID)
    assert api.paths[1:] == ["/version"]


@pytest.mark.parametrize(
    ("said", "pause"), [("2", 2), (None, None), ("soon", None), ("-1", None), ("9000", 30)]
)
def test_a_busy_cluster_names_the_time_to_come_back(
    proxy: Proxy, said: str | None, pause: int | None
) -> None:
    # As it is answered before the API server knows what is asked for.
    client = client_of(
        proxy, Api(429, b"Too many requests, please try again later.\n", False, said)
    )
    with pytest.raises(exceptions.ClusterAway) as raised:
        client.execute(ID, None, 5)
    assert raised.value.retry_after == pause


@pytest.mark.parametrize(
    ("code", "body", "error"),
    [
        (401, b'{"error": "the signature is missing or wrong"}', exceptions.WorkerGone),
        (200, b'{"execution_id": "x", "status": "success"}', exceptions.WorkerLost),
        (502, b"<html>Bad Gateway</html>", exceptions.WorkerLost),
        (403, b"[" * 60_000, exceptions.WorkerLost),
        (403, b'{"kind": "Status", "status": "Failure"}', exceptions.WorkerLost),
        (404, b'{"kind": "Status", "status": "Failure", "message": "' + b"x" * 70_000, None),
    ],
)
def test_what_nobody_signed_is_no_answer_of_the_worker(
    proxy: Proxy, code: int, body: bytes, error: type[Exception] | None
) -> None:
    with pytest.raises(error or exceptions.WorkerLost):
        client_of(proxy, Api(code, body)).execute(ID, None, 5)


def test_what_the_worker_signed_is_its_own_whatever_it_looks_like(proxy: Proxy) -> None:
    result = {"execution_id": ID, "status": "success", "output": 7, "duration": 0.5, "log": ""}
    body = json.dumps({"kind": "Status", "message": "gone"} | result).encode()
    api = Api(200, body, signed=True)
    assert client_of(proxy, api).result(ID) == Outcome("success", 7, 0.5, "")
    assert api.paths == [
        f"/api/v1/namespaces/qinling/pods/r1-777c99cc4f-5fgk9:9090/proxy/executions/{ID}"
    ]
    with pytest.raises(exceptions.WorkerBusy):
        client_of(proxy, Api(429, status(429, "busy"), signed=True)).execute(ID, None, 5)


@pytest.mark.parametrize("message", ["\x1b[2J" + "é" * 5000, "line\nline"])
def test_words_that_go_into_an_error_are_one_printable_line(proxy: Proxy, message: str) -> None:
    with pytest.raises(exceptions.WorkerLost) as raised:
        client_of(proxy, Api(500, status(500, message))).execute(ID, None, 5)
    assert len(str(raised.value)) < 500
    assert str(raised.value).isprintable()


def test_each_way_has_addresses_of_its_own(proxy: Proxy, conf: cfg.ConfigOpts) -> None:
    direct = routes.Addresses()
    for address in ("127.0.0.1:9090", "fd00::1:9090"):
        assert str(direct.to(address)) == address
        assert proxy.to(address) is None
    assert direct.to(ADDRESS) is None
    for address in ("pods/../secrets:1", "pods/a?b:1", "pods/a", "pods/a:1/x"):
        assert proxy.to(address) is None
    # Another driver's workers are where they are, whatever [kubernetes] says.
    conf.set_override("driver", "local", "orchestrator")
    assert isinstance(routes.load(conf), routes.Addresses)

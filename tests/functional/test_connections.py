"""Connections over which nothing comes, or too little: they cost a descriptor and no thread."""

import contextlib
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.deployment import Client, Standalone, measured, running
from tests.fixtures.process import wait_until
from tests.fixtures.rawhttp import JSON, Answer, exchange, request

#: More than the service has threads, and than it has by default.
MANY = 128
#: Seconds in which a good request is answered, also on a busy machine; a thread that is held would
#: be held for longer.
AT_ONCE = 2.0
#: Seconds that a client has for its request line and headers; in qinling.cmd.protocol.
HEAD_TIME = 5.0
#: Seconds that a body has, whatever comes of it, and bytes that give it another one; there, too.
BODY_TIME = 10.0
BODY_RATE = 64 * 1024
#: Requests that are not whole: a package's, and one with a small body.
UPLOAD = (
    request(
        "POST",
        "/v1/functions",
        "Content-Type: multipart/form-data; boundary=XX",
        "Content-Length: 50000000",
    )
    + b'--XX\r\nContent-Disposition: form-data; name="package"; filename="a.zip"\r\n\r\n'
)
SMALL = request("POST", "/v1/runtimes", JSON, "Content-Length: 60000") + b"{"
LARGE = request("POST", "/v1/executions", JSON, "Content-Length: 1000000") + b"{"
CHUNKS = request("POST", "/v1/runtimes", JSON, "Transfer-Encoding: chunked") + b"9\r\n{"
IN_STEPS = request("POST", "/v1/runtimes", JSON, "Content-Length: 60000", "Expect: 100-continue")
#: What clients send before they fall silent.
SILENT = {
    "nothing": b"",
    "a byte": b"G",
    "a line's end": b"\r\n",
    "a request line": b"GET /v1 HTTP/1.1\r\n",
    "headers without an end": b"GET /v1 HTTP/1.1\r\nHost: a\r\nA: b\r\n",
    "long headers": b"GET /v1 HTTP/1.1\r\nHost: a\r\nA: " + b"b" * 12000,
    "half a body": SMALL + b" " * 100,
    "half a large body": LARGE,
    "a chunk": CHUNKS,
    "no body before it is asked for": IN_STEPS,
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    """An installation with a thread for few of the connections at a time."""
    options = {"api": {"threads": "8"}}
    found = Standalone(tmp_path_factory.mktemp("connections"), options)
    with running(found):
        yield found


@contextlib.contextmanager
def connected(service: Standalone, count: int, sent: bytes = b"") -> Iterator[list[socket.socket]]:
    """Connections over which these bytes came, and nothing more."""
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(count):
            connection = socket.create_connection(("127.0.0.1", service.port), 20)
            found.append(stack.enter_context(connection))
            connection.sendall(sent)
        yield found


def ask(service: Standalone) -> float:
    """Seconds until a good request on a connection of its own is answered."""

    def call() -> None:
        (answer,) = exchange(service.url, request("GET", "/v1", "Connection: close"))
        assert answer.status == 200

    return measured(call)


@pytest.mark.parametrize("sent", SILENT.values(), ids=SILENT)
def test_clients_that_fall_silent_keep_nobody_waiting(service: Standalone, sent: bytes) -> None:
    with connected(service, MANY, sent):
        for _ in range(3):
            assert ask(service) < AT_ONCE


def test_clients_that_fell_silent_after_an_answer_keep_nobody_waiting(service: Standalone) -> None:
    whole = request("GET", "/v1")
    with connected(service, MANY, whole) as connections:
        for connection in connections:
            assert head_of_answer(connection).startswith(b"HTTP/1.1 200")
            connection.sendall(whole[:10])
        assert ask(service) < AT_ONCE
        # And may go on.
        for connection in connections[:5]:
            connection.sendall(whole[10:])
            assert head_of_answer(connection).startswith(b"HTTP/1.1 200")


def test_a_request_that_comes_in_pieces_is_answered(service: Standalone) -> None:
    whole = request("POST", "/v1/runtimes", body=b'{"image": 1}')
    with connected(service, 1) as (connection,):
        for number in range(0, len(whole), 7):
            connection.sendall(whole[number : number + 7])
            time.sleep(0.01)
        assert head_of_answer(connection).startswith(b"HTTP/1.1 400")


def test_headers_that_drop_in_byte_by_byte_have_their_time_and_no_more(
    service: Standalone,
) -> None:
    with connected(service, MANY, b"GET /v1 HTTP/1.1\r\nA: ") as connections:
        began = time.monotonic()
        while time.monotonic() < began + HEAD_TIME - 1:
            for connection in connections:
                connection.sendall(b"b")
            assert ask(service) < AT_ONCE
            time.sleep(0.3)
        for connection in connections:
            (answer,) = answers(connection)
            answer.refused(408)
        assert HEAD_TIME - 1 < time.monotonic() - began < HEAD_TIME + 5
    assert ask(service) < AT_ONCE


def test_bodies_that_drop_in_byte_by_byte_keep_nobody_waiting_and_have_an_end(
    service: Standalone,
) -> None:
    with (
        connected(service, 1, UPLOAD) as (steady,),
        connected(service, MANY, UPLOAD) as uploads,
        connected(service, 3, SMALL) as others,
    ):
        began = time.monotonic()
        open_ = [*uploads, *others]
        while open_:
            assert time.monotonic() < began + BODY_TIME + 5
            open_ = [connection for connection in open_ if sends(connection, b"b")]
            steady.sendall(b"b" * BODY_RATE)
            assert ask(service) < AT_ONCE
            time.sleep(0.3)
        assert time.monotonic() > began + BODY_TIME - 1
        for connection in others:
            (answer,) = answers(connection)
            answer.refused(408)
        # What comes faster has more time.
        while time.monotonic() < began + BODY_TIME + 1:
            steady.sendall(b"b" * BODY_RATE)
            time.sleep(0.3)
        steady.shutdown(socket.SHUT_WR)
        (answer,) = answers(steady)
        assert "bytes of Content-Length" in answer.refused(400)
    (answer,) = exchange(service.url, UPLOAD)
    answer.refused(400)


def sends(connection: socket.socket, sent: bytes) -> bool:
    """Whether the service still takes it."""
    try:
        connection.sendall(sent)
    except ConnectionError:
        return False
    return True


def head_of_answer(connection: socket.socket) -> bytes:
    """What comes in front of an answer's body, which is JSON and is read too."""
    received = b""
    while not received.endswith(b"}"):
        received += connection.recv(65536)
    return received.partition(b"\r\n\r\n")[0]


def answers(connection: socket.socket) -> list[Answer]:
    """What comes until the end of the connection."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    headers = {name.lower(): value for name, value in headers.items()}
    return [Answer(int(status.split()[1]), headers, body)]


def test_more_connections_than_may_be_open_close_those_that_were_idle_longest(
    tmp_path: Path,
) -> None:
    found = Standalone(tmp_path)
    with running(found):
        pid = found.process.pid
        found.process.terminate(30)
        found.process.command = ["prlimit", "--nofile=200", "--", *found.process.command]
        found.start()
        assert found.process.pid != pid
        assert resource.prlimit(found.process.pid, resource.RLIMIT_NOFILE)[0] == 200
        kept = Client(found.url)
        with connected(found, 400) as connections:
            assert ask(found) < AT_ONCE
            assert kept.call("GET", "/v1").status_code == 200
            closed = wait_until(lambda: [one for one in connections if ended(one)], 10, "closed")
            assert connections[0] in closed
            assert connections[-1] not in closed
        assert ask(found) < AT_ONCE
        assert "Traceback" not in found.process.log()


def ended(connection: socket.socket) -> bool:
    """Whether the service has closed it; it has sent nothing."""
    connection.settimeout(0)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True

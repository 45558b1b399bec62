"""The server of qinling-api: executions too many, which it refuses itself, and its connections."""

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from qinling.api.middleware.overload import HAS_PLACE, Places
from qinling.cmd import protocol
from qinling.cmd.server import HttpServer
from tests.fixtures.process import wait_until
from tests.fixtures.rawhttp import Answer, exchange, request
from tests.unit.api.test_overload import fill, take_all

EXECUTIONS = "/v1/executions"
POST = request("POST", EXECUTIONS, body=b"0123456789")
MOST = 3


@dataclass
class Application:
    """Answers 200 when it may, and notes what it was asked."""

    go_on: threading.Event = field(default_factory=threading.Event)
    had_place: list[bool] = field(default_factory=list)

    def __call__(self, environ: Any, start_response: Any) -> list[bytes]:
        self.had_place.append(HAS_PLACE in environ)
        assert self.go_on.wait(30)
        start_response("200 OK", [("Content-Length", "0")])
        return []


@dataclass
class Served:
    """A server with one thread."""

    application: Application
    places: Places
    http: HttpServer

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.http.port), 20)

    def exchange(self, data: bytes) -> list[Answer]:
        return exchange(f"http://127.0.0.1:{self.http.port}", data)


@pytest.fixture
def served() -> Iterator[Served]:
    application, places = Application(), Places(MOST)
    http = HttpServer(application, "127.0.0.1", 0, 1, places)
    http.start()
    yield Served(application, places, http)
    application.go_on.set()
    http.stop()


def test_what_is_too_many_is_refused_though_no_thread_is_free(served: Served) -> None:
    for _ in range(MOST - 1):
        assert served.places.take()
    with served.connect() as first, served.connect() as second:
        first.sendall(POST)
        wait_until(lambda: served.application.had_place, 20, "the thread has it")
        for answer in served.exchange(POST * 2):
            assert "try again" in answer.refused(429)
            assert answer.headers["retry-after"] == "1"
        # The connection is good for the next one, though nobody has read the body.
        second.sendall(POST + request("GET", "/v1"))
        assert second.recv(65536).startswith(b"HTTP/1.1 429 ")
        served.application.go_on.set()
        for connection in (first, second):
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert served.application.had_place == [True, False]


@pytest.mark.parametrize(
    "data",
    [
        request("POST", EXECUTIONS, "Origin: http://localhost", body=b"{}"),
        request("POST", EXECUTIONS, "Connection: close", body=b"{}"),
        request("POST", EXECUTIONS, "Transfer-Encoding: chunked") + b"0\r\n\r\n",
        request("POST", EXECUTIONS, "Expect: 100-continue", body=b"{}"),
        request("POST", EXECUTIONS, body=b"x" * (protocol.MAX_SMALL + 1)),
        request("POST", f"{EXECUTIONS}/", body=b"{}"),
        request("POST", "/v1/functions", body=b"{}"),
        request("GET", EXECUTIONS),
    ],
)
def test_what_is_no_plain_execution_is_left_to_the_application(served: Served, data: bytes) -> None:
    fill(served.places)
    served.application.go_on.set()
    assert [answer.status for answer in served.exchange(data)] == [200]
    assert served.application.had_place == [False]


@pytest.mark.parametrize(
    "data",
    [
        request("POST", EXECUTIONS, "Content-Length: 2", "Content-Length: 2") + b"{}",
        request("POST", EXECUTIONS, "Content-Length: " + "9" * 5000),
        request("POST", EXECUTIONS, "Content-Length: 2", "Transfer-Encoding: chunked"),
        request("POST", EXECUTIONS, "Host: localhost", body=b"{}"),
        request("POST", EXECUTIONS, "A : b", body=b"{}"),
        b"POST /v1/executions HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    ],
)
@pytest.mark.parametrize("is_full", [False, True])
def test_what_is_malformed_is_told_so_and_keeps_no_place(
    served: Served, data: bytes, is_full: bool
) -> None:
    if is_full:
        fill(served.places)
    for _ in range(MOST + 1):
        (answer,) = served.exchange(data)
        answer.refused(400)
    assert not served.application.had_place
    wait_until(lambda: take_all(served.places) == (0 if is_full else MOST), 20, "free places")


def test_places_are_free_again_when_the_answer_is_sent(served: Served) -> None:
    served.application.go_on.set()
    for _ in range(MOST + 1):
        assert [answer.status for answer in served.exchange(POST)] == [200]
    assert served.application.had_place == [True] * (MOST + 1)
    wait_until(lambda: take_all(served.places) == MOST, 20, "free places")


def test_the_connection_that_was_silent_for_the_longest_makes_room(served: Served) -> None:
    connections = served.http._server._connections
    first, silent, last = (served.connect() for _ in range(3))
    with first, silent, last:
        wait_until(lambda: len(connections._waiting()) == 3, 20, "all are there")
        fill(served.places)
        # Now it is the last to have been heard of.
        first.sendall(POST)
        assert first.recv(65536).startswith(b"HTTP/1.1 429 ")
        served.http._server.keep_alive_conn_limit = 3
        with served.connect() as another:
            assert silent.recv(1) == b""
            for connection in (first, last, another):
                connection.sendall(POST)
                assert connection.recv(65536).startswith(b"HTTP/1.1 429 ")

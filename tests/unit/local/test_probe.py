"""What a worker answers, and what is wrong with it."""

import asyncio
import json
import socket
import threading
from typing import Any

import pytest

from qinling.orchestrator.local import probe

ID = "7b0c7b52-3a55-4b0d-8e43-6a3d3a3b5a5e"


def answer(content: Any, status: str = "200 OK") -> bytes:
    return f"HTTP/1.0 {status}\r\nX: y\r\n\r\n{json.dumps(content)}".encode()


def told(worker_id: str = ID, status: str = "ready") -> bytes:
    return answer({"worker_id": worker_id, "status": status})


def ask(sent: bytes | None) -> str | None:
    """Ask a worker that sends this and closes the connection; None: that listens no more."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        if sent is None:
            listener.close()
            return asyncio.run(probe.ask(port, ID))

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(sent)

        server = threading.Thread(target=serve)
        server.start()
        try:
            return asyncio.run(probe.ask(port, ID))
        finally:
            server.join(20)


def test_a_worker_is_well_that_is_ready_and_who_we_think_it_is() -> None:
    assert ask(told()) is None


@pytest.mark.parametrize(
    ("sent", "trouble"),
    [
        (None, "it has closed its socket"),
        (b"", "it closed the connection without an answer"),
        (b"220 mail.example.org\r\n", "it does not speak HTTP"),
        (b"\xff\0", "it does not speak HTTP"),
        (answer({}, "503 Service Unavailable"), "it answered 503"),
        (answer([]), "it answered with something other than a JSON object"),
        (b"HTTP/1.0 200 OK\r\n\r\n{", "it answered with something other than a JSON object"),
        (b"HTTP/1.0 200 OK\r\n\r\n\xff", "it answered with something other than a JSON object"),
        (
            b"HTTP/1.0 200 OK\r\n\r\n" + b"[" * 60000,
            "it answered with something other than a JSON object",
        ),
        (answer({}), "it answered as worker None"),
        (told(worker_id="me\n" * 100), "it answered as worker " + ("me?" * 27)[:80]),
        (told(status="draining"), "it says that it is draining"),
    ],
)
def test_what_is_wrong_with_a_worker_is_told(sent: bytes | None, trouble: str) -> None:
    assert ask(sent) == trouble


def test_an_answer_without_an_end_is_read_to_a_bound() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                try:
                    while True:
                        connection.sendall(b"x" * 65536)
                except OSError:
                    return

        server = threading.Thread(target=serve)
        server.start()
        assert asyncio.run(probe.ask(listener.getsockname()[1], ID)) == "it does not speak HTTP"
        server.join(20)
        assert not server.is_alive()

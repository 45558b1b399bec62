"""HTTP with as little of a client as there can be: what it costs dilutes the ratios."""

import json
import re
import socket
import time
from typing import Any, Self

_LENGTH = re.compile(rb"\r\nContent-Length: (\d+)\r\n", re.IGNORECASE)


def request(method: str, path: str, body: dict[str, Any] | None = None) -> bytes:
    """A request as it goes over the wire."""
    content = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n"
    if body is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
    return head.encode() + b"\r\n" + content


class Connection:
    """A connection to a port of this host that is kept open."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._socket.close()

    def call(self, message: bytes, status: int) -> bytes:
        """Send a request and return the answer's body; AssertionError for another status."""
        self._socket.sendall(message)
        answer = self._socket.recv(65536)
        while (end := answer.find(b"\r\n\r\n")) < 0:
            answer += self._receive()
        length = _LENGTH.search(answer, 0, end + 2)
        wanted = end + 4 + (int(length[1]) if length else 0)
        while len(answer) < wanted:
            answer += self._receive()
        assert int(answer[9:12]) == status, answer
        return answer[end + 4 :]

    def _receive(self) -> bytes:
        more = self._socket.recv(65536)
        assert more, "the server closed the connection"
        return more

    def timed(self, message: bytes, status: int) -> float:
        """Milliseconds until the whole answer is there."""
        began = time.perf_counter()
        self.call(message, status)
        return (time.perf_counter() - began) * 1000


def wait_for_answer(port: int, message: bytes, timeout: float = 60.0) -> None:
    """Ask until somebody listens on the port and answers 200."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            with Connection(port) as connection:
                connection.call(message, 200)
            return
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, f"nobody listens on port {port}"
            time.sleep(0.002)

"""Calls that come when they come, whether or not those before them were answered.

One thread sends all of them over connections that are kept open, each with one call at a time, and
as many connections as that needs. A call's time counts from when it was due.
"""

import heapq
import itertools
import re
import selectors
import socket
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_LENGTH = re.compile(rb"\r\nContent-Length: (\d+)\r\n", re.IGNORECASE)
#: Seconds after the last call in which all must be answered.
_PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Stream:
    """A message that is sent ``rate`` times a second."""

    name: str
    message: bytes
    rate: float


@dataclass(frozen=True, slots=True)
class Answered:
    """One call: its status, milliseconds from when it was due, its body.

    The status is 0 where the server closed the connection instead of an answer.
    """

    status: int
    took: float
    body: bytes


class _Connection:
    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.name = ""
        self.due = 0.0
        self._received = b""

    def send(self, name: str, message: bytes, due: float) -> None:
        self.name, self.due, self._received = name, due, b""
        self.socket.sendall(message)

    def receive(self) -> Answered | None:
        """The answer, when it is there whole."""
        piece = self.socket.recv(65536)
        if not piece:
            return Answered(0, (time.perf_counter() - self.due) * 1000, b"")
        self._received += piece
        end = self._received.find(b"\r\n\r\n")
        length = _LENGTH.search(self._received, 0, end + 2) if end >= 0 else None
        if length is None or len(self._received) < end + 4 + int(length[1]):
            return None
        took = (time.perf_counter() - self.due) * 1000
        return Answered(int(self._received[9:12]), took, self._received[end + 4 :])


def send(port: int, streams: Sequence[Stream], seconds: float) -> dict[str, list[Answered]]:
    """Send for so many seconds and wait for all answers, by the streams' names."""
    answered: dict[str, list[Answered]] = defaultdict(list)
    idle: list[_Connection] = []
    under_way = 0
    began = time.perf_counter()
    ends = began + seconds + _PATIENCE
    with selectors.DefaultSelector() as selector:
        calls = _due(streams, began, seconds)
        following = next(calls, None)
        while following is not None or under_way:
            now = time.perf_counter()
            assert now < ends, f"{under_way} calls were not answered"
            while following is not None and following[0] <= now:
                due, stream = following
                connection = idle.pop() if idle else _open(selector, port)
                connection.send(stream.name, stream.message, due)
                under_way += 1
                following = next(calls, None)
            pause = 1.0 if following is None else max(0.0, following[0] - time.perf_counter())
            for key, _ in selector.select(pause):
                connection = key.data
                was_idle = connection in idle
                answer = connection.receive()
                if answer is None:
                    continue
                if not was_idle:
                    answered[connection.name].append(answer)
                    under_way -= 1
                    idle.append(connection)
                if not answer.status:
                    # The server keeps no more than so many.
                    idle.remove(connection)
                    selector.unregister(connection.socket)
                    connection.socket.close()
        for key in list(selector.get_map().values()):
            key.data.socket.close()
    return answered


def _open(selector: selectors.BaseSelector, port: int) -> _Connection:
    connection = _Connection(port)
    selector.register(connection.socket, selectors.EVENT_READ, connection)
    return connection


def _due(streams: Sequence[Stream], began: float, seconds: float) -> Iterator[tuple[float, Stream]]:
    """What is to be sent when, in that order."""

    def times(stream: Stream) -> Iterator[tuple[float, Stream]]:
        for number in itertools.count():
            due = number / stream.rate
            if due >= seconds:
                return
            yield began + due, stream

    return heapq.merge(*(times(stream) for stream in streams), key=lambda each: each[0])

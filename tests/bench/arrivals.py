"""Calls that come when they come, whether or not those before them were answered.

One thread sends all of them over connections that are kept open, each with one call at a time, as a
proxy does: it opens as many as that needs up to a bound, and what comes beyond that waits here. A
call's time counts from when it was due.
"""

import contextlib
import heapq
import itertools
import re
import selectors
import socket
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_LENGTH = re.compile(rb"\r\nContent-Length: (\d+)\r\n", re.IGNORECASE)
#: Seconds after the last call in which all must be answered.
_PATIENCE = 60.0
#: Connections: half of what the server keeps.
_MOST = 500


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


@dataclass(frozen=True, slots=True)
class Sent:
    """What came of calls, by the streams' names, and what the sender took for itself.

    ``processor`` is its share of one; ``late`` has milliseconds from when a call was due until the
    sender came to it.
    """

    answered: dict[str, list[Answered]]
    processor: float
    late: list[float]


class _Connection:
    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.name = ""
        self.due = 0.0
        self.is_idle = True
        #: The server has told that it closes it.
        self.is_closing = False
        self._received = b""

    def send(self, name: str, message: bytes, due: float) -> None:
        self.name, self.due, self._received = name, due, b""
        self.is_idle = False
        with contextlib.suppress(ConnectionError):
            # It has just been closed, as the answer will tell.
            self.socket.sendall(message)

    def receive(self) -> Answered | None:
        """The answer, when it is there whole."""
        try:
            piece = self.socket.recv(65536)
        except ConnectionResetError:
            piece = b""
        if not piece:
            self.is_closing = True
            return Answered(0, (time.perf_counter() - self.due) * 1000, b"")
        self._received += piece
        end = self._received.find(b"\r\n\r\n")
        length = _LENGTH.search(self._received, 0, end + 2) if end >= 0 else None
        if length is None or len(self._received) < end + 4 + int(length[1]):
            return None
        took = (time.perf_counter() - self.due) * 1000
        self.is_closing = b"\r\nConnection: close\r\n" in self._received[: end + 2]
        return Answered(int(self._received[9:12]), took, self._received[end + 4 :])


def send(port: int, streams: Sequence[Stream], seconds: float) -> Sent:
    """Send for so many seconds and wait for all answers."""
    answered: dict[str, list[Answered]] = defaultdict(list)
    late: list[float] = []
    idle: list[_Connection] = []
    waiting: deque[tuple[float, Stream]] = deque()
    opened = under_way = 0
    processor = time.thread_time()
    began = time.perf_counter()
    ends = began + seconds + _PATIENCE
    with selectors.DefaultSelector() as selector:
        calls = _due(streams, began, seconds)
        following = next(calls, None)
        while following is not None or under_way:
            now = time.perf_counter()
            assert now < ends, f"{under_way} calls were not answered"
            while following is not None and following[0] <= now:
                late.append((now - following[0]) * 1000)
                waiting.append(following)
                following = next(calls, None)
            while waiting and (idle or opened < _MOST):
                if not idle:
                    idle.append(_open(selector, port))
                    opened += 1
                due, stream = waiting.popleft()
                idle.pop().send(stream.name, stream.message, due)
                under_way += 1
            pause = 1.0 if following is None else max(0.0, following[0] - time.perf_counter())
            for key, _ in selector.select(pause):
                connection = key.data
                answer = connection.receive()
                if answer is None:
                    continue
                if connection.is_idle:
                    idle.remove(connection)
                else:
                    answered[connection.name].append(answer)
                    under_way -= 1
                if connection.is_closing:
                    selector.unregister(connection.socket)
                    connection.socket.close()
                    opened -= 1
                else:
                    connection.is_idle = True
                    idle.append(connection)
        for key in list(selector.get_map().values()):
            key.data.socket.close()
    took = time.perf_counter() - began
    return Sent(answered, (time.thread_time() - processor) / took, late)


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

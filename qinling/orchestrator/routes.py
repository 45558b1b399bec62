"""How requests get to claimed workers, whoever calls them: the API as well as the engine.

A worker's address says where it is and is all that its row has of it. ``HOST:PORT``
is called there; any other form is its orchestrator's own, which has the route to it.
"""

import http.client
import select
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from oslo_config import cfg

from qinling import exceptions

# Seconds that a worker may take to accept a connection.
_CONNECT_TIMEOUT = 5.0
# Connections that are kept open to one worker, and seconds for which each is while nobody uses it:
# a worker closes it after a minute, and what is sent at that moment is lost.
_KEPT = 16
KEPT_FOR = 30.0


@dataclass(frozen=True, slots=True)
class Request:
    """
    :param path: as the worker sees it. :param content: what comes in pieces has its length in
        ``headers``; what it raises is raised.
    :param patience: seconds for which nothing may come.
    """

    method: str
    path: str
    content: bytes | Iterable[bytes]
    headers: Mapping[str, str]
    patience: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, from whomever. :param header: gives one by its name, whatever its case."""

    status: int
    header: Callable[[str], str | None]
    body: bytes


class Route(Protocol):
    """The way to one worker; as text it says where that is. Safe to use from several threads."""

    def send(self, request: Request, most: int) -> Answer:
        """:param most: bytes of a body; of a longer one there are a few more.
        :raises WorkerGone: the worker cannot have got it, as there is nobody, or, if it is
            ``WorkerAway``, nobody is to be reached.
        :raises OrchestratorError: nor can it, but that is not the worker's fault.
        :raises WorkerLost: nobody knows.
        """

    def judge(self, answer: Answer) -> None:
        """Tell what an answer means that is not the worker's for certain.

        :raises WorkerGone, OrchestratorError, WorkerLost: it is of somebody on the way; as
            those of ``send``. Nothing is raised of one that may be the worker's.
        """

    def close(self) -> None:
        """Let go of what is kept for the next request."""


class Routes(Protocol):
    """Finds routes."""

    def to(self, address: str) -> Route | None:
        """The route to a worker; None for an address that is not called from here."""


def load(conf: cfg.ConfigOpts) -> Routes:
    """The routes that the configuration asks for."""
    if conf.orchestrator.driver == "kubernetes" and conf.kubernetes.worker_access == "proxy":
        # Only now: most APIs need nothing of the library.
        from qinling.orchestrator.kubernetes.proxy import Proxy

        return Proxy(conf)
    return Addresses()


class Addresses:
    """Routes to workers that are called where they are."""

    def to(self, address: str) -> Route | None:
        return None if "/" in address else Direct(address)


class Direct:
    """To a worker at ``HOST:PORT``."""

    def __init__(self, address: str) -> None:
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._lock = threading.Lock()
        # Since when they are, on the monotonic clock, oldest first.
        self._idle: list[tuple[float, http.client.HTTPConnection]] = []

    def __str__(self) -> str:
        return f"{self._host}:{self._port}"

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for _, connection in idle:
            connection.close()

    def judge(self, answer: Answer) -> None:
        """There is nobody on the way."""

    def send(self, request: Request, most: int) -> Answer:
        connection = self._connection()
        connection.sock.settimeout(request.patience)
        try:
            connection.request(
                request.method, request.path, request.content or None, request.headers
            )
            answer = connection.getresponse()
            body = answer.read(most + 1)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise exceptions.WorkerLost(
                f"the worker at {self} did not answer: {error or type(error).__name__}"
            ) from error
        except BaseException:
            connection.close()
            raise
        with self._lock:
            # Without a socket: the worker wants each connection closed.
            keep = connection.sock is not None and len(body) <= most and len(self._idle) < _KEPT
            if keep:
                self._idle.append((time.monotonic(), connection))
        if not keep:
            connection.close()
        return Answer(answer.status, answer.getheader, body)

    def _connection(self) -> http.client.HTTPConnection:
        """One that is open, a new one where none is kept.

        :raises WorkerGone: nobody is there. :raises WorkerAway: nobody answers.
        """
        while (connection := self._kept()) is not None:
            if _is_open(connection):
                return connection
            connection.close()
        connection = http.client.HTTPConnection(self._host, self._port, timeout=_CONNECT_TIMEOUT)
        try:
            connection.connect()
        except OSError as error:
            refused = isinstance(error, ConnectionRefusedError)
            raise (exceptions.WorkerGone if refused else exceptions.WorkerAway)(
                f"nobody answers at {self}: {error.strerror or error}"
            ) from error
        return connection

    def _kept(self) -> http.client.HTTPConnection | None:
        old = time.monotonic() - KEPT_FOR
        with self._lock:
            while self._idle and self._idle[0][0] < old:
                self._idle.pop(0)[1].close()
            return self._idle.pop()[1] if self._idle else None


def _is_open(connection: http.client.HTTPConnection) -> bool:
    """Whether an idle connection was not closed by the worker: there is nothing to be read then.

    What is sent on one that was closed could be taken for lost on its way.
    """
    readable = select.poll()
    readable.register(connection.sock, select.POLLIN)
    return not readable.poll(0)

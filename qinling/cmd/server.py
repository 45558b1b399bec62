"""The HTTP server of ``qinling-api`` and ``qinling-standalone``: cheroot."""

import resource
import select
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

from cheroot import connections, wsgi
from oslo_log import log

from qinling import exceptions
from qinling.cmd import prompt, protocol, refusals

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from qinling.api.middleware.overload import Places

LOG = log.getLogger(__name__)

_BACKLOG = 512
# Idle connections that are kept, new ones included; they occupy no thread.
_KEPT = 1000
# Seconds until a connection is accepted again after the process had no descriptor left for one.
_PAUSE = 0.1
# Seconds between two lines in the log about executions that were refused.
_TELL = 1.0
# Seconds that an idle connection is kept, and that a stop waits for calls.
_IDLE = 75
_STOP_TIMEOUT = 10


class _Selector:
    """Whose connections are looked at, for something to read.

    Threads that have answered register theirs, all else is the connections' thread's. cheroot's has
    a lock, which one of them would hold while it waits for Python's; none is needed for single
    steps of a dictionary, and of the system.
    """

    def __init__(self, server: "_Server") -> None:
        self._epoll = select.epoll()
        self._by_descriptor: dict[int, Any] = {}
        self.register(server.socket, server)

    def __len__(self) -> int:
        return len(self._by_descriptor)

    @property
    def connections(self) -> list[tuple[int, Any]]:
        """All, with their descriptors; the server is one of them."""
        return list(self._by_descriptor.items())

    def register(self, source: socket.socket, connection: Any) -> None:
        descriptor = source.fileno()
        self._epoll.register(descriptor, select.EPOLLIN)
        # Last: what is in here can be unregistered by the other thread.
        self._by_descriptor[descriptor] = connection

    def unregister(self, descriptor: int) -> None:
        del self._by_descriptor[descriptor]
        prompt.unregister(self._epoll.fileno(), descriptor)

    def select(self, timeout: float) -> list[tuple[int, Any]]:
        """Those over which something has come, with their descriptors."""
        ready = self._epoll.poll(timeout, len(self._by_descriptor))
        found = ((descriptor, self._by_descriptor.get(descriptor)) for descriptor, _ in ready)
        # One that is not in yet is told of again.
        return [(descriptor, connection) for descriptor, connection in found if connection]

    def close(self) -> None:
        self._epoll.close()


class _Connections(connections.ConnectionManager):
    """Where connections wait, without a thread, until a request has come whole.

    By itself cheroot gives a thread to each new connection, and to others as
    soon as one byte comes, so that as many clients as there are threads, who
    are silent from there on, would stop it.
    """

    server: "_Server"
    _selector: Any
    _stop_requested: bool

    def __init__(self, server: "_Server") -> None:
        super().__init__(server)
        self._selector.close()
        self._selector = _Selector(server)

    def put(self, connection: protocol.Connection) -> None:
        """A new connection, or one whose request was answered."""
        connection.last_used = time.time()
        if self._is_due(connection):
            self.server.process_conn(connection)
        else:
            self._selector.register(connection.socket, connection)

    def _run(self, expiration_interval: float) -> None:
        """As cheroot's, but that a connection stays registered until a thread gets it.

        To register it anew each time would give up Python's lock; ``prompt`` tells what that costs.
        """
        expired = time.time()
        while not self._stop_requested:
            for descriptor, connection in self._selector.select(expiration_interval):
                if connection is self.server:
                    self._from_server_socket(self.server.socket)
                else:
                    self._take(descriptor, connection)
            now = time.time()
            if now > expired + expiration_interval:
                self._expire(now - self.server.timeout)
                expired = now

    def _take(self, descriptor: int, connection: protocol.Connection) -> None:
        """Something has come over a connection that waits."""
        connection.rfile.gather()
        if connection.rfile.ended and not connection.rfile.count():
            self._selector.unregister(descriptor)
            connection.close()
        elif self._is_due(connection):
            self._selector.unregister(descriptor)
            self.server.process_conn(connection)

    def _is_due(self, connection: protocol.Connection) -> bool:
        """Whether it has something for a thread."""
        while connection.rfile.is_due():
            if not self.server.refuses(connection):
                return True
            connection.last_used = time.time()
        return False

    def _from_server_socket(self, server_socket: Any) -> None:
        if not self.can_add_keepalive_connection:
            self._close_oldest()
        try:
            connection = super()._from_server_socket(server_socket)  # type: ignore[misc]
        except OSError as error:
            # No descriptor is left, as a rule; its caller would log a traceback and ask at once.
            LOG.warning("A connection cannot be accepted: %s", error)
            time.sleep(_PAUSE)
            return
        if connection is not None:
            self.put(connection)

    def _close_oldest(self) -> None:
        """Make room: a client that is closed while idle connects again.

        One of which something has come is no idle one: its turn has not come yet.
        """
        for descriptor, connection in sorted(self._waiting(), key=lambda pair: pair[1].last_used):
            if not _is_readable(descriptor):
                self._selector.unregister(descriptor)
                connection.close()
                return

    def _expire(self, threshold: float) -> None:
        super()._expire(threshold)  # type: ignore[misc]
        for descriptor, connection in self._waiting():
            if connection.is_late():
                self._selector.unregister(descriptor)
                self.server.process_conn(connection)  # which tells it so

    def _waiting(self) -> list[tuple[int, protocol.Connection]]:
        return [pair for pair in self._selector.connections if pair[1] is not self.server]


class _Server(wsgi.Server):
    """
    :ivar places: for executions; None where none is refused.
    :ivar lingering: places for threads that wait for the end of what was refused before it was
        whole.
    """

    lingering: threading.Semaphore
    places: "Places | None" = None
    _connections: Any
    _refused = 0
    _told = 0.0

    def prepare(self) -> None:
        super().prepare()
        self._connections.close()
        self._connections = _Connections(self)

    def refuses(self, connection: protocol.Connection) -> bool:
        """Whether what came was an execution too many, and was answered so; if not, it has its
        place."""
        if self.places is None or not refusals.is_execution(connection):
            return False
        connection.place = self.places.take()
        if connection.place is not None:
            return False
        if not refusals.refuse(connection):
            # The middleware does, in a thread.
            return False
        self._refused += 1
        now = time.monotonic()
        if now > self._told + _TELL:
            LOG.warning(
                "Executions that were refused, as too many are under way: %d", self._refused
            )
            self._refused, self._told = 0, now
        return True


class HttpServer:
    """Serves an application in threads.

    :param port: 0 for any free one; ``port`` tells which after ``start``.
    :param places: that the application has for executions.
    """

    def __init__(
        self,
        application: "WSGIApplication",
        host: str,
        port: int,
        threads: int,
        places: "Places | None" = None,
    ) -> None:
        self._server = _Server(
            (host, port),
            application,
            numthreads=threads,
            request_queue_size=_BACKLOG,
            timeout=_IDLE,
            shutdown_timeout=_STOP_TIMEOUT,
            server_name="qinling",
        )
        self._server.ConnectionClass = protocol.Connection
        self._server.gateway = protocol.Gateway
        self._server.places = places
        self._server.lingering = threading.Semaphore(max(1, threads // 8))
        self._server.max_request_header_size = protocol.MAX_HEAD
        # No more than half of what may be open, files and the database's connections included.
        may_be_open, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._server.keep_alive_conn_limit = min(_KEPT, may_be_open // 2)
        self._server.error_log = protocol.to_log  # type: ignore[method-assign]
        self.host = host
        self.port = port
        self._thread = threading.Thread(target=self._serve, name="http", daemon=True)

    def start(self) -> None:
        """:raises StartupError: the address cannot be listened on."""
        try:
            self._server.prepare()
        except OSError as error:
            raise exceptions.StartupError(
                f"Cannot listen on {self.host} port {self.port}: {error.strerror or error}."
            ) from error
        self.port = self._server.bind_addr[1]
        self._thread.start()

    def stop(self) -> None:
        """Take no more requests and let those in flight end."""
        self._server.stop()
        self._thread.join(_STOP_TIMEOUT)

    def _serve(self) -> None:
        self._server.serve()


def _is_readable(descriptor: int) -> bool:
    readable = select.poll()
    readable.register(descriptor, select.POLLIN)
    return bool(readable.poll(0))


def url(host: str, port: int) -> str:
    """The address of a server as a URL."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

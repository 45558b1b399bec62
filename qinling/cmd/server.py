"""The HTTP server of ``qinling-api`` and ``qinling-standalone``: cheroot."""

import resource
import select
import selectors
import threading
import time
from typing import TYPE_CHECKING, Any

from cheroot import connections, wsgi
from oslo_log import log

from qinling import exceptions
from qinling.cmd import protocol, refusals

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


class _Connections(connections.ConnectionManager):
    """Where connections wait, without a thread, until a request has come whole.

    By itself cheroot gives a thread to each new connection, and to others as
    soon as one byte comes, so that as many clients as there are threads, who
    are silent from there on, would stop it.
    """

    server: "_Server"
    _selector: Any

    def put(self, connection: protocol.Connection) -> None:
        """A new connection, or one whose request was answered."""
        connection.last_used = time.time()
        self.go_on(connection)

    def go_on(self, connection: protocol.Connection) -> None:
        """Let it have a thread, if there is something for one, or wait."""
        while is_due := connection.rfile.is_due():
            if not self.server.refuses(connection):
                break
            connection.last_used = time.time()
        if is_due:
            self.server.hand_over(connection)
        else:
            self._selector.register(connection.socket, selectors.EVENT_READ, data=connection)

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

        They are in the order in which they came here. One of which something has come is no
        idle one: its turn has not come yet.
        """
        for descriptor, connection in self._waiting():
            if not _is_readable(descriptor):
                self._selector.unregister(descriptor)
                connection.close()
                return

    def _expire(self, threshold: float) -> None:
        super()._expire(threshold)  # type: ignore[misc]
        for descriptor, connection in self._waiting():
            if connection.is_late():
                self._selector.unregister(descriptor)
                self.server.hand_over(connection)  # which tells it so

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

    def process_conn(self, connection: protocol.Connection) -> None:
        """Something has come over a connection that waited."""
        connection.rfile.gather()
        if connection.rfile.ended and not connection.rfile.count():
            connection.close()
        else:
            self._connections.go_on(connection)

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

    def hand_over(self, connection: protocol.Connection) -> None:
        """Give it to the next thread that is free."""
        super().process_conn(connection)


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

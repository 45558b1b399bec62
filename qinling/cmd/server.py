"""The HTTP server of ``qinling-api`` and ``qinling-standalone``: cheroot."""

import threading
from typing import TYPE_CHECKING

from cheroot import server as cheroot_server
from cheroot import wsgi
from oslo_log import log

from qinling import exceptions
from qinling.api.middleware import errors

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

LOG = log.getLogger(__name__)

_MAX_HEADER = 64 * 1024  # bytes
_BACKLOG = 512
# Seconds that an idle connection is kept, and that a stop waits for calls.
_IDLE = 75
_STOP_TIMEOUT = 10


class _Request(cheroot_server.HTTPRequest):
    """Malformed requests, which never reach the application, get its error body."""

    def simple_response(self, status: str, msg: str = "") -> None:
        code = int(str(status)[:3])
        if code < 400:
            super().simple_response(status, msg)
            return
        content = errors.fault_body(code, msg or f"{str(status)[4:]}.")
        head = (
            f"{self.server.protocol} {status}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
        )
        self.close_connection = True
        try:
            self.conn.wfile.write(head.encode("latin-1") + content)
        except OSError as error:
            LOG.debug("The client is gone: %s", error)


class _Connection(cheroot_server.HTTPConnection):
    RequestHandlerClass = _Request


class HttpServer:
    """Serves an application in threads.

    :param port: 0 for any free one; ``port`` tells which after ``start``.
    """

    def __init__(self, application: "WSGIApplication", host: str, port: int, threads: int) -> None:
        self._server = wsgi.Server(
            (host, port),
            application,
            numthreads=threads,
            request_queue_size=_BACKLOG,
            timeout=_IDLE,
            shutdown_timeout=_STOP_TIMEOUT,
            server_name="qinling",
        )
        self._server.ConnectionClass = _Connection
        self._server.max_request_header_size = _MAX_HEADER
        self._server.error_log = _to_log  # type: ignore[method-assign]
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


def _to_log(msg: str = "", level: int = 20, traceback: bool = False) -> None:
    LOG.log(level, msg, exc_info=traceback)


def url(host: str, port: int) -> str:
    """The address of a server as a URL."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

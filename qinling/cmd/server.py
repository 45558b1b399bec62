"""The HTTP server of ``qinling-api`` and ``qinling-standalone``: cheroot."""

import threading
from typing import TYPE_CHECKING

from cheroot import wsgi

from qinling import exceptions
from qinling.cmd import protocol

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

_MAX_HEADER = 64 * 1024  # bytes
_BACKLOG = 512
# Idle connections that are kept; they occupy no thread.
_KEPT = 1000
# Seconds that an idle connection is kept, and that a stop waits for calls.
_IDLE = 75
_STOP_TIMEOUT = 10


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
        self._server.ConnectionClass = protocol.Connection
        self._server.max_request_header_size = _MAX_HEADER
        self._server.keep_alive_conn_limit = _KEPT
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


def url(host: str, port: int) -> str:
    """The address of a server as a URL."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

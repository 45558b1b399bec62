"""The HTTP server of a worker.

``GET /healthz`` tells who the worker is; ``POST /drain`` tells it to take no
more work and to end. An idle worker ends at once.
"""

import json
import socket
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# Seconds that a connection may be silent before it is closed.
IDLE_TIMEOUT = 60


class WorkerServer(ThreadingHTTPServer):
    """Serves on a socket that is listening already."""

    daemon_threads = True

    def __init__(self, listener: socket.socket, worker_id: str) -> None:
        super().__init__(listener.getsockname(), Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.worker_id = worker_id
        # A container may be restarted under the same worker id, empty.
        self.boot_id = str(uuid.uuid4())
        self._draining = threading.Event()

    @property
    def draining(self) -> bool:
        return self._draining.is_set()

    def identity(self) -> dict[str, str]:
        return {
            "worker_id": self.worker_id,
            "boot_id": self.boot_id,
            "status": "draining" if self.draining else "ready",
        }

    def drain(self) -> None:
        """Take no more work, and end when what is in flight has ended."""
        if not self._draining.is_set():
            self._draining.set()
            # Not here: a signal handler runs in the thread that serves.
            threading.Thread(target=self.shutdown, daemon=True).start()

    def run(self) -> None:
        """Serve until drained."""
        self.serve_forever(poll_interval=0.1)
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: WorkerServer
    protocol_version = "HTTP/1.1"
    timeout = IDLE_TIMEOUT

    def do_GET(self) -> None:
        if self.path == "/healthz":
            # A draining worker is not ready, as a probe sees it.
            self._answer(503 if self.server.draining else 200, self.server.identity())
        else:
            self._answer(404, {"error": f"unknown URL {self.path}"})

    def do_POST(self) -> None:
        # Nothing that this server knows has a body, so none is read.
        self.close_connection = True
        if self.path == "/drain":
            self.server.drain()
            self._answer(202, self.server.identity())
        else:
            self._answer(404, {"error": f"unknown URL {self.path}"})

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """A probe every few seconds is not worth a line."""

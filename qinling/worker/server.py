"""The HTTP server of a worker: what its control plane asks, answered by the supervisor.

``GET /healthz`` tells who the worker is, ``POST /specialize`` gives it its
function, ``/execute`` and ``/executions`` run it, and ``POST /drain`` tells it
to take no more work and to end. From ``/specialize`` on every request but the
first is signed (``signing.py``). No user code runs in this process.

Which call does what is in ``handler.py``; here is what the worker is.
"""

import hashlib
import hmac
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable
from http.server import ThreadingHTTPServer
from typing import Any

from qinling.worker import package, processes, signing
from qinling.worker.archive import Archive
from qinling.worker.executor import Executor
from qinling.worker.function import Conflict, Order, Unsigned
from qinling.worker.handler import Handler
from qinling.worker.slots import Slots
from qinling.worker.zygote import CleanZygote

#: Seconds that answers are kept for who may still ask, once the worker is draining.
_GRACE = 3.0


class Specialized:
    """A worker's function, and what knows its key."""

    def __init__(self, order: Order, executor: Executor, answer: dict[str, Any]) -> None:
        self.order = order
        self.executor = executor
        self.answer = answer
        self._nonces = signing.Nonces()

    def check(self, method: str, path: str, get: Callable[[str], str | None], body: bytes) -> str:
        """The nonce of a signed request.

        :raises Unsigned: it is not.
        """
        return signing.check_request(self.order.key, method, path, get, body, self._nonces)

    def sign(self, status: int, nonce: str, body: bytes) -> str:
        """The signature of an answer."""
        return signing.sign_answer(self.order.key, status, nonce, body)


class WorkerServer(ThreadingHTTPServer):
    """Serves on a socket that is listening already.

    :param clean: forked before this process had anything to keep from functions.
    :param key_digest: SHA-256 of the only key that it takes, in hexadecimal digits; else any.
    """

    daemon_threads = True

    def __init__(
        self,
        listener: socket.socket,
        worker_id: str,
        clean: CleanZygote,
        key_digest: str | None = None,
    ) -> None:
        super().__init__(listener.getsockname(), Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.worker_id = worker_id
        # A container may be restarted under the same worker id, empty.
        with open("/proc/sys/kernel/random/uuid") as file:
            self.boot_id = file.read().strip()
        self.specialized: Specialized | None = None
        self.key_digest = key_digest
        self._clean = clean
        self._specializing = threading.Lock()
        self._draining = threading.Event()
        self._ending = threading.Lock()
        self._code = 0

    @property
    def draining(self) -> bool:
        return self._draining.is_set()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is not worth a line; anything else is a fault of ours."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def identity(self) -> dict[str, str]:
        return {
            "worker_id": self.worker_id,
            "boot_id": self.boot_id,
            "status": "draining" if self.draining else "ready",
        }

    def specialize(self, order: Order, archive: Archive) -> dict[str, Any]:
        """Take a function, for good; the same one again is answered as before.

        :raises Unsigned: it comes with another key than this worker's.
        :raises Conflict: there is another one.
        :raises Malformed, NoRoom: the archive cannot be unpacked; the worker is as before.
        """
        if self.key_digest not in (None, hashlib.sha256(order.key).hexdigest()):
            raise Unsigned("this is not the key of this worker")
        with self._specializing:
            found = self.specialized
            if found is None:
                found = self.specialized = self._take(order, archive)
            elif not _is_same(found.order, order):
                raise Conflict("this worker has another function")
        return found.answer

    def _take(self, order: Order, archive: Archive) -> Specialized:
        began = time.monotonic()
        processes.hide_memory()
        processes.adopt_orphans()
        function = order.function
        slots = Slots(self._clean, function, self.fail)
        slots.prepare()
        try:
            package.unpack(archive, self._clean.folder, function.max_unpacked_size)
        except BaseException:
            # Before its folder is removed: it is looking there.
            slots.close()
            shutil.rmtree(self._clean.folder, ignore_errors=True)
            raise
        found = Executor(function, slots)
        answer = {
            "worker_id": self.worker_id,
            "boot_id": self.boot_id,
            "imported": found.fault is None,
            "error": None if found.fault is None else str(found.fault),
            "duration": time.monotonic() - began,
        }
        return Specialized(order, found, answer)

    def fail(self) -> None:
        """End as soon as what is in flight has ended, and not well."""
        self._code = 1
        self.drain()

    def refuse(self) -> None:
        """Take no more work, from now on. Not for a signal handler: it waits for a lock."""
        self._draining.set()
        if (found := self.specialized) is not None:
            found.executor.executions.close()

    def drain(self) -> None:
        """Take no more work, and end when what is in flight has ended. Again is no matter."""
        self._draining.set()
        if self._ending.acquire(blocking=False):
            # Not here: a signal handler runs in the thread that serves.
            threading.Thread(target=self._end, daemon=True).start()

    def _end(self) -> None:
        # One that is being given its function has it first.
        with self._specializing:
            found = self.specialized
        if found is not None:
            found.executor.executions.close()
            found.executor.executions.wait_until_done(_GRACE)
        self.shutdown()

    def run(self) -> int:
        """Serve until drained; the process's exit code."""
        self.serve_forever(poll_interval=0.1)
        self.server_close()
        if self.specialized is not None:
            self.specialized.executor.close()
        self._clean.end()
        return self._code


def _is_same(one: Order, other: Order) -> bool:
    return hmac.compare_digest(one.key, other.key) and (
        one.function.function_id,
        one.function.revision,
    ) == (other.function.function_id, other.function.revision)

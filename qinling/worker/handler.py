"""The calls of a worker, one method each; ``server.py`` has what they are about."""

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from qinling.worker import function
from qinling.worker.archive import Archive
from qinling.worker.executions import Closed, Full, Removed
from qinling.worker.function import Conflict, Malformed, NoRoom, Unsigned
from qinling.worker.requests import RequestHandler

if TYPE_CHECKING:
    from qinling.worker.server import Specialized, WorkerServer

#: Seconds that a connection may be silent before it is closed.
IDLE_TIMEOUT = 60
#: Bytes of a body: of a zip, and of anything else.
_ARCHIVE = 52 << 20
_BODY = 16 << 20
SIGNATURE = "Qinling-Signature"
_EXECUTIONS = "/executions/"
_PHRASES = {int(status): status.phrase for status in HTTPStatus}


class _Refusal(Exception):
    """An answer that tells of an error."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Handler(RequestHandler):
    server: "WorkerServer"
    timeout = IDLE_TIMEOUT
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        if self.path == "/healthz":
            # Draining, too: a probe that failed would have the kubelet kill what it still runs.
            self._answer(200, self.server.identity())
        else:
            self._answer_call()

    def do_POST(self) -> None:
        if self.path == "/specialize":
            self._answer_specialize()
        else:
            self._answer_call()

    def do_DELETE(self) -> None:
        self._answer_call()

    # A call: read, checked, done, answered, signed.

    def _answer_call(self) -> None:
        found = self.server.specialized
        nonce = ""
        content: dict[str, Any] | bytes
        try:
            body = self._read_body(found)
            if found is not None:
                nonce = found.check(self.command, self.path, self.headers.get, body)
            status, content = self._call(found, body)
        except _Refusal as refusal:
            status, content = refusal.status, {"error": str(refusal)}
        except Malformed as error:
            status, content = 400, {"error": str(error)}
        except Unsigned as error:
            status, content = 401, {"error": str(error)}
        self._answer(status, content, nonce)
        if self.server.draining:
            # Not before: an idle worker ends at once, and this answer with it.
            self.server.drain()

    def _read_body(self, found: "Specialized | None") -> bytes:
        if found is not None and self.headers.get(SIGNATURE) is None:
            # Nobody fills this worker's memory without the key.
            self.close_connection = True
            raise Unsigned("the request is not signed")
        if found is None and self.server.key_digest is not None:
            # Whoever may ask anything has the key, and gives it first.
            self.close_connection = True
            raise Unsigned("this worker has not been given its key yet")
        size = self._size(_BODY)
        return self.rfile.read(size) if size else b""

    def _size(self, most: int) -> int:
        said = self.headers.get("Content-Length") or "0"
        if self.headers.get("Transfer-Encoding") or not (said.isascii() and said.isdigit()):
            self.close_connection = True
            raise _Refusal(411, "a body needs its Content-Length")
        if int(said) > most:
            self.close_connection = True
            raise _Refusal(413, f"the body is larger than {most} bytes")
        return int(said)

    def _call(self, found: "Specialized | None", body: bytes) -> tuple[int, Any]:
        call = self.command, self.path
        if call == ("POST", "/execute"):
            return 200, self._execute(found, body)
        if call == ("POST", "/drain"):
            self.close_connection = True
            self._drain(found, body)
            return 202, self.server.identity()
        if found is not None and self.path.startswith(_EXECUTIONS):
            execution_id = self.path[len(_EXECUTIONS) :]
            if self.command == "DELETE":
                found.executor.executions.remove(execution_id)
                return 204, b""
            if self.command == "GET":
                return _show(found, execution_id)
        raise _Refusal(404, f"unknown URL {self.path}")

    def _drain(self, found: "Specialized | None", body: bytes) -> None:
        acknowledged = bool(body) and _read_object(body).get("acknowledged") is True
        self.server.refuse()
        if found is not None and acknowledged:
            found.executor.executions.acknowledge()

    def _execute(self, found: "Specialized | None", body: bytes) -> bytes:
        said = _read_object(body)
        identity = self.server.worker_id, self.server.boot_id
        if found is None or (
            function.text(said, "worker_id"),
            function.text(said, "boot_id"),
            function.count(said, "revision"),
        ) != (*identity, found.order.function.revision):
            raise _Refusal(421, "this is not that worker, or it has another function")
        given = said.get("input")
        if not (given is None or isinstance(given, str)):
            raise Malformed("input is no text")
        if acknowledged := function.texts(said, "acknowledged"):
            found.executor.executions.acknowledge(acknowledged)
        return self._run(
            found, function.text(said, "execution_id"), given, function.seconds(said, "timeout")
        )

    def _run(
        self, found: "Specialized", execution_id: str, given: str | None, timeout: float
    ) -> bytes:
        executions = found.executor.executions
        try:
            execution, is_new = executions.begin(execution_id)
        except Removed:
            return found.executor.cancelled(execution_id)
        except Closed:
            raise _Refusal(410, "this worker is draining") from None
        except Full:
            raise _Refusal(429, "as many executions run as may at once") from None
        if is_new:
            return found.executor.run(execution, given, timeout)
        return executions.wait(execution)

    # Giving it a function.

    def _answer_specialize(self) -> None:
        content: dict[str, Any]
        try:
            status, content = 200, self._specialize()
        except _Refusal as refusal:
            status, content = refusal.status, {"error": str(refusal)}
        except Malformed as error:
            status, content = 400, {"error": str(error)}
        except Unsigned as error:
            status, content = 401, {"error": str(error)}
        self._answer(status, content)

    def _specialize(self) -> dict[str, Any]:
        archive = Archive(self.rfile, self._size(_ARCHIVE))
        try:
            order = function.read_order(self.headers.get("Qinling-Function") or "")
            if (order.worker_id, order.boot_id) != (self.server.worker_id, self.server.boot_id):
                raise _Refusal(421, "this is not that worker")
            if self.server.specialized is None and self.server.draining:
                raise _Refusal(410, "this worker is draining")
            return self.server.specialize(order, archive)
        except Conflict as error:
            raise _Refusal(409, str(error)) from None
        except NoRoom as error:
            raise _Refusal(507, str(error)) from None
        finally:
            archive.skip()

    # The wire.

    def _answer(self, status: int, content: dict[str, Any] | bytes, nonce: str = "") -> None:
        """In one write. An answer to a signed request, which has a nonce, is signed."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        head = (
            f"HTTP/1.1 {status} {_PHRASES[status]}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        )
        if nonce and self.server.specialized is not None:
            head += f"{SIGNATURE}: {self.server.specialized.sign(status, nonce, body)}\r\n"
        if self.close_connection:
            head += "Connection: close\r\n"
        self.wfile.write(head.encode() + b"\r\n" + body)

    def log_message(self, *_: Any) -> None:
        """A probe every few seconds is not worth a line."""


def _show(found: "Specialized", execution_id: str) -> tuple[int, dict[str, Any] | bytes]:
    execution = found.executor.executions.get(execution_id)
    if execution is None:
        raise _Refusal(404, "no such execution is known")
    if execution.answer is None:
        return 202, {"execution_id": execution_id, "status": "running"}
    return 200, execution.answer


def _read_object(body: bytes) -> dict[str, Any]:
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        raise Malformed("the body is no JSON") from None
    if not isinstance(said, dict):
        raise Malformed("the body is no JSON object")
    return said

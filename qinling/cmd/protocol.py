"""HTTP/1.1 by RFC 9112, where cheroot by itself is lenient.

What two programs could take for two different requests is refused here, so
that no proxy in front of the API can be made to let one pass inside another.
Refusals have the API's error body, and the connection ends after them.

A request is gathered without a thread, its body too where that is small: what its client takes for
it costs nobody else anything.
"""

import contextlib
import io
import logging
import re
import socket
import time
from typing import IO, TYPE_CHECKING, Any

from cheroot import makefile, wsgi
from cheroot import server as cheroot_server
from oslo_context import context as oslo_context
from oslo_log import log

from qinling import context
from qinling.api.middleware import body, errors, overload
from qinling.cmd import prompt

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

LOG = log.getLogger(__name__)

_HEADER = re.compile(rb"([!#$%&'*+.^`|~\w-]++):[ \t]*+([^\x00-\x08\x0a-\x1f\x7f]*+)\r\n")
_HOST = re.compile(rb"([\w.~%-]+|\[[\w:.%]+\])(:\d{1,5})?")
_METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Z-]+")
_NOT_IN_URI = re.compile(rb"[^\x21-\x7e]")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r\n]*)?\r\n")
_HEAD_END = b"\r\n\r\n"
# What a head says of a body that is small and comes by itself; the thread reads it strictly.
_SMALL = re.compile(rb"\r\nContent-Length:[ \t]*+(\d{1,5})[ \t]*+\r\n", re.IGNORECASE)
_IN_STEPS = re.compile(rb"\r\n(?:Expect|Transfer-Encoding):", re.IGNORECASE)

_MAX_LINE = 4096  # bytes of a chunk's head or of a trailer
_MAX_TRAILERS = 100
#: Bytes of a request line and headers.
MAX_HEAD = 64 * 1024
# Seconds from the first byte of a request to the end of its headers.
_HEAD_TIME = 5.0
# Seconds for a body, and bytes of it that give it one more: none may be slower for long.
_BODY_TIME = 10.0
_BODY_RATE = 64 * 1024
#: Bytes of a body that is small: it is gathered before a thread looks at it, and thrown away where
#: nobody has read it, so that its connection can be kept.
MAX_SMALL = 64 * 1024
# Bytes that are taken from a connection at a time.
_PIECE = 16 * 1024
# Seconds that what a client still sends is thrown away after its answer, and
# that it may pause meanwhile.
_LINGER = 5.0
_LINGER_PAUSE = 1.0

# Answers of cheroot that would blame the service for what the client did.
_CLIENTS_FAULT = {
    "501": "Transfer-Encoding: nothing but chunked is served.",
    "505": "Nothing but HTTP/1.0 and HTTP/1.1 is served.",
}


class Headers(cheroot_server.HeaderReader):
    """Header lines as they must be: no folding, no blank before the colon."""

    def __call__(
        self, rfile: IO[bytes], headers: dict[bytes, bytes] | None = None
    ) -> dict[bytes, bytes]:
        headers = {} if headers is None else headers
        while (line := rfile.readline()) != b"\r\n":
            found = _HEADER.fullmatch(line)
            if found is None:
                raise ValueError(f"Malformed header line {_shown(line)}.")
            name, value = found[1].title(), found[2].rstrip(b" \t")
            if b"_" in name:
                continue  # WSGI could not tell it from one with a dash
            # One that may stand only once is then refused for its comma.
            headers[name] = b", ".join((headers[name], value)) if name in headers else value
        return headers


class _Chunks(io.RawIOBase):
    """A body in chunks; it is a ValueError when they are malformed."""

    def __init__(self, rfile: IO[bytes]) -> None:
        self._rfile = rfile
        self._left = 0
        self.ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._left and not self.ended:
            self._begin()
        if self.ended:
            return 0
        piece = self._rfile.read(min(len(buffer), self._left))
        if not piece:
            raise ValueError("the connection ended within a chunk")
        buffer[: len(piece)] = piece
        self._left -= len(piece)
        if not self._left and self._rfile.read(2) != b"\r\n":
            raise ValueError("a chunk is longer than its size")
        return len(piece)

    def _begin(self) -> None:
        head = self._rfile.readline(_MAX_LINE)
        found = _CHUNK.fullmatch(head)
        if found is None:
            raise ValueError(f"a chunk cannot begin with {_shown(head)}")
        self._left = int(found[1], 16)
        if self._left:
            return
        for _ in range(_MAX_TRAILERS):
            line = self._rfile.readline(_MAX_LINE)
            if line == b"\r\n":
                self.ended = True
                return
            if not line.endswith(b"\r\n"):
                break
        raise ValueError("the trailers after the last chunk do not end")


class _Socket(socket.SocketIO):
    """A connection's reading end.

    :ivar until: when what is expected must be there, on the monotonic clock; the socket's timeout
        alone would start anew with each byte. None while nobody waits for it.
    :ivar of_body: what is expected is a body, whose time grows with what comes of it.
    """

    until: float | None = None
    of_body = False
    _sock: socket.socket

    def expect(self, *, body: bool) -> None:
        """What comes next; its time begins with the first wait."""
        self.of_body = body
        self.until = None

    def wait(self) -> float:
        """Seconds that are left for what is expected."""
        now = time.monotonic()
        if self.until is None:
            self.until = now + (_BODY_TIME if self.of_body else _HEAD_TIME)
        return self.until - now

    def readinto(self, buffer: Any) -> int | None:
        left = self.wait()
        if left <= 0:
            raise TimeoutError("timed out")
        self._sock.settimeout(left)
        count = super().readinto(buffer)
        self._count(count or 0)
        return count

    def take(self) -> bytes:
        """What has come, empty at the end.

        :raises BlockingIOError: nothing has.
        """
        piece = prompt.receive(self.fileno(), _PIECE)
        self._count(len(piece))
        return piece

    def _count(self, count: int) -> None:
        if self.of_body and self.until is not None:
            self.until += count / _BODY_RATE


class _Reader(makefile.StreamReader):
    raw: Any
    _read_buf: bytes
    _read_pos: int

    def __init__(self, sock: socket.socket, size: int) -> None:
        super(makefile.StreamReader, self).__init__(_Socket(sock, "rb"), size)
        self.bytes_read = 0
        # Whether the client will send no more.
        self.ended = False

    def gather(self) -> None:
        """Take what has come, without waiting for anything."""
        try:
            piece = self.raw.take()
        except BlockingIOError:
            return
        except OSError:
            # Whatever its name, it is the connection's end.
            piece = b""
        self.ended = not piece
        self._read_buf = self._read_buf[self._read_pos :] + piece
        self._read_pos = 0

    def is_due(self) -> bool:
        """Whether a thread has something to do with what has come.

        That is a whole request, what is too large to be gathered or is no request, and the
        client's end. For all else the time goes on.
        """
        if self.ended:
            return True
        end = self._read_buf.find(_HEAD_END, self._read_pos)
        if end < 0:
            if self.count() >= MAX_HEAD or self._read_buf.find(b"\n\n", self._read_pos) >= 0:
                return True
            if self.count():
                self.raw.wait()
            return False
        length = _small_length(self._read_buf, self._read_pos, end + 2)
        if len(self._read_buf) - end - len(_HEAD_END) >= length:
            return True
        if not self.raw.of_body:
            self.raw.expect(body=True)
        self.raw.wait()
        return False

    def has(self, size: int) -> bool:
        """Whether so many bytes have come, without waiting for them."""
        before = -1
        while before < self.count() < size:
            before = self.count()
            self.gather()
        return self.count() >= size

    def there(self) -> bytes:
        """What has come and was not read."""
        return self._read_buf[self._read_pos :]

    def count(self) -> int:
        """The bytes of that."""
        return len(self._read_buf) - self._read_pos

    def skip(self, size: int) -> None:
        """Throw so many of these away."""
        self._read_pos += size


def _small_length(data: bytes, begin: int, end: int) -> int:
    """Bytes of the body that belongs to a head in ``data``; 0 unless it is to be gathered."""
    found = _SMALL.search(data, begin, end)
    if found is None or _IN_STEPS.search(data, begin, end):
        return 0
    length = int(found[1])
    return length if length <= MAX_SMALL else 0


def _make_file(sock: socket.socket, mode: str, size: int) -> Any:
    return _Reader(sock, size) if mode == "rb" else makefile.MakeFile(sock, mode, size)


class _Request(cheroot_server.HTTPRequest):
    header_reader = Headers()
    # Whether its thread may have to wait for its body, which was not gathered.
    is_coming = False

    def parse_request(self) -> None:
        try:
            super().parse_request()
        finally:
            self.conn.socket.settimeout(self.server.timeout)

    def read_request_line(self) -> bool:
        try:
            read = super().read_request_line()  # type: ignore[no-untyped-call]
        except ValueError:
            return self._refuse("Malformed Request-URI.")
        if read and _NOT_IN_URI.search(self.uri):
            return self._refuse("The Request-URI has characters that must be percent-encoded.")
        if read and not _METHOD.fullmatch(self.method):
            return self._refuse("Malformed method.")
        return bool(read)

    def read_request_headers(self) -> bool:
        if not super().read_request_headers():  # type: ignore[no-untyped-call]
            return False
        fault = ambiguity(self.inheaders, self.response_protocol)
        return self._refuse(fault) if fault else True

    def respond(self) -> None:
        length = int(self.inheaders.get(b"Content-Length", 0))
        if self.chunked_read:
            self._chunks = _Chunks(self.conn.rfile)
            self.rfile = io.BufferedReader(self._chunks)
        else:
            self.rfile = cheroot_server.KnownLengthRFile(self.conn.rfile, length)
        if not self.conn.rfile.raw.of_body:
            self.conn.rfile.raw.expect(body=True)
            self.is_coming = self.chunked_read or self.conn.rfile.count() < length
        self.server.gateway(self).respond()
        self.ensure_headers_sent()
        if self.chunked_write:
            self.conn.wfile.write(b"0\r\n\r\n")

    def send_headers(self) -> None:
        # An answer has a time of its own.
        self.conn.socket.settimeout(self.server.timeout)
        if self.chunked_read:
            unread = not self._chunks.ended
        else:
            left = self.rfile.remaining
            # What has come is thrown away.
            unread = left > MAX_SMALL or not self.conn.rfile.has(left)
        late = int(self.status[:3]) == 408
        if unread or late:
            # Read on, it would be taken for the next request.
            self.close_connection = True
            # Who was too slow with a body gets no time for its end.
            self.conn.unread = not late
        super().send_headers()

    def simple_response(self, status: str, msg: str = "") -> None:
        """Answer what never reaches the application."""
        status = str(status)
        if status[:3] in _CLIENTS_FAULT:
            status, msg = "400 Bad Request", _CLIENTS_FAULT[status[:3]]
        code = int(status[:3])
        content = errors.fault_body(code, msg or f"{status[4:]}.")
        shown = content if getattr(self, "method", b"") != b"HEAD" else b""
        request_id = oslo_context.generate_request_id()
        context.RequestContext(request_id=request_id)
        LOG.info("What is no request was answered: %s %s", status, msg)
        head = (
            f"{self.server.protocol} {status}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(content)}\r\nConnection: close\r\n"
            f"x-openstack-request-id: {request_id}\r\n"
            + ("Allow: DELETE, GET, HEAD, POST, PUT\r\n" if code == 405 else "")
        )
        self.close_connection = True
        # Who was too slow with a request gets no time for its end.
        self.conn.unread = code != 408
        try:
            self.conn.wfile.write(head.encode("latin-1") + b"\r\n" + shown)
        except OSError as error:
            LOG.debug("The client is gone: %s", error)

    def _refuse(self, fault: str) -> bool:
        self.simple_response("400 Bad Request", fault)
        return False


class Gateway(wsgi.Gateway_10):
    """Tells the application what was seen to before a thread got the request."""

    def get_environ(self) -> "WSGIEnvironment":  # type: ignore[override]
        environ: WSGIEnvironment = super().get_environ()  # type: ignore[no-untyped-call]
        if self.req.conn.place is not None:
            environ[overload.HAS_PLACE] = True
        if self.req.is_coming:
            environ[body.IS_COMING] = True
        return environ


class Connection(cheroot_server.HTTPConnection):
    """A connection whose client gets to read why it was refused."""

    rfile: _Reader
    RequestHandlerClass = _Request
    # Whether the client may still be sending what nobody will read.
    unread = False
    # The place of the request that it was given a thread for.
    place: overload.Place | None = None

    def __init__(self, server: Any, sock: socket.socket, _makefile: object = None) -> None:
        super().__init__(server, sock, _make_file)

    def is_late(self) -> bool:
        """Whether what it began to send did not come in time."""
        until = self.rfile.raw.until
        return until is not None and until <= time.monotonic()

    def begin_anew(self) -> None:
        """What comes next is another request."""
        self.rfile.raw.expect(body=False)

    def communicate(self) -> bool:
        """Answer the request that has come; whether the connection is to be kept."""
        try:
            return bool(super().communicate())  # type: ignore[no-untyped-call]
        finally:
            self.begin_anew()
            if self.place is not None:
                self.place.give_back()
                self.place = None

    def close(self) -> None:
        # An error let out of here would end the whole server.
        # Without a place it may lose its answer, which is better than that others get none.
        if self.unread and self.server.lingering.acquire(blocking=False):
            try:
                with contextlib.suppress(OSError):
                    self._linger()
            finally:
                self.server.lingering.release()
        with contextlib.suppress(OSError):
            super().close()

    def _linger(self) -> None:
        """Closed with bytes unread, the connection is reset and the answer lost."""
        self.socket.shutdown(socket.SHUT_WR)
        self.socket.settimeout(_LINGER_PAUSE)
        until = time.monotonic() + _LINGER
        while time.monotonic() < until and self.socket.recv(65536):
            pass


def to_log(msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
    """What cheroot has to say."""
    LOG.log(level, msg, exc_info=traceback)


def _shown(line: bytes) -> str:
    return ascii(line[:40].decode("latin-1"))


def ambiguity(headers: dict[bytes, bytes], protocol: str) -> str | None:
    """What in ``headers`` keeps the end of the request, or its server, from being certain."""
    length = headers.get(b"Content-Length")
    if length is not None and not length.isdigit():
        return "Content-Length is not a number."
    encoding = headers.get(b"Transfer-Encoding")
    if encoding is not None:
        if encoding.lower() != b"chunked":
            return _CLIENTS_FAULT["501"]
        if length is not None:
            return "Content-Length and Transfer-Encoding exclude each other."
        if protocol != "HTTP/1.1":
            return "Transfer-Encoding: HTTP/1.0 has none."
    host = headers.get(b"Host")
    if host is None:
        return "Host is missing." if protocol == "HTTP/1.1" else None
    return None if _HOST.fullmatch(host) else "Host is malformed, or was given twice."

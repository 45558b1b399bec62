"""Executions that are too many, answered by the thread in which connections wait.

It takes a thread a fraction of a millisecond to refuse one; but many threads that do so want
Python's lock at a time, and those wait for it that have something to do, which is the more the more
are refused. So no thread gets to see what is refused. That is for the plain requests that clients
send; all others are left to the middleware.
"""

import contextlib
import email.utils
import io
import random
import socket
import uuid

from qinling.api.middleware import errors, overload
from qinling.cmd import prompt, protocol

_LINE = b"POST /v1/executions HTTP/1.1\r\n"
_END = b"\r\n\r\n"
# Headers of requests that are answered otherwise, or in steps.
_NOT_PLAIN = {b"Expect", b"Origin", b"Transfer-Encoding"}
_REFUSAL = overload.refusal()
_CONTENT = errors.fault_body(_REFUSAL.code, str(_REFUSAL))
_HEAD = (
    f"HTTP/1.1 {_REFUSAL.code} Too Many Requests\r\nRetry-After: {_REFUSAL.retry_after}\r\n"
    f"Content-Type: application/json\r\nContent-Length: {len(_CONTENT)}\r\nServer: qinling\r\n"
)


def is_execution(connection: protocol.Connection) -> bool:
    """Whether what has come begins as an execution, as clients send it, and with a whole head."""
    there = connection.rfile.there()
    return there.startswith(_LINE) and _END in there


def refuse(connection: protocol.Connection) -> bool:
    """Answer that it is too many, if it is a plain request that is there, and throw it away."""
    head, _, body = connection.rfile.there().partition(_END)
    length = _length(head[len(_LINE) :] + _END)
    if length is None or length > len(body):
        return False
    connection.rfile.skip(len(head) + len(_END) + length)
    connection.begin_anew()
    answer = _answer()
    with contextlib.suppress(OSError):
        if prompt.send(connection.socket.fileno(), answer) == len(answer):
            return True
    # The client has gone, or does not read its answers. What is closed can be read: its end.
    with contextlib.suppress(OSError):
        connection.socket.shutdown(socket.SHUT_RDWR)
    return True


def _length(lines: bytes) -> int | None:
    """Bytes of the body; None when the request is not a plain one."""
    try:
        headers = protocol.Headers()(io.BytesIO(lines))
        length = int(headers.get(b"Content-Length", 0))
    except ValueError:
        return None
    if (
        protocol.ambiguity(headers, "HTTP/1.1")
        or headers.keys() & _NOT_PLAIN
        or headers.get(b"Connection") == b"close"
    ):
        return None
    return length


def _answer() -> bytes:
    # Not oslo.context's: bytes of the system's are a call that gives up Python's lock, too.
    request_id = uuid.UUID(int=random.getrandbits(128), version=4)  # nosec B311
    head = (
        f"{_HEAD}x-openstack-request-id: req-{request_id}\r\n"
        f"Date: {email.utils.formatdate(usegmt=True)}\r\n\r\n"
    )
    return head.encode() + _CONTENT

"""Messages between the supervisor and a process that runs user code.

JSON behind its length, over a Unix socket. The supervisor takes nothing in it
on trust: a length above what was agreed, or anything that is no JSON, ends the slot.
The sender's pid is the kernel's word.
"""

import json
import math
import re
import select
import socket
import struct
from collections.abc import Callable
from typing import Any

from qinling.worker.function import DEPTH

#: Characters of an error's text, and bytes of a message beside the result in it.
TEXT = 4096
FRAME = 262144

_ANY = 1 << 32

_HEAD = struct.Struct("!I")
_CREDENTIALS = struct.Struct("3i")
_CHUNK = 65536

# One that does not end goes on to the end: else each quote in it would be looked at as a beginning.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def _refuse(name: str) -> None:
    raise ValueError(name)


def _finite(digits: str) -> float:
    """1e999 is JSON, and would be an infinity that is none."""
    number = float(digits)
    if math.isinf(number):
        raise ValueError(digits)
    return number


# json.dumps and json.loads make these anew at each call, where something is not as usual.
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
_DECODER = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite)


class Broken(Exception):
    """The other end is gone, or says what cannot be."""


def encode(message: Any) -> bytes:
    """:raises ValueError, TypeError, RecursionError: it is no JSON, as NaN is not."""
    try:
        return _ENCODER.encode(message).encode()
    except UnicodeEncodeError:
        # Half a surrogate pair has a form in JSON and none in UTF-8.
        return json.dumps(message, allow_nan=False).encode()


def decode(body: bytes) -> Any:
    """What can be encoded again.

    :raises ValueError, RecursionError: it is no JSON, or has a number that no float can be.
    """
    return _DECODER.decode(body.decode())


def is_deep(body: bytes, most: int = DEPTH) -> bool:
    """Whether JSON is nested deeper than that; it may be larger than a parser's stack allows."""
    if body.count(b"[") + body.count(b"{") <= most:
        return False
    # Of brackets alone, all of one kind, each step takes the innermost ones.
    left = _STRING.sub(b"", body).translate(_ONE_KIND, _NO_BRACKETS)
    for _ in range(most):
        left = left.replace(b"[]", b"")
    return bool(left)


def frame(body: bytes) -> bytes:
    """A message as it is sent."""
    return _HEAD.pack(len(body)) + body


def pack(message: Any) -> bytes:
    """Both of them."""
    return frame(encode(message))


class Reader:
    """Gathers the next message of a socket."""

    def __init__(self, end: socket.socket, most: int) -> None:
        self._end = end
        self._most = most
        self._found = b""

    def read(self) -> tuple[bool, Any]:
        """Whether a message is there, and it; reads from the socket once.

        A socket that blocks waits for more; one that does not raises BlockingIOError.

        :raises Broken: there will be none, or more than one.
        """
        try:
            chunk = self._end.recv(_CHUNK)
        except ConnectionError:
            chunk = b""
        if not chunk:
            raise Broken("it has closed its channel")
        self._found = found = self._found + chunk if self._found else chunk
        if len(found) < _HEAD.size:
            return False, None
        (length,) = _HEAD.unpack_from(found)
        if length > self._most:
            raise Broken("it has sent too much")
        if len(found) < _HEAD.size + length:
            return False, None
        if len(found) > _HEAD.size + length:
            raise Broken("it has sent more than one answer")
        self._found = b""
        body = found[_HEAD.size :]
        if is_deep(body, DEPTH + 1):
            raise Broken("it has sent what is nested too deep")
        try:
            return True, decode(body)
        except (ValueError, RecursionError):
            raise Broken("it has sent no JSON") from None


def receive(end: socket.socket) -> Any:
    """The next message, waited for; for whoever trusts the other end.

    :raises Broken: there will be none.
    """
    reader = Reader(end, _ANY)
    while True:
        whole, message = reader.read()
        if whole:
            return message


def waiter(end: socket.socket) -> Callable[[float], bool]:
    """Waits so many seconds for something to be received; whether there is."""
    poll = select.poll()
    poll.register(end, select.POLLIN)
    return lambda seconds: bool(poll.poll(seconds * 1000))


def greet(end: socket.socket) -> None:
    """Say that this process is there; the kernel adds who it is."""
    end.send(b"!")


def greeting(end: socket.socket) -> int:
    """The pid of the process that greets, which a socket made for it tells (SO_PASSCRED)."""
    try:
        said, extra, _, _ = end.recvmsg(1, socket.CMSG_SPACE(_CREDENTIALS.size))
    except ConnectionError:
        said, extra = b"", []
    for level, kind, content in extra:
        if said and (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            return int(_CREDENTIALS.unpack(content)[0])
    raise Broken("it has closed its channel")

"""Requests to a worker and its answers carry a signature, made with the worker's own key.

Who has the key: the control plane, and the supervisor of that worker. Both use
this module, and no process that runs user code imports a key. A request is
bound to its method, path, time, nonce and body; an answer to its status, its
body and the nonce of the request that it answers.
"""

import hashlib
import hmac
import os
import threading
import time
from collections.abc import Callable

from qinling.worker.function import Unsigned as Unsigned

TIME = "Qinling-Time"
NONCE = "Qinling-Nonce"
SIGNATURE = "Qinling-Signature"

#: Seconds that a request's time may differ from the reader's clock.
WINDOW = 60.0
#: Bytes of a key: as many as SHA-256 gives.
KEY_SIZE = 32
_NONCE_SIZE = 16
#: Nonces that are remembered; two minutes at more than 150 requests a second.
_REMEMBERED = 20_000


#: Gives a header by its name, whatever its case; as the ``get`` of headers does.
_Header = Callable[[str], str | None]


class Nonces:
    """Those seen within the window, in bounded memory. Safe to use from several threads.

    When there are too many, the oldest is forgotten and with it every request
    that is not younger: refusing a late one is better than serving one twice.
    """

    def __init__(self, most: int = _REMEMBERED) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._seen: dict[str, float] = {}
        self._forgotten = 0.0

    def add(self, nonce: str, made: float) -> None:
        """:raises Unsigned: it was seen, or is no younger than one that was forgotten."""
        with self._lock:
            if made <= self._forgotten or nonce in self._seen:
                raise Unsigned("this request was seen before")
            self._seen[nonce] = made
            if len(self._seen) > self._most:
                self._forgotten = max(self._forgotten, self._seen.pop(next(iter(self._seen))))


def sign_request(key: bytes, method: str, path: str, body: bytes) -> dict[str, str]:
    """The headers that a request needs."""
    made, nonce = f"{time.time():.6f}", os.urandom(_NONCE_SIZE).hex()
    signature = _sign(key, f"{method}\n{path}\n{made}\n{nonce}\n", body)
    return {TIME: made, NONCE: nonce, SIGNATURE: signature}


def check_request(
    key: bytes, method: str, path: str, get: _Header, body: bytes, nonces: Nonces
) -> str:
    """The nonce of a request that was made with the key.

    :raises Unsigned: it was not, or not now, or was seen before.
    """
    made, nonce = get(TIME) or "", get(NONCE) or ""
    expected = _sign(key, f"{method}\n{path}\n{made}\n{nonce}\n", body)
    _compare(expected, get(SIGNATURE) or "")
    try:
        seconds = float(made)
    except ValueError:
        raise Unsigned(f"{TIME} is no number of seconds") from None
    # "not <=": a NaN is within nothing.
    if not abs(time.time() - seconds) <= WINDOW:
        raise Unsigned(f"{TIME} is more than {WINDOW:g} s off")
    if len(nonce) != 2 * _NONCE_SIZE:
        raise Unsigned(f"{NONCE} is not {2 * _NONCE_SIZE} hexadecimal digits")
    nonces.add(nonce, seconds)
    return nonce


def sign_answer(key: bytes, status: int, nonce: str, body: bytes) -> str:
    """The signature of the answer to the request with this nonce."""
    return _sign(key, f"{status}\n{nonce}\n", body)


def check_answer(key: bytes, status: int, nonce: str, get: _Header, body: bytes) -> None:
    """:raises Unsigned: the answer was not made with the key, or answers something else."""
    _compare(sign_answer(key, status, nonce, body), get(SIGNATURE) or "")


def _sign(key: bytes, head: str, body: bytes) -> str:
    text = head + hashlib.sha256(body).hexdigest()
    # Not hmac.digest, which lets go of the GIL: with it a busy worker changes threads twice more.
    return hmac.new(key, text.encode(errors="replace"), "sha256").hexdigest()


def _compare(expected: str, found: str) -> None:
    # As bytes: text that is not ASCII is an error to compare_digest.
    if not hmac.compare_digest(expected.encode(), found.encode(errors="replace")):
        raise Unsigned("the signature is missing or wrong")

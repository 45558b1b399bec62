"""Bodies: no larger than their route allows, and nothing but a JSON object.

What Pecan and WSME make of a list, of deep nesting, of bytes that are no UTF-8
or of a null is an error 500 or a surprise, so they end here.
"""

import contextlib
import io
import json
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from qinling import exceptions

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

#: Is in the environ of a request whose body the server has not gathered: who reads it may wait.
IS_COMING = "qinling.body_is_coming"

# Bytes of a body, where there is no other limit.
MAX_BODY = 64 * 1024
MAX_DEPTH = 64
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
# A name of JSON that WSME knows and Pecan does not, which would take a client's
# attributes for the arguments of our methods.
_CHECKED_JSON = "text/javascript"
# Possessive, and content to meet no closing quote: it never goes back, so that
# its time grows no faster than the body.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")


class JsonBody:
    """Reads and checks the body of a call, and leaves the nulls out.

    :param limits: bytes of a body of calls of a noun (``/v1/<noun>/…``).
    """

    def __init__(
        self, application: "WSGIApplication", limits: Mapping[str, int], arrivals: "Arrivals"
    ) -> None:
        self._application = application
        self._limits = limits
        self._arrivals = arrivals

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        # Answers are JSON whatever a client says that it accepts.
        environ["HTTP_ACCEPT"] = "application/json"
        path = environ.get("PATH_INFO", "")
        _check_path(path)
        if environ["REQUEST_METHOD"] in _WITH_BODY:
            content = self._arrivals.read(environ, self._limit(path))
            _check_type(environ)
            replace(environ, without_nulls(content or b"{}"))
        else:
            _check_length(environ, self._limit(path))
            # Nobody looks at it, and what nobody reads cannot be wrong.
            environ.pop("CONTENT_TYPE", None)
            replace(environ, b"")
        return self._application(environ, start_response)

    def _limit(self, path: str) -> int:
        """The bytes that a body may have at ``path``, which is read as the routing reads it."""
        parts = [part for part in path.split("/") if part]
        if len(parts) > 1 and parts[0] == "v1":
            return self._limits.get(parts[1], MAX_BODY)
        return MAX_BODY


class Stream:
    """A body as it comes, chunked or not.

    :raises BodyTooLarge: it says that it has more than ``limit`` bytes.
    :raises LengthRequired: it is chunked, and the server does not put chunks together.
    """

    def __init__(self, environ: "WSGIEnvironment", limit: int) -> None:
        self._chunked = bool(environ.get("HTTP_TRANSFER_ENCODING"))
        if self._chunked and not environ.get("wsgi.input_terminated"):
            # uWSGI hands on nothing, which would be taken for an empty body.
            raise exceptions.LengthRequired(
                "Transfer-Encoding: this server takes no body in chunks; send Content-Length."
            )
        self._input = environ["wsgi.input"]
        self._limit = limit
        self._length = limit + 1 if self._chunked else _check_length(environ, limit)
        self._left = self._length

    def read(self, size: int) -> bytes:
        """The next bytes, up to ``size`` of them; none at the end.

        :raises BodyTooLarge: there are more than ``limit``.
        :raises BadRequest: it does not come whole. :raises BodyTooSlow: nor in time.
        """
        wanted = min(size, self._left)
        try:
            content: bytes = self._input.read(wanted) if wanted else b""
        except TimeoutError as error:
            raise exceptions.BodyTooSlow(
                "The body did not come in time; send it again, without pauses."
            ) from error
        except Exception as error:
            # The client is gone, or its chunks are malformed: each server says so with
            # errors of its own.
            reason = str(error) or type(error).__name__
            raise exceptions.BadRequest(f"The body cannot be read: {reason}.") from error
        self._left -= len(content)
        if self._chunked and not self._left:
            raise too_large(self._limit)
        if not self._chunked and len(content) < wanted:
            raise exceptions.BadRequest(
                f"The body ended after {self._length - self._left} of the {self._length} bytes of "
                "Content-Length."
            )
        return content


class Arrivals:
    """Bodies that threads wait for, which their clients make as long as they like.

    :param most: at a time. More are answered with 429.
    """

    def __init__(self, most: int) -> None:
        self._places = threading.Semaphore(most)

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """:raises Overloaded: there are enough."""
        if not self._places.acquire(blocking=False):
            raise exceptions.Overloaded(
                "As many bodies are on their way here as can be; try again in a moment."
            )
        try:
            yield
        finally:
            self._places.release()

    def read(self, environ: "WSGIEnvironment", limit: int) -> bytes:
        """The whole body; errors as of ``Stream``, and of ``one`` if it has to be waited for."""
        stream = Stream(environ, limit)
        with self.one() if IS_COMING in environ else contextlib.nullcontext():
            return stream.read(limit + 1)


def without_nulls(content: bytes) -> bytes:
    """A body as if its null attributes had not been sent; errors as of ``parse``."""
    parsed = parse(content)
    given = {name: value for name, value in parsed.items() if value is not None}
    return content if len(given) == len(parsed) else json.dumps(given).encode()


def parse(content: bytes) -> dict[str, Any]:
    """The JSON object in a body.

    :raises BadRequest: it is no JSON object, or not one that can be stored.
    """
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise exceptions.BadRequest(
            f"The body is not UTF-8: byte {error.start} cannot be decoded."
        ) from error
    _check_depth(content)
    try:
        parsed = json.loads(text, parse_constant=_refuse_constant)
    except ValueError as error:
        raise exceptions.BadRequest(f"The body is not JSON: {error}.") from error
    if not isinstance(parsed, dict):
        raise exceptions.BadRequest("The body is not a JSON object.")
    if "\\u" in text:
        for name, value in parsed.items():
            _check_text(name, name)
            _check_text(name, value)
    return parsed


def replace(environ: "WSGIEnvironment", content: bytes) -> None:
    """Put ``content`` where the body was."""
    environ["wsgi.input"] = io.BytesIO(content)
    # WebOb would write it into a file to make it so.
    environ["webob.is_body_seekable"] = True
    environ["CONTENT_LENGTH"] = str(len(content))
    environ.pop("HTTP_TRANSFER_ENCODING", None)


def _check_path(path: str) -> None:
    try:
        path.isascii() or path.encode("latin-1").decode()
    except UnicodeDecodeError as error:
        raise exceptions.BadRequest("The URL is not UTF-8.") from error


def _check_length(environ: "WSGIEnvironment", limit: int) -> int:
    """The length that the client gives, 0 if it gives none."""
    given = environ.get("CONTENT_LENGTH") or "0"
    if not (given.isascii() and given.isdigit()):
        raise exceptions.BadRequest(f"Content-Length {given[:40]!r} is not a number.")
    if len(given) > 18 or int(given) > limit:
        raise too_large(limit)
    return int(given)


def too_large(limit: int) -> exceptions.BodyTooLarge:
    return exceptions.BodyTooLarge(f"The body is larger than the {limit} bytes allowed here.")


def _check_type(environ: "WSGIEnvironment") -> None:
    given = environ.get("CONTENT_TYPE", "")
    kind = given.partition(";")[0].strip().lower()
    # A client that names no type means JSON.
    if given and kind != "application/json":
        raise exceptions.UnsupportedMediaType(
            f"Content-Type {given[:80]!r} is not served here; send application/json."
        )
    environ["CONTENT_TYPE"] = _CHECKED_JSON


def _check_depth(content: bytes) -> None:
    if content.count(b"[") + content.count(b"{") <= MAX_DEPTH:
        return
    depth = 0
    for bracket in _BRACKET.finditer(_STRING.sub(b"", content)):
        depth += 1 if bracket[0] in b"[{" else -1
        if depth > MAX_DEPTH:
            raise exceptions.BadRequest(
                f"The body is nested deeper than the {MAX_DEPTH} levels allowed."
            )


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _check_text(name: str, value: Any) -> None:
    """Refuse what can be written in JSON but not in UTF-8: lone surrogates."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise exceptions.BadRequest(
            f"{ascii(name)[1:-1]}: has half of a surrogate pair, which is no character."
        ) from error

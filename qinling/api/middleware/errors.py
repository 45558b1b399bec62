"""The outermost middleware: whatever goes wrong, the answer is the contract's.

Errors come here as exceptions, and as answers that Pecan, WSME, oslo and
keystonemiddleware have made, each with a body and a content type of its own.
"""

import http
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from oslo_log import log

from qinling import exceptions

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

LOG = log.getLogger(__name__)

REQUEST_ID = "openstack.request_id"
_REQUEST_ID_HEADER = "x-openstack-request-id"
_RETRY_AFTER = "5"  # seconds
# Characters of a ``faultstring``: what a client sent is not sent back at length.
_LONGEST_FAULT = 1000

_WORDS = {
    401: "The request needs a valid token in X-Auth-Token.",
    404: "There is nothing at {path}.",
    405: "Method {method} is not allowed on {path}.",
    503: "The service, or one that it needs, is away for now; try again.",
}


class Errors:
    """Gives every error the contract's body and headers."""

    def __init__(self, application: "WSGIApplication") -> None:
        self._application = application

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        answer = _Answer()
        try:
            body = self._application(environ, answer)
        except exceptions.QinlingError as error:
            return _refuse(environ, start_response, error)
        except Exception:
            LOG.exception("%s failed", shown(environ))
            return _answer(environ, start_response, 500, _hidden(environ), [])
        if answer.code < 400:
            start_response(answer.status, answer.headers)
            return body
        fault = _fault(body)
        if answer.code >= 500 and answer.code != 503:
            fault = _hidden(environ)
        elif fault is None:
            fault = _words(environ, answer.code)
        kept = [
            (name, value)
            for name, value in answer.headers
            if name.lower() not in ("content-type", "content-length", _REQUEST_ID_HEADER)
        ]
        return _answer(environ, start_response, answer.code, fault, kept)


class _Answer:
    """Stands in for ``start_response`` until it is known what to answer."""

    status = "500 Internal Server Error"
    code = 500
    headers: list[tuple[str, str]]

    def __call__(self, status: str, headers: list[tuple[str, str]], _exc_info: Any = None) -> Any:
        self.status, self.code, self.headers = status, int(status[:3]), headers
        return _no_write


def _no_write(_data: bytes) -> None:
    raise RuntimeError("write() of PEP 3333 is not served")


def _fault(body: Iterable[bytes]) -> str | None:
    """The text of an answer that is the contract's already."""
    try:
        content = b"".join(body)
    finally:
        close = getattr(body, "close", None)
        if close is not None:
            close()
    if b"faultstring" not in content:
        return None
    try:
        fault = json.loads(content)
    except ValueError:
        return None
    return fault["faultstring"] if isinstance(fault, dict) and "faultstring" in fault else None


def _words(environ: "WSGIEnvironment", code: int) -> str:
    words = _WORDS.get(code)
    if words is None:
        return f"{http.HTTPStatus(code).phrase}."
    return words.format(method=environ["REQUEST_METHOD"], path=environ.get("PATH_INFO", "/"))


def _hidden(environ: "WSGIEnvironment") -> str:
    return (
        "The service failed to answer this request; its log tells why under "
        f"{environ.get(REQUEST_ID, 'no request id')}."
    )


def _refuse(
    environ: "WSGIEnvironment", start_response: "StartResponse", error: exceptions.QinlingError
) -> list[bytes]:
    headers = []
    if error.retry_after is not None:
        headers.append(("Retry-After", str(error.retry_after)))
    if isinstance(error, exceptions.MethodNotAllowed):
        headers.append(("Allow", ", ".join(error.allowed)))
    if isinstance(error, exceptions.BodyTooLarge):
        # Its rest is not read, so the connection is of no further use.
        headers.append(("Connection", "close"))
    if error.code >= 500 and error.code != 503:
        LOG.error("%s failed", shown(environ), exc_info=error)
        return _answer(environ, start_response, error.code, _hidden(environ), headers)
    if error.code == 503:
        # What is away makes every request fail: one line for each, and no traceback.
        LOG.warning("%s is refused: %s%s", shown(environ), error, _cause(error))
    return _answer(environ, start_response, error.code, str(error), headers)


def _cause(error: BaseException) -> str:
    """The error that stands behind another one, on a line."""
    cause = error.__cause__
    return "" if cause is None else f" ({type(cause).__name__}: {' '.join(str(cause).split())})"


def _answer(
    environ: "WSGIEnvironment",
    start_response: "StartResponse",
    code: int,
    fault: str,
    headers: list[tuple[str, str]],
) -> list[bytes]:
    content = fault_body(code, fault)
    named = {name.lower() for name, _ in headers}
    headers = [
        *headers,
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(content))),
    ]
    if code in (429, 503) and "retry-after" not in named:
        headers.append(("Retry-After", _RETRY_AFTER))
    if REQUEST_ID in environ:
        headers.append((_REQUEST_ID_HEADER, environ[REQUEST_ID]))
    start_response(f"{code} {http.HTTPStatus(code).phrase}", headers)
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [content]


def shown(environ: "WSGIEnvironment") -> str:
    """The method and path for a log: no line breaks from a client, and no novels."""
    return ascii(f"{environ['REQUEST_METHOD']} {environ.get('PATH_INFO', '')[:200]}")[1:-1]


def fault_body(code: int, fault: str) -> bytes:
    """The contract's error body."""
    if len(fault) > _LONGEST_FAULT:
        fault = f"{fault[:_LONGEST_FAULT]}…"
    return json.dumps(
        {
            "faultcode": "Client" if code < 500 else "Server",
            "faultstring": fault,
            "debuginfo": None,
        }
    ).encode()

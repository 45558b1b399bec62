"""Calling a WSGI application as a server does, byte for byte."""

import io
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


@dataclass(frozen=True, slots=True)
class Answer:
    """``headers`` have lower-case names; one that came twice has its values joined."""

    code: int
    headers: dict[str, str]
    body: bytes

    def fault(self) -> str:
        """The contract's error body, checked; its text."""
        assert self.headers["content-type"] == "application/json"
        assert int(self.headers["content-length"]) == len(self.body)
        content = json.loads(self.body)
        assert set(content) == {"faultcode", "faultstring", "debuginfo"}
        assert content["faultcode"] == ("Client" if self.code < 500 else "Server")
        assert content["debuginfo"] is None
        text = content["faultstring"]
        assert isinstance(text, str)
        assert text
        return text


def environ(method: str = "GET", path: str = "/v1/runtimes", **more: Any) -> dict[str, Any]:
    """A request of HTTP/1.1; what is in `more` goes over it."""
    return {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "SERVER_NAME": "example.test",
        "SERVER_PORT": "7070",
        "wsgi.input": io.BytesIO(b""),
        "wsgi.url_scheme": "http",
    } | more


def call(application: Application, request: dict[str, Any]) -> Answer:
    """The whole answer to a request."""
    started: list[tuple[str, list[tuple[str, str]]]] = []

    def start_response(status: str, headers: list[tuple[str, str]], _exc: Any = None) -> Any:
        started.append((status, headers))

    body = application(request, start_response)
    try:
        content = b"".join(body)
    finally:
        close = getattr(body, "close", None)
        if close is not None:
            close()
    [(status, given)] = started
    headers: dict[str, str] = {}
    for name, value in given:
        name = name.lower()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return Answer(int(status[:3]), headers, content)

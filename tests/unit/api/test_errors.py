"""The outermost middleware: every error has the contract's body, whoever made it."""

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from qinling import exceptions
from qinling.api.middleware.errors import REQUEST_ID, Errors
from tests.unit.api.wsgi import Answer, Application, call, environ


def answering(
    status: str, body: bytes = b"", headers: tuple[tuple[str, str], ...] = ()
) -> Application:
    """An application that answers this to everything."""

    def application(_environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response(status, [*headers, ("Content-Length", str(len(body)))])
        return [body]

    return application


def raising(error: Exception) -> Application:
    """An application in which this goes wrong with everything."""

    def application(_environ: dict[str, Any], _start_response: Any) -> list[bytes]:
        raise error

    return application


def ask(application: Application, method: str = "GET", **more: Any) -> Answer:
    return call(Errors(application), environ(method, **more))  # type: ignore[arg-type]


def test_a_good_answer_passes_as_it_is() -> None:
    answer = ask(answering("200 OK", b'{"a": 1}', (("Content-Type", "application/json"),)))
    assert (answer.code, answer.body) == (200, b'{"a": 1}')
    assert answer.headers == {"content-type": "application/json", "content-length": "8"}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (exceptions.BadRequest("name: too long."), 400),
        (exceptions.NotAllowed("runtime:create"), 403),
        (exceptions.NotFound.of("Runtime", "1234"), 404),
        (exceptions.Conflict("image: not now."), 409),
        (exceptions.UnsupportedMediaType("Content-Type: no."), 415),
        (exceptions.DatabaseUnavailable("The database does not answer."), 503),
    ],
)
def test_an_error_of_ours_is_told_with_its_code_and_text(
    error: exceptions.QinlingError, code: int
) -> None:
    answer = ask(raising(error))
    assert answer.code == code
    assert answer.fault() == str(error)


def test_a_policy_refusal_has_the_words_of_the_contract() -> None:
    assert "Operation not allowed" in ask(raising(exceptions.NotAllowed("runtime:list"))).fault()


#: As keystonemiddleware, Pecan and others answer: bodies and content types of their own.
FOREIGN = {
    "401 of keystonemiddleware": (
        "401 Unauthorized",
        b"The request you have made requires authentication.",
        (("Content-Type", "text/plain"), ("WWW-Authenticate", "Keystone uri='http://k/v3'")),
    ),
    "503 of keystonemiddleware": ("503 Service Unavailable", b"", ()),
    "404 of Pecan": ("404 Not Found", b"404 Not Found\n\n", (("Content-Type", "text/plain"),)),
    "400 in HTML": ("400 Bad Request", b"<html>", (("Content-Type", "text/html"),)),
    "413 of oslo": ("413 Request Entity Too Large", b"Request is too large.", ()),
    "405 without a body": ("405 Method Not Allowed", b"", (("Allow", "GET"),)),
    "400 with a list": ("400 Bad Request", b'["faultstring"]', ()),
    "400 with broken JSON": ("400 Bad Request", b'{"faultstring": ', ()),
    "406 of WebOb": ("406 Not Acceptable", b"\xff\xfe", ()),
}


@pytest.mark.parametrize(("status", "body", "headers"), FOREIGN.values(), ids=FOREIGN)
def test_an_answer_that_something_else_made_gets_the_body_of_the_contract(
    status: str, body: bytes, headers: tuple[tuple[str, str], ...]
) -> None:
    answer = ask(answering(status, body, headers))
    assert answer.code == int(status[:3])
    answer.fault()
    for name, value in headers:
        if name != "Content-Type":
            assert answer.headers[name.lower()] == value


def test_what_the_words_name_is_the_request() -> None:
    assert "/v1/nothing" in ask(answering("404 Not Found"), PATH_INFO="/v1/nothing").fault()
    words = ask(answering("405 Method Not Allowed"), method="PATCH").fault()
    assert "PATCH" in words
    assert "/v1/runtimes" in words
    assert "X-Auth-Token" in ask(answering("401 Unauthorized")).fault()


def test_an_answer_that_is_the_contracts_already_keeps_its_text() -> None:
    body = json.dumps(
        {"faultcode": "Client", "faultstring": "image: is empty", "debuginfo": None}
    ).encode()
    assert ask(answering("400 Bad Request", body)).fault() == "image: is empty"


SECRET = "connection = mysql://user:secret@db"


@pytest.mark.parametrize(
    "application",
    [
        raising(RuntimeError(SECRET)),
        raising(RecursionError(SECRET)),
        raising(exceptions.OrchestratorError(SECRET)),
        raising(exceptions.InvalidTransition(SECRET)),
        answering("500 Internal Server Error", SECRET.encode()),
        answering("502 Bad Gateway", json.dumps({"faultstring": SECRET}).encode()),
        answering(
            "500 Internal Server Error",
            json.dumps({"faultstring": SECRET, "debuginfo": "Traceback: ..."}).encode(),
        ),
    ],
)
def test_what_went_wrong_within_is_told_by_its_request_id_and_not_by_its_text(
    application: Application,
) -> None:
    answer = ask(application, **{REQUEST_ID: "req-1234"})
    assert answer.code in (500, 502)
    assert "secret" not in answer.body.decode()
    assert "Traceback" not in answer.body.decode()
    assert "req-1234" in answer.fault()
    assert answer.headers["x-openstack-request-id"] == "req-1234"


@pytest.mark.parametrize(
    "error", [RuntimeError("a mistake"), exceptions.InvalidTransition("a mistake")]
)
def test_what_went_wrong_within_is_in_the_log_with_its_traceback(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    ask(raising(error))
    [record] = [one for one in caplog.records if one.levelno >= logging.ERROR]
    assert record.exc_info
    assert record.exc_info[1] is error


def test_a_client_cannot_write_lines_into_the_log(caplog: pytest.LogCaptureFixture) -> None:
    ask(raising(RuntimeError("a mistake")), PATH_INFO="/v1/\r\nERROR all is lost" + "x" * 5000)
    [record] = [one for one in caplog.records if one.levelno >= logging.ERROR]
    assert "\n" not in record.getMessage()
    assert len(record.getMessage()) < 500


def test_what_a_client_sent_is_not_sent_back_at_length() -> None:
    answer = ask(raising(exceptions.BadRequest("name: " + "x" * 1_000_000)))
    assert answer.fault().startswith("name: xxx")
    assert len(answer.body) < 10_000


@pytest.mark.parametrize(
    "application",
    [
        raising(exceptions.DatabaseUnavailable("away")),
        raising(exceptions.Unavailable("away")),
        answering("503 Service Unavailable"),
        answering("429 Too Many Requests"),
    ],
)
def test_who_is_asked_to_try_again_is_told_when(application: Application) -> None:
    assert int(ask(application).headers["retry-after"]) > 0


def test_a_time_to_try_again_that_is_there_is_kept() -> None:
    answer = ask(answering("503 Service Unavailable", b"", (("Retry-After", "120"),)))
    assert answer.headers["retry-after"] == "120"


def test_other_errors_name_no_time_to_try_again() -> None:
    for application in (answering("500 Oh"), answering("400 No"), raising(ValueError())):
        assert "retry-after" not in ask(application).headers


def test_a_refused_method_names_those_that_are_there() -> None:
    error = exceptions.MethodNotAllowed("PATCH", "/v1/runtimes", ["GET", "POST"])
    assert ask(raising(error)).headers["allow"] == "GET, POST"


def test_a_body_that_was_not_read_ends_the_connection() -> None:
    answer = ask(raising(exceptions.BodyTooLarge("too large")), method="POST")
    assert (answer.code, answer.headers["connection"]) == (413, "close")


def test_a_head_gets_the_headers_of_the_error_alone() -> None:
    answer = ask(raising(exceptions.NotFound("no")), method="HEAD")
    assert answer.body == b""
    assert answer.headers["content-type"] == "application/json"
    assert int(answer.headers["content-length"]) > 0


def test_the_request_id_is_told_once() -> None:
    mine = (("X-OpenStack-Request-Id", "req-mine"),)
    answer = ask(answering("404 Not Found", b"", mine), **{REQUEST_ID: "req-mine"})
    assert answer.headers["x-openstack-request-id"] == "req-mine"


class Closing:
    """A body that notes whether it was closed."""

    closed = False

    def __iter__(self) -> Iterator[bytes]:
        yield b"text"

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request"])
def test_a_body_is_closed_whether_it_was_sent_or_replaced(status: str) -> None:
    body = Closing()

    def application(_environ: Any, start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response(status, [])
        return body

    ask(application)
    assert body.closed

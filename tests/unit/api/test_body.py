"""Bodies: what reaches the controllers is a JSON object of bounded size and depth, or nothing."""

import io
import json
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qinling import exceptions
from qinling.api.middleware.body import (
    IS_COMING,
    MAX_BODY,
    MAX_DEPTH,
    Arrivals,
    JsonBody,
    parse,
    without_nulls,
)
from tests.unit.api.wsgi import environ


class Seen:
    """An application that notes the request as it comes through."""

    def __init__(self) -> None:
        self.environ: dict[str, Any] = {}
        self.body = b""

    def __call__(self, environ: dict[str, Any], _start_response: Any) -> list[bytes]:
        self.environ = environ
        self.body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        return []


class Endless(io.RawIOBase):
    """A body that never ends; how much of it was taken is noted."""

    taken = 0

    def read(self, size: int = -1) -> bytes:
        assert size >= 0, "all of it was asked for"
        self.taken += size
        return b"x" * size


def send(
    method: str = "POST",
    content: bytes | None = None,
    limits: Mapping[str, int] = MappingProxyType({}),
    **more: Any,
) -> Seen:
    """Send a body with its length, or whatever `more` says."""
    if content is not None:
        more = {"wsgi.input": io.BytesIO(content), "CONTENT_LENGTH": str(len(content))} | more
    seen = Seen()
    application = JsonBody(seen, limits, Arrivals(1))
    list(application(environ(method, **more), lambda *_: lambda _data: None))  # type: ignore[arg-type]
    return seen


def chunked(content: Any) -> dict[str, Any]:
    """A body without a length, as a server hands it on that has put the chunks together."""
    stream = content if not isinstance(content, bytes) else io.BytesIO(content)
    return {
        "wsgi.input": stream,
        "wsgi.input_terminated": True,
        "HTTP_TRANSFER_ENCODING": "chunked",
    }


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_an_object_comes_through_without_its_nulls(method: str) -> None:
    sent = {"image": "ünïcödé 😀", "name": None, "labels": {"a": None}, "size": 1.5, "ok": True}
    seen = send(method, json.dumps(sent).encode(), CONTENT_TYPE="application/json")
    del sent["name"]
    assert json.loads(seen.body) == sent


def test_no_body_is_an_empty_object() -> None:
    assert json.loads(send("POST").body) == {}
    assert json.loads(send("POST", b"").body) == {}
    assert json.loads(send("POST", **chunked(b"")).body) == {}


def test_a_body_in_chunks_is_read_to_its_end_and_has_a_length_from_there_on() -> None:
    content = json.dumps({"image": "x" * 50_000}).encode()
    seen = send("POST", **chunked(content))
    assert json.loads(seen.body) == json.loads(content)
    assert "HTTP_TRANSFER_ENCODING" not in seen.environ


def test_chunks_that_the_server_keeps_to_itself_are_no_empty_body() -> None:
    kept = {"wsgi.input": io.BytesIO(), "HTTP_TRANSFER_ENCODING": "chunked"}
    with pytest.raises(exceptions.LengthRequired, match="send Content-Length"):
        send("POST", **kept)


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_body_at_its_limit_passes_and_one_byte_more_does_not(method: str) -> None:
    content = b'{"a": "' + b"x" * (MAX_BODY - 9) + b'"}'
    assert len(content) == MAX_BODY
    send(method, content)
    send(method, **chunked(content))
    with pytest.raises(exceptions.BodyTooLarge, match=str(MAX_BODY)):
        send(method, content + b" ")
    with pytest.raises(exceptions.BodyTooLarge, match=str(MAX_BODY)):
        send(method, **chunked(content + b" "))


@pytest.mark.parametrize(
    ("path", "limit"),
    [
        ("/v1/large", 2 * MAX_BODY),
        ("/v1/large/", 2 * MAX_BODY),
        ("//v1//large/1/2", 2 * MAX_BODY),
        ("/v1/small/1", 10),
        ("/v1/larger", MAX_BODY),
        ("/v1", MAX_BODY),
        ("/v2/large", MAX_BODY),
        ("/large", MAX_BODY),
        ("", MAX_BODY),
    ],
)
def test_each_noun_has_the_limit_that_it_is_given(path: str, limit: int) -> None:
    limits = {"large": 2 * MAX_BODY, "small": 10}
    content = b"{}" + b" " * (limit - 2)
    for sent in ({"content": content}, chunked(content)):
        send("POST", limits=limits, PATH_INFO=path, **sent)
    for sent in ({"content": content + b" "}, chunked(content + b" ")):
        with pytest.raises(exceptions.BodyTooLarge, match=str(limit)):
            send("POST", limits=limits, PATH_INFO=path, **sent)
    with pytest.raises(exceptions.BodyTooLarge, match=str(limit)):
        send("GET", limits=limits, PATH_INFO=path, CONTENT_LENGTH=str(limit + 1))


@pytest.mark.parametrize("length", [str(MAX_BODY + 1), "9" * 18, "9" * 5000])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
def test_a_body_that_is_too_large_is_not_read(method: str, length: str) -> None:
    body = Endless()
    with pytest.raises(exceptions.BodyTooLarge):
        send(method, CONTENT_LENGTH=length, **{"wsgi.input": body})
    assert body.taken == 0


def test_a_body_in_chunks_that_never_ends_is_read_up_to_the_limit() -> None:
    body = Endless()
    with pytest.raises(exceptions.BodyTooLarge):
        send("POST", **chunked(body))
    assert body.taken <= 2 * MAX_BODY


@pytest.mark.parametrize("length", ["-1", "ten", "1.5", "0x10", "\u0661", " 1", "1 "])
def test_a_length_that_is_no_number_is_named(length: str) -> None:
    with pytest.raises(exceptions.BadRequest, match="Content-Length"):
        send("POST", CONTENT_LENGTH=length)


def test_a_body_that_ends_early_is_not_taken_for_whole() -> None:
    with pytest.raises(exceptions.BadRequest, match="ended after 2 of the 10 bytes"):
        send("POST", b"{}", CONTENT_LENGTH="10")


class Broken(io.RawIOBase):
    """A body whose client has gone."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def read(self, _size: int = -1) -> bytes:
        raise self._error


class Unread(Exception):
    """What a server makes of a body that does not come as it should: any class of its own."""


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(),
        ValueError("a chunk is malformed"),
        Unread("a chunk is malformed"),
        EOFError(),
    ],
    ids=repr,
)
def test_a_body_that_cannot_be_read_is_the_clients_fault(error: Exception) -> None:
    with pytest.raises(exceptions.BadRequest, match="cannot be read"):
        send("POST", **chunked(Broken(error)))


def test_a_body_that_does_not_come_in_time_is_told_so() -> None:
    with pytest.raises(exceptions.BodyTooSlow, match="in time"):
        send("POST", **chunked(Broken(TimeoutError("timed out"))))


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS"])
def test_a_body_that_nobody_asked_for_is_nobodys_business(method: str) -> None:
    seen = send(method, b"\xff nonsense", CONTENT_TYPE="image/png")
    assert seen.body == b""
    assert "CONTENT_TYPE" not in seen.environ


@pytest.mark.parametrize(
    "kind", ["", "application/json", "Application/JSON; charset=utf-8", "application/json;"]
)
def test_json_is_understood_under_its_names(kind: str) -> None:
    assert json.loads(send("POST", b'{"a": 1}', CONTENT_TYPE=kind).body) == {"a": 1}


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/xml", "application/x-www-form-urlencoded", "json", "*/*"]
)
def test_another_content_type_is_refused_by_its_name(kind: str) -> None:
    with pytest.raises(exceptions.UnsupportedMediaType) as caught:
        send("POST", b"{}", CONTENT_TYPE=kind)
    assert kind in str(caught.value)


def test_answers_are_json_whatever_a_client_accepts() -> None:
    seen = send("GET", HTTP_ACCEPT="application/xml")
    assert seen.environ["HTTP_ACCEPT"] == "application/json"


def nested(depth: int, bracket: str = "[]") -> bytes:
    return b'{"a": ' + bracket[0].encode() * depth + bracket[1].encode() * depth + b"}"


def test_as_deep_as_allowed_is_parsed_and_one_level_more_is_not() -> None:
    parse(nested(MAX_DEPTH - 1))
    with pytest.raises(exceptions.BadRequest, match=f"{MAX_DEPTH} levels"):
        parse(nested(MAX_DEPTH))


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 65_000,
        b'{"a":' * 13_000,
        b"[" * 65 + b'"' + b'\\"' * 32_000,
        b'"' * 65_000 + b"[" * 100,
        b"[" * 65 + b"\\" * 65_000,
    ],
    ids=["brackets", "objects", "escaped quotes", "quotes", "backslashes"],
)
def test_no_body_takes_long_to_refuse(content: bytes) -> None:
    before = time.process_time()
    with pytest.raises(exceptions.BadRequest):
        parse(content)
    # A few milliseconds; half a minute for what goes with the square of the size.
    assert time.process_time() - before < 2


def test_brackets_in_a_text_are_no_levels() -> None:
    text = '[{"\\' * 200
    assert parse(json.dumps({"a": text}).encode()) == {"a": text}
    many = {"a": [[]] * 500, "b": [{}] * 500}
    assert parse(json.dumps(many).encode()) == many


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b'"text"', "not a JSON object"),
        (b"5", "not a JSON object"),
        (b"{", "not JSON"),
        (b"{} {}", "not JSON"),
        (b"{'a': 1}", "not JSON"),
        (b"nonsense", "not JSON"),
        (b'{"a": NaN}', "not JSON"),
        (b'{"a": -Infinity}', "not JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b"\xff\xfe{\x00}\x00", "not UTF-8"),
        (b'{"name": "\\ud800"}', "name: has half of a surrogate pair"),
        (b'{"\\udfff": 1}', "has half of a surrogate pair"),
        (b'{"deep": [{"\\ud800": 1}]}', "deep: has half of a surrogate pair"),
        (b'{"a": "tab\there"}', "not JSON"),
    ],
)
def test_what_is_no_object_of_texts_is_refused_with_the_reason(content: bytes, said: str) -> None:
    with pytest.raises(exceptions.BadRequest) as caught:
        parse(content)
    assert said in str(caught.value)
    str(caught.value).encode()


def test_a_whole_surrogate_pair_is_a_character() -> None:
    assert parse(b'{"a": "\\ud83d\\ude00"}') == {"a": "😀"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@settings(deadline=None)
@given(st.binary() | st.text().map(str.encode) | JSON.map(json.dumps).map(str.encode))
def test_anything_is_parsed_to_an_object_or_refused(content: bytes) -> None:
    try:
        parsed = json.loads(without_nulls(content))
    except exceptions.BadRequest:
        return
    assert isinstance(parsed, dict)
    assert None not in parsed.values()
    json.dumps(parsed, ensure_ascii=False).encode()


def test_only_so_many_bodies_that_may_be_slow_are_waited_for() -> None:
    def request(source: io.BytesIO, **more: Any) -> dict[str, Any]:
        return environ("POST", **{"wsgi.input": source, "CONTENT_LENGTH": "2"} | more)

    def take(asked: dict[str, Any]) -> None:
        list(application(asked, lambda *_: lambda _data: None))  # type: ignore[arg-type]

    class Within(io.BytesIO):
        """While this body comes, others do."""

        def read(self, size: int | None = -1) -> bytes:
            with pytest.raises(exceptions.Overloaded, match="try again"):
                take(request(io.BytesIO(b"{}"), **{IS_COMING: True}))
            # Which the server has gathered.
            take(request(io.BytesIO(b"{}")))
            return super().read(size)

    seen = Seen()
    application = JsonBody(seen, {}, Arrivals(1))
    for _ in range(2):
        take(request(Within(b"{}"), **{IS_COMING: True}))
    assert seen.body == b"{}"

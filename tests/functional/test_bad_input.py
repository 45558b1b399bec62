"""Bodies that no client should send: refused in the contract's words, by the attribute's name."""

import json
from typing import Any

import pytest
import requests

from tests.fixtures.deployment import Deployment, measured
from tests.fixtures.rawhttp import JSON, NOBODY, RUNTIMES, Answer, exchange, request

LIMIT = 64 * 1024
IMAGE = "bad/input"

pytestmark = pytest.mark.usefixtures("unharmed")


def send(deployment: Deployment, method: str, path: str, body: Any, **headers: str) -> Answer:
    """A body as JSON, through a client that speaks HTTP well."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {"Content-Type": "application/json"} | headers
    return Answer.of(deployment.client.call(method, path, data=content, headers=sent))


# Bodies


def _nested(depth: int) -> bytes:
    return b'{"name":' * depth + b"1" + b"}" * depth


BODIES = {
    "cut off": (b'{"image": "bad/in', "JSON"),
    "no JSON": (b"image=python3", "JSON"),
    "two objects": (b'{"image": "a"}{"image": "b"}', "JSON"),
    "a list": (b'[{"image": "bad"}]', "object"),
    "an empty list": (b"[]", "object"),
    "a string": (b'"image"', "object"),
    "a number": (b"42", "object"),
    "a boolean": (b"true", "object"),
    "null": (b"null", "object"),
    "not a number": (b'{"image": NaN}', "NaN"),
    "infinite": (b'{"image": -Infinity}', "Infinity"),
    "a number beyond all numbers": (b'{"image": 1e999}', "image"),
    "5,000 digits": (b'{"image": ' + b"9" * 5000 + b"}", "JSON"),
    "no UTF-8": (b'{"image": "\xff\xfe"}', "UTF-8"),
    "half a character": (b'{"image": "\xe8\x9b"}', "UTF-8"),
    "a surrogate in UTF-8": (b'{"image": "\xed\xa0\x80"}', "UTF-8"),
    "UTF-16": ('{"image": "bad"}'.encode("utf-16"), "UTF-8"),
    "a byte order mark": (b'\xef\xbb\xbf{"image": "bad"}', "JSON"),
    "NUL": (b'\x00{"image": "bad"}', "JSON"),
    "a bare control character": (b'{"image": "bad\x01"}', "JSON"),
    "65 levels": (_nested(65), "64 levels"),
    "60,000 brackets": (b"[" * 60_000, "64 levels"),
    "7,000 levels": (_nested(7_000), "64 levels"),
    "brackets behind an endless string": (b"[" * 66 + b'"' + b'\\"' * 32_000, "64 levels"),
    "brackets before many quotes": (b"[" * 66 + b'"a' * 32_000, "64 levels"),
}


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_is_no_json_object_is_refused_at_once(
    deployment: Deployment, target: dict[str, Any], name: str, method: str
) -> None:
    body, words = BODIES[name]
    path = RUNTIMES if method == "POST" else f"{RUNTIMES}/{target['id']}"
    answers: list[Answer] = []
    # 10 ms as a rule; with a regular expression that goes back it was half a minute.
    assert measured(lambda: answers.append(send(deployment, method, path, body))) < 5
    assert words in answers[0].refused(400)


LONG = "x" * 256
WRONG_TEXTS = {
    "number": 7,
    "fraction": 0.5,
    "boolean": True,
    "list": ["bad"],
    "deep list": json.loads("[" * 63 + "]" * 63),
    "object": {"name": "bad"},
    "256 characters": LONG,
    "60,000 characters": "x" * 60_000,
    "256 characters of four bytes": "\U0001f40d" * 256,
    "NUL": "a\0b",
    "bell": "a\ab",
    "escape": "\x1b[31m",
    "delete": "a\x7f",
    "next line": "a\x85b",
    "half of a surrogate pair": "a\ud83d",
    "a surrogate pair the wrong way round": "\udc0d\ud83d",
}
ONE_LINE = {"line break": "a\nb", "tab": "a\tb", "carriage return": "a\r"}
NO_BOOLEANS = {
    "one": 1,
    "zero": 0,
    "word": "true",
    "yes": "yes",
    "empty": "",
    "list": [],
    "object": {},
    "fraction": 0.5,
}
ATTRIBUTES = {
    "image": WRONG_TEXTS | ONE_LINE | {"empty": ""},
    "name": WRONG_TEXTS | ONE_LINE,
    "description": WRONG_TEXTS,
    "is_public": NO_BOOLEANS,
    "trusted": NO_BOOLEANS,
    # What only the service sets.
    **{
        name: {"text": "2026-01-31 12:00:00", "number": 5, "object": {"a": []}, "boolean": False}
        for name in ("id", "status", "status_reason", "project_id", "created_at", "updated_at")
    },
    # What there is not, or not for clients.
    **{
        name: {"text": "bad", "number": 0, "list": [None]}
        for name in (
            "imgae",
            "Image",
            "image ",
            "images",
            "revision",
            "settled",
            "pool_total",
            "previous_image",
            "capacity",
            "__class__",
            "_wsme_attributes",
            "given",
            "body",
            "runtime_id",
            "\x00\n",
            "schl\u00fcssel \U0001f40d",
            "%s%n{0}",
        )
    },
}


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize(
    ("attribute", "kind"),
    [(attribute, kind) for attribute, values in ATTRIBUTES.items() for kind in values],
)
def test_a_wrong_attribute_is_refused_by_its_name(
    deployment: Deployment, target: dict[str, Any], attribute: str, kind: str, method: str
) -> None:
    value = ATTRIBUTES[attribute][kind]
    path = RUNTIMES if method == "POST" else f"{RUNTIMES}/{target['id']}"
    whole = {"image": IMAGE, "description": "changed"} if method == "POST" else {}
    fault = send(deployment, method, path, whole | {attribute: value}).refused(400)
    assert fault.startswith(f"{attribute}: ")
    # The client knows what it has sent.
    assert len(fault) < 500


@pytest.mark.parametrize("name", ["", "x" * 60_000, "\\u0001" * 8_000, "\\ud83d"])
def test_an_attribute_of_any_name_is_refused(deployment: Deployment, name: str) -> None:
    body = b'{"image": "%s", "%s": 1}' % (IMAGE.encode(), name.encode())
    assert len(send(deployment, "POST", RUNTIMES, body).refused(400)) < 1100


@pytest.mark.parametrize("value", [True, False])
@pytest.mark.parametrize("attribute", ["is_public", "trusted"])
def test_what_cannot_be_changed_is_refused(
    deployment: Deployment, target: dict[str, Any], attribute: str, value: bool
) -> None:
    answer = send(deployment, "PUT", f"{RUNTIMES}/{target['id']}", {attribute: value})
    assert answer.refused(400).startswith(f"{attribute}: ")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'{"image": null}',
        b'{"image": null, "name": "bad"}',
        b'{"image": "a", "image": null}',
    ],
)
def test_a_runtime_has_an_image(deployment: Deployment, body: bytes) -> None:
    assert send(deployment, "POST", RUNTIMES, body).refused(400).startswith("image: ")


@pytest.mark.parametrize(
    "body",
    [
        {"name": "[" * 200 + "{" * 55, "description": '\\"[' * 80},
        {"name": "\U0001f40d" * 255, "description": "line\r\n\tline" + "\u4e2d" * 244},
        {"name": "", "description": ""},
        {"name": "'; DROP TABLE runtimes; --", "description": "%s %(name)s {0} \\u0000 </a>"},
        {"name": "\u202e\ufeff\uffff", "description": " "},
        {"name": None, "nothing": None, "id": None, "status": None},
    ],
)
def test_what_only_looks_bad_is_kept_as_it_is(deployment: Deployment, body: dict[str, Any]) -> None:
    runtime = deployment.client.create(image="looks/bad__is-not.it:1", **body)
    shown = deployment.client.show(runtime["id"])
    assert {name: shown[name] for name, value in body.items() if value is not None} == {
        name: value for name, value in body.items() if value is not None
    }
    deployment.client.delete(runtime["id"])
    deployment.client.wait_gone(runtime["id"])


# Sizes


def _of_size(size: int) -> bytes:
    frame = b'{"image": "bad", "name": ""}'
    return frame.replace(b'""', b'"' + b"x" * (size - len(frame)) + b'"')


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_the_limit_of_a_body_is_where_it_is_said_to_be(
    deployment: Deployment, chunked: bool
) -> None:
    for size, status in ((LIMIT, 400), (LIMIT + 1, 413)):
        content = _of_size(size)
        pieces = (content[start : start + 4096] for start in range(0, size, 4096))
        answer = Answer.of(
            deployment.client.call(
                "POST",
                RUNTIMES,
                data=pieces if chunked else content,
                headers={"Content-Type": "application/json"},
            )
        )
        assert ("name" if status == 400 else str(LIMIT)) in answer.refused(status)


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("size", [100_000, 1_000_000, 20_000_000])
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_client_that_sends_too_much_gets_to_read_why(
    deployment: Deployment, method: str, size: int, chunked: bool
) -> None:
    """It is still sending when it is answered; a reset connection would lose the answer."""
    path = RUNTIMES if method == "POST" else f"{RUNTIMES}/{NOBODY}"
    content = b"[" * size
    pieces = (content[start : start + 65536] for start in range(0, size, 65536))
    with requests.Session() as session:
        answer = session.request(
            method, f"{deployment.url}{path}", data=pieces if chunked else content, timeout=30
        )
        assert str(LIMIT) in Answer.of(answer).refused(413)
        assert session.get(f"{deployment.url}/v1", timeout=30).status_code == 200


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
def test_too_much_is_too_much_where_nobody_reads_it(deployment: Deployment, method: str) -> None:
    path = f"{RUNTIMES}/{NOBODY}"
    answer = Answer.of(deployment.client.call(method, path, data=b"x" * (LIMIT + 1)))
    answer.refused(413)


def test_who_waits_to_be_told_to_continue_is_told(deployment: Deployment) -> None:
    expect = "Expect: 100-continue"
    sent = request("POST", RUNTIMES, JSON, expect, body=b"[]")
    (answer,) = exchange(deployment.url, sent)
    assert "object" in answer.refused(400)
    sent = request("POST", RUNTIMES, JSON, expect, f"Content-Length: {LIMIT + 1}")
    (answer,) = exchange(deployment.url, sent)
    answer.refused(413)


# Content types


@pytest.mark.parametrize(
    "kind",
    [
        "text/plain",
        "text/html; charset=utf-8",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/xml",
        "application/jsonp",
        "application/json-patch+json",
        "json",
        "*/*",
        "; application/json",
        "application/json, application/json",
        "\u00ff\u00fe",
        "x" * 20_000,
    ],
    ids=lambda kind: kind[:40],
)
def test_a_body_that_is_called_something_else_is_refused(
    deployment: Deployment, target: dict[str, Any], kind: str
) -> None:
    for method, path in (("POST", RUNTIMES), ("PUT", f"{RUNTIMES}/{target['id']}")):
        sent = request(method, path, f"Content-Type: {kind}", body=b'{"image": 1}')
        (answer,) = exchange(deployment.url, sent)
        assert "Content-Type" in answer.refused(415)


@pytest.mark.parametrize(
    "headers",
    [
        ["Content-Type: application/json; charset=UTF-8"],
        ["content-type:APPLICATION/JSON"],
        ["Content-Type:"],
        [],
    ],
)
def test_a_body_that_is_called_json_or_nothing_is_read(
    deployment: Deployment, headers: list[str]
) -> None:
    (answer,) = exchange(deployment.url, request("POST", RUNTIMES, *headers, body=b'{"image": 1}'))
    assert "image" in answer.refused(400)

"""Bytes that are no HTTP, or not quite, and requests that would pass inside others."""

import json
import socket
import struct
from typing import Any

import pytest

from tests.fixtures.deployment import Deployment
from tests.fixtures.rawhttp import JSON, NOBODY, RUNTIMES, exchange, request

CHUNKED = "Transfer-Encoding: chunked"
LIMIT = 64 * 1024

pytestmark = pytest.mark.usefixtures("unharmed")

SMUGGLED = request("DELETE", f"{RUNTIMES}/{NOBODY}")
MALFORMED = {
    "nothing": b"\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "HTTP/0.9": b"GET /v1\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/1.2": b"GET /v1 HTTP/1.2\r\nHost: a\r\n\r\n",
    "no version": b"GET /v1 HTTP\r\nHost: a\r\n\r\n",
    "a version of words": b"GET /v1 HTTP/one.one\r\nHost: a\r\n\r\n",
    "a long version": b"GET /v1 HTTP/1." + b"1" * 5000 + b"\r\nHost: a\r\n\r\n",
    "a negative version": b"GET /v1 HTTP/-1.1\r\nHost: a\r\n\r\n",
    "another protocol": b"GET /v1 ICY/1.1\r\nHost: a\r\n\r\n",
    "one word": b"GET\r\nHost: a\r\n\r\n",
    "a blank in the path": b"GET /v1 /runtimes HTTP/1.1\r\nHost: a\r\n\r\n",
    "lower case": b"get /v1 HTTP/1.1\r\nHost: a\r\n\r\n",
    "a method that is none": b"G\x01T /v1 HTTP/1.1\r\nHost: a\r\n\r\n",
    "a method in brackets": b"G(E)T /v1 HTTP/1.1\r\nHost: a\r\n\r\n",
    "bare line feeds": b"GET /v1 HTTP/1.1\nHost: a\n\n",
    "bare line feeds in headers": b"GET /v1 HTTP/1.1\r\nHost: a\nA: b\r\n\r\n",
    "a header without a colon": b"GET /v1 HTTP/1.1\r\nHost: a\r\nnothing\r\n\r\n",
    "a header without a name": b"GET /v1 HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
    "a blank before the colon": b"GET /v1 HTTP/1.1\r\nHost: a\r\nA : b\r\n\r\n",
    "a blank in a name": b"GET /v1 HTTP/1.1\r\nHost: a\r\nA B: b\r\n\r\n",
    "a folded header": b"GET /v1 HTTP/1.1\r\nHost: a\r\nA: b\r\n c\r\n\r\n",
    "a folded first header": b"GET /v1 HTTP/1.1\r\n Host: a\r\n\r\n",
    "NUL in a header": b"GET /v1 HTTP/1.1\r\nHost: a\r\nA: b\0c\r\n\r\n",
    "a bare return in a header": b"GET /v1 HTTP/1.1\r\nHost: a\r\nA: b\rFORGED: c\r\n\r\n",
    "headers that do not end": b"GET /v1 HTTP/1.1\r\nHost: a\r\nA: b\r\n",
    "no host": b"GET /v1 HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /v1 HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "an empty host": b"GET /v1 HTTP/1.1\r\nHost:\r\n\r\n",
    "a host with a path": b"GET /v1 HTTP/1.1\r\nHost: a/b?c\r\n\r\n",
    "a host with a user": b"GET /v1 HTTP/1.1\r\nHost: a@b\r\n\r\n",
    "a host of bytes": b"GET /v1 HTTP/1.1\r\nHost: \xff\xfe\r\n\r\n",
    "a port of words": b"GET /v1 HTTP/1.1\r\nHost: a:b\r\n\r\n",
    "blanks without end": b"GET /v1 HTTP/1.1\r\nHost: a\r\nA:" + b" " * 60_000 + b"\x01\r\n\r\n",
    **{
        f"length {length!r}": request("POST", RUNTIMES, JSON, f"Content-Length: {length}")
        + SMUGGLED
        for length in (
            "-1",
            "+2",
            "0x2",
            "2_0",
            "1e1",
            "2 2",
            "two",
            "",
            "\u00b2",
            "2, 2",
            "9" * 5000,
        )
    },
    "two lengths": request("POST", RUNTIMES, JSON, "Content-Length: 0", body=SMUGGLED),
    "length and chunks": request("POST", RUNTIMES, JSON, CHUNKED, body=b"0\r\n\r\n") + SMUGGLED,
    **{
        f"encoding {encoding!r}": request("POST", RUNTIMES, JSON, f"Transfer-Encoding: {encoding}")
        + b"0\r\n\r\n"
        + SMUGGLED
        for encoding in (
            "gzip",
            "identity",
            "xchunked",
            "chunked, gzip",
            "chunked, chunked",
            "",
            "\x0bchunked",
        )
    },
    "chunks in HTTP/1.0": b"POST /v1/runtimes HTTP/1.0\r\nConnection: Keep-Alive\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_what_is_no_http_is_refused_and_nothing_behind_it_is_read(
    deployment: Deployment, kind: str
) -> None:
    (answer,) = exchange(deployment.url, MALFORMED[kind])
    answer.refused(400)
    assert answer.headers["connection"] == "close"


HEADERS = {
    "one that is too long": b"A: " + b"x" * 70_000,
    "one that is far too long": b"A: " + b"x" * 3_000_000,
    "too many": b"\r\n".join([b"A: b"] * 20_000),
    "a name that is too long": b"A" * 70_000 + b": b",
}


@pytest.mark.parametrize("kind", HEADERS)
def test_headers_have_an_end(deployment: Deployment, kind: str) -> None:
    (answer,) = exchange(deployment.url, request("GET", "/v1", HEADERS[kind]))
    answer.refused(413)


@pytest.mark.parametrize(
    "header",
    [
        "X-Auth-Token: \u00ff\u00fe",
        "X-Auth-Token: " + "x" * 60_000,
        "X-Openstack-Request-Id: req-FORGED",
        "X-Openstack-Request-Id: \u00ff",
        "Accept: \u00ff;q=much",
        "Accept-Encoding: gzip;q=0, *;q=0",
        "Accept-Language: ,,,;;;",
        "Accept-Charset: utf-7",
        "Authorization: Basic ====",
        "Cookie: ;;;=;\u00ff",
        "Connection: upgrade, keep-alive, \u00ff",
        "Upgrade: h2c, websocket",
        "Range: bytes=5-1,-,x",
        "If-Modified-Since: yesterday",
        "If-None-Match: *",
        "Expect: the-impossible",
        "Date: \u00ff",
        'Forwarded: for=\u00ff;;by="',
        "X-Forwarded-Proto: javascript",
        "X-Forwarded-Prefix: //evil",
        "X-Identity-Status: Confirmed",
        "Content_Length: 5",
        "Transfer_Encoding: chunked",
        "Http-Host: evil",
        "Wsgi.Url_Scheme: evil",
        "!#$%&'*+-.^_`|~: b",
    ],
    ids=lambda header: header[:40],
)
def test_headers_that_nobody_reads_change_nothing(
    deployment: Deployment, target: dict[str, Any], header: str
) -> None:
    for path, expected in (
        ("/v1", {"uri": "http://localhost/v1"}),
        (f"{RUNTIMES}/{target['id']}", target),
    ):
        (answer,) = exchange(deployment.url, request("GET", path, header))
        assert answer.status == 200, answer
        assert json.loads(answer.body) == expected


CHUNKS = {
    "no size": b"\r\n{}\r\n0\r\n\r\n",
    "no number": b"two\r\n{}\r\n0\r\n\r\n",
    "a negative size": b"-2\r\n{}\r\n0\r\n\r\n",
    "a sign": b"+2\r\n{}\r\n0\r\n\r\n",
    "a prefix": b"0x2\r\n{}\r\n0\r\n\r\n",
    "an underscore": b"0_2\r\n{}\r\n0\r\n\r\n",
    "a blank before": b" 2\r\n{}\r\n0\r\n\r\n",
    "longer than its size": b"1\r\n{}\r\n0\r\n\r\n",
    "shorter than its size": b"3\r\n{}\r\n0\r\n\r\n",
    "a size beyond all memory": b"ffffffffffffffff\r\n{}\r\n0\r\n\r\n",
    "more digits than there are": b"0" * 17 + b"2\r\n{}\r\n0\r\n\r\n",
    "bare line feeds": b"2\n{}\n0\n\n",
    "a size without end": b"2;" + b"x" * 100_000 + b"\r\n{}\r\n0\r\n\r\n",
    "the end of the connection": b"",
    "the end within a size": b"2",
    "the end within a chunk": b"5\r\n{}",
    "the end behind a chunk": b"2\r\n{}\r\n",
    "the end before the trailers": b"2\r\n{}\r\n0\r\n",
    "trailers without end": b"2\r\n{}\r\n0\r\n" + b"A: b\r\n" * 1000,
    "a trailer without end": b"2\r\n{}\r\n0\r\nA: " + b"b" * 100_000,
}


@pytest.mark.parametrize("kind", CHUNKS)
def test_chunks_that_are_none_are_refused(deployment: Deployment, kind: str) -> None:
    (answer,) = exchange(deployment.url, request("POST", RUNTIMES, JSON, CHUNKED) + CHUNKS[kind])
    assert "cannot be read" in answer.refused(400)


@pytest.mark.parametrize("length", [3, 1000, LIMIT])
def test_a_body_that_is_shorter_than_its_length_is_refused(
    deployment: Deployment, length: int
) -> None:
    sent = request("POST", RUNTIMES, JSON, f"Content-Length: {length}") + b"{}"
    (answer,) = exchange(deployment.url, sent)
    assert f"2 of the {length} bytes" in answer.refused(400)


FRAMES = {
    "too much": (request("POST", RUNTIMES, JSON, f"Content-Length: {LIMIT + 1}"), [413]),
    "far too much": (request("POST", RUNTIMES, JSON, f"Content-Length: {10**15}"), [413]),
    "too much in chunks": (
        request("POST", RUNTIMES, JSON, CHUNKED) + b"10001\r\n" + b"x" * 65_537 + b"\r\n",
        [413],
    ),
    "chunks that nobody reads": (
        request("GET", RUNTIMES, CHUNKED) + b"%x\r\n" % len(SMUGGLED) + SMUGGLED + b"\r\n",
        [200],
    ),
    "a body that nobody reads": (
        request("GET", "/healthcheck", f"Content-Length: {len(SMUGGLED)}"),
        [200],
    ),
    "a body that an unknown method has": (
        request("FOO", RUNTIMES, f"Content-Length: {len(SMUGGLED)}"),
        [405],
    ),
    "a trailer": (request("POST", RUNTIMES, JSON, CHUNKED) + b"0\r\nA: b\r\n", [400]),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_no_request_passes_inside_another(deployment: Deployment, kind: str) -> None:
    """Of all that follows, nothing is taken for a request of its own."""
    frame, statuses = FRAMES[kind]
    answers = exchange(deployment.url, frame + SMUGGLED)
    assert [answer.status for answer in answers] == statuses


def test_requests_behind_each_other_are_answered_each(
    deployment: Deployment, target: dict[str, Any]
) -> None:
    """What was refused within the rules of HTTP leaves the connection as it was."""
    good = request("GET", f"{RUNTIMES}/{target['id']}")
    sent = [
        (good, 200),
        (request("POST", RUNTIMES, JSON, body=b"[]"), 400),
        (good, 200),
        (
            request("POST", RUNTIMES, JSON, CHUNKED) + b"1;a=b\r\n[\r\n1\r\n]\r\n0\r\nA: b\r\n\r\n",
            400,
        ),
        (good, 200),
        (request("POST", RUNTIMES, "Content-Type: text/plain", body=b"x" * LIMIT), 415),
        (request("DELETE", f"{RUNTIMES}/{NOBODY}"), 404),
        (request("FOO", "/"), 405),
        (good, 200),
    ]
    answers = exchange(deployment.url, b"".join(data for data, _ in sent))
    assert [answer.status for answer in answers] == [status for _, status in sent]


def test_clients_that_hang_up_are_forgotten(deployment: Deployment) -> None:
    """More of them than the service has threads, at every point of a request."""
    host, port = deployment.url.removeprefix("http://").split(":")
    whole = request("POST", RUNTIMES, JSON, body=b'{"image": 1}')
    for number in range(150):
        with socket.create_connection((host, int(port)), 20) as connection:
            connection.sendall(whole[: number % len(whole)])
            # Closed now, it is reset, with whatever is on its way.
            linger = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

"""Requests that nobody has thought of: none is answered 5xx, and none harms the next one.

Each example is a connection of its own, followed by a good request on another. What Hypothesis
makes is new in every run and at every installation; with the seed that the run names, and with what
it prints with a failure, it makes the same again. It shrinks what it finds.
"""

import base64
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import quote, quote_from_bytes

import hypothesis
import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fixtures.deployment import Deployment
from tests.fixtures.process import wait_until
from tests.fixtures.rawhttp import NOBODY, RUNTIMES, exchange, request

#: Different requests, and different strings of bytes, for each of the two installations: nothing is
#: sent twice in a run, which makes 2,000 in all.
STRUCTURED = 700
RAW = 300

#: Stands for a runtime that may be changed, in what Hypothesis makes, which knows no ids.
VICTIM = "0f0f0f0f-0f0f-0f0f-0f0f-0f0f0f0f0f0f"
#: Of no host: no worker is started for it.
IMAGE = "fuzz/image"

fuzzed = settings(
    max_examples=250,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


#: All that was sent in this run, to any installation, and answered as it should be.
sent: set[bytes] = set()


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


@dataclass
class Fuzzer:
    """An installation under fire."""

    deployment: Deployment
    target: dict[str, Any]
    victim: str
    session: requests.Session
    #: What Hypothesis makes everything of that is sent here.
    seed: str
    created: set[str] = field(default_factory=set)
    answers: Counter[int] = field(default_factory=Counter)

    def fire(self, data: bytes) -> None:
        """Send bytes, look at every answer, and see that a good request is answered as before."""
        if data in sent:
            return
        as_made = data
        data = data.replace(VICTIM.encode(), self.victim.encode())
        for answer in exchange(self.deployment.url, data):
            self.answers[answer.status] += 1
            if answer.status >= 400:
                answer.refused()
            elif answer.status == 201:
                self.created.add(json.loads(answer.body)["id"])
            else:
                assert answer.status in (200, 204), answer
        url = f"{self.deployment.url}{RUNTIMES}/{self.target['id']}"
        good = self.session.get(url, timeout=20)
        assert (good.status_code, good.json()) == (200, self.target)
        # Not before: what failed must fail again when Hypothesis looks closer.
        sent.add(as_made)

    def until(self, count: int, fire: Callable[[Self], None]) -> None:
        """Let Hypothesis fire until it has sent so many requests that were never sent before."""
        before, rounds = len(sent), itertools.count()
        while len(sent) - before < count:
            hypothesis.seed(f"{self.seed} {next(rounds)}")(fire)(self)


@pytest.fixture(scope="module")
def fuzzer(
    request: pytest.FixtureRequest,
    deployment: Deployment,
    target: dict[str, Any],
    silent_log: None,
) -> Iterator[Fuzzer]:
    client = deployment.client
    seed = f"{request.config.getoption('hypothesis_seed')} {type(deployment).__name__}"
    victim = client.create(image=IMAGE)["id"]
    with requests.Session() as session:
        found = Fuzzer(deployment, target, victim, session, seed, {victim})
        yield found
    for runtime_id in found.created:
        client.call("DELETE", f"{RUNTIMES}/{runtime_id}")
    everything = f"{RUNTIMES}?all_projects=true"
    wait_until(
        lambda: client.call("GET", everything).json() == {"runtimes": [target]},
        60,
        f"{len(found.created)} runtimes gone",
        pause=0.2,
    )


# Parts of requests: what is likely to be right, and what is not

ATTRIBUTES = ["image", "name", "description", "is_public", "trusted", "id", "status", "body"]
TEXTS = ["id", "name", "image", "description", "status", "project_id"]
TIMES = ["created_at", "updated_at"]
BOOLEANS = ["is_public", "trusted"]
FIELDS = TEXTS + TIMES + BOOLEANS
OPERATORS = ["eq", "neq", "in", "nin", "gt", "gte", "lt", "lte", "has", "like"]
HEADERS = [
    *("Accept", "Accept-Encoding", "Connection", "Content-Encoding", "Cookie", "Expect", "Host"),
    *("Range", "If-Match", "Forwarded", "X-Forwarded-For", "X-Auth-Token", "X-Roles"),
    *("X-Project-Id", "X-Openstack-Request-Id"),
]
ODD_TEXTS = ["", "x" * 255, "x" * 256, "\0", "a\nb", "\ud800", "\U0001f40d", "%", "'", NOBODY]

texts = st.text(max_size=12) | st.sampled_from(ODD_TEXTS)
printable = st.text(st.characters(exclude_categories=("C",)), max_size=12)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | texts
    | st.sampled_from([1e999, 10**400, "true", "2026-01-31 12:00:00"])
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)
)
optional = {
    "name": st.none() | printable,
    "description": st.none() | printable,
}
good_bodies = {
    "POST": st.fixed_dictionaries(
        {"image": st.just(IMAGE)},
        optional=optional | {"is_public": st.booleans(), "trusted": st.none() | st.booleans()},
    ),
    "PUT": st.fixed_dictionaries({}, optional=optional | {"image": st.just(f"{IMAGE}:2")}),
}
bodies = st.one_of(
    st.dictionaries(st.sampled_from(ATTRIBUTES) | texts, values, max_size=4).map(_json),
    values.map(_json),
    st.binary(max_size=40),
    st.sampled_from([b"", b"[" * 66, b"{", b'"' * 70, b"\xff", b" " * 65_537, b'{"a":' * 70]),
    st.builds(
        lambda at, junk: (whole := _json({"image": IMAGE}))[:at] + junk + whole[at:],
        st.integers(0, 25),
        st.binary(max_size=4),
    ),
)

ids = st.sampled_from([VICTIM, VICTIM, NOBODY])
good_calls = st.one_of(
    st.sampled_from([("GET", RUNTIMES), ("POST", RUNTIMES)]),
    st.sampled_from([("GET", "/"), ("HEAD", "/v1"), ("GET", "/healthcheck")]),
    st.tuples(st.sampled_from(["GET", "PUT", "HEAD"]), ids.map(lambda name: f"{RUNTIMES}/{name}")),
    st.tuples(st.just("GET"), ids.map(lambda name: f"{RUNTIMES}/{name}/pool")),
    st.just(("DELETE", f"{RUNTIMES}/{NOBODY}")),
)
methods = st.sampled_from(
    ["OPTIONS", "TRACE", "PATCH", "PUT", "POST", "CONNECT", "FOO", "get", "", "G T", "\xff"]
)
odd_parts = st.binary(max_size=6).map(quote_from_bytes) | st.sampled_from(
    ["", ".", "..", "%00", "%ff", "%2F", "*", "pool", "v1", "runtimes", "a.json", "[", "{}"]
)
paths = st.one_of(
    st.lists(odd_parts, max_size=4).map(lambda parts: "/" + "/".join(parts)),
    odd_parts.map(lambda part: f"{RUNTIMES}/{part}"),
    odd_parts.map(lambda part: f"{RUNTIMES}/{NOBODY}/{part}"),
)


def _condition(operator: str, value: str) -> str:
    return f"{operator}:{value}" if operator else value


times = st.datetimes().map(str) | st.datetimes(timezones=st.timezones()).map(str)
good_parameters = st.one_of(
    st.tuples(
        st.sampled_from(TEXTS),
        st.builds(_condition, st.sampled_from(["", *OPERATORS]), printable),
    ),
    st.tuples(st.sampled_from(TIMES), st.builds(_condition, st.sampled_from(OPERATORS[:8]), times)),
    st.tuples(
        st.sampled_from(BOOLEANS),
        st.builds(_condition, st.sampled_from(OPERATORS[:4]), st.sampled_from(["true", "0"])),
    ),
    st.tuples(st.just("limit"), st.integers(1, 1000).map(str)),
    st.tuples(st.just("all_projects"), st.sampled_from(["true", "false"])),
    st.tuples(st.just("marker"), ids),
    st.tuples(
        st.just("sort"),
        st.lists(st.sampled_from(FIELDS), min_size=1, max_size=3, unique=True).flatmap(
            lambda names: st.sampled_from(["", ":asc", ":desc"]).map(
                lambda way: ",".join(f"{name}{way}" for name in names)
            )
        ),
    ),
)
cursors = st.lists(st.none() | texts | times.map(lambda text: {"t": text}) | scalars, max_size=4)
parameters = st.one_of(
    st.tuples(st.sampled_from(["limit", "marker", "sort", "cursor", "all_projects"]), texts),
    st.tuples(st.sampled_from(FIELDS), st.builds(_condition, st.sampled_from(OPERATORS), texts)),
    st.tuples(
        st.just("cursor"),
        cursors.map(lambda keys: base64.urlsafe_b64encode(_json(keys)).decode().rstrip("=")),
    ),
    st.tuples(texts, texts),
)


def _query(pairs: list[tuple[str, str]]) -> str:
    def encode(text: str) -> str:
        return quote(text, safe=":,", errors="surrogatepass")

    return "?" * bool(pairs) + "&".join(f"{encode(name)}={encode(value)}" for name, value in pairs)


queries = st.one_of(
    st.lists(parameters | good_parameters, min_size=1, max_size=3).map(_query),
    st.binary(max_size=10).map(lambda raw: f"?{quote_from_bytes(raw, safe='&=%:')}"),
)
headers = st.lists(
    st.one_of(
        st.sampled_from(["text/plain", "application/json;charset=a", "", "a/b", "\xff"]).map(
            lambda kind: f"Content-Type: {kind}"
        ),
        st.builds(
            lambda name, value: f"{name}: {value}",
            st.sampled_from(HEADERS),
            st.sampled_from(["", "*/*", "close", "gzip", "0", "100-continue", "req-1", "\xff"])
            | st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF), max_size=10),
        ),
        st.text(st.characters(max_codepoint=0xFF), max_size=12),
    ),
    min_size=1,
    max_size=3,
)


def _chunked(body: bytes, size: int) -> bytes:
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


PARTS = ["method", "path", "query", "headers", "body", "frame"]


@st.composite
def requests_with_faults(draw: st.DrawFn) -> bytes:
    """A good request, in which up to two parts are not what they should be."""
    faults = draw(st.lists(st.sampled_from(PARTS), max_size=2))
    method, path = draw(good_calls)
    body = _json(draw(good_bodies[method])) if method in good_bodies else None
    query = ""
    if (method, path) == ("GET", RUNTIMES):
        query = _query(draw(st.lists(good_parameters, max_size=3, unique_by=lambda pair: pair[0])))
    sent = ["Content-Type: application/json"]
    if "method" in faults and method != "DELETE":
        method = draw(methods)
    if "path" in faults:
        path = draw(paths)
    if "query" in faults:
        query = draw(queries)
    if "headers" in faults:
        sent += draw(headers)
    if "body" in faults:
        body = draw(bodies)
    if "frame" in faults:
        body = body or b"{}"
        if draw(st.booleans()):
            chunks = _chunked(body, draw(st.integers(1, 70_000)))
            return request(method, path + query, *sent, "Transfer-Encoding: chunked") + chunks
        length = draw(st.integers(-1, 70_000) | st.text(max_size=4).map(ascii))
        return request(method, path + query, *sent, f"Content-Length: {length}") + body
    return request(method, path + query, *sent, body=body)


@fuzzed
@given(data=requests_with_faults())
def _fire_requests(fuzzer: Fuzzer, data: bytes) -> None:
    fuzzer.fire(data)


def test_no_request_is_answered_with_an_error_of_the_service(fuzzer: Fuzzer) -> None:
    fuzzer.until(STRUCTURED, _fire_requests)
    # They were not all refused at the door.
    assert fuzzer.answers[200] > STRUCTURED / 10, fuzzer.answers
    assert fuzzer.answers[201] > STRUCTURED / 50, fuzzer.answers


TEMPLATES = [
    request("GET", f"{RUNTIMES}?limit=1&sort=name:desc&name=has:a", "Accept: */*"),
    request("GET", f"{RUNTIMES}/{VICTIM}/pool"),
    request("POST", RUNTIMES, "Content-Type: application/json", body=_json({"image": IMAGE})),
    request("PUT", f"{RUNTIMES}/{VICTIM}", "Connection: keep-alive", body=_json({"name": "a"})),
    request("DELETE", f"{RUNTIMES}/{NOBODY}"),
    request("POST", RUNTIMES, "Transfer-Encoding: chunked") + _chunked(b'{"name": "a"}', 5),
    request("PUT", f"{RUNTIMES}/{VICTIM}", "Expect: 100-continue", body=b"{}"),
]
JUNK = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b"%",
    b"\xff",
    b"0",
    b"-",
    b"/",
    b"{",
    b'"',
]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """The bytes of good requests, some of them lost, doubled, replaced or added to."""
    data = b"".join(draw(st.lists(st.sampled_from(TEMPLATES), min_size=1, max_size=3)))
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, len(data)))
        end = start + draw(st.integers(0, 12))
        junk = draw(st.sampled_from(JUNK) | st.binary(max_size=5))
        match draw(st.sampled_from(["cut", "double", "replace", "add", "end"])):
            case "cut":
                data = data[:start] + data[end:]
            case "double":
                data = data[:end] + data[start:]
            case "replace":
                data = data[:start] + junk + data[start + len(junk) :]
            case "add":
                data = data[:start] + junk + data[start:]
            case "end":
                data = data[: max(start, 1)]
    return data


@fuzzed
@given(data=mutated() | st.binary(max_size=200))
def _fire_bytes(fuzzer: Fuzzer, data: bytes) -> None:
    fuzzer.fire(data)


def test_no_bytes_are_answered_with_an_error_of_the_service(fuzzer: Fuzzer) -> None:
    fuzzer.until(RAW, _fire_bytes)

"""Forms, packages and names that nobody has thought of: none is answered 5xx, and no file stays."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

import hypothesis
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fixtures import zips
from tests.fixtures.deployment import Client, Deployment
from tests.fixtures.process import wait_until
from tests.fixtures.rawhttp import NOBODY, exchange, request

FUNCTIONS, ALIASES = "/v1/functions", "/v1/aliases"
#: Stands for a function that may be changed, and for a runtime of packages.
VICTIM = "0f0f0f0f-0f0f-0f0f-0f0f-0f0f0f0f0f0f"
RUNTIME = "1e1e1e1e-1e1e-1e1e-1e1e-1e1e1e1e1e1e"
PACKAGES = [zips.package(), zips.package({"main.py": "other"}), zips.package({"x.py": ""}), b"PK"]

fuzzed = settings(
    max_examples=300,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@dataclass
class Fuzzer:
    """An installation under fire."""

    deployment: Deployment
    runtime_id: str
    seed: str
    victim: str = NOBODY
    answers: Counter[int] = field(default_factory=Counter)

    @property
    def client(self) -> Client:
        return self.deployment.client

    def fire(self, data: bytes) -> None:
        """Send bytes, look at every answer, and see that a good request is answered."""
        data = data.replace(VICTIM.encode(), self.victim.encode())
        data = data.replace(RUNTIME.encode(), self.runtime_id.encode())
        for answer in exchange(self.deployment.url, data):
            self.answers[answer.status] += 1
            if answer.status >= 400:
                answer.refused()
            elif answer.status == 201 and b"code" in answer.body:
                self.victim = json.loads(answer.body)["id"]
        assert self.client.call("GET", FUNCTIONS).status_code == 200

    def clean(self) -> None:
        for alias in self.client.call("GET", ALIASES).json()["function_aliases"]:
            name = quote(alias["name"], safe="")
            assert self.client.call("DELETE", f"{ALIASES}/{name}").status_code == 204
        for function in self.client.call("GET", FUNCTIONS).json()["functions"]:
            path = f"{FUNCTIONS}/{function['id']}"
            assert self.client.call("DELETE", path).status_code == 204

    def files(self) -> list[str]:
        """What is in the store."""
        folder = self.deployment.state_dir / "packages"
        return [
            path.name
            for name in ("incoming", "zips")
            for path in (folder / name).rglob("*")
            if path.is_file()
        ]


@pytest.fixture
def fuzzer(
    request: pytest.FixtureRequest, deployment: Deployment, silent_log: None
) -> Iterator[Fuzzer]:
    runtime_id = deployment.client.create(name="for the fuzzer")["id"]
    deployment.client.wait_for(runtime_id, "available")
    seed = f"{request.config.getoption('hypothesis_seed')} {type(deployment).__name__}"
    found = Fuzzer(deployment, runtime_id, seed)
    yield found
    found.clean()
    deployment.client.delete(runtime_id)
    deployment.client.wait_gone(runtime_id)


texts = st.text(max_size=8) | st.sampled_from(["", "a.b", "main.main", "0", "-1", "9" * 30, "\0"])
codes = st.sampled_from(
    [
        *('{"source": "package"}', '{"source": "image", "image": "a"}', "{}", "[]", "{", "null"),
        '{"source": "swift", "swift": {}}',
        json.dumps({"source": "package", "md5sum": "0" * 32}),
    ]
)
good_fields = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["", "a", "ü"]),
        "entry": st.sampled_from(["main.main", ""]),
        "cpu": st.sampled_from(["100", "300"]),
        "timeout": st.sampled_from(["1", "5"]),
    },
)
odd_fields = st.dictionaries(
    st.sampled_from(["code", "runtime_id", "name", "entry", "cpu", "timeout"])
    | st.sampled_from(["source", "md5sum", "swift", "id", "package"])
    | texts,
    codes | texts | st.sampled_from([NOBODY, "301", "x.y", "image"]),
    min_size=1,
    max_size=2,
)
packages = st.sampled_from(PACKAGES[:1] * 3 + PACKAGES) | st.builds(
    lambda at, junk: PACKAGES[0][:at] + junk + PACKAGES[0][at + len(junk) :],
    st.integers(0, len(PACKAGES[0])),
    st.binary(max_size=4),
)


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def _multipart(given: dict[str, str], package: bytes | None) -> bytes:
    lines = b"".join(
        b'--B\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
        % (_bytes(name), _bytes(v))
        for name, v in given.items()
    )
    if package is not None:
        head = b'--B\r\nContent-Disposition: form-data; name="package"; filename="a.zip"\r\n\r\n'
        lines += head + package + b"\r\n"
    return lines + b"--B--\r\n"


@st.composite
def forms(draw: st.DrawFn) -> bytes:
    """A form for a function, in which something may be wrong."""
    given_fields = draw(good_fields)
    if draw(st.booleans()):
        given_fields |= draw(odd_fields)
    call = draw(st.sampled_from([("POST", FUNCTIONS), ("PUT", f"{FUNCTIONS}/{VICTIM}")]))
    if call[0] == "POST":
        given_fields = {"code": '{"source": "package"}', "runtime_id": RUNTIME} | given_fields
    kind = draw(st.sampled_from(["multipart", "multipart", "urlencoded", "json"]))
    if kind == "multipart":
        body = _multipart(given_fields, draw(st.none() | packages))
        type_ = "multipart/form-data; boundary=B"
    elif kind == "urlencoded":
        body = urlencode(given_fields, errors="surrogatepass").encode()
        type_ = "application/x-www-form-urlencoded"
    else:
        body, type_ = json.dumps(given_fields).encode(), "application/json"
    if draw(st.integers(0, 4)) == 0:
        at = draw(st.integers(0, len(body)))
        body = body[:at] + draw(st.binary(max_size=4)) + body[at + draw(st.integers(0, 9)) :]
    return request(*call, f"Content-Type: {type_}", body=body)


versions = f"{FUNCTIONS}/{VICTIM}/versions"
bodies = st.dictionaries(
    st.sampled_from(["name", "function_id", "function_version", "description"]) | texts,
    st.sampled_from([VICTIM, NOBODY, 0, 1, "1", None, True, 1.5, 2**70]) | texts,
    max_size=4,
)
parts = st.sampled_from(["1", "2", "0", "-1", "x", "9" * 40]) | texts.map(
    lambda text: quote(text, safe="", errors="surrogatepass")
)


@st.composite
def calls(draw: st.DrawFn) -> bytes:
    """A call on versions or aliases, in which something may be wrong."""
    path = draw(
        st.sampled_from([versions, ALIASES])
        | parts.map(lambda part: f"{versions}/{part}")
        | parts.map(lambda part: f"{ALIASES}/{part}")
    )
    query = draw(st.sampled_from(["", "", "?download=true", "?marker=1", "?sort=name", "?limit=1"]))
    method = draw(st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD"]))
    good: dict[str, Any] = {"name": "n", "function_id": VICTIM} if draw(st.booleans()) else {}
    body = json.dumps(good | draw(bodies)).encode() if method in ("POST", "PUT") else None
    return request(method, path + query, "Content-Type: application/json", body=body)


@fuzzed
@given(data=forms() | calls())
def _fire(fuzzer: Fuzzer, data: bytes) -> None:
    fuzzer.fire(data)


def test_no_form_is_answered_with_an_error_of_the_service(fuzzer: Fuzzer) -> None:
    before = fuzzer.files()
    hypothesis.seed(fuzzer.seed)(_fire)(fuzzer)
    # They were not all refused at the door.
    assert fuzzer.answers[200] > 10, fuzzer.answers
    assert fuzzer.answers[201] > 5, fuzzer.answers
    fuzzer.clean()
    wait_until(lambda: fuzzer.files() == before, 20, "an empty store")

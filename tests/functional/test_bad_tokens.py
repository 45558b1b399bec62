"""What strangers send to an installation behind Keystone."""

import pytest

from tests.fixtures.deployment import Distributed, measured
from tests.fixtures.rawhttp import JSON, NOBODY, RUNTIMES, Answer, exchange, request

SMUGGLED = request("DELETE", f"{RUNTIMES}/{NOBODY}")


@pytest.mark.parametrize(
    "token",
    ["", " ", "\u00ff\u00fe", "a, b", "%00", "../../v3/users", "gAAAAAB" + "x" * 200, "x" * 60_000],
    ids=lambda token: token[:20],
)
def test_a_token_of_any_bytes_is_only_a_bad_token(guarded: Distributed, token: str) -> None:
    (answer,) = exchange(guarded.url, request("GET", RUNTIMES, f"X-Auth-Token: {token}"))
    assert "X-Auth-Token" in answer.refused(401)


@pytest.mark.parametrize("length", [len(SMUGGLED), 10**12])
def test_nobody_reads_what_a_stranger_sends(guarded: Distributed, length: int) -> None:
    """It is answered at once, and nothing in its body is taken for a request."""
    sent = request("POST", RUNTIMES, JSON, f"Content-Length: {length}") + SMUGGLED
    answers: list[Answer] = []
    assert measured(lambda: answers.extend(exchange(guarded.url, sent))) < 5
    assert [answer.status for answer in answers] == [401]

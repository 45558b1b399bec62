"""Signatures: what they bind, and what is refused."""

import os
import threading
import time
from collections.abc import Mapping

import pytest

from qinling.worker import signing
from qinling.worker.function import Unsigned

KEY = bytes(range(32))


@pytest.fixture
def nonces() -> signing.Nonces:
    return signing.Nonces()


def check(headers: Mapping[str, str], nonces: signing.Nonces, **more: object) -> str:
    about = {"key": KEY, "method": "POST", "path": "/execute", "body": b"{}", **more}
    return signing.check_request(get=headers.get, nonces=nonces, **about)  # type: ignore[arg-type]


def test_a_signed_request_passes_once(nonces: signing.Nonces) -> None:
    headers = signing.sign_request(KEY, "POST", "/execute", b"{}")
    assert check(headers, nonces) == headers[signing.NONCE]
    with pytest.raises(Unsigned, match="seen before"):
        check(headers, nonces)


def test_the_signature_is_the_one_of_the_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    # Made with: printf 'POST\n/execute\n1700000000.000000\n%s\n%s' NONCE SHA256 | openssl ...
    import hashlib
    import hmac

    monkeypatch.setattr(signing.time, "time", lambda: 1700000000.0)
    monkeypatch.setattr(signing.os, "urandom", lambda size: b"\x01" * size)
    headers = signing.sign_request(KEY, "POST", "/execute", b"{}")
    text = "POST\n/execute\n1700000000.000000\n" + "01" * 16 + "\n"
    text += hashlib.sha256(b"{}").hexdigest()
    assert headers == {
        "Qinling-Time": "1700000000.000000",
        "Qinling-Nonce": "01" * 16,
        "Qinling-Signature": hmac.new(KEY, text.encode(), "sha256").hexdigest(),
    }


@pytest.mark.parametrize(
    "other",
    [
        {"key": os.urandom(32)},
        {"method": "DELETE"},
        {"path": "/drain"},
        {"body": b"{ }"},
    ],
    ids=lambda other: next(iter(other)),
)
def test_a_request_is_bound_to_what_it_asks(
    nonces: signing.Nonces, other: Mapping[str, object]
) -> None:
    headers = signing.sign_request(KEY, "POST", "/execute", b"{}")
    with pytest.raises(Unsigned, match="missing or wrong"):
        check(headers, nonces, **other)
    # It was not taken note of: the right one is served still.
    check(headers, nonces)


@pytest.mark.parametrize("name", [signing.TIME, signing.NONCE, signing.SIGNATURE])
@pytest.mark.parametrize("value", [None, "", "é", "nan", "0" * 64])
def test_a_request_without_what_it_needs_is_refused(
    nonces: signing.Nonces, name: str, value: str | None
) -> None:
    headers = signing.sign_request(KEY, "POST", "/execute", b"{}")
    if value is None:
        del headers[name]
    else:
        headers[name] = value
    with pytest.raises(Unsigned):
        check(headers, nonces)


@pytest.mark.parametrize("off", [-61, 61, float("nan"), float("inf")])
def test_a_request_of_another_time_is_refused(
    nonces: signing.Nonces, monkeypatch: pytest.MonkeyPatch, off: float
) -> None:
    now = signing.time.time()
    with monkeypatch.context() as patch:
        patch.setattr(signing.time, "time", lambda: now + off)
        headers = signing.sign_request(KEY, "POST", "/execute", b"{}")
    with pytest.raises(Unsigned, match="off"):
        check(headers, nonces)


def test_nonces_are_bounded_and_none_is_taken_twice_all_the_same() -> None:
    nonces = signing.Nonces(most=3)
    for n in range(5):
        nonces.add(str(n), made=float(n + 1))
    # 0 and 1 are forgotten: they are refused for their time.
    for n in range(5):
        with pytest.raises(Unsigned):
            nonces.add(str(n), made=float(n + 1))
    with pytest.raises(Unsigned):
        nonces.add("new", made=1.5)
    nonces.add("new", made=2.5)


def test_an_answer_is_bound_to_status_body_and_the_question() -> None:
    signature = signing.sign_answer(KEY, 200, "n" * 32, b"{}")
    get = {signing.SIGNATURE: signature}.get
    signing.check_answer(KEY, 200, "n" * 32, get, b"{}")
    for status, nonce, body in (
        (202, "n" * 32, b"{}"),
        (200, "m" * 32, b"{}"),
        (200, "n" * 32, b""),
    ):
        with pytest.raises(Unsigned):
            signing.check_answer(KEY, status, nonce, get, body)
    with pytest.raises(Unsigned):
        signing.check_answer(KEY, 200, "n" * 32, {}.get, b"{}")


def test_of_two_that_say_the_same_at_once_one_passes(nonces: signing.Nonces) -> None:
    passed: list[str] = []

    class Nonce(str):
        """Lets the other one in between the look for it and its being written down."""

        looks = 0

        def __hash__(self) -> int:
            self.looks += 1
            if self.looks == 2:
                other.start()
                other.join(0.2)
            return super().__hash__()

    def add(nonce: str) -> None:
        try:
            nonces.add(nonce, made)
        except Unsigned:
            return
        passed.append(nonce)

    made = time.time()
    other = threading.Thread(target=add, args=("11" * 16,))
    add(Nonce("11" * 16))
    other.join()
    assert len(passed) == 1

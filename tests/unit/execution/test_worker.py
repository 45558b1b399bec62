"""What a worker may answer: anything, as its image may be anybody's, and none of it is trusted."""

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from qinling import exceptions
from qinling.execution import worker as module
from qinling.execution.worker import Outcome, WorkerClient
from qinling.orchestrator import routes
from qinling.orchestrator.routes import Direct
from qinling.worker import signing

KEY = bytes(32)
ID = "5c1cbbbf-1c32-4c45-b7a6-d7ccd7f5dbbb"
GOOD = {"execution_id": ID, "status": "success", "output": 7, "duration": 0.5, "log": "said\n"}

Answer = Callable[..., WorkerClient]


@pytest.fixture
def answer() -> Iterator[Answer]:
    """Makes a client of a worker that always answers the same, signed as it must be."""
    with contextlib.ExitStack() as held:

        def answer(body: bytes, status: int = 200) -> WorkerClient:
            class Stranger(BaseHTTPRequestHandler):
                protocol_version = "HTTP/1.1"

                def answer(self) -> None:
                    self.rfile.read(int(self.headers.get("Content-Length") or 0))
                    nonce = self.headers.get(signing.NONCE) or ""
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(body)))
                    signature = signing.sign_answer(KEY, status, nonce, body)
                    self.send_header(signing.SIGNATURE, signature)
                    self.end_headers()
                    with contextlib.suppress(OSError):
                        self.wfile.write(body)

                do_GET = do_POST = answer  # noqa: N815  # http.server's names

                def log_message(self, *_: object) -> None:
                    pass

            server = held.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), Stranger))
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            held.callback(thread.join)
            held.callback(server.shutdown)
            client = WorkerClient(
                "worker", Direct(f"127.0.0.1:{server.server_port}"), KEY, 1, "boot"
            )
            held.callback(client.close)
            return client

        yield answer


def text(**other: object) -> bytes:
    return json.dumps(GOOD | other).encode()


def test_a_result_is_taken_as_it_is(answer: Answer) -> None:
    client = answer(text(output={"a": ["é", None]}))
    outcome = Outcome("success", {"a": ["é", None]}, 0.5, "said\n")
    assert client.execute(ID, None, 5) == client.result(ID) == outcome


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "no result"),
        (b"{}", "no result"),
        (b"\xff", "no JSON"),
        (b"[1]", "no JSON object"),
        (b"null", "no JSON object"),
        (b'{"output": NaN}', "no JSON"),
        (b'{"output": -1e999}', "no JSON"),
        (b'{"output": ' + b"9" * 5000 + b"}", "no JSON"),
        (b"[" * 100_000, "too deep"),
        (text(output=0).replace(b"0,", b"[" * 970 + b"]" * 970 + b","), "too deep"),
        (text(output=0).replace(b"0,", b"[" * 65 + b"]" * 65 + b","), "too deep"),
        (text(execution_id="another"), "no result"),
        (text(status="running"), "no result"),
        (text(status=["success"]), "no result"),
        (text(duration=None), "no result"),
        (text(duration=-1), "no result"),
        (text(duration=10**400), "no result"),
        (text().replace(b"0.5", b"1e999"), "no JSON"),
        (text(log=None), "no result"),
        (text(log=7), "no result"),
    ],
    ids=lambda value: value if isinstance(value, str) else repr(value[:40]),
)
def test_what_is_no_result_is_told_and_not_asked_for_again(
    answer: Answer, body: bytes, words: str
) -> None:
    client = answer(body)
    with pytest.raises(exceptions.WorkerBroken, match=words):
        client.execute(ID, None, 5)
    with pytest.raises(exceptions.WorkerBroken, match=words):
        client.result(ID)


def test_what_is_too_large_to_be_kept_is_told(
    answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_KEPT", 1000)
    for name in ("output", "log"):
        # As it is kept, and not as it was sent.
        assert answer(text(**{name: "é" * 499})).execute(ID, None, 5)
        with pytest.raises(exceptions.WorkerBroken, match=f"more {name} than can be kept"):
            answer(text(**{name: "é" * 501})).execute(ID, None, 5)
    with pytest.raises(exceptions.WorkerBroken, match="more output than can be kept"):
        answer(text(output="\ud800" + "é" * 200)).execute(ID, None, 5)
    monkeypatch.setattr(module, "_MAX_ANSWER", 1000)
    with pytest.raises(exceptions.WorkerBroken, match="more than 1000 bytes"):
        answer(text(log="x" * 1000)).execute(ID, None, 5)


def test_half_a_character_in_a_log_is_replaced(answer: Answer) -> None:
    assert answer(text(log="a\ud800")).execute(ID, None, 5).log == "a?"


@pytest.mark.parametrize("status", [500, 299, 200])
def test_words_about_an_error_are_bounded_and_printable(answer: Answer, status: int) -> None:
    client = answer(json.dumps({"error": "\x1b" + "é" * 10_000}).encode(), status)
    with pytest.raises(exceptions.WorkerError) as raised:
        client.execute(ID, None, 5)
    assert len(str(raised.value)) < 300
    assert str(raised.value).isprintable()


@pytest.mark.parametrize("boot_id", [None, 7, "", "é", "x" * 65])
def test_a_worker_without_a_usable_boot_id_gets_no_function(
    answer: Answer, boot_id: object
) -> None:
    client = answer(
        json.dumps({"worker_id": "worker", "status": "ready", "boot_id": boot_id}).encode()
    )
    with pytest.raises(exceptions.WorkerBroken, match="boot_id"):
        client.meet()


def test_a_package_is_sent_piece_by_piece_and_not_whole_when_it_is_damaged() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as held:
        client = WorkerClient("worker", Direct(f"127.0.0.1:{listener.getsockname()[1]}"), KEY, 1)
        ends: list[socket.socket] = []

        def package() -> Iterator[bytes]:
            connection = held.enter_context(listener.accept()[0])
            ends.append(connection)
            connection.settimeout(10)
            yield b"first"
            found = b""
            while not found.endswith(b"first"):
                found += connection.recv(1000)
            raise exceptions.PackageLost("digest", "is damaged")

        with pytest.raises(exceptions.PackageLost):
            client.load("boot", {}, package(), 10, 5)
        assert ends[0].recv(1) == b""


def test_a_connection_that_was_idle_for_long_is_not_used_again(
    answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is sent just when the worker closes it would be taken for lost."""
    client, used = answer(text()), []
    connection = Direct._connection

    def note(self: Direct) -> http.client.HTTPConnection:
        used.append(connection(self))
        return used[-1]

    monkeypatch.setattr(Direct, "_connection", note)
    clock = time.monotonic
    client.result(ID)
    for later, same in ((29.0, True), (60.0, False)):
        monkeypatch.setattr(time, "monotonic", lambda later=later: clock() + later)
        client.result(ID)
        assert (used[-1] is used[-2]) is same
    assert used[0].sock is None


@pytest.mark.parametrize("is_there", [True, False])
def test_a_worker_that_takes_no_connection_is_told_from_one_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    monkeypatch.setattr(routes, "_CONNECT_TIMEOUT", 0.2)
    with contextlib.ExitStack() as held:
        listener = held.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        address = listener.getsockname()
        if is_there:
            # As many as wait in its queue, so that nobody else gets in.
            for _ in range(2):
                waiting = held.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(address)
        else:
            listener.close()
        client = WorkerClient("worker", Direct(f"127.0.0.1:{address[1]}"), KEY, 1, "boot")
        with pytest.raises(exceptions.WorkerGone) as caught:
            client.result(ID)
    assert isinstance(caught.value, exceptions.WorkerAway) is is_there

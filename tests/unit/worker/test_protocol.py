"""Who may ask a worker what, and what it says to anything else."""

import base64
import contextlib
import io
import json
import os
import secrets
import socket
import stat
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from qinling.worker import signing
from tests.fixtures.worker import LIMITS, MB, Worker, for_others, pack

FUNCTION = "def main(): return 7"


def test_a_function_is_taken_once_and_the_same_one_is_answered_again(worker: Worker) -> None:
    order, package = worker.order(), pack({"main.py": FUNCTION})
    status, answer = worker.give(order, package)
    assert status == 200
    assert answer == {
        "worker_id": worker.id,
        "boot_id": worker.boot_id,
        "imported": True,
        "error": None,
        "duration": answer["duration"],
    }
    assert worker.give(order, package) == (200, answer)
    for other in ({"revision": 2}, {"function_id": "another"}, {"key": secrets.token_hex(32)}):
        key = worker.key
        assert worker.give(order | other, package)[0] == 409
        assert worker.key == key
    assert worker.run()["output"] == 7


def test_ten_that_give_it_at_once_give_it_once(worker: Worker) -> None:
    order = worker.order()
    package = pack({"main.py": FUNCTION + "\nprint('once')"})
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: worker.give(order, package), range(10)))
    assert [answer for answer in answers if answer != answers[0]] == []
    assert answers[0][0] == 200
    worker.settle()


@pytest.mark.parametrize("name", ["worker_id", "boot_id"])
def test_a_function_for_another_worker_is_not_taken(worker: Worker, name: str) -> None:
    status, _ = worker.give(worker.order(**{name: "another"}), pack({"main.py": FUNCTION}))
    assert status == 421
    # It is free still.
    assert worker.specialize(FUNCTION)["imported"]


BAD: list[tuple[str, Any]] = [
    *((name, None) for name in ("function_id", "entry", "key", "revision", *LIMITS)),
    *((name, "text") for name in ("revision", *LIMITS)),
    *((name, 0) for name in ("revision", *LIMITS)),
    *((name, True) for name in ("revision", "import_timeout")),
    ("key", "00" * 31),
    ("key", "z" * 64),
    ("entry", "main"),
    ("entry", ".main"),
    ("entry", "main."),
    ("entry", "a b.main"),
    ("entry", "../x.main"),
    ("import_timeout", -1),
]


def test_what_is_wrong_about_a_function_is_named(worker: Worker) -> None:
    for name, value in BAD:
        status, answer = worker.give(worker.order(**{name: value}), pack({"main.py": FUNCTION}))
        assert status == 400, (name, value)
        assert name in answer["error"]
    for header in ("", "***", base64.b64encode(b"[]").decode(), base64.b64encode(b"{").decode()):
        status, answer = worker.ask(
            "POST", "/specialize", pack({"main.py": ""}), {"Qinling-Function": header}
        )
        assert status == 400
        assert "JSON" in answer["error"]
    assert worker.specialize(FUNCTION)["imported"]


def archive(*entries: tuple[zipfile.ZipInfo | str, str | bytes]) -> bytes:
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w", zipfile.ZIP_DEFLATED) as file:
        for entry, content in entries:
            file.writestr(entry, content)
    return found.getvalue()


def linked() -> bytes:
    link = zipfile.ZipInfo("main.py")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    return archive((link, "/etc/passwd"))


def encrypted() -> bytes:
    found = bytearray(pack({"main.py": FUNCTION}))
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        found[found.index(mark) + offset] |= 1
    return bytes(found)


def lying() -> bytes:
    """A bomb that says that it is small."""
    found = bytearray(pack({"main.py": b"0" * (20 * MB)}))
    place = found.index(b"PK\x01\x02") + 24
    found[place : place + 4] = (7).to_bytes(4, "little")
    return bytes(found)


@pytest.mark.parametrize(
    ("package", "words"),
    [
        (b"", "zip"),
        (b"no zip at all", "zip"),
        (pack({"main.py": FUNCTION})[:-30], "zip"),
        (archive(("/tmp/qinling-escaped", "x")), "outside"),
        (archive(("../qinling-escaped", "x")), "outside"),
        (archive(("a/../../qinling-escaped", "x")), "outside"),
        (archive(("a\\..\\b", "x")), "outside"),
        (linked(), "neither file nor folder"),
        (encrypted(), "zip"),
        (pack({"main.py": b"0" * (17 * MB)}), "max_unpacked_size"),
        (lying(), "zip"),
        (archive(("main.py", "x"), ("main.py/inner", "x")), "unpacked"),
        (archive(("main.py", "x"), ("./main.py", "y")), "two entries of one name"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_package_that_must_not_be_unpacked_is_refused_and_leaves_nothing(
    worker: Worker, tmp_path: Path, make: Any, package: bytes, words: str
) -> None:
    worker = make(TMPDIR=str(tmp_path))
    status, answer = worker.give(worker.order(), package)
    assert status == 400
    assert words in answer["error"]
    assert list(tmp_path.iterdir()) == []
    assert not Path("/tmp/qinling-escaped").exists()
    # It can have another one.
    assert worker.specialize(FUNCTION)["imported"]
    assert worker.run()["output"] == 7


def test_a_package_that_is_too_large_is_refused(worker: Worker) -> None:
    with contextlib.closing(worker.connect()) as connection:
        connection.putrequest("POST", "/specialize")
        connection.putheader("Content-Length", str((52 << 20) + 1))
        connection.endheaders()
        assert connection.getresponse().status == 413
    assert worker.specialize(FUNCTION)["imported"]


def test_a_sender_that_stops_halfway_leaves_the_worker_free(
    worker: Worker, tmp_path: Path, make: Any
) -> None:
    worker = make(TMPDIR=str(tmp_path))
    header = base64.b64encode(json.dumps(worker.order()).encode()).decode()
    with socket.create_connection(("127.0.0.1", worker.port)) as connection:
        connection.sendall(
            f"POST /specialize HTTP/1.1\r\nQinling-Function: {header}\r\n"
            f"Content-Length: 1000\r\n\r\nhalf".encode()
        )
    assert worker.specialize(FUNCTION)["imported"]
    assert worker.run()["output"] == 7
    assert [path.name for path in tmp_path.glob("*.zip")] == []
    # Nor is anybody left who was to import it.
    worker.settle()


UNSIGNED = [
    ("POST", "/execute"),
    ("POST", "/drain"),
    ("GET", "/executions/x"),
    ("DELETE", "/executions/x"),
    ("GET", "/anything"),
]


@pytest.mark.parametrize(("method", "path"), UNSIGNED)
def test_nobody_without_the_key_is_served(worker: Worker, method: str, path: str) -> None:
    worker.specialize(FUNCTION)
    body = json.dumps(worker.request()).encode() if path == "/execute" else b""
    forged = signing.sign_request(bytes(32), method, path, body)
    for headers in ({}, forged, forged | {signing.SIGNATURE: ""}):
        status, answer = worker.ask(method, path, body, headers)
        assert (status, list(answer)) == (401, ["error"])
    assert worker.ask("GET", "/healthz", headers={})[1]["status"] == "ready"
    assert worker.run()["output"] == 7


def test_the_key_of_another_worker_of_the_same_function_is_of_no_use(
    worker: Worker, make: Any
) -> None:
    other = make()
    for each in (worker, other):
        each.specialize(FUNCTION, function_id="the same")
    assert other.key is not None
    body = json.dumps(worker.request()).encode()
    headers = signing.sign_request(other.key, "POST", "/execute", body)
    assert worker.ask("POST", "/execute", body, headers)[0] == 401
    assert worker.run()["output"] == 7


def test_a_request_is_served_once(worker: Worker) -> None:
    worker.specialize(FUNCTION)
    assert worker.key is not None
    body = json.dumps(worker.request()).encode()
    headers = signing.sign_request(worker.key, "POST", "/execute", body)
    assert worker.ask("POST", "/execute", body, headers)[0] == 200
    assert worker.ask("POST", "/execute", body, headers)[0] == 401


@pytest.mark.parametrize(
    "other", [{"worker_id": "another"}, {"boot_id": "another"}, {"revision": 2}]
)
def test_what_is_meant_for_another_worker_or_revision_is_not_run(
    worker: Worker, other: dict[str, Any]
) -> None:
    worker.specialize(FUNCTION)
    body = worker.request(**other)
    assert worker.ask("POST", "/execute", body)[0] == 421
    assert worker.ask("GET", f"/executions/{body['execution_id']}")[0] == 404


def test_a_worker_without_a_function_runs_nothing(worker: Worker) -> None:
    assert worker.ask("POST", "/execute", worker.request())[0] == 421
    assert worker.ask("GET", "/executions/x")[0] == 404


@pytest.mark.parametrize(
    "change",
    [
        {"execution_id": None},
        {"execution_id": 7},
        {"input": {}},
        {"timeout": None},
        {"timeout": 0},
        {"timeout": "5"},
        {"revision": "1"},
        {"acknowledged": "x"},
        {"acknowledged": [7]},
    ],
)
def test_a_request_that_makes_no_sense_is_told_so(worker: Worker, change: dict[str, Any]) -> None:
    worker.specialize(FUNCTION)
    status, answer = worker.ask("POST", "/execute", worker.request() | change)
    assert status == 400
    assert next(iter(change)) in answer["error"]
    for body in (b"", b"[]", b"{", b"[" * 100_000):
        assert worker.ask("POST", "/execute", body)[0] == 400
    assert worker.run()["output"] == 7


@pytest.mark.parametrize(
    "head",
    [
        b"GET /healthz\r\n\r\n",
        b"GET /healthz HTTP/2.0\r\n\r\n",
        b"GET  /healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nContent-Length : 1\r\n\r\n",
        b"POST /drain HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n",
        b"GET /healthz HTTP/1.1\r\nA: " + b"b" * 70_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"POST /x HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /x HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n",
        b"BREW /pot HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
)
def test_a_head_that_is_not_understood_is_refused(worker: Worker, head: bytes) -> None:
    with socket.create_connection(("127.0.0.1", worker.port), timeout=10) as connection:
        connection.sendall(head)
        answer = connection.recv(65536)
    assert answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5")), answer
    assert worker.ask("GET", "/healthz")[1]["status"] == "ready"


def test_no_process_that_runs_user_code_has_the_key(worker: Worker) -> None:
    order = worker.order(entry="main.main")
    source = "import os\nseen = dict(os.environ)\ndef main(): return seen"
    status, _ = worker.give(order, pack({"main.py": source}))
    assert status == 200
    environment = worker.run()["output"]
    assert order["key"] not in json.dumps(environment)
    assert "QINLING_WORKER_LISTEN_FD" not in environment
    assert worker.key is not None
    pids = worker.settle()
    secrets_ = (worker.key, order["key"].encode(), order["key"].encode("utf-16-le"))
    found = {pid for pid in pids if any(secret in memory(pid) for secret in secrets_)}
    # The search works: the supervisor, which this root may read, has it.
    assert found == {worker.process.pid}
    # Nor has one of the others any way to it.
    assert (Path(f"/proc/{worker.process.pid}/maps").stat().st_uid) == 0
    listening = socket_of(worker.process.pid)
    for pid in set(pids) - {worker.process.pid}:
        opened = {str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()}
        assert not opened & listening, pid


def memory(pid: int) -> bytes:
    found = b""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as file:
        for line in maps:
            area, rights = line.split()[:2]
            start, end = (int(bound, 16) for bound in area.split("-"))
            if rights.startswith("rw"):
                with contextlib.suppress(OSError, ValueError, OverflowError):
                    file.seek(start)
                    found += file.read(end - start)
    return found


def socket_of(pid: int) -> set[str]:
    links = {str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()}
    inodes = {
        line.split()[9]
        for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
        if line.split()[3] == "0A"
    }
    found = {link for link in links if link in {f"socket:[{inode}]" for inode in inodes}}
    assert found
    return found


def test_a_function_cannot_read_its_supervisor(make: Any, tmp_path: Path) -> None:
    # Root may read everything.
    worker = make(uid=None if os.geteuid() else 61004, program=for_others(tmp_path))
    worker.specialize(
        """
import os

def main(pid):
    found = []
    for name in ("environ", "mem", "maps", "fd"):
        try:
            path = f"/proc/{pid}/{name}"
            os.listdir(path) if name == "fd" else open(path, "rb").read(1)
        except PermissionError:
            found.append(name)
    return found
"""
    )
    given = json.dumps({"pid": worker.process.pid})
    assert worker.run(given)["output"] == ["environ", "mem", "maps", "fd"]

"""The server inside a worker, as its orchestrator runs it: without anything but Python's own."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import qinling
from tests.fixtures.process import free_port, wait_until

PACKAGE = Path(qinling.__file__).parent
PROGRAM = [sys.executable, "-I", "-S", str(PACKAGE / "worker")]
ID = "7b0c7b52-3a55-4b0d-8e43-6a3d3a3b5a5e"


class Worker:
    """A worker process, on a socket that it inherited."""

    def __init__(self, worker_id: str = ID) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
            self.process = subprocess.Popen(
                PROGRAM,
                pass_fds=[listener.fileno()],
                cwd="/",
                env={
                    "QINLING_WORKER_ID": worker_id,
                    "QINLING_WORKER_LISTEN_FD": str(listener.fileno()),
                },
                stderr=subprocess.PIPE,
            )

    def ask(self, method: str, path: str) -> tuple[int, dict[str, Any]]:
        return ask(self.port, method, path)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(20)
        assert self.process.stderr is not None
        self.process.stderr.close()


def ask(port: int, method: str, path: str, host: str | None = None) -> tuple[int, dict[str, Any]]:
    client = http.client.HTTPConnection(host or "127.0.0.1", port, timeout=20)
    with contextlib.closing(client) as server:
        server.request(method, path)
        answer = server.getresponse()
        assert answer.getheader("Content-Type") == "application/json"
        return answer.status, json.loads(answer.read())


@pytest.fixture
def make() -> Iterator[Callable[..., Worker]]:
    made: list[Worker] = []

    def make(**options: str) -> Worker:
        made.append(Worker(**options))
        return made[-1]

    yield make
    for worker in made:
        worker.close()


def test_a_worker_tells_who_it_is_and_in_which_of_its_lives(make: Callable[..., Worker]) -> None:
    first, second = make(), make()
    status, answer = first.ask("GET", "/healthz")
    assert status == 200
    assert answer == {"worker_id": ID, "boot_id": answer["boot_id"], "status": "ready"}
    uuid.UUID(answer["boot_id"])
    assert first.ask("GET", "/healthz")[1] == answer
    # Restarted under the same id, as a container may be, it is another one.
    assert second.ask("GET", "/healthz")[1]["boot_id"] != answer["boot_id"]


@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("GET", "/drain"), ("POST", "/x")])
def test_an_unknown_url_is_told_as_such(
    make: Callable[..., Worker], method: str, path: str
) -> None:
    worker = make()
    status, answer = worker.ask(method, path)
    assert status == 404
    assert path in answer["error"]
    assert worker.ask("GET", "/healthz")[0] == 200


def test_an_idle_worker_that_is_drained_ends_at_once(make: Callable[..., Worker]) -> None:
    worker = make()
    status, answer = worker.ask("POST", "/drain")
    assert status == 202
    assert answer["status"] == "draining"
    assert worker.process.wait(20) == 0
    with pytest.raises(ConnectionRefusedError):
        worker.ask("GET", "/healthz")


def test_a_worker_that_is_terminated_ends_in_order(make: Callable[..., Worker]) -> None:
    worker = make()
    worker.ask("GET", "/healthz")
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(20) == 0
    assert worker.process.stderr is not None
    assert worker.process.stderr.read() == b""


def test_an_interrupt_of_the_terminal_is_the_engines_business(make: Callable[..., Worker]) -> None:
    worker = make()
    worker.ask("GET", "/healthz")
    worker.process.send_signal(signal.SIGINT)
    assert worker.ask("GET", "/healthz")[0] == 200


def test_nonsense_on_a_connection_does_no_harm(make: Callable[..., Worker]) -> None:
    worker = make()
    with socket.create_connection(("127.0.0.1", worker.port), timeout=20) as client:
        client.sendall(b"\0\xff nonsense\r\n\r\n")
        assert client.recv(1)
    with socket.create_connection(("127.0.0.1", worker.port), timeout=20) as client:
        client.sendall(b"GET /heal")
        # Half a request, and others are served meanwhile.
        assert worker.ask("GET", "/healthz")[0] == 200


@pytest.mark.parametrize("host", [None, "127.0.0.1", "::1"])
def test_a_worker_without_a_socket_listens_where_it_is_told(
    tmp_path: Path, host: str | None
) -> None:
    port = free_port()
    environment = {"QINLING_WORKER_ID": ID, "QINLING_WORKER_PORT": str(port)}
    if host is not None:
        environment["QINLING_WORKER_HOST"] = host
    with subprocess.Popen(PROGRAM, env=environment, cwd=tmp_path) as process:
        try:

            def answers() -> bool:
                with contextlib.suppress(ConnectionRefusedError):
                    return ask(port, "GET", "/healthz", host)[1]["worker_id"] == ID
                return False

            wait_until(answers, 20, "an answer")
        finally:
            process.kill()


def test_a_worker_without_an_id_says_what_is_missing() -> None:
    done = subprocess.run(PROGRAM, env={}, capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "QINLING_WORKER_ID" in done.stderr


#: Imports all that the worker's program does, as `python .../worker` would, and runs nothing.
LOOK = """
import json, runpy, sys
runpy.run_path(sys.argv[1], run_name="looked at")
print(json.dumps([[name, getattr(m, "__file__", None)] for name, m in sys.modules.items()]))
print(json.dumps(sys.path))
"""


def test_a_worker_imports_the_standard_library_and_nothing_else(tmp_path: Path) -> None:
    # A folder that offers modules of the standard library's names: none of them is found.
    for name in ("json", "http", "socket"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported from the folder')")
    done = subprocess.run(
        [*PROGRAM[:-1], "-c", LOOK, PROGRAM[-1]],
        env={"PYTHONPATH": str(tmp_path), "PATH": os.defpath},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    modules, path = map(json.loads, done.stdout.splitlines())
    ours = {name for name, _ in modules if name.partition(".")[0] == "qinling"}
    assert {tuple(name.split(".")[:2]) for name in ours} == {("qinling",), ("qinling", "worker")}
    allowed = [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")]
    strangers = {
        name
        for name, file in modules
        if name not in ours
        and file is not None
        and not any(Path(file).resolve().is_relative_to(place.resolve()) for place in allowed)
    }
    assert strangers == set()
    # Nor will anything that is imported later be taken from where this package is.
    assert not any("site-packages" in place for place in path)
    assert str(PACKAGE.parent) not in path
    assert str(tmp_path) not in path

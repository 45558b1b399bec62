"""``qinling-conformance``: does a server keep the contract of a worker?

For whoever builds an image for a runtime. It starts the server as Qinling does,
asks it what Qinling asks, ends it as Qinling does, and says of each point
whether it was met. The contract is doc/source/admin/runtime-image.rst.
"""

import argparse
import contextlib
import http.client
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

HOST = "127.0.0.1"
# Seconds that an idle worker may take to end, and between two questions.
_END = 5.0
_PAUSE = 0.05


class Broken(Exception):
    """A point of the contract that was not met."""


class Server:
    """One run of the server under test."""

    def __init__(self, command: Sequence[str], startup: float) -> None:
        self.worker_id = str(uuid.uuid4())
        self._startup = startup
        with socket.create_server((HOST, 0)) as probe:
            self.port = probe.getsockname()[1]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            env={
                "PATH": os.environ.get("PATH", os.defpath),
                "QINLING_WORKER_ID": self.worker_id,
                "QINLING_WORKER_HOST": HOST,
                "QINLING_WORKER_PORT": str(self.port),
            },
        )

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def ask(self, method: str, path: str) -> tuple[int, Any]:
        """Status and JSON of an answer; the JSON is None where there is none."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=_END)
        with contextlib.closing(connection):
            connection.request(method, path)
            return read(connection)

    def wait_ready(self) -> dict[str, Any]:
        """Its health, as soon as it is ready.

        :raises Broken: it is not in time.
        """
        deadline = time.monotonic() + self._startup
        last = "nobody listens"
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise Broken(f"it ended with code {self.process.returncode} before it was ready")
            try:
                status, health = self.ask("GET", "/healthz")
                if status == 200 and isinstance(health, dict):
                    return health
                last = f"it answers {status}"
            except OSError as error:
                last = error.strerror or str(error)
            time.sleep(_PAUSE)
        raise Broken(f"it is not ready after {self._startup:g} s: {last}")

    def wait_end(self) -> None:
        """:raises Broken: it has not ended in time, or not well."""
        try:
            code = self.process.wait(_END)
        except subprocess.TimeoutExpired as error:
            raise Broken(f"it is idle and has not ended after {_END:g} s") from error
        if code != 0:
            raise Broken(f"it ended with code {code} and not with 0")


def read(connection: http.client.HTTPConnection) -> tuple[int, Any]:
    """The next answer on a connection."""
    answer = connection.getresponse()
    content = answer.read()
    try:
        return answer.status, json.loads(content)
    except ValueError:
        return answer.status, None


def is_healthy(server: Server) -> None:
    """``GET /healthz`` is 200 when it is ready, with worker_id, boot_id and status."""
    health = server.wait_ready()
    if health.get("worker_id") != server.worker_id:
        raise Broken(
            f"worker_id is {health.get('worker_id')!r} and not QINLING_WORKER_ID, "
            f"{server.worker_id!r}"
        )
    if health.get("status") != "ready":
        raise Broken(f"status is {health.get('status')!r} and not 'ready'")
    if not (isinstance(health.get("boot_id"), str) and health["boot_id"]):
        raise Broken("boot_id is missing: it tells one start of the server from the next")


def keeps_boot_id(server: Server) -> None:
    """boot_id stays the same while it runs."""
    if server.wait_ready()["boot_id"] != server.ask("GET", "/healthz")[1]["boot_id"]:
        raise Broken("boot_id was another one at the second question")


def keeps_connections(server: Server) -> None:
    """Connections are kept open between two requests (HTTP/1.1)."""
    server.wait_ready()
    connection = http.client.HTTPConnection(HOST, server.port, timeout=_END)
    with contextlib.closing(connection):
        connection.connect()
        first = connection.sock
        for _ in range(2):
            connection.request("GET", "/healthz")
            read(connection)
            if connection.sock is not first:
                raise Broken("the connection was closed after an answer")


def answers_beside_the_silent(server: Server) -> None:
    """A client that connects and says nothing keeps no other one waiting."""
    server.wait_ready()
    with contextlib.ExitStack() as silent:
        for _ in range(8):
            silent.enter_context(socket.create_connection((HOST, server.port), _END))
        if server.ask("GET", "/healthz")[0] != 200:
            raise Broken("it is not healthy while others are connected")


def refuses_the_unknown(server: Server) -> None:
    """What it does not know is 404."""
    server.wait_ready()
    status, _ = server.ask("GET", "/nothing/of/the/kind")
    if status != 404:
        raise Broken(f"it answers {status}")


def drains(server: Server) -> None:
    """``POST /drain`` is 202, and an idle server ends then, with code 0."""
    server.wait_ready()
    status, _ = server.ask("POST", "/drain")
    if status != 202:
        raise Broken(f"it answers {status}")
    server.wait_end()


def ends_on_sigterm(server: Server) -> None:
    """An idle server ends on SIGTERM, with code 0."""
    server.wait_ready()
    server.process.terminate()
    server.wait_end()


def is_another_boot(server: Server) -> None:
    """Each start has a boot_id of its own."""
    other = Server(server.process.args, server._startup)  # type: ignore[arg-type]
    with contextlib.closing(other):
        if server.wait_ready()["boot_id"] == other.wait_ready()["boot_id"]:
            raise Broken("two starts had the same boot_id")


POINTS: tuple[Callable[[Server], None], ...] = (
    is_healthy,
    keeps_boot_id,
    is_another_boot,
    keeps_connections,
    answers_beside_the_silent,
    refuses_the_unknown,
    drains,
    ends_on_sigterm,
)


def verdicts(command: Sequence[str], startup: float) -> Iterator[tuple[str, str | None]]:
    """Each point of the contract, and what is wrong with it or None."""
    for point in POINTS:
        words = (point.__doc__ or point.__name__).strip()
        try:
            with contextlib.closing(Server(command, startup)) as server:
                point(server)
        except Broken as error:
            yield words, str(error)
        except (OSError, http.client.HTTPException, KeyError, TypeError) as error:
            yield words, f"{type(error).__name__}: {error}"
        else:
            yield words, None


def main() -> int:
    parser = argparse.ArgumentParser(prog="qinling-conformance", description=__doc__)
    parser.add_argument(
        "command",
        help="what starts the server, split as a shell splits words; for an image as "
        "'docker run --rm --network host --env QINLING_WORKER_ID --env QINLING_WORKER_HOST "
        "--env QINLING_WORKER_PORT IMAGE'",
    )
    parser.add_argument(
        "--startup", type=float, default=30.0, help="seconds until it must be ready (%(default)s)"
    )
    arguments = parser.parse_args()
    broken = 0
    for words, fault in verdicts(shlex.split(arguments.command), arguments.startup):
        print(f"{'ok    ' if fault is None else 'BROKEN'}  {words}")
        if fault is not None:
            broken += 1
            print(f"        {fault}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())

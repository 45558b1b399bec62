"""The WSGI application in the servers of the installation guide, with two processes each.

The engine here looks at what is not settled once in a minute only, so that what becomes available
soon was cast by the process that served the request.
"""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fixtures.deployment import BIN, Client, Distributed
from tests.fixtures.mariadb import MariaDB
from tests.fixtures.process import Process, free_port, wait_until
from tests.fixtures.rabbitmq import RabbitMQ
from tests.fixtures.rawhttp import JSON, NOBODY, RUNTIMES, exchange, request

APPLICATION = "qinling.wsgi.api:application"
CHUNKED = "Transfer-Encoding: chunked"

_GUNICORN = ("gunicorn", "--workers=2", "--worker-class=gthread", "--threads=4", "--bind=")
#: What starts a server of two processes; the address follows. As they are here gunicorn makes the
#: application in each process, and before it forks, and uWSGI before it forks.
SERVERS = {
    "gunicorn": _GUNICORN,
    "gunicorn preloaded": (_GUNICORN[0], "--preload", *_GUNICORN[1:]),
    "uwsgi": (
        "uwsgi",
        *("--master", "--processes=2", "--threads=4", "--enable-threads", "--die-on-term"),
        *(
            "--add-header=Connection: close",
            "--thunder-lock",
            f"--module={APPLICATION}",
            "--http-socket=",
        ),
    ),
}


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, mariadb: MariaDB, rabbitmq: RabbitMQ
) -> Iterator[Distributed]:
    """An engine at work, and nobody who serves the API."""
    mariadb.heal()
    rabbitmq.heal()
    options = {"engine": {"unsettled_interval": "60", "settled_interval": "60"}}
    root = tmp_path_factory.mktemp("web")
    found = Distributed(root, mariadb, rabbitmq, options, vhost="web")
    try:
        found.migrate()
        found.engine.start()
        found.engine.wait_for_line("The engine is running", timeout=30)
        yield found
    finally:
        found.close()


@dataclass(frozen=True, slots=True)
class Served:
    name: str
    process: Process
    client: Client

    def pids(self, line: str) -> set[str]:
        """The processes that have logged a line like this."""
        return set(re.findall(rf"^\S+ \S+ (\d+) INFO .*{line}", self.process.log(), re.MULTILINE))


@pytest.fixture(scope="module", params=SERVERS)
def served(request: pytest.FixtureRequest, site: Distributed) -> Iterator[Served]:
    name = request.param
    program, *options = SERVERS[name]
    address = f"127.0.0.1:{free_port()}"
    command: list[str | Path] = [BIN / program, *options[:-1], options[-1] + address]
    if program == "gunicorn":
        command.append(APPLICATION)
    process = Process(
        command,
        site.root / f"{name}.log",
        env={**os.environ, "OS_QINLING_CONFIG_FILES": str(site.config), "HOME": str(site.root)},
        cwd=site.root,
    )
    with process:
        process.wait_for_line("Listening at|spawned uWSGI worker 2", 60)
        found = Served(name, process, Client(f"http://{address}"))
        yield found
        assert process.terminate(30) == 0
        assert "Traceback" not in process.log()


def test_runtimes_live_their_lives_whichever_process_serves_a_call(served: Served) -> None:
    created = []

    def both_have_served() -> bool:
        # Each on a connection of its own, which either process may take.
        runtime = Client(served.client.url).create(name=served.name)
        created.append(runtime["id"])
        return len(served.pids("POST /v1/runtimes 201")) == 2

    wait_until(both_have_served, 60, "a call for each process", pause=0)
    for runtime_id in created:
        served.client.wait_for(runtime_id, "available", 30)
    answer = served.client.call("GET", f"{RUNTIMES}?name={served.name}&limit=1")
    assert answer.json()["next"].startswith(f"{served.client.url}{RUNTIMES}?")
    answer = served.client.call("GET", f"{RUNTIMES}?name={served.name}")
    assert {runtime["id"] for runtime in answer.json()["runtimes"]} == set(created)
    for runtime_id in created:
        served.client.delete(runtime_id)
    for runtime_id in created:
        served.client.wait_gone(runtime_id, 30)


def test_a_body_in_chunks_is_put_together_or_its_length_asked_for(served: Served) -> None:
    data = request("POST", RUNTIMES, JSON, CHUNKED)
    data += b'9\r\n{"image":\r\n10\r\n"not/of/any/host\r\n2\r\n"}\r\n0\r\n\r\n'
    (answer,) = exchange(served.client.url, data)
    if served.name == "uwsgi":
        assert "Content-Length" in answer.refused(411)
    else:
        assert answer.status == 201
        served.client.delete(json.loads(answer.body)["id"])


@pytest.mark.parametrize(
    "chunks",
    [
        b"zz\r\n{}\r\n0\r\n\r\n",
        b"-2\r\n{}\r\n0\r\n\r\n",
        b"5\r\n{}",
        b"1\r\n{}\r\n0\r\n\r\n",
        b"2;",
    ],
    ids=["no number", "a negative size", "the end within", "longer than its size", "no end"],
)
def test_chunks_that_are_none_are_the_clients_fault(served: Served, chunks: bytes) -> None:
    (answer,) = exchange(served.client.url, request("POST", RUNTIMES, JSON, CHUNKED) + chunks)
    assert "body" in answer.refused(411 if served.name == "uwsgi" else 400)


def test_errors_have_the_contracts_body(served: Served) -> None:
    for method, path, code in (
        ("GET", f"{RUNTIMES}/{NOBODY}", 404),
        ("GET", "/nothing", 404),
        ("PATCH", RUNTIMES, 405),
        ("GET", f"{RUNTIMES}?color=red", 400),
    ):
        (answer,) = exchange(served.client.url, request(method, path, "Connection: close"))
        answer.refused(code)

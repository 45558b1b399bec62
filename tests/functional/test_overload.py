"""More executions than a server lets callers wait for: refused at once, and no other call waits."""

import concurrent.futures
import contextlib
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fixtures.deployment import Client, Standalone, measured, running
from tests.fixtures.process import wait_until
from tests.fixtures.rawhttp import JSON, NOBODY, Answer, exchange, request

LIMIT = 3
MAX_INPUT = 64 * 1024
#: Seconds in which a call is answered that waits for nothing, also on a busy machine.
AT_ONCE = 2.0
EXECUTIONS = "/v1/executions"
SLEEPER = """
import time

def main(seconds=0):
    time.sleep(seconds)
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    """An installation that lets few callers wait."""
    limits = {"max_inflight_executions": LIMIT, "max_input_size": MAX_INPUT}
    options = {"api": {name: str(value) for name, value in limits.items()}}
    found = Standalone(tmp_path_factory.mktemp("overload"), options)
    with running(found):
        yield found


@pytest.fixture(scope="module")
def runtime_id(service: Standalone) -> str:
    runtime = service.client.create()
    service.client.wait_for(runtime["id"], "available")
    return str(runtime["id"])


@pytest.fixture(scope="module")
def sleeper(service: Standalone, runtime_id: str) -> str:
    """A function's id."""
    return str(service.client.create_function(runtime_id, SLEEPER, timeout=60)["id"])


def under_way(client: Client) -> list[dict[str, Any]]:
    found = client.call("GET", f"{EXECUTIONS}?status=running").json()["executions"]
    return list(found)


def serves_again(client: Client, function_id: str) -> bool:
    """Whether as many as may be are let in at once."""
    with concurrent.futures.ThreadPoolExecutor(LIMIT) as pool:
        body = {"function_id": function_id, "input": '{"seconds": 0.5}'}
        calls = [
            pool.submit(Client(client.url).call, "POST", EXECUTIONS, json=body)
            for _ in range(LIMIT)
        ]
        return {call.result().status_code for call in calls} == {201}


def test_what_would_be_too_many_is_refused_at_once_and_other_calls_are_answered(
    service: Standalone, runtime_id: str, sleeper: str
) -> None:
    client = service.client
    body = {"function_id": sleeper, "input": '{"seconds": 20}'}
    data = request("POST", EXECUTIONS, JSON, body=json.dumps(body).encode())
    with contextlib.ExitStack() as stack, concurrent.futures.ThreadPoolExecutor(LIMIT) as pool:
        gone = stack.enter_context(socket.create_connection(("127.0.0.1", service.port)))
        gone.sendall(data)
        calls = [pool.submit(Client(service.url).execute, **body) for _ in range(LIMIT - 1)]
        waiting = wait_until(
            lambda: len(found := under_way(client)) == LIMIT and found, 15, "all under way"
        )
        # That a caller has gone does not end what it has begun.
        gone.close()
        for more in ({}, {"sync": False}, {"function_id": NOBODY}):
            answer = client.call("POST", EXECUTIONS, json=body | more)
            assert "try again" in Answer.of(answer).refused(429)
            assert answer.headers["Retry-After"] == "1"
        # The connection is good for the next call, though nobody has read the body.
        answers = exchange(service.url, data + request("GET", f"/v1/runtimes/{runtime_id}"))
        assert [answer.status for answer in answers] == [429, 200]
        assert measured(lambda: client.show(runtime_id)) < AT_ONCE
        assert under_way(client) == waiting
        for execution in waiting:
            client.call("DELETE", f"{EXECUTIONS}/{execution['id']}")
        assert {call.result()["status"] for call in calls} == {"error"}
    wait_until(lambda: serves_again(client, sleeper), 10, "as many are let in as before")


def test_whatever_ends_a_request_leaves_its_place_to_the_next(
    service: Standalone, sleeper: str
) -> None:
    half = request("POST", EXECUTIONS, JSON, body=b"{" + b" " * 100)[:-50]
    for _ in range(LIMIT + 1):
        answer = service.client.call("POST", EXECUTIONS, json={"function_id": NOBODY})
        assert answer.status_code == 404
        answer = service.client.call("POST", EXECUTIONS, data="nonsense")
        assert answer.status_code in (400, 415)
        large = {"function_id": sleeper, "input": "x" * MAX_INPUT}
        answer = service.client.call("POST", EXECUTIONS, json=large)
        assert str(MAX_INPUT) in Answer.of(answer).refused(413)
        with socket.create_connection(("127.0.0.1", service.port)) as connection:
            connection.sendall(half)
    wait_until(lambda: serves_again(service.client, sleeper), 10, "as many are let in as before")
